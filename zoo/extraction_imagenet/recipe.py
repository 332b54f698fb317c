"""The extraction network on ImageNet.

    kerasdet train zoo/extraction_imagenet/recipe.py --data-dir DIR
    # DIR holds train/ and val/, a folder a class

Paper: top-5 88 (Redmon et al., YOLO, sec. 2.2); darknet's site: top-1 72.5, top-5 90.8. Not yet trained here.
Schedule: cfg/extraction.cfg: 1 600 000 iterations of 128, 0.1 with a polynomial of power 4.
"""

from functools import partial

import kerasdet
from kerasdet.data import augment_classifier

# extraction.cfg has max_crop=320 alone: no turn, no stretch, no change of colours.
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
        epochs=160,
        batch_size=128,
        image_size=224,
        augment=_cropped,
        optimizer="sgd",
        learning_rate=0.1,
        schedule="poly",
        power=4,
        weight_decay=5e-4,
    )
