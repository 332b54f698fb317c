"""Box arithmetic: areas, overlaps, clipping and the centre-size code.

Boxes are `x1, y1, x2, y2` in pixels with continuous edges: a whole 300x300 image is
0, 0, 300, 300, and nothing adds 1 to a width. Everything runs on any Keras back end.
"""

from keras import ops

# SSD's code divides centre offsets by 0.1 and log sizes by 0.2 (caffe, ssd_pascal.py, prior_variance).
SSD_VARIANCES = (0.1, 0.1, 0.2, 0.2)

# exp() of a size offset is cut here, as torchvision's BoxCoder does: no real object is 62 times its box.
MAX_LOG_SIZE = 4.135166556742356  # ln(1000 / 16)


def area(boxes):
    """Area of every box; 0 for a degenerate or inverted one.

    Args:
        boxes: (..., 4) xyxy.

    Returns:
        (...,) in squared units of `boxes`.
    """
    width = ops.maximum(boxes[..., 2] - boxes[..., 0], 0)
    height = ops.maximum(boxes[..., 3] - boxes[..., 1], 0)
    return width * height


def iou(boxes, others):
    """Overlap over union of every box with every other box.

    Args:
        boxes: (..., M, 4) xyxy.
        others: (..., N, 4) xyxy in the same units; leading dimensions broadcast.

    Returns:
        (..., M, N) in 0..1. A box without area overlaps nothing (0, never NaN).
    """
    boxes, others = ops.expand_dims(boxes, -2), ops.expand_dims(others, -3)
    width = ops.minimum(boxes[..., 2], others[..., 2]) - ops.maximum(boxes[..., 0], others[..., 0])
    height = ops.minimum(boxes[..., 3], others[..., 3]) - ops.maximum(boxes[..., 1], others[..., 1])
    intersection = ops.maximum(width, 0) * ops.maximum(height, 0)  # (..., M, N)
    union = area(boxes) + area(others) - intersection
    return intersection / ops.maximum(union, 1e-7)


def clip(boxes, height, width):
    """Moves every edge that lies outside the image onto the image's edge.

    Args:
        boxes: (..., 4) xyxy pixels.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        (..., 4).
    """
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    x1, x2 = ops.clip(x1, 0, width), ops.clip(x2, 0, width)
    y1, y2 = ops.clip(y1, 0, height), ops.clip(y2, 0, height)
    return ops.stack([x1, y1, x2, y2], axis=-1)


def _centre_size(boxes):
    """Splits (..., 4) xyxy into centres and sizes, both (..., 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def encode(boxes, anchors, *, variances=SSD_VARIANCES):
    """Writes boxes as offsets from anchors, the centre-size code of R-CNN and SSD.

        tx = (cx - cx_anchor) / w_anchor / variance[0]     tw = ln(w / w_anchor) / variance[2]

    Args:
        boxes: (..., 4) xyxy, one for each anchor. Sizes are floored at a millionth of
            the anchor, so that a padded row gives a finite code that nobody reads.
        anchors: (..., 4) xyxy in the same units, of positive size.
        variances: divisors of the four offsets.

    Returns:
        (..., 4): tx, ty, tw, th.

    Source: Liu et al., SSD, arXiv:1512.02325, eq. 2; bbox_util.cpp of the release (CENTER_SIZE).
    """
    centre, size = _centre_size(boxes)
    anchor_centre, anchor_size = _centre_size(anchors)
    shift = (centre - anchor_centre) / anchor_size
    scale = ops.log(ops.maximum(size / anchor_size, 1e-6))
    return ops.concatenate([shift, scale], axis=-1) / ops.convert_to_tensor(variances, boxes.dtype)


def decode(offsets, anchors, *, variances=SSD_VARIANCES):
    """The inverse of `encode`; log sizes are cut at ln(1000/16) so that no offset gives infinity.

    Args:
        offsets: (..., 4) tx, ty, tw, th.
        anchors: (..., 4) xyxy, broadcast against `offsets`.
        variances: what `encode` divided by.

    Returns:
        (..., 4) xyxy in the anchors' units, not clipped to any image.
    """
    offsets = offsets * ops.convert_to_tensor(variances, offsets.dtype)
    anchor_centre, anchor_size = _centre_size(anchors)
    centre = anchor_centre + offsets[..., :2] * anchor_size
    half = anchor_size * ops.exp(ops.minimum(offsets[..., 2:], MAX_LOG_SIZE)) / 2
    return ops.concatenate([centre - half, centre + half], axis=-1)
