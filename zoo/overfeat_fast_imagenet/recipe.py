"""OverFeat's fast network on ImageNet, windows of 231 pixels.

    kerasdet train zoo/overfeat_fast_imagenet/recipe.py --data-dir DIR
    # DIR holds train/ and val/, a folder a class
    kerasdet evaluate runs/overfeat_fast-1 --data folders:DIR/val --views scales

Paper: top-1 error 39.28, top-5 17.12 (one scale, coarse), and 38.12 and 16.27 (six scales, fine);
Sermanet et al., OverFeat, table 2. Not yet trained here.
Schedule: the paper's, sec. 3.1: mini-batches of 128, SGD with momentum 0.6, 0.05 halved after
epochs 30, 50, 60, 70 and 80, L2 of 1e-5, weights from N(0, 0.01), dropout 0.5; in each epoch five
crops of every image and their mirror images.
"""

import kerasdet
from kerasdet import classifier


def overfeat_fast(class_names):
    """The classifier, which localisation and detection start from."""
    return classifier.overfeat_fast(class_names=class_names, dropout=0.5, stddev=0.01)


def recipe():
    return kerasdet.Recipe(
        model=overfeat_fast,
        task="classification",
        train="folders:{data_dir}/train",  # or "tfds:imagenet2012:train"
        val="folders:{data_dir}/val",
        epochs=90,
        batch_size=128,
        augment="overfeat",
        crops=5,  # of each image, and their mirror images: sec. 3.1
        optimizer="sgd",
        learning_rate=0.05,
        momentum=0.6,
        schedule="steps",
        milestones=(30, 50, 60, 70, 80),
        scales=(0.5, 0.5, 0.5, 0.5, 0.5),
        weight_decay=1e-5,
    )
