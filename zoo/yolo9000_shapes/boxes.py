"""First of two: the network learns where shapes are, from boxes labelled smooth or angular alone.

kerasdet train zoo/yolo9000_shapes/boxes.py
"""

from pathlib import Path

import kerasdet
from kerasdet.backbones.small import small

# Dimension clusters: kerasdet data anchors 'shapes:train?count=500&size=128' --clusters 5 --image-size 256
ANCHORS = ((0.8125, 0.8125), (1.125, 1.125), (1.625, 1.5625), (2.4375, 2.375), (3.4375, 3.625))

TREE = {
    "smooth": None,
    "angular": None,
    "ellipse": "smooth",
    "rectangle": "angular",
    "triangle": "angular",
    "star": "angular",
    "cross": "angular",
}


def yolo9000_shapes_boxes(class_names):
    """A tree of two levels, of which the upper one learns here."""
    del class_names  # three kinds, whose boxes count as smooth or angular
    return kerasdet.YOLO9000(
        kerasdet.WordTree.from_parents(TREE),
        backbone=small((None, None), width=16),
        anchors=ANCHORS,
        image_size=256,
        resize="warp",
        name="yolo9000_shapes_boxes",
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo9000_shapes_boxes,
        train="shapes:train?count=4000&size=128&classes=ellipse,rectangle,star",
        nodes=str(Path(__file__).with_name("coarse.txt")),  # smooth, angular, angular
        epochs=8,
        batch_size=16,
        augment="flip",
        optimizer="adam",
        learning_rate=2e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-4,
    )
