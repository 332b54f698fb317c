"""Average precision by COCO's rule, computed by pycocotools itself.

Every image takes part, found in or not, empty or not. Class 0 counts. Crowds are `iscrowd`.
Objects marked difficult, which COCO does not have, are ignored as objects outside an area
range are. At most 100 detections of a class in an image count, as COCO has it.

Source: pycocotools 2.0.11, cocoeval.py.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kerasdet.evaluation.image_result import Found, Truth, objects_by_class

# COCOeval.stats in its own order (cocoeval.py, _summarizeDets).
_STATS = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
_IOU_50, _IOU_75, _ALL_AREAS, _MAX_100 = 0, 5, 0, 2  # places in COCOeval's arrays


class CocoClass(NamedTuple):
    """One class by COCO's rule.

    Attributes:
        metrics: "AP", "AP50", "AP75", 0..1; NaN for a class without objects.
        objects: how many there are to find.
        detections: how many came.
        recall: (101,) 0, 0.01, ... 1.
        precision: (101,) at IoU 0.5, made monotone; 0 where the recall is not reached.
        scores: (101,) the score at which the recall is reached.
    """

    metrics: dict[str, float]
    objects: int
    detections: int
    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray


class CocoResult(NamedTuple):
    """COCO's twelve numbers and what they are for each class.

    Attributes:
        metrics: AP AP50 AP75 AP_small AP_medium AP_large AR1 AR10 AR100 AR_small AR_medium
            AR_large, 0..1; NaN where pycocotools says -1, no object to find.
        classes: K of them.
    """

    metrics: dict[str, float]
    classes: list[CocoClass]


def coco_average_precision(
    found: Sequence[Found], truth: Sequence[Truth], *, num_classes: int
) -> CocoResult:
    """COCO's numbers for a data set.

    Args:
        found: detections, one an image.
        truth: objects, one an image, in the same order.
        num_classes: K.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its every step
        evaluator = _evaluator(found, truth, num_classes)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"]  # (IoU, recall, class, area, detections)
    scores = evaluator.eval["scores"]
    objects = objects_by_class(truth, num_classes)
    labels = [one.labels for one in found]
    came = np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=num_classes)
    classes = []
    for label in range(num_classes):
        mine = precision[:, :, label, _ALL_AREAS, _MAX_100]  # (10, 101)
        metrics = {
            "AP": _mean(mine),
            "AP50": _mean(mine[_IOU_50]),
            "AP75": _mean(mine[_IOU_75]),
        }
        classes.append(
            CocoClass(
                metrics,
                int(objects[label]),
                int(came[label]),
                np.array(evaluator.params.recThrs),
                mine[_IOU_50],
                scores[_IOU_50, :, label, _ALL_AREAS, _MAX_100],
            )
        )
    stats = [float(value) if value > -1 else float("nan") for value in evaluator.stats]
    return CocoResult(dict(zip(_STATS, stats, strict=True)), classes)


def _evaluator(found: Sequence[Found], truth: Sequence[Truth], num_classes: int) -> Any:
    from pycocotools.cocoeval import COCOeval

    class Evaluator(COCOeval):
        """COCOeval that also ignores difficult objects; it overwrites their own `ignore`."""

        def _prepare(self):
            super()._prepare()
            for objects in self._gts.values():
                for one in objects:
                    one["ignore"] = one["ignore"] or one["difficult"]

    images = [{"id": index} for index in range(len(truth))]
    categories = [{"id": label} for label in range(num_classes)]
    return Evaluator(
        _coco(images, categories, _truth_rows(truth)),
        _coco(images, categories, _found_rows(found)),
        "bbox",
    )


def _coco(images: list[dict], categories: list[dict], annotations: list[dict]) -> Any:
    from pycocotools.coco import COCO

    data_set = COCO()
    data_set.dataset = {"images": images, "categories": categories, "annotations": annotations}
    data_set.createIndex()
    return data_set


def _truth_rows(truth: Sequence[Truth]) -> list[dict]:
    rows: list[dict] = []
    for index, one in enumerate(truth):
        columns = (
            one.labels.tolist(),
            _xywh(one.boxes),
            one.area.tolist(),
            one.crowd.astype(int).tolist(),
            one.difficult.tolist(),
        )
        for label, box, area, crowd, difficult in zip(*columns, strict=True):
            rows.append(
                {
                    "id": len(rows) + 1,  # COCOeval takes the id 0 for "not matched"
                    "image_id": index,
                    "category_id": label,
                    "bbox": box,
                    "area": area,
                    "iscrowd": crowd,
                    "difficult": difficult,
                }
            )
    return rows


def _found_rows(found: Sequence[Found]) -> list[dict]:
    rows: list[dict] = []
    for index, one in enumerate(found):
        columns = (one.labels.tolist(), _xywh(one.boxes), one.scores.tolist())
        for label, box, score in zip(*columns, strict=True):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": index,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "score": score,
                }
            )
    return rows


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")
