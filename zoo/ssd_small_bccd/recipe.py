"""A small SSD, from scratch, on blood cells (BCCD: 364 photos, 3 classes, 300 pixels).

    kerasdet train zoo/ssd_small_bccd/recipe.py --data-dir DIR      # DIR holds BCCD/
    kerasdet evaluate runs/ssd_bccd-1 --data voc:DIR/BCCD:test

Expect: see result.json beside this file.
"""

from functools import partial

import kerasdet
from kerasdet.data import augment


def ssd_bccd(class_names):
    """Warped to 300 pixels, platelets are about 24 of them long, red cells 57, white cells 100."""
    return kerasdet.zoo.ssd_small(
        class_names=class_names,
        box_sizes=(24, 48, 90, 140, 200),
        box_ratios=((2,), (2,), (2,), (2,)),
        name="ssd_bccd",
    )


def recipe():
    return kerasdet.Recipe(
        model=ssd_bccd,
        train="voc:{data_dir}/BCCD:train",
        val="voc:{data_dir}/BCCD:val",
        epochs=50,
        batch_size=8,
        # Cells have one size under one microscope: the release's fourfold zoom-out would hide them.
        augment=partial(augment.ssd, max_expand=1.5),
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=3,
        weight_decay=1e-4,
        evaluate_every=5,
    )
