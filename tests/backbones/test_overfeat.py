"""OverFeat's layouts: the sides they promise are those of the built networks; what is built."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet.backbones import overfeat
from kerasdet.backbones.overfeat import LAYOUTS, Convolution, Layout
from kerasdet.errors import InputError
from kerasdet.layers.offset_pooling import Interleave, OffsetMaxPooling

SMALL = Layout(
    (Convolution(64, 5, stride=2, pool=3), Convolution(96, 3), Convolution(128, 4, pool=2)),
    last_pool=2,
    kernel=3,
    hidden=(128, 64),
    window=93,
)


def dense(layout, *, fine=True):
    """Image to the trunk's map and the outputs, at a 64th of the width."""
    options = {"width": 1 / 64, "stddev": None}
    images = keras.Input((None, None, 3))
    maps = overfeat.trunk(overfeat.normalized(images), layout, **options)
    x = OffsetMaxPooling(layout.last_pool, fine=fine)(maps)
    x = overfeat.connected(x, layout, **options)
    x = overfeat.convolution(x, 5, 1, "classes", relu=False)
    return keras.Model(images, [maps, Interleave(layout.last_pool, fine=fine)(x, maps)])


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), SMALL], ids=["fast", "accurate", "small"])
@pytest.mark.parametrize("fine", [True, False], ids=["fine", "coarse"])
def test_sides_are_the_built_networks(layout, fine):
    """Sides around the window and a step, both residues; a map's two sides differ."""
    model = dense(layout, fine=fine)
    step = layout.stride * layout.last_pool
    sides = [layout.window + extra for extra in (0, 1, layout.stride, step - 1, step, 2 * step + 5)]
    for height, width in zip(sides, sides[::-1], strict=True):
        maps, outputs = model(np.zeros((1, height, width, 3), "f4"))
        assert maps.shape[1:3] == (layout.map_side(height), layout.map_side(width))
        expected = (layout.output_side(height, fine=fine), layout.output_side(width, fine=fine))
        assert outputs.shape[1:3] == expected


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), SMALL], ids=["fast", "accurate", "small"])
def test_the_window_is_the_least_image_and_gives_one_output(layout):
    for fine in (True, False):
        assert layout.output_side(layout.window, fine=fine) == 1
        assert layout.output_side(layout.window - 1, fine=fine) == 0
        assert layout.output_side(3, fine=fine) == layout.map_side(3) == 0
        step = layout.stride * (1 if fine else layout.last_pool)
        assert layout.output_side(layout.window + 3 * step, fine=fine) == 4
        assert layout.output_side(layout.window + 3 * step - 1, fine=fine) == 3


@pytest.mark.parametrize(
    ("name", "stride", "coarse", "shrinkage"),
    [("fast", 16, 32, 6 * 2 - 1), ("accurate", 12, 36, 5 * 3 - 1)],
)
def test_strides_are_the_releases(name, stride, coarse, shrinkage):
    """README: output pixel i covers a window that starts at 32 i (fast) or 36 i (accurate)."""
    layout = LAYOUTS[name]
    assert layout.stride == stride
    assert layout.stride * layout.last_pool == coarse
    assert layout.shrinkage == shrinkage


def test_a_photo_is_normalised_by_the_releases_numbers():
    images = keras.Input((None, None, 3))
    model = keras.Model(images, overfeat.normalized(images))
    pixel = np.array([0, 118.380948, 255], "f4").reshape(1, 1, 1, 3)
    expected = [-118.380948 / 61.896913, 0, (255 - 118.380948) / 61.896913]
    np.testing.assert_allclose(model(pixel)[0, 0, 0], expected, rtol=1e-5, atol=1e-6)


def test_the_rectifier_lets_pass_what_exceeds_a_millionth():
    x = inputs = keras.Input((1, 4, 1))
    model = keras.Model(inputs, overfeat.convolution(x, 1, 1, "one", kernel_initializer="ones"))
    values = np.array([-1, 0.9e-6, 1.1e-6, 2], "f4").reshape(1, 1, 4, 1)
    np.testing.assert_allclose(ops.convert_to_numpy(model(values)).ravel(), [0, 0, 1.1e-6, 2])


def test_first_weights_are_normal_of_a_hundredth_and_biases_zero():
    images = keras.Input((None, None, 3))
    model = keras.Model(images, overfeat.trunk(images, LAYOUTS["fast"], width=1 / 4))
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    assert len(convolutions) == 5
    for layer in convolutions:
        kernel, bias = layer.get_weights()
        assert np.std(kernel) == pytest.approx(0.01, rel=0.05)
        assert abs(np.mean(kernel)) < 0.001
        assert not bias.any()


def test_dropout_follows_both_hidden_layers_and_may_be_left_out():
    maps = keras.Input((None, None, 8))

    def rates(dropout):
        x = overfeat.connected(maps, LAYOUTS["accurate"], width=1 / 512, dropout=dropout)
        model = keras.Model(maps, x)
        return {la.name: la.rate for la in model.layers if isinstance(la, layers.Dropout)}

    assert rates(0.3) == {"fc7_dropout": 0.3, "fc8_dropout": 0.3}
    assert rates(0) == {}


def test_width_multiplies_channels_and_leaves_one():
    assert [overfeat.scaled(filters, 1 / 96) for filters in (96, 256, 3072)] == [1, 3, 32]
    assert overfeat.scaled(10, 1e-9) == 1


def test_a_layout_is_found_by_name_and_comes_back_from_what_saving_makes_of_it():
    assert overfeat.layout_of("fast") is LAYOUTS["fast"]
    assert overfeat.layout_of(SMALL) == SMALL
    convolutions = [list(convolution) for convolution in SMALL.convolutions]
    assert overfeat.layout_of([convolutions, 2, 3, [128, 64], 93]) == SMALL
    with pytest.raises(InputError, match="fast, accurate, not 'small'"):
        overfeat.layout_of("small")
    with pytest.raises(InputError, match="wants a Layout as network"):
        overfeat.layout_of((1, 2))
