"""How much memory the machine has to spare, asked before a great deal of it is wanted."""

import contextlib
import math
from pathlib import Path

import keras

from kerasdet.errors import InputError

# What a container may use and uses (cgroup v2), where the system is inside one.
_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
_MEMINFO = Path("/proc/meminfo")

PEAK = 3
"""What a pass takes at its peak, in units of its two largest layer outputs together.

Their padded and transposed copies live at the same time. Measured on two CPU threads by `python
tools/peak_memory.py fast 0.25 SIDE`: 2.7, 2.8 and 2.8 times at sides of 1000, 2000 and 3000 pixels, and
of `accurate 0.25 1500` 2.2 times. At full width it is more on images of 700 to 1000 pixels, about 10.
"""


def available() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    found = []
    with contextlib.suppress(OSError, KeyError, ValueError):
        rows = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
        found.append(int(rows["MemAvailable"].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        found.append(max(int(_LIMIT.read_text()) - int(_USED.read_text()), 0))
    return min(found) if found else None


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


def bytes_for(model, shape) -> int:
    """What a network takes for one input: `PEAK` times its two largest layer outputs together.

    Args:
        model: a functional Keras model of one input.
        shape: of the input, the batch among it, all known.
    """
    every = keras.Model(model.input, [layer.output for layer in model.layers])
    outputs = keras.tree.flatten(every.compute_output_spec(keras.KerasTensor(shape)))
    sizes = [math.prod(each.shape) * (2 if "16" in each.dtype else 4) for each in outputs]
    return PEAK * sum(sorted(sizes)[-2:])


def images_of(count: int, height: int, width: int) -> str:
    """So many images of a size, in words."""
    images = "an image" if count == 1 else f"{count} images"
    return f"{images} of {height}x{width} pixels"


def _readable(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
