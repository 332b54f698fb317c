"""Encoded images to upright RGB pixels inside `tf.data`, where a broken image is left out and named."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from kerasdet.images import MAX_PIXELS, MAX_PIXELS_PER_BYTE, decoded_in_graph, read_image
from kerasdet.orientation import PNG, size_of

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")

_WINDOW = 64  # how many images lost in a row can still be named

# Nothing here is Python control flow on tensors, so AutoGraph would only slow the tracing down.
_as_written = tf.autograph.experimental.do_not_convert

Report = Callable[[np.ndarray], None]


def decode_image(data: tf.Tensor, annotated: Any = (0, 0)) -> tf.Tensor:
    """Decodes one image in the graph: JPEG and PNG by TensorFlow, all else by Pillow.

    Grey, palette, CMYK and transparent images become RGB; of an animation the first frame counts. A
    photo is turned upright, as its EXIF says, unless its annotations were made on the pixels as stored.

    Args:
        data: scalar string, the whole file.
        annotated: int32 (2,), height and width that the image's annotations state: where that is its
            size as stored and not the upright one, it stays as stored. Zeros: nothing is stated.

    Returns:
        uint8 (H, W, 3).

    Raises:
        tf.errors.InvalidArgumentError: (and other `tf.errors`) when the image is broken.
    """
    return _decode(data, tf.convert_to_tensor(annotated, tf.int32))


@tf.function(
    input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((2,), tf.int32)], autograph=False
)
def _decode(data, annotated):
    jpeg = tf.equal(tf.strings.substr(data, 0, 3), b"\xff\xd8\xff")
    png = tf.equal(tf.strings.substr(data, 0, len(PNG)), PNG)
    image = tf.cond(
        jpeg | png,
        lambda: decoded_in_graph(data, annotated),
        lambda: tf.numpy_function(_decode_with_pillow, [data, annotated], tf.uint8),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _decode_with_pillow(data: Any, annotated: np.ndarray) -> np.ndarray:
    if isinstance(data, np.ndarray):  # outside a graph TensorFlow wraps the bytes in an array
        data = data.item()
    with Image.open(io.BytesIO(data)) as image:
        pixels = image.width * image.height
        if pixels > min(MAX_PIXELS, MAX_PIXELS_PER_BYTE * len(data)):
            raise ValueError(f"the image claims {image.width}x{image.height} pixels")
        return np.asarray(read_image(image, annotated=tuple(annotated)), np.uint8)


def header_size(path: str | Path, annotated: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) that the image will have, from the file's header; the pixels are not decoded.

    Args:
        path: the image's file.
        annotated: as for `decode_image`.

    Raises:
        ValueError: if no image format is recognised, with the reason.
    """
    try:
        with Image.open(path) as image:
            return size_of(image, annotated)
    except Exception as error:  # Pillow's plug-ins raise many kinds on a broken header
        raise ValueError(_one_line(error)) from error


def fault_of(data: bytes) -> str:
    """Why the image cannot be decoded, in a few words; "" if it can."""
    if not data:
        return "the file is empty"
    try:
        decode_image(tf.constant(data))
    except Exception as tensorflow_error:
        try:
            with Image.open(io.BytesIO(data)) as image:
                read_image(image)
        except Exception as error:  # in plainer words
            return _one_line(error)
        return _one_line(tensorflow_error)
    return ""


def _one_line(error: Exception) -> str:
    text = re.sub(r" <\S+ object at 0x[0-9a-f]+>", "", " ".join(str(error).split()))
    text = text or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."


def decoded(
    source: tf.data.Dataset,
    load: Callable[..., Any],
    report: Report,
    *,
    index_of: Callable[..., Any] = lambda element: element,
) -> tf.data.Dataset:
    """Loads every element in parallel and in order, leaving out those whose loading fails.

    Nothing but graph operations runs for an element that loads: each carries its position and the
    indices before it, so that a gap shows, and only then is `report` called.

    Args:
        source: anything that holds an index, an int64 scalar >= 0.
        load: graph function of the index and the element, to an example. It is called once more
            with index -1 and zeros, and has to give an image without pixels then.
        report: called with the int64 indices of what was left out, in order; of more than 63 in a
            row the last 63.
        index_of: takes the index out of an element.
    """
    end = tf.nest.map_structure(_end, source.element_spec)

    @_as_written
    def remember(state, element):
        position, recent = state
        recent = tf.concat([recent[1:], index_of(element)[None]], axis=0)  # (_WINDOW,)
        return (position + 1, recent), (position, recent, element)

    @_as_written
    def load_one(position, recent, element):
        return position, recent, load(index_of(element), element)

    def call_report(recent, lost):
        first = max(0, len(recent) - 1 - int(lost))
        report(recent[first:-1])
        return np.int64(0)

    @_as_written
    def notice(expected, element):
        position, recent, example = element
        lost = position - expected
        told = tf.cond(
            lost > 0,
            lambda: tf.numpy_function(call_report, [recent, lost], tf.int64),
            lambda: tf.constant(0, tf.int64),
        )
        return position + 1 + tf.reshape(told, []), example

    start = (tf.constant(0, tf.int64), tf.fill([_WINDOW], tf.constant(-1, tf.int64)))
    return (
        source.concatenate(tf.data.Dataset.from_tensors(end))
        .scan(start, remember)
        .map(load_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .ignore_errors()
        .scan(tf.constant(0, tf.int64), notice)
        .filter(_as_written(lambda example: tf.shape(example["image"])[0] > 0))
    )


def _end(spec: tf.TensorSpec) -> tf.Tensor:
    """What follows the last element: index -1, and nothing."""
    if spec.dtype == tf.int64 and spec.shape.rank == 0:
        return tf.constant(-1, tf.int64)
    shape = [size or 0 for size in spec.shape.as_list()]
    return tf.fill(shape, "") if spec.dtype == tf.string else tf.zeros(shape, spec.dtype)
