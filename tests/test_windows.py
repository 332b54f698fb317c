"""Windows, what they are about, which negatives are taken, and whose boxes are candidates."""

import numpy as np
import pytest
from keras import ops

from kerasdet.windows import (
    candidates_of,
    mined_negatives,
    objects_of_windows,
    sizes_for,
    window_boxes,
)
from tests import backend


def numpy(values):
    return [ops.convert_to_numpy(value) for value in values]


def test_windows_lie_row_by_row_from_the_top_left_corner():
    windows = ops.convert_to_numpy(window_boxes(2, 3, step=5, side=20))
    expected = [(x, y, x + 20, y + 20) for y in (0, 5) for x in (0, 5, 10)]
    np.testing.assert_array_equal(windows, np.array(expected, "float32"))


def test_the_longer_side_of_a_scale_lies_along_the_longer_one_of_the_photo():
    scales = ((30, 40), (50, 50), (70, 60))
    assert sizes_for(scales, 200, 300) == ((30, 40), (50, 50), (60, 70))
    assert sizes_for(scales, 300, 200) == ((40, 30), (50, 50), (70, 60))
    assert sizes_for(scales, 200, 200) == scales


# ---------------------------------------------------------------------- objects


def objects(windows, boxes, labels, *, smallest, part):
    """One image's (owner, near) of each window: the rule, one window and one object at a time."""
    found = []
    for x1, y1, x2, y2 in windows:
        best, owner, near = np.inf, -1, False
        for g, (a1, b1, a2, b2) in enumerate(boxes):
            area = (a2 - a1) * (b2 - b1)
            if labels[g] < 0 or area <= 0:
                continue
            inside = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
            near |= inside > part * min(area, (x2 - x1) * (y2 - y1))
            distance = np.hypot((x1 + x2 - a1 - a2) / 2, (y1 + y2 - b1 - b2) / 2)
            well = inside >= area / 2 and max(a2 - a1, b2 - b1) >= smallest
            if well and distance < best:
                best, owner = distance, g
        found.append((owner, near))
    return found


def test_objects_of_windows_equal_the_loop(rng):
    windows = ops.convert_to_numpy(window_boxes(7, 11, step=8, side=32))
    corner = rng.uniform(-5, 70, (3, 6, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 40, (3, 6, 2))], axis=-1)
    boxes = boxes.astype("float32")
    labels = np.array([[0, 1, 2, 0, 1, -1], [2, -1, 0, -1, 1, 1], [-1] * 6], "int32")
    options = {"smallest": 8.0, "part": 0.25}
    owner, near = numpy(backend.call(objects_of_windows, windows, boxes, labels, **options))
    for image in range(3):
        expected = objects(windows, boxes[image], labels[image], **options)
        assert owner[image].tolist() == [o for o, _ in expected]
        assert near[image].tolist() == [n for _, n in expected]
    assert len(set(owner[0].tolist())) > 3
    kinds = owner[1] >= 0, near[1] & (owner[1] < 0), ~near[1]
    assert all(kind.any() for kind in kinds)
    assert not near[2].any()


@pytest.mark.parametrize(
    ("box", "owner", "near"),
    [
        ((10, 10, 20, 20), 0, True),  # wholly inside
        ((35, 0, 45, 10), 0, True),  # half of it, exactly
        ((36, 0, 46, 10), -1, True),  # 4 of 10 columns
        ((37.5, 0, 47.5, 10), -1, False),  # a quarter, exactly
        ((10, 10, 14, 13), -1, True),  # too small, wholly inside
        ((-60, -60, 100, 100), -1, True),  # covers the window: a 16th of it is inside
        ((20, 20, 20, 60), -1, False),  # no area
        ((60, 60, 80, 80), -1, False),  # elsewhere
    ],
)
def test_what_a_window_of_40_pixels_is_about(box, owner, near):
    """From 5 pixels on; near from a quarter on."""
    windows = np.array([[0, 0, 40, 40]], "float32")
    boxes, labels = np.array([[box]], "float32"), np.array([[0]], "int32")
    found = backend.call(objects_of_windows, windows, boxes, labels, smallest=5.0, part=0.25)
    assert [value.tolist() for value in numpy(found)] == [[[owner]], [[near]]]


