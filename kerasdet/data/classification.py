"""Classification data: readers of images with one label each, and the batches that `fit` takes.

An element is a dict {"image": uint8 (H, W, 3), RGB, upright; "label": int32, 0..K-1; "image_id": string;
"path": string, "" if the image is in no file}. The data sets have the attributes of the detection
readers' (`kerasdet.data.stream`): `class_names`, `records`, `problems`, `name`, `reordered`.
"""

import functools
import os
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kerasdet.data import augment_classifier, decoding
from kerasdet.data import class_names as names_of
from kerasdet.data import example as ex
from kerasdet.data.batching import check_classes
from kerasdet.data.epochs import Order, batched, planned
from kerasdet.data.images import ImageFolder
from kerasdet.data.progress import track
from kerasdet.data.stream import Pixels, attach, reason_lost
from kerasdet.data.synthetic import CLASS_NAMES, SIDES, shapes
from kerasdet.data.tfds_reader import ID_FEATURES, encoded, opened
from kerasdet.errors import InputError

NO_CLASS = "image in no class folder"
NO_IMAGES = "class without images"
NO_LABEL = "image without label"

_SPLITS = {"train", "val", "valid", "validation", "test"}
_AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "darknet": augment_classifier.darknet,
    "darknet_448": augment_classifier.darknet_448,
    "overfeat": augment_classifier.overfeat,
}


class ImageRecord(NamedTuple):
    """One image's label, without its pixels."""

    image_id: str
    path: str
    label: int


# ---------------------------------------------------------------------- readers


def from_image_folders(
    directory: str | Path,
    split: str | None = None,
    *,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    strict: bool = False,
) -> tf.data.Dataset:
    """Reads images that lie in one folder a class, as ImageNet's do: `DIR/train/n01440764/x.jpg`.

    Args:
        directory: the folder of the class folders, or of the splits.
        split: a folder in it, such as "train".
        class_names: label order by folder names, see `class_names.resolve`; images of other
            folders are left out. None: all folders, sorted.
        strict: an image that is in no class's folder or cannot be decoded is an error; every one is
            decoded here and now.

    Returns:
        The data set, by class and file name. `image_id` is the path from the split's folder. An
        image that cannot be decoded is left out, added to `problems` and named in a warning.

    Raises:
        InputError: if there is no such folder, or there are no images in class folders.
    """
    folder = Path(directory, split) if split else Path(directory)
    if not folder.is_dir():
        raise InputError(f"image folders want a folder of class folders; there is no {folder}")
    inside = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if not inside:
        raise InputError(f"image folders want one folder a class; {folder} has none")
    if split is None and set(inside) <= _SPLITS:
        raise InputError(f"{folder} holds the splits {', '.join(inside)}: say which")
    inspector = ex.Inspector(strict)
    names = names_of.resolve(class_names) or inside
    labels = {name: label for label, name in enumerate(names)}
    for other in sorted(set(inside) - set(names)):
        inspector.report(
            folder / other, "", rule=ex.UNKNOWN_CLASS, value=other, action="its images left out"
        )
    records = []
    for image_id, path in ImageFolder(folder).paths.items():
        name, below, _ = image_id.partition("/")
        if name in labels and below:
            records.append(ImageRecord(image_id, str(path), labels[name]))
        elif not below:
            inspector.report(path, "", rule=NO_CLASS, value=name, action="image left out")
    found = {record.label for record in records}
    for name, label in labels.items():
        if label not in found:
            inspector.report(folder / name, "", rule=NO_IMAGES, value=name, action="class kept")
    if not records:
        raise InputError(f"there are no images in the class folders of {folder}")
    return labelled_images(records, names, inspector, f"images:{folder}")


