"""Numbers that callers give: what was wanted, or one sentence that says what came instead.

None of these takes True for 1, or NaN for anything.
"""

import math
from numbers import Integral, Real
from typing import Any

from kerasdet.errors import InputError


def number(name: str, value, *, least=0.0, below=math.inf) -> float:
    """A finite number, from `least` to under `below`.

    Raises:
        InputError: if it is not one, as from all of these.
    """
    if not _real(value) or not least <= value < below:
        until = f" to below {below:g}" if below < math.inf else " on"
        raise InputError(f"{name} wants a number from {least:g}{until}, not {value!r}.")
    return value


def positive(name: str, value) -> float:
    """A finite number above 0."""
    if not _real(value) or not 0 < value < math.inf:
        raise InputError(f"{name} wants a positive number, not {value!r}.")
    return value


def share(name: str, value) -> float:
    """A number in 0..1."""
    if not _real(value) or not 0 <= value <= 1:
        raise InputError(f"{name} wants a number in 0..1, not {value!r}.")
    return value


def whole_number(name: str, value, *, least=1) -> int:
    """A count, from `least` on."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} wants a whole number from {least}, not {value!r}.")
    return int(value)


def thresholds(score_threshold, iou_threshold, max_detections) -> dict[str, Any]:
    """The keyword arguments of `Detector.decode`; None stays, for the detector's own."""
    shares = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
    for name, value in shares.items():
        if value is not None:
            shares[name] = float(share(name, value))
    if max_detections is not None:
        max_detections = whole_number("max_detections", max_detections)
    return {**shares, "max_detections": max_detections}


def _real(value):
    return isinstance(value, Real) and not isinstance(value, bool)
