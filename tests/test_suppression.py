"""Suppression against a greedy loop over one class of one image at a time."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.suppression import (
    Detections,
    labelled_non_max_suppression,
    non_max_suppression,
)
from tests import backend, oracles


def random_case(rng, images, anchors, classes, *, side=60, longest=40, levels=None):
    """Boxes with whole-number corners; scores are different numbers, or drawn from few `levels`."""
    corner = rng.integers(0, side, (images, anchors, 2))
    size = rng.integers(4, longest, (images, anchors, 2))
    boxes = np.concatenate([corner, corner + size], axis=-1).astype("float32")
    count = images * anchors * classes
    if levels:
        scores = rng.integers(0, levels, count) / levels
    else:
        scores = rng.permutation(count) / count
    return boxes, scores.reshape(images, anchors, classes).astype("float32")


def run(boxes, scores, **kwargs):
    found = backend.call(non_max_suppression, boxes, scores, **kwargs)
    return Detections(*(ops.convert_to_numpy(value) for value in found))


def assert_equals_loop(found, boxes, scores, *, max_detections=200, **kwargs):
    """Every row, and the padding after them."""
    for image in range(len(boxes)):
        expected = oracles.suppress(
            boxes[image], scores[image], max_detections=max_detections, **kwargs
        )
        n = found.count[image]
        assert n == len(expected)
        assert found.labels[image][:n].tolist() == [label for _, label, _ in expected]
        assert found.scores[image][:n].tolist() == [score for score, _, _ in expected]
        rows = [row for _, _, row in expected]
        np.testing.assert_array_equal(found.boxes[image][:n], boxes[image][rows])
        assert found.boxes.shape == (len(boxes), max_detections, 4)
        assert (found.boxes[image][n:] == 0).all()
        assert (found.scores[image][n:] == 0).all()
        assert (found.labels[image][n:] == -1).all()


@pytest.mark.parametrize(
    ("anchors", "classes", "options"),
    [
        (120, 3, {}),  # fewer boxes than max_per_class
        (90, 1, {"max_detections": 7}),
        (600, 3, {"max_per_class": 25, "max_detections": 30}),
        (300, 4, {"max_detections": 400}),  # 1200 candidates, three tiles, all looked at
        (700, 2, {"iou_threshold": 0.8, "max_detections": 300}),  # full within the second tile
        (40, 3, {"score_threshold": 0.7, "iou_threshold": 0.1}),
        (3, 2, {"max_detections": 50}),
    ],
)
def test_suppression_equals_the_releases_loop(anchors, classes, options, rng):
    boxes, scores = random_case(rng, 3, anchors, classes)
    scores[1] *= 0.02  # one image with few boxes above the threshold beside two with many
    assert_equals_loop(run(boxes, scores, **options), boxes, scores, **options)


def test_with_the_releases_numbers_both_limits_are_reached(rng):
    boxes, scores = random_case(rng, 1, 900, 2, side=400, longest=30)
    found = run(boxes, scores)
    assert_equals_loop(found, boxes, scores)
    assert found.count.tolist() == [200]
    everything = run(boxes, scores, max_detections=900)
    assert_equals_loop(everything, boxes, scores, max_detections=900)
    worst_looked_at = np.sort(scores[0], axis=0)[-400]
    assert (everything.scores[0] >= worst_looked_at.min()).sum() == everything.count[0] > 512


@pytest.mark.parametrize("classes", [1, 3])
def test_equal_scores_go_to_the_lower_class_then_to_the_lower_box(classes, rng):
    boxes, scores = random_case(rng, 2, 200, classes, levels=4)
    options = {"max_per_class": 60, "max_detections": 90}
    assert_equals_loop(run(boxes, scores, **options), boxes, scores, **options)


def test_an_overlap_of_exactly_the_threshold_is_kept():
    # 9 of 20 pixels and 10 of 20: IoU 0.45 and 0.5.
    boxes = np.array([[(0, 0, 20, 1), (0, 0, 9, 1), (0, 0, 10, 1)]], "float32")
    scores = np.array([[[0.9], [0.8], [0.7]]], "float32")
    found = run(boxes, scores, iou_threshold=0.45)
    assert found.boxes[0][: found.count[0]].tolist() == boxes[0][:2].tolist()


def test_a_score_of_exactly_the_threshold_is_dropped():
    boxes = np.array([[(0, 0, 5, 5), (20, 0, 25, 5)]], "float32")
    found = run(boxes, np.array([[[0.25], [0.5]]], "float32"), score_threshold=0.25)
    assert found.scores[0][: found.count[0]].tolist() == [0.5]


def test_a_suppressed_box_suppresses_nothing():
    """A chain: the second goes for the first, so the third, which only the second covers, stays."""
    boxes = np.array([[(0, 0, 10, 10), (0, 4, 10, 14), (0, 8, 10, 18)]], "float32")
    scores = np.array([[[0.9], [0.8], [0.7]]], "float32")
    found = run(boxes, scores, iou_threshold=0.4)  # neighbours overlap 6 / 14
    assert found.boxes[0][: found.count[0]].tolist() == boxes[0][[0, 2]].tolist()


def test_a_chain_as_long_as_a_tile_keeps_every_other_box():
    length = 300
    boxes = np.array([[(0, 4 * i, 10, 4 * i + 10) for i in range(length)]], "float32")
    scores = np.linspace(0.9, 0.1, length, dtype="float32").reshape(1, length, 1)
    found = run(boxes, scores, iou_threshold=0.4)
    assert found.boxes[0][: found.count[0]].tolist() == boxes[0][::2].tolist()


def test_boxes_of_different_classes_do_not_suppress_each_other():
    boxes = np.array([[(0, 0, 10, 10), (0, 0, 10, 10)]], "float32")
    scores = np.array([[[0.9, 0.2], [0.3, 0.8]]], "float32")
    found = run(boxes, scores, max_detections=5)
    assert found.labels[0].tolist() == [0, 1, -1, -1, -1]
    np.testing.assert_allclose(found.scores[0][:2], [0.9, 0.8])


def test_nothing_above_the_threshold_gives_padding_alone(rng):
    boxes, scores = random_case(rng, 2, 30, 3)
    found = run(boxes, scores * 0.009, max_detections=4)
    assert found.count.tolist() == [0, 0]
    assert found.labels.tolist() == [[-1] * 4] * 2
    assert not found.boxes.any()
    assert not found.scores.any()


def test_a_batch_gives_what_its_images_give_one_by_one(rng):
    boxes, scores = random_case(rng, 3, 400, 2, longest=12)
    scores[1] *= 0.012
    together = run(boxes, scores, max_detections=150)
    assert len(set(together.count.tolist())) > 1
    for image in range(3):
        alone = run(boxes[image : image + 1], scores[image : image + 1], max_detections=150)
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[image])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function is TensorFlow's")
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_a_compiled_graph_gives_what_eager_gives(xla, rng):
    import tensorflow as tf

    boxes, scores = random_case(rng, 3, 500, 2, levels=300)
    options = {"max_per_class": 450, "max_detections": 300}
    eager = run(boxes, scores, **options)
    images = 3 if xla else None  # without XLA the batch size may stay unknown
    compiled = tf.function(
        lambda b, s: non_max_suppression(b, s, **options),
        [tf.TensorSpec((images, 500, 4)), tf.TensorSpec((images, 500, 2))],
        jit_compile=xla,
    )
    for found, expected in zip(compiled(boxes, scores), eager, strict=True):
        np.testing.assert_array_equal(found.numpy(), expected)
    assert 0 < eager.count.min()


def test_an_image_that_is_full_early_does_not_stop_the_others():
    """Of 700 boxes in order of score: all apart, or the first 600 on one spot and the rest apart."""
    apart = np.array([(20 * i, 0, 20 * i + 10, 10) for i in range(700)], "float32")
    piled = apart.copy()
    piled[:600] = apart[0]
    scores = np.tile(np.linspace(0.9, 0.1, 700, dtype="float32")[:, None], (2, 1, 1))
    found = run(np.stack([apart, piled]), scores, max_per_class=700, max_detections=90)
    assert found.count.tolist() == [90, 90]
    np.testing.assert_array_equal(found.boxes[0], apart[:90])
    np.testing.assert_array_equal(found.boxes[1], np.concatenate([apart[:1], apart[600:689]]))


def test_half_precision_scores_and_boxes_come_back_as_float32(rng):
    boxes, scores = random_case(rng, 1, 20, 2)
    halves = ops.cast(boxes, "float16"), ops.cast(scores, "float16")
    found = backend.call(non_max_suppression, *halves)
    dtypes = [keras.backend.standardize_dtype(value.dtype) for value in found]
    assert dtypes == ["float32", "float32", "int32", "int32"]


@pytest.mark.parametrize("options", [{}, {"max_detections": 7}, {"iou_threshold": 0.1}])
def test_labelled_boxes_are_suppressed_as_a_matrix_with_one_score_a_row(options, rng):
    boxes, scores = random_case(rng, 3, 700, 1)
    scores[1] *= 0.02
    labels = rng.integers(0, 4, (3, 700)).astype("int32")
    found = backend.call(labelled_non_max_suppression, boxes, scores[..., 0], labels, **options)
    found = Detections(*(ops.convert_to_numpy(value) for value in found))
    matrix = np.where(labels[..., None] == np.arange(4), scores, 0)
    assert_equals_loop(found, boxes, matrix, max_per_class=700, **options)


def test_labels_may_be_of_thousands_of_classes():
    boxes = np.array([[(0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 8)]], "float32")
    scores = np.array([[0.5, 0.7, 0.6]], "float32")
    found = backend.call(
        labelled_non_max_suppression, boxes, scores, np.array([[9417, 9417, 3]], "int32")
    )
    assert ops.convert_to_numpy(found.labels)[0][:3].tolist() == [9417, 3, -1]
