"""YOLOv2 on COCO.

    kerasdet train zoo/yolo_v2_coco/recipe.py --data-dir DIR
    # DIR holds annotations/, train2017/ and val2017/
    kerasdet evaluate runs/yolo_v2_coco-1 \
        --data coco:DIR/annotations/instances_val2017.json,DIR/val2017 --rule coco

Start it from a classifier trained here: --start-from runs/darknet19-2
Paper: AP 21.6, AP50 44.0 on test-dev (Redmon and Farhadi, YOLO9000, table 5). Not yet trained here.
Schedule: cfg/yolov2.cfg: 500 200 iterations of 64, a tenth at 400 000 and 450 000; 1849 of them an
epoch. The paper trains for 160 epochs, as on VOC.
"""

import kerasdet


def yolo_v2_coco(class_names, pretrained):
    """yolov2.cfg: COCO's anchors, tested at 608 pixels."""
    return kerasdet.zoo.yolo_v2(
        class_names=class_names, anchors="coco", image_size=608, pretrained=pretrained
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo_v2_coco,
        pretrained="imagenet",
        train="coco:{data_dir}/annotations/instances_train2017.json,{data_dir}/train2017",
        val="coco:{data_dir}/annotations/instances_val2017.json,{data_dir}/val2017",
        epochs=271,
        batch_size=64,
        augment="yolo_v2",
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
