"""A small Fast R-CNN, from scratch, on blood cells (BCCD: 364 photos, 3 classes, Selective Search).

    kerasdet data proposals voc:DIR/BCCD:train --output DIR/proposals     # DIR holds BCCD/
    kerasdet data proposals voc:DIR/BCCD:val --output DIR/proposals
    kerasdet data proposals voc:DIR/BCCD:test --output DIR/proposals
    kerasdet train zoo/fast_rcnn_small_bccd/recipe.py --data-dir DIR
    kerasdet evaluate runs/fast_rcnn_bccd-1 --data voc:DIR/BCCD:test --regions DIR/proposals

Expect: see result.json beside this file; no better than the recall that the first commands print.
"""

import kerasdet


def fast_rcnn_bccd(class_names):
    """Photos as they are, 640x480: a platelet is about 40 pixels long, five cells of the map."""
    return kerasdet.zoo.fast_rcnn_small(
        class_names=class_names,
        image_size=640,
        width=24,
        dropout=0.3,
        # A region without any cell is background too: the release's 0.1 would never show one.
        sampling={"background_iou": (0.0, 0.5)},
        name="fast_rcnn_bccd",
    )


def recipe():
    return kerasdet.Recipe(
        model=fast_rcnn_bccd,
        train="voc:{data_dir}/BCCD:train",
        val="voc:{data_dir}/BCCD:val",
        regions="{data_dir}/proposals",
        adapt_targets=True,
        epochs=16,
        batch_size=4,
        augment="flip",
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=1,
        weight_decay=1e-4,
        evaluate_every=8,
    )
