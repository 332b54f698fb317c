"""`ROIPooling` against a loop over bins, written from the release's roi_pooling_layer.cpp."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers import ROIPooling, in_pieces, roi_pooling, window_maxima
from tests import backend

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's graphs"
)


def c_round(x):
    """Of <math.h>: halves away from zero."""
    whole = math.trunc(x)
    return whole + (math.copysign(1, x) if abs(x - whole) >= 0.5 else 0)


def edges(first, last, pool_size, side):
    """hstart and hend of every bin along one side."""
    size = max(last - first + 1, 1)
    bin_size = np.float32(size) / np.float32(pool_size)
    found = []
    for i in range(pool_size):
        start = int(np.floor(np.float32(i) * bin_size))
        end = int(np.ceil(np.float32(i + 1) * bin_size))
        found.append((min(max(start + first, 0), side), min(max(end + first, 0), side)))
    return found


def slow(maps, regions, pool_size, scale, upstream=None):
    """(pooled, gradient of the maps) of Forward_cpu and Backward_cpu; channels at once."""
    _, height, width, channels = maps.shape
    pooled = np.zeros((*regions.shape[:2], pool_size, pool_size, channels), maps.dtype)
    gradient = np.zeros(maps.shape)
    every = np.arange(channels)
    for b, r in np.ndindex(regions.shape[:2]):
        if (regions[b, r] == -1).all():
            continue
        x1, y1, x2, y2 = (int(c_round(float(c * np.float32(scale)))) for c in regions[b, r])
        rows, columns = edges(y1, y2, pool_size, height), edges(x1, x2, pool_size, width)
        for i, (top, bottom) in enumerate(rows):
            for j, (left, right) in enumerate(columns):
                if bottom <= top or right <= left:
                    continue
                cells = maps[b, top:bottom, left:right].reshape(-1, channels)
                first = cells.argmax(axis=0)  # of equal ones the first, as `>` keeps it
                pooled[b, r, i, j] = cells[first, every]
                if upstream is not None:
                    row, column = top + first // (right - left), left + first % (right - left)
                    np.add.at(gradient[b], (row, column, every), upstream[b, r, i, j])
    return pooled, gradient


def any_regions(rng, count, width, height):
    """Regions of all kinds for an image of that size in pixels: count // 6 of each."""
    each = count // 6
    corners = rng.uniform(-0.2, 1.2, (6, each, 2, 2)) * (width, height)
    corners[:5].sort(axis=2)  # the last stay reversed, half of them in each direction
    regions = corners.reshape(6, each, 4)
    regions[1] = np.tile(regions[1, :, :2], 2) + rng.uniform(0, 40, (each, 4)) * (0, 0, 1, 1)
    regions[2] = np.tile(regions[2, :, :2], 2)  # one point
    regions[3] = regions[3] * 8 - 3 * np.array([width, height, width, height])  # far outside
    regions[4] = np.round(regions[4] / 8) * 8  # halves of a cell
    return regions.reshape(-1, 4).astype("float32")


def pool(layer, maps, regions):
    return ops.convert_to_numpy(backend.call(layer, maps, regions))


def pooled_and_gradient(layer, maps, regions, upstream):
    (gradient,) = backend.gradients(lambda x: ops.sum(layer(x, regions) * upstream), maps)
    return pool(layer, maps, regions), gradient


# Cells of the map, bins, regions an image: the demo's map; maps smaller than a bin's table; one bin
# over all; many bins.
@pytest.mark.parametrize(
    ("height", "width", "pool_size", "count"),
    [(38, 50, 7, 1200), (7, 5, 7, 300), (13, 9, 1, 120), (5, 17, 2, 120), (9, 70, 6, 360)],
)
def test_equals_the_releases_loop_to_the_last_bit_and_so_does_its_gradient(
    rng, height, width, pool_size, count
):
    # One decimal, so that many cells are equal.
    maps = rng.normal(size=(2, height, width, 3)).round(1).astype("float32")
    regions = np.stack([any_regions(rng, count, width * 16, height * 16) for _ in range(2)])
    regions[1, -5:] = -1
    regions[0, 0] = (0, 0, width * 16 - 1, height * 16 - 1)
    upstream = rng.integers(-3, 4, (2, count, pool_size, pool_size, 3)).astype("float32")
    layer = ROIPooling(pool_size, 1 / 16)
    found, gradient = pooled_and_gradient(layer, maps, regions, upstream)
    expected, expected_gradient = slow(maps, regions, pool_size, 1 / 16, upstream)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)  # sums of whole numbers


