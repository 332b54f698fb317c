"""SSD's matching and mining, and Fast R-CNN's sampling, against loops that take one box at a time."""

import math

import numpy as np
import pytest
from keras import ops

from kerasdet.matching import hard_negatives, match_default_boxes, sample_regions
from tests import backend, oracles


def run(anchors, boxes, labels, **kwargs):
    arrays = np.array(anchors, "float32"), np.array(boxes, "float32"), np.array(labels, "int32")
    found = backend.call(match_default_boxes, *arrays, **kwargs)
    return ops.convert_to_numpy(found.index), ops.convert_to_numpy(found.overlap)


def grid_boxes(rng, shape, side, longest):
    """Boxes with whole-number corners: overlaps are fractions, so that equal ones are exactly equal."""
    corner = rng.integers(0, side, (*shape, 2))
    size = rng.integers(1, longest + 1, (*shape, 2))
    return np.concatenate([corner, corner + size], axis=-1).astype("float32")


def random_case(rng, images, anchor_count, object_count, side, longest):
    """Anchors, then objects and labels with padded rows anywhere; some images have no objects."""
    anchors = grid_boxes(rng, (anchor_count,), side, longest)
    boxes = grid_boxes(rng, (images, object_count), side, longest)
    labels = rng.integers(0, 3, (images, object_count))
    padded = rng.random((images, object_count)) < rng.choice([0, 0.3, 0.8], (images, 1))
    padded[0] = True
    boxes[padded], labels[padded] = 0, -1
    return anchors, boxes, labels


@pytest.mark.parametrize(
    ("anchor_count", "object_count", "side", "longest"),
    [
        (1, 1, 4, 6),
        (3, 8, 4, 5),  # more objects than anchors
        (40, 5, 30, 12),
        (60, 9, 6, 8),  # everything on one spot: many equal overlaps, many rivals
        (25, 14, 3, 7),  # long chains: an object loses its first, second, third choice
        (200, 12, 60, 25),
    ],
)
def test_matching_equals_the_releases_loop(anchor_count, object_count, side, longest, rng):
    anchors, boxes, labels = random_case(rng, 80, anchor_count, object_count, side, longest)
    found, overlap = run(anchors, boxes, labels)
    for image in range(80):
        expected = oracles.match(anchors, boxes[image], labels[image])
        assert found[image].tolist() == expected, image
        real = [box for box, label in zip(boxes[image], labels[image], strict=True) if label >= 0]
        best = [max((oracles.iou(anchor, box) for box in real), default=0) for anchor in anchors]
        np.testing.assert_allclose(overlap[image], best, rtol=1e-6)
    assert (found[0] == -1).all(), "the image without objects"


def test_the_threshold_can_be_set(rng):
    anchors, boxes, labels = random_case(rng, 20, 30, 4, 12, 9)
    found, _ = run(anchors, boxes, labels, threshold=0.3)
    for image in range(20):
        expected = oracles.match(anchors, boxes[image], labels[image], threshold=0.3)
        assert found[image].tolist() == expected


def strips(*edges):
    """Boxes 10 high with the given x edges."""
    return [(x1, 0, x2, 10) for x1, x2 in edges]


def test_an_object_that_loses_its_first_choice_beats_a_weaker_one_at_its_second():
    """Three objects, three anchors: who asks first must not matter.

    IoU        anchor 0   anchor 1
    object 0   0.9        0.1        takes anchor 0
    object 1   0.8        0.25       loses anchor 0 to object 0, and then wins anchor 1
    object 2   1/16       1/8        asks for anchor 1 from the start
    """
    anchors = strips((0, 10), (8, 10), (50, 51))
    objects = strips((0, 9), (2, 10), (9, 16))
    overlaps = [
        [float(oracles.iou(o, a)) for a in np.array(anchors, "f")] for o in np.array(objects, "f")
    ]
    np.testing.assert_allclose(
        overlaps, [[0.9, 0.1, 0], [0.8, 0.25, 0], [1 / 16, 1 / 8, 0]], rtol=1e-6
    )
    found, _ = run(anchors, [objects], [[0, 1, 2]])
    assert found.tolist() == [[0, 1, -1]]


def test_every_object_that_touches_an_anchor_has_one_below_the_threshold():
    # A speck inside one anchor: IoU 1 / 100, far below 0.5.
    found, overlap = run([(0, 0, 10, 10), (20, 0, 30, 10)], [[(23, 3, 24, 4)]], [[2]])
    assert found.tolist() == [[-1, 0]]
    np.testing.assert_allclose(overlap, [[0, 1 / 100]], rtol=1e-6)


