"""A small YOLO9000 on the built-in shapes: what kind a shape is, it learns from labels alone.

    kerasdet train zoo/yolo9000_shapes/boxes.py
    kerasdet train zoo/yolo9000_shapes/recipe.py
    kerasdet evaluate runs/yolo9000_shapes-1 --data 'shapes:unseen?count=300&size=128' --match-names

Boxes come with a coarse label, "smooth" or "angular", and there are none around triangles and crosses;
five kinds of shapes come as images of one shape with its label and no box. Whatever the network
says of the kinds it has from joint training. Expect: see result.json beside this file.
"""

from pathlib import Path

import kerasdet
from kerasdet.backbones.small import small

# Dimension clusters: kerasdet data anchors 'shapes:train?count=500&size=128' --clusters 5 --image-size 256
ANCHORS = ((0.8125, 0.8125), (1.125, 1.125), (1.625, 1.5625), (2.4375, 2.375), (3.4375, 3.625))


def yolo9000_shapes(class_names):
    """The network of boxes.py; shapes of 13 to 77 pixels in images of 128, seen twice as large."""
    del class_names  # three of the five
    tree = kerasdet.WordTree.from_parents(
        {
            "smooth": None,
            "angular": None,
            "ellipse": "smooth",
            "rectangle": "angular",
            "triangle": "angular",
            "star": "angular",
            "cross": "angular",
        }
    )
    return kerasdet.YOLO9000(
        tree,
        backbone=small((None, None), width=16),
        anchors=ANCHORS,
        image_size=256,
        resize="warp",
        loss={"prior_images": 0},  # the boxes are learned
        name="yolo9000_shapes",
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo9000_shapes,
        start_from="runs/yolo9000_shapes_boxes-1",
        train="shapes:train?count=4000&size=128&classes=ellipse,rectangle,star",
        nodes=str(Path(__file__).with_name("coarse.txt")),  # smooth, angular, angular
        classification_train="shapes:train?count=4000&size=128",
        val="shapes:val?count=200&size=128",
        detection_share=0.5,
        epochs=12,
        batch_size=32,
        augment="flip",
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-4,
        match_names=True,
        evaluate_every=4,
    )
