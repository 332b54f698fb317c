"""The region layer of YOLOv2 and YOLO9000: boxes from a grid of cells with priors, and the loss.

Redmon and Farhadi: YOLO9000: Better, Faster, Stronger, arXiv:1612.08242, sec. 2; darknet
src/region_layer.c. The grid is read from the outputs' own shape, so that one network serves
images of any size. How classes are scored is the caller's.

The loss is chosen for its gradient: that is darknet's delta, times the logistic gradient where
its GPU backward multiplies it in, turned round in sign, as descent wants it:

    centre, objectness   scale / 2 * (t - sigmoid(x))**2     scale * (sigmoid(x) - t) * sigmoid'(x)
    log sizes            scale / 2 * (t - x)**2              scale * (x - t)
    classes, softmax     -scale * log p of the label         scale * (p - t)

What darknet prints as its loss is another number, the sum of the squared deltas. It divides
the learning rate by the batch; here the caller takes the mean over the images.

Differences from darknet:

- Any number of objects counts; darknet reads the first 30 of an image.
- Log sizes are cut at ln(1000/16) in decoding; darknet has no cut.
- A centre on the right or lower edge belongs to the last cell; darknet reads past the grid.
"""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kerasdet import boxes as box_ops
from kerasdet.errors import InputError

CELL = 32
"""Pixels of a cell's side: five halvings in every network of the family."""

LOCATIONS = ("direct", "offset")
"""How a box's centre is predicted: inside its cell (the paper), or from it without a bound (RPN)."""


class RegionSettings(NamedTuple):
    """Numbers of a `[region]` section; these are yolov2.cfg's.

    Attributes:
        object_scale: weight of the objectness of a box that has an object.
        no_object_scale: of one that has none.
        class_scale: of an object's classes.
        coordinate_scale: of an object's box.
        ignore_iou: a box without an object that overlaps one by more is left alone (thresh).
        rescore: an object's objectness is to be its box's IoU with it, else 1.
        weigh_small: multiply an object's `coordinate_scale` by 2 - its share of the image, as
            darknet does from 2017-03-26 on (commit 60e952ba).
        prior_images: for so many images every box without an object is drawn to its prior.
        prior_scale: weight of that.
    """

    object_scale: float = 5.0
    no_object_scale: float = 1.0
    class_scale: float = 1.0
    coordinate_scale: float = 1.0
    ignore_iou: float = 0.6
    rescore: bool = True
    weigh_small: bool = True
    prior_images: int = 12_800
    prior_scale: float = 0.01


def checked_settings(changes) -> RegionSettings:
    """yolov2.cfg's settings with {name: number} over them; None: those alone.

    Raises:
        InputError: for what is no dict, a name that there is not, or a value that does not do.
    """
    changes = {} if changes is None else changes
    if not isinstance(changes, Mapping):
        raise InputError(f"loss wants a dict of names and numbers, not {changes!r}.")
    unknown = [name for name in changes if name not in RegionSettings._fields]
    if unknown:
        raise InputError(
            f"loss wants names among {', '.join(RegionSettings._fields)}, "
            f"not {', '.join(map(str, unknown))}."
        )
    for name, value in changes.items():
        if isinstance(getattr(RegionSettings(), name), bool):
            if not isinstance(value, bool | np.bool_):
                raise InputError(f"loss wants True or False as {name}, not {value!r}.")
        elif not (isinstance(value, Real) and 0 <= float(value) < math.inf):
            raise InputError(f"loss wants a number from 0 on as {name}, not {value!r}.")
    return RegionSettings(**changes)


class AssignedObjects(NamedTuple):
    """Which box of the grid answers for which object; G objects an image, padded.

    Attributes:
        boxes: (B, G, 4) float32 xyxy pixels of the network input.
        labels: (B, G) int32, -1 for padding.
        slot: (B, G) int32, the box that answers: (row * columns + column) * A + prior.
        owns: (B, G) bool: a real object, and no later one has the same slot.
        offsets: (B, G, 4) float32, what the box's x, y, w, h should be.
        share: (B, G) float32, the object's part of the image's area.
    """

    boxes: Any
    labels: Any
    slot: Any
    owns: Any
    offsets: Any
    share: Any


