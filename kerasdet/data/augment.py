"""Augmentation of one example inside `tf.data`: SSD's whole chain, a flip, and the plain warp.

Every function takes an example (see `kerasdet.data.example`; only `image`, `boxes` and `labels` are
looked at) and gives an `Augmented(image, boxes, labels)` at the network's size. All randomness is a
function of the `seed` pair handed in, so a run that is repeated or resumed draws the same numbers.
An `image_size` is (height, width), numbers or an int32 tensor (2,): in multi-scale training it changes.

SSD's chain is Liu et al., SSD, arXiv:1512.02325, sec. 2.2 and 3.6, in the form of the authors'
Caffe release: distort -> expand -> batch-sampler crop -> resize -> mirror (annotated_data_layer.cpp,
sampler.cpp, im_transforms.cpp, data_transformer.cpp, ssd_pascal.py). The paper draws patches of
[0.1, 1] of the image; the release, and this file, of [0.3, 1].

Here expand, crop and resize are one step. They compose into a window in whole source pixels, which
may reach outside the source. The visible part of the source is resized once, straight to the
whole pixels of the network's input that it covers, and only those are distorted; the rest is fill.

Differs from the release:
    * Resizing is always bilinear; the release draws one of five OpenCV filters per image.
    * Colours are distorted after the resize and are not rounded to 8 bits between two steps.
    * Where the window reaches outside, the edge of the source is moved to the nearest whole pixel
      of the network's input, and the boxes with it, instead of being blended with the fill.
"""

from typing import NamedTuple

import tensorflow as tf

MEAN_COLOUR = (123.0, 117.0, 104.0)  # ssd_pascal.py, mean_value [104, 117, 123] in BGR
MIN_IOUS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)  # ssd_pascal.py, batch_sampler; 0: unconstrained
TRIALS = 50  # ssd_pascal.py, max_trials


class Augmented(NamedTuple):
    """An example at the network's size: image float32 (H, W, 3), 0..255; boxes (N, 4); labels (N,)."""

    image: tf.Tensor
    boxes: tf.Tensor
    labels: tf.Tensor


class Window(NamedTuple):
    """What the network sees of the source, in whole source pixels; it may reach outside.

    Attributes:
        origin: int32 (2,), y and x of its upper left corner.
        size: int32 (2,), height and width.
    """

    origin: tf.Tensor
    size: tf.Tensor


class Distortion(NamedTuple):
    """Change of colours. (0, 1, 1, 0, False) changes nothing.

    Attributes:
        brightness: added to every channel, in units of 0..255.
        contrast: factor on every channel.
        saturation: factor on the S of HSV.
        hue: added to the H of HSV, in OpenCV's units of two degrees, -30..30.
        contrast_last: whether contrast comes after hue and not before saturation.
    """

    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor
    contrast_last: tf.Tensor


def ssd(
    example,
    image_size,
    seed,
    *,
    expand_probability=0.5,
    max_expand=4.0,
    min_ious=MIN_IOUS,
    flip_probability=0.5,
    distort_probability=0.5,
    fill=MEAN_COLOUR,
) -> Augmented:
    """SSD's training augmentation.

    Args:
        example: dict with `image` uint8 (H, W, 3), `boxes` (N, 4) and `labels` (N,).
        image_size: (height, width) of the network's input.
        seed: int (2,); the same pair gives the same result.
        expand_probability: how often the image is set into a larger canvas.
        max_expand: longest side of that canvas over the image's own; U(1, max_expand).
        min_ious: one crop sampler an entry, asking for at least that IoU with some object.
            The whole image is always the other choice.
        flip_probability: how often left and right are swapped.
        distort_probability: how often each of brightness, contrast, saturation, hue is changed.
        fill: RGB outside the image.

    An object stays if its centre is in the crop, clipped to it, however small it has become.
    """
    drawn = tf.random.stateless_uniform((15 + len(min_ious) * TRIALS * 4,), seed)
    expands, larger, picked, flips, late = tf.unstack(drawn[:5])
    ratio = tf.where(expands < expand_probability, 1.0 + larger * (max_expand - 1.0), 1.0)
    canvas = expand(tf.shape(example["image"])[:2], ratio, drawn[5:7])
    trials = tf.reshape(drawn[15:], (len(min_ious), TRIALS, 4))
    return cut(
        example,
        image_size,
        crop(example["boxes"], canvas, trials, picked, min_ious),
        mirror=flips < flip_probability,
        distortion=draw_distortion(drawn[7:15], late, distort_probability),
        fill=fill,
    )


