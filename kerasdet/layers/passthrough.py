"""A fine map folded to the size of a coarse one, pixels become channels: YOLOv2's passthrough."""

import keras
from keras import ops

from kerasdet.errors import InputError

ORDERS = ("darknet", "space_to_depth")


@keras.saving.register_keras_serializable(package="kerasdet")
class Passthrough(keras.layers.Layer):
    """Folds every `block_size` x `block_size` pixels of a map into channels.

    "space_to_depth" does what the paper says: adjacent pixels stack into channels,

        y[b, i, j, (dy * s + dx) * C + c] = x[b, i * s + dy, j * s + dx, c].

    "darknet" is what its released networks were trained with. Its `reorg` reads the map's
    memory (channel, row, column) as if it were C / s**2 channels of a map s times higher and
    wider, folds that, and reads the C * H * W numbers it gets as C * s**2 channels of H / s
    by W / s. Pixels that come to stand in one place are s rows apart or more, and lie in
    different channels. Published weights need this order.

    Args:
        block_size: s, side of the block.
        order: "darknet" or "space_to_depth".
        **kwargs: what every Keras layer takes.

    Call:
        x: (B, H, W, C); H and W multiples of s, which need not be known, and for "darknet"
            C a multiple of s**2, known.
        returns: (B, H / s, W / s, C * s**2), same dtype.

    Raises:
        InputError: for another order or block size, or where the sides or channels do not divide.

    Source: Redmon and Farhadi, arXiv:1612.08242, sec. 2 (fine-grained features); darknet
        src/reorg_layer.c and src/blas.c, reorg_cpu with forward 0.
    """

    def __init__(self, block_size=2, order="darknet", **kwargs):
        super().__init__(**kwargs)
        if not isinstance(block_size, int) or block_size < 1:
            raise InputError(f"Passthrough wants a block_size from 1 on, not {block_size!r}.")
        if order not in ORDERS:
            raise InputError(f"Passthrough wants an order of {', '.join(ORDERS)}, not {order!r}.")
        self.block_size = block_size
        self.order = order

    def call(self, x):
        """Folds (B, H, W, C)."""
        self.compute_output_shape(x.shape)
        _, height, width, channels = ops.shape(x)
        s = self.block_size
        if self.order == "space_to_depth":
            x = ops.reshape(x, (-1, height // s, s, width // s, s, channels))
            x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # row, column, dy, dx, c
            return ops.reshape(x, (-1, height // s, width // s, channels * s * s))
        x = ops.transpose(x, (0, 3, 1, 2))  # as darknet's memory: channel, row, column
        x = ops.reshape(x, (-1, channels // (s * s), height, s, width, s))  # s times higher, wider
        x = ops.transpose(x, (0, 3, 5, 1, 2, 4))  # dy, dx, channel, row, column
        x = ops.reshape(x, (-1, channels * s * s, height // s, width // s))
        return ops.transpose(x, (0, 2, 3, 1))

    def compute_output_shape(self, input_shape):
        """(B, H / s, W / s, C * s**2)."""
        batch, height, width, channels = input_shape
        s = self.block_size
        if any(side is not None and side % s for side in (height, width)):
            raise InputError(
                f"Passthrough wants sides that are multiples of {s}, not a map of {height}x{width}."
            )
        if channels is None or (self.order == "darknet" and channels % (s * s)):
            raise InputError(
                f"Passthrough wants channels in multiples of {s * s}, not {channels}, for darknet's order."
            )
        height, width = (side if side is None else side // s for side in (height, width))
        return (batch, height, width, channels * s * s)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "block_size": self.block_size, "order": self.order}
