"""What a classifier sees of an image: darknet's turned and stretched crop, OverFeat's, and the middle.

Every function takes an image (H, W, 3) and gives one at the network's size, float32 0..255; all
randomness is a function of the `seed` pair. `image_size` is (height, width), numbers or an int32
tensor (2,).

Source: darknet, src/image.c (random_augment_args, rotate_crop_image, center_crop_image) and src/data.c
(load_image_augment_paths). Differs from it: pixels are areas, sampled with half-pixel centres.
"""

import math

import tensorflow as tf

from kerasdet import voting
from kerasdet.data.augment import static_shape
from kerasdet.data.augment_yolo import draw_recolouring, recolour


def darknet(
    image,
    image_size,
    seed,
    *,
    crop=(0.5, 1.75),
    angle=7.0,
    aspect=0.75,
    hue=0.1,
    saturation=0.75,
    exposure=0.75,
    flip_probability=0.5,
):
    """The image turned, stretched, scaled, cropped, mirrored and recoloured, as for darknet's classifiers.

    Defaults: darknet19.cfg, where the image's shorter side becomes 128 to 448 pixels for an input
    of 256. The crop of the input's size lies anywhere in the scaled image; where the image is the
    smaller one it lies anywhere in the crop. Outside is black.

    Args:
        image: uint8 (H, W, 3).
        image_size: (height, width) of the network's input.
        seed: int (2,); the same pair gives the same result.
        crop: least and greatest length of the image's shorter side, in parts of the input's.
        angle: greatest turn, degrees either way.
        aspect: greatest stretch, or its inverse.
        hue: greatest turn of the colour wheel, either way.
        saturation: greatest factor on HSV's S, or its inverse.
        exposure: greatest factor on HSV's V, or its inverse.
        flip_probability: how often left and right are swapped.
    """
    drawn = tf.random.stateless_uniform((12,), seed)
    network = tf.cast(image_size, tf.float32)
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    stretch = 1.0 + drawn[0] * (aspect - 1.0)
    stretch = tf.where(drawn[1] < 0.5, stretch, 1.0 / stretch)
    low, high = (tf.floor(ratio * tf.reduce_min(network)) for ratio in crop)
    shorter = tf.maximum(low + tf.floor(drawn[2] * (high - low + 1.0)), 1.0)
    # Of the scaled image the height is sides[0] * scale and the width sides[1] * scale / stretch, but
    # its shorter side is taken with the factor's inverse (random_augment_args).
    scale = shorter / tf.maximum(tf.floor(tf.minimum(sides[0], sides[1] * stretch)), 1.0)
    step = tf.stack([1.0 / scale, stretch / scale])  # source pixels for one of the crop, y and x
    room = (sides / step - network) / 2.0
    centre = sides / 2.0
    turn = (2.0 * drawn[3] - 1.0) * angle * math.pi / 180.0
    c, s = tf.cos(turn), tf.sin(turn)
    matrix = tf.stack([[c * step[0], s * step[1]], [-s * step[0], c * step[1]]])  # y, x to y, x
    shift = centre + tf.linalg.matvec(matrix, (2.0 * drawn[4:6] - 1.0) * room - network / 2.0)
    seen = _sampled(image, matrix, shift, tf.convert_to_tensor(image_size, tf.int32))
    seen = tf.cond(drawn[6] < flip_probability, lambda: tf.reverse(seen, [1]), lambda: seen)
    seen = recolour(seen, draw_recolouring(drawn[7:], hue, saturation, exposure))
    return tf.ensure_shape(seen, static_shape(image_size))


def darknet_448(image, image_size, seed):
    """`darknet` as darknet19_448.cfg has it, for the last epochs: shorter sides of 448 to 512 at 448."""
    return darknet(image, image_size, seed, crop=(1.0, 512 / 448))


def overfeat(image, image_size, seed, *, flip_probability=0.5):
    """A window of the network's size from anywhere in the image at its `voting.short_side`, and a flip.

    One view a pass; `overfeat_views` has all that the paper shows of an image together.

    Args:
        image: uint8 (H, W, 3).
        image_size: (height, width) of the network's input. The image is brought to 256 pixels on its
            shorter side for windows of 221 and 231, and in proportion for others; for one that is
            not square as large that both its sides have as much room.
        seed: int (2,); the same pair gives the same result.
        flip_probability: how often left and right are swapped.

    Source: arXiv:1312.6229, sec. 3.1.
    """
    drawn = tf.random.stateless_uniform((3,), seed)
    seen = _window(image, image_size, drawn[:2])
    return tf.cond(drawn[2] < flip_probability, lambda: tf.reverse(seen, [1]), lambda: seen)


