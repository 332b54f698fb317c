"""Windows of an image, all of one size, side by side: where they lie, and what they are about.

Sermanet et al., OverFeat, arXiv:1312.6229, sec. 4 and 5.
"""

from typing import Any, NamedTuple

from keras import ops

from kerasdet import boxes as box_ops


def window_boxes(rows, columns, *, step, side):
    """(rows * columns, 4) float32 xyxy pixels, row by row, the first at the top left corner.

    Args:
        rows: whole number, or a scalar tensor.
        columns: likewise.
        step: pixels from one to the next.
        side: of a window, pixels.
    """
    top = ops.cast(ops.arange(rows) * step, "float32")[:, None]
    left = ops.cast(ops.arange(columns) * step, "float32")[None, :]
    corners = ops.stack([left + 0 * top, top + 0 * left], axis=-1)
    corners = ops.reshape(corners, (-1, 2))
    return ops.concatenate([corners, corners + side], axis=-1)


def sizes_for(scales, height, width) -> tuple[tuple[int, int], ...]:
    """The scales, (height, width) each, for a photo: the longer side of each along its longer one."""

    def lies(size):
        return size[::-1] if (size[0] - size[1]) * (height - width) < 0 else size

    return tuple(lies(tuple(size)) for size in scales)


# ---------------------------------------------------------------------- what to learn


class WindowObjects(NamedTuple):
    """What windows are about.

    Attributes:
        owner: (B, N) int32, row of the object; -1 where there is none.
        near: (B, N) bool, whether so much of an object is inside that it is no background.
    """

    owner: Any
    near: Any


def objects_of_windows(windows, boxes, labels, *, smallest, part, share=0.5) -> WindowObjects:
    """Which object each window is about: of those well inside, the one nearest to its middle.

    Args:
        windows: (N, 4) xyxy.
        boxes: (B, G, 4) xyxy in the same units, padded.
        labels: (B, G), -1 for a padded row.
        smallest: least longer side of an object that a window is about.
        part: of the object's area or of the window's; an object with more of it inside is near.
        share: of the object's area that has to be inside (half of it: sec. 4.2).

    Returns:
        WindowObjects; of two objects equally near the lower row.

    Source: arXiv:1312.6229, sec. 4.2 and 5, which say the half, and not how to choose between two
        objects, nor what is background.
    """
    one, other = windows[None, :, None], boxes[:, None]  # (1, N, 1, 4) and (B, 1, G, 4)
    sides = ops.minimum(one[..., 2:], other[..., 2:]) - ops.maximum(one[..., :2], other[..., :2])
    inside = ops.prod(ops.maximum(sides, 0), axis=-1)  # (B, N, G)
    of_object, of_window = box_ops.area(other), box_ops.area(one)
    there = ops.expand_dims(labels >= 0, 1) & (of_object > 0)  # (B, 1, G)
    longer = ops.max(other[..., 2:] - other[..., :2], axis=-1)
    about = there & (longer >= smallest) & (inside >= share * of_object)
    near = there & (inside > part * ops.minimum(of_object, of_window))
    apart = (one[..., :2] + one[..., 2:] - other[..., :2] - other[..., 2:]) / 2
    distance = ops.sum(ops.square(apart), axis=-1)
    owner = ops.argmin(ops.where(about, distance, float("inf")), axis=2)
    owner = ops.where(ops.any(about, axis=2), ops.cast(owner, "int32"), -1)
    return WindowObjects(owner, ops.any(near, axis=2))


def mined_negatives(background, offence, order, *, worst, random):
    """The background that looks least like it, and some more at random, image by image.

    Args:
        background: (B, N) bool, what may be chosen.
        offence: (B, N) float, the highest probability of a class.
        order: (B, N) float, a random number for each; of those left the largest are taken.
        worst: how many of the first kind.
        random: how many of the second.

    Returns:
        (B, N) bool. Where there are fewer, all are taken.

    Source: arXiv:1312.6229, sec. 5: negatives on the fly, random ones or the most offending.
    """
    chosen = _foremost(background, offence, worst)
    return chosen | _foremost(background & ~chosen, order, random)


def _foremost(candidates, values, most):
    """The candidates (B, N) bool with the highest values, as many of an image as `most`."""
    values = ops.where(candidates, values, -float("inf"))
    rank = ops.argsort(ops.argsort(-values, axis=1), axis=1)  # stable: lower places first
    return candidates & (ops.cast(rank, "int32") < most)


# ---------------------------------------------------------------------- what was found


class Candidates(NamedTuple):
    """Boxes before they are merged: every window's, for each of the best classes of an image.

    Attributes:
        boxes: (B, A, 4) xyxy pixels.
        scores: (B, A) in 0..1.
        labels: (B, A) int32.
    """

    boxes: Any
    scores: Any
    labels: Any


def candidates_of(probabilities, boxes, *, classes) -> Candidates:
    """The boxes of all windows for those classes that some window says loudest.

    Args:
        probabilities: (B, n, K).
        boxes: (B, n, K, 4), or (B, n, 1, 4) shared by the classes.
        classes: k, how many of an image's.

    Returns:
        Candidates, A = k * n, the windows of the image's best class first.

    Source: arXiv:1312.6229, sec. 4.3, steps (a) and (b).
    """
    _, count, total = ops.shape(probabilities)
    most = min(classes, total)
    scores = ops.transpose(probabilities, (0, 2, 1))  # (B, K, n)
    _, best = ops.top_k(ops.max(scores, axis=2), most)
    best = ops.expand_dims(best, 2)  # (B, k, 1)
    scores = ops.take_along_axis(scores, best, axis=1)
    boxes = ops.transpose(boxes, (0, 2, 1, 3))  # (B, K or 1, n, 4)
    if boxes.shape[1] == 1:
        boxes = ops.tile(boxes, (1, most, 1, 1))
    else:
        boxes = ops.take_along_axis(boxes, ops.expand_dims(best, 3), axis=1)
    labels = ops.zeros_like(scores, "int32") + ops.cast(best, "int32")
    return Candidates(
        ops.reshape(boxes, (-1, most * count, 4)),
        ops.reshape(scores, (-1, most * count)),
        ops.reshape(labels, (-1, most * count)),
    )
