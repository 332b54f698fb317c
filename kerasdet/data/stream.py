"""From records to the stream of examples, decoded lazily and in parallel."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerasdet.data import decoding
from kerasdet.data.example import (
    UNREADABLE_IMAGE,
    WRONG_SIZE,
    Inspector,
    Problem,
    Record,
)
from kerasdet.data.progress import track
from kerasdet.errors import InputError

Pixels = Callable[[int], np.ndarray]


def to_dataset(
    records: Sequence[Record],
    class_names: Sequence[str],
    inspector: Inspector,
    name: str,
    *,
    pixels: Pixels | None = None,
) -> tf.data.Dataset:
    """The data set of examples (`kerasdet.data.example`), in the records' order.

    An image that cannot be decoded is left out of the stream, added to `problems` and named in a
    warning, when it is met. An image whose true size is not its record's is reported
    likewise; its boxes are clipped to it.

    Args:
        records: the images.
        class_names: label order.
        inspector: with the problems so far. If it is strict every image is decoded here and now.
        name: where the data came from.
        pixels: gives the image of record i as uint8 (H, W, 3); None: from the record's file.

    Returns:
        The data set, with attributes `class_names`, `records`, `problems`, `name`, and `reordered`:
        a function from a data set of int64 scalars, which records in which order (shuffled,
        sharded, repeated), to the stream in that order. It may be called inside a graph.

    Raises:
        InputError: if there is not one object in all records.
    """
    _check_not_empty(records, inspector, name)
    if inspector.strict and pixels is None:
        for record in track(records, "Decoding images"):
            _check_image(record, inspector)
    loader = _Loader(records, inspector, pixels)
    dataset = loader.stream(tf.data.Dataset.range(len(records)))
    attach(dataset, class_names=class_names, records=records, inspector=inspector, name=name)
    dataset.reordered = loader.stream
    dataset.pixels = pixels
    return dataset


def attach(
    dataset: tf.data.Dataset,
    *,
    class_names: Sequence[str],
    records: Sequence[Any] | None,
    inspector: Inspector,
    name: str,
) -> None:
    """Gives a data set the attributes that every reader's has, as Keras' own loaders do."""
    dataset.class_names = list(class_names)
    dataset.records = None if records is None else list(records)
    dataset.problems = inspector.problems
    dataset.name = name


def join(*datasets: tf.data.Dataset) -> tf.data.Dataset:
    """One data set of several that came from files, such as VOC 2007 and VOC 2012.

    Raises:
        InputError: if class lists differ, an image id comes twice, or one has no `records`.
    """
    if not datasets:
        raise InputError("join needs at least one data set")
    records, inspector = [], Inspector()
    for dataset in datasets:
        if not getattr(dataset, "records", None) or dataset.pixels is not None:
            raise InputError("only data sets from voc, coco and yolo files can be joined")
        if dataset.class_names != datasets[0].class_names:
            raise InputError(
                f"{dataset.name} has the classes {', '.join(dataset.class_names)}, but "
                f"{datasets[0].name} has {', '.join(datasets[0].class_names)}"
            )
        records += dataset.records
        inspector.problems += dataset.problems
    seen: set[str] = set()
    for record in records:
        if record.image_id in seen:
            raise InputError(f"image id {record.image_id!r} comes twice in the joined data sets")
        seen.add(record.image_id)
    name = "+".join(dataset.name for dataset in datasets)
    return to_dataset(records, datasets[0].class_names, inspector, name)


class _Loader:
    """Makes examples by index from a table of all records."""

    def __init__(self, records: Sequence[Record], inspector: Inspector, pixels: Pixels | None):
        self.records, self.inspector, self.pixels = records, inspector, pixels
        self.table = _table(records)

    def stream(self, order: tf.data.Dataset) -> tf.data.Dataset:
        return decoding.decoded(order, self.load, self.report_lost)

    def load(self, index, _):
        there = index >= 0
        index = tf.maximum(index, 0)
        image = tf.cond(there, lambda: self.image(index), lambda: tf.zeros((0, 0, 3), tf.uint8))
        rows = slice(self.table["start"][index], self.table["start"][index + 1])
        example = {"image": image}
        example |= {key: self.table[key][rows] for key in _PER_OBJECT}
        example |= {key: self.table[key][index] for key in ("image_id", "path")}
        size = tf.shape(image)[:2]
        wrong = there & tf.reduce_any(size != self.table["size"][index])

        def put_right():
            told = tf.numpy_function(self.report_size, [index, size], tf.int64)
            with tf.control_dependencies([told]):
                return _clipped(example, size)

        return tf.cond(wrong, put_right, lambda: dict(example))

    def image(self, index):
        if self.pixels is None:
            data = tf.io.read_file(self.table["path"][index])
            return decoding.decode_image(data, self.table["size"][index])
        image = tf.numpy_function(self.pixels, [index], tf.uint8)
        return tf.ensure_shape(image, (None, None, 3))

    def report_lost(self, indices):
        for record in (self.records[index] for index in indices):
            reason = reason_lost(record.path) or "it cannot be loaded"
            self.inspector.unreadable(record.path or record.image_id, reason)

    def report_size(self, index, size):
        problem = _wrong_size(self.records[index], *size)
        if problem not in self.inspector.problems:
            self.inspector.problems.append(problem)
        return np.int64(0)


_PER_OBJECT = ("boxes", "labels", "difficult", "crowd", "area")


def _table(records: Sequence[Record]) -> dict[str, tf.Tensor]:
    """All records' objects in one tensor a field, and `start` (len(records) + 1,) to split them."""
    counts = [len(record.labels) for record in records]
    arrays = {key: np.concatenate([getattr(r, key) for r in records]) for key in _PER_OBJECT}
    arrays["start"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    with tf.device("CPU"):  # constants of an input pipeline have no business on a GPU
        table = {key: tf.constant(value) for key, value in arrays.items()}
        table["size"] = tf.constant([(r.height, r.width) for r in records], tf.int32)
        table["path"] = tf.constant([record.path for record in records])
        table["image_id"] = tf.constant([record.image_id for record in records])
    return table


def _clipped(example: dict[str, tf.Tensor], size: tf.Tensor) -> dict[str, tf.Tensor]:
    """Boxes cut to an image of this (height, width); what is left of none of them is dropped."""
    edge = tf.cast(tf.gather(size, [1, 0, 1, 0]), tf.float32)
    boxes = tf.clip_by_value(example["boxes"], 0.0, edge)
    kept = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1)  # (N,)
    objects = {key: example[key] for key in _PER_OBJECT} | {"boxes": boxes}
    return example | {key: tf.boolean_mask(value, kept) for key, value in objects.items()}


