"""Average precision by the rules of Pascal VOC: 11 points (to 2009) and area (from 2010).

Both rules match alike. Detections of a class are taken in order of score. Each looks at the
object of its class, in its image, that it overlaps most; if the IoU is at least the threshold
and the object is not taken yet, it is right. If the object is taken, or the IoU is too low,
it is wrong; it does not try the second-best object. If the object is difficult, or a crowd,
the detection counts neither way. Objects that are to be ignored are not in the recall.

Source: VOCevaldet.m and VOCap.m of the VOC2012 development kit (2012-05-18); VOCevaldet.m of
    the VOC2007 kit for the 11 points.
Differs from the source: boxes have continuous edges, so there is no `+ 1` in the IoU (a
    reader that turns VOC's inclusive pixels into edges gives the same IoU). The 11 recall
    levels are compared as whole numbers, so that 3 of 10 objects reach level 0.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kerasdet.evaluation.image_result import Found, Truth, objects_by_class

_PAIRS = 2_000_000  # pairs of a detection and an object whose IoU is worked out at once


class Matches(NamedTuple):
    """Every detection of a data set beside the object it was matched with, in the order given.

    Attributes:
        image: (D,) index of the image.
        row: (D,) index of the detection within its image.
        label: (D,) class.
        score: (D,).
        iou: (D,) with the object of its class it overlaps most; 0 where there is none.
        truth: (D,) index of that object within its image, -1 where there is none.
        correct: (D,) bool, a true positive.
        ignored: (D,) bool, counts neither way.
    """

    image: np.ndarray
    row: np.ndarray
    label: np.ndarray
    score: np.ndarray
    iou: np.ndarray
    truth: np.ndarray
    correct: np.ndarray
    ignored: np.ndarray


class ClassCurve(NamedTuple):
    """Precision over recall for one class.

    Attributes:
        average_precision: 0..1; NaN for a class without objects.
        objects: how many there are to find.
        detections: how many counted, right or wrong.
        recall: (n,) of the best 1, 2, ... n detections.
        precision: (n,) of the same.
        scores: (n,) the lowest score among them.
    """

    average_precision: float
    objects: int
    detections: int
    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray


def voc_average_precision(
    found: Sequence[Found],
    truth: Sequence[Truth],
    *,
    num_classes: int,
    rule: str = "voc10",
    iou_threshold: float = 0.5,
) -> list[ClassCurve]:
    """Curves and average precision of each class.

    Args:
        found: detections, one an image.
        truth: objects, one an image, in the same order.
        num_classes: K.
        rule: "voc10", area under the curve, or "voc07", mean over 11 recall levels.
        iou_threshold: IoU at which a detection is right; VOC's is 0.5.

    Returns:
        K curves. The mean over those with objects is VOC's mAP.
    """
    matches = match(found, truth, iou_threshold=iou_threshold)
    objects = objects_by_class(truth, num_classes)
    # One sort for all classes: by class, then by falling score; stable, so that of two equal
    # scores the one that came first stays first.
    counted = np.flatnonzero(~matches.ignored)
    counted = counted[np.lexsort((-matches.score[counted], matches.label[counted]))]
    bounds = np.searchsorted(matches.label[counted], np.arange(num_classes + 1))
    area = {"voc07": eleven_point_average, "voc10": area_under_curve}[rule]
    curves = []
    for label in range(num_classes):
        mine = counted[bounds[label] : bounds[label + 1]]
        right = np.cumsum(matches.correct[mine])
        precision = right / np.arange(1, len(mine) + 1)
        total = int(objects[label])
        average = area(right, total) if total else float("nan")
        recall = right / total if total else np.full(len(mine), np.nan)
        curves.append(ClassCurve(average, total, len(mine), recall, precision, matches.score[mine]))
    return curves


def eleven_point_average(right: np.ndarray, objects: int) -> float:
    """Mean over recall 0, 0.1, ... 1 of the best precision at that recall or more (VOC 2007).

    Args:
        right: (n,) true positives among the best 1, 2, ... n detections.
        objects: how many there are to find, at least 1.
    """
    precision = right / np.arange(1, len(right) + 1)
    best = [
        precision[10 * right >= level * objects].max(initial=0.0) for level in range(11)
    ]  # recall >= level / 10, in whole numbers
    return float(np.mean(best))


def area_under_curve(right: np.ndarray, objects: int) -> float:
    """Area under precision made monotone, over recall (VOC 2010 and later).

    Args:
        right: (n,) true positives among the best 1, 2, ... n detections.
        objects: how many there are to find, at least 1.
    """
    precision = right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(right, prepend=0) / objects  # recall gained by each detection
    return float(np.sum(steps * envelope))


def match(found: Sequence[Found], truth: Sequence[Truth], *, iou_threshold: float = 0.5) -> Matches:
    """Matches the detections of all images and classes at once by VOC's rule (see the module).

    Args:
        found: detections, one an image.
        truth: objects, one an image, in the same order.
        iou_threshold: IoU at which a detection is right.
    """
    image, row = _flat_index([len(one.scores) for one in found])
    boxes = _concatenate([one.boxes for one in found], (0, 4))
    score = _concatenate([one.scores for one in found], (0,))
    label = _concatenate([one.labels for one in found], (0,)).astype(np.int64)

    truth_image, truth_row = _flat_index([len(one.labels) for one in truth])
    truth_boxes = _concatenate([one.boxes for one in truth], (0, 4))
    truth_label = _concatenate([one.labels for one in truth], (0,)).astype(np.int64)
    ignore = _concatenate([one.ignored for one in truth], (0,)).astype(bool)

    # One number for (image, class): an object can only be matched within its own.
    classes = 1 + max(label.max(initial=0), truth_label.max(initial=0))
    best, iou = _best_objects(
        boxes, image * classes + label, truth_boxes, truth_image * classes + truth_label
    )
    near = (best >= 0) & (iou >= iou_threshold)
    ignored = near.copy()
    ignored[near] = ignore[best[near]]
    # The best-scored detection of each object has it; any other is a duplicate.
    order = np.argsort(-score, kind="stable")
    order = order[(near & ~ignored)[order]]
    _, first = np.unique(best[order], return_index=True)
    correct = np.zeros(len(score), dtype=bool)
    correct[order[first]] = True
    has = best >= 0
    truth_of = np.full(len(score), -1, dtype=np.int64)
    truth_of[has] = truth_row[best[has]]
    return Matches(image, row, label, score, iou, truth_of, correct, ignored)


def pairwise_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of boxes row by row, broadcast over leading axes; 0 where neither has an area.

    Args:
        one: (..., 4) xyxy.
        other: (..., 4) xyxy.
    """
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(np.maximum(box[..., 2:] - box[..., :2], 0), axis=-1) for box in (one, other)]
    union = areas[0] + areas[1] - shared
    return shared / np.where(union > 0, union, 1)


