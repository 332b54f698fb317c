"""From a data set of examples to the batches that `fit` takes: order, augmentation, padding.

Order, seeds and sizes are `kerasdet.data.epochs`'; what is drawn at random is a function of (seed,
epoch, place in the epoch) alone.
"""

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerasdet.classes import about_names, are_generic, listed
from kerasdet.data import augment as augmentation
from kerasdet.data import augment_corner, augment_yolo
from kerasdet.data.augment import static_shape
from kerasdet.data.augment_corner import SHORT_SHARE
from kerasdet.data.epochs import Order, batched, planned
from kerasdet.data.proposals import MAX_REGIONS
from kerasdet.errors import InputError

ID_BYTES = 64
"""An image id travels as its last 64 bytes: strings cannot go to JAX or to a GPU."""

_log = logging.getLogger("kerasdet.data")

_AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "ssd": augmentation.ssd,
    "flip": augmentation.flip,
    "yolo_v1": augment_yolo.yolo_v1,
    "yolo_v2": augment_yolo.yolo_v2,
}
_RESIZES: dict[str, Callable[..., Any]] = {
    "warp": augmentation.warp,
    "letterbox": augment_yolo.letterbox,
    "letterbox_smooth": functools.partial(augment_yolo.letterbox, smooth=True),
}
_MAX_BOXES = 100  # as many as COCO's evaluation looks at in an image (pycocotools, maxDets)


def pipeline(
    examples: tf.data.Dataset,
    model: Any,
    batch_size: int = 16,
    *,
    augment: str | Callable[..., Any] | None = None,
    shuffle: bool | int | None = None,
    seed: int = 0,
    first_epoch: int = 0,
    repeat: bool = False,
    cache: bool | str = False,
    max_boxes: int | None = None,
    use_difficult: bool = True,
    shard: tuple[int, int] | None = None,
    drop_remainder: bool = False,
    multi_scale: Sequence[int] | None = None,
    multi_scale_every: int = 10,
    multi_scale_last: int = 0,
    epochs: int | None = None,
) -> tf.data.Dataset:
    """Batches for `model.fit` and `model.evaluate`.

    A batch is `(images, targets)`: images float32 (B, H, W, 3), RGB 0..255, at the model's input
    size; targets `{"boxes": (B, G, 4) float32 pixels of the network's input, "labels": (B, G) int32,
    "image_id": (B, 64) uint8}`, padded with boxes 0 and labels -1. Crowd boxes are left out.
    Examples with an "image_label", int32 scalar, hand it on as (B,). For a model that wants regions
    a batch is `({"images": images, "regions": (B, R, 4) float32}, targets)`: the examples' regions
    (`kerasdet.data.with_regions`), moved as the boxes are, and padded with -1.

    Args:
        examples: what a reader gives, or any data set of such elements (`kerasdet.data.example`).
        model: a detector; anything with `image_size` (height, width) and `class_names`, and where
            whole images are not warped `resize`, "letterbox", or "corner" and with it `short_side`
            and `mean`, the colour around the image. `takes_regions`: see above.
        batch_size: images a batch; the last batch of an epoch holds what is left.
        augment: `"ssd"`, `"yolo_v1"`, `"yolo_v2"`, `"flip"`, a function `(example, image_size, seed
            (2,) int64) -> (image, boxes, labels)`, or None: the whole image is resized, as
            `model.detect` does it. A function gets regions among the boxes, with label -1. A model
            that resizes to a corner takes "flip", a function or None.
        shuffle: another order in every epoch. None: where there is augmentation. A reader of files
            is shuffled as a whole, before decoding; anything else through a buffer of that many examples
            (True: 512, or as many as there are in `cache=True`).
        seed: of the order and the augmentation.
        first_epoch: number of the epoch that comes first. Each time the result is iterated over, as
            `fit` does in every epoch, it gives the next one.
        repeat: one endless iteration over all epochs from `first_epoch` on, instead; for
            `fit(steps_per_epoch=batches.steps_per_epoch)`.
        cache: keep decoded images in memory (True) or in files whose names begin with this path.
        max_boxes: G. None: the most objects of one image, rounded up to a multiple of 8, where
            the reader has `records`, else 100. On an image with more the largest ones count, and a
            warning says so.
        use_difficult: whether VOC's difficult objects count; in SSD's training they do.
        shard: (index, count): this worker's share. Workers' examples are disjoint and together
            all, but that shorter shares repeat one of theirs: all have equally many steps.
        drop_remainder: leave out a last batch that is not full.
        multi_scale: sides in pixels; batches are square images of one of them, in place of the
            model's `image_size`. YOLOv2's are `range(320, 609, 32)` (paper sec. 2). Of a model that
            resizes to a corner they are what photos' short sides become, on canvases of 5/3 of that,
            in which longer photos become smaller: Fast R-CNN's 1200 and 2000 pixels (paper sec. 5.2).
        multi_scale_every: batches until another size is drawn, counted from each epoch's first.
        multi_scale_last: so many batches before the end of the last epoch and from there on every draw
            gives the greatest size: darknet's YOLOv2 has 200 (examples/detector.c). 0: never.
        epochs: how many there are in all, where `multi_scale_last` is not 0.

    Returns:
        The batches, with attributes `steps_per_epoch` (None if the number of examples is unknown),
        `class_names` and `max_boxes`.

    Raises:
        InputError: if the data's classes are not the model's, or an argument makes no sense.
    """
    _check(examples, model)
    plan = planned(
        model,
        batch_size,
        multi_scale=multi_scale,
        multi_scale_every=multi_scale_every,
        multi_scale_last=multi_scale_last,
        epochs=epochs,
        shard=shard,
        seed=seed,
        first_epoch=first_epoch,
        repeat=repeat,
        drop_remainder=drop_remainder,
    )
    if shuffle is None:
        shuffle = augment is not None
    if max_boxes is None:
        max_boxes = most_boxes(examples, use_difficult)
    elif max_boxes < 1:
        raise InputError(f"max_boxes must be 1 or more, not {max_boxes}")
    order = Order(examples, shuffle, seed=seed, cache=cache, shard=plan.worker)
    share, steps = plan.share(order.size)
    batches = batched(
        lambda epoch: order.epoch(epoch, share=share),
        preparation(
            transform_of(augment, model, several=multi_scale is not None),
            max_boxes,
            use_difficult,
            max_regions=_most_regions(examples, model),
        ),
        plan,
        steps=steps,
        drawn=augment is not None or bool(shuffle),
    )
    batches.class_names = list(model.class_names)
    batches.max_boxes = max_boxes
    return batches