def test_of_two_objects_the_one_nearer_to_the_middle_counts():
    windows = np.array([[0, 0, 40, 40], [30, 0, 70, 40], [15, 0, 55, 40]], "float32")
    boxes = np.array([[(8, 8, 18, 18), (52, 8, 62, 18)]], "float32")
    labels = np.array([[2, 1]], "int32")
    owner, _ = backend.call(objects_of_windows, windows, boxes, labels, smallest=5.0, part=0.25)
    assert ops.convert_to_numpy(owner).tolist() == [[0, 1, -1]]


# ---------------------------------------------------------------------- negatives


def test_the_worst_negatives_and_random_others_are_taken(rng):
    """A loop that sorts: the most offending first, then by the random number among the rest."""
    background = rng.uniform(size=(3, 50)) < 0.6
    background[2] = False
    background[2, 7:10] = True
    offence, order = rng.uniform(size=(2, 3, 50)).astype("float32")
    chosen = backend.call(mined_negatives, background, offence, order, worst=4, random=5)
    chosen = ops.convert_to_numpy(chosen)
    for image in range(2):
        rows = np.flatnonzero(background[image]).tolist()
        worst = sorted(rows, key=lambda row: -offence[image, row])[:4]
        rest = [row for row in rows if row not in worst]
        drawn = sorted(rest, key=lambda row: -order[image, row])[:5]
        assert np.flatnonzero(chosen[image]).tolist() == sorted(worst + drawn)
    assert np.flatnonzero(chosen[2]).tolist() == [7, 8, 9]  # fewer than wanted: all


@pytest.mark.parametrize(("worst", "random"), [(3, 0), (0, 3), (0, 0)])
def test_either_kind_may_be_left_out(worst, random, rng):
    background = np.ones((2, 20), bool)
    offence, order = rng.uniform(size=(2, 2, 20)).astype("float32")
    chosen = backend.call(mined_negatives, background, offence, order, worst=worst, random=random)
    chosen = ops.convert_to_numpy(chosen)
    assert chosen.sum(axis=1).tolist() == [worst + random] * 2
    if worst or random:
        values = offence if worst else order
        assert (chosen == (values >= np.sort(values, axis=1)[:, -3:-2])).all()


def test_windows_of_one_score_are_taken_no_more_often_than_asked():
    """All offend alike: the first four, not all."""
    background = np.ones((1, 30), bool)
    same = np.full((1, 30), 0.5, "float32")
    chosen = backend.call(mined_negatives, background, same, same, worst=2, random=2)
    assert np.flatnonzero(ops.convert_to_numpy(chosen)[0]).tolist() == [0, 1, 2, 3]


# ---------------------------------------------------------------------- candidates


@pytest.mark.parametrize("regressors", [1, 4])
def test_candidates_are_all_windows_of_the_classes_that_some_window_says_loudest(regressors, rng):
    probabilities = rng.uniform(0, 0.5, (2, 6, 4)).astype("float32")
    probabilities[0, 3, 2], probabilities[0, 5, 0] = 0.9, 0.8
    probabilities[1, 0, 1], probabilities[1, 0, 3] = 0.7, 0.6
    boxes = rng.uniform(0, 50, (2, 6, regressors, 4)).astype("float32")
    found = numpy(backend.call(candidates_of, probabilities, boxes, classes=2))
    for image, best in enumerate([(2, 0), (1, 3)]):
        rows = [(c, window) for c in best for window in range(6)]
        assert found[2][image].tolist() == [c for c, _ in rows]
        scores = [probabilities[image, window, c] for c, window in rows]
        np.testing.assert_array_equal(found[1][image], scores)
        own = [boxes[image, window, c if regressors > 1 else 0] for c, window in rows]
        np.testing.assert_array_equal(found[0][image], own)


def test_more_classes_than_there_are_means_all(rng):
    probabilities = rng.uniform(size=(1, 2, 3)).astype("float32")
    found = backend.call(candidates_of, probabilities, np.zeros((1, 2, 1, 4), "float32"), classes=9)
    assert found.scores.shape == (1, 6)
    assert sorted(ops.convert_to_numpy(found.labels)[0].tolist()) == [0, 0, 1, 1, 2, 2]
