r"""A small Fast R-CNN on the built-in shapes, with Selective Search: minutes on a laptop, no download.

    kerasdet train zoo/fast_rcnn_shapes/recipe.py
    kerasdet evaluate runs/fast_rcnn_shapes-1 --regions selective_search \
        --data 'shapes:test?count=300&size=128&objects=4'

Expect: see result.json beside this file. The regions are found as the images come, in the first epoch,
and kept.
"""

import kerasdet


def fast_rcnn_shapes(class_names):
    """128 pixels are 16x16 cells; shapes are 13 to 77 pixels long."""
    return kerasdet.zoo.fast_rcnn_small(
        class_names=class_names,
        image_size=128,
        sampling={"background_iou": (0.0, 0.5)},
        name="fast_rcnn_shapes",
    )


def recipe():
    return kerasdet.Recipe(
        model=fast_rcnn_shapes,
        train="shapes:train?count=2000&size=128&objects=4",
        val="shapes:val?count=200&size=128&objects=4",
        regions="selective_search",
        cache=True,
        epochs=15,
        batch_size=8,
        augment="flip",
        optimizer="adam",
        learning_rate=2e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-4,
        evaluate_every=15,
    )
