"""Second of three: a regressor on the frozen trunk learns where in a window the object is.

kerasdet train zoo/overfeat_shapes/localise.py
"""

import kerasdet


def overfeat_shapes_localiser(class_names):
    """The classifier's network and a regressor beside it; nothing is background yet."""
    return kerasdet.OverFeat(
        class_names=class_names,
        network="fast",
        width=0.125,
        task="localisation",
        background=False,
        dropout=0.2,
        stddev=None,
        name="overfeat_shapes_localiser",
    )


def recipe():
    return kerasdet.Recipe(
        model=overfeat_shapes_localiser,
        start_from="runs/overfeat_shapes_classifier-1",
        train="shapes:train?count=4000&size=160&objects=1&sides=0.3,0.9",
        val="shapes:val?count=200&size=160&objects=1&sides=0.3,0.9",
        epochs=6,
        batch_size=16,
        augment="flip",
        image_size=311,
        multi_scale=(247, 311, 391),
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-5,
        evaluate_every=6,
    )
