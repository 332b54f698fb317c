"""YOLOv2 on Pascal VOC 2007 + 2012.

    kerasdet train zoo/yolo_v2_voc0712/recipe.py --data-dir DIR
    # DIR holds VOC2007/ and VOC2012/
    kerasdet evaluate runs/yolo_v2-1 \
        --data voc:DIR/VOC2007:test --rule voc07

Start it from a classifier trained here: --start-from runs/darknet19-2
Paper: 76.8 at 416 pixels, 78.6 at 544 (Redmon and Farhadi, YOLO9000, table 3). Not yet trained here.
Schedule: the paper's, sec. 2: 160 epochs at 1e-3, a tenth at 60 and at 90. yolov2-voc.cfg trains for
80 200 iterations of 64, 310 epochs, a tenth at 155 and 232; its burn_in of 1000 iterations is kept.
"""

import kerasdet


def recipe():
    return kerasdet.Recipe(
        model="yolo_v2",
        train=["voc:{data_dir}/VOC2007:trainval", "voc:{data_dir}/VOC2012:trainval"],
        val="voc:{data_dir}/VOC2007:test",
        pretrained="imagenet",
        epochs=160,
        batch_size=64,
        augment="yolo_v2",
        multi_scale=tuple(range(320, 609, 32)),
        multi_scale_last=200,  # detector.c
        optimizer="sgd",
        learning_rate=1e-3,
        warmup_epochs=3.86,
        warmup_power=4,
        milestones=(60, 90),
        weight_decay=5e-4,
        rule="voc07",
        evaluate_every=10,
    )
