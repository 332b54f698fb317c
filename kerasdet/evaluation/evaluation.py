"""Runs a detector over examples and scores what it found.

Works from the examples alone, one image at a time in the image's own pixels, so that the
numbers are those of `model.detect` and of nothing else. Images are not kept.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasdet.errors import InputError
from kerasdet.evaluation.average_precision import voc_average_precision
from kerasdet.evaluation.coco import coco_average_precision
from kerasdet.evaluation.image_result import Found, ImageResult, Truth, found_from, truth_from
from kerasdet.evaluation.inputs import (
    MatchedClasses,
    answering,
    known_length,
    matched_classes,
    numpy_examples,
    text,
)

if TYPE_CHECKING:
    from rich.table import Table

RULES = ("voc10", "voc07", "coco")


@dataclass(frozen=True, eq=False)
class ClassResult:
    """One class.

    Attributes:
        name: the class.
        metrics: "AP50", and by COCO's rule "AP" and "AP75", 0..1; NaN without objects.
        objects: how many there are to find; difficult ones and crowds are not among them.
        detections: how many were made (VOC: and counted).
        recall: (n,) at IoU 0.5, rising.
        precision: (n,) at that recall.
        scores: (n,) the score threshold that gives the pair.
    """

    name: str
    metrics: dict[str, float]
    objects: int
    detections: int
    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found. Print it with Rich for a table.

    Attributes:
        rule: "voc10", "voc07" or "coco".
        metrics: means over the classes that have objects, 0..1: "AP50", and by COCO's rule all
            twelve numbers (see `coco.CocoResult`).
        classes: one result a class, in label order.
        images: one an image, in the order read: its detections and objects, without pixels.
        settings: what `model.detect` was asked: score_threshold, iou_threshold, max_detections;
            None stands for the model's own.
        data: name of the data set, "" if it has none.
        seconds: the whole run, reading and detecting included.
        left_out: the data's classes that the model does not have, or has several by the name of;
            their objects do not count.
    """

    rule: str
    metrics: dict[str, float]
    classes: list[ClassResult]
    images: list[ImageResult]
    settings: dict[str, float | int | None]
    data: str
    seconds: float
    left_out: Sequence[str] = ()

    @property
    def class_names(self) -> list[str]:
        """Names by label; labels of the detections and objects here count in this list."""
        return [one.name for one in self.classes]

    def to_dict(self) -> dict[str, Any]:
        """Numbers without curves and boxes, ready for JSON; NaN becomes None."""
        return {
            "rule": self.rule,
            "data": self.data,
            "metrics": _json_ready(self.metrics),
            "images": len(self.images),
            "objects": sum(one.objects for one in self.classes),
            "detections": sum(one.detections for one in self.classes),
            "classes": [
                {"name": one.name, "objects": one.objects, "detections": one.detections}
                | _json_ready(one.metrics)
                for one in self.classes
            ],
            "left_out": list(self.left_out),
            "settings": self.settings,
            "seconds": round(self.seconds, 3),
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def table(self) -> Table:
        """A Rich table, one row a class and the means below."""
        from rich.markup import escape
        from rich.table import Table

        columns = list(self.classes[0].metrics)
        table = Table(
            title=escape(self.data) or None, caption=escape(self.summary()), show_footer=True
        )
        table.add_column("class", footer="mean")
        table.add_column("objects", justify="right", footer=str(self.to_dict()["objects"]))
        table.add_column("detections", justify="right", footer=str(self.to_dict()["detections"]))
        for name in columns:
            table.add_column(name, justify="right", footer=_percent(self.metrics[name]))
        for one in self.classes:
            numbers = (_percent(one.metrics[name]) for name in columns)
            table.add_row(escape(one.name), str(one.objects), str(one.detections), *numbers)
        return table

    def summary(self) -> str:
        """One line: the means, the rule and how much was looked at."""
        shown = [name for name in ("AP", "AP50", "AP75") if name in self.metrics]
        numbers = " ".join(f"{name} {_percent(self.metrics[name])}" for name in shown)
        rule = {"voc07": "VOC 2007", "voc10": "VOC 2010", "coco": "COCO"}[self.rule]
        objects = sum(one.objects for one in self.classes)
        left_out = ""
        if self.left_out:
            few = ", ".join(self.left_out[:5]) + (", ..." if len(self.left_out) > 5 else "")
            left_out = f"; {len(self.left_out)} of the data's classes left out ({few})"
        return (
            f"{numbers} by {rule}'s rule: {len(self.images)} images, {objects} objects, "
            f"{self.seconds:.1f} s{left_out}"
        )

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return self.summary()


def evaluate(
    model: Any,
    examples: Any,
    *,
    rule: str = "voc10",
    batch_size: int = 8,
    score_threshold: float | None = 0.01,
    iou_threshold: float | None = None,
    max_detections: int | None = None,
    max_images: int | None = None,
    class_names: Sequence[str] | None = None,
    match_names: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Detects in every example and scores the detections against its objects.

    Args:
        model: anything with `detect` and `class_names`.
        examples: unbatched examples as `kerasdet.data` reads them, or any iterable of such
            dicts. A `name` and `class_names` it carries are used.
        rule: "voc10" (area under the curve), "voc07" (11 points) or "coco".
        batch_size: images handed to `model.detect` at once.
        score_threshold: lowest score detected. Curves need the low ones: 0.01 is what the SSD
            authors evaluate with. None: the model's own.
        iou_threshold: of the suppression. None: the model's own.
        max_detections: in an image. None: the model's own.
        max_images: stop after so many. None: all.
        class_names: of the examples' labels, where the data set no longer carries them, as
            after `.map`. Neither: the labels are taken for the model's.
        match_names: match classes by name, VOC's and COCO's words for one thing among them,
            where the lists differ. The result then counts in the classes that both have, in
            the data's order; objects and detections of the others are left out.
        progress: show a bar.

    Raises:
        InputError: if the class lists differ (the message shows both), examples are batched,
            there are no images or no objects, or a detection is not finite. With
            `match_names`: if they share no class.
    """
    if rule not in RULES:
        raise InputError(f"The rule of evaluation wants to be one of {', '.join(RULES)}: {rule!r}.")
    began = time.perf_counter()
    naming: dict[str, Any] = {"class_names": class_names, "match_names": match_names}
    model = answering(model, examples, **naming)
    classes = matched_classes(model, examples, **naming)
    settings = {
        "score_threshold": score_threshold,
        "iou_threshold": iou_threshold,
        "max_detections": max_detections,
    }
    total = known_length(examples)
    if max_images is not None:
        total = max_images if total is None else min(total, max_images)
    elements = itertools.islice(numpy_examples(examples), max_images)
    images: list[ImageResult] = []
    with progress_bar(progress, total) as advance:
        for group in _grouped(elements, batch_size):
            given = _regions(group) if getattr(model, "takes_regions", False) else {}
            detections = model.detect([e["image"] for e in group], **given, **settings)
            for example, found in zip(group, detections, strict=True):
                images.append(_image_result(example, found, classes, len(images)))
            advance(len(group))
    if not images:
        raise InputError(f"Evaluation wants at least one image; {_name(examples)} has none.")
    metrics, results = _score(images, classes.names, rule)
    if not any(one.objects for one in results):
        raise InputError(
            f"Evaluation wants at least one object to find; the {len(images)} images of "
            f"{_name(examples)} have none (difficult ones and crowds aside)."
        )
    data = str(getattr(examples, "name", ""))
    seconds = time.perf_counter() - began
    return Evaluation(rule, metrics, results, images, settings, data, seconds, classes.left_out)


def _regions(group: Sequence[Mapping]) -> dict[str, Any]:
    """The regions that examples bring with them; the detector finds those of the others."""
    return {"regions": [example.get("regions") for example in group]}


@contextlib.contextmanager
def progress_bar(shown: bool, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, or nothing, and the function that moves it on."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("evaluate"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("images"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)  # stdout is for results
    with progress.Progress(*columns, console=console, disable=not shown) as display:
        task = display.add_task("evaluate", total=total)
        yield lambda count: display.advance(task, count)


def _score(
    images: Sequence[ImageResult], names: Sequence[str], rule: str
) -> tuple[dict[str, float], list[ClassResult]]:
    found = [one.found for one in images]
    truth = [one.truth for one in images]
    if rule == "coco":
        result = coco_average_precision(found, truth, num_classes=len(names))
        classes = [ClassResult(name, *one) for name, one in zip(names, result.classes, strict=True)]
        return result.metrics, classes
    curves = voc_average_precision(found, truth, num_classes=len(names), rule=rule)
    classes = [
        ClassResult(name, {"AP50": curve.average_precision}, *curve[1:])
        for name, curve in zip(names, curves, strict=True)
    ]
    values = [curve.average_precision for curve in curves if curve.objects]
    return {"AP50": float(np.mean(values)) if values else math.nan}, classes


def _image_result(
    example: Mapping[str, Any], detections: Any, classes: MatchedClasses, index: int
) -> ImageResult:
    image_id = text(example.get("image_id", ""))
    path = text(example.get("path", ""))
    where = f"image {image_id or path or index}"
    found = found_from(detections, num_classes=len(classes.from_model), where=where)
    labels = classes.from_model[found.labels]
    here = labels >= 0
    found = Found(found.boxes[here], found.scores[here], labels[here])
    truth = truth_from(example, num_classes=len(classes.from_data), where=where)
    labels = classes.from_data[truth.labels]
    truth = truth._replace(labels=labels)
    truth = Truth(*(column[labels >= 0] for column in truth))
    height, width = np.shape(example["image"])[:2]
    return ImageResult(image_id, path, (int(height), int(width)), found, truth)


def _grouped(elements: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(elements)
    while group := list(itertools.islice(iterator, max(1, size))):
        yield group


def _name(examples: Any) -> str:
    return getattr(examples, "name", "") or "the data"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _json_ready(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else round(value, 6) for name, value in metrics.items()}
