"""The extraction network on ImageNet without batch normalisation, from which the paper's YOLO starts.

    kerasdet train zoo/extraction_imagenet/plain.py --data-dir DIR
    # DIR holds train/ and val/, a folder a class

Paper: top-5 88 (Redmon et al., YOLO, sec. 2.2). Not yet trained here.
Schedule: cfg/extraction.cfg of darknet before it normalised (commit 42ba5d4): 500 000 iterations of 128,
10 010 of them an epoch; 0.5 with a polynomial of power 6; crops of 224 out of 256 pixels, mirrored and
nothing else. Its 256 pixels are both sides of the image, here the shorter one.
"""

from functools import partial

import kerasdet
from kerasdet.data import augment_classifier

_cropped = partial(
    augment_classifier.darknet,
    crop=(256 / 224, 256 / 224),
    angle=0.0,
    aspect=1.0,
    hue=0.0,
    saturation=1.0,
    exposure=1.0,
)


def extraction_plain(class_names, pretrained):
    """As zoo/yolo_v1_voc0712/plain.py wants it."""
    return kerasdet.zoo.extraction(
        class_names=class_names, pretrained=pretrained, batch_norm=False, name="extraction_plain"
    )


def recipe():
    return kerasdet.Recipe(
        model=extraction_plain,
        task="classification",
        train="folders:{data_dir}/train",  # or "tfds:imagenet2012:train"
        val="folders:{data_dir}/val",
        epochs=50,
        batch_size=128,
        image_size=224,
        augment=_cropped,
        optimizer="sgd",
        learning_rate=0.5,
        schedule="poly",
        power=6,
        weight_decay=5e-4,
    )
