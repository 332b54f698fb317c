"""YOLO v1 on Pascal VOC 2007 + 2012, with batch normalisation.

    kerasdet train zoo/yolo_v1_voc0712/recipe.py --data-dir DIR
    # DIR holds VOC2007/ and VOC2012/
    kerasdet evaluate runs/yolo_v1-1 \
        --data voc:DIR/VOC2007:test --rule voc07

Paper: 65.8 on VOC07 test, row two of the path from YOLO to YOLOv2 (Redmon and Farhadi, YOLO9000, table 2).
Row one, 63.4, is the network of YOLO's own paper: plain.py beside this file. Row three, 69.5, is this one
with --start-from a run of zoo/extraction_448_imagenet. Not yet trained here.
Schedule: YOLO's (Redmon et al., sec. 2.2), as the other paper gives none for this row: 135 epochs of
batches of 64; "slowly" from 1e-3 to 1e-2 "for the first epochs", five here; 1e-2 for 75 epochs, 1e-3 for
30, 1e-4 for 30.
"""

import kerasdet


def yolo_v1(class_names, pretrained):
    """Where convolutions are normalised, nothing is dropped (YOLO9000, sec. 2)."""
    return kerasdet.zoo.yolo_v1(
        class_names=class_names, pretrained=pretrained, batch_norm=True, dropout=0.0
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo_v1,
        train=["voc:{data_dir}/VOC2007:trainval", "voc:{data_dir}/VOC2012:trainval"],
        val="voc:{data_dir}/VOC2007:test",
        pretrained="imagenet",
        epochs=135,
        batch_size=64,
        augment="yolo_v1",
        optimizer="sgd",
        learning_rate=1e-2,
        warmup_epochs=5,
        warmup_start=1e-3,
        milestones=(75, 105),
        weight_decay=5e-4,
        rule="voc07",
        evaluate_every=10,
    )
