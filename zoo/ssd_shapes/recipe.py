"""A small SSD on the built-in shapes: minutes on a laptop, no download.

    kerasdet train zoo/ssd_shapes/recipe.py
    kerasdet evaluate runs/ssd_shapes-1 --data 'shapes:unseen?count=300&size=128'

Expect: see result.json beside this file.
"""

import kerasdet


def ssd_shapes(class_names):
    """128 pixels; shapes are 13 to 77 of them long."""
    return kerasdet.zoo.ssd_small(
        class_names=class_names,
        image_size=128,
        box_sizes=(16, 36, 64, 92),
        box_ratios=((2,), (2,), (2,)),
        name="ssd_shapes",
    )


def recipe():
    return kerasdet.Recipe(
        model=ssd_shapes,
        train="shapes:train?count=5000&size=128",
        val="shapes:val?count=200&size=128",
        epochs=8,
        batch_size=16,
        augment="flip",
        optimizer="adam",
        learning_rate=5e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-4,
        evaluate_every=8,
    )
