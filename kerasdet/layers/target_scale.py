"""Normalised regression outputs back to raw ones, with statistics that travel with the weights."""

import keras
import numpy as np
from keras import ops

from kerasdet.errors import InputError


@keras.saving.register_keras_serializable(package="kerasdet")
class TargetScale(keras.layers.Layer):
    """Multiplies each class's box offsets by its standard deviations, and adds its means.

    Fast R-CNN learns targets of mean 0 and deviation 1 in each class. With this layer behind the
    one that learns, the network gives raw offsets at any time.

        y[..., k, i] = x[..., k, i] * deviations[k, i] + means[k, i]

    Args:
        means: 4 numbers for all classes, or (K, 4).
        deviations: likewise, above 0.
        **kwargs: what every Keras layer takes.

    Call:
        x: float (..., K, 4), K known.
        returns: the same shape, float32.

    Weights:
        means: (K, 4), not trained.
        deviations: (K, 4), not trained.

    Raises:
        InputError: if the statistics are not of these shapes, or a deviation is not above 0.

    Source: Girshick, Fast R-CNN, lib/roi_data_layer/roidb.py, add_bbox_regression_targets. The
        release multiplies them into the weights when it writes a snapshot (lib/fast_rcnn/train.py).
    """

    def __init__(self, means, deviations, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.initial_means = _statistics("means", means)
        self.initial_deviations = _statistics("deviations", deviations)
        if not (self.initial_deviations > 0).all():
            raise InputError(f"deviations wants numbers above 0, not {deviations}.")

    def build(self, shape):
        """Makes the statistics for as many classes as the input has."""
        for name, initial in (
            ("means", self.initial_means),
            ("deviations", self.initial_deviations),
        ):
            values = _of_each_class(initial, shape[-2], name)
            variable = self.add_weight(
                name=name, shape=values.shape, initializer=_Given(values), trainable=False
            )
            setattr(self, name, variable)

    def call(self, x):
        """Raw offsets."""
        x = ops.cast(x, "float32")
        return x * self.deviations + self.means

    def normalized(self, offsets):
        """The inverse: raw offsets (..., K, 4) to what the layer before is to give."""
        return (offsets - self.means) / self.deviations

    def renormalize(self, head, means, deviations) -> None:
        """Takes other statistics, and changes the layer before so that what comes out is as it was.

        Args:
            head: the Dense layer that gives the K * 4 normalised offsets.
            means: 4 numbers for all classes, or (K, 4).
            deviations: likewise, above 0.

        Raises:
            InputError: for other shapes, or numbers that are not finite or not above 0.
        """
        old_means, old_deviations = (ops.convert_to_numpy(v) for v in (self.means, self.deviations))
        new_means = _of_each_class(_statistics("means", means), len(old_means), "means")
        new_deviations = _of_each_class(
            _statistics("deviations", deviations), len(old_means), "deviations"
        )
        if not (new_deviations > 0).all():
            raise InputError(f"deviations wants numbers above 0, not {deviations}.")
        kernel, bias = head.get_weights()
        ratio = (old_deviations / new_deviations).ravel()
        shift = ((old_means - new_means) / new_deviations).ravel()
        head.set_weights([kernel * ratio, bias * ratio + shift])
        self.means.assign(new_means)
        self.deviations.assign(new_deviations)

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "means": self.initial_means.tolist(),
            "deviations": self.initial_deviations.tolist(),
        }


def _statistics(name, values):
    array = np.asarray(values, "float32")
    if array.ndim not in (1, 2) or array.shape[-1] != 4 or not np.isfinite(array).all():
        raise InputError(f"{name} wants 4 numbers, or 4 for each class, not {values}.")
    return array


def _of_each_class(values, count, name):
    """(K, 4) from that or from 4 numbers for all classes."""
    if values.ndim == 2 and len(values) != count:
        raise InputError(
            f"{name} wants 4 numbers, or 4 for each of {count} classes, not for {len(values)}."
        )
    return np.broadcast_to(values, (count, 4))


class _Given(keras.initializers.Initializer):
    """These numbers."""

    def __init__(self, values):
        self.values = values

    def __call__(self, shape, dtype=None):
        return ops.convert_to_tensor(np.ascontiguousarray(self.values), dtype)
