"""Passthrough against loops over darknet's own formula, and the layer that splits channels."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers.passthrough import Passthrough
from kerasdet.layers.split_channels import SplitChannels
from tests import backend


def reorg(image, stride):
    """One image (H, W, C) through darknet's reorg_cpu with forward=0 (blas.c), index by index."""
    h, w, c = image.shape
    x = image.transpose(2, 0, 1).ravel()  # darknet's memory: channel, row, column
    out = np.empty_like(x)
    out_c = c // stride**2
    for k in range(c):
        for j in range(h):
            for i in range(w):
                in_index = i + w * (j + h * k)
                c2, offset = k % out_c, k // out_c
                w2 = i * stride + offset % stride
                h2 = j * stride + offset // stride
                out[in_index] = x[w2 + w * stride * (h2 + h * stride * c2)]
    # reorg_layer.c: the output is as many numbers in c * stride**2 channels (out_h = h / stride).
    return out.reshape(c * stride**2, h // stride, w // stride).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("shape", "block_size"), [((2, 6, 10, 8), 2), ((1, 4, 2, 4), 2), ((2, 9, 6, 18), 3)]
)
def test_darknets_order_is_reorg_cpus(shape, block_size, rng):
    x = rng.normal(size=shape).astype("float32")
    found = ops.convert_to_numpy(backend.call(Passthrough(block_size), x))
    np.testing.assert_array_equal(found, [reorg(image, block_size) for image in x])


def test_space_to_depth_stacks_adjacent_pixels(rng):
    x = rng.normal(size=(2, 6, 10, 3)).astype("float32")
    found = ops.convert_to_numpy(backend.call(Passthrough(order="space_to_depth"), x))
    assert found.shape == (2, 3, 5, 12)
    for i in range(3):
        for j in range(5):
            block = [x[:, 2 * i + dy, 2 * j + dx] for dy in (0, 1) for dx in (0, 1)]
            np.testing.assert_array_equal(found[:, i, j], np.concatenate(block, axis=-1))


def test_the_two_orders_differ(rng):
    x = rng.normal(size=(1, 4, 4, 4)).astype("float32")
    one, other = (
        ops.convert_to_numpy(Passthrough(order=order)(x)) for order in ("darknet", "space_to_depth")
    )
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(np.sort(one, axis=None), np.sort(other, axis=None))


@pytest.mark.parametrize("order", ["darknet", "space_to_depth"])
def test_sides_need_not_be_known(order, rng):
    image = keras.Input((None, None, 8))
    model = keras.Model(image, Passthrough(order=order)(image))
    assert model.output_shape == (None, None, None, 32)
    for sides in ((6, 10), (4, 2)):
        x = rng.normal(size=(2, *sides, 8)).astype("float32")
        expected = ops.convert_to_numpy(Passthrough(order=order)(x))
        np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Passthrough(0), "block_size from 1 on, not 0"),
        (lambda: Passthrough(order="torch"), "darknet, space_to_depth, not 'torch'"),
        (lambda: Passthrough()(keras.Input((5, 4, 4))), "multiples of 2, not a map of 5x4"),
        (lambda: Passthrough()(keras.Input((4, 4, 6))), "multiples of 4, not 6"),
        (lambda: SplitChannels(4)(keras.Input((4, 4, 6))), "4 groups of 6 channels"),
    ],
)
def test_what_does_not_divide_is_one_clear_error(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_config_keeps_every_argument():
    layer = Passthrough.from_config(Passthrough(3, "space_to_depth").get_config())
    assert (layer.block_size, layer.order) == (3, "space_to_depth")
    assert SplitChannels.from_config(SplitChannels(7).get_config()).groups == 7


def test_split_channels_gives_each_group_its_neighbouring_channels(rng):
    x = rng.normal(size=(2, 3, 5, 12)).astype("float32")
    image = keras.Input((None, None, 12))
    model = keras.Model(image, SplitChannels(4)(image))
    assert model.output_shape == (None, None, None, 4, 3)
    found = ops.convert_to_numpy(model(x))
    for group in range(4):
        np.testing.assert_array_equal(found[..., group, :], x[..., 3 * group : 3 * group + 3])