def image_ids(rows: Any) -> list[str]:
    """The image ids in a batch's `image_id` (B, 64), as strings of at most 64 bytes."""
    rows = np.asarray(rows, np.uint8)
    return [row.tobytes().rstrip(b"\0").decode("utf-8", "replace") for row in rows]


def preparation(transform, max_boxes, use_difficult=True, *, max_regions=None):
    """The graph function (example, image_size, seed) to (image, targets) of one example.

    With `max_regions`, its R, to ({"images": image, "regions": (R, 4)}, targets).
    """
    told = False

    def tell(number):
        nonlocal told
        if not told:
            told = True
            _log.warning(
                "an image has %d objects and max_boxes is %d: there and on images like it the "
                "smallest are left out",
                number,
                max_boxes,
            )
        return np.int64(0)

    def prepare(example, image_size, seed):
        kept = tf.ones_like(example["labels"], tf.bool)
        if "crowd" in example:
            kept &= ~example["crowd"]
        if "difficult" in example and not use_difficult:
            kept &= ~example["difficult"]
        kept = tf.where(kept)[:, 0]
        objects = {key: tf.gather(example[key], kept) for key in ("boxes", "labels")}
        if max_regions is not None:
            objects = _together(objects, example["regions"])
        image, boxes, labels = transform({**example, **objects}, image_size, seed)
        inputs = tf.ensure_shape(tf.cast(image, tf.float32), static_shape(image_size))
        if max_regions is not None:
            regions, boxes, labels = _apart(boxes, labels, max_regions)
            inputs = {"images": inputs, "regions": regions}
        boxes, labels = _padded(boxes, labels, max_boxes, tell)
        targets = {"boxes": boxes, "labels": labels, "image_id": _id_bytes(example)}
        if "image_label" in example:
            targets["image_label"] = tf.cast(example["image_label"], tf.int32)
        return inputs, targets

    return prepare


def _together(objects, regions):
    """Regions behind the objects, with label -1: so whatever moves boxes moves them too."""
    regions = tf.cast(regions, tf.float32)
    nothing = tf.fill(tf.shape(regions)[:1], tf.constant(-1, objects["labels"].dtype))
    return {
        "boxes": tf.concat([tf.cast(objects["boxes"], tf.float32), regions], axis=0),
        "labels": tf.concat([objects["labels"], nothing], axis=0),
    }


def _apart(boxes, labels, max_regions):
    """Regions (R, 4), padded with -1; the objects' boxes (N, 4) and labels (N,)."""
    objects = labels >= 0
    regions = tf.boolean_mask(tf.cast(boxes, tf.float32), ~objects)[:max_regions]
    missing = max_regions - tf.shape(regions)[0]
    regions = tf.pad(regions, [[0, missing], [0, 0]], constant_values=-1.0)
    regions = tf.ensure_shape(regions, (max_regions, 4))
    return regions, tf.boolean_mask(boxes, objects), tf.boolean_mask(labels, objects)