def test_an_object_that_touches_no_anchor_has_none():
    found, overlap = run([(0, 0, 10, 10), (20, 0, 30, 10)], [[(100, 0, 110, 10)]], [[0]])
    assert found.tolist() == [[-1, -1]]
    assert overlap.tolist() == [[0, 0]]


def test_an_overlap_of_exactly_the_threshold_matches():
    # The third anchor's 10 x 5 pixels are half of the object's 10 x 10.
    anchors = [(0, 0, 10, 10), (0, 0, 10, 4), (0, 0, 10, 5)]
    found, overlap = run(anchors, [[(0, 0, 10, 10)]], [[1]])
    assert found.tolist() == [[0, -1, 0]]
    np.testing.assert_allclose(overlap, [[1, 0.4, 0.5]], rtol=1e-6)


def test_equal_overlaps_go_to_the_lower_anchor_and_the_lower_object():
    twice = [(0, 0, 10, 10), (0, 0, 10, 10)]
    found, _ = run([*twice, (0, 0, 10, 8)], [twice], [[0, 1]])
    assert found.tolist() == [[0, 1, 0]]


def test_an_objects_own_anchor_is_not_taken_by_a_better_overlapping_object():
    """Anchor 0 overlaps object 0 more, but object 0 has a better one, and object 1 has only this."""
    anchors = strips((0, 10), (0, 8))
    objects = strips((0, 8), (9, 10))  # IoU 0.8 and 1.0; 0.1 and none
    found, _ = run(anchors, [objects], [[0, 1]])
    assert found.tolist() == [[1, 0]]


def test_a_padded_row_is_not_looked_at_whatever_it_holds():
    anchors = [(0, 0, 10, 10), (20, 0, 30, 10)]
    object_ = (1, 0, 10, 10)
    alone, alone_overlap = run(anchors, [[object_]], [[2]])
    for rubbish in [(0, 0, 10, 10), (0, 0, 0, 0), (np.nan,) * 4, (9, 9, 1, 1)]:
        found, overlap = run(anchors, [[rubbish, object_, rubbish]], [[-1, 2, -1]])
        assert found.tolist() == [[1 if index == 0 else index for index in alone[0]]]
        np.testing.assert_array_equal(overlap, alone_overlap)


def test_matching_does_not_depend_on_the_other_images_of_the_batch(rng):
    anchors, boxes, labels = random_case(rng, 6, 25, 10, 4, 7)
    together, _ = run(anchors, boxes, labels)
    for image in range(6):
        alone, _ = run(anchors, boxes[image : image + 1], labels[image : image + 1])
        np.testing.assert_array_equal(together[image], alone[0])


def mine(losses, positive, candidates, **kwargs):
    arrays = np.array(losses, "float32"), np.array(positive), np.array(candidates)
    found = backend.call(hard_negatives, *arrays, **kwargs)
    return ops.convert_to_numpy(found)


def test_hard_negatives_by_hand():
    # One positive: the three largest of the candidates; the largest loss of all is no candidate.
    losses = [[5.0, 1.0, 9.0, 3.0, 4.0, 2.0]]
    positive = [[False, False, False, True, False, False]]
    candidates = [[True, True, False, False, True, True]]
    assert mine(losses, positive, candidates).tolist() == [[True, False, False, False, True, True]]


@pytest.mark.parametrize(
    ("anchor_count", "positives", "ratio"), [(7, 0.2, 3), (90, 0.05, 3), (40, 0.3, 2)]
)
def test_mining_equals_picking_the_hardest_one_by_one(anchor_count, positives, ratio, rng):
    images = 60
    losses = rng.integers(0, 6, (images, anchor_count)) / 2  # many equal ones
    positive = rng.random((images, anchor_count)) < positives
    positive[1] = False
    candidates = ~positive & (rng.random((images, anchor_count)) < 0.8)
    found = mine(losses, positive, candidates, ratio=ratio)
    for image in range(images):
        expected = oracles.hard_negatives(
            losses[image], positive[image], candidates[image], ratio=ratio
        )
        assert found[image].tolist() == expected, image
    assert not found[1].any(), "an image without positives gives no negatives"


