"""The losses of the detectors, as sums over named parts; runs on any Keras back end.

All arithmetic is float32 whatever the model's dtype policy.
"""

from typing import Any, NamedTuple

from keras import ops

from kerasdet.matching import hard_negatives


def smooth_l1(error):
    """0.5 x**2 near zero, |x| - 0.5 from 1 on, elementwise.

    Source: Girshick, Fast R-CNN, arXiv:1504.08083, eq. 3 (sigma 1).
    """
    size = ops.abs(error)
    return ops.where(size < 1, 0.5 * ops.square(error), size - 0.5)


class MultiboxLoss(NamedTuple):
    """SSD's two terms, scalars, already divided by the number of matched boxes."""

    localization: Any
    confidence: Any


def multibox(offsets, logits, target_offsets, target_classes, *, negative_ratio=3) -> MultiboxLoss:
    """SSD's loss: smooth L1 on matched boxes, softmax on them and on their hardest negatives.

    Args:
        offsets: (B, A, 4) predicted.
        logits: (B, A, K+1), background first.
        target_offsets: (B, A, 4); read only where a box is matched.
        target_classes: (B, A) int: 1..K for a matched box, 0 for background.
        negative_ratio: hardest negatives kept for each matched box, image by image.

    Returns:
        MultiboxLoss, both summed over the batch and divided by its matched boxes N;
        both are 0 when N is 0.

    Source: SSD sec. 2.2, eq. 1-3 with alpha 1; multibox_loss_layer.cpp of the release (VALID
        normalisation over the batch).
    """
    offsets, logits = ops.cast(offsets, "float32"), ops.cast(logits, "float32")
    positive = target_classes > 0
    log_total = ops.logsumexp(logits, axis=-1)  # (B, A)
    as_background = log_total - logits[..., 0]
    negative = hard_negatives(
        ops.stop_gradient(as_background), positive, target_classes == 0, ratio=negative_ratio
    )
    chosen = ops.take_along_axis(logits, ops.expand_dims(target_classes, -1), axis=-1)[..., 0]
    cross_entropy = ops.where(positive | negative, log_total - chosen, 0.0)
    # A NaN shows even in a box that nothing chose: its gradient would spoil the weights unseen.
    unread = 0.0 * ops.sum(ops.stop_gradient(as_background))
    # Both branches stay finite: a padded target must not reach the gradient as inf * 0.
    error = ops.where(ops.expand_dims(positive, -1), offsets - target_offsets, 0.0)
    matched = ops.maximum(ops.sum(ops.cast(positive, "float32")), 1.0)
    return MultiboxLoss(
        localization=ops.sum(smooth_l1(error)) / matched,
        confidence=ops.sum(cross_entropy) / matched + unread,
    )