def _padded(boxes, labels, max_boxes, tell):
    """Boxes (G, 4) and labels (G,), from at most G objects: of more, the largest, in their order."""
    boxes, labels = tf.cast(boxes, tf.float32), tf.cast(labels, tf.int32)

    def largest():
        told = tf.numpy_function(tell, [tf.shape(boxes)[0]], tf.int64)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        with tf.control_dependencies([told]):
            kept = tf.sort(tf.math.top_k(area, max_boxes).indices)
        return tf.gather(boxes, kept), tf.gather(labels, kept)

    boxes, labels = tf.cond(tf.shape(boxes)[0] > max_boxes, largest, lambda: (boxes, labels))
    missing = max_boxes - tf.shape(boxes)[0]
    boxes = tf.pad(boxes, [[0, missing], [0, 0]])
    labels = tf.pad(labels, [[0, missing]], constant_values=-1)
    return tf.ensure_shape(boxes, (max_boxes, 4)), tf.ensure_shape(labels, (max_boxes,))


def _id_bytes(example):
    """The last `ID_BYTES` bytes of the image id, zeros behind; all zeros without one."""
    text = example.get("image_id", tf.constant(""))
    start = tf.maximum(tf.strings.length(text) - ID_BYTES, 0)
    tail = tf.strings.substr(text, start, ID_BYTES)
    return tf.ensure_shape(tf.io.decode_raw(tail, tf.uint8, fixed_length=ID_BYTES), (ID_BYTES,))


def transform_of(augment, model, *, several=False) -> Callable[..., Any]:
    """The function (example, image_size, seed) that `augment` means for this model.

    With `several`, for sizes of `multi_scale`.
    """
    resize = getattr(model, "resize", "warp")
    if resize == "corner" and not callable(augment):
        return _corner(augment, model, several)
    if augment is None:
        if resize not in _RESIZES:
            raise InputError(f"resize of a model is {' or '.join(_RESIZES)}, not {resize!r}")
        return lambda example, image_size, _: _RESIZES[resize](example, image_size)
    if callable(augment):
        return augment
    if augment not in _AUGMENTATIONS:
        known = ", ".join(repr(name) for name in _AUGMENTATIONS)
        raise InputError(f"augment must be {known}, a function or None, not {augment!r}")
    return _AUGMENTATIONS[augment]


def _corner(augment, model, several) -> Callable[..., Any]:
    if augment not in (None, "flip"):
        raise InputError(
            f"augment of a model that resizes to a corner must be 'flip', a function or None, "
            f"not {augment!r}"
        )
    share = SHORT_SHARE if several else model.short_side / min(model.image_size)
    settings = {"short_share": share, "fill": model.mean}
    if augment == "flip":
        return functools.partial(augment_corner.flip, **settings)
    return lambda example, image_size, _: augment_corner.corner(example, image_size, **settings)


def _most_regions(examples, model) -> int | None:
    """Rows of regions in a batch; None for a model without regions."""
    if not getattr(model, "takes_regions", False):
        return None
    if "regions" not in examples.element_spec:
        raise InputError(
            "the model wants regions with its images: kerasdet.data.with_regions puts them into "
            "the examples"
        )
    return getattr(examples, "max_regions", MAX_REGIONS)


def most_boxes(examples, use_difficult=True) -> int:
    """The most objects of an image, rounded up to a multiple of 8; 100 where it is not known."""
    records = getattr(examples, "records", None)
    if records is None:
        return _MAX_BOXES
    most = 1
    for record in records:
        kept = ~record.crowd if use_difficult else ~(record.crowd | record.difficult)
        most = max(most, int(np.count_nonzero(kept)))
    return 8 * math.ceil(most / 8)


def _check(examples, model) -> None:
    spec = examples.element_spec
    missing = {"image", "boxes", "labels"} - set(spec if isinstance(spec, dict) else ())
    if missing:
        raise InputError(
            f"pipeline wants examples, dicts with image, boxes and labels; {', '.join(sorted(missing))}"
            f" missing in {spec}"
        )
    check_classes(examples, model)


def check_classes(examples, model) -> None:
    """Raises an `InputError` if the data's classes are not the model's."""
    theirs, ours = getattr(examples, "class_names", None), list(model.class_names)
    if theirs is None or list(theirs) == ours:
        return
    if len(theirs) != len(ours) or not are_generic(ours):
        hint = about_names(ours)
        if sorted(theirs) == sorted(ours):
            hint = (
                "; these are the same names in another order: evaluate with --match-names, or see "
                "kerasdet.data.relabelled"
            )
        raise InputError(
            f"the data's {len(theirs)} classes are not the model's {len(ours)}: the data has "
            f"{listed(theirs)}; the model has {listed(ours)}{hint}"
        )
