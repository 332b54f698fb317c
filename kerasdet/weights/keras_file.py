"""Reads a Keras `.weights.h5` into a model whole, or says in one sentence why not."""

import warnings
from pathlib import Path

from kerasdet.errors import InputError


def load(model, path):
    """Gives a model all weights of a `.weights.h5`.

    Args:
        model: of the network that the file was saved from. After an error it may hold some of them.
        path: the file.

    Raises:
        InputError: if it cannot be read, or is another network's. Keras warns of layers that a file
            does not have and goes on; here that is an error too.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"Wanted weights of {model.name}, but there is no {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (OSError, ValueError, KeyError, UserWarning) as error:
        raise InputError(
            f"{path} does not hold the weights of {model.name} with {model.num_classes} classes: "
            f"{_first_sentence(error)}"
        ) from error


def _first_sentence(error) -> str:
    """Of Keras' pages about an error what stands before the first dump of a layer or a list."""
    text = " ".join(str(error).split())
    for end in (". ", ": [", " <"):
        text = text.partition(end)[0]
    return text[:200].rstrip(".") + "."
