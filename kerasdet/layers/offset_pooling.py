"""Max pooling at every offset, and its interleaving: how OverFeat halves or thirds its stride.

The last pooling is what makes a network's stride coarse. Run at each of the p x p offsets, with
the classifier applied to every result, it gives p x p coarse maps of outputs; interleaved they
are one fine map, an output for every window the map before the pooling has room for.

Sermanet et al., OverFeat, arXiv:1312.6229, sec. 3.3 and figure 3.
"""

import keras
from keras import ops

from kerasdet.errors import InputError


@keras.saving.register_keras_serializable(package="kerasdet")
class OffsetMaxPooling(keras.layers.Layer):
    """Non-overlapping max pooling at all offsets (dy, dx), or at the first alone.

    Args:
        pool_size: p, side and step of the windows.
        fine: all p * p offsets; False: the offset (0, 0) alone, plain max pooling. May be set.
        **kwargs: what every Keras layer takes.

    Call:
        maps: (B, H, W, C), of sides from p on, which need not be known.
        returns: (B * p * p, h, w, C), same dtype, h = ceil((H - p + 1) / p), the offsets of an
            image one after the other, dx fastest; cells with no whole window inside the map are
            of zeros as far as they jut out, and `Interleave` cuts them off. Not fine:
            (B, floor(H / p), floor(W / p), C).

    Raises:
        InputError: for a pool_size that is no positive whole number, or a map smaller than it.

    Source: arXiv:1312.6229, sec. 3.3, steps (a) and (b).
    """

    def __init__(self, pool_size, *, fine=True, **kwargs):
        super().__init__(**kwargs)
        self.pool_size = _checked("OffsetMaxPooling", pool_size)
        self.fine = fine

    def call(self, maps):
        """Pools (B, H, W, C)."""
        p = self.pool_size
        rows, columns = self.compute_output_shape(maps.shape)[1:3]
        if not self.fine:
            return ops.max_pool(maps, p, strides=p, padding="valid")
        _, height, width, channels = ops.shape(maps)
        rows = _cells(height, p) if rows is None else rows
        columns = _cells(width, p) if columns is None else columns
        spare = (0, rows * p + p - 1 - height), (0, columns * p + p - 1 - width)
        maps = ops.pad(maps, ((0, 0), *spare, (0, 0)))
        maps = ops.max_pool(maps, p, strides=1, padding="valid")  # at every pixel
        maps = ops.reshape(maps, (-1, rows, p, columns, p, channels))
        maps = ops.transpose(maps, (0, 2, 4, 1, 3, 5))  # image, dy, dx, row, column
        return ops.reshape(maps, (-1, rows, columns, channels))

    def compute_output_shape(self, input_shape):
        """(B * p * p, h, w, C); None where a side is not known."""
        batch, height, width, channels = input_shape
        p = self.pool_size
        if any(side is not None and side < p for side in (height, width)):
            raise InputError(
                f"OffsetMaxPooling wants maps of {p}x{p} cells or more, not {height}x{width}."
            )
        if not self.fine:
            sides = [side and side // p for side in (height, width)]
            return (batch, *sides, channels)
        sides = [side and _cells(side, p) for side in (height, width)]
        return (batch and batch * p * p, *sides, channels)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "pool_size": self.pool_size, "fine": self.fine}


@keras.saving.register_keras_serializable(package="kerasdet")
class Interleave(keras.layers.Layer):
    """Puts what was computed of each offset back in place: one fine map instead of p * p coarse.

    Args:
        pool_size: p, of the `OffsetMaxPooling` before.
        fine: as it had. May be set.
        **kwargs: what every Keras layer takes.

    Call:
        outputs: (B * p * p, h', w', K): `OffsetMaxPooling`'s result after valid convolutions of
            stride 1 that took h - h' rows and w - w' columns away.
        maps: (B, H, W, C), what `OffsetMaxPooling` was called with; only its sides are read.
        returns: (B, H', W', K), H' = H - p + 1 - (h - h') * p: row i * p + dy is row i at offset dy.
            Not fine: `outputs`.

    Source: arXiv:1312.6229, sec. 3.3, step (f), and figure 3 (d).
    """

    def __init__(self, pool_size, *, fine=True, **kwargs):
        super().__init__(**kwargs)
        self.pool_size = _checked("Interleave", pool_size)
        self.fine = fine

    def call(self, outputs, maps):
        """Interleaves (B * p * p, h', w', K)."""
        if not self.fine:
            return outputs
        p = self.pool_size
        _, height, width, _ = ops.shape(maps)
        _, rows, columns, channels = ops.shape(outputs)
        outputs = ops.reshape(outputs, (-1, p, p, rows, columns, channels))
        outputs = ops.transpose(outputs, (0, 3, 1, 4, 2, 5))  # image, row, dy, column, dx
        outputs = ops.reshape(outputs, (-1, rows * p, columns * p, channels))
        return outputs[:, : _kept(height, rows, p), : _kept(width, columns, p)]

    def compute_output_shape(self, outputs_shape, maps_shape):
        """(B, H', W', K); None where a side is not known."""
        if not self.fine:
            return outputs_shape
        p = self.pool_size
        sides = [
            None if None in (side, cells) else _kept(side, cells, p)
            for side, cells in zip(maps_shape[1:3], outputs_shape[1:3], strict=True)
        ]
        return (maps_shape[0], *sides, outputs_shape[-1])

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "pool_size": self.pool_size, "fine": self.fine}


def _cells(side, p):
    """How many cells each offset has: as many as the first, which has the most."""
    return -(-(side - p + 1) // p)


def _kept(side, cells, p):
    """Fine outputs of a side whose windows lie in the map; `cells` are those of each offset."""
    return side - p + 1 - (_cells(side, p) - cells) * p


def _checked(layer, pool_size):
    if not isinstance(pool_size, int) or pool_size < 1:
        raise InputError(f"{layer} wants a pool_size from 1 on, not {pool_size!r}.")
    return pool_size
