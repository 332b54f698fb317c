"""Division by the strength of neighbouring channels, as AlexNet and its like do it."""

import keras
import numpy as np
from keras import ops

from kerasdet.errors import InputError


@keras.saving.register_keras_serializable(package="kerasdet")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides every number by what its pixel holds in the channels around it.

        y[c] = x[c] / (k + alpha / n * sum of x[i]**2 for i from c - (n-1)/2 to c + (n-1)/2)**beta

    Channels past the first and last count as 0. `alpha` is divided by n as Caffe does it, and not
    as the formula of the paper has it.

    Args:
        size: n, channels that are summed, odd.
        alpha: weight of the mean of squares.
        beta: the exponent.
        k: added to it.
        **kwargs: what every Keras layer takes.

    Call:
        x: float (B, H, W, C); C must be known when the layer is built.
        returns: the same shape and dtype; computed in float32, since squares overflow float16.

    Raises:
        InputError: if size is even or another number is not positive.

    Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks,
        NIPS 2012, sec. 3.3; Caffe's lrn_layer.cpp, across channels, and its defaults.
    """

    def __init__(self, size=5, *, alpha=1.0, beta=0.75, k=1.0, **kwargs):
        super().__init__(**kwargs)
        if size < 1 or size % 2 == 0:
            raise InputError(f"LocalResponseNormalization wants an odd size, not {size}.")
        if alpha <= 0 or beta <= 0 or k <= 0:
            raise InputError(
                "LocalResponseNormalization wants a positive alpha, beta and k, "
                f"not {alpha}, {beta} and {k}."
            )
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def call(self, x):
        """Normalises (B, H, W, C)."""
        x32 = ops.cast(x, "float32")
        channel = np.arange(x.shape[-1])
        near = np.abs(channel[:, None] - channel) <= self.size // 2
        # A product with a band of weights, and not a sum of shifted maps: as fast, and its gradient
        # is several times faster.
        band = (near * (self.alpha / self.size)).astype("float32")
        strength = self.k + ops.matmul(ops.square(x32), band)
        if self.beta == 0.75:  # two roots for a power: 4 times faster
            scale = ops.rsqrt(strength) * ops.sqrt(ops.rsqrt(strength))
        else:
            scale = ops.power(strength, -self.beta)
        return ops.cast(x32 * scale, x.dtype)

    def compute_output_shape(self, input_shape):
        """Same as the input's."""
        return input_shape

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "k": self.k,
        }
