"""Region proposals on their way into a network: checked, told apart, spread over image sizes.

NumPy, before the network, but for `sliding_windows` and `offsets`, which run inside graphs too.
"""

import math
from typing import NamedTuple

import numpy as np
from keras import ops

from kerasdet import boxes as box_ops
from kerasdet.errors import InputError

# Regions come in numbers of these, then of multiples of the last: few sizes, few compilations.
_COUNTS = (100, 300, 500)

# Side and step of sliding windows as shares of the image's; step as a share of the window's.
_WINDOW_SIDES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
_WINDOW_RATIOS = (0.5, 1.0, 2.0)
_WINDOW_STEP = 0.4


def checked_regions(regions, shape, where="the regions") -> np.ndarray:
    """A user's regions as float32 (R, 4) inside their image.

    The rules: rows of four -1 are padding and left out; what juts out of the image is cut at its
    edges; everything else that is no region is an error.

    Args:
        regions: (R, 4) xyxy pixels of the image, of any number type.
        shape: (height, width) of the image, pixels.
        where: what to call them in an error.

    Raises:
        InputError: for another shape, no number or an infinite one, shares of the image in place
            of pixels, a region reversed or without area, or one wholly outside the image.
    """
    try:
        boxes = np.asarray(regions, "float32")
    except (TypeError, ValueError) as error:
        raise InputError(f"Wanted an array (R, 4) for {where}: {error}.") from error
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"Wanted an array (R, 4) for {where}, not one of {boxes.shape}.")
    number = np.flatnonzero((boxes != -1).any(axis=1))
    boxes = boxes[number]
    height, width = shape

    def refuse(bad, rule):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            values = ", ".join(f"{value:g}" for value in boxes[row])
            raise InputError(f"Wanted {rule} for {where}, but row {number[row]} is {values}.")

    refuse(~np.isfinite(boxes).all(axis=1), "finite numbers")
    if len(boxes) and boxes.max() <= 1 < max(height, width):
        raise InputError(
            f"Wanted pixels for {where}, but no coordinate is above 1: multiply shares of the "
            f"image by its width {width} and height {height}."
        )
    refuse((boxes[:, 2:] <= boxes[:, :2]).any(axis=1), "x1 < x2 and y1 < y2")
    sides = np.array([width, height], "float32")
    outside = ((boxes[:, 2:] <= 0) | (boxes[:, :2] >= sides)).any(axis=1)
    refuse(outside, f"regions that lie on the image of {width}x{height} pixels")
    return np.clip(boxes, 0, [width, height, width, height]).astype("float32")


def of_each_image(regions, count) -> list:
    """What a user gave as regions of `count` images, as a list of as many; None where nothing.

    Args:
        regions: None, an array (R, 4) for one image, an array (B, R, 4), or a list of an array
            (R, 4) or None for each image.
        count: of the images.

    Raises:
        InputError: if it is none of these, or there are not as many as images.
    """
    if regions is None:
        return [None] * count
    if not isinstance(regions, list | tuple) and not getattr(regions, "ndim", 0):
        given = repr(regions) if np.isscalar(regions) else f"of type {type(regions).__name__}"
        raise InputError(
            "Wanted regions as an array (R, 4), or a list of such arrays, one for each image, not "
            f"{given}."
        )
    if count == 1 and not _nested(regions):
        return [regions]
    if len(regions) != count:
        raise InputError(
            f"Wanted regions for {count} image{'s' * (count != 1)}, an array (R, 4) for each, "
            f"not {len(regions)}."
        )
    return list(regions)


def _nested(regions):
    """Whether it is regions of images, not the rows of one."""
    if hasattr(regions, "ndim"):
        return regions.ndim == 3
    if not regions or regions[0] is None:
        return len(regions) > 0
    try:
        return np.ndim(regions[0]) == 2
    except ValueError:  # lists of several lengths, which `checked_regions` will name
        return True


def distinct(regions, scale) -> np.ndarray:
    """Rows of the regions that differ on the feature map, the first of equal ones, in their order.

    Args:
        regions: (R, 4) xyxy pixels.
        scale: cells of the map for one of these pixels.

    Returns:
        (n,) int64.

    Source: Fast R-CNN, lib/fast_rcnn/test.py, im_detect, DEDUP_BOXES. Rounded as pooling rounds,
        halves up, so that what is left out would have been pooled the same.
    """
    cells = np.floor(np.asarray(regions, "float32") * np.float32(scale) + np.float32(0.5))
    _, first = np.unique(cells.astype("int64"), axis=0, return_index=True)
    return np.sort(first)


def best_level(regions, scales) -> np.ndarray:
    """For each region the image size at which it is nearest to 224x224 pixels.

    Args:
        regions: (R, 4) xyxy pixels of the photo.
        scales: pixels of each resized image for one of the photo.

    Returns:
        (R,) int64, index into `scales`; the first of equally near ones.

    Source: Fast R-CNN, lib/fast_rcnn/test.py, _project_im_rois; He et al., SPPnet.
    """
    areas = np.prod(regions[:, 2:] - regions[:, :2], axis=1, dtype="float64")
    scaled = areas[:, None] * np.square(np.asarray(scales, "float64"))
    return np.argmin(np.abs(scaled - 224.0**2), axis=1)


