"""Box arithmetic against painted pixels and numbers worked out by hand."""

import math

import numpy as np
import pytest
from keras import ops

from kerasdet import boxes as box_ops
from tests import oracles

# A 7 wide, 5 high image's anchor and object: 2 x 4 at (1, 0), 6 x 1 at (0, 2).
TALL, WIDE = (1.0, 0.0, 3.0, 4.0), (0.0, 2.0, 6.0, 3.0)


def to_numpy(value):
    return ops.convert_to_numpy(value)


def random_boxes(rng, shape, side):
    """Boxes with whole-number corners inside a square, at least a pixel wide and high."""
    corners = np.sort(rng.integers(0, side, (*shape, 2, 2)), axis=-2)
    corners[..., 1, :] += 1
    return corners.reshape(*shape, 4).astype("float32")


def test_area_is_width_times_height():
    assert to_numpy(box_ops.area(np.array([TALL, WIDE], "float32"))).tolist() == [2 * 4, 6 * 1]


@pytest.mark.parametrize("box", [(3, 1, 3, 5), (5, 1, 2, 4), (2, 4, 5, 1), (5, 4, 2, 1)])
def test_a_box_without_inside_has_no_area_and_overlaps_nothing(box):
    box = np.array([box], "float32")
    assert to_numpy(box_ops.area(box)).tolist() == [0]
    around = np.array([(0, 0, 7, 5), box[0]], "float32")
    assert to_numpy(box_ops.iou(box, around)).tolist() == [[0, 0]]


def test_iou_by_hand():
    # They share x 1..3 and y 2..3: 2 of 8 + 6 - 2 = 12 pixels.
    assert to_numpy(box_ops.iou(np.array([TALL], "f"), np.array([WIDE], "f"))) == pytest.approx(
        2 / 12
    )


def test_boxes_that_touch_do_not_overlap():
    boxes = np.array([(0, 0, 3, 5), (3, 0, 7, 5)], "float32")
    assert to_numpy(box_ops.iou(boxes[:1], boxes[1:])).tolist() == [[0]]


def test_iou_equals_counted_pixels(rng):
    boxes, others = random_boxes(rng, (60,), 13), random_boxes(rng, (9,), 13)
    found = to_numpy(box_ops.iou(boxes, others))
    expected = [
        [oracles.painted_iou(b, o, side=14) for o in others.astype(int)] for b in boxes.astype(int)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert 0 in found
    assert found.max() > 0.5


def test_iou_broadcasts_a_batch_of_objects_against_one_set_of_anchors(rng):
    objects, anchors = random_boxes(rng, (3, 2), 20), random_boxes(rng, (5,), 20)
    found = to_numpy(box_ops.iou(objects, anchors))
    assert found.shape == (3, 2, 5)
    for image in range(3):
        np.testing.assert_array_equal(found[image], to_numpy(box_ops.iou(objects[image], anchors)))


def test_clip_moves_edges_onto_the_image_each_along_its_own_axis():
    boxes = np.array([(-2, -3, 9, 8), (1, 2, 6, 4), (8, 6, 9, 9)], "float32")
    clipped = to_numpy(box_ops.clip(boxes, height=5, width=7))
    assert clipped.tolist() == [[0, 0, 7, 5], [1, 2, 6, 4], [7, 5, 7, 5]]


def test_encode_by_hand():
    # Anchor centre (2, 2), size (2, 4); box centre (3, 2.5), size (6, 1).
    expected = [
        (3 - 2) / 2 / 0.1,
        (2.5 - 2) / 4 / 0.1,
        math.log(6 / 2) / 0.2,
        math.log(1 / 4) / 0.2,
    ]
    found = to_numpy(box_ops.encode(np.array(WIDE, "float32"), np.array(TALL, "float32")))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_encode_equals_the_papers_formula_box_by_box(rng):
    boxes, anchors = random_boxes(rng, (40,), 30), random_boxes(rng, (40,), 30)
    variances = (0.1, 0.3, 0.7, 0.2)
    expected = [oracles.encode(b, a, variances) for b, a in zip(boxes, anchors, strict=True)]
    found = to_numpy(box_ops.encode(boxes, anchors, variances=variances))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_decode_undoes_encode(rng):
    anchors = random_boxes(rng, (50,), 300)
    anchors[:, 2:] += 5  # no box is 62.5 times its anchor, where decode cuts
    boxes = random_boxes(rng, (2, 50), 300)
    back = to_numpy(box_ops.decode(box_ops.encode(boxes, anchors), anchors))
    np.testing.assert_allclose(back, boxes, atol=1e-3)


def test_encode_undoes_decode(rng):
    anchors = random_boxes(rng, (50,), 300)
    offsets = rng.normal(0, 2, (2, 50, 4)).astype("float32")
    back = to_numpy(box_ops.encode(box_ops.decode(offsets, anchors), anchors))
    np.testing.assert_allclose(back, offsets, atol=2e-3)


def test_no_offsets_decode_to_the_anchor():
    anchor = np.array([TALL], "float32")
    np.testing.assert_array_equal(to_numpy(box_ops.decode(np.zeros((1, 4), "f"), anchor)), anchor)


def test_decode_by_hand():
    # Centre (2 + 5 * 0.1 * 2, 2 - 5 * 0.1 * 4) = (3, 0); size (2 * 3, 4 / 4) = (6, 1).
    offsets = np.array([5, -5, math.log(3) / 0.2, math.log(1 / 4) / 0.2], "float32")
    found = to_numpy(box_ops.decode(offsets, np.array(TALL, "float32")))
    np.testing.assert_allclose(found, [3 - 3, 0 - 0.5, 3 + 3, 0 + 0.5], atol=1e-5)


def test_decode_never_gives_infinity():
    anchor = np.array([TALL], "float32")
    found = to_numpy(box_ops.decode(np.array([[0, 0, 1e6, 1e6]], "float32"), anchor))
    # Cut at 1000 / 16 = 62.5 times the anchor.
    half_width, half_height = 62.5 * 2 / 2, 62.5 * 4 / 2
    expected = [[2 - half_width, 2 - half_height, 2 + half_width, 2 + half_height]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (2, 1, 2, 4), (5, 4, 1, 2)])
def test_a_box_without_inside_still_encodes_to_finite_numbers(box):
    code = to_numpy(box_ops.encode(np.array([box], "float32"), np.array([TALL], "float32")))
    assert np.isfinite(code).all()
