"""SSD's and Fast R-CNN's losses against nested loops, numbers by hand and numerical gradients."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.losses import multi_task, multibox, smooth_l1
from tests import backend, oracles

NONE, POSITIVE = 0, 2


def loss(offsets, logits, target_offsets, target_classes, **kwargs):
    """Both terms as floats."""
    terms = backend.call(
        multibox,
        np.asarray(offsets, "float32"),
        np.asarray(logits, "float32"),
        np.asarray(target_offsets, "float32"),
        np.asarray(target_classes, "int32"),
        **kwargs,
    )
    return float(terms.localization), float(terms.confidence)


def gradients(offsets, logits, target_offsets, target_classes):
    """d(sum of both terms): (B, A, 4) and (B, A, K+1)."""
    return backend.gradients(
        lambda o, c: sum(multibox(o, c, target_offsets, target_classes)), offsets, logits
    )


def random_case(rng, images=3, anchors=50, classes=4, positives=0.08):
    target_classes = rng.integers(1, classes, (images, anchors))
    target_classes[rng.random((images, anchors)) > positives] = NONE
    target_classes[-1] = NONE  # an image without objects
    target_classes[0, :2] = POSITIVE
    return (
        rng.normal(0, 1.5, (images, anchors, 4)).astype("float32"),
        rng.normal(0, 2, (images, anchors, classes)).astype("float32"),
        rng.normal(0, 1.5, (images, anchors, 4)).astype("float32"),
        target_classes.astype("int32"),
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [(0.0, 0.0), (0.5, 0.125), (-0.5, 0.125), (1.0, 0.5), (-3.0, 2.5), (1.5, 1.0)],
)
def test_smooth_l1_is_a_parabola_inside_one_and_a_line_outside(error, expected):
    assert float(smooth_l1(ops.convert_to_tensor(error, "float32"))) == expected


@pytest.mark.parametrize(
    ("anchors", "positives", "ratio"), [(50, 0.08, 3), (12, 0.5, 3), (60, 0.1, 2)]
)
def test_both_terms_equal_the_nested_loops(anchors, positives, ratio, rng):
    case = random_case(rng, anchors=anchors, positives=positives)
    expected = oracles.multibox(*case, ratio=ratio)
    assert loss(*case, negative_ratio=ratio) == pytest.approx(expected, rel=1e-5)
    assert min(expected) > 0.5


def test_equal_losses_count_three_negatives_for_each_positive_exactly():
    # All logits 0: every box costs ln 3; one positive and its three negatives of 20 boxes.
    target_classes = np.zeros((1, 20))
    target_classes[0, 7] = POSITIVE
    found = loss(np.zeros((1, 20, 4)), np.zeros((1, 20, 3)), np.zeros((1, 20, 4)), target_classes)
    assert found == pytest.approx((0, (1 + 3) * math.log(3)))


def test_the_sum_is_divided_by_the_matched_boxes_of_the_whole_batch():
    """Two images with one and three matched boxes: N is 4 for both, and each is mined by itself."""
    target_classes = np.zeros((2, 16))
    target_classes[0, 0] = target_classes[1, :3] = POSITIVE
    offsets = np.zeros((2, 16, 4))
    offsets[0, 0] = [2, 0, 0, 0]  # costs 2 - 0.5
    offsets[0, 5] = 99  # not matched: costs nothing
    found = loss(offsets, np.zeros((2, 16, 3)), np.zeros((2, 16, 4)), target_classes)
    assert found == pytest.approx((1.5 / 4, (1 + 3 + 3 + 9) * math.log(3) / 4))


def test_negatives_are_the_boxes_least_like_background():
    logits = np.zeros((1, 6, 2))
    logits[0, :, 1] = [0, 1, 5, 2, -1, 3]  # larger: less like background
    target_classes = np.array([[1, 0, 0, 0, 0, 0]])
    softplus = [math.log1p(math.exp(v)) for v in (5, 2, 3)]
    expected = math.log(2) + sum(softplus)
    found = loss(np.zeros((1, 6, 4)), logits, np.zeros((1, 6, 4)), target_classes)
    assert found == pytest.approx((0, expected))


def test_no_matched_box_in_the_batch_costs_nothing_and_moves_nothing(rng):
    offsets, logits, target_offsets, target_classes = random_case(rng)
    target_classes[:] = NONE
    case = offsets, logits, target_offsets, target_classes
    assert loss(*case) == (0, 0) == oracles.multibox(*case)
    assert all((g == 0).all() for g in gradients(*case))


def test_what_an_unmatched_box_has_for_a_target_is_never_read(rng):
    offsets, logits, target_offsets, target_classes = random_case(rng)
    expected = loss(offsets, logits, target_offsets, target_classes)
    target_offsets[target_classes == NONE] = np.nan
    assert loss(offsets, logits, target_offsets, target_classes) == expected
    moved = gradients(offsets, logits, target_offsets, target_classes)
    assert all(np.isfinite(g).all() for g in moved)


def test_gradient_equals_a_numerical_one(rng):
    """Central differences of the loop oracle in float64; no error and no rank lies near a kink."""
    offsets, logits, target_offsets, target_classes = case = random_case(rng, 2, 12, 3, 0.2)
    by_offset, by_logit = gradients(*case)
    step = 1e-6
    for array, found in ((0, by_offset), (1, by_logit)):
        expected = np.zeros(found.shape)
        for place in np.ndindex(found.shape):
            values = []
            for sign in (1, -1):
                moved = [offsets.astype("float64"), logits.astype("float64")]
                moved[array][place] += sign * step
                values.append(sum(oracles.multibox(*moved, target_offsets, target_classes)))
            expected[place] = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(found, expected, atol=2e-6)
        assert np.count_nonzero(expected) > 3


def test_only_matched_boxes_and_chosen_negatives_have_a_gradient(rng):
    case = random_case(rng)
    by_offset, by_logit = gradients(*case)
    positive = case[3] > 0
    np.testing.assert_array_equal(np.abs(by_offset).sum(-1) > 0, positive)
    background = np.log(np.exp(case[1].astype("float64")).sum(-1)) - case[1][..., 0]
    negative = [
        oracles.hard_negatives(background[image], positive[image], ~positive[image])
        for image in range(3)
    ]
    np.testing.assert_array_equal(np.abs(by_logit).sum(-1) > 0, positive | np.array(negative))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_outputs_are_summed_in_float32(dtype):
    """300 boxes, each off by 300: the sum, 360 000, is past float16's largest number, 65 504."""
    offsets = ops.cast(np.full((1, 300, 4), 300.0), dtype)
    logits = ops.cast(np.zeros((1, 300, 3)), dtype)
    target_classes = np.ones((1, 300), "int32")
    terms = backend.call(
        multibox, offsets, logits, np.zeros((1, 300, 4), "float32"), target_classes
    )
    assert float(terms.localization) == pytest.approx(4 * (300 - 0.5))
    assert keras.backend.standardize_dtype(terms.localization.dtype) == "float32"


