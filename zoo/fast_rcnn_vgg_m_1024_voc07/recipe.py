"""Fast R-CNN on VGG_CNN_M_1024 (the paper's M) on VOC07 trainval, tested on VOC07 test.

    kerasdet data proposals voc:DIR/VOC2007:trainval --output DIR/selective_search
    kerasdet data proposals voc:DIR/VOC2007:test --output DIR/selective_search
    kerasdet train zoo/fast_rcnn_vgg_m_1024_voc07/recipe.py --data-dir DIR     # DIR holds VOC2007/
    kerasdet evaluate runs/fast_rcnn_vgg_m_1024-1 --data voc:DIR/VOC2007:test --rule voc07 \
        --regions DIR/selective_search

Paper: 59.2 (Girshick, Fast R-CNN, table 4). Not yet trained here.
Schedule: solver.prototxt and the training script of the release: 40 000 iterations of two images, a
tenth from 30 000 on; 5011 images make 2506 of them an epoch.
"""

import kerasdet


def fast_rcnn_vgg_m_1024(class_names, pretrained):
    """From ImageNet's VGG_CNN_M_1024; conv1 stays as it is (sec. 4.5)."""
    return kerasdet.zoo.fast_rcnn_vgg_m_1024(
        class_names=class_names, pretrained=pretrained, train_from="paper"
    )


def recipe():
    return kerasdet.Recipe(
        model=fast_rcnn_vgg_m_1024,
        pretrained="imagenet",
        train="voc:{data_dir}/VOC2007:trainval",
        val="voc:{data_dir}/VOC2007:test",
        regions="{data_dir}/selective_search",
        adapt_targets=True,
        epochs=16,
        batch_size=2,
        augment="flip",
        optimizer="sgd",
        learning_rate=1e-3,
        milestones=(12,),
        weight_decay=5e-4,
        rule="voc07",
        evaluate_every=16,
    )