def flip(example, image_size, seed, *, probability=0.5) -> Augmented:
    """The whole image, warped to `image_size` (height, width), mirrored with that probability."""
    mirror = tf.random.stateless_uniform((), seed) < probability
    return cut(example, image_size, whole(example["image"]), mirror=mirror)


def warp(example, image_size) -> Augmented:
    """The whole image, warped to `image_size` (height, width): evaluation's only step.

    The image equals `tf.image.resize(image, image_size, "bilinear", antialias=False)`.
    """
    return cut(example, image_size, whole(example["image"]))


def whole(image) -> Window:
    """The window that is the image (H, W, 3) itself."""
    return Window(tf.zeros(2, tf.int32), tf.shape(image)[:2])


def expand(size, ratio, place) -> Window:
    """A canvas `ratio` times the image's sides around the image (`ExpandImage`).

    Args:
        size: int32 (2,), the image's height and width.
        ratio: float, 1 or more.
        place: (2,) in [0, 1): where in the canvas the image lies, y and x.
    """
    real = tf.cast(size, tf.float32)
    canvas = tf.floor(real * ratio)
    offset = tf.floor(place * (canvas - real))
    return Window(-tf.cast(offset, tf.int32), tf.cast(canvas, tf.int32))


def crop(boxes, canvas: Window, trials, pick, min_ious=MIN_IOUS) -> Window:
    """A part of the canvas, by SSD's batch samplers (`GenerateBatchSamples`).

    Each sampler keeps the first of its trials that has at least its IoU with at least one object.
    One of the samplers that kept something, or the whole canvas, is chosen with equal chance. An
    image without objects is therefore never cropped.

    Args:
        boxes: (N, 4), pixels of the source.
        canvas: what to cut from.
        trials: (samplers, trials, 4) numbers in [0, 1): scale, aspect ratio, y, x.
        pick: a number in [0, 1) that chooses.
        min_ious: one a sampler.
    """
    if not min_ious:
        return canvas
    origin, size = tf.cast(canvas.origin, tf.float32), tf.cast(canvas.size, tf.float32)
    objects = (_corners(boxes) - origin) / size  # (N, 2, 2) of the canvas

    scale = 0.3 + 0.7 * trials[..., 0]  # ssd_pascal.py, min_scale, max_scale
    aspect = 0.5 + 1.5 * trials[..., 1]  # ssd_pascal.py, min_aspect_ratio, max_aspect_ratio
    root = tf.sqrt(tf.clip_by_value(aspect, scale**2, 1.0 / scale**2))  # no side beyond 1
    extent = tf.minimum(tf.stack([scale / root, scale * root], axis=-1), 1.0)
    start = trials[..., 2:] * (1.0 - extent)
    tried = tf.stack([start, start + extent], axis=-2)  # (samplers, trials, 2, 2)

    met = _iou(tried, objects) >= tf.constant(min_ious, tf.float32)[:, None, None]
    met = tf.reduce_any(met, axis=-1)  # (samplers, trials)
    first = tf.argmax(met, axis=-1, output_type=tf.int32)  # 0 where none met it, and then not kept
    kept = tf.concat([[True], tf.reduce_any(met, axis=-1)], axis=0)
    candidates = tf.concat(
        [tf.constant([[[0.0, 0.0], [1.0, 1.0]]]), tf.gather(tried, first, batch_dims=1)], axis=0
    )
    rank = tf.cumsum(tf.cast(kept, tf.float32))
    chosen = tf.argmax(rank > tf.floor(pick * rank[-1]), output_type=tf.int32)
    edges = candidates[chosen] * size
    start = tf.cast(tf.floor(edges[0]), tf.int32)  # `CropImage` cuts at whole pixels too
    extent = tf.cast(tf.floor(edges[1] - edges[0]), tf.int32)
    return Window(canvas.origin + start, tf.maximum(extent, 1))


def _corners(boxes):
    """Boxes (N, 4) xyxy to (N, 2, 2): first and last edge, each as y and x like an image's axes."""
    swapped = tf.gather(tf.cast(boxes, tf.float32), [1, 0, 3, 2], axis=-1)
    return tf.reshape(swapped, (-1, 2, 2))


def _iou(windows, objects):
    """IoU of windows (S, T, 2, 2) and objects (N, 2, 2): (S, T, N)."""
    top, left, bottom, right = tf.split(tf.reshape(windows, (*windows.shape[:2], 4)), 4, axis=-1)
    y1, x1, y2, x2 = tf.unstack(tf.reshape(objects, (-1, 4)), axis=-1)
    down = tf.maximum(tf.minimum(bottom, y2) - tf.maximum(top, y1), 0.0)
    across = tf.maximum(tf.minimum(right, x2) - tf.maximum(left, x1), 0.0)
    shared = across * down
    return shared / ((bottom - top) * (right - left) + (y2 - y1) * (x2 - x1) - shared)


