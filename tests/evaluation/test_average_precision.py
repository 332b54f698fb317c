import math

import numpy as np
import pytest

from kerasdet.evaluation import average_precision as ap
from kerasdet.evaluation.image_result import Found, Truth

HERE = [0, 0, 10, 10]
THERE = [20, 0, 30, 10]
FAR = [0, 20, 10, 30]


def found(*rows):
    """Rows of (box, score, label)."""
    return Found(
        np.array([row[0] for row in rows], float).reshape(-1, 4),
        np.array([row[1] for row in rows], float),
        np.array([row[2] for row in rows], int),
    )


def truth(*rows, difficult=(), crowd=()):
    """Rows of (box, label); the places of difficult and crowd ones."""
    boxes = np.array([row[0] for row in rows], float).reshape(-1, 4)
    places = np.arange(len(rows))
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    labels = np.array([row[1] for row in rows], int)
    return Truth(boxes, labels, np.isin(places, difficult), np.isin(places, crowd), area)


def average(detections, objects, *, rule="voc10", num_classes=1):
    return ap.voc_average_precision(detections, objects, num_classes=num_classes, rule=rule)


def test_right_wrong_right_of_three_objects_by_hand():
    objects = [truth((HERE, 0), (THERE, 0), ([40, 0, 50, 10], 0))]
    detections = [found((HERE, 0.9, 0), (FAR, 0.8, 0), (THERE, 0.7, 0))]
    (curve,) = average(detections, objects)
    np.testing.assert_allclose(curve.recall, [1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(curve.scores, [0.9, 0.8, 0.7])
    assert curve.average_precision == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    # Levels 0, .1, .2, .3 are reached with precision 1; .4, .5, .6 with 2/3; four not at all.
    (curve,) = average(detections, objects, rule="voc07")
    assert curve.average_precision == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_three_of_ten_objects_reach_recall_level_three_tenths():
    # 3 / 10 >= 0.1 * 3 is false in floating point; the rule is about the numbers.
    assert ap.eleven_point_average(np.array([1, 2, 3]), 10) == pytest.approx(4 / 11)


@pytest.mark.parametrize("objects", range(1, 41))
def test_everything_found_is_one_by_both_rules_for_any_number_of_objects(objects):
    right = np.arange(1, objects + 1)
    assert ap.eleven_point_average(right, objects) == pytest.approx(1, abs=1e-12)
    assert ap.area_under_curve(right, objects) == pytest.approx(1, abs=1e-12)


def test_second_detection_of_an_object_is_wrong():
    (curve,) = average([found((HERE, 0.9, 0), (HERE, 0.8, 0))], [truth((HERE, 0))])
    np.testing.assert_allclose(curve.precision, [1, 1 / 2])


def test_taken_best_object_is_not_replaced_by_the_second_best():
    # Both detections overlap both objects by more than half, and the first object more.
    objects = [truth(([0, 0, 100, 10], 0), ([20, 0, 120, 10], 0))]
    detections = [found(([0, 0, 100, 10], 0.9, 0), ([8, 0, 108, 10], 0.8, 0))]
    assert ap.pairwise_iou(detections[0].boxes[1], objects[0].boxes[1]) > 0.5
    matches = ap.match(detections, objects)
    assert matches.truth.tolist() == [0, 0]
    assert matches.correct.tolist() == [True, False]


def test_difficult_objects_and_crowds_count_neither_way_however_often_found():
    objects = [truth((HERE, 0), (THERE, 0), (FAR, 0), difficult=[1], crowd=[2])]
    detections = [
        found((THERE, 0.9, 0), (THERE, 0.8, 0), (FAR, 0.75, 0), (HERE, 0.7, 0), (FAR, 0.6, 0))
    ]
    (curve,) = average(detections, objects)
    assert (curve.objects, curve.detections, curve.average_precision) == (1, 1, 1.0)


def test_detections_in_an_image_without_objects_are_wrong():
    objects = [truth((HERE, 0)), truth()]
    (curve,) = average([found((HERE, 0.6, 0)), found((HERE, 0.9, 0))], objects)
    assert curve.average_precision == pytest.approx(1 / 2)  # right only at rank two


def test_detections_of_another_class_or_image_find_nothing():
    objects = [truth((HERE, 0)), truth((THERE, 1)), truth((FAR, 2))]
    detections = [found((HERE, 0.9, 1)), found((HERE, 0.9, 0)), found((FAR, 0.1, 2))]
    aps = [one.average_precision for one in average(detections, objects, num_classes=3)]
    assert aps == [0.0, 0.0, 1.0]


def test_class_without_objects_is_nan_and_keeps_its_wrong_detections():
    nothing, something = average([found((HERE, 0.9, 0))], [truth((HERE, 1))], num_classes=2)
    assert math.isnan(nothing.average_precision)
    assert (nothing.objects, nothing.detections) == (0, 1)
    assert (something.objects, something.detections, something.average_precision) == (1, 0, 0.0)


def test_iou_of_exactly_the_threshold_is_right():
    half = [0, 0, 10, 5]
    assert ap.match([found((half, 0.9, 0))], [truth((HERE, 0))]).correct.tolist() == [True]
    less = [0, 0, 10, 4.99]
    assert ap.match([found((less, 0.9, 0))], [truth((HERE, 0))]).correct.tolist() == [False]


def test_equal_scores_keep_their_order():
    objects = [truth((HERE, 0)), truth((HERE, 0))]
    wrong_first = [found((FAR, 0.5, 0), (HERE, 0.5, 0)), found((HERE, 0.5, 0))]
    wrong_last = [found((HERE, 0.5, 0)), found((HERE, 0.5, 0), (FAR, 0.5, 0))]
    (curve,) = average(wrong_first, objects)
    np.testing.assert_allclose(curve.precision, [0, 1 / 2, 2 / 3])
    (curve,) = average(wrong_last, objects)
    np.testing.assert_allclose(curve.precision, [1, 1, 2 / 3])


def test_of_equally_overlapped_objects_the_first_is_matched():
    objects = [truth(([0, 0, 10, 10], 0), ([10, 0, 20, 10], 0))]
    assert ap.match([found(([5, 0, 15, 10], 0.9, 0))], objects).truth.tolist() == [0]


def test_boxes_without_area_match_nothing():
    point = [5, 5, 5, 5]
    assert not ap.match([found((point, 0.9, 0))], [truth((point, 0))]).correct.any()


def _slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _slow_voc(detections, objects, label, rule):
    """VOCevaldet.m, line by line."""
    npos, taken = 0, {}
    for image, one in enumerate(objects):
        for row in range(len(one.labels)):
            if one.labels[row] == label:
                npos += not (one.difficult[row] or one.crowd[row])
                taken[image, row] = False
    mine = [
        (image, one.boxes[row], one.scores[row])
        for image, one in enumerate(detections)
        for row in range(len(one.labels))
        if one.labels[row] == label
    ]
    mine.sort(key=lambda item: -item[2])  # Python's sort is stable
    tp, fp = [], []
    for image, box, _ in mine:
        best, best_row = -math.inf, -1
        for row in range(len(objects[image].labels)):
            if objects[image].labels[row] != label:
                continue
            overlap = _slow_iou(box, objects[image].boxes[row])
            if overlap > best:
                best, best_row = overlap, row
        right = wrong = 0
        if best >= 0.5:
            if not (objects[image].difficult[best_row] or objects[image].crowd[best_row]):
                right, wrong = (0, 1) if taken[image, best_row] else (1, 0)
                taken[image, best_row] = True
        else:
            wrong = 1
        tp.append(right)
        fp.append(wrong)
    if not npos:
        return math.nan
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    precision = [t / (t + f) if t + f else 0 for t, f in zip(tp, fp, strict=True)]
    if rule == "voc07":
        total = 0
        for level in range(11):
            reached = [p for t, p in zip(tp, precision, strict=True) if 10 * t >= level * npos]
            total += max(reached, default=0) / 11
        return total
    recall = [0, *(t / npos for t in tp), 1]
    envelope = [0, *precision, 0]
    for i in reversed(range(len(envelope) - 1)):
        envelope[i] = max(envelope[i], envelope[i + 1])
    return sum((recall[i] - recall[i - 1]) * envelope[i] for i in range(1, len(recall)))


def _random_case(rng):
    """25 images of 3 classes, with crowded, empty and undetected ones, and many equal scores."""
    detections, objects = [], []
    for image in range(25):
        count = 0 if image % 6 == 0 else rng.integers(1, 7)
        corners = rng.integers(0, 30, (count, 2))
        boxes = np.concatenate([corners, corners + rng.integers(4, 20, (count, 2))], axis=1)
        labels = rng.integers(0, 3, count)
        objects.append(
            Truth(
                boxes.astype(float),
                labels,
                rng.random(count) < 0.2,
                rng.random(count) < 0.1,
                np.ones(count),
            )
        )
        copies = np.repeat(np.arange(count), rng.integers(0, 4, count))
        noise = rng.integers(-3, 4, (len(copies), 4))
        strays = rng.integers([0, 0, 20, 20], [20, 20, 40, 40], (0 if image % 5 == 0 else 3, 4))
        all_boxes = np.concatenate([boxes[copies] + noise, strays]).astype(float)
        all_labels = np.concatenate([labels[copies], rng.integers(0, 3, len(strays))])
        scores = rng.integers(0, 10, len(all_labels)) / 10
        detections.append(Found(all_boxes, scores, all_labels))
    return detections, objects


@pytest.mark.parametrize("rule", ["voc07", "voc10"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_a_slow_loop_over_the_rule(rule, seed):
    detections, objects = _random_case(np.random.default_rng(seed))
    fast = [one.average_precision for one in average(detections, objects, rule=rule, num_classes=3)]
    slow = [_slow_voc(detections, objects, label, rule) for label in range(3)]
    assert 0.05 < np.mean(slow) < 0.95
    np.testing.assert_allclose(fast, slow, rtol=1e-12)


def test_work_in_parts_changes_nothing(monkeypatch):
    detections, objects = _random_case(np.random.default_rng(7))
    whole = ap.match(detections, objects)
    monkeypatch.setattr(ap, "_PAIRS", 3)
    for one, other in zip(whole, ap.match(detections, objects), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_detections_at_all_is_zero():
    (curve,) = average([found(), found()], [truth((HERE, 0)), truth()])
    assert (curve.average_precision, curve.objects, len(curve.recall)) == (0.0, 1, 0)
