"""A narrow OverFeat, from scratch, tells blood cells apart: BCCD's cells, cut out of its photos.

    kerasdet train zoo/overfeat_bccd_crops/recipe.py --data-dir DIR       # DIR holds BCCD/
    kerasdet evaluate runs/overfeat_bccd_crops-1 --data crops:voc:DIR/BCCD:test

Expect: see result.json beside this file.
"""

import kerasdet


def overfeat_bccd_crops(class_names):
    """The fast network at an eighth of its width, windows of 231 pixels."""
    return kerasdet.Classifier(
        class_names=class_names,
        network="overfeat_fast",
        width=0.125,
        dropout=0.3,
        stddev=None,
        name="overfeat_bccd_crops",
    )


def recipe():
    return kerasdet.Recipe(
        model=overfeat_bccd_crops,
        task="classification",
        train="crops:voc:{data_dir}/BCCD:train",
        val="crops:voc:{data_dir}/BCCD:val",
        epochs=8,
        batch_size=32,
        augment="overfeat",
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-5,
    )
