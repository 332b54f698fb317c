"""SSD300 on VOC07+12 trainval, tested on VOC07 test.

    kerasdet train zoo/ssd300_voc0712/recipe.py --data-dir DIR     # DIR holds VOC2007/ and VOC2012/
    kerasdet evaluate runs/ssd300-1 --data voc:DIR/VOC2007:test --rule voc07

Paper: 77.2 (Liu et al., SSD, table 6, SSD300* with zoom-out). Not yet trained here.
Schedule: ssd_pascal.py of the Caffe release: 120 000 iterations of 32 images, a tenth at 80 000 and
at 100 000; 16 551 images make 517 and a bit of them an epoch.
"""

import kerasdet


def recipe():
    return kerasdet.Recipe(
        model="ssd300",
        pretrained="imagenet",
        train=["voc:{data_dir}/VOC2007:trainval", "voc:{data_dir}/VOC2012:trainval"],
        val="voc:{data_dir}/VOC2007:test",
        epochs=232,
        batch_size=32,
        augment="ssd",
        optimizer="sgd",
        learning_rate=1e-3,
        milestones=(155, 193),
        weight_decay=5e-4,
        rule="voc07",
        evaluate_every=10,
    )
