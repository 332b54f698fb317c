"""A small YOLO v1 on the built-in shapes, with the paper's head.

    kerasdet train zoo/yolo_v1_shapes/recipe.py
    kerasdet evaluate runs/yolo_v1_shapes-1 --data 'shapes:test?count=300&size=224'

Expect: not measured yet.
"""

import kerasdet
from kerasdet.backbones.small import small


def yolo_v1_shapes(class_names):
    """224 pixels give 7x7 cells of 128 channels, and those go through one hidden layer."""
    return kerasdet.YOLOv1(
        class_names=class_names,
        backbone=small((224, 224), width=16),
        head="paper",
        hidden=(512,),
        dropout=0.2,
        image_size=224,
        name="yolo_v1_shapes",
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo_v1_shapes,
        train="shapes:train?count=5000&size=224",
        val="shapes:val?count=200&size=224",
        epochs=15,
        batch_size=16,
        augment="yolo_v1",
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-4,
        evaluate_every=15,
    )
