"""SSD300 on COCO train2017, tested on val2017.

    kerasdet train zoo/ssd300_coco/recipe.py --data-dir DIR
    # DIR holds annotations/instances_{train,val}2017.json, train2017/ and val2017/

Paper: AP 25.1 on test-dev2015 (Liu et al., SSD, table 5, SSD300*). Not yet trained here.
Schedule: ssd_coco.py of the Caffe release: 400 000 iterations of 32 images, a tenth at 280 000 and
at 360 000; 118 287 images make 3697 of them an epoch.
"""

import kerasdet
from kerasdet.layers.default_boxes import RELEASED


def ssd300(class_names, pretrained):
    """COCO's smaller default boxes on the trunk the authors start from."""
    return kerasdet.zoo.ssd300(
        class_names=class_names, pretrained=pretrained, box_sizes=RELEASED["ssd300_coco"].sizes
    )


def recipe():
    folder = "{data_dir}"
    return kerasdet.Recipe(
        model=ssd300,
        pretrained="imagenet",
        train=f"coco:{folder}/annotations/instances_train2017.json,{folder}/train2017",
        val=f"coco:{folder}/annotations/instances_val2017.json,{folder}/val2017",
        epochs=108,
        batch_size=32,
        augment="ssd",
        optimizer="sgd",
        learning_rate=1e-3,
        milestones=(76, 97),
        weight_decay=5e-4,
        rule="coco",
        evaluate_every=5,
    )
