"""`CaffeMaxPooling2D` against the loop of Caffe's pooling_layer.cpp."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers import CaffeMaxPooling2D
from tests import backend


def slow(x, size, stride, pad):
    """Reshape and Forward_cpu for maps (H, W)."""
    height, width = x.shape
    pooled = []
    for side in (height, width):
        count = math.ceil((side + 2 * pad - size) / stride) + 1
        if pad and (count - 1) * stride >= side + pad:
            count -= 1
        pooled.append(count)
    out = np.zeros(pooled)
    for i, j in np.ndindex(*pooled):
        top, left = i * stride - pad, j * stride - pad
        bottom, right = min(top + size, height), min(left + size, width)
        out[i, j] = x[max(top, 0) : bottom, max(left, 0) : right].max()
    return out


@pytest.mark.parametrize(("size", "stride", "pad"), [(2, 2, 0), (3, 2, 0), (3, 2, 1), (5, 3, 1)])
def test_equals_caffes_loop_for_odd_and_even_sides(rng, size, stride, pad):
    layer = CaffeMaxPooling2D(size, stride, pad)
    for height, width in ((5, 7), (7, 8), (8, 6), (9, 10), (11, 12)):
        x = rng.normal(size=(height, width)).astype("float32") - 9  # padding must not win
        found = ops.convert_to_numpy(backend.call(layer, x[None, ..., None]))[0, ..., 0]
        np.testing.assert_array_equal(found, slow(x, size, stride, pad))
        said = layer.compute_output_shape((None, height, width, 3))
        assert said == (None, *found.shape, 3)


def test_sides_need_not_be_known():
    x = keras.Input((None, 7, 2))
    assert CaffeMaxPooling2D(3, 2)(x).shape == (None, None, 3, 2)


def test_config_keeps_every_argument():
    layer = CaffeMaxPooling2D(5, 3, 2, name="five")
    revived = CaffeMaxPooling2D.from_config(layer.get_config())
    assert (revived.pool_size, revived.stride, revived.pad, revived.name) == (5, 3, 2, "five")


@pytest.mark.parametrize("arguments", [(2, 2, 1), (1, 2, 0), (3, 0, 0), (3, 1, -1)])
def test_windows_smaller_than_stride_and_padding_are_refused(arguments):
    with pytest.raises(InputError, match="pool_size"):
        CaffeMaxPooling2D(*arguments)
