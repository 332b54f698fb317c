"""Augmentation of one example as darknet does it: YOLO's crop, YOLOv2's canvas, and the letterbox.

Same manner as `kerasdet.data.augment`: example in, `Augmented` at the network's size out, all
randomness from the `seed` pair. `image_size` is (height, width), numbers or an int32 tensor (2,):
in multi-scale training it changes.

Source: darknet, src/data.c (load_data_region for YOLO, load_data_detection for YOLOv2) and
src/image.c. The image is sampled once, straight to the network's size, and the colours of those
few pixels are changed.

Differs from darknet:
    * Pixels are areas: training images are sampled with half-pixel centres, which is where the
      boxes are. `place_image` samples up to half a source pixel further up and left and blends the
      last row and column with black; `resize_image` maps the centres of the corner pixels on each
      other. The letterbox, which the released weights are tested with, is darknet's exactly.
    * YOLOv2's boxes go where the whole pixels of the image go; darknet's keep the fraction.
    * Objects keep their order, which has no meaning here.
"""

from typing import NamedTuple

import tensorflow as tf

from kerasdet.data.augment import Augmented, mirrored, on_fill, select, static_shape
from kerasdet.errors import InputError
from kerasdet.images import GREY, placement_in_graph

_CANVAS = (GREY, GREY, GREY)


class Recolouring(NamedTuple):
    """Change of colours in HSV. (0, 1, 1) changes nothing.

    Attributes:
        hue: added to H, in turns of the colour wheel.
        saturation: factor on S.
        exposure: factor on V.
    """

    hue: tf.Tensor
    saturation: tf.Tensor
    exposure: tf.Tensor


def yolo_v1(
    example,
    image_size,
    seed,
    *,
    jitter=0.2,
    hue=0.1,
    saturation=1.5,
    exposure=1.5,
    flip_probability=0.5,
) -> Augmented:
    """YOLO's training augmentation: each side of the image moves in or out on its own.

    Defaults: yolov1.cfg. The paper (sec. 2.2) has no change of hue. What lies outside the image
    repeats its edge. An object is clipped to what is seen and stays if that is at least 0.005 of
    the network's input on each side (data.c, fill_truth_region).

    Args:
        example: dict with `image` uint8 (H, W, 3), `boxes` (N, 4) and `labels` (N,).
        image_size: (height, width) of the network's input.
        seed: int (2,); the same pair gives the same result.
        jitter: greatest move of a side, in parts of the image's own; below 0.5.
        hue: greatest turn of the colour wheel, either way.
        saturation: greatest factor on HSV's S; as often its inverse.
        exposure: greatest factor on HSV's V; as often its inverse.
        flip_probability: how often left and right are swapped.
    """
    _check_jitter(jitter, 0.5)
    drawn = tf.random.stateless_uniform((10,), seed)
    source = tf.shape(example["image"])[:2]
    most = tf.floor(tf.cast(source, tf.float32) * jitter)
    # Whole pixels: to the right and down for the near sides, to the left and up for the far ones.
    moved = tf.cast((2.0 * tf.reshape(drawn[:4], (2, 2)) - 1.0) * most, tf.int32)
    near, far = moved[0], moved[1]
    window = source - near - far
    image = tf.raw_ops.ResizeBilinear(
        images=_with_edges(example["image"], near, far)[None],
        size=tf.convert_to_tensor(image_size, tf.int32),
        half_pixel_centers=True,
    )[0]
    scale = tf.cast(image_size, tf.float32) / tf.cast(window, tf.float32)
    return _finished(
        example,
        image,
        image_size,
        scale=scale,
        offset=-tf.cast(near, tf.float32) * scale,
        mirror=drawn[4] < flip_probability,
        recolouring=draw_recolouring(drawn[5:], hue, saturation, exposure),
        least=0.005,
    )


