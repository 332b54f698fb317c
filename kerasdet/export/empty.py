"""Batches of no images, which a server may be sent."""

import tensorflow as tf


def for_any_number(detect):
    """A graph function of batches that answers one of no images too, with outputs of no rows.

    On a batch of none TensorFlow's convolutions fail where they are fused with what follows
    (2.21, on CPUs): a blank image is looked at, and its row is cut off.

    Args:
        detect: from tensors whose first axis is the batch to others, in any structure.
    """

    def of_any_number(*batches):
        count = tf.shape(batches[0])[0]
        blank = tf.cast(count == 0, tf.int32)
        filled = [
            tf.ensure_shape(
                tf.pad(batch, [[0, blank], *[[0, 0]] * (batch.shape.rank - 1)]), batch.shape
            )
            for batch in batches
        ]
        return tf.nest.map_structure(lambda rows: rows[:count], detect(*filled))

    return of_any_number