def test_confident_mistakes_stay_finite():
    logits = np.array([[[1e4, -1e4], [-1e4, 1e4], [0, 0]]], "float32")
    target_classes = np.array([[1, 0, 0]], "int32")
    case = np.zeros((1, 3, 4), "f"), logits, np.zeros((1, 3, 4), "f"), target_classes
    # 2e4 for the positive, 2e4 for the worst negative, ln 2 for the other.
    assert loss(*case)[1] == pytest.approx(4e4 + math.log(2))
    assert all(np.isfinite(g).all() for g in gradients(*case))


def test_a_nan_shows_even_in_a_box_that_nothing_chose(rng):
    """Its gradient would reach the weights; the loss must say so in the same step."""
    offsets, logits, target_offsets, target_classes = random_case(rng)
    logits[2, 7] = np.nan  # in the image without objects
    assert math.isnan(loss(offsets, logits, target_offsets, target_classes)[1])


# ---------------------------------------------------------------------- multi-task


def multi_task_case(rng):
    """Three images of seven regions, five classes; objects, background, and rows that are none."""
    logits = rng.normal(size=(3, 7, 6)).astype("float32") * 3
    offsets = rng.normal(size=(3, 7, 5, 4)).astype("float32") * 2
    classes = rng.integers(-1, 6, (3, 7)).astype("int32")
    targets = rng.normal(size=(3, 7, 4)).astype("float32")
    assert {-1, 0, 5} <= set(classes.ravel().tolist())
    return logits, offsets, classes, targets


def test_multi_task_equals_the_loops(rng):
    case = multi_task_case(rng)
    terms = backend.call(multi_task, *case)
    expected = oracles.multi_task(*case)
    np.testing.assert_allclose([float(term) for term in terms], expected, rtol=1e-5)


def test_multi_task_by_hand():
    """Two regions: equal scores of three classes; offsets off by 0.5 and by 3 in one region.

    log 3 for each; (0.5 * 0.5**2 + 3 - 0.5) / 2 regions, background counted.
    """
    offsets = np.full((1, 2, 2, 4), 9.0, "float32")
    offsets[0, 0, 1] = [1.5, 2, 3, 7]
    terms = multi_task(
        np.zeros((1, 2, 3), "float32"),
        offsets,
        np.array([[2, 0]]),
        np.array([[[1.0, 2, 3, 4], [9, 9, 9, 9]]], "float32"),
    )
    assert float(terms.classification) == pytest.approx(math.log(3))
    assert float(terms.localization) == pytest.approx((0.125 + 2.5) / 2)


def test_multi_task_of_no_regions_is_zero_and_so_is_its_gradient(rng):
    logits, offsets, classes, targets = multi_task_case(rng)
    none, wild = np.full_like(classes, -1), np.full_like(targets, np.inf)
    terms = backend.call(multi_task, logits, offsets, none, wild)
    assert [float(term) for term in terms] == [0, 0]
    for gradient in backend.gradients(
        lambda a, b: sum(multi_task(a, b, none, wild)), logits, offsets
    ):
        assert (gradient == 0).all()


def test_only_the_true_classs_offsets_of_objects_get_a_gradient(rng):
    logits, offsets, classes, targets = multi_task_case(rng)
    of_logits, of_offsets = backend.gradients(
        lambda a, b: sum(multi_task(a, b, classes, targets)), logits, offsets
    )
    for image, row in np.ndindex(3, 7):
        reached = np.flatnonzero(of_offsets[image, row].any(axis=-1)).tolist()
        assert reached == [classes[image, row] - 1] * int(classes[image, row] > 0)
        assert of_logits[image, row].any() == (classes[image, row] >= 0)
    # Softmax less one for the true class, and the cut error, over the regions that are there.
    count = (classes >= 0).sum()
    image, row = np.argwhere(classes > 0)[0]
    true = classes[image, row]
    share = np.exp(logits[image, row]) / np.exp(logits[image, row]).sum()
    np.testing.assert_allclose(
        of_logits[image, row], (share - np.eye(6)[true]) / count, rtol=1e-4, atol=1e-6
    )
    error = np.clip(offsets[image, row, true - 1] - targets[image, row], -1, 1)
    np.testing.assert_allclose(of_offsets[image, row, true - 1], error / count, rtol=1e-4)
