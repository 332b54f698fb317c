"""Photos to arrays, and arrays to the network's input: read upright, then warped, letterboxed or cornered."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasdet.errors import InputError
from kerasdet.orientation import PNG, turn_of, turned, upright_in_graph

RESIZES = ("warp", "letterbox", "letterbox_smooth", "corner")
"""How a photo comes to the network's size: its aspect given up, or kept between grey bars, or kept
in the top left corner.

"letterbox" samples as darknet does, four pixels for one however large the photo is;
"letterbox_smooth" takes the mean of all that lie below one, as Pillow's bilinear resize does.
"""

GREY = 127.5
"""Of the bars: darknet fills with 0.5 of 0..1."""

# An encoded image with more pixels is refused, whatever its header says: Pillow's own bound (a
# quarter of a gigabyte of RGB). No format here packs more than some 8000 pixels in a byte (PNG:
# 1032:1 deflate of one bit a pixel), so a tiny file cannot ask for that much either.
MAX_PIXELS = 89_478_485
MAX_PIXELS_PER_BYTE = 10_000


def read_image(image, where="the image", *, annotated=None) -> np.ndarray:
    """An image as an RGB array (H, W, 3) in 0..255, from an array, a PIL image or a path.

    A photo is turned upright, as its EXIF says; an array is as it is.

    Args:
        image: array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4, the last channel ignored) in
            0..255, a PIL image, or a path.
        where: what to call it in an error.
        annotated: (height, width) that a photo's annotations state. Where they were made on the
            pixels as stored, it is left so; see `kerasdet.orientation.turn_of`.

    Raises:
        InputError: if it cannot be read as an image.
    """
    if isinstance(image, str | Path):
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(image) as opened:
                image = _pixels(opened, annotated)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise InputError(f"Wanted an image file for {where}, but {image}: {error}.") from error
    if hasattr(image, "convert"):
        image = _pixels(image, annotated)
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"Wanted an RGB array (H, W, 3) for {where}, not one of {array.shape}.")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    if array.dtype.kind not in "uif":
        raise InputError(f"Wanted numbers 0..255 for {where}, not {array.dtype}.")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(f"Wanted numbers 0..255 for {where}, but it holds {low} and {high}.")
        if 0 < high <= 1.0:
            raise InputError(
                f"Wanted numbers 0..255 for {where}, but its largest is {high:g}: "
                "multiply an image in 0..1 by 255."
            )
    elif array.dtype.itemsize > 1 and not 0 <= int(array.min()) <= int(array.max()) <= 255:
        raise InputError(
            f"Wanted numbers 0..255 for {where}, not {array.min()}..{array.max()}: "
            "scale an image of more than 8 bits down first."
        )
    return array[..., :3]


def _pixels(image, annotated) -> np.ndarray:
    """Of a PIL image, turned: uint8 (H, W, 3), or (H, W) of numbers that may not be 0..255.

    Grey of 16 bits becomes 8 by its high byte, as libpng does with colours of 16; of Pillow's
    `convert` all above 255 would be white.
    """
    turn = turn_of(image, annotated)  # of a PNG before its pixels, as in graphs
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype("uint8")
        pixels = np.repeat(grey[..., None], 3, axis=2)
    elif image.mode in ("I", "F"):  # of any range
        pixels = np.asarray(image)
    else:
        pixels = np.asarray(image.convert("RGB"))
    return turned(pixels, turn)


def each_image(images) -> list[tuple[str, Any]]:
    """One image, a batch or a list, as a list of images with what to call each in an error.

    Args:
        images: an array (H, W, 3) or (B, H, W, 3) of NumPy or a back end, a list or tuple of
            images, or one image of any kind that `read_image` takes.
    """
    if hasattr(images, "__array__") and hasattr(images, "ndim"):  # NumPy's or a back end's
        images = np.asarray(images)
        if images.ndim == 4:
            return [(f"image {i} of the batch", image) for i, image in enumerate(images)]
        return [("the image", images)]
    if isinstance(images, list | tuple):
        return [(f"image {i} of the list", image) for i, image in enumerate(images)]
    return [("the image", images)]


# ---------------------------------------------------------------------- where a photo lies


class Placement(NamedTuple):
    """The part of the network's input that a photo fills, and the photo's own size, in pixels.

    The numbers are ints, or scalar tensors inside a graph.
    """

    top: Any
    left: Any
    height: Any
    width: Any
    source_height: Any
    source_width: Any

    @property
    def offset(self) -> tuple:
        """What the part's corner adds to x1, y1, x2, y2."""
        return (self.left, self.top, self.left, self.top)

    @property
    def scale(self) -> tuple:
        """Pixels of the network's input for one of the photo, for x1, y1, x2, y2.

        A box comes to the input by `box * scale + offset`, and back by `(box - offset) / scale`.
        """
        across, down = self.width / self.source_width, self.height / self.source_height
        return (across, down, across, down)


