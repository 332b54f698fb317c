"""A small YOLOv2 on the built-in shapes: minutes on a laptop, no download.

    kerasdet train zoo/yolo_v2_shapes/recipe.py
    kerasdet evaluate runs/yolo_v2_shapes-1 --data 'shapes:test?count=300&size=128'

Expect: see result.json beside this file. The anchors are the dimension clusters of the data:

    kerasdet data anchors 'shapes:train?count=500&size=128' --clusters 5 --image-size 256
"""

import kerasdet

ANCHORS = ((0.8125, 0.8125), (1.125, 1.125), (1.625, 1.5625), (2.4375, 2.375), (3.4375, 3.625))


def yolo_v2_shapes(class_names):
    """Shapes of 13 to 77 pixels in images of 128, seen twice as large: 8x8 cells."""
    return kerasdet.zoo.yolo_v2_small(
        class_names=class_names,
        image_size=256,
        width=16,
        anchors=ANCHORS,
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
        evaluate_every=5,
    )