@pytest.mark.parametrize(("count", "piece"), [(12, 5), (606, 200)])
def test_work_in_pieces_gives_what_it_gives_at_once(rng, monkeypatch, count, piece):
    maps = rng.normal(size=(2, 7, 11, 4)).round(1).astype("float32")
    regions = np.stack([any_regions(rng, count, 176, 112) for _ in range(2)])
    upstream = rng.integers(-3, 4, (2, count, 3, 3, 4)).astype("float32")
    expected, expected_gradient = slow(maps, regions, 3, 1 / 16, upstream)
    monkeypatch.setattr(in_pieces, "_PIECE", piece * 3 * 3 * 4)  # the last piece is not full
    found, gradient = pooled_and_gradient(ROIPooling(3, 1 / 16), maps, regions, upstream)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)


def test_bins_of_a_hand_made_map():
    """Columns 0 to 4 hold their number: cells 1 to 3 in two bins are floor(0), ceil(1.5) and on."""
    maps = np.broadcast_to(np.arange(5.0), (1, 7, 5))[..., None].astype("float32")
    regions = np.array([[[16, 0, 48, 96]]], "float32")
    found = pool(ROIPooling(2, 1 / 16), maps, regions)
    # Bin 0: cells 1 + floor(0) to 1 + ceil(1.5) = 1, 2; bin 1: 1 + floor(1.5) to 1 + 3 = 2, 3.
    np.testing.assert_array_equal(found[0, 0, :, :, 0], [[2, 3], [2, 3]])


def test_57_cells_in_7_bins_reach_one_cell_further():
    """57 / 7 in float32 is 8.142858, and 7 times that 57.000004, whose ceiling is 58."""
    maps = np.zeros((1, 1, 70, 1), "float32")
    maps[0, 0, 57] = 9
    regions = np.array([[[0, 0, 56, 0], [0, 0, 55, 0]]], "float32")
    found = pool(ROIPooling(7, 1.0), maps, regions)
    assert found[0, 0, 0, :, 0].tolist() == [0, 0, 0, 0, 0, 0, 9]
    assert not found[0, 1].any()


@pytest.mark.parametrize("size", [1024, 1025, 5000])
def test_regions_longer_than_the_table_of_bins_are_divided_too(size):
    """The map's only number lies in cell 2, the region begins before the map."""
    maps = np.zeros((1, 1, 9, 1), "float32")
    maps[0, 0, 2] = 5
    first = 3 - size // 8  # so that bin 0 ends at cell 3
    regions = np.array([[[first, 0, first + size - 1, 0]]], "float32")
    found = pool(ROIPooling(8, 1.0), maps, regions)
    expected = slow(maps, regions, 8, 1.0)[0]
    np.testing.assert_array_equal(found, expected)
    assert found[0, 0, 0, :, 0].tolist()[0] == 5


def test_halves_are_rounded_away_from_zero():
    """Pixel 8 is cell 0.5, so 1; pixel 24 is 1.5, so 2; -8 is -0.5, so -1, outside."""
    maps = np.arange(1.0, 6.0, dtype="float32").reshape(1, 1, 5, 1)
    regions = np.array([[[8, 0, 8, 0], [24, 0, 24, 0], [-8, 0, -8, 0], [-7.9, 0, -7.9, 0]]], "f4")
    found = pool(ROIPooling(1, 1 / 16), maps, regions)
    assert found.ravel().tolist() == [2, 3, 0, 1]


def test_a_reversed_region_is_one_cell_at_its_first_corner():
    maps = np.arange(35, dtype="float32").reshape(1, 7, 5, 1)
    regions = np.array([[[48, 64, 16, 32]]], "float32")  # first corner in column 3, row 4
    found = pool(ROIPooling(2, 1 / 16), maps, regions)
    np.testing.assert_array_equal(found, np.full((1, 1, 2, 2, 1), 4 * 5 + 3))


def test_of_equal_cells_the_first_row_by_row_takes_the_gradient():
    """Nines at row 1, column 2 and row 2, column 0: the higher one, though it lies further right."""
    maps = np.zeros((1, 4, 5, 1), "float32")
    maps[0, 1, 2] = maps[0, 2, 0] = maps[0, 1, 3] = 9
    regions = np.array([[[0, 0, 64, 48]] * 2], "float32")
    layer = ROIPooling(1, 1 / 16)
    (gradient,) = backend.gradients(lambda x: ops.sum(layer(x, regions)), maps)
    expected = np.zeros_like(maps)
    expected[0, 1, 2] = 2  # of two regions
    np.testing.assert_array_equal(gradient, expected)


