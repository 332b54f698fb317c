"""What is in a data set, and what is wrong with it."""

import csv
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasdet.data import example as ex
from kerasdet.data.progress import track
from kerasdet.errors import InputError
from kerasdet.orientation import turn_of_file

_IOU_EDGES = np.linspace(0, 1, 11)
_MOST_BOXES = 20_000  # objects compared with the default boxes; 8732 of these each take 0.1 ms
_MATCH = 0.5  # SSD sec. 2.2: a default box matches an object it overlaps by this or more


@dataclasses.dataclass(frozen=True)
class Check:
    """What `check` found.

    Attributes:
        name: of the data.
        images: that can be used.
        objects: that can be used.
        problems: list of `Problem`, first those of the annotations, then those of the images.
        oriented: images in files whose EXIF says that they do not stand upright as stored.
        as_stored: of these, those that are used as stored, since their annotations' size says so.
    """

    name: str
    images: int
    objects: int
    problems: list[ex.Problem]
    oriented: int = 0
    as_stored: int = 0

    @property
    def faults(self) -> list[ex.Problem]:
        """The problems that are more than a note."""
        return [problem for problem in self.problems if problem.rule not in ex.NOTES]

    @property
    def counts(self) -> dict[str, int]:
        """Problems by rule, most frequent first."""
        return dict(Counter(problem.rule for problem in self.problems).most_common())

    def write_csv(self, path: str | os.PathLike) -> Path:
        """Writes one line a problem: file, row, rule, value, action."""
        path = Path(path)
        try:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(ex.Problem._fields)
                writer.writerows(self.problems)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        return path

    def __rich__(self) -> Any:
        return self.render()

    def render(self, *, most: int = 50) -> Any:
        """The same for a terminal: a Rich renderable with at most `most` problems in full."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        parts: list[Any] = []
        if self.problems:
            table = Table(title=f"{escape(self.name)}: problems", title_justify="left")
            for field in ex.Problem._fields:
                table.add_column(field, overflow="fold")
            for problem in self.problems[:most]:
                table.add_row(*map(escape, problem))
            parts.append(table)
            if len(self.problems) > most:
                parts.append(f"... and {len(self.problems) - most} more")
            counts = ", ".join(f"{count} {rule}" for rule, count in self.counts.items())
            parts.append(f"{_counted(len(self.problems), 'problem')}: {counts}")
        else:
            parts.append("no problems")
        if self.oriented:
            parts.append(
                f"{_counted(self.oriented, 'image')} with an EXIF orientation: {self.as_stored} used "
                "as stored, as the annotations' sizes say, and the rest turned upright"
            )
        none = "" if self.images else ": there is nothing to train on"
        parts.append(f"{self.images} images and {self.objects} objects can be used{none}")
        return Group(*parts)


def check(dataset: Any, *, csv: str | os.PathLike | None = None) -> Check:
    """Goes through all annotations and decodes every image.

    Args:
        dataset: of examples, from any reader; one without the readers' attributes is checked too.
        csv: where to write the problems as well.
    """
    name = getattr(dataset, "name", None) or "data"
    names = getattr(dataset, "class_names", None)
    elements = ex.Inspector()
    images = objects = oriented = as_stored = 0
    for example in track(_arrays(dataset), "Checking images", total=_count(dataset)):
        images += 1
        turned = _turned(example)
        oriented += turned is not None
        as_stored += turned is False
        objects += len(example["labels"])
        _check_elements(example, len(names) if names else None, elements)
    # After the loop, in which the data may have met broken images.
    problems = [*(getattr(dataset, "problems", None) or ()), *elements.problems]
    if not images:
        problems.append(ex.Problem(name, "", ex.NONE_USABLE, f"0 of {_count(dataset)}", "found"))
    noted = {problem.file for problem in problems if problem.rule == ex.NO_OBJECTS}
    problems = [*problems, *(n for n in _notes(dataset, problems) if n.file not in noted)]
    problems = list(dict.fromkeys(problems))
    found = Check(name, images, objects, problems, oriented=oriented, as_stored=as_stored)
    if csv is not None:
        found.write_csv(csv)
    return found


def summary(problems: Iterable[ex.Problem], *, most: int = 3) -> str:
    """What became of them in one line, "4 annotations left out, 1 image that cannot be read (a.jpg)".

    Args:
        problems: notes (`ex.NOTES`) do not count.
        most: unreadable images that are named.

    Returns:
        "" for none.
    """
    problems = [problem for problem in problems if problem.rule not in ex.NOTES]
    images = (ex.DROPPED_IMAGE, "image left out")
    boxes = sum(problem.action == ex.DROPPED_BOX for problem in problems)
    left_out = sum(problem.action in images for problem in problems)
    lost = [os.path.basename(p.file) for p in problems if p.action == ex.SKIPPED_IMAGE]
    others = len(problems) - boxes - left_out - len(lost)
    named = ", ".join(lost[:most]) + (" and others" if len(lost) > most else "")
    parts = {
        f"{_counted(boxes, 'annotation')} left out": boxes,
        f"{_counted(left_out, 'image')} left out": left_out,
        f"{_counted(len(lost), 'image')} that cannot be read ({named})": lost,
        f"{_counted(others, 'other problem')}": others,
    }
    return ", ".join(text for text, there in parts.items() if there)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _count(dataset: Any) -> int | None:
    records = getattr(dataset, "records", None)
    if records is not None:
        return len(records)
    size = int(dataset.cardinality())
    return size if size >= 0 else None


def _arrays(dataset: Any) -> Iterator[dict[str, np.ndarray]]:
    return dataset.as_numpy_iterator()


def _turned(example: dict[str, Any]) -> bool | None:
    """Whether the photo was turned upright; None for one that is so as stored, or in no file."""
    path = example.get("path", b"").decode("utf-8", "replace")
    if not path or turn_of_file(path) == 1:
        return None
    return turn_of_file(path, example["image"].shape[:2]) != 1


def _check_elements(example: dict[str, Any], classes: int | None, found: ex.Inspector) -> None:
    """What a user's own `map` can break; the readers' own elements pass."""
    height, width = example["image"].shape[:2]
    file = (example.get("path", b"") or example.get("image_id", b"")).decode("utf-8", "replace")
    if len(example["boxes"]) != len(example["labels"]):
        value = f"{len(example['boxes'])} boxes, {len(example['labels'])} labels"
        found.report(file, "", rule=ex.MISSING_VALUE, value=value, action="found")
        return
    for number, (box, label) in enumerate(
        zip(example["boxes"], example["labels"], strict=True), start=1
    ):
        before = len(found.problems)
        found.box(file, f"object {number}", raw=box.tolist(), height=height, width=width)
        if label < 0 or (classes is not None and label >= classes):
            found.report(
                file, f"object {number}", rule=ex.UNKNOWN_CLASS, value=label, action="found"
            )
        found.problems[before:] = [p._replace(action="found") for p in found.problems[before:]]


def _notes(dataset: Any, problems: Sequence[ex.Problem]) -> Iterator[ex.Problem]:
    unreadable = {problem.file for problem in problems if problem.rule == ex.UNREADABLE_IMAGE}
    for record in getattr(dataset, "records", None) or ():
        if not len(record.labels) and record.path not in unreadable:
            yield ex.Problem(
                record.path or record.image_id, "", ex.NO_OBJECTS, "no valid box", "image kept"
            )


@dataclasses.dataclass(frozen=True)
class Stats:
    """What `stats` counted.

    Attributes:
        name: of the data.
        images: all.
        empty_images: those without objects.
        objects: all but crowds.
        crowds: COCO's crowd regions.
        difficult: VOC's difficult objects.
        class_counts: objects of each class by name, in label order; crowds left out.
        image_sizes: (height, width) to number of images, most frequent first.
        widths: float32 (N,), of the objects that are no crowds, pixels of their own image.
        heights: float32 (N,), the same.
        relative_sizes: float32 (N,), root of box area over image area, 0..1.
        best_iou: float32 (M,) of each object with its best default box once the image is warped to
            the network's size; M < N where objects were sampled. None without default boxes.
        network_size: (height, width), or None.
    """

    name: str
    images: int
    empty_images: int
    objects: int
    crowds: int
    difficult: int
    class_counts: dict[str, int]
    image_sizes: dict[tuple[int, int], int]
    widths: np.ndarray
    heights: np.ndarray
    relative_sizes: np.ndarray
    best_iou: np.ndarray | None = None
    network_size: tuple[int, int] | None = None

    @property
    def unmatched(self) -> float | None:
        """Share of objects that no default box overlaps by an IoU of 0.5; None without boxes."""
        if self.best_iou is None or not len(self.best_iou):
            return None
        return float(np.mean(self.best_iou < _MATCH))

    @property
    def iou_histogram(self) -> np.ndarray | None:
        """Objects by best IoU in steps of 0.1, (10,); None without boxes."""
        if self.best_iou is None:
            return None
        return np.histogram(self.best_iou, _IOU_EDGES)[0]

    def __rich__(self) -> Any:
        return self.render()

    def render(self) -> Any:
        """The same for a terminal: a Rich renderable."""
        from rich.console import Group
        from rich.markup import escape

        lines = [
            f"[bold]{escape(self.name)}[/]",
            f"{self.images} images, {self.empty_images} without objects",
            f"{self.objects} objects, {self.difficult} difficult; {self.crowds} crowd regions",
        ]
        sizes = [f"{w}x{h} ({n})" for (h, w), n in list(self.image_sizes.items())[:4]]
        more = len(self.image_sizes) - len(sizes)
        lines.append(f"image sizes: {', '.join(sizes)}" + (f" and {more} more" if more else ""))
        parts: list[Any] = ["\n".join(lines), _bars("class", "objects", self.class_counts)]
        if self.objects:
            parts.append(self._size_table())
        if self.best_iou is not None and self.network_size is not None:
            bins = np.histogram(self.best_iou, _IOU_EDGES)[0]
            rows = {f"{_IOU_EDGES[i]:.1f}": int(n) for i, n in enumerate(bins)}
            parts.append(_bars("best IoU from", "objects", rows))
            h, w = self.network_size
            sampled = f", measured on {len(self.best_iou)}" * (len(self.best_iou) < self.objects)
            parts.append(
                f"{self.unmatched:.1%} of the objects match no default box at IoU {_MATCH} or more "
                f"({w}x{h} network{sampled})"
            )
        return Group(*parts)

    def _size_table(self) -> Any:
        from rich.table import Table

        percents = (0, 5, 25, 50, 75, 95, 100)
        table = Table(title="boxes by percentile", title_justify="left")
        table.add_column("")
        for percent in percents:
            table.add_column(f"{percent} %", justify="right")
        for title, values, form in (
            ("width, pixels", self.widths, ".0f"),
            ("height, pixels", self.heights, ".0f"),
            ("width / height", self.widths / self.heights, ".2f"),
            ("root of area / image's", self.relative_sizes, ".3f"),
        ):
            table.add_row(title, *(f"{v:{form}}" for v in np.percentile(values, percents)))
        return table


def stats(
    dataset: Any,
    *,
    default_boxes: np.ndarray | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Stats:
    """Counts images, objects and classes, measures boxes, and compares them with default boxes.

    Args:
        dataset: of examples. With `records`, no image is decoded.
        default_boxes: (A, 4), xyxy in pixels of the network's input.
        image_size: of the network's input, a number or (height, width); needed with
            `default_boxes`. Images are warped to it, as SSD does.

    Raises:
        InputError: for default boxes without an image size, or of another shape.
    """
    if (default_boxes is None) != (image_size is None):
        raise InputError("stats needs default_boxes and image_size together, or neither")
    rows = list(_objects(dataset))
    sizes = np.array([(height, width) for height, width, *_ in rows], np.float32).reshape(-1, 2)
    counts = [len(labels) for _, _, _, labels, _, _ in rows]
    size_of = np.repeat(sizes, counts, axis=0)  # (N, 2)
    boxes, labels, difficult, crowd = (
        np.concatenate([row[i] for row in rows]) if rows else np.zeros((0, 4)[: 2 - (i > 2)])
        for i in (2, 3, 4, 5)
    )
    single = ~crowd.astype(bool)
    boxes, size_of = boxes[single], size_of[single]
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    names = getattr(dataset, "class_names", None)
    if names is None:
        names = [f"class {n}" for n in range(int(labels.max(initial=-1)) + 1)]
    by_label = np.bincount(labels[single].astype(int), minlength=len(names))
    best: np.ndarray | None = None
    network: tuple[int, int] | None = None
    if default_boxes is not None and image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        network = (int(height), int(width))
        best = _best_iou(boxes, size_of, default_boxes, network)
    return Stats(
        name=getattr(dataset, "name", None) or "data",
        images=len(rows),
        empty_images=sum(count == 0 for count in counts),
        objects=len(boxes),
        crowds=int((~single).sum()),
        difficult=int(difficult[single].sum()),
        class_counts={name: int(count) for name, count in zip(names, by_label, strict=False)},
        image_sizes=dict(Counter((int(h), int(w)) for h, w in sizes).most_common()),
        widths=widths,
        heights=heights,
        relative_sizes=np.sqrt(widths * heights / size_of.prod(axis=1)),
        best_iou=best,
        network_size=network,
    )


def _objects(dataset: Any) -> Iterable[tuple]:
    """height, width, boxes, labels, difficult, crowd of every image."""
    records = getattr(dataset, "records", None)
    if records is not None:
        for r in records:
            yield r.height, r.width, r.boxes, r.labels, r.difficult, r.crowd
        return
    for example in track(_arrays(dataset), "Reading examples", total=_count(dataset)):
        no = np.zeros(len(example["labels"]), bool)
        flags = example.get("difficult", no), example.get("crowd", no)
        yield *example["image"].shape[:2], example["boxes"], example["labels"], *flags


def _best_iou(
    boxes: np.ndarray, sizes: np.ndarray, default_boxes: np.ndarray, network: tuple[int, int]
) -> np.ndarray:
    defaults = np.asarray(default_boxes, np.float32)
    if defaults.ndim != 2 or defaults.shape[1] != 4 or not len(defaults):
        raise InputError(f"default_boxes must be (A, 4), not {defaults.shape}")
    if len(boxes) > _MOST_BOXES:
        chosen = np.random.default_rng(0).choice(len(boxes), _MOST_BOXES, replace=False)
        boxes, sizes = boxes[chosen], sizes[chosen]
    scale = np.array(network, np.float32) / sizes  # (N, 2) for y, x
    warped = boxes * scale[:, [1, 0, 1, 0]]
    best = np.zeros(len(boxes), np.float32)
    area = (defaults[:, 2:] - defaults[:, :2]).prod(axis=1)
    for start in track(range(0, len(boxes), 64), "Comparing with default boxes"):
        part = warped[start : start + 64, None]  # (64, 1, 4)
        low = np.maximum(part[..., :2], defaults[:, :2])
        high = np.minimum(part[..., 2:], defaults[:, 2:])
        shared = np.maximum(high - low, 0).prod(axis=2)  # (64, A)
        own = (part[..., 2:] - part[..., :2]).prod(axis=2)
        best[start : start + 64] = (shared / (own + area - shared)).max(axis=1)
    return best


def _bars(key: str, value: str, counts: dict[str, int]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column(key)
    table.add_column(value, justify="right")
    table.add_column("")
    most = max(counts.values(), default=0) or 1
    for name, count in counts.items():
        table.add_row(escape(name), str(count), "#" * round(30 * count / most))
    return table
