"""Max pooling whose output is rounded up in size, as Caffe's is."""

import keras
from keras import ops

from kerasdet.errors import InputError


@keras.saving.register_keras_serializable(package="kerasdet")
class CaffeMaxPooling2D(keras.layers.Layer):
    """Maxima of windows that may hang over the right and lower edge.

    A side s gives ceil((s + 2 * pad - size) / stride) + 1 windows, the first one `pad` pixels
    outside; what is outside is never a maximum. Keras' own pooling rounds down ("valid") or chooses
    its padding by the side ("same").

    Args:
        pool_size: side of the window in pixels.
        stride: pixels from one window to the next.
        pad: pixels that the first window stands outside.
        **kwargs: what every Keras layer takes.

    Call:
        x: (B, H, W, C); H and W need not be known.
        returns: (B, H', W', C), same dtype.

    Raises:
        InputError: unless pool_size >= stride + pad; with a smaller window Caffe leaves out a last
            window that would lie outside altogether.

    Source: Caffe's pooling_layer.cpp, Reshape.
    """

    def __init__(self, pool_size, stride, pad=0, **kwargs):
        super().__init__(**kwargs)
        if not (stride >= 1 and pad >= 0 and pool_size >= stride + pad):
            raise InputError(
                "CaffeMaxPooling2D wants a pool_size of at least stride + pad, "
                f"not {pool_size} for stride {stride} and pad {pad}."
            )
        self.pool_size = pool_size
        self.stride = stride
        self.pad = pad

    def call(self, x):
        """Pools (B, H, W, C)."""
        # stride - 1 more pixels, rounded down, are the same number rounded up.
        sides = (self.pad, self.pad + self.stride - 1)
        x = ops.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=-float("inf"))
        return ops.max_pool(x, self.pool_size, self.stride, "valid", data_format="channels_last")

    def compute_output_shape(self, input_shape):
        """(B, H', W', C)."""
        batch, *sides, channels = input_shape
        return (batch, *(None if side is None else self._windows(side) for side in sides), channels)

    def _windows(self, side):
        return -(-(side + 2 * self.pad - self.pool_size) // self.stride) + 1

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "stride": self.stride,
            "pad": self.pad,
        }
