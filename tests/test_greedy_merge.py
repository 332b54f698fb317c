"""OverFeat's greedy merge against a loop over pairs, and the same whatever the order it is given."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from kerasdet.suppression import Detections, greedy_merge, match_scores
from tests import backend, oracles


def random_case(rng, images, count, classes, *, objects=4):
    """Boxes scattered around a few objects, of scores and labels at random."""
    corner = rng.uniform(0, 60, (images, objects, 2))
    around = np.concatenate([corner, corner + rng.uniform(15, 50, corner.shape)], axis=-1)
    boxes = around[:, rng.integers(0, objects, count)] + rng.normal(0, 4, (images, count, 4))
    scores = rng.uniform(0.05, 1, (images, count))
    labels = rng.integers(0, classes, (images, count))
    return boxes.astype("float32"), scores.astype("float32"), labels.astype("int32")


def run(boxes, scores, labels, **options):
    found = backend.call(greedy_merge, boxes, scores, labels, **options)
    return Detections(*(ops.convert_to_numpy(value) for value in found))


def match(box, other):
    """One pair's score, as `match_scores` says it in words."""
    centres = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (box, other)]
    sizes = [math.sqrt((b[2] - b[0]) * (b[3] - b[1])) for b in (box, other)]
    return math.dist(*centres) / np.mean(sizes) + 1 - float(oracles.iou(box, other))


def merge(boxes, scores, labels, *, threshold):
    """Sec. 4.3 for one image: [(sum of scores, label, mean box, how many)], best first."""
    groups = [
        ([np.asarray(box, "float64")], [float(score)], int(label))
        for box, score, label in zip(boxes, scores, labels, strict=True)
    ]
    while True:
        pairs = [
            (match(np.mean(groups[i][0], axis=0), np.mean(groups[j][0], axis=0)), i, j)
            for i in range(len(groups))
            for j in range(i + 1, len(groups))
            if groups[i][2] == groups[j][2]
        ]
        if not pairs or min(pairs)[0] >= threshold:
            break
        _, i, j = min(pairs)
        other = groups.pop(j)
        groups[i] = (groups[i][0] + other[0], groups[i][1] + other[1], groups[i][2])
    found = [(sum(s), label, np.mean(b, axis=0), len(b)) for b, s, label in groups]
    return sorted(found, key=lambda group: -group[0])


def test_a_match_score_is_centre_distance_in_box_sizes_plus_what_is_missing_in_overlap():
    one = np.array([[0, 0, 30, 30]], "float32")
    others = np.array([[0, 0, 30, 30], [15, 0, 45, 30], [40, 0, 50, 10], [0, 0, 60, 15]], "float32")
    expected = [
        0,
        15 / 30 + 1 - 450 / 1350,  # half of it shared: 15 * 30 of 900 + 900 - 450
        math.hypot(45 - 15, 5 - 15) / ((30 + 10) / 2) + 1,
        math.hypot(30 - 15, 7.5 - 15) / 30 + 1 - 450 / 1350,  # of the same area
    ]
    found = ops.convert_to_numpy(backend.call(match_scores, one, others))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_a_match_score_does_not_hang_on_the_images_size_or_the_pairs_order(rng):
    boxes = random_case(rng, 1, 12, 1)[0][0]
    scores = ops.convert_to_numpy(backend.call(match_scores, boxes, boxes))
    np.testing.assert_allclose(scores, scores.T, rtol=1e-5, atol=1e-6)
    larger = ops.convert_to_numpy(backend.call(match_scores, boxes * 7, boxes * 7))
    np.testing.assert_allclose(larger, scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.25, 0.6, 1.2, math.inf])
