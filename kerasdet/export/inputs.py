"""What can be exported, and the checks of what a user asks for."""

import math
from typing import Any, NamedTuple

import keras
import numpy as np

from kerasdet import memory
from kerasdet.detectors.detector import Detector
from kerasdet.errors import InputError
from kerasdet.export.check import Tolerance
from kerasdet.images import read_image

# Bytes that tracing, writing and reading a graph of six scales take (`python tools/peak_memory.py fast
# export --width 0.125`: 513 MiB, of which 34 are its pass and its weights).
_GRAPHS = 512 * 2**20


class Options(NamedTuple):
    """What every format is asked for.

    Attributes:
        thresholds: keyword arguments of `Detector.decode`.
        overwrite: replace what exists.
        samples: uint8 images to compare on; None for made-up ones.
        tolerance: how far the copy may be from the model.
    """

    thresholds: dict[str, Any]
    overwrite: bool
    samples: list[np.ndarray] | None
    tolerance: Tolerance


def exportable(model, *, with_regions=False) -> None:
    """Refuses what an exporter here cannot write.

    Args:
        model: to be exported.
        with_regions: whether the format is written of detectors of regions, too.

    Raises:
        InputError: saying what is wanted instead, or that there is too little memory.
    """
    if not isinstance(model, Detector):
        raise InputError(f"Wanted a kerasdet detector to export, not a {type(model).__name__}.")
    if len(model.inputs) != 1 and not (with_regions and model.takes_regions):
        names = ", ".join(tensor.name for tensor in model.inputs)
        other = "; its SavedModel can be written" if model.takes_regions else ""
        raise InputError(f"Wanted a detector of images alone; {model.name} takes {names}{other}.")
    backend = keras.backend.backend()
    if backend != "tensorflow":
        # jax2tf of JAX 0.10 writes StableHLO 1.15; the XlaCallModule of TensorFlow 2.21 reads 1.13.
        raise InputError(
            f"Exporting wants Keras on TensorFlow, not on {backend}: save the model with "
            "model.save('model.keras') and export that file with KERAS_BACKEND=tensorflow."
        )
    if hasattr(model, "_memory"):
        _require_memory(model)


def _require_memory(model):
    """For a detector of several scales, the copy that is compared with it, and the graphs of both."""
    demand = model._memory
    wanted = demand.bytes(1, *max(model.scales, key=math.prod)) + demand.bytes_of_weights()
    memory.require(wanted + _GRAPHS, f"Exporting {model.name} at its scales")


def checked_samples(sample) -> list | None:
    """One image or several, of any kind that `detect` takes, as uint8 arrays.

    Raises:
        InputError: if one is not an image.
    """
    if sample is None:
        return None
    several = sample if isinstance(sample, list | tuple) else [sample]
    return [read_image(image, f"sample {i}").astype("uint8") for i, image in enumerate(several)]
