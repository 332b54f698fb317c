"""YOLOv2 tiny on Pascal VOC 2007 + 2012.

    kerasdet train zoo/yolo_v2_tiny_voc0712/recipe.py --data-dir DIR
    # DIR holds VOC2007/ and VOC2012/
    kerasdet evaluate runs/yolo_v2_tiny-1 \
        --data voc:DIR/VOC2007:test --rule voc07

Paper: none; darknet's site: 57.1 on VOC07 test at 416 pixels. Not yet trained here.
Schedule: cfg/yolov2-tiny-voc.cfg: 40 200 iterations of 64 images, 259 of them an epoch; 1e-4 for the
first 100, then 1e-3, a tenth at 20 000 and at 30 000.
"""

from functools import partial

import kerasdet
from kerasdet.data import augment_yolo


def recipe():
    return kerasdet.Recipe(
        model="yolo_v2_tiny",
        train=["voc:{data_dir}/VOC2007:trainval", "voc:{data_dir}/VOC2012:trainval"],
        val="voc:{data_dir}/VOC2007:test",
        epochs=155,
        batch_size=64,
        augment=partial(
            augment_yolo.yolo_v2, jitter=0.2
        ),  # yolov2-tiny-voc.cfg; yolov2.cfg has 0.3
        multi_scale=tuple(range(320, 609, 32)),
        multi_scale_last=200,  # detector.c
        optimizer="sgd",
        learning_rate=1e-4,
        milestones=(0.386, 77.2, 115.8),
        scales=(10, 0.1, 0.1),
        weight_decay=5e-4,
        rule="voc07",
        evaluate_every=10,
    )
