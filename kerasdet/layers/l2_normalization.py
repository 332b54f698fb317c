"""Unit length per pixel with a learned gain, as SSD puts it after conv4_3."""

import keras
from keras import ops

from kerasdet.errors import InputError


@keras.saving.register_keras_serializable(package="kerasdet")
class L2Normalization(keras.layers.Layer):
    """Scales every pixel's channel vector to unit length, then by a learned gain.

    SSD puts this after VGG's conv4_3, whose activations are several times larger than
    those of the deeper maps beside it.

        y[b, h, w, c] = gain[c] * x[b, h, w, c] / sqrt(sum_k x[b, h, w, k]**2 + epsilon)

    Args:
        initial_gain: starting value of every gain, unitless.
        epsilon: added to the squared length, so that an all-zero pixel maps to zero
            instead of NaN.
        **kwargs: what every Keras layer takes.

    Call:
        x: float (B, H, W, C); C must be known when the layer is built.
        returns: float (B, H, W, C), same dtype; computed in float32, since 512 squared
            channels overflow float16.

    Weights:
        gain: (C,). Caffe blob `conv4_3_norm[0]`; torchvision `backbone.scale_weight`.

    Raises:
        InputError: if `initial_gain` or `epsilon` is not positive.

    Source: Liu et al., ParseNet, arXiv:1506.04579 (the layer); Liu et al., SSD,
        arXiv:1512.02325, sec. 3.1 (the value 20); normalize_layer.cpp of the release
        (epsilon 1e-10 inside the root).
    """

    def __init__(self, initial_gain=20.0, *, epsilon=1e-10, **kwargs):
        super().__init__(**kwargs)
        if initial_gain <= 0 or epsilon <= 0:
            raise InputError(
                "L2Normalization wants a positive initial_gain and epsilon, "
                f"not {initial_gain} and {epsilon}."
            )
        self.initial_gain = initial_gain
        self.epsilon = epsilon

    def build(self, input_shape):
        """Makes one gain a channel."""
        self.gain = self.add_weight(
            name="gain",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_gain),
        )

    def call(self, x):
        """Normalises (B, H, W, C)."""
        x32 = ops.cast(x, "float32")
        length2 = ops.sum(ops.square(x32), axis=-1, keepdims=True)  # (B, H, W, 1)
        unit = x32 * ops.rsqrt(length2 + self.epsilon)
        return ops.cast(unit * ops.cast(self.gain, "float32"), x.dtype)

    def compute_output_shape(self, input_shape):
        """Same as the input's."""
        return input_shape

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "initial_gain": self.initial_gain,
            "epsilon": self.epsilon,
        }
