"""Fast R-CNN on VGG16 (the paper's L) on VOC07+12 trainval, tested on VOC07 test.

    kerasdet data proposals voc:DIR/VOC2007:trainval+voc:DIR/VOC2012:trainval \
        --output DIR/selective_search
    kerasdet data proposals voc:DIR/VOC2007:test --output DIR/selective_search
    kerasdet train zoo/fast_rcnn_vgg16_voc0712/recipe.py --data-dir DIR     # VOC2007/ and VOC2012/
    kerasdet evaluate runs/fast_rcnn_vgg16-1 --data voc:DIR/VOC2007:test --rule voc07 \
        --regions DIR/selective_search

Paper: 70.0 (Girshick, Fast R-CNN, table 1). Not yet trained here.
Schedule: the paper's 60 000 iterations of two images (sec. 5.3), a tenth from 30 000 on as in
solver.prototxt, since the paper does not say; 16 551 images make 8276 of them an epoch.
"""

import kerasdet


def fast_rcnn_vgg16(class_names, pretrained):
    """From ImageNet's VGG16; conv1 and conv2 stay as they are (sec. 4.5)."""
    return kerasdet.zoo.fast_rcnn_vgg16(
        class_names=class_names, pretrained=pretrained, train_from="paper"
    )


def recipe():
    return kerasdet.Recipe(
        model=fast_rcnn_vgg16,
        pretrained="imagenet",
        train=["voc:{data_dir}/VOC2007:trainval", "voc:{data_dir}/VOC2012:trainval"],
        val="voc:{data_dir}/VOC2007:test",
        regions="{data_dir}/selective_search",
        adapt_targets=True,
        epochs=7,
        batch_size=2,
        augment="flip",
        optimizer="sgd",
        learning_rate=1e-3,
        milestones=(3.6,),
        weight_decay=5e-4,
        rule="voc07",
        evaluate_every=7,
    )
