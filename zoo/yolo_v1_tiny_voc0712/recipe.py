"""YOLO v1 tiny on Pascal VOC 2007 + 2012.

    kerasdet train zoo/yolo_v1_tiny_voc0712/recipe.py --data-dir DIR
    # DIR holds VOC2007/ and VOC2012/
    kerasdet evaluate runs/yolo_v1_tiny-1 \
        --data voc:DIR/VOC2007:test --rule voc07

Paper: 52.7 on VOC07 test for its Fast YOLO of nine convolutions (table 1). Not yet trained here.
Schedule: cfg/yolov1-tiny.cfg: 40 000 iterations of 64 images, 259 of them an epoch; 5e-4 rises to
1e-2 in steps at 200, 400, 600 and 800, a tenth at 20 000 and 30 000.
"""

from functools import partial

import kerasdet
from kerasdet.data import augment_yolo


def recipe():
    return kerasdet.Recipe(
        model="yolo_v1_tiny",
        train=["voc:{data_dir}/VOC2007:trainval", "voc:{data_dir}/VOC2012:trainval"],
        val="voc:{data_dir}/VOC2007:test",
        epochs=155,
        batch_size=64,
        # yolov1-tiny.cfg; yolov1.cfg has 1.5 twice.
        augment=partial(augment_yolo.yolo_v1, saturation=0.75, exposure=0.75),
        optimizer="sgd",
        learning_rate=5e-4,
        milestones=(0.772, 1.544, 2.317, 3.089, 77.2, 115.8),
        scales=(2.5, 2, 2, 2, 0.1, 0.1),
        weight_decay=5e-4,
        rule="voc07",
        evaluate_every=10,
    )
