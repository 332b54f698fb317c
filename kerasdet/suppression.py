"""From scored boxes to detections of fixed size: non-maximum suppression, or OverFeat's greedy merge."""

from collections import namedtuple
from typing import Any, NamedTuple

from keras import ops

from kerasdet import boxes as box_ops
from kerasdet.errors import InputError

# Candidates looked at in one go. A network fills its 200 detections from a few tiles; of 96 to 256 this
# takes the least time for YOLOv2 and for SSD at batches of 1 and 8.
_TILE = 192

# The match score of what never merges. Not infinite: ONNX chooses by multiplying with 0.
_APART = 1e9


class Detections(namedtuple("Detections", ["boxes", "scores", "labels", "count"])):
    """What a detector found, best first.

    Batched and of fixed size where a graph makes it, rows past `count` padded with box 0,
    score 0 and label -1; one image's rows alone, as NumPy arrays, where `Detector.detect`
    returns it.

    Attributes:
        boxes: (B, D, 4) float32 xyxy, or (n, 4).
        scores: (B, D) float32 in 0..1, or (n,).
        labels: (B, D) int32 in 0..K-1, or (n,).
        count: (B,) int32, or int.
        names: list of the labels' names, set by `Detector.detect`; None in a graph.
    """

    names: list[str] | None = None


