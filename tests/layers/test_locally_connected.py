"""The locally connected layer against darknet's loops, in darknet's own order of floats."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers.locally_connected import LocallyConnected2D
from tests import backend


def darknet_local(x, weights, biases, *, filters, size, stride, pad):
    """forward_local_layer (local_layer.c) on one image (C, H, W), number by number.

    Args:
        x: (C, H, W).
        weights: flat, [place][filter][channel][row][column].
        biases: flat, [filter][place].
    """
    channels, height, width = x.shape
    out_h = (height - (1 if pad else size)) // stride + 1  # local_out_height
    out_w = (width - (1 if pad else size)) // stride + 1
    places, taps = out_h * out_w, channels * size * size
    y = np.zeros((filters, out_h, out_w))
    for i in range(out_h):
        for j in range(out_w):
            place = i * out_w + j
            for f in range(filters):
                total = float(biases[f * places + place])
                for tap in range(taps):  # im2col: channel, then row, then column of the kernel
                    c, u, v = tap // (size * size), tap // size % size, tap % size
                    row, column = i * stride + u - pad, j * stride + v - pad
                    if 0 <= row < height and 0 <= column < width:
                        weight = weights[place * taps * filters + f * taps + tap]
                        total += float(weight) * float(x[c, row, column])
                y[f, i, j] = total
    return y


@pytest.fixture(
    params=[(3, 1, 1), (3, 2, 1), (2, 1, 0), (3, 2, 0)], ids="k{0[0]}s{0[1]}p{0[2]}".format
)
def case(request, rng):
    """A layer on a map of 7x5 pixels and three channels, and a darknet file's floats for it."""
    size, stride, pad = request.param
    layer = LocallyConnected2D(4, size, stride=stride, pad=pad)
    layer.build((None, 7, 5, 3))
    out_h, out_w, filters = layer.bias.shape
    weights = rng.normal(size=out_h * out_w * filters * 3 * size * size).astype("float32")
    biases = rng.normal(size=filters * out_h * out_w).astype("float32")
    kernel = weights.reshape(out_h, out_w, filters, 3, size, size).transpose(0, 1, 4, 5, 3, 2)
    bias = biases.reshape(filters, out_h, out_w).transpose(1, 2, 0)
    layer.set_weights([kernel, bias])
    options = {"filters": filters, "size": size, "stride": stride, "pad": pad}
    return layer, weights, biases, options


def test_it_computes_what_darknet_does(case, rng):
    layer, weights, biases, options = case
    x = rng.normal(size=(2, 7, 5, 3)).astype("float32")
    found = ops.convert_to_numpy(layer(x))
    for image in range(2):
        expected = darknet_local(x[image].transpose(2, 0, 1), weights, biases, **options)
        np.testing.assert_allclose(found[image].transpose(2, 0, 1), expected, atol=1e-4)


def test_gradients_go_to_the_taps_of_each_place(case, rng):
    """The output is linear in the map and in the weights: its slopes are differences of 1."""
    layer, _, _, _ = case
    x = rng.normal(size=(1, 7, 5, 3)).astype("float32")
    share = rng.normal(size=layer.bias.shape).astype("float32")

    def total(x, kernel, bias):
        weights = [(layer.kernel, kernel), (layer.bias, bias)]
        with keras.StatelessScope(weights):
            return ops.sum(layer.call(x) * share)

    kernel, bias = (ops.convert_to_numpy(v) for v in (layer.kernel, layer.bias))
    by_x, by_kernel, by_bias = backend.gradients(total, x, kernel, bias)
    np.testing.assert_allclose(by_bias, share, rtol=1e-6)
    for array, slopes, place in ((x, by_x, (0, 3, 2, 1)), (kernel, by_kernel, (1, 1, 1, 0, 2, 3))):
        moved = array.copy()
        moved[place] += 1
        arguments = (moved, kernel, bias) if array is x else (x, moved, bias)
        rise = float(total(*arguments)) - float(total(x, kernel, bias))
        assert rise != 0
        assert slopes[place] == pytest.approx(rise, rel=1e-3, abs=1e-4)


def test_each_place_has_weights_of_its_own():
    """Weights of one place alone, on a map of ones, speak at that place alone."""
    layer = LocallyConnected2D(2, 3, pad=1)
    layer.build((None, 4, 6, 5))
    kernel, bias = (np.zeros(v.shape, "float32") for v in (layer.kernel, layer.bias))
    kernel[2, 3, :, :, :, 1] = 1
    layer.set_weights([kernel, bias])
    found = ops.convert_to_numpy(layer(np.ones((1, 4, 6, 5), "float32")))
    assert found[0, 2, 3].tolist() == [0, 9 * 5]
    assert np.count_nonzero(found) == 1


def test_every_place_starts_with_random_weights_of_darknets_size():
    layer = LocallyConnected2D(16, 3, pad=1)
    layer.build((None, 4, 6, 8))
    kernel = ops.convert_to_numpy(layer.kernel)
    limit = np.sqrt(2 / (3 * 3 * 8))
    of_places = np.abs(kernel).reshape(24, -1)
    assert (of_places.max(axis=1) <= limit).all()
    assert (of_places.max(axis=1) > 0.98 * limit).all()
    np.testing.assert_allclose(of_places.mean(axis=1), limit / 2, rtol=0.1)
    assert not ops.convert_to_numpy(layer.bias).any()


def test_half_precision_stays_half():
    x = np.ones((1, 4, 6, 2), "float16")
    layer = LocallyConnected2D(3, 3, pad=1, dtype="mixed_float16")
    assert keras.backend.standardize_dtype(layer(x).dtype) == "float16"
    assert layer.kernel.dtype == "float32"


def test_config_keeps_every_argument():
    layer = LocallyConnected2D(7, 5, stride=3, pad=2, name="local4")
    revived = LocallyConnected2D.from_config(layer.get_config())
    read = [(a.filters, a.kernel_size, a.stride, a.pad, a.name) for a in (layer, revived)]
    assert read[0] == read[1] == (7, 5, 3, 2, "local4")


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"filters": 0, "kernel_size": 3}, None, "not 0, 3, 1 and 0"),
        ({"filters": 4, "kernel_size": 3, "pad": -1}, None, "not 4, 3, 1 and -1"),
        ({"filters": 4, "kernel_size": 3}, (None, None, 7, 2), "known size"),
        ({"filters": 4, "kernel_size": 5, "pad": 1}, (None, 2, 7, 2), "at least 5 pixels"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(arguments, shape, message):
    with pytest.raises(InputError, match=message):
        LocallyConnected2D(**arguments).build(shape)