def padded_count(count) -> int:
    """To how many rows `count` regions are padded: 100, 300, 500, then multiples of 500."""
    for size in _COUNTS:
        if count <= size:
            return size
    return math.ceil(count / _COUNTS[-1]) * _COUNTS[-1]


def padded(rows, count, value=-1.0) -> np.ndarray:
    """Rows (n, ...) with rows of `value` behind, `count` in all."""
    missing = [(0, count - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
    return np.pad(rows, missing, constant_values=value)


def window_shares(sides=_WINDOW_SIDES, ratios=_WINDOW_RATIOS, step=_WINDOW_STEP) -> np.ndarray:
    """Sliding windows of an image of 1x1: (R, 4) float32 xyxy, the largest first.

    Args:
        sides: square root of each window's area, of the image's 1.
        ratios: of width to height, of the image's own; a window longer than the image is left out.
        step: most that the next window is away, as a share of the window's side.
    """
    windows = []
    for side in sides:
        for ratio in ratios:
            across, down = side * math.sqrt(ratio), side / math.sqrt(ratio)
            if max(across, down) > 1:
                continue
            left, top = (
                np.linspace(0, 1 - length, 1 + math.ceil((1 - length) / (step * length) - 1e-9))
                for length in (across, down)
            )
            top, left = (corner.ravel() for corner in np.meshgrid(top, left, indexing="ij"))
            windows.append(np.stack([left, top, left + across, top + down], axis=1))
    return np.concatenate(windows).astype("float32")


def sliding_windows(
    height, width, *, sides=_WINDOW_SIDES, ratios=_WINDOW_RATIOS, step=_WINDOW_STEP
):
    """Windows of several sizes and shapes all over an image, as proposals that need no search.

    As many for every image, whatever its size, so that they can be made inside a graph.

    Args:
        height: of the image, pixels; a number or a scalar tensor.
        width: likewise.
        sides: square root of each window's area as a share of that of the image's.
        ratios: of width to height, relative to the image's own.
        step: most that the next window is away, as a share of the window's side.

    Returns:
        (R, 4) float32 tensor, xyxy pixels; 1 000 to 2 000 rows by default.
    """
    height, width = ops.cast(height, "float32"), ops.cast(width, "float32")
    return window_shares(sides, ratios, step) * ops.stack([width, height, width, height])


# ---------------------------------------------------------------------- what they should become


def offsets(boxes, regions):
    """What makes regions into boxes: (..., 4) tx ty tw th, not normalised.

    Args:
        boxes: (..., 4) xyxy, one for each region.
        regions: (..., 4) xyxy in the same units, of positive size.
    """
    return box_ops.encode(boxes, regions, variances=(1.0,) * 4)


class TargetStatistics(NamedTuple):
    """Of each class: how many regions show it, (K,); means and standard deviations, both (K, 4)."""

    regions: np.ndarray
    means: np.ndarray
    deviations: np.ndarray


def target_statistics(batches, num_classes, *, foreground_iou=0.5) -> TargetStatistics:
    """Means and deviations of the offsets from regions, the objects' own boxes among them.

    Args:
        batches: pairs of regions (B, R, 4), padded with -1, and {"boxes": (B, G, 4), "labels":
            (B, G)}, padded with label -1.
        num_classes: K.
        foreground_iou: IoU with its best object from which a region shows it.

    Source: Fast R-CNN, lib/roi_data_layer/roidb.py, add_bbox_regression_targets.
    """
    count = np.zeros((num_classes, 1))
    total, squares = np.zeros((2, num_classes, 4))
    for regions, targets in batches:
        found, labels = _shown(regions, targets["boxes"], targets["labels"], foreground_iou)
        np.add.at(count, labels, 1)
        np.add.at(total, labels, found)
        np.add.at(squares, labels, np.square(found))
    means = total / np.maximum(count, 1)
    variances = np.maximum(squares / np.maximum(count, 1) - np.square(means), 0)
    return TargetStatistics(count[:, 0], means, np.sqrt(variances))


def _shown(regions, boxes, labels, foreground_iou):
    """Offsets (n, 4) and labels (n,) of all of a batch's regions that show an object."""
    boxes, labels = ops.convert_to_numpy(boxes), ops.convert_to_numpy(labels)
    if not labels.size:
        return np.zeros((0, 4)), np.zeros(0, "int64")
    regions = np.concatenate([ops.convert_to_numpy(regions), boxes], axis=1).astype("float32")
    overlaps = ops.convert_to_numpy(box_ops.iou(regions, boxes))  # (B, R, G)
    overlaps = np.where((labels >= 0)[:, None], overlaps, 0.0)
    image, row = np.nonzero(overlaps.max(axis=-1) >= foreground_iou)
    owner = overlaps.argmax(axis=-1)[image, row]
    found = offsets(boxes[image, owner].astype("float32"), regions[image, row])
    return ops.convert_to_numpy(found).astype("float64"), labels[image, owner]
