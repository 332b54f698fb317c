"""Epochs: the order of examples, the seed and the size of each, and how batches are cut from them.

Everything that is drawn at random is a function of (seed, epoch, place in the epoch): the order by
a permutation of its own for every epoch, each example's augmentation by a seed of its own, the size of
each batch by its number. So epoch 7 is the same in a run that started at epoch 0 and in one that was
resumed there with `first_epoch=7`, however many threads work on it.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerasdet.data.augment_corner import SHORT_SHARE
from kerasdet.errors import InputError

_BUFFER = 512  # decoded examples in a shuffle, where the reader cannot be asked for another order


@dataclasses.dataclass(frozen=True)
class Plan:
    """How epochs are cut into batches; the arguments of `kerasdet.data.pipeline` of these names.

    Attributes:
        image_size: (height, width) of the network's input.
        sizes: (height, width) pairs to draw from instead, in multi-scale training; or empty.
        every: batches between two draws of a size.
        last: batches at the end of all `epochs` for which the greatest size is taken.
        epochs: of the whole training, where `last` is not 0.
        views: examples that one image becomes.
    """

    batch_size: int
    image_size: tuple[int, int]
    seed: int = 0
    first_epoch: int = 0
    repeat: bool = False
    shard: tuple[int, int] | None = None
    drop_remainder: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    every: int = 10
    last: int = 0
    epochs: int | None = None
    views: int = 1

    @property
    def worker(self) -> tuple[int, int]:
        """Number of this worker, and of all."""
        return self.shard or (0, 1)

    def share(self, size: int | None) -> tuple[int | None, int | None]:
        """Images and batches of one worker in an epoch of so many images; None where not known."""
        if size is None:
            return None, None
        share = math.ceil(size / self.worker[1])
        examples = share * self.views
        steps = examples // self.batch_size
        if not self.drop_remainder:
            steps = math.ceil(examples / self.batch_size)
        if steps == 0:
            raise InputError(f"{examples} examples do not fill one batch of {self.batch_size}")
        return share, steps


def planned(
    model: Any,
    batch_size: int,
    *,
    multi_scale: Sequence[int] | None,
    multi_scale_every: int,
    multi_scale_last: int = 0,
    epochs: int | None = None,
    shard: tuple[int, int] | None,
    **rest: Any,
) -> Plan:
    """The plan for a model, its numbers checked.

    Raises:
        InputError: if one makes no sense.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more, not {batch_size}")
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise InputError(f"shard must be (index, count) with 0 <= index < count, not {shard}")
    sizes: tuple[tuple[int, int], ...] = ()
    if multi_scale is not None:
        sizes = _checked_sizes(model, multi_scale)
        if multi_scale_every < 1:
            raise InputError(f"multi_scale_every must be 1 or more, not {multi_scale_every}")
    if multi_scale_last < 0 or (multi_scale_last and not (sizes and epochs)):
        raise InputError(
            "multi_scale_last wants 0 or more batches, and where there are some multi_scale and the "
            f"epochs of the whole training, not {multi_scale_last}, {multi_scale} and {epochs}"
        )
    height, width = model.image_size
    return Plan(
        batch_size,
        (height, width),
        shard=shard,
        sizes=sizes,
        every=multi_scale_every,
        last=multi_scale_last,
        epochs=epochs,
        **rest,
    )


def _checked_sizes(model: Any, multi_scale: Sequence[int]) -> tuple[tuple[int, int], ...]:
    if not getattr(model, "takes_any_size", True):
        height, width = model.image_size
        raise InputError(
            f"multi_scale wants a network that takes images of any size, and this one takes "
            f"{height}x{width} alone"
        )
    stride = getattr(model, "image_stride", 1)
    sides = list(multi_scale)
    if not sides or any(int(side) != side or side < 1 or side % stride for side in sides):
        which = f"multiples of {stride}" if stride > 1 else "whole numbers above 0"
        raise InputError(f"multi_scale wants sizes in pixels, {which}, not {multi_scale}")
    if getattr(model, "resize", "warp") == "corner":  # short sides, on canvases that cut nothing
        sides = [math.ceil(round(side / SHORT_SHARE) / stride) * stride for side in sides]
    sizes = tuple((int(side), int(side)) for side in sides)
    if hasattr(model, "_checked_size"):
        for size in sizes:  # OverFeat wants room for one of its windows
            model._checked_size(size)
    return sizes


