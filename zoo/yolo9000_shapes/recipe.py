"""A small YOLO9000 on the built-in shapes: stars and crosses are learned from labels alone.

    kerasdet train zoo/yolo9000_shapes/recipe.py
    kerasdet evaluate runs/yolo9000_shapes-1 --data 'shapes:test?count=300&size=128'

Three kinds of shapes come with boxes; all five come as images of one shape with its label and no box.
What the network says of stars and crosses it has from joint training. Expect: little, see the card.
"""

import kerasdet
from kerasdet.backbones.small import small


def yolo9000_shapes(class_names):
    """A tree of two levels over 4x4 cells of 128 pixels."""
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
        anchors=((0.46875, 0.46875), (0.8125, 0.78125), (1.5, 1.5)),
        image_size=128,
        resize="warp",
        name="yolo9000_shapes",
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo9000_shapes,
        train="shapes:train?count=3000&size=128&classes=ellipse,rectangle,triangle",
        classification_train="shapes:train?count=3000&size=128",
        val="shapes:val?count=200&size=128",
        detection_share=0.5,
        epochs=12,
        batch_size=32,
        augment="flip",
        optimizer="adam",
        learning_rate=2e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-4,
        match_names=True,
        evaluate_every=12,
    )
