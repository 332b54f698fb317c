"""The extraction network on ImageNet, fine-tuned at 448 pixels.

    kerasdet train zoo/extraction_448_imagenet/recipe.py --data-dir DIR
    # DIR holds train/ and val/, a folder a class

Start it from a network trained here at 224: --start-from runs/extraction-1
Paper: no figure of the classifier (Redmon and Farhadi, YOLO9000, sec. 2, table 2). Not yet trained here.
Schedule: 10 epochs (sec. 2); rate and polynomial are Darknet-19's at 448 (sec. 3; darknet19_448.cfg), as
no other is published.
"""

from functools import partial

import kerasdet
from kerasdet.data import augment_classifier

# extraction.cfg's crops at twice its size: shorter sides of 448 to 640, and nothing else.
_cropped = partial(
    augment_classifier.darknet,
    crop=(1.0, 320 / 224),
    angle=0.0,
    aspect=1.0,
    hue=0.0,
    saturation=1.0,
    exposure=1.0,
)


def recipe():
    return kerasdet.Recipe(
        model="extraction",
        train="folders:{data_dir}/train",  # or "tfds:imagenet2012:train"
        val="folders:{data_dir}/val",
        pretrained="imagenet",
        epochs=10,
        batch_size=128,
        image_size=448,
        augment=_cropped,
        optimizer="sgd",
        learning_rate=1e-3,
        schedule="poly",
        power=4,
        weight_decay=5e-4,
    )