@pytest.mark.parametrize("classes", [1, 3])
def test_merging_equals_the_papers_loop(threshold, classes, rng):
    boxes, scores, labels = random_case(rng, 3, 24, classes)
    found = run(boxes, scores, labels, threshold=threshold)
    for image in range(3):
        expected = merge(boxes[image], scores[image], labels[image], threshold=threshold)
        n = found.count[image]
        assert n == len(expected)
        assert found.labels[image][:n].tolist() == [label for _, label, _, _ in expected]
        sums = np.array([total for total, *_ in expected])
        np.testing.assert_allclose(found.scores[image][:n], sums / (1 + sums), rtol=1e-5)
        means = np.array([box for _, _, box, _ in expected])
        np.testing.assert_allclose(found.boxes[image][:n], means, atol=1e-3)
        assert not found.boxes[image][n:].any()
        assert not found.scores[image][n:].any()
        assert (found.labels[image][n:] == -1).all()
    assert found.boxes.shape == (3, 100, 4)
    if threshold == 0.6:
        assert 4 <= found.count.min() <= found.count.max() < 21  # some merged, some not


@pytest.mark.parametrize("threshold", [0.0, -1.0, -math.inf])
def test_with_a_threshold_of_0_or_less_nothing_merges(threshold, rng):
    boxes, scores, labels = random_case(rng, 2, 20, 2)
    boxes[:, 1], labels[:, 1] = boxes[:, 0], labels[:, 0]  # not even what is equal
    found = run(boxes, scores, labels, threshold=threshold)
    assert found.count.tolist() == [20, 20]


def test_with_an_infinite_threshold_each_class_becomes_one_box(rng):
    boxes, scores, labels = random_case(rng, 2, 40, 3)
    found = run(boxes, scores, labels, threshold=math.inf)
    assert found.count.tolist() == [3, 3]
    for image in range(2):
        for row, label in enumerate(found.labels[image][:3]):
            mean = boxes[image][labels[image] == label].mean(axis=0)
            np.testing.assert_allclose(found.boxes[image][row], mean, atol=1e-3)


def test_a_threshold_that_is_no_number_is_refused(rng):
    with pytest.raises(InputError, match="wants a number as its threshold, not nan"):
        greedy_merge(*random_case(rng, 1, 3, 1), threshold=math.nan)


def test_three_boxes_weigh_the_same_in_their_mean_whichever_pair_merged_first():
    """The paper's mean of two would give the last one half of it: 4.5 in place of 4."""
    boxes = np.array([[(0, 0, 40, 40), (4, 0, 44, 40), (8, 0, 48, 40)]], "float32")
    found = run(boxes, np.array([[0.9, 0.8, 0.7]], "float32"), np.zeros((1, 3), "int32"))
    assert found.count.tolist() == [1]
    np.testing.assert_allclose(found.boxes[0, 0], [4, 0, 44, 40], atol=1e-5)
    np.testing.assert_allclose(found.scores[0, 0], 2.4 / 3.4, rtol=1e-6)


def test_long_sums_keep_their_order_and_stay_below_1():
    """40 windows of 0.99 and 41 of the same, far apart; 1 - exp(-S) would be 1 for both."""
    first, second = np.tile([0, 0, 9, 9], (40, 1)), np.tile([50, 0, 59, 9], (41, 1))
    boxes = np.concatenate([first, second])[None].astype("float32")
    scores = np.full((1, 81), 0.99, "float32")
    found = run(boxes, scores, np.zeros((1, 81), "int32"))
    assert found.count.tolist() == [2]
    assert found.boxes[0, :2, 0].tolist() == [50, 0]
    np.testing.assert_allclose(found.scores[0, :2], [40.59 / 41.59, 39.6 / 40.6], rtol=1e-5)
    assert found.scores[0, 1] < found.scores[0, 0] < 1
    assert np.float32(1 - np.exp(np.float32(-39.6))) == 1


@pytest.mark.parametrize("options", [{}, {"max_candidates": 17}, {"max_detections": 5}])
def test_the_order_of_the_candidates_makes_no_difference_in_ties_either(options, rng):
    """Whole-number boxes of four scores: ties abound, at the cut as well; five are the same."""
    corner = rng.integers(0, 4, (1, 30, 2)) * 4
    boxes = np.concatenate([corner, corner + rng.integers(2, 4, (1, 30, 2)) * 8], axis=-1)
    boxes = boxes.astype("float32")
    scores = rng.choice([0.2, 0.4, 0.6, 0.8], (1, 30)).astype("float32")
    labels = rng.integers(0, 2, (1, 30)).astype("int32")
    boxes[:, :5], scores[:, :5], labels[:, :5] = boxes[:, 5:10], scores[:, 5:10], labels[:, 5:10]
    expected = run(boxes, scores, labels, threshold=0.7, **options)
    assert 2 < expected.count[0] < 17
    for _ in range(5):
        order = rng.permutation(30)
        found = run(boxes[:, order], scores[:, order], labels[:, order], threshold=0.7, **options)
        for value, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(value, wanted)


