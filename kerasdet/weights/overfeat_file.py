"""Reads and writes OverFeat's raw weights: float32 without header, names or shapes.

Layer after layer: weights as (out, in, kernel rows, kernel columns), then biases, little-endian; the
kernels are those of a cross-correlation, as Keras' are.

Source: the release's net_weight_0 (fast) and net_weight_1 (accurate); jhjin/overfeat-torch,
ParamBank.lua, which reads them in this order.
"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerasdet.errors import InputError

SIZES = {"fast": 583_683_488, "accurate": 578_625_952}
"""Bytes of the released files, by network."""

_NAMES = {"fast": "net_weight_0", "accurate": "net_weight_1"}

# What trained weights are below, and above where they are not zero: `looks_raw`.
_LARGEST, _SMALLEST = 100.0, 1e-12


class Weights(NamedTuple):
    """One layer of a file.

    Attributes:
        weights: (out, in, kernel rows, kernel columns) float32, on the disk until it is used.
        biases: (out,).
    """

    weights: np.ndarray
    biases: np.ndarray


def released(size: int) -> str | None:
    """The network, "fast" or "accurate", whose released file has so many bytes; None for neither."""
    return next((name for name, bytes_ in SIZES.items() if bytes_ == size), None)


def looks_raw(start: bytes) -> bool:
    """Whether a file's first 512 bytes may be such weights: text and other formats are not.

    Args:
        start: as many bytes as there are, up to 512.
    """
    if len(start) < 512:
        return False
    first = np.abs(np.frombuffer(start[:512], "<f4"))
    usual = (first > _SMALLEST) & (first < _LARGEST)  # false for NaN
    zero = np.frombuffer(start[:512], "<u4") << 1 == 0  # a small integer is no zero
    return bool((usual | zero).all() and usual.mean() > 0.5)


def floats_of(shapes: Iterable[Sequence[int]]) -> int:
    """Numbers in a file of layers of these (out, in, kernel rows, kernel columns)."""
    return sum(math.prod(shape) + shape[0] for shape in shapes)


def class_count(path: str | Path, below: Iterable[Sequence[int]], hidden: int) -> int | None:
    """K of a file of this network with any number of classes; None where none fits its size.

    Args:
        path: the file.
        below: shapes of the layers below the classes', as in `read_overfeat`.
        hidden: inputs of the classes' layer, whose kernel is 1x1.

    Raises:
        InputError: if the file is not there.
    """
    size = _size(Path(path))
    count, rest = divmod(size // 4 - floats_of(below), hidden + 1)
    return count if size % 4 == 0 and rest == 0 and count > 0 else None


def read_overfeat(path: str | Path, shapes: Sequence[Sequence[int]]) -> list[Weights]:
    """Opens a file of raw floats; its numbers stay on the disk until they are used.

    Args:
        path: the file.
        shapes: (out, in, kernel rows, kernel columns) of the network's layers.

    Raises:
        InputError: if the file is not there or of any other size; the sentence says how many
            floats were wanted and found, and names a file of another released network.
    """
    path = Path(path)
    size = _size(path)
    wanted = floats_of(shapes)
    if size != 4 * wanted:
        raise InputError(_misfit(path, size, wanted))
    try:
        numbers = np.memmap(path, "<f4", "r", shape=(wanted,))
    except OSError as error:
        raise InputError(f"Cannot read weight file {path}: {error.strerror or error}.") from error
    found, start = [], 0
    for shape in shapes:
        middle = start + math.prod(shape)
        end = middle + shape[0]
        found.append(Weights(numbers[start:middle].reshape(shape), numbers[middle:end]))
        start = end
    return found


def write_overfeat(path: str | Path, layers: Iterable[Weights]) -> None:
    """Writes a file as the release's; one of that name is replaced only when the new one is whole.

    Raises:
        InputError: if the file cannot be written.
    """
    path = Path(path)
    half = path.with_name(f"{path.name}.part")
    try:
        with half.open("wb") as file:
            for layer in layers:
                for array in layer:
                    file.write(np.ascontiguousarray(array, "<f4").data)
        os.replace(half, path)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise InputError(f"Cannot write weight file {path}: {error.strerror or error}.") from error


def _size(path):
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"Cannot read weight file {path}: {error.strerror or error}.") from error


def _misfit(path, size, wanted):
    floats, rest = divmod(size, 4)
    sentence = f"{path} holds {floats:,} floats{f' and {rest} bytes' if rest else ''}, not the "
    sentence += f"{wanted:,} wanted"
    network = released(size)
    if network is None:
        return f"{sentence}: it is cut, damaged or of another network."
    return f"{sentence}: it is {_NAMES[network]}, OverFeat's {network} network with 1000 classes."
