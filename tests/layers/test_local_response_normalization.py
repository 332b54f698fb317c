"""`LocalResponseNormalization` against the loop of Caffe's lrn_layer.cpp, across channels."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers import LocalResponseNormalization
from tests import backend


def slow(x, size, alpha, beta, k):
    x = x.astype("float64")
    out = np.zeros_like(x)
    channels = x.shape[-1]
    for c in range(channels):
        total = np.zeros(x.shape[:-1])
        for i in range(c - (size - 1) // 2, c + (size - 1) // 2 + 1):
            if 0 <= i < channels:
                total += x[..., i] ** 2
        out[..., c] = x[..., c] * (k + alpha / size * total) ** -beta
    return out


@pytest.mark.parametrize(
    "numbers",
    [
        {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0},  # CaffeNet
        {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0},  # VGG_CNN_M_1024
        {"size": 3, "alpha": 2.0, "beta": 0.6, "k": 0.5},
        {"size": 9, "alpha": 2.0, "beta": 0.75, "k": 0.5},  # wider than the channels
    ],
)
def test_equals_caffes_loop(rng, numbers):
    x = rng.normal(0, 50, (2, 7, 5, 6)).astype("float32")
    found = backend.call(LocalResponseNormalization(**numbers), x)
    np.testing.assert_allclose(found, slow(x, **numbers), rtol=2e-6)


def test_alpha_is_divided_by_the_size():
    """One channel of 3 in a window of 5: 3 / (1 + 10 / 5 * 9)**0.5."""
    x = np.full((1, 1, 1, 1), 3.0, "float32")
    found = backend.call(LocalResponseNormalization(5, alpha=10.0, beta=0.5), x)
    np.testing.assert_allclose(ops.convert_to_numpy(found).item(), 3 / 19**0.5, rtol=1e-6)


def test_gradient_is_the_slope_of_the_loop(rng):
    x = rng.normal(0, 3, (1, 2, 1, 6)).astype("float32")
    weights = rng.normal(size=x.shape)
    numbers = {"size": 3, "alpha": 2.0, "beta": 0.75, "k": 0.5}
    layer = LocalResponseNormalization(**numbers)
    (found,) = backend.gradients(lambda x: ops.sum(layer(x) * weights.astype("float32")), x)
    expected = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[place] = 1e-4
        up, down = (slow(x + s, **numbers) for s in (step, -step))
        expected[place] = ((up - down) * weights).sum() / 2e-4
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_half_precision_does_not_overflow():
    """300**2 is past float16's 65 504."""
    x = np.full((1, 1, 1, 8), 300.0, "float16")
    found = backend.call(LocalResponseNormalization(5, alpha=1e-2, dtype="mixed_float16"), x)
    expected = slow(x, 5, 1e-2, 0.75, 1.0)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-3)


def test_config_keeps_every_argument():
    layer = LocalResponseNormalization(3, alpha=0.5, beta=0.25, k=2.0, name="three")
    revived = LocalResponseNormalization.from_config(layer.get_config())
    assert (revived.size, revived.alpha, revived.beta, revived.k) == (3, 0.5, 0.25, 2.0)
    assert revived.name == "three"


@pytest.mark.parametrize(
    "arguments", [{"size": 4}, {"size": -1}, {"alpha": 0.0}, {"beta": -1.0}, {"k": 0.0}]
)
def test_numbers_that_make_no_norm_are_refused(arguments):
    with pytest.raises(InputError, match="LocalResponseNormalization wants"):
        LocalResponseNormalization(**arguments)


def test_keeps_shapes_that_are_not_known():
    x = keras.Input((None, None, 6))
    assert LocalResponseNormalization()(x).shape == (None, None, None, 6)
