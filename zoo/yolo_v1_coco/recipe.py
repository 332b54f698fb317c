"""YOLO v1 on COCO.

    kerasdet train zoo/yolo_v1_coco/recipe.py --data-dir DIR
    # DIR holds annotations/, train2017/ and val2017/
    kerasdet evaluate runs/yolo_v1_coco-1 \
        --data coco:DIR/annotations/instances_val2017.json,DIR/val2017 --rule coco

Paper: no figure. Not yet trained here.
Schedule: yolo-coco.cfg: 200 000 iterations of 64 images, 1849 of them an epoch; 5e-4 rises to 1e-2 in
steps at 200, 400, 600 and 800, a tenth at 100 000 and 150 000.
"""

from functools import partial

import kerasdet
from kerasdet.data import augment_yolo


def yolo_v1_coco(class_names, pretrained):
    """yolo-coco.cfg: the locally connected head and no dropout."""
    return kerasdet.zoo.yolo_v1(
        class_names=class_names, pretrained=pretrained, head="local", dropout=0.0
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo_v1_coco,
        train="coco:{data_dir}/annotations/instances_train2017.json,{data_dir}/train2017",
        val="coco:{data_dir}/annotations/instances_val2017.json,{data_dir}/val2017",
        epochs=108,
        batch_size=64,
        # yolo-coco.cfg; yolov1.cfg has 1.5 twice.
        augment=partial(augment_yolo.yolo_v1, saturation=0.75, exposure=0.75),
        optimizer="sgd",
        learning_rate=5e-4,
        milestones=(0.108, 0.216, 0.325, 0.433, 54.1, 81.2),
        scales=(2.5, 2, 2, 2, 0.1, 0.1),
        weight_decay=5e-4,
        rule="coco",
        evaluate_every=10,
    )