def from_tfds_classification(
    builder: Any,
    split: str = "train",
    *,
    data_dir: str | None = None,
    class_names: Sequence[str] | None = None,
    strict: bool = False,
) -> tf.data.Dataset:
    """Reads a classification data set of TensorFlow Datasets, such as `imagenet2012`.

    Args:
        builder: a name, or a `tfds.core.DatasetBuilder`. Data that is not on disk yet is downloaded
            and prepared.
        split: as TFDS writes it: `train`, `validation[:10%]`.
        data_dir: where prepared data lies; of no meaning for a builder.
        class_names: other names for the builder's labels, in the same order.
        strict: has no effect on what can only be seen while images stream.

    Returns:
        The data set in TFDS' own order; `records` is None. An image without label (ImageNet's test
        images have -1) or one that cannot be decoded is left out and reported.

    Raises:
        InputError: without `tensorflow-datasets`, for an unknown name or split, without a network
            where one is needed, for a builder without image and label, or for names of another
            number.
    """
    tfds, builder = opened(builder, split, data_dir)
    features = builder.info.features
    image, label = (
        next((key for key, value in features.items() if isinstance(value, kind)), None)
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
    )
    full_name = builder.info.full_name
    if image is None or label is None:
        raise InputError(
            f"{full_name} is no classification data: it has no image with a class label, but "
            f"{', '.join(features)}"
        )
    names = list(features[label].names if class_names is None else class_names)
    if len(names) != features[label].num_classes:
        raise InputError(
            f"{full_name} has {features[label].num_classes} classes, and class_names {len(names)}"
        )
    source = encoded(tfds, builder, split, image)
    name = f"tfds:{full_name}:{split}"
    inspector = ex.Inspector(strict)
    id_key = next((key for key in ID_FEATURES if key in features), "file_name")
    id_key = id_key if id_key in features else "tfds_id"

    def load(_, element):
        item = element[1]
        image_id = item[id_key]
        image_id = image_id if image_id.dtype == tf.string else tf.strings.as_string(image_id)
        pixels = tf.cond(
            tf.equal(tf.strings.length(item[image]), 0),
            lambda: tf.zeros((0, 0, 3), tf.uint8),
            lambda: decoding.decode_image(item[image]),
        )
        return {
            "image": pixels,
            "label": tf.cast(item[label], tf.int32),
            "image_id": image_id,
            "path": tf.constant(""),
        }

    def report_lost(indices):
        for index in indices:
            inspector.unreadable(f"{name}, example {index}", "its image cannot be decoded")

    dataset = decoding.decoded(source.enumerate(), load, report_lost, index_of=lambda e: e[0])
    dataset = dataset.filter(_labelled(inspector, name))
    attach(dataset, class_names=names, records=None, inspector=inspector, name=name)
    dataset.size = int(source.cardinality())  # leaving images out hides it from TensorFlow
    return dataset


def _labelled(inspector: ex.Inspector, name: str) -> Callable[..., Any]:
    """The graph function that lets examples with a label pass, and reports the first without."""

    def report(image_id):
        if not any(problem.rule == NO_LABEL for problem in inspector.problems):
            where = f"{name}, {image_id.decode('utf-8', 'replace')}"
            problem = ex.Problem(where, "", NO_LABEL, "-1", "it and all like it left out")
            inspector.problems.append(problem)
        return np.int64(0)

    def labelled(example):
        there = example["label"] >= 0
        told = tf.cond(
            there,
            lambda: tf.constant(0, tf.int64),
            lambda: tf.numpy_function(report, [example["image_id"]], tf.int64),
        )
        with tf.control_dependencies([told]):
            return tf.identity(there)

    return labelled


def shape_images(
    count: int = 1000,
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 160,
    seed: int = 0,
    classes: Sequence[str] = CLASS_NAMES,
    sides: tuple[float, float] = SIDES,
) -> tf.data.Dataset:
    """Rendered shapes as classification data: one shape an image, of `kerasdet.data.shapes`' kinds.

    None of the images is one that `shapes` makes.

    Args:
        count: of images.
        split: any word; two words give images that have nothing in common.
        image_size: pixels, a number or (height, width).
        seed: another one gives other images.
        classes: which kinds, in label order.
        sides: of the shapes, as `shapes` takes them.

    Raises:
        InputError: as `shapes`.
    """
    rendered: Any = None
    chosen: list[int] = []
    tried = count
    while len(chosen) < count:  # one in twenty is empty
        tried += tried // 16 + 4
        rendered = shapes(
            tried,
            split=f"{split} images",
            image_size=image_size,
            max_objects=1,
            seed=seed,
            classes=classes,
            sides=sides,
        )
        chosen = [i for i, record in enumerate(rendered.records) if len(record.labels)][:count]
    records = [
        ImageRecord(f"{split}-{number:06d}", "", int(rendered.records[place].labels[0]))
        for number, place in enumerate(chosen)
    ]

    def pixels(index):
        return rendered.pixels(chosen[int(index)])

    name = rendered.name.replace("shapes:", "shape images:", 1)
    return labelled_images(records, list(classes), ex.Inspector(), name, pixels=pixels)


def labelled_images(
    records: list[ImageRecord],
    names: Sequence[str],
    inspector: ex.Inspector,
    name: str,
    *,
    pixels: Pixels | None = None,
) -> tf.data.Dataset:
    """The stream of these images; `pixels` gives that of record i, None if it is its file's."""
    if inspector.strict:
        for record in track(records, "Decoding images"):
            if reason := reason_lost(record.path):
                rule = ex.UNREADABLE_IMAGE
                inspector.report(record.path, "", rule=rule, value=reason, action="skipped")
    with tf.device("CPU"):
        table = {
            "label": tf.constant([record.label for record in records], tf.int32),
            "image_id": tf.constant([record.image_id for record in records]),
            "path": tf.constant([record.path for record in records]),
        }

    def image(index):
        if pixels is None:
            return decoding.decode_image(tf.io.read_file(table["path"][index]))
        return tf.ensure_shape(tf.numpy_function(pixels, [index], tf.uint8), (None, None, 3))

    def load(index, _):
        there, index = index >= 0, tf.maximum(index, 0)
        pixels = tf.cond(there, lambda: image(index), lambda: tf.zeros((0, 0, 3), tf.uint8))
        return {"image": pixels} | {key: column[index] for key, column in table.items()}

    def report_lost(indices):
        for record in (records[index] for index in indices):
            reason = reason_lost(record.path) or "it cannot be loaded"
            inspector.unreadable(record.path or record.image_id, reason)

    def stream(order):
        return decoding.decoded(order, load, report_lost)

    dataset = stream(tf.data.Dataset.range(len(records)))
    attach(dataset, class_names=names, records=records, inspector=inspector, name=name)
    dataset.reordered = stream
    dataset.pixels = pixels
    return dataset


