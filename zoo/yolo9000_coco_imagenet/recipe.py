"""YOLO9000, jointly on COCO's boxes and ImageNet's labels.

    kerasdet train zoo/yolo9000_coco_imagenet/recipe.py --data-dir DIR
    # DIR holds annotations/, train2017/, val2017/ and imagenet/, a folder of photos for each wnid of
    # 9k.tree, and darknet's data/coco9k.map (`kerasdet.zoo.pretrained.fetch_nodes("coco")` has it)

Paper: 19.7 mAP on ImageNet DET val (Redmon and Farhadi, YOLO9000, sec. 4). Not yet trained here.
Schedule: cfg/yolo9000.cfg: 500 200 iterations of 64 images, a tenth at 400 000 and 450 000; the paper
oversamples COCO until ImageNet is four times as large. An epoch is a hundredth of that, however many
photos there are: neither set comes whole in one, and the next goes on with what is left.
"""

from functools import partial

import kerasdet
from kerasdet.data import augment_yolo

STEPS = 5002  # of an epoch


def yolo9000(class_names, pretrained):
    """The tree is darknet's, and so are the nodes of COCO's classes."""
    del class_names
    return kerasdet.zoo.yolo9000(pretrained=pretrained)


def recipe():
    return kerasdet.Recipe(
        model=yolo9000,
        pretrained="imagenet",
        train="coco:{data_dir}/annotations/instances_train2017.json,{data_dir}/train2017",
        val="coco:{data_dir}/annotations/instances_val2017.json,{data_dir}/val2017",
        classification_train="folders:{data_dir}/imagenet",
        nodes="{data_dir}/coco9k.map",
        detection_share=0.2,
        images_per_epoch=STEPS * 64,
        epochs=100,
        batch_size=64,
        # yolo9000.cfg; yolov2.cfg has a jitter of 0.3 and 1.5 twice.
        augment=partial(augment_yolo.yolo_v2, jitter=0.2, saturation=0.75, exposure=0.75),
        multi_scale=tuple(range(320, 609, 32)),
        multi_scale_last=200,  # detector.c
        optimizer="sgd",
        learning_rate=1e-3,
        warmup_epochs=1000 / STEPS,
        warmup_power=4,
        milestones=(400_000 / STEPS, 450_000 / STEPS),
        weight_decay=5e-4,
        rule="coco",
        evaluate_every=5,
    )
