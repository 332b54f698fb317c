"""Offset pooling and interleaving against loops written from figure 3 of the paper."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet.errors import InputError
from kerasdet.layers.offset_pooling import Interleave, OffsetMaxPooling
from tests import backend


def pooled(row, p, offset):
    """Figure 3 (b) along one side: windows of p from `offset` on, without overlap, whole ones alone."""
    return [row[i : i + p].max(axis=0) for i in range(offset, len(row) - p + 1, p)]


def pool(image, p, dy, dx):
    """(H, W, C) pooled at one offset."""
    rows = np.array(pooled(image, p, dy))  # (h, W, C)
    return np.array(pooled(rows.transpose(1, 0, 2), p, dx)).transpose(1, 0, 2)


def classified(image, weights):
    """(h, w, C) through a valid convolution, window by window."""
    rows, columns = weights.shape[:2]
    height, width = image.shape[0] - rows + 1, image.shape[1] - columns + 1
    out = np.zeros((max(height, 0), max(width, 0), weights.shape[-1]))
    for i, j in np.ndindex(*out.shape[:2]):
        out[i, j] = np.tensordot(image[i : i + rows, j : j + columns], weights, 3)
    return out


def slow(image, p, weights):
    """Figure 3 (c) to (d): each offset classified, then put where its windows are."""
    parts = {
        (dy, dx): classified(pool(image, p, dy, dx), weights) for dy in range(p) for dx in range(p)
    }
    height = sum(parts[dy, 0].shape[0] for dy in range(p))
    width = sum(parts[0, dx].shape[1] for dx in range(p))
    fine = np.full((height, width, weights.shape[-1]), np.nan)
    for (dy, dx), part in parts.items():
        fine[dy::p, dx::p] = part
    assert np.isfinite(fine).all()
    return fine


@pytest.mark.parametrize(
    "shape", [(2, 12, 9, 3), (1, 9, 13, 3), (2, 10, 14, 2), (1, 11, 8, 1), (1, 3, 4, 2)]
)
@pytest.mark.parametrize("p", [2, 3])
def test_every_offset_has_its_windows_maxima(shape, p, rng):
    """Sides of every residue; cells that jut out have no claim."""
    maps = rng.normal(size=shape).astype("f4")
    found = ops.convert_to_numpy(backend.call(OffsetMaxPooling(p), maps))
    rows, columns = len(pooled(maps[0], p, 0)), len(pooled(maps[0].transpose(1, 0, 2), p, 0))
    assert found.shape == (shape[0] * p * p, rows, columns, shape[-1])
    for b, dy, dx in np.ndindex(shape[0], p, p):
        expected = pool(maps[b], p, dy, dx) if min(shape[1] - dy, shape[2] - dx) >= p else None
        if expected is not None:
            height, width = expected.shape[:2]
            part = found[(b * p + dy) * p + dx]
            np.testing.assert_array_equal(part[:height, :width], expected)


def network(p, weights, *, fine=True):
    """Pooling, a valid convolution and interleaving, for maps of any size."""
    rows, columns, channels, filters = weights.shape
    maps = keras.Input((None, None, channels))
    x = OffsetMaxPooling(p, fine=fine)(maps)
    convolution = layers.Conv2D(filters, (rows, columns), use_bias=False)
    model = keras.Model(maps, Interleave(p, fine=fine)(convolution(x), maps))
    convolution.set_weights([weights])
    return model


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("sides", [(12, 9), (9, 13), (10, 14), (11, 8), (17, 17)])
def test_interleaved_outputs_are_where_their_windows_are(p, sides, rng):
    """At every residue of either side; 17x17 and 3x3 pooling is the paper's first scale."""
    weights = rng.normal(size=(2, 1, 3, 2)).astype("f4")
    maps = rng.normal(size=(2, *sides, 3)).astype("f4")
    found = ops.convert_to_numpy(network(p, weights)(maps))
    expected = np.stack([slow(image, p, weights) for image in maps])
    assert found.shape == expected.shape == (2, sides[0] - 2 * p + 1, sides[1] - p + 1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_not_fine_is_plain_pooling(rng):
    weights = rng.normal(size=(2, 1, 3, 2)).astype("f4")
    maps = rng.normal(size=(2, 10, 14, 3)).astype("f4")
    found = ops.convert_to_numpy(network(3, weights, fine=False)(maps))
    expected = [classified(pool(image, 3, 0, 0), weights) for image in maps]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    fine = ops.convert_to_numpy(network(3, weights)(maps))
    np.testing.assert_allclose(found, fine[:, ::3, ::3], atol=1e-5)


def test_fine_may_be_set(rng):
    maps = rng.normal(size=(1, 7, 8, 2)).astype("f4")
    layer = OffsetMaxPooling(2)
    assert layer(maps).shape == (4, 3, 4, 2)
    layer.fine = False
    assert layer(maps).shape == (1, 3, 4, 2)


def test_an_outputs_gradient_goes_to_its_windows_maxima_alone():
    """An increasing map: of every window the last cell is the largest."""
    p = 2
    maps = np.arange(5 * 4, dtype="f4").reshape(1, 5, 4, 1)
    pooling, interleave = OffsetMaxPooling(p), Interleave(p)
    weights = np.array([[1.0, 10, 100], [2, 20, 200], [3, 30, 300], [4, 40, 400]], "f4")

    def total(maps):
        return ops.sum(interleave(pooling(maps), maps)[0, :, :, 0] * weights)

    (found,) = backend.gradients(total, maps)
    expected = np.zeros((5, 4))
    expected[1:, 1:] = weights  # fine output (i, j) is the maximum of cells i, i + 1 and j, j + 1
    np.testing.assert_array_equal(found[0, ..., 0], expected)


def test_static_shapes_are_those_of_the_results():
    for sides in [(12, 9), (10, 14), (11, 8)]:
        maps = keras.Input((*sides, 4), batch_size=2)
        x = OffsetMaxPooling(3)(maps)
        assert x.shape == (18, *((side - 3 + 1 + 2) // 3 for side in sides), 4)
        y = Interleave(3)(layers.Conv2D(5, 2)(x), maps)
        assert y.shape == (2, *(side - 2 * 3 + 1 for side in sides), 5)
    maps = keras.Input((None, 9, 4))
    assert OffsetMaxPooling(3)(maps).shape == (None, None, 3, 4)
    assert Interleave(3)(OffsetMaxPooling(3)(maps), maps).shape == (None, None, 7, 4)


@pytest.mark.parametrize("kind", [OffsetMaxPooling, Interleave])
def test_config_keeps_every_argument(kind):
    layer = kind.from_config(kind(5, fine=False).get_config())
    assert (layer.pool_size, layer.fine) == (5, False)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OffsetMaxPooling(0), "pool_size from 1 on, not 0"),
        (lambda: Interleave(2.0), "pool_size from 1 on, not 2.0"),
        (lambda: OffsetMaxPooling(3)(keras.Input((2, 9, 4))), "maps of 3x3 cells or more, not 2x9"),
        (lambda: OffsetMaxPooling(3)(np.zeros((1, 5, 1, 4), "f4")), "or more, not 5x1"),
    ],
)
def test_what_makes_no_sense_is_one_clear_error(make, words):
    with pytest.raises(InputError, match=words):
        make()
