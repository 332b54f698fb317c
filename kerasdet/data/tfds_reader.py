"""TensorFlow Datasets: any builder with an image and a sequence of boxes with class labels."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf

from kerasdet.data import class_names as names_of
from kerasdet.data import decoding
from kerasdet.data import example as ex
from kerasdet.data.stream import attach
from kerasdet.errors import InputError

ID_FEATURES = ("image/filename", "image/id", "image_id", "filename", "id")

_RETRIES = 4  # in 3 seconds; the 10 of TFDS take 4 minutes


def from_tfds(
    builder: Any,
    split: str = "train",
    *,
    data_dir: str | None = None,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    strict: bool = False,
):
    """Reads a detection data set of TensorFlow Datasets, such as `voc/2007` or `coco/2017`.

    Args:
        builder: a name, or a `tfds.core.DatasetBuilder`. Data that is not on disk yet is downloaded
            and prepared.
        split: as TFDS writes it: `train`, `train+validation`, `test[:10%]`.
        data_dir: where prepared data lies; of no meaning for a builder.
        class_names: label order, see `class_names.resolve`; objects of other classes are dropped,
            with one report a class. None: the builder's.
        strict: a class that is not wanted is an error. Boxes can be checked only while they stream.

    Returns:
        The data set of examples (`kerasdet.data.example`) in TFDS' own order; `records` is None.
        `image_id` is the file name or id if the builder has one. Boxes are taken as shares of the
        upright image, since nothing says of which size they were made.

    Raises:
        InputError: without `tensorflow-datasets`, for an unknown name or split, without a network
            where one is needed, or for a builder without boxes and labels.
    """
    tfds, builder = opened(builder, split, data_dir)
    layout = _layout(tfds, builder)
    source = encoded(tfds, builder, split, layout.image)
    name = f"tfds:{builder.info.full_name}:{split}"
    inspector = ex.Inspector(strict)
    names = names_of.resolve(class_names) or list(layout.names)
    for other in sorted(set(layout.names) - set(names)):
        inspector.report(name, "", rule=ex.UNKNOWN_CLASS, value=other, action="its objects dropped")
    dataset = _examples(source, layout, names, inspector, name)
    attach(dataset, class_names=names, records=None, inspector=inspector, name=name)
    dataset.size = int(source.cardinality())  # leaving out broken images hides it from TensorFlow
    return dataset


def opened(builder: Any, split: str, data_dir: str | None) -> tuple[Any, Any]:
    """The package, and the builder by that name, prepared and with that split.

    Raises:
        InputError: as `from_tfds`.
    """
    try:
        import importlib_resources  # noqa: F401  tensorflow-datasets 4.9.10 forgets to require it
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            "data from TensorFlow Datasets needs more packages: "
            "pip install tensorflow-datasets importlib_resources"
        ) from error
    if isinstance(builder, str):
        builder = _builder(tfds, builder, data_dir)
    if split.split("[")[0].split("+")[0] not in {*builder.info.splits, "all"}:
        there = ", ".join(sorted(builder.info.splits)) or "none"
        raise InputError(f"{builder.info.full_name} has no split {split!r}; there: {there}")
    return tfds, builder


def encoded(tfds: Any, builder: Any, split: str, image: str) -> tf.data.Dataset:
    """The split in order, with the feature `image` not decoded yet."""
    try:
        return builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders={image: tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(add_tfds_id=True),
        )
    except ValueError as error:  # a slice that is wrong, "train[:200%]"
        raise InputError(f"{builder.info.full_name}, split {split!r}: {error}") from error


class _Layout(NamedTuple):
    """Where a builder keeps what an example needs."""

    image: str
    objects: str
    box: str
    label: str
    names: tuple[str, ...]
    order: str  # of a box: TFDS' name, such as REL_YXYX
    image_id: str
    difficult: str | None
    crowd: str | None
    area: str | None


def _builder(tfds: Any, name: str, data_dir: str | None) -> Any:
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, ImportError, AttributeError) as error:
        raise InputError(f"TensorFlow Datasets cannot build {name!r}: {_reason(error)}") from error
    if not builder.info.splits:
        before = _partial_downloads(builder)
        try:
            with _few_retries():
                builder.download_and_prepare()
        except Exception as error:  # network, disk and parsing errors of some fifty libraries
            left = _swept(_partial_downloads(builder) - before)
            raise InputError(
                f"{name} is not in {builder.data_dir} and could not be prepared there: "
                f"{_reason(error)}" + (f"; parts of files were left in {left}" if left else "")
            ) from error
    return builder


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """Inside, an address that does not answer is given up after seconds, not minutes, and quietly."""
    from tensorflow_datasets.core.download import downloader

    warnings = logging.getLogger("urllib3.connectionpool")  # one for every try
    kept = downloader.MAX_RETRIES, warnings.level
    downloader.MAX_RETRIES = _RETRIES
    warnings.setLevel(logging.ERROR)
    try:
        yield
    finally:
        downloader.MAX_RETRIES = kept[0]
        warnings.setLevel(kept[1])


def _partial_downloads(builder: Any) -> set[Any]:
    """The folders that TFDS keeps files in while they are downloaded."""
    root = builder.data_path.parents[builder.info.full_name.count("/")]
    return {*root.glob("downloads/*.tmp.*"), *root.glob("downloads/*/*.tmp.*")}


def _swept(folders: set[Any]) -> str:
    """Removes those that are empty; names those that are not, which may be another process's."""
    left = []
    for folder in sorted(folders):
        try:
            folder.rmdir()
        except OSError:
            left.append(str(folder))
    return ", ".join(left)


