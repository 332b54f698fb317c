"""Examples in the top left corner of the network's input, as Fast R-CNN sees them, and mirrored.

Same manner as `kerasdet.data.augment`: example in, `Augmented` at the network's size out.

Source: Fast R-CNN, lib/utils/blob.py (prep_im_for_blob, im_list_to_blob) and lib/datasets/imdb.py
(append_flipped_images). The release resizes a photo whose mean is subtracted, and fills with zeros;
here the mean is what it is filled with.
"""

import tensorflow as tf

from kerasdet.data.augment import Augmented, mirrored, on_fill, static_shape
from kerasdet.images import placement_in_graph

SHORT_SHARE = 0.6
"""Short side of photos to the side of their canvas: 600 and 1000 pixels in one size, 1200 and 2000
in the largest of several (the paper's sec. 5.1 and 5.2)."""


def corner(example, image_size, *, short_share=1.0, fill=(0.0, 0.0, 0.0), mirror=None) -> Augmented:
    """The whole image, its aspect kept, in the top left corner of the network's input.

    Equals `kerasdet.images.corner`.

    Args:
        example: dict with `image` uint8 (H, W, 3), `boxes` (N, 4) and `labels` (N,).
        image_size: (height, width) of the network's input, numbers or an int32 tensor (2,).
        short_share: the most that the image's shorter side becomes, of the input's shorter side, as
            `SHORT_SHARE`.
        fill: around the image, a number or RGB.
        mirror: bool scalar, whether left and right are swapped; None for never.
    """
    network = tf.convert_to_tensor(image_size, tf.int32)
    source = tf.unstack(tf.shape(example["image"])[:2])
    shorter = tf.cast(tf.reduce_min(network), tf.float64) * short_share
    short_side = tf.maximum(tf.cast(tf.round(shorter), tf.int32), 1)
    place = placement_in_graph(source, tf.unstack(network), "corner", short_side=short_side)
    patch = tf.raw_ops.ResizeBilinear(
        images=example["image"][None],
        size=tf.stack([place.height, place.width]),
        half_pixel_centers=True,
    )[0]
    scale = tf.stack([tf.cast(side, tf.float32) for side in place.scale])
    boxes = tf.cast(example["boxes"], tf.float32) * scale
    if mirror is not None:
        patch, boxes = tf.cond(
            mirror,
            lambda: (tf.reverse(patch, [1]), mirrored(boxes, place.width)),
            lambda: (patch, boxes),
        )
    image = on_fill(patch, tf.zeros(2, tf.int32), network, fill=fill)
    return Augmented(tf.ensure_shape(image, static_shape(image_size)), boxes, example["labels"])


def flip(example, image_size, seed, *, probability=0.5, **settings) -> Augmented:
    """`corner`, mirrored with that probability. The release shows every photo both ways instead."""
    mirror = tf.random.stateless_uniform((), seed) < probability
    return corner(example, image_size, mirror=mirror, **settings)