def _best_objects(
    boxes: np.ndarray, key: np.ndarray, truth_boxes: np.ndarray, truth_key: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the object of the same key with the highest IoU, the first of equals.

    Returns:
        (D,) index of the object, -1 where no object of the key overlaps, and (D,) its IoU.
    """
    by_key = np.argsort(truth_key, kind="stable")  # equal keys stay in the file's order
    start = np.searchsorted(truth_key[by_key], key, side="left")
    count = np.searchsorted(truth_key[by_key], key, side="right") - start
    best = np.full(len(boxes), -1, dtype=np.int64)
    best_iou = np.zeros(len(boxes))
    some = np.flatnonzero(count)
    for part in _chunks(some, count[some]):
        counts = count[part]
        first = np.cumsum(counts) - counts  # where each detection's pairs begin
        within = np.arange(counts.sum()) - np.repeat(first, counts)
        objects = by_key[np.repeat(start[part], counts) + within]
        iou = pairwise_iou(np.repeat(boxes[part], counts, axis=0), truth_boxes[objects])
        highest = np.maximum.reduceat(iou, first)
        # The place of the first pair that reaches the maximum of its detection.
        place = np.where(iou == np.repeat(highest, counts), np.arange(len(iou)), len(iou))
        winner = np.minimum.reduceat(place, first)
        hit = highest > 0
        best[part[hit]] = objects[winner[hit]]
        best_iou[part] = highest
    return best, best_iou


def _chunks(rows: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Splits rows so that no part has many more than `_PAIRS` pairs; crowded images are large."""
    if len(rows):
        part = np.cumsum(counts) // _PAIRS
        yield from np.split(rows, np.flatnonzero(np.diff(part)) + 1)


def _flat_index(lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """For rows of all images laid end to end: each one's image, and its place in it."""
    counts = np.asarray(lengths, dtype=np.int64).reshape(-1)
    image = np.repeat(np.arange(len(counts)), counts)
    return image, np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)


def _concatenate(arrays: Sequence[np.ndarray], empty_shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.zeros(empty_shape), *arrays])