def yolo_v2(
    example,
    image_size,
    seed,
    *,
    jitter=0.3,
    scale=(0.25, 2.0),
    hue=0.1,
    saturation=1.5,
    exposure=1.5,
    flip_probability=0.5,
) -> Augmented:
    """YOLOv2's training augmentation: the image, stretched and scaled, somewhere on a grey canvas.

    Defaults: yolov2.cfg, and data.c from 60e952ba (2017-03-26) to b13f67bf (2018-08-03), which
    is when the released networks were trained; the code of today has `scale=(1, 1)`. YOLO9000's
    are `jitter=0.2, saturation=0.75, exposure=0.75` (yolo9000.cfg). An object is clipped to the
    canvas and stays if that leaves at least 0.001 of it on each side (fill_truth_detection).

    Args:
        example: dict with `image` uint8 (H, W, 3), `boxes` (N, 4) and `labels` (N,).
        image_size: (height, width) of the network's input, which is the canvas.
        seed: int (2,); the same pair gives the same result.
        jitter: greatest change of each of the image's sides before its aspect ratio is taken, in
            parts of that side; below 1.
        scale: least and greatest longer side of the image, in parts of the canvas'.
        hue: greatest turn of the colour wheel, either way.
        saturation: greatest factor on HSV's S; as often its inverse.
        exposure: greatest factor on HSV's V; as often its inverse.
        flip_probability: how often left and right are swapped.
    """
    _check_jitter(jitter, 1.0)
    drawn = tf.random.stateless_uniform((11,), seed)
    network = tf.convert_to_tensor(image_size, tf.int32)
    canvas = tf.cast(network, tf.float32)
    source = tf.shape(example["image"])[:2]
    sides = tf.cast(source, tf.float32)
    jittered = sides * (1.0 + jitter * (2.0 * drawn[:2] - 1.0))
    aspect = jittered[1] / jittered[0]
    longest = canvas * (scale[0] + drawn[2] * (scale[1] - scale[0]))
    height = tf.where(aspect < 1.0, longest[0], longest[1] / aspect)
    width = tf.where(aspect < 1.0, longest[0] * aspect, longest[1])
    size = tf.stack([height, width])
    offset = tf.cast(drawn[3:5] * (canvas - size), tf.int32)  # negative: beyond the canvas
    size = tf.maximum(tf.cast(size, tf.int32), 1)
    image = _placed(example["image"], source, size, offset, network)
    return _finished(
        example,
        image,
        image_size,
        scale=tf.cast(size, tf.float32) / sides,
        offset=tf.cast(offset, tf.float32),
        mirror=drawn[5] < flip_probability,
        recolouring=draw_recolouring(drawn[6:], hue, saturation, exposure),
        least=0.001,
    )


def letterbox(example, image_size, *, smooth=False) -> Augmented:
    """The whole image as large as it fits, centred on grey: `detect`'s step, and evaluation's only.

    Equals `kerasdet.images.letterbox`, darknet's letterbox_image or the one without aliasing.
    """
    network = tf.convert_to_tensor(image_size, tf.int32)
    source = tf.unstack(tf.shape(example["image"])[:2])
    resize = "letterbox_smooth" if smooth else "letterbox"
    place = placement_in_graph(source, tf.unstack(network), resize)
    size = tf.stack([place.height, place.width])
    if smooth:
        patch = tf.image.resize(example["image"], size, "bilinear", antialias=True)
    else:
        patch = tf.raw_ops.ResizeBilinear(
            images=example["image"][None], size=size, align_corners=True
        )[0]
    image = on_fill(patch, tf.stack([place.top, place.left]), network, fill=_CANVAS)
    scale = tf.stack([tf.cast(side, tf.float32) for side in place.scale])
    offset = tf.cast(tf.stack(place.offset), tf.float32)
    boxes = tf.cast(example["boxes"], tf.float32) * scale + offset
    return Augmented(tf.ensure_shape(image, static_shape(image_size)), boxes, example["labels"])


def _check_jitter(jitter, bound):
    if not 0 <= jitter < bound:
        raise InputError(f"jitter lies from 0 to below {bound:g}, not at {jitter}")


def _with_edges(image, near, far):
    """The image (H, W, 3) cut or, by repeating its edges, grown; near, far (2,) > 0 cut off."""
    size = tf.shape(image)[:2]
    first, last = tf.maximum(near, 0), size - tf.maximum(far, 0)
    image = image[first[0] : last[0], first[1] : last[1]]
    before, behind = tf.maximum(-near, 0), tf.maximum(-far, 0)
    height, width = tf.unstack(last - first)
    left = tf.broadcast_to(image[:, :1], (height, before[1], 3))
    right = tf.broadcast_to(image[:, -1:], (height, behind[1], 3))
    image = tf.concat([left, image, right], axis=1)
    width += before[1] + behind[1]
    above = tf.broadcast_to(image[:1], (before[0], width, 3))
    below = tf.broadcast_to(image[-1:], (behind[0], width, 3))
    return tf.concat([above, image, below], axis=0)


