"""Normalised offsets to raw ones, by statistics that travel with the weights."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet.errors import InputError
from kerasdet.layers.target_scale import TargetScale

MEANS = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
DEVIATIONS = [[0.5, 1.0, 2.0, 4.0], [3.0, 0.25, 1.0, 2.0]]


def network(means=MEANS, deviations=DEVIATIONS):
    """Five features to offsets of two classes."""
    x = keras.Input((5,))
    head = layers.Dense(8, bias_initializer="random_normal", name="head")(x)
    head = layers.Reshape((2, 4))(head)
    return keras.Model(x, TargetScale(means, deviations, name="scale")(head))


def test_raw_is_normalised_times_deviation_plus_mean():
    layer = TargetScale(MEANS, DEVIATIONS)
    found = ops.convert_to_numpy(layer(np.full((3, 2, 4), 2.0, "float32")))
    np.testing.assert_allclose(found[0], [[2, 4, 7, 12], [11, 6.5, 9, 12]])
    np.testing.assert_allclose(ops.convert_to_numpy(layer.normalized(found)), 2.0, rtol=1e-6)


def test_four_numbers_hold_for_every_class():
    layer = TargetScale([0, 0, 0, 1], [1, 2, 3, 4])
    found = ops.convert_to_numpy(layer(np.ones((1, 3, 4), "float32")))
    np.testing.assert_allclose(found[0], [[1, 2, 3, 5]] * 3)


def test_other_statistics_leave_what_the_network_gives(rng):
    model = network()
    x = rng.normal(size=(7, 5)).astype("float32")
    before = model.predict(x, verbose=0)
    head, scale = model.get_layer("head"), model.get_layer("scale")
    learned = ops.convert_to_numpy(head.kernel)
    scale.renormalize(head, [0.5, -1, 2, 0], [[2.0, 3, 4, 5], [1, 1, 6, 7]])
    np.testing.assert_allclose(model.predict(x, verbose=0), before, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ops.convert_to_numpy(scale.means), [[0.5, -1, 2, 0]] * 2)
    np.testing.assert_allclose(  # 0.5 / 2 for the first class's x, 2 / 7 for the second's height
        ops.convert_to_numpy(head.kernel)[:, [0, 7]],
        learned[:, [0, 7]] * [0.5 / 2, 2 / 7],
        rtol=1e-5,
    )


def test_statistics_are_saved_with_the_weights(tmp_path):
    model, other = network(), network([0, 0, 0, 0], [1, 1, 1, 1])
    model.save_weights(tmp_path / "it.weights.h5")
    other.load_weights(tmp_path / "it.weights.h5")
    x = np.ones((1, 5), "float32")
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
    assert not model.get_layer("scale").trainable_variables


def test_config_keeps_the_statistics():
    revived = TargetScale.from_config(TargetScale(MEANS, DEVIATIONS).get_config())
    np.testing.assert_array_equal(revived.initial_means, MEANS)
    np.testing.assert_array_equal(revived.initial_deviations, DEVIATIONS)


def test_it_stays_float32_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = TargetScale([0, 0, 0, 0], [1, 1, 1, 1])
        assert layer(np.ones((1, 2, 4), "float16")).dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("means", "deviations"),
    [
        ([0, 0, 0], [1, 1, 1, 1]),
        ([0, 0, 0, 0], [1, 1, 0, 1]),
        ([0, 0, 0, float("nan")], [1, 1, 1, 1]),
        ([[0, 0, 0, 0]] * 3, [1, 1, 1, 1]),
    ],
)
def test_other_numbers_are_refused(means, deviations):
    with pytest.raises(InputError, match="wants"):
        network(means, deviations)
    model = network()
    with pytest.raises(InputError, match="wants"):
        model.get_layer("scale").renormalize(model.get_layer("head"), means, deviations)
