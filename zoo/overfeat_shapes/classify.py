"""First of three: a narrow OverFeat learns which shape a window shows.

kerasdet train zoo/overfeat_shapes/classify.py
kerasdet evaluate runs/overfeat_shapes_classifier-1 --data 'shapes:test?count=400&size=160&sides=0.3,0.9'
"""

import kerasdet


def overfeat_shapes_classifier(class_names):
    """The fast network at an eighth of its width."""
    return kerasdet.Classifier(
        class_names=class_names,
        network="overfeat_fast",
        width=0.125,
        dropout=0.2,
        stddev=None,
        name="overfeat_shapes_classifier",
    )


def recipe():
    return kerasdet.Recipe(
        model=overfeat_shapes_classifier,
        task="classification",
        train="shapes:train?count=6000&size=160&sides=0.3,0.9",
        val="shapes:val?count=500&size=160&sides=0.3,0.9",
        epochs=8,
        batch_size=32,
        augment="overfeat",
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        weight_decay=1e-5,
    )