def _placed(image, source, size, offset, network):
    """The image brought to `size` and set at `offset` on the canvas; only what is seen is sampled."""
    first = tf.maximum(offset, 0)
    last = tf.minimum(offset + size, network)
    patch = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=last - first,
        scale=tf.cast(size, tf.float32) / tf.cast(source, tf.float32),
        translation=tf.cast(offset - first, tf.float32),
        kernel_type="triangle",
        antialias=False,
    )[0]
    return on_fill(patch, first, network, fill=_CANVAS)


def _finished(example, image, image_size, *, scale, offset, mirror, recolouring, least):
    """Boxes moved with the image, clipped and sifted, then both mirrored, and the colours changed."""
    scale, offset = (tf.gather(pair, [1, 0, 1, 0]) for pair in (scale, offset))  # y, x to xyxy
    edges = tf.gather(tf.cast(image_size, tf.float32), [1, 0, 1, 0])
    boxes = tf.cast(example["boxes"], tf.float32) * scale + offset
    boxes = tf.clip_by_value(boxes, 0.0, edges)
    seen = tf.reduce_all(boxes[:, 2:] - boxes[:, :2] >= least * edges[2:], axis=1)  # (N,)
    kept = tf.where(seen)[:, 0]
    boxes = tf.gather(boxes, kept)
    image, boxes = tf.cond(
        mirror,
        lambda: (tf.reverse(image, [1]), mirrored(boxes, edges[2])),
        lambda: (image, boxes),
    )
    image = tf.ensure_shape(recolour(image, recolouring), static_shape(image_size))
    return Augmented(image, boxes, tf.gather(example["labels"], kept))


def draw_recolouring(chance, hue, saturation, exposure) -> Recolouring:
    """A `Recolouring` (image.c, random_distort_image).

    Args:
        chance: (5,) in [0, 1): how far the hue, saturation and exposure change, and whether the
            factors on the latter two are inverted.
        hue: greatest turn.
        saturation: greatest factor; or least, darknet's files say it both ways.
        exposure: likewise.
    """
    turn = hue * (2.0 * chance[0] - 1.0)
    most = tf.constant([saturation, exposure], tf.float32)
    factors = 1.0 + chance[1:3] * (most - 1.0)
    factors = tf.where(chance[3:5] < 0.5, factors, 1.0 / factors)
    return Recolouring(turn, factors[0], factors[1])


def recolour(image, change: Recolouring):
    """The image (H, W, 3), 0..255, with changed hue, saturation and value (image.c, distort_image).

    With V the largest channel and C = V - the smallest, S = C / V; each channel is V - C * (how far
    its own tooth of the colour wheel is from full). Only the result is clipped, to 0..255: on the way S
    may pass 1 and V 255.
    """
    red, green, blue = tf.unstack(image, axis=-1)  # planes: whole-row arithmetic, no broadcasting
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    sixth = tf.math.reciprocal_no_nan(chroma)
    up = change.hue * 6.0
    angle = select(
        tf.equal(value, red),
        (green - blue) * sixth + up,
        select(
            tf.equal(value, green),
            (blue - red) * sixth + (up + 2.0),
            (red - green) * sixth + (up + 4.0),
        ),
    )
    angle = tf.math.floormod(angle, 6.0)
    teeth = (
        tf.abs(angle - 3.0) - 1.0,
        2.0 - tf.abs(angle - 2.0),
        2.0 - tf.abs(angle - 4.0),
    )
    high = value * change.exposure
    depth = chroma * (change.saturation * change.exposure)
    planes = [
        tf.clip_by_value(high - depth * (1.0 - tf.clip_by_value(tooth, 0.0, 1.0)), 0.0, 255.0)
        for tooth in teeth
    ]
    return tf.transpose(tf.stack(planes), (1, 2, 0))  # faster than stacking on the last axis