def cut(
    example, image_size, window: Window, *, mirror=None, distortion=None, fill=MEAN_COLOUR
) -> Augmented:
    """What the window shows of an example, at the network's size.

    Args:
        example: dict with `image`, `boxes` and `labels`.
        image_size: (height, width) of the network's input.
        window: in whole source pixels.
        mirror: bool scalar, or None for never.
        distortion: a `Distortion` of the source's pixels, or None.
        fill: RGB of what lies outside the source.

    A box stays if its centre is in the window (`MeetEmitConstraint`), and is clipped to it.
    """
    source = example["image"]
    network = tf.convert_to_tensor(image_size, tf.int32)
    place = _Placement.of(window, tf.shape(source)[:2], network)
    (top, left), (bottom, right) = (tf.unstack(edge) for edge in (place.first, place.last))
    # The kernel behind tf.image.resize; several times faster than ops that take fractional windows.
    patch = tf.raw_ops.ResizeBilinear(
        images=source[None, top:bottom, left:right], size=place.size, half_pixel_centers=True
    )[0]
    if distortion is not None:
        patch = distort(patch, distortion)
    image = on_fill(patch, place.offset, network, fill=fill, visible=place.visible)
    image = tf.ensure_shape(image, static_shape(image_size))
    boxes, kept = place.follow(_corners(example["boxes"]), window)
    if mirror is not None:
        image, boxes = tf.cond(
            mirror,
            lambda: (tf.reverse(image, [1]), mirrored(boxes, network[1])),
            lambda: (image, boxes),
        )
    return Augmented(image, boxes, tf.gather(example["labels"], kept))


class _Placement(NamedTuple):
    """Source pixels first..last fill the network's pixels offset..offset + size; (2,) each, y, x."""

    first: tf.Tensor
    last: tf.Tensor
    offset: tf.Tensor
    size: tf.Tensor
    visible: tf.Tensor

    @classmethod
    def of(cls, window, source_size, image_size):
        edges = tf.stack([window.origin, window.origin + window.size])  # (2 edges, 2 axes)
        edges = tf.clip_by_value(edges, 0, source_size)
        scale = tf.cast(image_size, tf.float32) / tf.cast(window.size, tf.float32)
        ends = tf.round(tf.cast(edges - window.origin, tf.float32) * scale)
        # A window beside the source sees none of it; one pixel keeps the shapes legal.
        visible = tf.reduce_all(edges[1] > edges[0])
        first = tf.minimum(edges[0], source_size - 1)
        offset = tf.clip_by_value(tf.cast(ends[0], tf.int32), 0, image_size - 1)
        end = tf.clip_by_value(tf.cast(ends[1], tf.int32), offset + 1, image_size)
        return cls(first, tf.maximum(edges[1], first + 1), offset, end - offset, visible)

    def follow(self, corners, window):
        """Network boxes (n, 4) xyxy of the objects (N, 2, 2) the window shows, and their indices."""
        origin, extent = tf.cast(window.origin, tf.float32), tf.cast(window.size, tf.float32)
        centre = tf.reduce_mean(corners, axis=1) - origin
        offset, size = tf.cast(self.offset, tf.float32), tf.cast(self.size, tf.float32)
        scale = size / tf.cast(self.last - self.first, tf.float32)
        moved = offset + (corners - tf.cast(self.first, tf.float32)) * scale
        moved = tf.clip_by_value(moved, offset, offset + size)
        # An area of 0 does not count (`ProjectBBox`).
        inside = (centre >= 0.0) & (centre <= extent) & (moved[:, 1] > moved[:, 0])  # (N, 2)
        kept = tf.where(tf.reduce_all(inside, axis=-1))[:, 0]
        boxes = tf.reshape(tf.gather(moved, kept), (-1, 4))
        return tf.gather(boxes, [1, 0, 3, 2], axis=-1), kept


