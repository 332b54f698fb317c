"""What a saved model keeps besides its constructor's arguments: precision, decay, and what is frozen."""

from collections.abc import Callable
from typing import Any

import keras


def kept_state(model) -> dict[str, Any]:
    """The part of a model's config that `revived` reads."""
    frozen = [layer.name for layer in model.layers if layer.weights and not layer.trainable]
    return {
        "trainable": model.trainable,
        "frozen": frozen,
        "precision": model.precision,
        "weight_decay": model.weight_decay,
    }


def revived(config: dict[str, Any], build: Callable[..., Any]):
    """The model built anew in its own precision, with the same layers frozen.

    Args:
        config: the constructor's arguments and what `kept_state` gave; of the latter any may be
            missing.
        build: the class or function that takes the arguments.
    """
    config = dict(config)
    trainable, frozen = config.pop("trainable", True), config.pop("frozen", ())
    weight_decay = config.pop("weight_decay", 0.0)
    of_process = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.pop("precision", of_process))
    try:
        model = build(**config)
    finally:
        keras.config.set_dtype_policy(of_process)
    model.weight_decay = weight_decay
    if not trainable:
        model.trainable = False
    for name in frozen:
        model.get_layer(name).trainable = False
    return model