def _shrunk(side, scale):
    return int(side * scale)


def placement(
    source, size, resize="warp", *, short_side=None, minimum=min, maximum=max, shrunk=_shrunk
) -> Placement:
    """Where a way of resizing puts a photo.

    Args:
        source: (height, width) of the photo; integers, Python's or scalar tensors.
        size: (height, width) of the network's input.
        resize: one of `RESIZES`. The letterboxes put it in the same place, but that the smooth one
            works with one rounded scale, which can leave it a pixel short of the edge.
        short_side: of "corner", the most that the photo's shorter side becomes; None for no limit
            but the input's.
        minimum: of two of those integers.
        maximum: likewise.
        shrunk: (one of those integers, a float64 scale) to their product without its fraction.

    Source: darknet src/image.c, letterbox_image. Its correct_region_boxes takes half of an odd
        rest with the fraction that the picture's own place has not; here a box is where the
        picture is.
    """
    source_height, source_width = source
    height, width = size
    if resize == "warp":
        return Placement(0, 0, height, width, source_height, source_width)
    if resize == "corner":

        def rounded(number, divisor):
            return (2 * number + divisor) // (2 * divisor)

        inner_height = minimum(height, rounded(source_height * width, source_width))
        inner_width = minimum(width, rounded(source_width * height, source_height))
        if short_side is not None:
            shorter = minimum(source_height, source_width)
            inner_height = minimum(inner_height, rounded(source_height * short_side, shorter))
            inner_width = minimum(inner_width, rounded(source_width * short_side, shorter))
        inner_height, inner_width = maximum(1, inner_height), maximum(1, inner_width)
        return Placement(0, 0, inner_height, inner_width, source_height, source_width)
    if resize == "letterbox":
        inner_height = minimum(height, source_height * width // source_width)
        inner_width = minimum(width, source_width * height // source_height)
    else:
        scale = minimum(width / source_width, height / source_height)
        inner_height, inner_width = shrunk(source_height, scale), shrunk(source_width, scale)
    inner_height, inner_width = maximum(1, inner_height), maximum(1, inner_width)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    return Placement(top, left, inner_height, inner_width, source_height, source_width)


# ---------------------------------------------------------------------- resizing


def resized(image, size, resize="warp") -> np.ndarray:
    """One image (H, W, 3) to (height, width, 3) float32, in one of `RESIZES`' ways."""
    if resize == "warp":
        return warp(image, size)
    if resize == "corner":
        return corner(image, size)
    return letterbox(image, size, smooth=resize == "letterbox_smooth")


def warp(image, size) -> np.ndarray:
    """Resizes one image to (height, width), bilinear, half-pixel centres, aspect not kept.

    The same numbers as `tf.image.resize` and torch's `interpolate(align_corners=False)`, in
    NumPy: no back end compiles it anew for every photo's size.

    Args:
        image: (H, W, 3).
        size: (height, width).

    Returns:
        (height, width, 3) float32.
    """
    return _sampled(
        image, *(_half_pixel_places(s, t) for s, t in zip(image.shape, size, strict=False))
    )


def letterbox(image, size, *, smooth=False) -> np.ndarray:
    """Resizes one image as large as it fits with its aspect kept, and centres it on grey.

    Args:
        image: (H, W, 3).
        size: (height, width).
        smooth: against aliasing take all pixels below one of the result, weighted by a triangle
            (as Pillow's BILINEAR); otherwise four, as darknet.

    Returns:
        (height, width, 3) float32, 127.5 above and below or left and right of the image.

    Source: darknet src/image.c, letterbox_image and resize_image (bilinear between the centres
        of the corner pixels).
    """
    place = placement(image.shape[:2], size, "letterbox_smooth" if smooth else "letterbox")
    sides = (image.shape[0], place.height), (image.shape[1], place.width)
    if smooth:
        inner = _averaged(image, *sides)
    else:
        inner = _sampled(image, *(_corner_places(*side) for side in sides))
    canvas = np.full((*size, 3), GREY, "float32")
    canvas[place.top : place.top + place.height, place.left : place.left + place.width] = inner
    return canvas


def corner(image, size, *, short_side=None, fill=GREY) -> np.ndarray:
    """Resizes one image, its aspect kept, into the top left corner of the network's input.

    Args:
        image: (H, W, 3).
        size: (height, width).
        short_side: the most that the image's shorter side becomes; None: as large as it fits.
        fill: a number, or one for each channel, below and right of the image.

    Returns:
        (height, width, 3) float32.

    Source: Fast R-CNN, lib/utils/blob.py, prep_im_for_blob and im_list_to_blob.
    """
    place = placement(image.shape[:2], size, "corner", short_side=short_side)
    canvas = np.empty((*size, 3), "float32")
    canvas[:] = fill
    canvas[: place.height, : place.width] = warp(image, (place.height, place.width))
    return canvas


def _half_pixel_places(source, target):
    place = (np.arange(target, dtype="float32") + 0.5) * (source / target) - 0.5
    return np.clip(place, 0, source - 1)


def _corner_places(source, target):
    if target == 1:  # darknet reads the last pixel
        return np.full(1, source - 1, "float32")
    return np.arange(target, dtype="float32") * np.float32((source - 1) / (target - 1))


def _sampled(image, down, across):
    """The image between its pixels, at every pair of a place from above and one from the left."""
    (top, bottom, down), (left, right, across) = (
        _taps(places, side) for places, side in zip((down, across), image.shape, strict=False)
    )
    rows = _between(image[top], image[bottom], down[:, None, None])  # (height, W, 3)
    return _between(rows[:, left], rows[:, right], across[:, None])


def _taps(places, side):
    """For each place its two source pixels and how far between them it lies."""
    first = np.minimum(np.floor(places).astype("int64"), side - 1)
    return first, np.minimum(first + 1, side - 1), (places - first).astype("float32")


def _between(first, second, share):
    first = first.astype("float32")
    return first + (second - first) * share


def _averaged(image, down, across):
    """Triangle-weighted means; `down` and `across` are (source, target) sides."""
    rows = 0.0
    for source, weight in zip(*_triangles(*down), strict=True):
        rows = rows + image[source] * weight[:, None, None]  # (height, W, 3)
    columns = 0.0
    for source, weight in zip(*_triangles(*across), strict=True):
        columns = columns + rows[:, source] * weight[:, None]
    return columns


def _triangles(source, target):
    """Source pixels and their weights, (taps, target) each, for every target pixel."""
    scale = source / target
    support = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale
    pixel = np.floor(centre - support) + np.arange(int(np.ceil(2 * support)) + 2)[:, None]
    weight = np.maximum(1 - np.abs(pixel + 0.5 - centre) / support, 0)
    weight *= (pixel >= 0) & (pixel < source)
    weight /= weight.sum(axis=0)
    return np.clip(pixel, 0, source - 1).astype("int64"), weight.astype("float32")


# ---------------------------------------------------------------------- in TensorFlow's graphs


def decoded_in_graph(data, annotated=None):
    """One JPEG or PNG file to `read_image`'s pixels, exactly, upright as there.

    JPEG is decoded with the accurate inverse DCT, which gives Pillow's pixels; the default one
    differs by up to 17 levels and is no faster.

    Args:
        data: scalar string, the whole file.
        annotated: int32 (2,), as for `read_image`; zeros or None where nothing is stated.

    Returns:
        uint8 (H, W, 3).

    Raises:
        tf.errors.InvalidArgumentError: (and other `tf.errors`) when the image is broken or claims
            too many pixels.
    """
    import tensorflow as tf

    def png_shape():  # IHDR: width and height, big-endian, from byte 16
        sides = tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False)
        return tf.reverse(sides, [0])

    is_png = tf.equal(tf.strings.substr(data, 0, len(PNG)), PNG)
    shape = tf.cond(is_png, png_shape, lambda: tf.io.extract_jpeg_shape(data)[:2])
    pixels = tf.reduce_prod(tf.cast(shape, tf.int64))
    length = tf.cast(tf.strings.length(data), tf.int64)
    bound = tf.minimum(MAX_PIXELS_PER_BYTE * length, MAX_PIXELS)
    fits = tf.debugging.assert_less_equal(pixels, bound, message="the image claims too many pixels")
    with tf.control_dependencies([fits] if fits is not None else []):
        # TensorFlow's JPEG operation reads PNG as well.
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    image = upright_in_graph(image, data, is_png, annotated)
    return tf.ensure_shape(image, (None, None, 3))


def placement_in_graph(source, size, resize="warp", *, short_side=None) -> Placement:
    """`placement` of a photo whose sides are scalar int32 tensors; `size` may be, too."""
    import tensorflow as tf

    def shrunk(side, scale):
        return tf.cast(tf.cast(side, tf.float64) * scale, tf.int32)

    functions = {"minimum": tf.minimum, "maximum": tf.maximum, "shrunk": shrunk}
    return placement(source, size, resize, short_side=short_side, **functions)


def resized_in_graph(images, size, resize="warp", *, short_side=None, fill=GREY):
    """`resized` as TensorFlow operations, for `tf.data` and exports.

    Args:
        images: (B, H, W, 3) or (H, W, 3) tensor of any type; H and W need not be known.
        size: (height, width), Python integers.
        resize: one of `RESIZES`.
        short_side: of "corner", as for `placement`.
        fill: of "corner", a number or one for each channel.

    Returns:
        (B, height, width, 3) or (height, width, 3) float32.
    """
    import tensorflow as tf

    images = tf.cast(images, tf.float32)
    if resize == "warp":
        return tf.image.resize(images, size, method="bilinear", antialias=False)
    source = tf.unstack(tf.shape(images)[-3:-1])
    place = placement_in_graph(source, size, resize, short_side=short_side)
    if resize == "corner":
        inner = tf.image.resize(images, (place.height, place.width), antialias=False)
        edges = [[0, size[0] - place.height], [0, size[1] - place.width], [0, 0]]
        edges = [[0, 0]] * (len(images.shape) - 3) + edges
        fill = tf.constant(fill, tf.float32)  # zero around the image, and fill added back
        canvas = tf.pad(inner - fill, edges) + fill
        return tf.ensure_shape(canvas, (*images.shape[:-3], *size, 3))
    if resize == "letterbox_smooth":
        inner = tf.image.resize(images, (place.height, place.width), "bilinear", antialias=True)
        above = tf.stack([place.top, size[0] - place.height - place.top])
        beside = tf.stack([place.left, size[1] - place.width - place.left])
        bars = tf.stack([tf.zeros(2, tf.int32)] * (len(images.shape) - 3) + [above, beside])
        bars = tf.pad(bars, [[0, 1], [0, 0]])
        return tf.ensure_shape(
            tf.pad(inner, bars, constant_values=GREY), (*images.shape[:-3], *size, 3)
        )

    def sampled(pixels, axis, start, inner, side, target):
        """Along one axis, grey where the image is not."""
        cell = tf.range(target) - start
        step = tf.cast(side - 1, tf.float32) / tf.cast(tf.maximum(inner - 1, 1), tf.float32)
        there = tf.cast(tf.clip_by_value(cell, 0, inner - 1), tf.float32) * step
        there = tf.where(inner == 1, tf.cast(side - 1, tf.float32), there)
        first = tf.minimum(tf.cast(tf.floor(there), tf.int32), side - 1)
        second = tf.minimum(first + 1, side - 1)
        shape = (-1, 1, 1) if axis == -3 else (-1, 1)
        share = tf.reshape(there - tf.cast(first, tf.float32), shape)
        axis += len(pixels.shape)
        low, high = (tf.gather(pixels, index, axis=axis) for index in (first, second))
        inside = tf.reshape((cell >= 0) & (cell < inner), shape)
        return tf.where(inside, low + (high - low) * share, GREY)

    rows = sampled(images, -3, place.top, place.height, source[0], size[0])
    return sampled(rows, -2, place.left, place.width, source[1], size[1])