# ---------------------------------------------------------------------- batches


def classification_pipeline(
    examples: tf.data.Dataset,
    model: Any,
    batch_size: int = 32,
    *,
    augment: str | Callable[..., Any] | None = None,
    crops: int | None = None,
    shuffle: bool | int | None = None,
    seed: int = 0,
    first_epoch: int = 0,
    repeat: bool = False,
    cache: bool | str = False,
    shard: tuple[int, int] | None = None,
    drop_remainder: bool = False,
    multi_scale: Sequence[int] | None = None,
    multi_scale_every: int = 40,
) -> tf.data.Dataset:
    """Batches of images and labels for a classifier's `fit` and `evaluate`.

    A batch is `(images, labels)`: float32 (B, H, W, 3), RGB 0..255, and int32 (B,).

    Args:
        examples: what a reader here gives, or any data set of such elements.
        model: a classifier; anything with `image_size` (height, width) and `class_names`.
        batch_size: images a batch; the last batch of an epoch holds what is left.
        augment: `"darknet"`, `"darknet_448"` (the last epochs' at 448), `"overfeat"`, a function
            `(image, image_size, seed (2,) int64) -> image`, or None: the middle of the image, as
            `classify` sees it.
        crops: with `"overfeat"`: each image gives so many windows and their mirror images, 2 * crops
            examples, in place of one (the paper's five, `augment_classifier.overfeat_views`). An
            epoch is as much longer. Where data is shuffled, they are drawn from a buffer that
            holds those of a batch's number of images.
        shuffle: as in `kerasdet.data.pipeline`, as are the following.
        seed: of the order and the augmentation.
        first_epoch: number of the epoch that comes first.
        repeat: one endless iteration over all epochs.
        cache: keep decoded images in memory (True) or in files.
        shard: (index, count), this worker's share.
        drop_remainder: leave out a last batch that is not full.
        multi_scale: sides in pixels to draw the batches' size from.
        multi_scale_every: batches until another size is drawn; darknet's classifiers take 40
            (examples/classifier.c).

    Returns:
        The batches, with attributes `steps_per_epoch` and `class_names`.

    Raises:
        InputError: if the data's classes are not the model's, or an argument makes no sense.
    """
    _check_elements(examples)
    check_classes(examples, model)
    see = _seen_by(augment) if crops is None else _views_of(augment, crops, multi_scale)
    views = 1 if crops is None else 2 * crops
    plan = planned(
        model,
        batch_size,
        multi_scale=multi_scale,
        multi_scale_every=multi_scale_every,
        shard=shard,
        seed=seed,
        first_epoch=first_epoch,
        repeat=repeat,
        drop_remainder=drop_remainder,
        views=views,
    )
    order = Order(
        examples,
        augment is not None if shuffle is None else shuffle,
        seed=seed,
        cache=cache,
        shard=plan.worker,
    )
    share, steps = plan.share(order.size)

    def prepare(example, image_size, seed):
        image = tf.cast(see(example["image"], image_size, seed), tf.float32)
        label = tf.cast(example["label"], tf.int32)
        return image, label if crops is None else tf.repeat(label, views)

    batches = batched(
        lambda epoch: order.epoch(epoch, share=share),
        prepare,
        plan,
        steps=steps,
        drawn=augment is not None or bool(order.shuffle),
        mixed=views * batch_size if order.shuffle else 0,
    )
    batches.class_names = list(model.class_names)
    return batches


def _seen_by(augment: str | Callable[..., Any] | None) -> Callable[..., Any]:
    if augment is None:
        return lambda image, image_size, _: augment_classifier.middle(image, image_size)
    if callable(augment):
        return augment
    if augment not in _AUGMENTATIONS:
        known = ", ".join(repr(name) for name in _AUGMENTATIONS)
        raise InputError(f"augment must be {known}, a function or None, not {augment!r}")
    return _AUGMENTATIONS[augment]


def _views_of(augment, crops, multi_scale) -> Callable[..., Any]:
    if isinstance(crops, bool) or not isinstance(crops, Integral) or crops < 1:
        raise InputError(f"crops wants a whole number from 1 on, or None, not {crops!r}")
    if augment != "overfeat" or multi_scale is not None:
        raise InputError("crops goes with augment='overfeat' and one size, without multi_scale")
    return functools.partial(augment_classifier.overfeat_views, crops=crops)


def _check_elements(examples: tf.data.Dataset) -> None:
    spec = examples.element_spec
    missing = {"image", "label"} - set(spec if isinstance(spec, dict) else ())
    if missing:
        raise InputError(
            "classification_pipeline wants dicts with image and label; "
            f"{', '.join(sorted(missing))} missing in {spec}"
        )
