"""A convolution whose weights are its own at every place of the map."""

import keras
from keras import ops

from kerasdet.errors import InputError


@keras.saving.register_keras_serializable(package="kerasdet")
class LocallyConnected2D(keras.layers.Layer):
    """Convolution with untied weights: each place of the output has a kernel of its own.

    Darknet's `[local]` layer, which stands between the convolutions and the connected layer
    of the released YOLO v1.

        y[b, i, j, f] = bias[i, j, f]
            + sum_uvc kernel[i, j, u, v, c, f] * x[b, i * stride - pad + u, j * stride - pad + v, c]

    Args:
        filters: F, channels out.
        kernel_size: k, side of the kernel.
        stride: step between places, both ways.
        pad: zeros on each of the four sides.
        **kwargs: what every Keras layer takes.

    Call:
        x: float (B, H, W, C); H, W and C must be known when the layer is built.
        returns: float (B, out_h, out_w, F) with out_h = (H + 2 * pad - k) // stride + 1.

    Weights:
        kernel: (out_h, out_w, k, k, C, F). Darknet keeps its floats as (out_h, out_w, F, C,
            k, k): `transpose(0, 1, 4, 5, 3, 2)` brings them here.
        bias: (out_h, out_w, F). Darknet's are (F, out_h, out_w), and come before the weights.

    Raises:
        InputError: if a size is not positive, or the map's is not known or below the kernel's.

    Source: darknet src/local_layer.c; kernels start uniform in +-sqrt(2 / (k * k * C)).
    Differs from the source: darknet starts the first place's kernel alone so, and all
        others at zero.
    """

    def __init__(self, filters, kernel_size, *, stride=1, pad=0, **kwargs):
        super().__init__(**kwargs)
        if min(filters, kernel_size, stride) < 1 or pad < 0:
            raise InputError(
                "LocallyConnected2D wants positive filters, kernel_size and stride and pad not "
                f"below 0, not {filters}, {kernel_size}, {stride} and {pad}."
            )
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.pad = pad

    def build(self, input_shape):
        """Makes a kernel and a bias for every place."""
        _, out_h, out_w, _ = self.compute_output_shape(input_shape)
        side, channels = self.kernel_size, input_shape[-1]
        limit = (2 / (side * side * channels)) ** 0.5
        self.kernel = self.add_weight(
            name="kernel",
            shape=(out_h, out_w, side, side, channels, self.filters),
            initializer=keras.initializers.RandomUniform(-limit, limit),
        )
        self.bias = self.add_weight(
            name="bias", shape=(out_h, out_w, self.filters), initializer="zeros"
        )

    def call(self, x):
        """(B, H, W, C) to (B, out_h, out_w, F)."""
        out_h, out_w, side, _, channels, filters = self.kernel.shape
        x = ops.pad(x, ((0, 0), (self.pad, self.pad), (self.pad, self.pad), (0, 0)))
        span_h, span_w = (out_h - 1) * self.stride + 1, (out_w - 1) * self.stride + 1
        shifted = [  # the map as each of the k * k taps sees it: (B, out_h, out_w, C)
            x[:, u : u + span_h : self.stride, v : v + span_w : self.stride]
            for u in range(side)
            for v in range(side)
        ]
        taps = side * side * channels
        patches = ops.reshape(ops.concatenate(shifted, axis=-1), (-1, out_h * out_w, taps))
        kernel = ops.reshape(self.kernel, (out_h * out_w, taps, filters))
        # One matrix product a place: (places, B, taps) times (places, taps, F).
        y = ops.matmul(ops.transpose(patches, (1, 0, 2)), kernel)
        y = ops.reshape(ops.transpose(y, (1, 0, 2)), (-1, out_h, out_w, filters))
        return y + self.bias

    def compute_output_shape(self, input_shape):
        """(B, out_h, out_w, F)."""
        batch, height, width, channels = input_shape
        if None in (height, width, channels):
            raise InputError(
                "LocallyConnected2D wants a map of known size, since every place has its own "
                f"weights, not {tuple(input_shape)}."
            )
        out_h, out_w = (
            (size + 2 * self.pad - self.kernel_size) // self.stride + 1 for size in (height, width)
        )
        if min(out_h, out_w) < 1:
            raise InputError(
                f"LocallyConnected2D wants a map of at least {self.kernel_size} pixels with its "
                f"padding of {self.pad}, not {height}x{width}."
            )
        return batch, out_h, out_w, self.filters

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "pad": self.pad,
        }