def test_mining_takes_all_candidates_where_there_are_too_few():
    found = mine([[1.0, 2.0, 3.0, 4.0]], [[True, True, False, False]], [[False, False, True, True]])
    assert found.tolist() == [[False, False, True, True]]


# ---------------------------------------------------------------------- regions


SAMPLING = {
    "samples": 12,
    "foreground_share": 0.25,
    "foreground_iou": 0.5,
    "background_iou": (0.1, 0.5),
}


def drawn(regions, boxes, labels, order, **settings):
    """For each image its (region, object or -1), and the number of rows past them."""
    arrays = (np.asarray(a, "float32") for a in (regions, boxes))
    labels, order = np.asarray(labels, "int32"), np.asarray(order, "float32")
    found = backend.call(sample_regions, *arrays, labels, order, **{**SAMPLING, **settings})
    index, owner, taken = (ops.convert_to_numpy(a) for a in found)
    assert (np.diff(taken.astype(int), axis=1) <= 0).all(), "rows that are none come last"
    assert (owner[~taken] == -1).all()
    return [
        list(zip(index[i][taken[i]].tolist(), owner[i][taken[i]].tolist(), strict=True))
        for i in range(len(index))
    ], index.shape


def random_regions(rng, count, side):
    """25 images, three or fewer objects each, and regions near and far from them, some padded."""
    boxes = grid_boxes(rng, (25, 3), side, 12)
    labels = rng.integers(0, 3, (25, 3))
    padded = rng.random((25, 3)) < 0.4
    padded[0] = True
    boxes[padded], labels[padded] = 0, -1
    near = boxes[:, rng.integers(0, 3, count // 2)] + rng.integers(-3, 4, (25, count // 2, 4))
    regions = np.concatenate([near, grid_boxes(rng, (25, count - count // 2), side, 14)], axis=1)
    regions[:, rng.integers(0, count, max(count // 8, 1))] = -1
    return regions, boxes, labels, rng.permuted(np.tile(np.arange(count) / count, (25, 1)), axis=1)


@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (60, {}),
        (8, {}),  # fewer regions than samples
        (200, {}),
        (60, {"samples": 7, "foreground_share": 0.6, "foreground_iou": 0.4}),
        (60, {"background_iou": (0.0, 0.3)}),
        (60, {"foreground_share": 1.0}),
        (60, {"foreground_share": 0.0}),
    ],
)
def test_sampling_equals_the_releases_loop(count, settings, rng):
    regions, boxes, labels, order = random_regions(rng, count, 30)
    found, shape = drawn(regions, boxes, labels, order, **settings)
    assert shape == (25, settings.get("samples", 12))
    for image in range(25):
        of_image = (a[image].astype("float32") for a in (regions, boxes))
        expected = oracles.sample(
            *of_image, labels[image], order[image], **{**SAMPLING, **settings}
        )
        assert found[image] == expected, image


def test_a_quarter_of_the_samples_at_most_shows_objects():
    """Twenty regions on the object, one beside it: three, and that one."""
    regions = [[[0, 0, 10, 10]] * 20 + [[0, 0, 10, 40]]]
    found, _ = drawn(regions, [[[0, 0, 10, 10]]], [[2]], np.arange(21)[None] / 21)
    assert found == [[(19, 0), (18, 0), (17, 0), (20, -1)]]


def test_an_overlap_of_a_half_shows_an_object_and_of_a_tenth_is_background():
    regions = [[[0, 0, 10, 5], [0, 0, 10, 4.9], [0, 0, 10, 1], [0, 0, 10, 0.9]]]
    found, _ = drawn(regions, [[[0, 0, 10, 10]]], [[0]], [[0.1, 0.2, 0.3, 0.4]])
    assert found == [[(0, 0), (2, -1), (1, -1)]]


def test_any_region_of_a_kind_is_as_likely_as_another():
    """Each of eight is drawn in half of 2000 images, give or take four standard deviations."""
    order = np.random.default_rng(1).random((2000, 8))
    regions = np.tile([0, 0, 10, 10], (2000, 8, 1))
    boxes, labels = np.tile([0, 0, 10, 10], (2000, 1, 1)), np.zeros((2000, 1))
    found, _ = drawn(regions, boxes, labels, order, samples=4, foreground_share=1.0)
    times = np.bincount([row for of_image in found for row, _ in of_image], minlength=8)
    assert np.abs(times - 1000).max() < 4 * math.sqrt(2000 / 4)
