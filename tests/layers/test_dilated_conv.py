"""`DilatedConv2D` is `Conv2D`, whichever kernel computes it."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.layers import dilated_conv
from kerasdet.layers.dilated_conv import DilatedConv2D

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 7, 5, 3)).astype("float32")


def slow(images, kernel, dilation):
    """Zero-padded cross-correlation with holes, cell by cell."""
    count, height, width, _ = images.shape
    out = np.zeros((count, height, width, kernel.shape[-1]))
    for y in range(height):
        for x in range(width):
            for i in range(3):
                for j in range(3):
                    row, column = y + (i - 1) * dilation, x + (j - 1) * dilation
                    if 0 <= row < height and 0 <= column < width:
                        out[:, y, x] += images[:, row, column] @ kernel[i, j]
    return out


@pytest.mark.parametrize("dilation", [1, 2, 3, 6])
def test_equals_a_loop_over_cells(dilation):
    layer = DilatedConv2D(4, 3, padding="same", dilation_rate=dilation)
    got = ops.convert_to_numpy(layer(IMAGES))
    kernel = ops.convert_to_numpy(layer.kernel)
    np.testing.assert_allclose(got, slow(IMAGES, kernel, dilation), atol=1e-5)


def one_step(layer):
    """Kernel, bias and the layer's output after one step of SGD on a sum of squares."""
    inputs = keras.Input((7, 5, 3))
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.cos(np.arange(3 * 3 * 3 * 4.0)).reshape(3, 3, 3, 4), np.ones(4)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    model.train_on_batch(IMAGES, np.zeros((2, 7, 5, 4)))
    return [*layer.get_weights(), model.predict(IMAGES, verbose=0)]


@pytest.mark.parametrize("own_kernel", [True, False])
def test_learns_as_keras_own_does_with_and_without_the_faster_kernel(monkeypatch, own_kernel):
    monkeypatch.setattr(dilated_conv, "_gradient_knows_dilation", lambda: own_kernel)
    arguments = {"filters": 4, "kernel_size": 3, "padding": "same", "dilation_rate": 2}
    got, wanted = (one_step(kind(**arguments)) for kind in (DilatedConv2D, keras.layers.Conv2D))
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_survives_saving(tmp_path):
    inputs = keras.Input((7, 5, 3))
    model = keras.Model(inputs, DilatedConv2D(2, 3, padding="same", dilation_rate=2)(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0)
    )
