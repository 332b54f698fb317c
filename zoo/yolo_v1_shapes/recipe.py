"""A small YOLO v1 on the built-in shapes, with the paper's head, few and large objects.

    kerasdet train zoo/yolo_v2_shapes/recipe.py
    kerasdet train zoo/yolo_v1_shapes/recipe.py --start-from runs/yolo_v2_shapes-1
    kerasdet evaluate runs/yolo_v1_shapes-1 --data 'shapes:test?count=300&size=224&objects=2&sides=0.2,0.8'

Expect: see result.json beside this file.
"""

import kerasdet
from kerasdet.backbones.small import small

DATA = "size=224&objects=2&sides=0.2,0.8"


def yolo_v1_shapes(class_names):
    """224 pixels give 7x7 cells of 128 channels, and those go through one hidden layer."""
    return kerasdet.YOLOv1(
        class_names=class_names,
        backbone=small((224, 224), width=16),
        head="paper",
        hidden=(1024,),
        dropout=0.2,
        image_size=224,
        name="yolo_v1_shapes",
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo_v1_shapes,
        train=f"shapes:train?count=5000&{DATA}",
        val=f"shapes:val?count=200&{DATA}",
        epochs=15,
        batch_size=16,
        augment="yolo_v1",
        optimizer="adam",
        learning_rate=3e-4,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-4,
        evaluate_every=5,
    )
