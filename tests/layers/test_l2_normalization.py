import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers import L2Normalization
from tests import backend


def normalized(x, layer):
    return ops.convert_to_numpy(layer(ops.convert_to_tensor(x)))


def test_by_hand():
    # Lengths 5 and 13; two channels with gains 2 and 3.
    layer = L2Normalization()
    layer.build((None, 1, 2, 2))
    layer.gain.assign([2.0, 3.0])
    x = np.array([[[[3, -4], [5, 12]]]], "float32")
    expected = [[[[2 * 3 / 5, -3 * 4 / 5], [2 * 5 / 13, 3 * 12 / 13]]]]
    np.testing.assert_allclose(normalized(x, layer), expected, rtol=1e-6)


def test_the_gain_starts_at_20_for_every_channel():
    layer = L2Normalization()
    layer.build((None, 7, 5, 3))
    assert ops.convert_to_numpy(layer.gain).tolist() == [20.0, 20.0, 20.0]


def test_epsilon_is_added_inside_the_root():
    x = np.array([[[[3.0, 4.0]]]], "float32")
    found = normalized(x, L2Normalization(1.0, epsilon=11.0))
    np.testing.assert_allclose(found, [[[[3 / 6, 4 / 6]]]], rtol=1e-6)  # 25 + 11 = 36


def test_an_all_zero_pixel_stays_zero_and_has_a_finite_gradient():
    x = np.zeros((1, 2, 1, 3), "float32")
    x[0, 1] = [1, 2, 2]
    layer = L2Normalization(3.0)
    np.testing.assert_allclose(normalized(x, layer), [[[[0, 0, 0]], [[1, 2, 2]]]], rtol=1e-6)
    (gradient,) = backend.gradients(lambda pixels: ops.sum(layer(pixels)), x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_does_not_overflow(policy):
    """512 channels at 300: squared length 46 million, far past float16's 65 504."""
    layer = L2Normalization(dtype=policy)
    x = ops.cast(np.full((1, 1, 1, 512), 300.0), policy.removeprefix("mixed_"))
    found = layer(x)
    assert keras.backend.standardize_dtype(found.dtype) == policy.removeprefix("mixed_")
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.cast(found, "float32")), 20 / np.sqrt(512), rtol=5e-3
    )


def test_the_gain_learns():
    inputs = keras.Input((1, 1, 2))
    model = keras.Model(inputs, L2Normalization(1.0)(inputs))
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    model.train_on_batch(np.array([[[[3.0, 4.0]]]]), np.array([[[[0.6, 0.0]]]]))
    # Output (0.6, 0.8), error (0, 0.8), mean over two: gradient 2 * 0.8 * 0.8 / 2.
    gain = ops.convert_to_numpy(model.layers[1].gain)
    np.testing.assert_allclose(gain, [1, 1 - 0.64], atol=1e-6)


def test_config_keeps_every_argument():
    layer = L2Normalization(7.0, epsilon=0.5, name="seven", dtype="float64")
    revived = L2Normalization.from_config(layer.get_config())
    assert (revived.initial_gain, revived.epsilon, revived.name) == (7.0, 0.5, "seven")
    assert revived.dtype == "float64"


@pytest.mark.parametrize(
    "arguments", [{"initial_gain": 0.0}, {"initial_gain": 1.0, "epsilon": -1.0}]
)
def test_values_that_are_not_positive_are_refused(arguments):
    with pytest.raises(InputError, match="positive"):
        L2Normalization(**arguments)