def batched(
    epochs: Callable[[Any], tf.data.Dataset],
    prepare: Callable[..., Any],
    plan: Plan,
    *,
    steps: int | None,
    drawn: bool,
    mixed: int = 0,
) -> tf.data.Dataset:
    """The batches of epochs, prefetched; with an attribute `steps_per_epoch`.

    Args:
        epochs: from the number of an epoch (int64 scalar tensor) to this worker's examples in it.
        prepare: graph function (example, image_size, seed (2,)) to an element of a batch; with
            `plan.views` from 2 on to so many, along the first axis of its tensors.
        plan: the rest.
        steps: batches in an epoch; None if not known.
        drawn: whether one epoch is unlike another. Then each iteration over the result gives the
            next one.
        mixed: an image's views go among those of others, through a buffer of so many; 0: they stay
            side by side.
    """
    index, count = plan.worker
    if plan.last and steps is None:
        raise InputError("multi_scale_last wants to know how many examples there are")

    def one_epoch(epoch):
        def prepare_one(place, example):
            size = _drawn_size(plan, epoch, place, steps) if plan.sizes else plan.image_size
            return prepare(example, size, seed_pair(plan.seed, epoch, place * count + index))

        examples = epochs(epoch).enumerate()
        examples = examples.map(
            prepare_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        if plan.views > 1:
            examples = examples.unbatch()
            if mixed:
                examples = _shuffled(examples, mixed, seed_pair(plan.seed, epoch, -2))
        return examples.batch(plan.batch_size, drop_remainder=plan.drop_remainder)

    def full_epoch(epoch):  # of images of which none can be read, the next would be tried for ever
        return one_epoch(epoch).apply(tf.data.experimental.assert_cardinality(steps))

    if plan.repeat:
        epoch_of = one_epoch if steps is None else full_epoch
        batches = tf.data.Dataset.range(plan.first_epoch, 2**63 - 1).flat_map(epoch_of)
    elif drawn or plan.sizes:
        batches = _next_epoch(plan.first_epoch).flat_map(one_epoch)
    else:
        batches = one_epoch(tf.constant(plan.first_epoch, tf.int64))
    number = tf.data.INFINITE_CARDINALITY if plan.repeat else steps
    if number is not None:  # without it Keras has no progress bar, and warns at the end of data
        batches = batches.apply(tf.data.experimental.assert_cardinality(number))
    if plan.shard is not None:  # else TensorFlow's strategies would shard a second time
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        batches = batches.with_options(options)
    batches = batches.prefetch(tf.data.AUTOTUNE)
    batches.steps_per_epoch = steps
    return batches


def _drawn_size(plan: Plan, epoch, place, steps):
    """(height, width) of the batch in which this place is: the same on all workers.

    Source: darknet examples/detector.c, train_detector: another size every ten batches, 608 where
        200 more would be past the last.
    """
    draw = place // plan.batch_size // plan.every
    seeds = seed_pair(plan.seed, epoch, -2 - draw)  # -1 is the order's
    chosen = tf.random.stateless_uniform((), seeds, maxval=len(plan.sizes), dtype=tf.int32)
    if plan.last:
        drawn_at = epoch * steps + draw * plan.every
        ends = drawn_at + plan.last > plan.epochs * steps
        chosen = tf.where(ends, plan.sizes.index(max(plan.sizes)), chosen)
    return tf.constant(plan.sizes, tf.int32)[chosen]


class Order:
    """The examples of one worker, in the order of each epoch.

    Args:
        examples: what a reader gives, or any data set.
        shuffle: whether, or through a buffer of how many examples.
        seed: of the order.
        cache: whether decoded images are kept in memory, or the file they are kept in.
        shard: this worker's number, and that of all.

    Attributes:
        size: of all examples; None if not known.
    """

    def __init__(self, examples, shuffle, *, seed, cache=False, shard=(0, 1)):
        self.shuffle, self.seed, self.cached = shuffle, seed, bool(cache)
        self.size = size_of(examples)
        self.index, self.count = shard
        self.reordered = None if cache else getattr(examples, "reordered", None)
        if self.reordered is not None:
            return
        if self.count > 1:
            examples = examples.shard(self.count, self.index)
        if cache:
            examples = examples.cache() if cache is True else examples.cache(str(cache))
        self.examples = examples
        whole = self.size if cache is True and self.size is not None else _BUFFER
        self.buffer = whole if shuffle is True else int(shuffle)

    def epoch(self, number, *, share=None):
        """The data set of the examples of this epoch (int64 scalar tensor).

        Args:
            number: of the epoch.
            share: exactly as many; images that cannot be read are made up for by others.
        """
        stream = self._in_order(number)
        if share is None:
            return stream
        if not self.cached:
            return stream.repeat().take(share)
        # A cache counts as filled only once the end behind the last example has been seen.
        endless = stream.repeat().enumerate()
        return endless.take_while(lambda place, _: place < share).map(lambda _, example: example)

    def passes(self, epoch, needed: int) -> tf.data.Dataset:
        """As many examples, from pass after pass over the set, each pass in an order of its own.

        Args:
            epoch: its number, int64 scalar tensor. An epoch begins passes of its own; one that is
                shorter than the set goes on where the last one ended, so that none is left out.
            needed: examples of this worker.
        """
        most = math.ceil(needed / (self.size // self.count))
        whole = math.ceil(self.size / self.count)
        first, skipped = epoch * most, 0
        if needed < whole:
            first, skipped = epoch * needed // whole, epoch * needed % whole
        # Twice as many, for images that cannot be read; where those are more than half, the same
        # passes come again.
        numbers = tf.data.Dataset.range(2 * most + 8).map(lambda number: first + number)
        if self.reordered is None:
            return numbers.flat_map(self._in_order).skip(skipped).repeat().take(needed)
        places = numbers.flat_map(
            lambda number: tf.data.Dataset.from_tensor_slices(self._places(number))
        )
        return self.reordered(places.skip(skipped)).repeat().take(needed)

    def _places(self, number):
        """The places of this worker's examples in the set, in the order of this pass."""
        places = tf.range(self.size, dtype=tf.int64)
        if self.shuffle:
            places = tf.random.experimental.stateless_shuffle(
                places, seed_pair(self.seed, number, -1)
            )
        return places[self.index :: self.count]

    def _in_order(self, number):
        if self.reordered is not None:
            return self.reordered(tf.data.Dataset.from_tensor_slices(self._places(number)))
        if not self.shuffle:
            return self.examples
        return _shuffled(self.examples, self.buffer, seed_pair(self.seed, number, -1))


def size_of(examples: Any) -> int | None:
    """How many examples there are, images that cannot be read included; None if not known."""
    if getattr(examples, "records", None) is not None:
        return len(examples.records)
    size = int(getattr(examples, "size", examples.cardinality()))  # `size` where a filter hides it
    return size if size >= 0 else None


def seed_pair(seed, epoch, place):
    """Seeds that no two (epoch, place) share.

    Places are below 2**31; -1 is the order's, and from -2 down those of the batches' sizes, or -2
    that of views among each other, which have one size.
    """
    return tf.stack([tf.constant(seed, tf.int64), epoch * 2**31 + tf.cast(place, tf.int64)])


def _shuffled(examples: tf.data.Dataset, buffer: int, seeds) -> tf.data.Dataset:
    """The same order for the same pair of seeds, an int64 tensor inside an epoch's graph."""
    drawn = tf.random.stateless_uniform((), seeds, maxval=2**31 - 1, dtype=tf.int64)
    # Of this epoch's graph alone: the order must not depend on the global seed, and `shuffle` does
    # not take a tensor as its seed where the global one is 0.
    tf.compat.v1.set_random_seed(1)
    return examples.shuffle(buffer, seed=drawn, reshuffle_each_iteration=False)


def _next_epoch(first: int) -> tf.data.Dataset:
    """One element, the number of the epoch: one more in every iteration over the data set."""
    numbers = itertools.count(first)

    def take(_):
        number = tf.numpy_function(lambda: np.int64(next(numbers)), [], tf.int64)
        return tf.ensure_shape(number, ())

    return tf.data.Dataset.range(1).map(take)
