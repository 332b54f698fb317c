"""A narrow OverFeat on the built-in shapes: classification, then localisation, then detection.

    kerasdet train zoo/overfeat_shapes/classify.py
    kerasdet train zoo/overfeat_shapes/localise.py
    kerasdet train zoo/overfeat_shapes/recipe.py
    kerasdet evaluate runs/overfeat_shapes-1 --data 'shapes:test?count=200&size=160'

Expect: see result.json beside this file.
"""

import kerasdet

# Shapes are a tenth to six tenths of an image, and a window is 231 pixels.
SCALES = ((263, 263), (423, 423), (679, 679))


def overfeat_shapes(class_names):
    """The localiser's network and a background class."""
    return kerasdet.OverFeat(
        class_names=class_names,
        network="fast",
        width=0.125,
        scales=SCALES,
        merge_overlap=0.7,  # both chosen on val, see the card
        suppress_overlap=0.2,
        dropout=0.2,
        stddev=None,
        name="overfeat_shapes",
    )


def recipe():
    return kerasdet.Recipe(
        model=overfeat_shapes,
        start_from="runs/overfeat_shapes_localiser-1",
        train="shapes:train?count=3000&size=160",
        val="shapes:val?count=200&size=160",
        epochs=6,
        batch_size=16,
        augment="flip",
        image_size=327,
        multi_scale=(263, 327, 423),
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-5,
        evaluate_every=6,
    )
