"""Joint training: batches that mix images with boxes and images with a label alone.

Redmon and Farhadi, YOLO9000, arXiv:1612.08242, sec. 4: a detection image trains everything, a
classification image the classes alone. "We balance the dataset by oversampling COCO so that
ImageNet is only larger by a factor of 4:1."
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerasdet.data.batching import check_classes, most_boxes, preparation, transform_of
from kerasdet.data.epochs import Order, batched, planned
from kerasdet.data.example import Record
from kerasdet.data.stream import reason_lost
from kerasdet.errors import InputError


def joint(
    detection_examples: tf.data.Dataset,
    classification_examples: tf.data.Dataset,
    model: Any,
    batch_size: int = 16,
    *,
    detection_share: float = 0.2,
    images_per_epoch: int | None = None,
    augment: str | Callable[..., Any] | None = "yolo_v2",
    shuffle: bool = True,
    seed: int = 0,
    first_epoch: int = 0,
    repeat: bool = False,
    cache: bool = False,
    max_boxes: int | None = None,
    use_difficult: bool = True,
    shard: tuple[int, int] | None = None,
    drop_remainder: bool = False,
    multi_scale: Sequence[int] | None = None,
    multi_scale_every: int = 10,
    multi_scale_last: int = 0,
    epochs: int | None = None,
) -> tf.data.Dataset:
    """Batches of both kinds of images for a detector that learns from both.

    A batch is that of `kerasdet.data.pipeline` with one target more: `"image_label": (B,) int32`,
    -1 for a detection image, else the label of a classification image, whose rows of boxes are all
    padding. Both kinds are augmented alike, as darknet does it.

    Detection images are spread evenly: in every batch there are `detection_share * batch_size`, up
    to rounding. An epoch shows every image of both sets at least once; of the set that is too
    small for that share, images come again, as often each as any other but for one time. Where
    `images_per_epoch` leaves no room for a whole set, the next epoch goes on with what is left of it.

    Args:
        detection_examples: what a detection reader gives, with labels of the model.
        classification_examples: what a reader of `kerasdet.data.classification` gives, likewise.
            `relabelled` brings other labels to the model's.
        model: a detector; anything with `image_size` (height, width) and `class_names`.
        batch_size: images a batch, of both kinds together.
        detection_share: part of the images that have boxes, between 0 and 1; the paper's is 1 in 5.
        images_per_epoch: images of both kinds together, of all workers; None: as many as it takes to
            show every one. Fewer have their price where the data comes in one order, as that of TensorFlow
            Datasets: every epoch decodes what it skips too.
        augment: as in `kerasdet.data.pipeline`, as are the following.
        shuffle: whether every pass over a set is in an order of its own.
        seed: of the orders and the augmentation.
        first_epoch: number of the epoch that comes first.
        repeat: one endless iteration over all epochs.
        cache: keep decoded images of both sets in memory.
        max_boxes: rows of boxes.
        use_difficult: whether VOC's difficult objects count.
        shard: (index, count), this worker's share.
        drop_remainder: leave out a last batch that is not full.
        multi_scale: sides in pixels to draw the batches' size from.
        multi_scale_every: batches until another size is drawn.
        multi_scale_last: batches at the end that are of the greatest.
        epochs: how many there are in all.

    Returns:
        The batches, with attributes `steps_per_epoch`, `class_names` and `max_boxes`.

    Raises:
        InputError: if a set's classes are not the model's or its size is unknown, or an argument
            makes no sense.
    """
    if not 0 < detection_share < 1:
        raise InputError(f"detection_share lies between 0 and 1, not at {detection_share}")
    if images_per_epoch is not None and images_per_epoch < 1:
        raise InputError(f"images_per_epoch must be 1 or more, not {images_per_epoch}")
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
    kinds = {
        "detection": (detection_examples, {"image", "boxes", "labels"}, _with_boxes),
        "classification": (classification_examples, {"image", "label"}, _with_label),
    }
    orders = []
    for number, (kind, (examples, keys, common)) in enumerate(kinds.items()):
        _check(examples, model, kind, keys)
        # The two sets are shuffled independently of each other, and of other seeds' sets.
        order = Order(
            examples, shuffle, seed=2**32 * (number + 1) + seed, cache=cache, shard=plan.worker
        )
        if order.size is None or order.size < plan.worker[1]:
            known = "of unknown size" if order.size is None else f"{order.size} images"
            raise InputError(
                f"joint training wants {kind} data with an image for each of {plan.worker[1]} "
                f"workers at least, not {known}"
            )
        orders.append((order, common))
    sizes = [order.size for order, _ in orders]
    if images_per_epoch is None:
        images_per_epoch = max(
            math.ceil(sizes[0] / detection_share), math.ceil(sizes[1] / (1 - detection_share))
        )
    share, steps = plan.share(images_per_epoch)
    if max_boxes is None:
        max_boxes = most_boxes(detection_examples, use_difficult)
    elif max_boxes < 1:
        raise InputError(f"max_boxes must be 1 or more, not {max_boxes}")

    def one_epoch(epoch):
        boxed = math.floor(share * detection_share)
        streams = [
            order.passes(epoch, needed).map(common)
            for (order, common), needed in zip(orders, (boxed, share - boxed), strict=True)
        ]
        choice = tf.data.Dataset.range(share).map(lambda place: _kind(place, detection_share))
        return tf.data.Dataset.choose_from_datasets(streams, choice, stop_on_empty_dataset=True)

    batches = batched(
        one_epoch,
        preparation(transform_of(augment, model), max_boxes, use_difficult),
        plan,
        steps=steps,
        drawn=shuffle or augment is not None,
    )
    batches.class_names = list(model.class_names)
    batches.max_boxes = max_boxes
    return batches


def _kind(place, share):
    """0 where a detection image goes, else 1: of the first n places floor(n * share) are 0."""
    place = tf.cast(place, tf.float64)
    return tf.cast(tf.floor((place + 1) * share) == tf.floor(place * share), tf.int64)


def _with_boxes(example):
    """A detection example, in the form of both."""
    count = tf.shape(example["labels"])[:1]
    return {
        "image": example["image"],
        "boxes": tf.ensure_shape(tf.cast(example["boxes"], tf.float32), (None, 4)),
        "labels": tf.ensure_shape(tf.cast(example["labels"], tf.int32), (None,)),
        **{
            key: tf.ensure_shape(example[key] if key in example else tf.zeros(count, bool), (None,))
            for key in ("crowd", "difficult")
        },
        "image_id": example.get("image_id", tf.constant("")),
        "image_label": tf.constant(-1),
    }


def _with_label(example):
    """A classification example, in the form of both: no boxes."""
    return {
        "image": example["image"],
        "boxes": tf.zeros((0, 4)),
        "labels": tf.zeros((0,), tf.int32),
        "crowd": tf.zeros((0,), bool),
        "difficult": tf.zeros((0,), bool),
        "image_id": example.get("image_id", tf.constant("")),
        "image_label": tf.cast(example["label"], tf.int32),
    }


def _check(examples: tf.data.Dataset, model: Any, kind: str, keys: set[str]) -> None:
    spec = examples.element_spec
    missing = keys - set(spec if isinstance(spec, dict) else ())
    if missing:
        raise InputError(
            f"joint training wants {kind} data, dicts with {', '.join(sorted(keys))}; "
            f"{', '.join(sorted(missing))} missing in {spec}"
        )
    check_classes(examples, model)


def relabelled(
    examples: tf.data.Dataset, nodes: Sequence[int], class_names: Sequence[str]
) -> tf.data.Dataset:
    """The data set with other label numbers, such as COCO's 80 classes as nodes of a tree.

    Args:
        examples: what a reader gives, of detection or of classification data.
        nodes: for each of its classes, the new label; several may have the same.
        class_names: names of all new labels, in order: the model's.

    Returns:
        The data set, with the attributes of the one given: the same `problems`, and `records` with the
        new labels.

    Raises:
        InputError: if there is not one node for each class, or a node is no label.
    """
    numbers = np.asarray(nodes)
    names = list(class_names)
    own = getattr(examples, "class_names", None)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"nodes are whole numbers, one for each class, not {nodes}")
    if own is not None and len(own) != len(numbers):
        raise InputError(f"the data has {len(own)} classes, and there are {len(numbers)} nodes")
    for place, node in enumerate(numbers.tolist()):
        if not 0 <= node < len(names):
            which = own[place] if own else f"class {place}"
            raise InputError(f"the node of {which} is {node}, no label of 0..{len(names) - 1}")
    with tf.device("CPU"):
        table = tf.constant(numbers, tf.int32)

    def change(example):
        return example | {
            key: tf.gather(table, example[key]) for key in ("label", "labels") if key in example
        }

    changed = examples.map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    hand_on(examples, changed, change)
    records = getattr(examples, "records", None)
    if records is not None:
        changed.records = [_changed_record(record, numbers) for record in records]
    changed.class_names = names
    return changed


def first(examples: Any, count: int) -> tf.data.Dataset:
    """The first images that can be read, with the attributes of the data set they come from.

    Args:
        examples: what a reader gives.
        count: how many.
    """
    taken = examples.take(count)
    for name in ("name", "problems", "pixels", "class_names", "max_regions"):
        if hasattr(examples, name):
            setattr(taken, name, getattr(examples, name))
    records = getattr(examples, "records", None)
    if records is not None:
        taken.records = list(_until_read(records, count, getattr(examples, "pixels", None)))
    return taken


def _until_read(records, count, pixels):
    """The records up to the one with which `count` images can be read."""
    for record in records:
        if count == 0:
            return
        yield record
        count -= pixels is not None or not reason_lost(record.path)


def hand_on(examples: Any, changed: Any, change: Callable[..., Any]) -> None:
    """Gives a mapped data set the attributes of the reader's that it came from.

    Args:
        examples: what was mapped.
        changed: what came of it.
        change: the function from an example to one.
    """
    for name in ("name", "problems", "records", "pixels", "size", "max_regions"):
        if hasattr(examples, name):
            setattr(changed, name, getattr(examples, name))
    if hasattr(examples, "reordered"):

        def reordered(order):
            stream = examples.reordered(order)
            return stream.map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

        changed.reordered = reordered


def _changed_record(record: Any, numbers: np.ndarray) -> Any:
    if isinstance(record, Record):
        return dataclasses.replace(record, labels=numbers[record.labels].astype(np.int32))
    return record._replace(label=int(numbers[record.label]))