def overfeat_views(image, image_size, seed, *, crops):
    """So many windows of the image, each drawn as `overfeat`'s, and the mirror images of these.

    Args:
        image: uint8 (H, W, 3).
        image_size: (height, width) of the network's input, as for `overfeat`.
        seed: int (2,); the same pair gives the same result.
        crops: how many windows; the paper's are 5.

    Returns:
        (2 * crops, height, width, 3): the windows, then their mirror images in the same order.

    Source: arXiv:1312.6229, sec. 3.1.
    """
    places = tf.unstack(tf.random.stateless_uniform((crops, 2), seed))
    seen = tf.stack([_window(image, image_size, place) for place in places])
    return tf.concat([seen, tf.reverse(seen, [2])], axis=0)


def _window(image, image_size, place):
    """The part of the image at its short side, at this share (2,) of the room, down and across."""
    window = tf.convert_to_tensor(image_size, tf.int32)
    source = tf.shape(image)[:2]
    sides = tf.cast(source, tf.float32)
    outer = tf.cast(window, tf.float32) * _room(tf.reduce_min(window))
    whole = tf.cast(tf.round(sides * tf.reduce_max(outer / sides)), tf.int32)
    whole = tf.maximum(whole, window)
    first = tf.cast(place * tf.cast(whole - window + 1, tf.float32), tf.int32)
    first = tf.minimum(first, whole - window)  # a product may be rounded up
    # Only what the window shows is sampled; the numbers are those of resizing the whole.
    seen = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=window,
        scale=tf.cast(whole, tf.float32) / sides,
        translation=-tf.cast(first, tf.float32),
        kernel_type="triangle",
        antialias=False,
    )[0]
    return tf.ensure_shape(seen, static_shape(image_size))


def _room(window):
    """`short_side` over the window, for a scalar int32 tensor."""
    of_release = tf.reduce_any(window == tf.constant(voting.WINDOWS))
    window = tf.cast(window, tf.float32)
    general = tf.round(window * (voting.SHORT_SIDE / max(voting.WINDOWS)))
    return tf.where(of_release, float(voting.SHORT_SIDE), general) / window


def middle(image, image_size):
    """The largest part in the middle with the input's aspect, resized: as `Classifier.classify` does it."""
    height, width = tf.unstack(tf.shape(image)[:2])
    target = tf.convert_to_tensor(image_size, tf.int32)
    inner_height = tf.maximum(1, tf.minimum(height, width * target[0] // target[1]))
    inner_width = tf.maximum(1, tf.minimum(width, height * target[1] // target[0]))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    part = image[None, top : top + inner_height, left : left + inner_width]
    resized = tf.raw_ops.ResizeBilinear(images=part, size=target, half_pixel_centers=True)[0]
    return tf.ensure_shape(resized, static_shape(image_size))


def _sampled(image, matrix, shift, size):
    """The image at matrix @ place + shift for the centre of every pixel of (height, width); else 0.

    Args:
        image: uint8 (H, W, 3).
        matrix: (2, 2), y, x to y, x.
        shift: (2,).
        size: int32 (2,).
    """
    # Only the part around the places is made float: a photo is many times larger than the crop.
    ends = tf.constant([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]) * tf.cast(size, tf.float32)
    corners = tf.linalg.matmul(ends, matrix, transpose_b=True) + shift  # (4, 2)
    source = tf.shape(image)[:2]
    first = tf.cast(tf.floor(tf.reduce_min(corners, axis=0)), tf.int32) - 2
    last = tf.cast(tf.math.ceil(tf.reduce_max(corners, axis=0)), tf.int32) + 2
    first = tf.clip_by_value(first, 0, source - 1)
    last = tf.clip_by_value(last, first + 1, source)
    part = tf.cast(image[first[0] : last[0], first[1] : last[1]], tf.float32)
    # From centres of pixels to centres of pixels, in the part's own numbering.
    shift = shift + tf.reduce_sum(matrix, axis=1) / 2.0 - 0.5 - tf.cast(first, tf.float32)
    (yy, yx), (xy, xx) = tf.unstack(matrix[0]), tf.unstack(matrix[1])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=part[None],
        transforms=tf.stack([xx, xy, shift[1], yx, yy, shift[0], 0.0, 0.0])[None],
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]
