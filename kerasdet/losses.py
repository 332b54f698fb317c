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


class MultiTaskLoss(NamedTuple):
    """Fast R-CNN's two terms, scalars, each divided by the number of regions."""

    classification: Any
    localization: Any


def multi_task(logits, offsets, target_classes, target_offsets) -> MultiTaskLoss:
    """Softmax over all regions, and smooth L1 on the offsets of those that show an object.

    Args:
        logits: (B, R, K+1), background first.
        offsets: (B, R, K, 4) predicted for each class, of normalised targets.
        target_classes: (B, R) int: 1..K, 0 for background, -1 for a row that is none.
        target_offsets: (B, R, 4) of the true class; read only where there is one.

    Returns:
        MultiTaskLoss: means over the regions of the batch, background among them in both; 0
        without regions.

    Source: Girshick, Fast R-CNN, arXiv:1504.08083, eq. 1-3 with lambda 1. Divided as in the
        release: SmoothL1Loss by the regions of the batch, background among them (smooth_L1_loss_layer.cpp).
    """
    logits, offsets = ops.cast(logits, "float32"), ops.cast(offsets, "float32")
    there, positive = target_classes >= 0, target_classes > 0
    chosen = ops.expand_dims(ops.maximum(target_classes, 0), -1)  # (B, R, 1)
    cross_entropy = ops.logsumexp(logits, axis=-1) - ops.take_along_axis(logits, chosen, -1)[..., 0]
    own = ops.expand_dims(ops.maximum(chosen - 1, 0), -1)  # (B, R, 1, 1)
    predicted = ops.take_along_axis(offsets, own, axis=2)[:, :, 0]  # (B, R, 4)
    # Both branches stay finite: a padded target must not reach the gradient as inf * 0.
    error = ops.where(ops.expand_dims(positive, -1), predicted - target_offsets, 0.0)
    count = ops.maximum(ops.sum(ops.cast(there, "float32")), 1.0)
    return MultiTaskLoss(
        classification=ops.sum(ops.where(there, cross_entropy, 0.0)) / count,
        localization=ops.sum(smooth_l1(error)) / count,
    )
