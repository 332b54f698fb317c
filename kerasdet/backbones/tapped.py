"""Any Keras model as a trunk: one of its maps, and how many pixels a cell of it is."""

import math
from typing import Any, NamedTuple

import keras

from kerasdet.errors import InputError

# Pixels; divided by all strides that may come up.
_SIDE = 64 * 9 * 5 * 7


class Tapped(NamedTuple):
    """A map (B, H, W, C), and pixels of the image for one of its cells."""

    map: Any
    stride: float


def input_sides(backbone) -> tuple:
    """(height, width) that a model was built for, None where it takes any.

    Raises:
        InputError: if it is no functional Keras model of images.
    """
    shape = getattr(backbone, "input_shape", None)
    if not isinstance(backbone, keras.Model) or not isinstance(shape, tuple) or len(shape) != 4:
        raise InputError(f"backbone wants a functional Keras model of images, not {backbone!r}.")
    return tuple(shape[1:3])


def tapped(backbone, feature_layer, x) -> Tapped:
    """One layer's output of a model that is called on `x`.

    The stride of a model built for one size is taken to be a power of two.

    Args:
        backbone: a functional Keras model of images.
        feature_layer: name of the layer.
        x: (B, H, W, 3).

    Raises:
        InputError: if there is no such layer, or what it gives is no map of one stride.
    """
    known = [layer.name for layer in backbone.layers]
    if feature_layer not in known:
        raise InputError(
            f"feature_layer wants the name of a layer of {backbone.name}, not {feature_layer!r}."
        )
    output = backbone.get_layer(feature_layer).output
    if len(output.shape) != 4:
        raise InputError(f"{feature_layer} gives {output.shape}, not a map (B, H, W, C).")
    model = keras.Model(backbone.inputs, output, name="backbone")
    sides = input_sides(backbone)
    if None in sides:
        # Of two sizes: what convolutions without padding leave out at the borders does not count.
        small, large = (model.compute_output_shape((1, n * _SIDE, n * _SIDE, 3)) for n in (1, 2))
        down, across = (_SIDE / max(b - a, 1) for a, b in zip(small[1:3], large[1:3], strict=True))
    else:
        ratios = (side / cells for side, cells in zip(sides, output.shape[1:3], strict=True))
        down, across = (2.0 ** round(math.log2(ratio)) for ratio in ratios)
    if down != across:
        raise InputError(f"{feature_layer} has {down:g} pixels a cell down and {across:g} across.")
    return Tapped(model(x), down)
