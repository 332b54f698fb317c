"""Encoded images to RGB pixels inside `tf.data`, where a broken image is left out and named."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from kerasdet.images import read_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")

# An image with more pixels is refused, whatever its header says: Pillow's own bound (a quarter of
# a gigabyte of RGB). No format here packs more than some 8000 pixels in a byte (PNG: 1032:1 deflate
# of one bit a pixel), so a tiny file cannot ask for that much either.
_MAX_PIXELS = 89_478_485
_MAX_PIXELS_PER_BYTE = 10_000

_WINDOW = 64  # how many images lost in a row can still be named

# Nothing here is Python control flow on tensors, so AutoGraph would only slow the tracing down.
_as_written = tf.autograph.experimental.do_not_convert

Report = Callable[[np.ndarray], None]


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def decode_image(data: tf.Tensor) -> tf.Tensor:
    """Decodes one image in the graph: JPEG and PNG by TensorFlow, all else by Pillow.

    JPEG is decoded with the accurate inverse DCT, which gives Pillow's pixels exactly; the default
    one differs by up to 17 levels and is no faster. Grey, palette, CMYK and transparent
    images become RGB; of an animation the first frame counts; EXIF rotation is not applied, as
    annotations are made on the stored pixels.

    Args:
        data: scalar string, the whole file.

    Returns:
        uint8 (H, W, 3).

    Raises:
        tf.errors.InvalidArgumentError: (and other `tf.errors`) when the image is broken.
    """
    jpeg = tf.equal(tf.strings.substr(data, 0, 3), b"\xff\xd8\xff")
    png = tf.equal(tf.strings.substr(data, 0, 8), b"\x89PNG\r\n\x1a\n")

    def checked(shape):
        pixels = tf.reduce_prod(tf.cast(shape[:2], tf.int64))
        bound = _MAX_PIXELS_PER_BYTE * tf.cast(tf.strings.length(data), tf.int64)
        fits = tf.debugging.assert_less_equal(
            pixels, tf.minimum(bound, _MAX_PIXELS), message="the image claims too many pixels"
        )
        with tf.control_dependencies([fits] if fits is not None else []):
            # The JPEG operation of TensorFlow reads PNG as well.
            return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")

    def png_shape():  # IHDR: width and height, big-endian, from byte 16
        return tf.reverse(
            tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False), [0]
        )

    image = tf.case(
        [
            (jpeg, lambda: checked(tf.io.extract_jpeg_shape(data))),
            (png, lambda: checked(png_shape())),
        ],
        default=lambda: tf.numpy_function(_decode_with_pillow, [data], tf.uint8),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _decode_with_pillow(data: Any) -> np.ndarray:
    if isinstance(data, np.ndarray):  # outside a graph TensorFlow wraps the bytes in an array
        data = data.item()
    with Image.open(io.BytesIO(data)) as image:
        pixels = image.width * image.height
        if pixels > min(_MAX_PIXELS, _MAX_PIXELS_PER_BYTE * len(data)):
            raise ValueError(f"the image claims {image.width}x{image.height} pixels")
        return np.asarray(read_image(image), np.uint8)


def header_size(path: str | Path) -> tuple[int, int]:
    """(height, width) from the file's header; the pixels are not decoded.

    Raises:
        ValueError: if no image format is recognised, with the reason.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
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
