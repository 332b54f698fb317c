"""Labels for which a network has no class: refused before training, or seen in its loss."""

import numpy as np
from keras import ops

from kerasdet.errors import InputError


def check(labels, num_classes: int, *, least=0) -> None:
    """Looks through the labels of a data set that is in memory.

    Args:
        labels: (N, ...), a row an image.
        num_classes: K; labels end before it.
        least: 0, or -1 where rows are padded with it.

    Raises:
        InputError: naming the first image with a label that is none.
    """
    labels = ops.convert_to_numpy(labels)
    wrong = np.argwhere((labels < least) | (labels >= num_classes))
    if len(wrong):
        padded = ", or -1 for padding" if least < 0 else ""
        raise InputError(
            f"Labels are 0..{num_classes - 1}{padded}, and image {wrong[0][0]} has "
            f"{labels[tuple(wrong[0])]}."
        )


def told(labels, num_classes: int, *, least=0):
    """The same in a graph, where nothing can be refused.

    Args:
        labels: as for `check`, a tensor.
        num_classes: as for `check`.
        least: as for `check`.

    Returns:
        The labels, `least` in place of each that is none, so that nothing is looked up at it; and
        what to add to a loss: 0, or NaN if there was one, at which training stops.
    """
    wrong = (labels < least) | (labels >= num_classes)
    return ops.where(wrong, least, labels), ops.where(ops.any(wrong), float("nan"), 0.0)
