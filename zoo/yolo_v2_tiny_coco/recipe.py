"""YOLOv2 tiny on COCO.

    kerasdet train zoo/yolo_v2_tiny_coco/recipe.py --data-dir DIR
    # DIR holds annotations/, train2017/ and val2017/
    kerasdet evaluate runs/yolo_v2_tiny_coco-1 \
        --data coco:DIR/annotations/instances_val2017.json,DIR/val2017 --rule coco

Paper: no figure. Not yet trained here.
Schedule: cfg/yolov2-tiny.cfg: 500 200 iterations of 64, a tenth at 400 000 and 450 000.
"""

from functools import partial

import kerasdet
from kerasdet.data import augment_yolo


def yolo_v2_tiny_coco(class_names, pretrained):
    """yolov2-tiny.cfg: COCO's anchors, a narrower last convolution, objectness drawn to 1."""
    return kerasdet.zoo.yolo_v2_tiny(
        class_names=class_names,
        pretrained=pretrained,
        anchors="coco",
        head_filters=(512,),
        loss={"rescore": False},
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo_v2_tiny_coco,
        train="coco:{data_dir}/annotations/instances_train2017.json,{data_dir}/train2017",
        val="coco:{data_dir}/annotations/instances_val2017.json,{data_dir}/val2017",
        epochs=271,
        batch_size=64,
        augment=partial(augment_yolo.yolo_v2, jitter=0.2),  # yolov2-tiny.cfg; yolov2.cfg has 0.3
        multi_scale=tuple(range(320, 609, 32)),
        multi_scale_last=200,  # detector.c
        optimizer="sgd",
        learning_rate=1e-3,
        warmup_epochs=0.54,
        warmup_power=4,
        milestones=(216, 243),
        weight_decay=5e-4,
        rule="coco",
        evaluate_every=10,
    )