def test_padding_rows_with_nan_and_regions_outside_give_zeros_and_no_gradient():
    maps = np.full((1, 7, 5, 2), -3, "float32")  # no maximum of anything is 0
    nan, inf = np.nan, np.inf
    rows = [[-1] * 4, [0, nan, 40, 40], [200, 0, 300, 40], [-99, -99, -50, -50], [inf, 0, inf, 9]]
    regions = np.array([rows], "float32")
    found, gradient = pooled_and_gradient(ROIPooling(3, 1 / 16), maps, regions, 1.0)
    assert not found.any()
    assert not gradient.any()
    inside = pool(ROIPooling(3, 1 / 16), maps, np.zeros((1, 1, 4), "float32"))
    assert (inside == -3).all()


def test_regions_get_no_gradient():
    maps = np.ones((1, 7, 5, 2), "float32")
    regions = np.array([[[0, 0, 40, 40]]], "float32")
    layer = ROIPooling(2, 1 / 16)
    maps_gradient, found = backend.gradients(lambda x, r: ops.sum(layer(x, r)), maps, regions)
    assert maps_gradient.sum() == 2 * 2 * 2
    assert not found.any()


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
def test_half_precision_rounds_neither_pixels_nor_sums(rng, dtype):
    """Pixel 1003 is cell 63 of 16 pixels; in float16 it would be 1004. 3000 regions on one cell."""
    maps = rng.normal(size=(1, 5, 70, 2)).astype("float16")
    regions = np.tile(np.array([[[1003, 16, 1003, 16]]], "float32"), (1, 3000, 1))
    layer = ROIPooling(1, 1 / 16 + 1e-6, dtype=dtype)
    (gradient,) = backend.gradients(lambda x: ops.sum(ops.cast(layer(x, regions), "float32")), maps)
    found = pool(layer, maps, regions)
    assert found.dtype == "float16"
    expected, expected_gradient = slow(maps, regions, 1, 1 / 16 + 1e-6, np.ones((1, 3000, 1, 1, 2)))
    np.testing.assert_array_equal(found, expected)
    assert expected_gradient.max() == 3000  # float16 counts by ones up to 2048
    np.testing.assert_array_equal(gradient, expected_gradient)


def small_model(height=None, width=None):
    images = keras.Input((height, width, 3), name="images")
    regions = keras.Input((None, 4), name="regions")
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(images)
    x = ROIPooling(3, 1.0, name="pool")(x, regions)
    x = keras.layers.Reshape((-1, 36))(x)
    return keras.Model({"images": images, "regions": regions}, keras.layers.Dense(2)(x))


def small_inputs(rng, count=24):
    images = rng.normal(size=(2, 9, 13, 3)).astype("float32")
    regions = np.stack([any_regions(rng, count, 13, 9) for _ in range(2)])
    return {"images": images, "regions": regions}


@pytest.mark.parametrize("sides", [(9, 13), (None, None)])
def test_learns_inside_a_model_of_known_or_unknown_sides(rng, sides):
    """One step changes the convolution by the loop's gradient."""
    if None in sides and keras.backend.backend() == "jax":
        pytest.skip("JAX knows all sides when it compiles")
    model, inputs = small_model(*sides), small_inputs(rng)
    convolution, dense = model.get_layer("conv"), model.layers[-1]
    maps = ops.convert_to_numpy(convolution(inputs["images"]))
    upstream = np.full((2, 24, 2), 1 / (2 * 24 * 2)) @ dense.get_weights()[0].T
    _, expected = slow(maps, inputs["regions"], 3, 1.0, upstream.reshape(2, 24, 3, 3, 4))
    before = convolution.get_weights()[1]
    model.compile(keras.optimizers.SGD(1.0), loss=lambda _, y: ops.mean(y, axis=-1))
    model.fit(inputs, np.zeros((2, 24, 2)), verbose=0, batch_size=2)
    step = before - convolution.get_weights()[1]
    np.testing.assert_allclose(step, expected.sum(axis=(0, 1, 2)), atol=1e-5)


@on_tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_and_of_unknown_shape_it_is_the_same(rng, jit_compile):
    import tensorflow as tf

    maps = rng.normal(size=(2, 11, 70, 3)).round(1).astype("float32")
    regions = np.stack([any_regions(rng, 60, 70 * 16, 11 * 16) for _ in range(2)])
    upstream = rng.integers(-3, 4, (2, 60, 5, 5, 3)).astype("float32")
    layer = ROIPooling(5, 1 / 16)

    @tf.function(
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec((None, None, None, 3)),
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None, None, 5, 5, 3)),
        ],
    )
    def both(maps, regions, upstream):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            pooled = layer(maps, regions)
        return pooled, tape.gradient(pooled, maps, output_gradients=upstream)

    expected = slow(maps, regions, 5, 1 / 16, upstream)
    for found, wanted in zip(both(maps, regions, upstream), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@on_tensorflow
def test_an_export_pools_as_the_model_does(rng, tmp_path):
    import tensorflow as tf

    model, inputs = small_model(), small_inputs(rng)
    model.export(tmp_path / "m", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "m")
    served = loaded.serve({name: tf.constant(value) for name, value in inputs.items()})
    np.testing.assert_allclose(served, model.predict(inputs, verbose=0), atol=1e-6)


def test_survives_saving(rng, tmp_path):
    model, inputs = small_model(9, 13), small_inputs(rng)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0)
    )


