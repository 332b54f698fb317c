"""Regions before they come to a network: what is refused, what is the same, which size suits them."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet import region_proposals
from kerasdet.errors import InputError
from tests import oracles

SHAPE = (50, 70)  # height, width


# ---------------------------------------------------------------------- what a user gives


def test_good_regions_of_any_number_type_come_through():
    rows = [[0, 0, 70, 50], [3, 4, 5, 6]]
    for given in (rows, np.array(rows, "uint16"), np.array(rows, "float64")):
        found = region_proposals.checked_regions(given, SHAPE)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, rows)


def test_regions_are_cut_at_the_images_edges():
    found = region_proposals.checked_regions([[-5, -7, 10, 20], [60, 40, 75, 90]], SHAPE)
    np.testing.assert_array_equal(found, [[0, 0, 10, 20], [60, 40, 70, 50]])


def test_rows_of_padding_are_left_out():
    found = region_proposals.checked_regions([[-1] * 4, [3, 4, 5, 6], [-1] * 4], SHAPE)
    np.testing.assert_array_equal(found, [[3, 4, 5, 6]])


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 4)), [[-1, -1, -1, -1]]])
def test_no_regions_are_no_fault(nothing):
    assert region_proposals.checked_regions(nothing, SHAPE).shape == (0, 4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([5, 4, 3, 6], "x1 < x2 and y1 < y2 for r, but row 1 is 5, 4, 3, 6"),
        ([3, 4, 3, 6], "x1 < x2 and y1 < y2 for r, but row 1 is 3, 4, 3, 6"),
        ([3, 9, 5, 6], "row 1 is 3, 9, 5, 6"),
        ([3, 4, np.nan, 6], "finite numbers for r, but row 1 is 3, 4, nan, 6"),
        ([3, 4, np.inf, 6], "row 1 is 3, 4, inf, 6"),
        ([70, 4, 80, 6], "on the image of 70x50 pixels for r, but row 1 is 70, 4, 80, 6"),
        ([3, -9, 5, 0], "on the image of 70x50 pixels for r, but row 1 is 3, -9, 5, 0"),
    ],
)
def test_a_row_that_is_no_region_is_named(bad, message):
    with pytest.raises(InputError) as caught:
        region_proposals.checked_regions([[-1] * 4, bad, [1, 1, 2, 2]], SHAPE, "r")
    assert message in str(caught.value)


def test_shares_of_the_image_are_not_taken_for_pixels():
    with pytest.raises(InputError, match="multiply shares of the image by its width 70 and height"):
        region_proposals.checked_regions([[0.1, 0.2, 0.5, 1.0], [0, 0, 1, 1]], SHAPE)
    assert len(region_proposals.checked_regions([[0, 0, 1, 1]], (1, 1))) == 1


@pytest.mark.parametrize("bad", [[1, 2, 3, 4], np.zeros((2, 5)), [["a"] * 4], [[1, 2], [3]]])
def test_another_shape_is_refused(bad):
    with pytest.raises(InputError, match=r"Wanted an array \(R, 4\) for r"):
        region_proposals.checked_regions(bad, SHAPE, "r")


def test_regions_are_dealt_out_to_the_images():
    one, two = np.zeros((3, 4)), np.ones((2, 4))
    deal = region_proposals.of_each_image
    assert deal(None, 2) == [None, None]
    assert deal(one, 1) == [one]
    assert deal([one], 1) == [one]
    assert deal([None], 1) == [None]
    assert deal([[1, 2, 3, 4]], 1) == [[[1, 2, 3, 4]]]
    assert deal([], 1) == [[]]
    assert deal([one, two], 2) == [one, two]
    assert deal([one, None], 2) == [one, None]
    assert [len(rows) for rows in deal(np.zeros((2, 3, 4)), 2)] == [3, 3]
    with pytest.raises(InputError, match="for 2 images, an array"):
        deal([one], 2)
    with pytest.raises(InputError, match="for 1 image, an array"):
        deal([one, two], 1)


# ---------------------------------------------------------------------- which are looked at


def test_regions_on_the_same_cells_are_one(rng):
    """np.unique over the hashes of the release, with C's rounding."""
    corner = rng.integers(0, 60, (300, 2)) / 2
    regions = np.concatenate([corner, corner + rng.integers(1, 40, (300, 2)) / 2], axis=1)
    seen, expected = set(), []
    for row, region in enumerate(regions):
        cells = tuple(math.floor(value / 8 + 0.5) for value in region)
        if cells not in seen:
            seen.add(cells)
            expected.append(row)
    assert 10 < len(expected) < 280
    assert region_proposals.distinct(regions, 1 / 8).tolist() == expected


