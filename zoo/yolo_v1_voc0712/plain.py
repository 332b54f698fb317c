"""YOLO v1 on Pascal VOC 2007 + 2012 as its paper has it: without batch normalisation.

    kerasdet train zoo/extraction_imagenet/plain.py --data-dir IMAGENET
    kerasdet train zoo/yolo_v1_voc0712/plain.py --data-dir DIR
    # DIR holds VOC2007/ and VOC2012/
    kerasdet evaluate runs/yolo_v1_plain-1 \
        --data voc:DIR/VOC2007:test --rule voc07

Paper: 63.4 on VOC07 test (Redmon et al., YOLO, table 1), row one of the path from YOLO to YOLOv2. Not yet
trained here.
Schedule: the paper's, sec. 2.2, as in recipe.py.
"""

import kerasdet


def yolo_v1_plain(class_names, pretrained):
    """Dropout of 0.5 behind the first connected layer (sec. 2.2)."""
    return kerasdet.zoo.yolo_v1(
        class_names=class_names, pretrained=pretrained, batch_norm=False, dropout=0.5
    )


def recipe():
    return kerasdet.Recipe(
        model=yolo_v1_plain,
        train=["voc:{data_dir}/VOC2007:trainval", "voc:{data_dir}/VOC2012:trainval"],
        val="voc:{data_dir}/VOC2007:test",
        start_from="runs/extraction_plain-1",
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
