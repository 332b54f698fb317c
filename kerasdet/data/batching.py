"""From a data set of examples to the batches that `fit` takes: order, augmentation, padding.

Everything that is drawn at random is a function of (seed, epoch, place in the epoch): the order by
a permutation of its own for every epoch, each example's augmentation by a seed of its own. So epoch 7
is the same in a run that started at epoch 0 and in one that was resumed there with `first_epoch=7`,
however many threads work on it.
"""

import itertools
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kerasdet.classes import are_generic
from kerasdet.data import augment as augmentation
from kerasdet.errors import InputError

ID_BYTES = 64
"""An image id travels as its last 64 bytes: strings cannot go to JAX or to a GPU."""

_log = logging.getLogger("kerasdet.data")

_AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "ssd": augmentation.ssd,
    "flip": augmentation.flip,
}
_BUFFER = 512  # decoded examples in a shuffle, where the reader cannot be asked for another order
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
) -> tf.data.Dataset:
    """Batches for `model.fit` and `model.evaluate`.

    A batch is `(images, targets)`: images float32 (B, H, W, 3), RGB 0..255, at the model's input
    size; targets `{"boxes": (B, G, 4) float32 pixels of the network's input, "labels": (B, G) int32,
    "image_id": (B, 64) uint8}`, padded with boxes 0 and labels -1. Crowd boxes are left out.

    Args:
        examples: what a reader gives, or any data set of such elements (`kerasdet.data.example`).
        model: a detector; anything with `image_size` (height, width) and `class_names`.
        batch_size: images a batch; the last batch of an epoch holds what is left.
        augment: `"ssd"`, `"flip"`, a function `(example, image_size, seed (2,) int64) -> (image, boxes,
            labels)`, or None: the whole image is resized, as `model.detect` does it.
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

    Returns:
        The batches, with attributes `steps_per_epoch` (None if the number of examples is unknown),
        `class_names` and `max_boxes`.

    Raises:
        InputError: if the data's classes are not the model's, or an argument makes no sense.
    """
    _check(examples, model, batch_size, shard)
    if shuffle is None:
        shuffle = augment is not None
    if max_boxes is None:
        max_boxes = _most_boxes(examples, use_difficult)
    elif max_boxes < 1:
        raise InputError(f"max_boxes must be 1 or more, not {max_boxes}")
    index, count = shard or (0, 1)
    size = _size(examples)
    share, steps = _share(size, count, batch_size, drop_remainder)
    drawn = augment is not None or bool(shuffle)
    order = _Order(examples, shuffle, seed=seed, cache=cache, shard=(index, count), size=size)
    prepare = _preparation(_transform(augment), tuple(model.image_size), max_boxes, use_difficult)

    def one_epoch(epoch):
        stream = order.epoch(epoch)
        if share is not None:
            stream = _exactly(stream, share, cached=bool(cache))

        def prepare_one(place, example):
            return prepare(example, _seed_pair(seed, epoch, place * count + index))

        return (
            stream.enumerate()
            .map(prepare_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .batch(batch_size, drop_remainder=drop_remainder)
        )

    if repeat:
        batches = tf.data.Dataset.range(first_epoch, 2**63 - 1).flat_map(one_epoch)
    elif drawn:
        batches = _next_epoch(first_epoch).flat_map(one_epoch)
    else:
        batches = one_epoch(tf.constant(first_epoch, tf.int64))
    number = tf.data.INFINITE_CARDINALITY if repeat else steps
    if number is not None:  # without it Keras has no progress bar, and warns at the end of data
        batches = batches.apply(tf.data.experimental.assert_cardinality(number))
    if shard is not None:  # else TensorFlow's strategies would shard a second time
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        batches = batches.with_options(options)
    batches = batches.prefetch(tf.data.AUTOTUNE)
    batches.steps_per_epoch = steps
    batches.class_names = list(model.class_names)
    batches.max_boxes = max_boxes
    return batches


def _share(size, count, batch_size, drop_remainder) -> tuple[int | None, int | None]:
    """Examples and batches of one worker in an epoch; None where the size is not known."""
    if size is None:
        return None, None
    share = math.ceil(size / count)
    steps = share // batch_size if drop_remainder else math.ceil(share / batch_size)
    if steps == 0:
        raise InputError(f"{share} examples do not fill one batch of {batch_size}")
    return share, steps


def image_ids(rows: Any) -> list[str]:
    """The image ids in a batch's `image_id` (B, 64), as strings of at most 64 bytes."""
    rows = np.asarray(rows, np.uint8)
    return [row.tobytes().rstrip(b"\0").decode("utf-8", "replace") for row in rows]


class _Order:
    """The examples of one worker, in the order of each epoch."""

    def __init__(self, examples, shuffle, *, seed, cache, shard, size):
        self.shuffle, self.seed, self.size = shuffle, seed, size
        self.index, self.count = shard
        self.reordered = None if cache else getattr(examples, "reordered", None)
        if self.reordered is not None:
            return
        if self.count > 1:
            examples = examples.shard(self.count, self.index)
        if cache:
            examples = examples.cache() if cache is True else examples.cache(str(cache))
        self.examples = examples
        whole = size if cache is True and size is not None else _BUFFER
        self.buffer = whole if shuffle is True else int(shuffle)

    def epoch(self, number):
        """The data set of the examples of this epoch (int64 scalar tensor)."""
        if self.reordered is not None:
            places = tf.range(self.size, dtype=tf.int64)
            if self.shuffle:
                places = tf.random.experimental.stateless_shuffle(
                    places, _seed_pair(self.seed, number, -1)
                )
            places = places[self.index :: self.count]
            return self.reordered(tf.data.Dataset.from_tensor_slices(places))
        if not self.shuffle:
            return self.examples
        drawn = tf.random.stateless_uniform(
            (), _seed_pair(self.seed, number, -1), maxval=2**31 - 1, dtype=tf.int64
        )
        # Of this epoch's graph alone: the order must not depend on the global seed, and `shuffle` does
        # not take a tensor as its seed where the global one is 0.
        tf.compat.v1.set_random_seed(1)
        return self.examples.shuffle(self.buffer, seed=drawn, reshuffle_each_iteration=False)


def _seed_pair(seed, epoch, place):
    """Seeds that no two (epoch, place) share; place -1 is the order's. Below 2**31 places."""
    return tf.stack([tf.constant(seed, tf.int64), epoch * 2**31 + tf.cast(place, tf.int64)])


def _next_epoch(first: int) -> tf.data.Dataset:
    """One element, the number of the epoch: one more in every iteration over the data set."""
    numbers = itertools.count(first)

    def take(_):
        number = tf.numpy_function(lambda: np.int64(next(numbers)), [], tf.int64)
        return tf.ensure_shape(number, ())

    return tf.data.Dataset.range(1).map(take)


def _exactly(stream, size, *, cached):
    """The first `size` of the stream; it starts again if images that cannot be read are missing."""
    if not cached:
        return stream.repeat().take(size)
    # A cache counts as filled only once the end behind the last example has been seen.
    endless = stream.repeat().enumerate()
    return endless.take_while(lambda place, _: place < size).map(lambda _, example: example)


def _preparation(transform, image_size, max_boxes, use_difficult):
    """The graph function (example, seed) to (image, targets) of one example."""
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

    def prepare(example, seed):
        kept = tf.ones_like(example["labels"], tf.bool)
        if "crowd" in example:
            kept &= ~example["crowd"]
        if "difficult" in example and not use_difficult:
            kept &= ~example["difficult"]
        kept = tf.where(kept)[:, 0]
        objects = {key: tf.gather(example[key], kept) for key in ("boxes", "labels")}
        image, boxes, labels = transform({**example, **objects}, image_size, seed)
        boxes, labels = _padded(boxes, labels, max_boxes, tell)
        targets = {"boxes": boxes, "labels": labels, "image_id": _id_bytes(example)}
        return tf.ensure_shape(tf.cast(image, tf.float32), (*image_size, 3)), targets

    return prepare


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


def _transform(augment):
    if augment is None:
        return lambda example, image_size, _: augmentation.warp(example, image_size)
    if callable(augment):
        return augment
    if augment not in _AUGMENTATIONS:
        known = ", ".join(repr(name) for name in _AUGMENTATIONS)
        raise InputError(f"augment must be {known}, a function or None, not {augment!r}")
    return _AUGMENTATIONS[augment]


def _size(examples) -> int | None:
    """How many examples there are, images that cannot be read included; None if not known."""
    if getattr(examples, "records", None) is not None:
        return len(examples.records)
    size = int(getattr(examples, "size", examples.cardinality()))  # `size` where a filter hides it
    return size if size >= 0 else None


def _most_boxes(examples, use_difficult) -> int:
    records = getattr(examples, "records", None)
    if records is None:
        return _MAX_BOXES
    most = 1
    for record in records:
        kept = ~record.crowd if use_difficult else ~(record.crowd | record.difficult)
        most = max(most, int(np.count_nonzero(kept)))
    return 8 * math.ceil(most / 8)


def _check(examples, model, batch_size, shard) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more, not {batch_size}")
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise InputError(f"shard must be (index, count) with 0 <= index < count, not {shard}")
    spec = examples.element_spec
    missing = {"image", "boxes", "labels"} - set(spec if isinstance(spec, dict) else ())
    if missing:
        raise InputError(
            f"pipeline wants examples, dicts with image, boxes and labels; {', '.join(sorted(missing))}"
            f" missing in {spec}"
        )
    theirs, ours = getattr(examples, "class_names", None), list(model.class_names)
    if theirs is None or list(theirs) == ours:
        return
    if len(theirs) != len(ours) or not are_generic(ours):
        raise InputError(
            f"the data's {len(theirs)} classes are not the model's {len(ours)}: the data has "
            f"{', '.join(theirs)}; the model has {', '.join(ours)}"
        )