def _reason(error: Exception) -> str:
    """The first sentence of it; TFDS goes on with lists of all that it has."""
    request = getattr(error, "request", None)  # of the package requests' errors
    if request is not None and type(error).__name__ in ("ConnectionError", "ConnectTimeout"):
        return f"{urlsplit(request.url).hostname} cannot be reached"
    text = re.sub(r"^Failed to construct dataset .*?}\": ", "", str(error).strip())
    text = " ".join(re.split(r"\n|(?<=\w{2})\. ", text)[0].split()).rstrip(".")
    text = text or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _layout(tfds: Any, builder: Any) -> _Layout:
    features = builder.info.features
    image = next((k for k, v in features.items() if isinstance(v, tfds.features.Image)), None)
    for key, feature in features.items():
        inner = getattr(feature, "feature", None)
        if image is None or not isinstance(inner, tfds.features.FeaturesDict):
            continue
        box = _first(inner, tfds.features.BBoxFeature)
        label = _first(inner, tfds.features.ClassLabel)
        if box is None or label is None:
            continue
        form = getattr(inner[box], "bbox_format", None)
        return _Layout(
            image=image,
            objects=key,
            box=box,
            label=label,
            names=tuple(inner[label].names),
            order=getattr(form, "name", None) or "REL_YXYX",
            image_id=next((k for k in ID_FEATURES if k in features), "tfds_id"),
            difficult="is_difficult" if "is_difficult" in inner else None,
            crowd="is_crowd" if "is_crowd" in inner else None,
            area="area" if "area" in inner else None,
        )
    raise InputError(
        f"{builder.info.full_name} is no detection data: it has no image with a sequence of "
        f"bounding boxes and class labels, but {', '.join(features)}"
    )


def _first(features: Any, kind: type) -> str | None:
    return next((key for key, value in features.items() if isinstance(value, kind)), None)


def _examples(
    source: tf.data.Dataset,
    layout: _Layout,
    names: list[str],
    inspector: ex.Inspector,
    name: str,
) -> tf.data.Dataset:
    labels = {n: label for label, n in enumerate(names)}
    with tf.device("CPU"):
        label_of = tf.constant([labels.get(n, -1) for n in layout.names], tf.int32)

    def report_lost(indices):
        for index in indices:
            inspector.unreadable(f"{name}, example {index}", "its image cannot be decoded")

    def report_boxes(image_id, boxes, kept):
        where = image_id.decode("utf-8", "replace")
        for row in np.flatnonzero(~kept):
            value = ",".join(f"{edge:g}" for edge in boxes[row])
            problem = ex.Problem(
                where, f"object {row + 1}", _rule(boxes[row]), value, ex.DROPPED_BOX
            )
            if problem not in inspector.problems:
                inspector.problems.append(problem)
        return np.int64(0)

    def load(_, element):
        item = element[1]
        image = tf.cond(
            tf.equal(tf.strings.length(item[layout.image]), 0),
            lambda: tf.zeros((0, 0, 3), tf.uint8),
            lambda: decoding.decode_image(item[layout.image]),
        )
        objects = item[layout.objects]
        height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
        boxes = _xyxy(objects[layout.box], layout.order, height, width)
        edges = tf.stack([width, height, width, height])
        clipped = tf.clip_by_value(boxes, 0.0, edges)
        right = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], axis=1)  # NaN compares as false
        image_id = item[layout.image_id]
        image_id = image_id if image_id.dtype == tf.string else tf.strings.as_string(image_id)
        told = tf.cond(
            tf.reduce_all(right),
            lambda: tf.constant(0, tf.int64),
            lambda: tf.numpy_function(report_boxes, [image_id, boxes, right], tf.int64),
        )
        label = tf.gather(label_of, tf.maximum(objects[layout.label], 0))
        with tf.control_dependencies([told]):
            kept = right & (label >= 0) & (objects[layout.label] >= 0)
        fields = {
            "boxes": clipped,
            "labels": label,
            "difficult": _flag(objects, layout.difficult, label),
            "crowd": _flag(objects, layout.crowd, label),
            "area": (
                tf.cast(objects[layout.area], tf.float32)
                if layout.area
                else tf.reduce_prod(clipped[:, 2:] - clipped[:, :2], axis=1)
            ),
        }
        fields = {key: tf.boolean_mask(value, kept) for key, value in fields.items()}
        return {"image": image, **fields, "image_id": image_id, "path": tf.constant("")}

    return decoding.decoded(source.enumerate(), load, report_lost, index_of=lambda e: e[0])


def _flag(objects: dict, key: str | None, like: tf.Tensor) -> tf.Tensor:
    return tf.cast(objects[key], tf.bool) if key else tf.zeros_like(like, tf.bool)


def _xyxy(boxes: tf.Tensor, order: str, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    a, b, c, d = tf.unstack(tf.cast(boxes, tf.float32), axis=1)
    if order.endswith("YXYX"):
        a, b, c, d = b, a, d, c
    elif order.endswith("XYWH"):
        c, d = a + c, b + d
    if order.startswith("REL_"):
        a, b, c, d = a * width, b * height, c * width, d * height
    return tf.stack([a, b, c, d], axis=1)


def _rule(box: np.ndarray) -> str:
    if not np.isfinite(box).all():
        return ex.NOT_A_NUMBER
    if box[2] < box[0] or box[3] < box[1]:
        return ex.INVERTED
    return ex.DEGENERATE if box[2] == box[0] or box[3] == box[1] else ex.OUTSIDE
