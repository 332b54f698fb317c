"""A fully connected layer that slides over a small map, as products of matrices."""

import math

import keras
from keras import ops

# Windows of a map: of more a convolution is no slower, and takes less memory.
_MOST = 100

# Numbers of a kernel: copying a smaller one costs little.
_LEAST = 2**21


@keras.saving.register_keras_serializable(package="kerasdet")
class ConnectedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` without stride and padding, faster where its kernel is large and a CPU runs it.

    Arguments, weights and results are `Conv2D`'s. TensorFlow's convolution copies the kernel into
    the processor's layout at every call, all 432 MiB of OverFeat's fc6, for a handful of windows. A
    product of matrices reads it as it lies: one for each row of the kernel, of what lies below that row
    in every window. So it is done with kernels of two million numbers or more, for up to 100 windows
    of a map whose sides are known: on two CPU threads fc6 takes a quarter of the time of 96 windows,
    and two fifths of one, with its gradient two fifths and a sixth.
    """

    def convolution_op(self, inputs, kernel):
        """(B, h, w, C) and (rows, columns, C, K) to (B, h - rows + 1, w - columns + 1, K)."""
        if not self.multiplies(inputs.shape):
            return super().convolution_op(inputs, kernel)
        rows, columns, channels, filters = kernel.shape
        down, across = inputs.shape[1] - rows + 1, inputs.shape[2] - columns + 1
        total = 0
        # Unstacked, not sliced: the gradient puts the rows together once.
        for i, row in enumerate(ops.unstack(kernel, axis=0)):
            below = [inputs[:, i : i + down, j : j + across] for j in range(columns)]
            windows = ops.reshape(ops.concatenate(below, axis=-1), (-1, columns * channels))
            total += ops.matmul(windows, ops.reshape(row, (columns * channels, filters)))
        return ops.reshape(total, (-1, down, across, filters))

    def multiplies(self, shape) -> bool:
        """Whether maps of this shape (B, h, w, C) are multiplied and no kernel copied.

        Args:
            shape: sides may be None.
        """
        plain = (self.strides, self.dilation_rate, self.padding) == ((1, 1), (1, 1), "valid")
        if keras.backend.backend() != "tensorflow" or not plain or None in shape[1:3]:
            return False
        sides = [side - own + 1 for side, own in zip(shape[1:3], self.kernel_size, strict=True)]
        return (
            min(sides) > 0 and math.prod(sides) <= _MOST and math.prod(self.kernel.shape) >= _LEAST
        )