def test_only_the_best_candidates_above_their_score_take_part(rng):
    boxes, scores, labels = random_case(rng, 1, 50, 2)
    found = run(boxes, scores, labels, threshold=0.6, candidate_score=0.4, max_candidates=20)
    kept = np.argsort(-scores[0])[:20]
    kept = kept[scores[0][kept] > 0.4]
    expected = merge(boxes[0][kept], scores[0][kept], labels[0][kept], threshold=0.6)
    np.testing.assert_allclose(
        found.boxes[0][: found.count[0]], [e[2] for e in expected], atol=1e-3
    )


def test_a_score_threshold_looks_at_what_was_merged_and_changes_nothing_else(rng):
    boxes, scores, labels = random_case(rng, 1, 40, 2)
    everything = run(boxes, scores, labels, threshold=0.6)
    sure = run(boxes, scores, labels, threshold=0.6, score_threshold=0.5)
    n = (everything.scores[0] > 0.5).sum()
    assert 0 < n < everything.count[0]
    assert sure.count.tolist() == [n]
    np.testing.assert_array_equal(sure.boxes[0][:n], everything.boxes[0][:n])


def test_more_rows_than_candidates_are_padding(rng):
    found = run(*random_case(rng, 1, 3, 1), threshold=0.0, max_detections=5)
    assert found.count.tolist() == [3]
    assert found.labels[0].tolist() == [0, 0, 0, -1, -1]


def test_nothing_to_merge_gives_padding_alone(rng):
    boxes, scores, labels = random_case(rng, 2, 6, 2)
    found = run(boxes, 0 * scores, labels, max_detections=4)
    assert found.count.tolist() == [0, 0]
    assert (found.labels == -1).all()
    assert not found.boxes.any()


def test_boxes_without_area_or_that_are_no_numbers_spoil_no_others(rng):
    boxes, scores, labels = random_case(rng, 1, 12, 1)
    expected = run(boxes, scores, labels, threshold=0.6)
    odd = np.array([[np.nan, 0, 9, 9], [0, 0, np.inf, 9]], "float32")
    more = np.concatenate([odd[None], boxes], axis=1)
    high = np.concatenate([[[0.9, 0.9]], scores], axis=1).astype("float32")
    found = run(more, high, np.zeros((1, 14), "int32"), threshold=0.6)
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(value, wanted)
    points = np.array([[(5, 5, 5, 5), (5, 5, 5, 5), (80, 5, 80, 9)]], "float32")
    found = run(points, np.full((1, 3), 0.5, "float32"), np.zeros((1, 3), "int32"), threshold=0.9)
    assert found.count.tolist() == [3]  # what has no area overlaps nothing: 1 of match score
    assert np.isfinite(found.boxes).all()


def test_a_batch_gives_what_its_images_give_one_by_one(rng):
    boxes, scores, labels = random_case(rng, 3, 25, 2)
    boxes[1, 5:] += np.arange(20, dtype="float32")[:, None] * 300  # there nearly nothing merges
    together = run(boxes, scores, labels)
    assert len(set(together.count.tolist())) > 1
    for image in range(3):
        rows = slice(image, image + 1)
        alone = run(boxes[rows], scores[rows], labels[rows])
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[image])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function is TensorFlow's")
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_a_compiled_graph_gives_what_eager_gives(xla, rng):
    import tensorflow as tf

    case = random_case(rng, 2, 30, 2)
    eager = run(*case)
    images = 2 if xla else None  # without XLA the batch size may stay unknown
    spec = [
        tf.TensorSpec((images, 30, 4)),
        tf.TensorSpec((images, 30)),
        tf.TensorSpec((images, 30), tf.int32),
    ]
    compiled = tf.function(greedy_merge, spec, jit_compile=xla)
    for found, expected in zip(compiled(*case), eager, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-4)
    assert 0 < eager.count.min()