def mirrored(boxes, width):
    """Boxes (N, 4) of an image of this width, left and right swapped."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    width = tf.cast(width, tf.float32)
    return tf.stack([width - x2, y1, width - x1, y2], axis=-1)


def static_shape(image_size):
    """The static shape of an image of this (height, width): unknown where that is a tensor."""
    return (None, None, 3) if tf.is_tensor(image_size) else (*image_size, 3)


def on_fill(patch, offset, image_size, *, fill, visible=True):
    """The patch (h, w, 3), set with its upper left corner at `offset` into a plain image (H, W, 3).

    Args:
        patch: float32, inside the image.
        offset: int32 (2,), y and x.
        image_size: int32 (2,), height and width.
        fill: RGB around the patch.
        visible: bool scalar; if false there is nothing but fill.
    """
    size = tf.shape(patch)[:2]

    def padded():
        paddings = tf.stack([offset, image_size - offset - size], axis=-1)
        paddings = tf.pad(paddings, [[0, 1], [0, 0]])  # (3, 2)
        colour = tf.constant(fill, tf.float32)
        return tf.pad(tf.where(visible, patch - colour, 0.0), paddings) + colour

    return tf.cond(tf.reduce_all(size == image_size) & visible, lambda: patch, padded)


def draw_distortion(chance, late, probability=0.5) -> Distortion:
    """A `Distortion` in the ranges of ssd_pascal.py.

    Args:
        chance: (8,) in [0, 1): four that decide whether brightness, contrast, saturation and hue are
            changed, four that say to what.
        late: one that decides whether contrast comes last; `ApplyDistort` throws a fair coin.
        probability: of each change.
    """
    low, high = tf.constant([-32.0, 0.5, 0.5, -18.0]), tf.constant([32.0, 1.5, 1.5, 18.0])
    changed = low + (high - low) * chance[4:]
    drawn = tf.where(chance[:4] < probability, changed, tf.constant([0.0, 1.0, 1.0, 0.0]))
    brightness, contrast, saturation, hue = tf.unstack(drawn)
    return Distortion(brightness, contrast, saturation, hue, late < 0.5)


def distort(image, distortion: Distortion):
    """The image (H, W, 3), 0..255, with changed colours (`ApplyDistort`), clipped to 0..255.

    Saturation is clipped as OpenCV clips its bytes, and a hue that would fall below 0 stays at 0
    (`convertTo` saturates) while one above 180 wraps round (`cvtColor` takes it modulo 180).
    """
    brightness, contrast, saturation, hue, contrast_last = distortion
    coloured = (saturation != 1.0) | (hue != 0.0)
    late = contrast_last & coloured
    early_gain = tf.where(late, 1.0, contrast)
    late_gain = tf.where(late, contrast, 1.0)

    def levels():
        # clip(clip(x + brightness, 0, 255) * gain, 0, 255) with one clip
        scaled = image * early_gain + brightness * early_gain
        return tf.clip_by_value(scaled, 0.0, 255.0 * tf.minimum(early_gain, 1.0))

    image = tf.cond((brightness != 0.0) | (early_gain != 1.0), levels, lambda: image)
    return tf.cond(
        coloured, lambda: _saturation_and_hue(image, saturation, hue, late_gain), lambda: image
    )


def _saturation_and_hue(image, saturation, hue, gain):
    """HSV with S scaled and H moved, back to RGB, times gain, in one pass over three planes.

    With V the largest channel and C = V - the smallest, S = C / V. Scaling S scales C, at most to
    V; each channel is V - C * (how far its own tooth of the colour wheel is from full).
    """
    red, green, blue = tf.unstack(image, axis=-1)  # planes: whole-row arithmetic, no broadcasting
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    new_value = value * gain
    new_chroma = tf.minimum(chroma * (saturation * gain), new_value)

    def same_hue():
        ratio = new_chroma * tf.math.reciprocal_no_nan(chroma)
        base = new_value - value * ratio
        return tuple(tf.minimum(base + plane * ratio, 255.0) for plane in (red, green, blue))

    def moved_hue():
        up, down = tf.maximum(hue, 0.0) / 30.0, tf.minimum(hue, 0.0) / 30.0  # sixths of the wheel
        sixth = tf.math.reciprocal_no_nan(chroma)
        angle = select(
            tf.equal(value, red),
            (green - blue) * sixth + up,
            select(
                tf.equal(value, green),
                (blue - red) * sixth + (up + 2.0),
                (red - green) * sixth + (up + 4.0),
            ),
        )
        angle = select(angle < 0.0, angle + 6.0, angle)  # [0, 6)
        angle = tf.maximum(angle + down, 0.0)
        teeth = (
            tf.abs(angle - 3.0) - 1.0,
            2.0 - tf.abs(angle - 2.0),
            2.0 - tf.abs(angle - 4.0),
        )
        low = new_value - new_chroma
        return tuple(
            tf.minimum(low + new_chroma * tf.clip_by_value(tooth, 0.0, 1.0), 255.0)
            for tooth in teeth
        )

    planes = tf.stack(tf.cond(hue != 0.0, moved_hue, same_hue))  # (3, H, W)
    return tf.transpose(planes, (1, 2, 0))  # five times faster than stacking on the last axis


def select(condition, one, other):
    """`tf.where` for three equal shapes, without its broadcasting, which takes twice the time."""
    return tf.raw_ops.Select(condition=condition, x=one, y=other)