def test_config_keeps_every_argument():
    layer = ROIPooling(5, 0.125, name="five", dtype="float64")
    revived = ROIPooling.from_config(layer.get_config())
    assert (revived.pool_size, revived.spatial_scale, revived.name) == (5, 0.125, "five")
    assert (revived.dtype, revived.autocast) == ("float64", False)


def test_both_inputs_may_come_as_one_tuple_and_no_region_is_no_error(rng):
    maps = rng.normal(size=(1, 7, 5, 2)).astype("float32")
    regions = np.array([[[0, 0, 40, 40]]], "float32")
    layer = ROIPooling(3, 1 / 16)
    as_tuple = backend.call(lambda *pair: layer(pair), maps, regions)
    np.testing.assert_array_equal(as_tuple, pool(layer, maps, regions))
    assert pool(layer, maps, regions[:, :0]).shape == (1, 0, 3, 3, 2)
    inputs = keras.Input((7, 5, 2)), keras.Input((9, 4))
    assert layer(inputs).shape == layer(*inputs).shape == (None, 9, 3, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((0, 1.0), "pool_size"), ((2.5, 1.0), "pool_size"), ((7, 0.0), "spatial_scale")],
)
def test_what_makes_no_grid_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        ROIPooling(*arguments)


@pytest.mark.parametrize(
    ("maps", "regions", "said"),
    [
        ((1, 7, 5), (1, 3, 4), "maps"),
        ((1, 7, 5, 2), (3, 4), "regions"),
        ((1, 7, 5, 2), (1, 3, 5), "regions"),
        ((2, 7, 5, 2), (1, 3, 4), "for 2 maps"),
    ],
)
def test_inputs_of_another_shape_are_refused(maps, regions, said):
    with pytest.raises(InputError, match=said):
        ROIPooling(2, 1.0)(np.zeros(maps, "float32"), np.zeros(regions, "float32"))


@pytest.mark.parametrize("pool_size", [1, 3, 6, 7])
@pytest.mark.parametrize("side", [5, 13, 30, 38, 50, 57])
def test_tables_are_made_for_the_longest_bin_inside_the_image(side, pool_size):
    """Of every region whose corners are in an image of `side` cells, its far edge among them."""
    longest = 0
    for first in range(side + 1):
        for last in range(first, side + 1):
            size = np.float32(last - first + 1) / np.float32(pool_size)
            for part in range(pool_size):
                start = first + int(np.floor(np.float32(part) * size))
                end = first + int(np.ceil(np.float32(part + 1) * size))
                longest = max(longest, min(end, side) - min(start, side))
    assert roi_pooling._longest_bin(side, pool_size) in (longest, longest + 1)
    assert roi_pooling._longest_bin(50, 7) == 9  # 51 cells: 21 to 30


def test_two_windows_of_the_tables_fewest_lengths_cover_any_bin():
    for longest in range(1, 130):
        lengths = window_maxima.choose_sizes(np.zeros((1, 1, 1, 1)), longest, 1).heights
        for length in range(1, longest + 1):
            fits = max(size for size in lengths if size <= length)
            assert length <= 2 * fits
        assert len(lengths) <= math.log2(longest) + 1
    assert lengths == (1, 2, 4, 8, 16, 32, 65)  # 129 cells are two of 65


@pytest.mark.parametrize(
    ("allowed", "heights", "widths"),
    [
        (10**9, (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6, 7)),
        (30 * 40 * 2 * 2 * 7, (1, 3), (1, 2, 3, 4, 5, 6, 7)),
        (30 * 40 * 2 * 2 * 7 - 1, (1, 3), (1, 2, 4)),
    ],
)
def test_many_regions_pool_alike_from_tables_of_any_size(
    rng, monkeypatch, allowed, heights, widths
):
    monkeypatch.setattr(window_maxima, "_LARGE_TABLE", allowed)
    maps = rng.normal(size=(1, 30, 40, 2)).astype("float32")
    chosen = window_maxima.choose_sizes(ops.convert_to_tensor(maps), 5, 7, many=True)
    assert chosen == (heights, widths)
    regions = any_regions(rng, roi_pooling._MANY_REGIONS, 640, 480)[None]
    found = pool(ROIPooling(7, 1 / 16), maps, regions)
    np.testing.assert_array_equal(found, slow(maps, regions, 7, 1 / 16)[0])
