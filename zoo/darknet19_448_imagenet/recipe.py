"""Darknet-19 on ImageNet, fine-tuned at 448 pixels.

    kerasdet train zoo/darknet19_448_imagenet/recipe.py --data-dir DIR
    # DIR holds train/ and val/, a folder a class

Start it from a network trained here at 224: --start-from runs/darknet19-1
Paper: top-1 76.5, top-5 93.3 (Redmon and Farhadi, YOLO9000, sec. 3). Not yet trained here.
Schedule: the paper's: 10 epochs from 1e-3; the polynomial is darknet19_448.cfg's.
"""

import kerasdet


def recipe():
    return kerasdet.Recipe(
        model="darknet19",
        train="folders:{data_dir}/train",  # or "tfds:imagenet2012:train"
        val="folders:{data_dir}/val",
        pretrained="imagenet_224",
        epochs=10,
        batch_size=128,
        image_size=448,
        augment="darknet_448",  # darknet19_448.cfg: shorter sides of 448 to 512
        optimizer="sgd",
        learning_rate=1e-3,
        schedule="poly",
        power=4,
        weight_decay=5e-4,
    )
