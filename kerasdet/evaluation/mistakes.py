"""What goes wrong: every error of an evaluation, by kind.

Kinds, for a detection that is wrong at IoU 0.5:

    class        on an object of another class (IoU >= 0.5)
    location     on an object of its class, but badly placed (0.1 <= IoU < 0.5)
    duplicate    on an object of its class that a better-scored detection has
    both         near an object of another class, and badly placed
    background   on nothing (IoU < 0.1 with every object)

and for an object that no detection has, nor a class or location error points at: missed.

Source: Bolya et al., TIDE, arXiv:2008.08115, sec. 2.2.
Differs from the source: a detection that is exactly on one object of another class and touches
    a neighbour of its own is called a class error, not a location error. Matching is VOC's.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from kerasdet.evaluation.average_precision import Matches, match, pairwise_iou
from kerasdet.evaluation.evaluation import Evaluation
from kerasdet.evaluation.image_result import Found, Truth

KINDS = ("missed", "class", "location", "both", "duplicate", "background")
_ON, _NEAR = 0.5, 0.1  # t_f and t_b of TIDE sec. 2.2


class Mistake(NamedTuple):
    """One error.

    Attributes:
        kind: one of `KINDS`.
        image: index in `evaluation.images`.
        detection: row in that image's `found`, -1 if missed.
        truth: row in that image's `truth`, -1 if background.
        score: of the detection, 0 if missed.
        iou: of the two, 0 where one of them is not there.
    """

    kind: str
    image: int
    detection: int
    truth: int
    score: float
    iou: float


def find_mistakes(evaluation: Evaluation, *, score_threshold: float = 0.3) -> list[Mistake]:
    """Every error among detections of at least a score, worst first.

    Worst is the surest wrong detection, and of the missed objects the one that fills most of
    its image.

    Args:
        evaluation: from `evaluate`.
        score_threshold: detections below it are taken as not made.
    """
    kept = [np.flatnonzero(one.found.scores >= score_threshold) for one in evaluation.images]
    found = [
        Found(*(column[rows] for column in one.found))
        for one, rows in zip(evaluation.images, kept, strict=True)
    ]
    truth = [one.truth for one in evaluation.images]
    matches = match(found, truth, iou_threshold=_ON)
    bounds = np.searchsorted(matches.image, np.arange(len(found) + 1))
    mistakes: list[Mistake] = []
    missed: list[tuple[float, Mistake]] = []
    for index, one in enumerate(evaluation.images):
        mine = Matches(*(column[bounds[index] : bounds[index + 1]] for column in matches))
        wrong = [
            mistake._replace(image=index, detection=int(kept[index][mistake.detection]))
            for mistake in _wrong_detections(found[index], truth[index], mine)
        ]
        mistakes += wrong
        height, width = one.size
        for row in _missed_objects(truth[index], mine, wrong):
            x1, y1, x2, y2 = truth[index].boxes[row]
            share = (x2 - x1) * (y2 - y1) / max(height * width, 1)
            missed.append((float(share), Mistake("missed", index, -1, row, 0.0, 0.0)))
    missed.sort(key=lambda pair: -pair[0])
    mistakes.sort(key=lambda mistake: -mistake.score)
    return [mistake for _, mistake in missed] + mistakes


def count_mistakes(mistakes: list[Mistake]) -> dict[str, int]:
    """How many there are of each kind."""
    counts = Counter(mistake.kind for mistake in mistakes)
    return {kind: counts[kind] for kind in KINDS}


def _wrong_detections(found: Found, truth: Truth, matches: Matches) -> list[Mistake]:
    wrong = np.flatnonzero(~matches.correct & ~matches.ignored)
    if not len(wrong):
        return []
    iou = pairwise_iou(found.boxes[wrong, None], truth.boxes[None])  # (wrong, objects)
    same = found.labels[wrong, None] == truth.labels[None]
    mistakes = []
    for place, row in enumerate(wrong):
        own, own_iou = _highest(np.where(same[place], iou[place], 0))
        other, other_iou = _highest(np.where(same[place], 0, iou[place]))
        if own_iou >= _ON:
            kind, target, value = "duplicate", own, own_iou
        elif other_iou >= _ON:
            kind, target, value = "class", other, other_iou
        elif own_iou >= _NEAR:
            kind, target, value = "location", own, own_iou
        elif other_iou >= _NEAR:
            kind, target, value = "both", other, other_iou
        else:
            kind, target, value = "background", -1, 0.0
        mistakes.append(Mistake(kind, -1, int(row), target, float(found.scores[row]), value))
    return mistakes


def _missed_objects(truth: Truth, matches: Matches, wrong: list[Mistake]) -> list[int]:
    explained = set(matches.truth[matches.correct].tolist())
    explained |= {one.truth for one in wrong if one.kind in ("class", "location")}
    return [row for row in np.flatnonzero(~truth.ignored).tolist() if row not in explained]


def _highest(values: np.ndarray) -> tuple[int, float]:
    if not len(values):
        return -1, 0.0
    place = int(np.argmax(values))
    return place, float(values[place])
