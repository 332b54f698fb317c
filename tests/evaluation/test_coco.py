import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kerasdet.evaluation.average_precision import voc_average_precision
from kerasdet.evaluation.coco import coco_average_precision
from kerasdet.evaluation.image_result import Found, Truth


def _case(rng):
    """Three classes, sizes from small to large; image 3 is empty and image 5 without detections.

    Class 1 has one object; in image 4 there is a crowd of class 0 with detections inside it.
    """
    detections, objects = [], []
    for image in range(12):
        count = 0 if image == 3 else int(rng.integers(1, 5))
        corners = rng.uniform(0, 200, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(8, 180, (count, 2))], axis=1)
        labels = rng.choice([0, 2], count)
        if image == 7:
            labels[0] = 1
        crowd = np.zeros(count, bool)
        if image == 4:
            boxes[0], labels[0], crowd[0] = [10, 10, 300, 200], 0, True
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * rng.uniform(0.5, 0.9, count)
        objects.append(Truth(boxes, labels, np.zeros(count, bool), crowd, area))
        found = np.repeat(boxes, 2, axis=0) + rng.normal(0, 6, (2 * count, 4))
        found_labels = np.repeat(labels, 2)
        if image == 4:
            found = np.concatenate([found, [[20, 20, 60, 60], [100, 50, 130, 90]]])
            found_labels = np.append(found_labels, [0, 0])
        strays = np.array([[0.0, 0, 50, 40], [5, 100, 20, 150]])
        found = np.concatenate([found, strays])
        found_labels = np.append(found_labels, [0, 1])
        if image == 5:
            found, found_labels = found[:0], found_labels[:0]
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        detections.append(Found(found, rng.random(len(found)), found_labels))
    return detections, objects


def _straight_from_files(detections, objects, folder):
    """The same case as COCO's own files, ids and loader; categories count from 1 there."""
    images = [{"id": 100 + index, "width": 400, "height": 400} for index in range(len(objects))]
    annotations = [
        {
            "id": 1 + 1000 * index + row,
            "image_id": 100 + index,
            "category_id": int(one.labels[row]) + 1,
            "bbox": [*one.boxes[row, :2], *(one.boxes[row, 2:] - one.boxes[row, :2])],
            "area": one.area[row],
            "iscrowd": int(one.crowd[row]),
        }
        for index, one in enumerate(objects)
        for row in range(len(one.labels))
    ]
    results = [
        {
            "image_id": 100 + index,
            "category_id": int(one.labels[row]) + 1,
            "bbox": [*one.boxes[row, :2], *(one.boxes[row, 2:] - one.boxes[row, :2])],
            "score": one.scores[row],
        }
        for index, one in enumerate(detections)
        for row in range(len(one.labels))
    ]
    categories = [{"id": label + 1, "name": str(label)} for label in range(3)]
    (folder / "truth.json").write_text(
        json.dumps(
            {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        )
    )
    (folder / "found.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        direct = COCOeval(truth, truth.loadRes(str(folder / "found.json")), "bbox")
        direct.evaluate()
        direct.accumulate()
        direct.summarize()
    return direct


@pytest.mark.parametrize("seed", range(3))
def test_all_twelve_numbers_are_those_of_pycocotools_on_files(seed, tmp_path):
    detections, objects = _case(np.random.default_rng(seed))
    ours = coco_average_precision(detections, objects, num_classes=3)
    direct = _straight_from_files(detections, objects, tmp_path)
    expected = np.where(direct.stats > -1, direct.stats, np.nan)
    assert 0.05 < expected[0] < 0.95
    np.testing.assert_allclose(list(ours.metrics.values()), expected, rtol=1e-9)
    assert list(ours.metrics)[:3] == ["AP", "AP50", "AP75"]
    for label, one in enumerate(ours.classes):
        own = direct.eval["precision"][:, :, label, 0, 2]
        assert one.metrics["AP"] == pytest.approx(own.mean())
        np.testing.assert_allclose(one.precision, own[0])
    assert ours.classes[1].objects == 1
    assert sum(one.objects for one in ours.classes) == sum(
        int((~one.crowd).sum()) for one in objects
    )


def test_images_without_detections_count():
    box = np.array([[10.0, 10, 60, 60]])
    one = Truth(box, np.array([0]), np.zeros(1, bool), np.zeros(1, bool), np.array([2500.0]))
    hit = Found(box, np.array([0.9]), np.array([0]))
    none = Found(box[:0], np.zeros(0), np.zeros(0, int))
    half = coco_average_precision([hit, none], [one, one], num_classes=1)
    # Recall 0, 0.01 ... 0.5 are reached with precision 1: 51 of the 101 levels.
    assert half.metrics["AP50"] == pytest.approx(51 / 101)
    assert half.metrics["AR100"] == pytest.approx(1 / 2)


def test_the_very_first_object_of_class_zero_can_be_found():
    # COCOeval takes object id 0 for "unmatched", and label 0 is where others lose a class.
    box = np.array([[0.0, 0, 40, 40]])
    one = Truth(box, np.array([0]), np.zeros(1, bool), np.zeros(1, bool), np.array([1600.0]))
    result = coco_average_precision(
        [Found(box, np.array([0.5]), np.array([0]))], [one], num_classes=2
    )
    assert result.metrics["AP"] == pytest.approx(1)
    assert np.isnan(result.classes[1].metrics["AP"])


def test_difficult_objects_are_ignored_and_need_a_good_iou():
    boxes = np.array([[0.0, 0, 40, 40], [60, 0, 160, 100]])
    objects = Truth(
        boxes, np.array([0, 0]), np.array([False, True]), np.zeros(2, bool), np.array([1600.0, 1e4])
    )
    on_difficult = Found(boxes[[1, 0]], np.array([0.9, 0.8]), np.array([0, 0]))
    result = coco_average_precision([on_difficult], [objects], num_classes=1)
    assert result.metrics["AP"] == pytest.approx(1)
    # A small box inside a difficult object is no find, though inside a crowd it would be.
    inside = Found(
        np.array([[70.0, 10, 90, 30], [0, 0, 40, 40]]), np.array([0.9, 0.8]), np.zeros(2, int)
    )
    result = coco_average_precision([inside], [objects], num_classes=1)
    assert result.metrics["AP50"] == pytest.approx(1 / 2)


def test_agrees_with_voc_2010_at_iou_half_without_ignored_objects():
    rng = np.random.default_rng(3)
    detections, objects = [], []
    for _ in range(60):  # objects apart from each other: the two ways of matching agree
        boxes = np.array([[x, y, x + 50, y + 40] for x in (0, 100, 200) for y in (0, 100)], float)
        labels = rng.integers(0, 3, 6)
        none = np.zeros(6, bool)
        objects.append(Truth(boxes, labels, none, none, np.full(6, 2000.0)))
        moved = boxes + rng.normal(0, 8, boxes.shape)
        detections.append(Found(moved, rng.random(6), labels))
    coco = coco_average_precision(detections, objects, num_classes=3).metrics["AP50"]
    voc = np.mean(
        [c.average_precision for c in voc_average_precision(detections, objects, num_classes=3)]
    )
    assert 0.3 < voc < 0.95
    assert coco == pytest.approx(voc, abs=0.01)  # COCO reads the curve at 101 places


def test_says_nothing_on_stdout(capsys):
    coco_average_precision(*_case(np.random.default_rng(0)), num_classes=3)
    assert capsys.readouterr().out == ""
