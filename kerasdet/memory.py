"""How much memory a network takes and the machine has to spare, asked before a great deal is wanted."""

import contextlib
import functools
import math
from collections.abc import Iterable
from pathlib import Path

import keras

from kerasdet.errors import InputError
from kerasdet.layers.connected_conv import ConnectedConv2D

_MEMINFO = Path("/proc/meminfo")

# Where the system is inside a container: what that may use and uses, and of the latter files that were
# read, as versions 2 and 1 of cgroups say it.
_CGROUP = Path("/sys/fs/cgroup")
_CONTAINERS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)

PEAK = {"tensorflow": 3, "jax": 9}
"""By back end, what the maps of a pass take at their peak, in units of its two largest layer outputs
together: their padded and transposed copies live at the same time, and XLA gives little back before
the end."""

SPARE = 96 * 2**20
"""What else passes take, bytes: their compiled forms, one a size of images, and the threads' buffers."""


def available() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    found = []
    with contextlib.suppress(OSError, KeyError, ValueError):
        rows = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
        found.append(int(rows["MemAvailable"].split()[0]) * 1024)
    for limit, used, use, read in _CONTAINERS:
        # No container, or one without a limit ("max"), is no error.
        with contextlib.suppress(OSError, ValueError):
            left = int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text())
            found.append(max(left + _given_back(_CGROUP / use, read), 0))
    return min(found) if found else None


def _given_back(use: Path, read: str) -> int:
    """Bytes of files read that count as used, and that the system gives back when asked for memory."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        return int(dict(line.split() for line in use.read_text().splitlines())[read])
    return 0


def require(wanted: int, what: str) -> None:
    """Refuses work that needs more than there is.

    Args:
        wanted: bytes.
        what: that wants them, at the head of the sentence.

    Raises:
        InputError: saying how much is wanted and how much is free.
    """
    free = available()
    if free is not None and wanted > free:
        raise InputError(
            f"{what} wants about {_readable(wanted)} of memory, and {_readable(free)} are free."
        )


class Demand:
    """What a network's passes over images take beside its weights, and whether there is as much.

    Its maps (`PEAK`); the copies that convolutions make of their kernels for the processor's own layout,
    of which two may be there at once, as OverFeat's classifier and its regressor run side by side, or
    where a `ConnectedConv2D` multiplies the windows that it copies; and `SPARE`. Of small images the
    kernels are the most, of large ones the maps.

    Measured on two CPU threads (`python tools/peak_memory.py fast detect`, and so on: both networks at
    full and at an eighth of the width, one scale and six, votes and ten views, images of 231 to 2000
    pixels): on TensorFlow 1.3 to 4.8 times what was taken is estimated. On JAX it is 1.1 to 3.3 times
    at an eighth and a half of the width, and more at full width, whose kernels XLA does not copy.

    Args:
        model: a functional Keras model of one input (B, H, W, C).
        known_sides: whether the passes are compiled for images of one size each.
    """

    def __init__(self, model, *, known_sides=False):
        self._model, self._known_sides = model, known_sides
        self._parts = functools.cache(self._of_an_image)

    def bytes(self, images: int, height: int, width: int) -> int:
        """For so many images of a size in one pass."""
        maps, windows, kernels = self._parts(height, width)
        peak = PEAK.get(keras.backend.backend(), max(PEAK.values()))
        return images * (peak * maps + windows) + kernels + SPARE

    def bytes_of_weights(self) -> int:
        """The weights themselves, as another copy of the network has them."""
        return sum(map(_size, self._model.weights))

    def require(self, sizes: Iterable[tuple[int, int]], images: int = 1) -> None:
        """Refuses so many images of the largest of these (height, width) where there is too little.

        Raises:
            InputError: saying how much is wanted and how much is free.
        """
        height, width = max(sizes, key=math.prod)
        several = "an image" if images == 1 else f"{images} images"
        what = f"{self._model.name} on {several} of {height}x{width} pixels"
        require(self.bytes(images, height, width), what)

    def images_at_once(self, sizes: Iterable[tuple[int, int]], most: int) -> int:
        """How many images of the largest of these sizes there is memory for, up to `most`.

        Raises:
            InputError: if there is not for one.
        """
        largest = max(sizes, key=math.prod)
        self.require([largest])
        free = available()
        fitting = (n for n in range(most, 0, -1) if free is None or self.bytes(n, *largest) <= free)
        return next(fitting, 1)

    def _of_an_image(self, height, width):
        """Bytes of an image's two largest layer outputs and of the windows copied, and of kernels copied."""
        connected = [layer for layer in self._model.layers if isinstance(layer, ConnectedConv2D)]
        tensors = [layer.output for layer in self._model.layers]
        every = keras.Model(self._model.input, [tensors, [layer.input for layer in connected]])
        shape = (1, height, width, self._model.input.shape[-1])
        outputs, inputs = every.compute_output_spec(keras.KerasTensor(shape))
        multiplied = [
            (layer, of_it)
            for layer, of_it in zip(connected, inputs, strict=True)
            if self._known_sides and layer.multiplies(of_it.shape)
        ]
        windows = sum(
            math.prod(layer.compute_output_shape(of_it.shape)[:-1])
            * math.prod(layer.kernel_size)
            * of_it.shape[-1]
            * 4
            for layer, of_it in multiplied
        )
        own = {layer.kernel.path for layer, _ in multiplied}
        copied = sorted(_size(weight) for weight in self._model.weights if weight.path not in own)
        maps = sorted(map(_size, keras.tree.flatten(outputs)))
        return sum(maps[-2:]), windows, sum(copied[-2:])


def _size(tensor) -> int:
    return math.prod(tensor.shape) * (
        2 if "16" in keras.backend.standardize_dtype(tensor.dtype) else 4
    )


def _readable(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
