"""A small YOLOv2 on the built-in shapes: minutes on a laptop, no download.

    kerasdet train zoo/yolo_v2_shapes/recipe.py
    kerasdet evaluate runs/yolo_v2_shapes-1 --data 'shapes:test?count=300&size=128'

Expect: not measured yet. The anchors are the dimension clusters of the data:

    kerasdet data anchors 'shapes:train?count=300&size=128' --clusters 3 --image-size 128
"""

import kerasdet


def yolo_v2_shapes(class_names):
    """128 pixels are 4x4 cells."""
    return kerasdet.zoo.yolo_v2_small(
        class_names=class_names,
        image_size=128,
        width=16,
        anchors=((0.46875, 0.46875), (0.8125, 0.78125), (1.5, 1.5)),
        name="yolo_v2_shapes",
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo_v2_shapes,
        train="shapes:train?count=5000&size=128",
        val="shapes:val?count=200&size=128",
        epochs=10,
        batch_size=16,
        augment="flip",
        optimizer="adam",
        learning_rate=2e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-4,
        evaluate_every=10,
    )