def non_max_suppression(
    boxes,
    scores,
    *,
    score_threshold=0.01,
    iou_threshold=0.45,
    max_per_class=400,
    max_detections=200,
) -> Detections:
    """Greedy suppression within each class, then the best over all classes.

    Per class: scores above the threshold, the best `max_per_class` of them, and of these
    each box that overlaps no better kept one by more than `iou_threshold`. Over all
    classes the best `max_detections`. Equal scores go to the lower class, then to the
    lower box.

    Args:
        boxes: (B, A, 4) xyxy, shared by the classes.
        scores: (B, A, K), one column a class, without background.
        score_threshold: a box needs more than this.
        iou_threshold: a box that overlaps a better one of its class by more goes.
        max_per_class: candidates kept for each class before suppression.
        max_detections: D, rows of the result.

    Returns:
        Detections, batched.

    Source: DetectionOutput layer of the SSD release (detection_output_layer.cpp,
        confidence 0.01, NMS 0.45, top_k 400, keep_top_k 200).
    """
    _, anchor_count, class_count = scores.shape
    per_class = min(max_per_class, anchor_count)
    boxes = ops.cast(boxes, "float32")
    # What is below the threshold is never sorted if it is all alike: a third of the time.
    scores = ops.cast(scores, "float32")
    scores = ops.where(scores > score_threshold, scores, -1.0)
    # Class by class first (short rows), then one short list in order of score.
    scores = ops.transpose(scores, (0, 2, 1))  # (B, K, A)
    scores, anchor = ops.top_k(scores, per_class)  # (B, K, k)
    total = class_count * per_class
    scores, place = ops.top_k(ops.reshape(scores, (-1, total)), total)  # (B, K * k)
    labels = ops.cast(place // per_class, "int32")
    anchor = ops.take_along_axis(ops.reshape(anchor, (-1, total)), place, axis=1)
    return _greedy(boxes, scores, labels, anchor, score_threshold, iou_threshold, max_detections)


def labelled_non_max_suppression(
    boxes,
    scores,
    labels,
    *,
    score_threshold=0.01,
    iou_threshold=0.45,
    max_detections=200,
) -> Detections:
    """Greedy suppression among boxes that have one label each, whatever the number of classes.

    Of the boxes above the threshold each goes that overlaps a better kept one of its own
    label by more than `iou_threshold`. Equal scores go to the lower box.

    Args:
        boxes: (B, A, 4) xyxy.
        scores: (B, A).
        labels: (B, A) int.
        score_threshold: a box needs more than this.
        iou_threshold: a box that overlaps a better one of its label by more goes.
        max_detections: D, rows of the result.

    Returns:
        Detections, batched.
    """
    boxes, labels = ops.cast(boxes, "float32"), ops.cast(labels, "int32")
    scores, anchor = ops.top_k(ops.cast(scores, "float32"), scores.shape[1])
    labels = ops.take_along_axis(labels, anchor, axis=1)
    return _greedy(boxes, scores, labels, anchor, score_threshold, iou_threshold, max_detections)


def _greedy(boxes, scores, labels, anchor, score_threshold, iou_threshold, max_detections):
    """Walks the ordered candidates tile by tile until every image is full or has none left.

    A candidate's fate depends on better ones alone, so stopping at `max_detections` kept
    changes nothing.
    """
    total = scores.shape[1]
    tile = min(_TILE, total)
    tiles = -(-total // tile)
    spare = tiles * tile - total
    scores = ops.pad(scores, ((0, 0), (0, spare)), constant_values=-1.0)
    labels = ops.pad(labels, ((0, 0), (0, spare)))
    anchor = ops.pad(anchor, ((0, 0), (0, spare)))
    slots = ops.arange(max_detections, dtype="int32")

    def block(values, step):
        start = ops.stack([ops.zeros_like(step), step * tile])
        return ops.slice(values, start, (ops.shape(values)[0], tile))

    def unfinished(step, kept):
        more = ops.max(block(scores, ops.minimum(step, tiles - 1))[:, 0]) > score_threshold
        room = ops.min(kept.count) < max_detections
        return (step < tiles) & more & room

    def suppress_tile(step, kept):
        score, label = block(scores, step), block(labels, step)  # (B, T)
        box = ops.take_along_axis(boxes, ops.expand_dims(block(anchor, step), -1), axis=1)
        alive = score > score_threshold
        # Against what earlier tiles kept, then among themselves.
        rival = ops.expand_dims(label, 2) == ops.expand_dims(kept.labels, 1)  # (B, T, D)
        beaten = rival & (box_ops.iou(box, kept.boxes) > iou_threshold)
        alive = alive & ~ops.any(beaten, axis=2)
        alive = _suppress_within(box, label, alive, iou_threshold)
        slot = ops.expand_dims(kept.count - 1, 1) + ops.cumsum(ops.cast(alive, "int32"), axis=1)
        slot = ops.where(alive, slot, -1)  # (B, T), the row each survivor takes
        taken = ops.expand_dims(slot, 1) == ops.expand_dims(slots, 1)  # (B, D, T)
        filled = ops.any(taken, axis=2)
        source = ops.argmax(ops.cast(taken, "int32"), axis=2)  # (B, D); ONNX wants numbers
        rows = ops.take_along_axis(box, ops.expand_dims(source, -1), axis=1)
        return step + 1, Detections(
            ops.where(ops.expand_dims(filled, -1), rows, kept.boxes),
            ops.where(filled, ops.take_along_axis(score, source, axis=1), kept.scores),
            ops.where(filled, ops.take_along_axis(label, source, axis=1), kept.labels),
            ops.minimum(kept.count + ops.sum(ops.cast(alive, "int32"), axis=1), max_detections),
        )

    blank = ops.zeros_like(scores[:, :1])  # carries the batch size, which may be unknown
    nothing = ops.tile(blank, (1, max_detections))
    kept = Detections(
        boxes=ops.tile(ops.expand_dims(nothing, -1), (1, 1, 4)),
        scores=nothing,
        labels=ops.cast(nothing, "int32") - 1,
        count=ops.cast(blank[:, 0], "int32"),
    )
    step = ops.convert_to_tensor(0, "int32")
    _, kept = ops.while_loop(unfinished, suppress_tile, (step, kept))
    return kept


def _suppress_within(boxes, labels, alive, iou_threshold):
    """Greedy suppression inside one tile in order of score: (B, T) bool in, (B, T) bool out.

    Every pass decides a candidate from the last pass's verdict on the better ones. The
    verdict on the first i is final after i passes, and in practice after a few: as many
    as the longest chain of boxes that each suppress the next.
    """
    size = boxes.shape[1]
    better = ops.expand_dims(ops.arange(size) > ops.expand_dims(ops.arange(size), 1), 0)  # i < j
    same = ops.expand_dims(labels, 2) == ops.expand_dims(labels, 1)
    beats = ops.cast(same & better & (box_ops.iou(boxes, boxes) > iou_threshold), "float32")
    start = ops.cast(alive, "float32")

    def one_pass(_, verdict):
        beaten = ops.matmul(ops.expand_dims(verdict, 1), beats)[:, 0]  # (B, T)
        # A copy: handed on as it is into another's place, tf2onnx loses it.
        return ops.maximum(verdict, 0.0), ops.where(beaten > 0, 0.0, start)

    def unsettled(before, verdict):
        return ops.any(before != verdict)

    return ops.while_loop(unsettled, one_pass, one_pass(start, start))[1] > 0


# ---------------------------------------------------------------------- greedy merge


def match_scores(boxes, others):
    """How badly pairs of boxes match: the distance of their centres plus 1 less their IoU.

    The distance is in units of the boxes' size, the mean of the square roots of their areas, so
    that neither the image's size nor the order of a pair matters; 0 for a box and itself.

    Args:
        boxes: (..., M, 4) xyxy.
        others: (..., N, 4) xyxy in the same units; leading dimensions broadcast.

    Returns:
        (..., M, N), from 0 on.

    Source: arXiv:1312.6229, sec. 4.3, which names centre distance and intersection, but neither
        units nor sign: as a sum of the two, more overlap would match worse.
    """
    one, other = ops.expand_dims(boxes, -2), ops.expand_dims(others, -3)
    apart = (one[..., :2] + one[..., 2:]) / 2 - (other[..., :2] + other[..., 2:]) / 2
    distance = ops.sqrt(ops.sum(ops.square(apart), axis=-1))
    size = (ops.sqrt(box_ops.area(one)) + ops.sqrt(box_ops.area(other))) / 2
    return distance / ops.maximum(size, 1e-6) + 1 - box_ops.iou(boxes, others)


def threshold_of(overlap):
    """The match score of two boxes of one size, one beside the other, with this IoU.

    Moved by the share m of their side, they have the IoU (1 - m) / (1 + m).
    """
    return (1 - overlap) / (1 + overlap) + 1 - overlap


def greedy_merge(
    boxes,
    scores,
    labels,
    *,
    threshold=0.8,
    candidate_score=0.0,
    score_threshold=0.0,
    max_candidates=400,
    max_detections=100,
) -> Detections:
    """Merges the two boxes of a class that match best, again and again, while they match.

    A merged box is the mean of all boxes that went into it, and its score their scores' sum S,
    given out as S / (1 + S), which lies in 0..1 and keeps the order. The order of the candidates
    makes no difference, in ties either.

    Args:
        boxes: (B, A, 4) xyxy.
        scores: (B, A), 0 or more.
        labels: (B, A) int.
        threshold: t; boxes merge while their `match_scores` is below it. 0 or less: none do;
            infinite: all of a class become one.
        candidate_score: a box needs more than this to take part.
        score_threshold: a merged box needs more than this, of S / (1 + S).
        max_candidates: M, the boxes of an image that take part, those with the highest scores.
        max_detections: D, rows of the result.

    Returns:
        Detections, batched.

    Raises:
        InputError: if the threshold is not a number.

    Source: Sermanet et al., OverFeat, arXiv:1312.6229, sec. 4.3. Differs from it: a merged box
        is the mean of all its boxes, in place of the mean of the last two merged, whose result
        hangs on the order; threshold and match score are not in the paper.
    """
    if not threshold >= 0 and not threshold < 0:
        raise InputError(f"The merge wants a number as its threshold, not {threshold!r}.")
    threshold = min(threshold, _APART)
    found = _candidates(boxes, scores, labels, candidate_score, max_candidates)
    same = ops.expand_dims(found.labels, 2) == ops.expand_dims(found.labels, 1)  # (B, M, M)
    itself = ops.expand_dims(ops.eye(found.labels.shape[1]), 0) > 0
    pairs = match_scores(found.sums, found.sums)
    pairs = ops.minimum(pairs, ops.transpose(pairs, (0, 2, 1)))  # compilers round the two apart
    alive = found.scores > 0
    both = ops.expand_dims(alive, 2) & ops.expand_dims(alive, 1)
    pairs = ops.where(same & ~itself & both, ops.minimum(pairs, _APART / 2), _APART)

    def unfinished(pairs, best, _):
        return ops.min(best) < threshold

    def merge_best(pairs, best, found):
        score = ops.min(best, axis=1, keepdims=True)  # (B, 1)
        places = ops.expand_dims(ops.arange(best.shape[1], dtype="int32"), 0)
        first = _first(best == score)
        of_first = ops.take_along_axis(pairs, ops.expand_dims(first, 1), axis=1)[:, 0]  # (B, M)
        second = _first(of_first == score)
        stays = (places == first) & (score < threshold)
        goes = (places == second) & (score < threshold)
        found = _merged(found, stays, goes, second)
        box = ops.take_along_axis(found.boxes, ops.expand_dims(first, 2), axis=1)  # (B, 1, 4)
        row = ops.minimum(match_scores(box, found.boxes)[:, 0], _APART / 2)
        # Once apart, always apart: another class, itself, and what is gone.
        row = ops.where((of_first < _APART) & ~goes, row, _APART)
        down, across = ops.expand_dims(stays, 2), ops.expand_dims(stays, 1)
        pairs = ops.where(across, ops.expand_dims(row, 2), pairs)
        pairs = ops.where(down, ops.expand_dims(row, 1), pairs)
        pairs = ops.where(ops.expand_dims(goes, 2) | ops.expand_dims(goes, 1), _APART, pairs)
        return pairs, ops.min(pairs, axis=2), found

    state = (pairs, ops.min(pairs, axis=2), found)
    _, _, found = ops.while_loop(unfinished, merge_best, state)
    return _best(found, score_threshold, max_detections)


class _Merging(NamedTuple):
    """Attributes: sums (B, M, 4) of boxes, how many (B, M), their scores' sum (B, M), labels (B, M)."""

    sums: Any
    counts: Any
    scores: Any
    labels: Any

    @property
    def boxes(self):
        """(B, M, 4), their means."""
        return self.sums / ops.expand_dims(self.counts, 2)


def _candidates(boxes, scores, labels, candidate_score, most) -> _Merging:
    """The best candidates in an order of their own: by score, label, coordinates."""
    boxes, scores = ops.cast(boxes, "float32"), ops.cast(scores, "float32")
    labels = ops.cast(labels, "int32")
    there = (scores > candidate_score) & ops.all(ops.abs(boxes) < float("inf"), axis=-1)
    scores = ops.where(there, scores, 0.0)
    boxes = ops.where(ops.expand_dims(there, -1), boxes, 0.0)
    keys = [*(boxes[..., i] for i in range(4)), ops.cast(labels, "float32"), -scores]
    order = ops.argsort(keys[0], axis=1)
    for key in keys[1:]:  # stable: between equals the keys before decide
        again = ops.argsort(ops.take_along_axis(key, order, axis=1), axis=1)
        order = ops.take_along_axis(order, again, axis=1)
    order = order[:, :most]
    scores, labels = (ops.take_along_axis(v, order, axis=1) for v in (scores, labels))
    boxes = ops.take_along_axis(boxes, ops.expand_dims(order, 2), axis=1)
    return _Merging(boxes, ops.ones_like(scores), scores, labels)


def _first(those):
    """(B, 1) int32, the place of the first of (B, M) bool; LiteRT lacks what Keras' argmin is made of."""
    place = ops.argmax(ops.cast(those, "int32"), axis=1)
    return ops.cast(ops.expand_dims(place, 1), "int32")


def _merged(found, stays, goes, second) -> _Merging:
    """With the second of a pair, (B, 1), added to the one that stays; of the other no score is left."""

    def added(values):
        of_second = ops.take_along_axis(values, second, axis=1)
        return values + ops.where(stays, of_second, 0.0)

    sums = ops.take_along_axis(found.sums, ops.expand_dims(second, 2), axis=1)
    return _Merging(
        found.sums + ops.where(ops.expand_dims(stays, 2), sums, 0.0),
        added(found.counts),
        ops.where(goes, 0.0, added(found.scores)),
        found.labels,
    )


def _best(found, score_threshold, most) -> Detections:
    """The merged boxes with the highest sums."""
    known = min(most, found.labels.shape[1])
    sums, place = ops.top_k(found.scores, known)
    scores = sums / (1 + sums)
    there = scores > max(score_threshold, 0.0)
    boxes = ops.take_along_axis(found.boxes, ops.expand_dims(place, 2), axis=1)
    boxes = ops.where(ops.expand_dims(there, 2), boxes, 0.0)
    labels = ops.where(there, ops.take_along_axis(found.labels, place, axis=1), -1)
    spare = ((0, 0), (0, most - known))
    return Detections(
        ops.pad(boxes, (*spare, (0, 0))),
        ops.pad(ops.where(there, scores, 0.0), spare),
        ops.pad(labels, spare, constant_values=-1),
        ops.sum(ops.cast(there, "int32"), axis=1),
    )
