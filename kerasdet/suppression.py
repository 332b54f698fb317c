"""From scored boxes to detections: per-class non-maximum suppression with fixed-size output."""

from collections import namedtuple

from keras import ops

from kerasdet import boxes as box_ops

# Candidates looked at in one go. A trained network fills its 200 detections from one or two tiles.
_TILE = 512


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
    # Class by class first (short rows), then one short list in order of score.
    scores = ops.transpose(ops.cast(scores, "float32"), (0, 2, 1))  # (B, K, A)
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
        return verdict, ops.where(beaten > 0, 0.0, start)

    def unsettled(before, verdict):
        return ops.any(before != verdict)

    return ops.while_loop(unsettled, one_pass, one_pass(start, start))[1] > 0
