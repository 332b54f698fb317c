"""Products of matrices beside Keras' convolution of the same weights."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.layers import connected_conv
from kerasdet.layers.connected_conv import ConnectedConv2D
from tests import backend


@pytest.fixture(params=[0, 2**21], ids=["products", "small"])
def least(request, monkeypatch):
    monkeypatch.setattr(connected_conv, "_LEAST", request.param)


def pair(shape, filters, kernel, **options):
    """A layer, and Keras' own with its weights."""
    layer = ConnectedConv2D(filters, kernel, bias_initializer="random_normal", **options)
    other = keras.layers.Conv2D(filters, kernel, **options)
    layer.build(shape)
    other.build(shape)
    other.set_weights(layer.get_weights())
    return layer, other


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [((2, 7, 5, 3), (3, 2)), ((1, 4, 4, 2), 4), ((3, 5, 9, 2), 1), ((1, 15, 14, 2), 3)],
)
@pytest.mark.usefixtures("least")
def test_it_is_keras_convolution(shape, kernel, rng):
    layer, other = pair(shape, 4, kernel)
    maps = rng.normal(size=shape).astype("float32")
    np.testing.assert_allclose(backend.call(layer, maps), other(maps), atol=1e-5)


@pytest.mark.parametrize("options", [{"padding": "same"}, {"strides": 2}, {"dilation_rate": 2}])
@pytest.mark.usefixtures("least")
def test_with_what_a_product_is_not_made_for_it_is_keras_convolution_too(options, rng):
    layer, other = pair((2, 7, 6, 3), 4, 3, **options)
    maps = rng.normal(size=(2, 7, 6, 3)).astype("float32")
    np.testing.assert_allclose(layer(maps), other(maps), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the others are Keras' own")
@pytest.mark.usefixtures("least")
def test_gradients_and_unknown_sides(rng):
    import tensorflow as tf

    layer, other = pair((2, 7, 5, 3), 4, (3, 2))
    maps = tf.constant(rng.normal(size=(2, 7, 5, 3)), tf.float32)

    def gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            loss = ops.sum(ops.sin(layer(maps)))
        return tape.gradient(loss, [maps, *layer.trainable_variables])

    for one, theirs in zip(gradients(layer), gradients(other), strict=True):
        np.testing.assert_allclose(one, theirs, atol=1e-5)
    unknown = tf.function(layer, [tf.TensorSpec((None, None, None, 3))])
    np.testing.assert_allclose(unknown(maps), other(maps), atol=1e-5)
    batch = tf.function(layer, [tf.TensorSpec((None, 7, 5, 3))])
    np.testing.assert_allclose(batch(maps), other(maps), atol=1e-5)
