"""Which default box answers for which object, and which regions a step learns from.

Static shapes, no gradient, no Python loop over boxes; runs on any Keras back end.
"""

from typing import Any, NamedTuple

from keras import ops

from kerasdet import boxes as box_ops


class Matches(NamedTuple):
    """For every anchor, the object it answers for.

    Attributes:
        index: (B, A) int32, row of the ground truth; -1 where the anchor is background.
        overlap: (B, A) float, the anchor's best IoU with any object (0 without objects).
    """

    index: Any
    overlap: Any


def match_default_boxes(anchors, boxes, labels, *, threshold=0.5) -> Matches:
    """SSD's matching: a bipartite one first, then every anchor whose best IoU reaches the threshold.

    The bipartite step takes, again and again, the largest IoU among the objects and
    anchors not yet taken, so that every object that overlaps any anchor has one of its
    own. Equal overlaps go to the lower anchor, then to the lower object.

    Args:
        anchors: (A, 4) xyxy.
        boxes: (B, G, 4) xyxy in the same units, padded.
        labels: (B, G), -1 for a padded row.
        threshold: IoU from which the second step matches.

    Returns:
        Matches.

    Source: Liu et al., SSD, arXiv:1512.02325, sec. 2.2; MatchBBox in bbox_util.cpp of the
        release (PER_PREDICTION, overlap_threshold 0.5, pairs of IoU <= 1e-6 left out).
    """
    overlaps = box_ops.iou(
        boxes, anchors
    )  # (B, G, A): the long axis last, for the reductions below
    overlaps = ops.where(ops.expand_dims(labels >= 0, -1), overlaps, 0.0)
    index = ops.cast(ops.argmax(overlaps, axis=1), "int32")  # (B, A)
    best = ops.max(overlaps, axis=1)  # (B, A)
    index = ops.where(best >= threshold, index, -1)
    own = _bipartite(overlaps)  # (B, G)
    return Matches(_place(own, index), best)


def _bipartite(overlaps):
    """The anchor each object takes for itself: (B, G) int32, -1 for none.

    Taking the largest pair first, one at a time, is the same as taking in one round
    every pair that is best for both its object and its anchor: no later pick can part
    them. So a few rounds over the whole batch do the work of G picks an image. Best for
    its anchor means among all objects still waiting: one that asks for another anchor in
    this round, and loses it there, may want this one next.
    """
    anchor_count = overlaps.shape[-1]
    positions = ops.arange(anchor_count, dtype="int32")

    def propose(own, taken):
        free = ops.where(ops.expand_dims(taken, 1), 0.0, overlaps)  # (B, G, A)
        best, choice = ops.max(free, -1), ops.cast(ops.argmax(free, -1), "int32")  # (B, G)
        return ops.where((own < 0) & (best > 1e-6), best, 0.0), choice

    def waiting(own, taken, best, choice):
        return ops.any(best > 0)

    def round_(own, taken, best, choice):
        # [b, h, g]: how much waiting object h overlaps the anchor that object g asks for.
        rivals = ops.take_along_axis(overlaps, ops.expand_dims(choice, 1), axis=2)
        rivals = ops.where(ops.expand_dims(own < 0, 2), rivals, -1.0)
        winner = ops.cast(ops.argmax(rivals, axis=1), "int32")  # the lowest object among equals
        wins = (winner == ops.arange(ops.shape(choice)[1], dtype="int32")) & (best > 0)
        own = ops.where(wins, choice, own)
        won = ops.where(wins, choice, -1)  # (B, G)
        taken = taken | ops.any(ops.expand_dims(won, -1) == positions, axis=1)  # (B, A)
        best, choice = propose(own, taken)
        return own, taken, best, choice

    own = ops.zeros_like(overlaps[..., 0], dtype="int32") - 1
    taken = ops.zeros_like(overlaps[:, 0, :], dtype="bool")
    return ops.while_loop(waiting, round_, (own, taken, *propose(own, taken)))[0]


def _place(own, index):
    """Writes each object's own anchor over what the threshold gave: (B, G), (B, A) -> (B, A)."""
    positions = ops.arange(index.shape[-1], dtype="int32")
    mine = ops.expand_dims(own, -1) == positions  # (B, G, A)
    owner = ops.cast(ops.argmax(mine, axis=1), "int32")
    return ops.where(ops.any(mine, axis=1), owner, index)


