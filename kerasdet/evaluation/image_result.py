"""What was found in one image and what is in it: the arrays every rule of evaluation reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kerasdet.errors import InputError


class Found(NamedTuple):
    """Detections in one image.

    Attributes:
        boxes: (n, 4) float64 xyxy, pixels of the image.
        scores: (n,) float64, higher is surer; need not be sorted.
        labels: (n,) int64, 0..K-1.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Truth(NamedTuple):
    """The objects of one image.

    Attributes:
        boxes: (m, 4) float64 xyxy, pixels of the image.
        labels: (m,) int64, 0..K-1.
        difficult: (m,) bool; neither to be found nor an error if found.
        crowd: (m,) bool; one box around many objects, ignored likewise.
        area: (m,) float64, square pixels; COCO takes that of the object's outline.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    area: np.ndarray

    @property
    def ignored(self) -> np.ndarray:
        """(m,) bool: difficult or crowd."""
        return self.difficult | self.crowd


class ImageResult(NamedTuple):
    """One evaluated image.

    Attributes:
        image_id: the data set's name for it.
        path: its file, or "".
        size: (height, width), pixels.
        found: its detections.
        truth: its objects.
    """

    image_id: str
    path: str
    size: tuple[int, int]
    found: Found
    truth: Truth


def found_from(detections: Any, *, num_classes: int, where: str = "an image") -> Found:
    """Checks what `detect` returned for one image.

    Args:
        detections: anything with `boxes` (n, 4), `scores` (n,), `labels` (n,).
        num_classes: K.
        where: the image, for the message.

    Raises:
        InputError: if lengths differ, a number is not finite or a label is not 0..K-1.
    """
    boxes = np.asarray(detections.boxes, dtype=np.float64).reshape(-1, 4)
    scores = np.asarray(detections.scores, dtype=np.float64).reshape(-1)
    labels = np.asarray(detections.labels).astype(np.int64).reshape(-1)
    if not len(boxes) == len(scores) == len(labels):
        raise InputError(
            f"Detections in {where} want as many boxes as scores and labels; "
            f"{len(boxes)}, {len(scores)} and {len(labels)} came."
        )
    if not np.isfinite(scores).all():
        raise InputError(f"A detection in {where} has the score {_first_odd(scores)}.")
    if not np.isfinite(boxes).all():
        raise InputError(f"A detection in {where} has a box edge at {_first_odd(boxes)}.")
    _check_labels(labels, num_classes, f"A detection in {where}")
    return Found(boxes, scores, labels)


def truth_from(example: Mapping[str, Any], *, num_classes: int, where: str = "an image") -> Truth:
    """Takes the objects out of an example; rows padded with label -1 are dropped.

    Args:
        example: `boxes` (m, 4) and `labels` (m,), and where known `difficult`, `crowd` and
            `area`, (m,) each; without them nothing is ignored and areas are the boxes'.
        num_classes: K.
        where: the image, for the message.

    Raises:
        InputError: if lengths differ or a label is not below K.
    """
    boxes = np.asarray(example["boxes"], dtype=np.float64).reshape(-1, 4)
    labels = np.asarray(example["labels"]).astype(np.int64).reshape(-1)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    columns = {
        "difficult": np.zeros(len(boxes), dtype=bool),
        "crowd": np.zeros(len(boxes), dtype=bool),
        "area": sides[:, 0] * sides[:, 1],
    }
    for name, default in columns.items():
        if name in example:
            columns[name] = np.asarray(example[name]).astype(default.dtype).reshape(-1)
    lengths = {"boxes": len(boxes), "labels": len(labels)}
    lengths |= {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"The objects of {where} want columns of one length; {lengths} came.")
    real = labels >= 0
    _check_labels(labels[real], num_classes, f"An object in {where}")
    return Truth(
        boxes[real],
        labels[real],
        columns["difficult"][real],
        columns["crowd"][real],
        columns["area"][real],
    )


def objects_by_class(truth: Sequence[Truth], num_classes: int) -> np.ndarray:
    """(K,) how many objects are to be found, without difficult ones and crowds."""
    counts = np.zeros(num_classes, dtype=np.int64)
    for objects in truth:
        counts += np.bincount(objects.labels[~objects.ignored], minlength=num_classes)
    return counts


def _check_labels(labels: np.ndarray, num_classes: int, what: str) -> None:
    odd = labels[(labels < 0) | (labels >= num_classes)]
    if len(odd):
        raise InputError(
            f"{what} has the label {odd[0]}; with {num_classes} classes labels are "
            f"0 to {num_classes - 1}."
        )


def _first_odd(values: np.ndarray) -> float:
    return float(values[~np.isfinite(values)].ravel()[0])