def _check_not_empty(records: Sequence[Record], inspector: Inspector, name: str) -> None:
    if any(len(record.labels) for record in records):
        return
    found = f"{name}: no valid object in {len(records)} images"
    if not inspector.problems:
        raise InputError(found)
    first = inspector.problems[0]
    where = f"{first.file}, {first.row}" if first.row else first.file
    raise InputError(
        f"{found}; {len(inspector.problems)} problems, the first in {where}: {first.rule} "
        f"({first.value})"
    )


def _check_image(record: Record, inspector: Inspector) -> None:
    reason = reason_lost(record.path)
    if reason:
        inspector.report(record.path, "", rule=UNREADABLE_IMAGE, value=reason, action="skipped")
    height, width = decoding.header_size(record.path, (record.height, record.width))
    if (height, width) != (record.height, record.width):
        problem = _wrong_size(record, height, width)
        inspector.report(
            problem.file, "", rule=problem.rule, value=problem.value, action=problem.action
        )


def _wrong_size(record: Record, height: int, width: int) -> Problem:
    return Problem(
        record.path,
        "",
        WRONG_SIZE,
        f"annotated {record.width}x{record.height}, is {width}x{height}",
        "boxes clipped to the image",
    )


def reason_lost(path: str) -> str:
    """Why the image in this file cannot be had, in a few words; "" if it can."""
    if not path:
        return "it could not be made"
    try:
        with open(path, "rb") as file:
            return decoding.fault_of(file.read())
    except OSError as error:
        return error.strerror or "it cannot be opened"