def hard_negatives(losses, positive, candidates, *, ratio=3):
    """Marks each image's hardest negatives, at most `ratio` for each positive.

    Args:
        losses: (B, A) how wrong each anchor is as background; larger is harder.
        positive: (B, A) bool, the matched anchors.
        candidates: (B, A) bool, the anchors that may serve as negatives.
        ratio: negatives per positive. An image without positives gives none.

    Returns:
        (B, A) bool. Among equals the lower anchor is taken, so the count is exact.

    Source: SSD sec. 2.2 (at most 3:1); MineHardExamples in bbox_util.cpp (MAX_NEGATIVE).
    """
    wanted = ratio * ops.sum(ops.cast(positive, "int32"), axis=1, keepdims=True)  # (B, 1)
    losses = ops.where(candidates, losses, -float("inf"))
    order = ops.argsort(-losses, axis=1)  # stable: hardest first
    rank = ops.argsort(order, axis=1)  # (B, A), the place of each anchor in that order
    return candidates & (ops.cast(rank, "int32") < wanted)


# ---------------------------------------------------------------------- regions


class SampledRegions(NamedTuple):
    """The regions that a training step looks at, objects' before background's.

    Attributes:
        index: (B, S) int32, row of the region; 0 where there is none.
        owner: (B, S) int32, row of the object it is to find; -1 for background.
        taken: (B, S) bool, False in rows past those that were found.
    """

    index: Any
    owner: Any
    taken: Any


def sample_regions(
    regions,
    boxes,
    labels,
    order,
    *,
    samples=64,
    foreground_share=0.25,
    foreground_iou=0.5,
    background_iou=(0.1, 0.5),
) -> SampledRegions:
    """Draws from each image regions with an object and, for the rest, background.

    Up to `foreground_share` of the samples are of regions whose best IoU with an object reaches
    `foreground_iou`; the others of those whose best IoU is within `background_iou`. Where too few
    are there, fewer are taken.

    Args:
        regions: (B, R, 4) xyxy; a row without area is never taken.
        boxes: (B, G, 4) xyxy in the same units, padded.
        labels: (B, G), -1 for a padded row.
        order: (B, R) float, a random number in 0..1 for each region: of each kind the
            regions with the largest are taken, which is a draw without replacement.
        samples: S, most regions of an image.
        foreground_share: most of S that may show objects, rounded to a whole number.
        foreground_iou: least IoU of these.
        background_iou: least IoU of background, and the one it stays below.

    Returns:
        SampledRegions.

    Source: Girshick, Fast R-CNN, arXiv:1504.08083, sec. 2.3; lib/roi_data_layer/minibatch.py,
        _sample_rois.
    """
    overlaps = box_ops.iou(boxes, regions)  # (B, G, R)
    overlaps = ops.where(ops.expand_dims(labels >= 0, -1), overlaps, 0.0)
    owner = ops.cast(ops.argmax(overlaps, axis=1), "int32")  # (B, R)
    best = ops.max(overlaps, axis=1)
    there = box_ops.area(regions) > 0
    low, high = background_iou
    foreground = there & (best >= foreground_iou)
    background = there & ~foreground & (best >= low) & (best < high)

    slots = ops.expand_dims(ops.arange(samples, dtype="int32"), 0)  # (1, S)
    most = min(round(foreground_share * samples), samples)
    of_object, objects = _drawn(foreground, order, most)
    of_background, rest = _drawn(background, order, samples)
    rest = ops.minimum(rest, samples - objects)  # (B, 1)
    of_object = ops.pad(of_object, ((0, 0), (0, samples - most)))
    later = ops.maximum(slots - objects, 0)  # the background's own slots
    is_object = slots < objects
    index = ops.where(is_object, of_object, ops.take_along_axis(of_background, later, axis=1))
    taken = slots < objects + rest
    index = ops.where(taken, index, 0)
    owner = ops.take_along_axis(owner, index, axis=1)
    return SampledRegions(index, ops.where(is_object, owner, -1), taken)


def _drawn(candidates, order, most):
    """Rows (B, most) of the candidates that come first, and how many there are (B, 1) int32."""
    known = min(most, candidates.shape[1])
    _, rows = ops.top_k(ops.where(candidates, order, -1.0), known)
    rows = ops.pad(ops.cast(rows, "int32"), ((0, 0), (0, most - known)))
    count = ops.sum(ops.cast(candidates, "int32"), axis=1, keepdims=True)
    return rows, ops.minimum(count, most)
