"""`ROIAlign` against a loop over samples, written from torchvision's roi_align_kernel.cpp."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers import ROIAlign, in_pieces
from tests import backend


def corners(y, x, height, width):
    """(row, column, weight) of the four cells around a sample, none where it lies outside."""
    if y < -1 or y > height or x < -1 or x > width:
        return []
    y, x = max(y, 0), max(x, 0)
    low_y, low_x = int(y), int(x)
    high_y, high_x = low_y + 1, low_x + 1
    if low_y >= height - 1:
        y = low_y = high_y = height - 1
    if low_x >= width - 1:
        x = low_x = high_x = width - 1
    ly, lx = y - low_y, x - low_x
    return [
        (low_y, low_x, (1 - ly) * (1 - lx)),
        (low_y, high_x, (1 - ly) * lx),
        (high_y, low_x, ly * (1 - lx)),
        (high_y, high_x, ly * lx),
    ]


def slow(maps, regions, pool_size, scale, samples, aligned, upstream):
    """(pooled, gradient of the maps)."""
    _, height, width, channels = maps.shape
    pooled = np.zeros((*regions.shape[:2], pool_size, pool_size, channels))
    gradient = np.zeros(maps.shape)
    for b, r in np.ndindex(regions.shape[:2]):
        if (regions[b, r] == -1).all():
            continue
        x1, y1, x2, y2 = regions[b, r].astype("float64") * scale - (0.5 if aligned else 0)
        w, h = x2 - x1, y2 - y1
        if not aligned:
            w, h = max(w, 1), max(h, 1)
        for i, j, a, c in np.ndindex(pool_size, pool_size, samples, samples):
            y = y1 + (i + (a + 0.5) / samples) * h / pool_size
            x = x1 + (j + (c + 0.5) / samples) * w / pool_size
            for row, column, weight in corners(y, x, height, width):
                pooled[b, r, i, j] += maps[b, row, column] * weight / samples**2
                gradient[b, row, column] += upstream[b, r, i, j] * weight / samples**2
    return pooled, gradient


def some_regions(rng):
    """Inside, jutting out, far outside, reversed, one point; the second image has fewer."""
    regions = rng.uniform(-0.3, 1.3, (2, 24, 2, 2)) * (80, 112)
    regions[:, :12].sort(axis=2)
    regions = regions.reshape(2, 24, 4)
    regions[:, 12:14] += 300
    regions[:, 14:16, 2:] = regions[:, 14:16, :2]
    regions[1, -4:] = -1
    return regions.astype("float32")


def pooled_and_gradient(layer, maps, regions, upstream):
    (gradient,) = backend.gradients(lambda x: ops.sum(layer(x, regions) * upstream), maps)
    return ops.convert_to_numpy(backend.call(layer, maps, regions)), gradient


@pytest.mark.parametrize(("samples", "aligned"), [(1, False), (2, True), (3, True)])
def test_equals_a_loop_over_samples_and_so_does_its_gradient(rng, samples, aligned):
    maps, regions = rng.normal(size=(2, 7, 5, 3)).astype("float32"), some_regions(rng)
    upstream = rng.normal(size=(2, 24, 3, 3, 3)).astype("float32")
    layer = ROIAlign(3, 1 / 16, sampling_ratio=samples, aligned=aligned)
    expected = slow(maps, regions, 3, 1 / 16, samples, aligned, upstream)
    for found, wanted in zip(
        pooled_and_gradient(layer, maps, regions, upstream), expected, strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_work_in_pieces_gives_what_it_gives_at_once(rng, monkeypatch):
    maps, regions = rng.normal(size=(2, 7, 5, 3)).astype("float32"), some_regions(rng)
    upstream = rng.normal(size=(2, 24, 2, 2, 3)).astype("float32")
    expected = slow(maps, regions, 2, 1 / 16, 2, True, upstream)
    monkeypatch.setattr(in_pieces, "_PIECE", 20 * 2 * 2 * 3)  # 48 regions in three pieces
    found = pooled_and_gradient(ROIAlign(2, 1 / 16), maps, regions, upstream)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_a_plane_is_sampled_exactly():
    """f(x, y) = 3 x + 5 y at cells' centres: a bin's mean is f at its centre."""
    y, x = np.mgrid[:7, :5]
    maps = (3 * x + 5 * y).astype("float32")[None, ..., None]
    regions = np.array([[[16, 32, 48, 80]]], "float32")
    found = ops.convert_to_numpy(backend.call(ROIAlign(2, 1 / 16), maps, regions))
    # Cells 1 to 3 and 2 to 5, centres half a cell less: x 0.5 + 0.5, + 1; y 1.5 + 0.75, + 1.5.
    expected = [[3 * 1 + 5 * 2.25, 3 * 2 + 5 * 2.25], [3 * 1 + 5 * 3.75, 3 * 2 + 5 * 3.75]]
    np.testing.assert_allclose(found[0, 0, :, :, 0], expected, rtol=1e-6)


def test_padding_and_rows_with_nan_give_zeros():
    maps = np.ones((1, 7, 5, 2), "float32")
    regions = np.array([[[-1] * 4, [0, np.nan, 40, 40], [0, 0, 40, 40]]], "float32")
    found, gradient = pooled_and_gradient(ROIAlign(3, 1 / 16), maps, regions, 1.0)
    assert not found[:, :2].any()
    np.testing.assert_allclose(found[:, 2], 1, rtol=1e-6)
    np.testing.assert_allclose(gradient.sum(), 3 * 3 * 2, rtol=1e-5)


def test_learns_inside_a_model_and_survives_saving(rng, tmp_path):
    maps, regions = keras.Input((7, 5, 3)), keras.Input((None, 4))
    x = keras.layers.Conv2D(3, 1)(maps)
    model = keras.Model([maps, regions], ROIAlign(3, 1 / 16, sampling_ratio=1)(x, regions))
    inputs = [rng.normal(size=(2, 7, 5, 3)), some_regions(rng)]
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    before = model.layers[1].get_weights()[0]
    model.fit(inputs, np.ones((2, 24, 3, 3, 3)), verbose=0)
    assert np.abs(model.layers[1].get_weights()[0] - before).max() > 1e-4
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0)
    )


def test_config_keeps_every_argument():
    layer = ROIAlign(5, 0.125, sampling_ratio=3, aligned=False, name="five")
    revived = ROIAlign.from_config(layer.get_config())
    assert (revived.pool_size, revived.spatial_scale, revived.name) == (5, 0.125, "five")
    assert (revived.sampling_ratio, revived.aligned) == (3, False)


@pytest.mark.parametrize("ratio", [0, -1, 1.5])
def test_a_sampling_ratio_that_changes_with_the_region_is_refused(ratio):
    with pytest.raises(InputError, match="sampling_ratio"):
        ROIAlign(7, 1 / 16, sampling_ratio=ratio)