class RegionTerms(NamedTuple):
    """The loss of every image by itself, (B,) each: sums over its cells, priors and objects."""

    coordinates: Any
    objectness: Any
    no_object: Any
    classes: Any
    prior: Any


# ---------------------------------------------------------------------- priors


def checked_priors(priors) -> np.ndarray:
    """Widths and heights in cells as a (A, 2) float32 array.

    Raises:
        InputError: if they are not pairs of positive numbers.
    """
    try:
        array = np.asarray(priors, "float32")
    except (TypeError, ValueError):
        array = np.zeros(0)
    pairs = array.ndim == 2 and array.shape[1] == 2 and len(array) > 0
    if not pairs or not np.isfinite(array).all() or not (array > 0).all():
        raise InputError(
            "anchors want pairs of a positive width and height in cells of "
            f"{CELL} pixels, not {priors!r}."
        )
    return array


def prior_boxes(priors, image_size) -> np.ndarray:
    """Every prior around the middle of every cell.

    Args:
        priors: (A, 2) widths and heights, cells.
        image_size: (height, width), pixels.

    Returns:
        (rows * columns * A, 4) float32 xyxy pixels, in the order of `AssignedObjects.slot`.
    """
    rows, columns = (side // CELL for side in image_size)
    y, x = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij")
    centres = np.stack([x, y], axis=-1)[:, :, None]  # (rows, columns, 1, 2)
    half = np.asarray(priors) / 2
    boxes = np.concatenate([centres - half, centres + half], axis=-1) * CELL
    return boxes.reshape(-1, 4).astype("float32")


# ---------------------------------------------------------------------- boxes


def decode_boxes(raw, priors, *, location="direct"):
    """Boxes from raw outputs.

        direct   x = column + sigmoid(tx)             w = prior_w * exp(tw)
        offset   x = column + 0.5 + tx * prior_w      w = prior_w * exp(tw)

    Args:
        raw: (B, rows, columns, A, 4 or more), tx ty tw th first.
        priors: (A, 2) widths and heights, cells.
        location: "direct" (sec. 2, direct location prediction) or "offset" (Faster R-CNN's).

    Returns:
        (B, rows, columns, A, 4) float32 xyxy pixels of the network input, not clipped to it.
    """
    raw = ops.cast(raw[..., :4], "float32")
    priors = ops.convert_to_tensor(priors, "float32")
    rows, columns = ops.shape(raw)[1:3]
    row = ops.reshape(ops.cast(ops.arange(rows), "float32"), (-1, 1, 1))
    column = ops.reshape(ops.cast(ops.arange(columns), "float32"), (-1, 1))
    if location == "direct":
        shift = ops.sigmoid(raw[..., :2])
    else:
        shift = 0.5 + raw[..., :2] * priors
    centre = ops.stack([shift[..., 0] + column, shift[..., 1] + row], axis=-1)
    half = priors * ops.exp(ops.minimum(raw[..., 2:], box_ops.MAX_LOG_SIZE)) / 2
    return ops.concatenate([centre - half, centre + half], axis=-1) * CELL


# ---------------------------------------------------------------------- targets


def assign_objects(boxes, labels, priors, grid, *, location="direct") -> AssignedObjects:
    """Each object to the cell its centre lies in, and there to the prior nearest in size.

    Nearest is the largest IoU of the two sizes laid on one corner, the first of equals. Of
    objects that meet in one place the last keeps it, as darknet's overwrites the delta.

    Args:
        boxes: (B, G, 4) xyxy pixels of the network input.
        labels: (B, G) integers, -1 for padding.
        priors: (A, 2) widths and heights, cells.
        grid: (rows, columns), integers or scalar tensors.
        location: as in `decode_boxes`; "offset" targets are relative to the prior's box.

    Source: region_layer.c, forward_region_layer (bias_match=1) and delta_region_box.
    """
    boxes, labels = ops.cast(boxes, "float32"), ops.cast(labels, "int32")
    if not boxes.shape[1]:  # none or not known: a padded row, so that there is one to look at
        boxes = ops.pad(boxes, ((0, 0), (0, 1), (0, 0)))
        labels = ops.pad(labels, ((0, 0), (0, 1)), constant_values=-1)
    priors = ops.convert_to_tensor(priors, "float32")
    rows, columns = grid
    cells = boxes / CELL
    centre = (cells[..., :2] + cells[..., 2:]) / 2  # (B, G, 2)
    size = ops.maximum(cells[..., 2:] - cells[..., :2], 1e-6)
    column = ops.clip(ops.floor(centre[..., 0]), 0, ops.cast(columns, "float32") - 1)
    row = ops.clip(ops.floor(centre[..., 1]), 0, ops.cast(rows, "float32") - 1)
    nearest = ops.argmax(_size_iou(size, priors), axis=-1)  # (B, G)
    prior = ops.take(priors, nearest, axis=0)  # (B, G, 2)
    shift = centre - ops.stack([column, row], axis=-1)
    if location == "offset":
        shift = (shift - 0.5) / prior
    row, column, nearest = (ops.cast(n, "int32") for n in (row, column, nearest))
    slot = (row * columns + column) * priors.shape[0] + nearest
    area = ops.cast(rows * columns, "float32")
    return AssignedObjects(
        boxes=boxes,
        labels=labels,
        slot=slot,
        owns=_last_in_its_place(slot, labels >= 0),
        offsets=ops.concatenate([shift, ops.log(size / prior)], axis=-1),
        share=size[..., 0] * size[..., 1] / area,
    )


def _size_iou(sizes, priors):
    """IoU (..., A) of sizes (..., 2) and priors (A, 2) laid on one corner."""
    sizes = ops.expand_dims(sizes, -2)
    shared = ops.minimum(sizes, priors)
    shared = shared[..., 0] * shared[..., 1]
    return shared / (sizes[..., 0] * sizes[..., 1] + priors[..., 0] * priors[..., 1] - shared)


def _last_in_its_place(slot, real):
    place = ops.arange(ops.shape(slot)[1])
    later = ops.expand_dims(place, 0) > ops.expand_dims(place, 1)  # (G, G), second after first
    same = ops.expand_dims(slot, 1) == ops.expand_dims(slot, 2)  # (B, G, G)
    return real & ~ops.any(same & later & ops.expand_dims(real, 1), axis=2)


# ---------------------------------------------------------------------- loss


def softmax_loss(logits, labels):
    """-ln of the label's softmax: (..., K) logits and (...) labels 0..K-1 to (...)."""
    chosen = ops.take_along_axis(logits, ops.expand_dims(labels, -1), axis=-1)[..., 0]
    return ops.logsumexp(logits, axis=-1) - chosen


def region_loss(
    raw,
    assigned: AssignedObjects,
    priors,
    *,
    class_loss=softmax_loss,
    location="direct",
    settings=None,
    images_seen=None,
) -> RegionTerms:
    """The loss of one batch, image by image; the caller masks and averages over the images.

    An image whose objects are all padding pays `no_object` for every box, and `prior`.

    Args:
        raw: (B, rows, columns, A, 5 + K): tx ty tw th to, then class logits.
        assigned: what `assign_objects` gave for the same grid.
        priors: (A, 2) widths and heights, cells.
        class_loss: (logits (B, G, K), labels (B, G), 0 for padding) to (B, G): of every
            object at its own box. Padding's is not counted, but must be finite.
        location: as in `decode_boxes`.
        settings: RegionSettings; None for yolov2.cfg's.
        images_seen: scalar, this batch included; the pull to the priors acts below
            `settings.prior_images`. None: it does not act.

    Source: region_layer.c, forward_region_layer.
    """
    settings = settings or RegionSettings()
    rows, columns, anchors, numbers = ops.shape(raw)[1:]
    count = rows * columns * anchors
    raw = ops.cast(raw, "float32")
    boxes = ops.stop_gradient(decode_boxes(raw, priors, location=location))
    boxes = ops.reshape(boxes, (-1, count, 4))
    raw = ops.reshape(raw, (-1, count, numbers))
    own, own_boxes = _at_slots(raw, assigned.slot), _at_slots(boxes, assigned.slot)  # (B, G, ...)
    first = raw[..., :5]
    owns = assigned.owns

    offsets = _offsets(own[..., :4], location)
    error = ops.where(ops.expand_dims(owns, -1), offsets - assigned.offsets, 0.0)
    weight = 2 - assigned.share if settings.weigh_small else ops.ones_like(assigned.share)
    coordinates = weight * ops.sum(ops.square(error), axis=-1)  # (B, G)

    pairs = box_ops.iou(ops.expand_dims(own_boxes, 2), ops.expand_dims(assigned.boxes, 2))
    reached = pairs[..., 0, 0] if settings.rescore else ops.ones_like(assigned.share)
    objectness = ops.square(ops.where(owns, ops.sigmoid(own[..., 4]) - reached, 0.0))

    taken = _taken(assigned, count)  # (B, N)
    real = ops.expand_dims(assigned.labels >= 0, 1)
    overlap = ops.where(real, box_ops.iou(boxes, assigned.boxes), 0.0)  # (B, N, G)
    ignored = taken | (ops.max(overlap, axis=2) > settings.ignore_iou)
    no_object = ops.square(ops.where(ignored, 0.0, ops.sigmoid(first[..., 4])))

    classes = class_loss(own[..., 5:], ops.maximum(assigned.labels, 0))
    return RegionTerms(
        coordinates=settings.coordinate_scale / 2 * ops.sum(coordinates, axis=1),
        objectness=settings.object_scale / 2 * ops.sum(objectness, axis=1),
        no_object=settings.no_object_scale / 2 * ops.sum(no_object, axis=1),
        classes=settings.class_scale * ops.sum(ops.where(owns, classes, 0.0), axis=1),
        prior=_prior_term(first, taken, location, settings, images_seen),
    )


def _prior_term(first, taken, location, settings, images_seen):
    """(B,): boxes without an object drawn to their cell's middle and their prior's size."""
    if images_seen is None:
        return ops.zeros_like(first[:, 0, 0])
    middle = ops.convert_to_tensor([0.5, 0.5, 0, 0] if location == "direct" else [0.0] * 4)
    error = ops.sum(ops.square(_offsets(first[..., :4], location) - middle), axis=-1)  # (B, N)
    scale = ops.where(images_seen < settings.prior_images, settings.prior_scale, 0.0)
    return ops.cast(scale, "float32") / 2 * ops.sum(ops.where(taken, 0.0, error), axis=1)


def _offsets(raw, location):
    """Raw x, y, w, h as the targets are written: a direct centre goes through the sigmoid."""
    if location != "direct":
        return raw
    return ops.concatenate([ops.sigmoid(raw[..., :2]), raw[..., 2:]], axis=-1)


def _taken(assigned, count):
    """(B, N) bool: whether an object owns the box."""
    place = ops.expand_dims(ops.arange(count, dtype="int32"), 1)
    mine = ops.expand_dims(assigned.slot, 1) == place  # (B, N, G)
    return ops.any(mine & ops.expand_dims(assigned.owns, 1), axis=2)


def _at_slots(values, slot):
    """Rows of (B, N, C) at (B, G): one gather of whole rows, whose gradient is one scatter."""
    batch, count, channels = ops.shape(values)
    start = ops.expand_dims(ops.arange(batch, dtype="int32") * count, 1)
    return ops.take(ops.reshape(values, (-1, channels)), slot + start, axis=0)
