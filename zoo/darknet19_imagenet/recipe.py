"""Darknet-19 on ImageNet, at 224 pixels.

    kerasdet train zoo/darknet19_imagenet/recipe.py --data-dir DIR
    # DIR holds train/ and val/, a folder a class

Paper: top-1 72.9, top-5 91.2 (Redmon and Farhadi, YOLO9000, table 6). Not yet trained here.
Schedule: the paper's, sec. 3: 160 epochs, 0.1 with a polynomial of power 4, weight decay 5e-4.
"""

import kerasdet


def recipe():
    return kerasdet.Recipe(
        model="darknet19",
        train="folders:{data_dir}/train",  # or "tfds:imagenet2012:train"
        val="folders:{data_dir}/val",
        epochs=160,
        batch_size=128,
        image_size=224,
        augment="darknet",
        optimizer="sgd",
        learning_rate=0.1,
        schedule="poly",
        power=4,
        warmup_epochs=0.1,
        warmup_power=4,
        weight_decay=5e-4,
    )
