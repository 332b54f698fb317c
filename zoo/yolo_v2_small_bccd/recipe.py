"""A small YOLOv2, from scratch, on blood cells (BCCD: 364 photos, 3 classes, 416 pixels).

    kerasdet train zoo/yolo_v2_small_bccd/recipe.py --data-dir DIR      # DIR holds BCCD/
    kerasdet evaluate runs/yolo_v2_bccd-1 --data voc:DIR/BCCD:test

Expect: see result.json beside this file. The anchors are the dimension clusters of the training photos:

    kerasdet data anchors voc:DIR/BCCD:train --clusters 5 --image-size 416
"""

from functools import partial

import kerasdet
from kerasdet.data import augment_yolo


def yolo_v2_bccd(class_names):
    """Of 416 pixels a platelet takes 26, a red cell 55 to 75, a white cell 130; a cell is 32."""
    return kerasdet.zoo.yolo_v2_small(
        class_names=class_names,
        anchors=(
            (0.8125, 0.79219),
            (2.0312, 1.8078),
            (2.1328, 2.1531),
            (2.4781, 2.2953),
            (4.4281, 4.0422),
        ),
        name="yolo_v2_bccd",
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo_v2_bccd,
        train="voc:{data_dir}/BCCD:train",
        val="voc:{data_dir}/BCCD:val",
        epochs=60,
        batch_size=8,
        # Cells have one size under one microscope: the release's 0.25 to 2 would hide them.
        augment=partial(augment_yolo.yolo_v2, scale=(0.75, 1.25), jitter=0.1),
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=3,
        weight_decay=1e-4,
        evaluate_every=10,
    )