def test_each_region_goes_to_the_size_where_it_is_nearest_to_224_pixels(rng):
    """_project_im_rois of the release, region by region."""
    regions = np.sort(rng.uniform(0, 500, (100, 2, 2)), axis=1).reshape(-1, 4)
    scales = [0.9, 1.1, 1.4, 1.7, 2.4]
    expected = []
    for x1, y1, x2, y2 in regions:
        away = [abs((x2 - x1) * (y2 - y1) * s**2 - 224 * 224) for s in scales]
        expected.append(away.index(min(away)))
    assert len(set(expected)) > 2
    assert region_proposals.best_level(regions, scales).tolist() == expected


def test_rows_are_padded_to_few_numbers():
    numbers = [1, 100, 101, 300, 301, 500, 501, 1000, 2057]
    counts = [region_proposals.padded_count(number) for number in numbers]
    assert counts == [100, 100, 300, 300, 500, 500, 1000, 1000, 2500]
    padded = region_proposals.padded(np.ones((2, 4)), 3)
    np.testing.assert_array_equal(padded, [[1] * 4, [1] * 4, [-1] * 4])


# ---------------------------------------------------------------------- sliding windows


def test_windows_by_hand():
    """Half as wide and as high as the image: steps of at most 0.4 * 35 = 14 and 10 pixels."""
    found = region_proposals.sliding_windows(50, 70, sides=(0.5,), ratios=(1.0,))
    left, top = [0, 35 / 3, 70 / 3, 35], [0, 25 / 3, 50 / 3, 25]
    expected = [[x, y, x + 35, y + 25] for y in top for x in left]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-6, atol=1e-5)


def test_windows_lie_inside_the_image_and_reach_all_its_corners():
    found = ops.convert_to_numpy(region_proposals.sliding_windows(50, 70))
    assert 1000 < len(found) < 2000
    assert len(np.unique(found.round(3), axis=0)) == len(found)
    assert (found[:, 2:] > found[:, :2]).all()
    np.testing.assert_allclose(found.min(axis=0)[:2], 0, atol=1e-5)
    np.testing.assert_allclose(found.max(axis=0), [*found.max(axis=0)[:2], 70, 50], rtol=1e-6)


def test_any_box_from_a_sixth_of_the_image_has_a_window_at_half_overlap(rng):
    """Boxes of up to twice the image's own shape."""
    windows = ops.convert_to_numpy(region_proposals.sliding_windows(100, 100))
    for _ in range(60):
        side, ratio = rng.uniform(17, 70), rng.uniform(0.5, 2) ** 0.5
        width, height = side * ratio, side / ratio
        x, y = rng.uniform(0, 100 - width), rng.uniform(0, 100 - height)
        box = (x, y, x + width, y + height)
        assert max(oracles.iou(box, window) for window in windows) >= 0.5


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's graphs")
def test_windows_are_made_inside_a_graph_that_does_not_know_the_size():
    import tensorflow as tf

    graph = tf.function(
        lambda images: region_proposals.sliding_windows(*tf.unstack(tf.shape(images)[1:3])),
        [tf.TensorSpec((None, None, None, 3))],
    )
    expected = region_proposals.sliding_windows(30, 20)
    np.testing.assert_allclose(graph(np.zeros((1, 30, 20, 3), "float32")), expected)


# ---------------------------------------------------------------------- statistics of targets


def test_statistics_equal_the_releases_loop(rng):
    """add_bbox_regression_targets: sums over all regions of all images with an IoU from 0.5 on."""
    boxes = np.array([[[10, 10, 30, 30], [40, 5, 60, 45]], [[0, 0, 20, 10], [0] * 4]], "float32")
    labels = np.array([[0, 2], [0, -1]])
    regions = np.repeat(boxes, 20, axis=1) + rng.uniform(-6, 6, (2, 40, 4)).astype("float32")
    regions[:, -3:] = -1
    offsets = {0: [], 1: [], 2: []}
    for image in range(2):
        for region in [*regions[image], *boxes[image]]:
            real = [g for g in range(2) if labels[image, g] >= 0]
            overlap, g = max((oracles.iou(region, boxes[image, g]), g) for g in real)
            if overlap >= 0.5:
                offsets[labels[image, g]].append(oracles.region_offsets(region, boxes[image, g]))
    assert min(len(offsets[0]), len(offsets[2])) > 10
    found = region_proposals.target_statistics(
        [
            (regions[i : i + 1], {"boxes": boxes[i : i + 1], "labels": labels[i : i + 1]})
            for i in (0, 1)
        ],
        3,
    )
    assert found.regions.tolist() == [len(offsets[k]) for k in range(3)]
    for k in (0, 2):
        np.testing.assert_allclose(found.means[k], np.mean(offsets[k], axis=0), atol=1e-6)
        np.testing.assert_allclose(found.deviations[k], np.std(offsets[k], axis=0), atol=1e-5)


def test_statistics_of_nothing_are_no_fault():
    nothing = {"boxes": np.zeros((1, 0, 4)), "labels": np.zeros((1, 0))}
    found = region_proposals.target_statistics([(np.ones((1, 3, 4)), nothing)], 2)
    assert found.regions.tolist() == [0, 0]
