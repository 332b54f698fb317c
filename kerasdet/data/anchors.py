"""Dimension clusters: the anchors that fit a data set's own boxes.

k-means over the boxes' widths and heights with the distance 1 - IoU of two boxes about one centre
(Redmon and Farhadi, arXiv:1612.08242, sec. 2, dimension clusters). Sizes are measured as the network
sees them, after the image was brought to its input.

The paper does not say how the clustering starts or where a cluster's centroid lies. Here each of
several starts spreads its first centroids by k-means++ (Arthur and Vassilvitskii 2007) in that
distance, and the best one counts. A centroid moves to the mean or to the median of its boxes' widths
and heights, whichever overlaps them more, and stays where neither does: the mean, which is k-means'
own, need not raise the average IoU, and a few large boxes draw it off.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasdet.data.example import Record
from kerasdet.data.progress import track
from kerasdet.errors import InputError
from kerasdet.images import placement

CELL = 32
"""Pixels of the network's input for one cell of its grid, YOLOv2's stride."""

_RESIZES = ("letterbox", "warp")
_STARTS = 10
_ITERATIONS = 100
_LAST_ITERATIONS = 10  # with all boxes, from where those of the sample went
_SAMPLE = 20_000  # distinct sizes among which the starts are tried; the best goes on with all
_CHUNK = 2**20  # box-anchor pairs compared at once


class Means(NamedTuple):
    """The result of one clustering.

    Attributes:
        anchors: float64 (k, 2), width and height in the unit of the sizes, by rising area.
        average_iou: mean over all boxes of the IoU with the anchor they overlap most.
    """

    anchors: np.ndarray
    average_iou: float


@dataclasses.dataclass(frozen=True, eq=False)
class Clusters:
    """What `clusters` found.

    Attributes:
        name: of the data.
        image_size: (height, width) of the network's input.
        resize: how an image comes to that size, "warp" or "letterbox".
        sizes: (N, 2), every box's width and height in pixels of that input.
        pixels: (k, 2), the anchors, width and height in pixels of that input, by rising area.
        average_iou: of the boxes with them.
        curve: average IoU for each number of clusters, 1, 2, ...
        others: of anchor sets from elsewhere by name: number of anchors, average IoU.
    """

    name: str
    image_size: tuple[int, int]
    resize: str
    sizes: np.ndarray
    pixels: np.ndarray
    average_iou: float
    curve: dict[int, float]
    others: dict[str, tuple[int, float]]

    @property
    def cells(self) -> np.ndarray:
        """(k, 2), the anchors in cells, as cfg files and `YOLOv2(anchors=...)` have them."""
        return self.pixels / CELL

    def to_dict(self) -> dict[str, Any]:
        """The numbers, for a JSON file."""
        return {
            "data": self.name,
            "boxes": len(self.sizes),
            "image_size": list(self.image_size),
            "resize": self.resize,
            "anchors_cells": self.cells.round(5).tolist(),
            "anchors_pixels": self.pixels.round(3).tolist(),
            "average_iou": self.average_iou,
            "average_iou_by_clusters": {str(k): iou for k, iou in self.curve.items()},
            "others": {
                name: {"anchors": count, "average_iou": iou}
                for name, (count, iou) in self.others.items()
            },
        }

    def __rich__(self) -> Any:
        return self.render()

    def render(self) -> Any:
        """The same for a terminal: a Rich renderable."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        height, width = self.image_size
        head = f"[bold]{escape(self.name)}[/]: {len(self.sizes)} boxes, {self.resize} to {width}x{height}"
        anchors = Table(title=f"{len(self.pixels)} clusters", title_justify="left")
        for title in ("width, cells", "height, cells", "width, pixels", "height, pixels"):
            anchors.add_column(title, justify="right")
        for cells, pixels in zip(self.cells, self.pixels, strict=True):
            anchors.add_row(*(f"{side:.5g}" for side in cells), *(f"{side:.1f}" for side in pixels))
        table = Table(title="average IoU of a box with its best anchor", title_justify="left")
        table.add_column("anchors")
        for title in ("number", "average IoU"):
            table.add_column(title, justify="right")
        for count, iou in self.curve.items():
            table.add_row("clusters", str(count), f"{iou:.3f}")
        for name, (count, iou) in self.others.items():
            table.add_row(escape(name), str(count), f"{iou:.3f}")
        return Group(head, anchors, table)

    def plot(self, path: str | os.PathLike) -> Path:
        """Writes the average IoU over the number of clusters, and the boxes with their anchors.

        Args:
            path: .png, .svg or .pdf; missing folders are made.

        Raises:
            InputError: if the file cannot be written.
        """
        from matplotlib.figure import Figure  # no pyplot: no window, no global state

        figure = Figure(figsize=(10.4, 4.6), layout="constrained")
        curve, boxes = figure.subplots(1, 2)
        self._draw_curve(curve)
        self._draw_boxes(boxes)
        name = self.name.replace("$", r"\$")  # between two of them would be a formula
        figure.suptitle(f"{name}: dimension clusters of {len(self.sizes)} boxes", fontsize=12)
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=130)
        except (OSError, ValueError) as error:  # ValueError: an ending matplotlib does not write
            raise InputError(f"The plot cannot be written to {path}: {error}.") from error
        return path

    def _draw_curve(self, axes: Any) -> None:
        axes.plot(list(self.curve), list(self.curve.values()), "o-", label="clusters")
        axes.plot(
            [len(self.pixels)], [self.average_iou], "o", mfc="none", ms=14, mew=1.5, color="C0"
        )
        for number, (name, (count, iou)) in enumerate(self.others.items(), start=1):
            axes.plot([count], [iou], "s", color=f"C{number}", label=f"{name} ({iou:.3f})")
        axes.set(xlabel="number of anchors", ylabel="average IoU")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)

    def _draw_boxes(self, axes: Any) -> None:
        shown = self.sizes
        if len(shown) > 5000:
            shown = np.random.default_rng(0).choice(shown, 5000, replace=False)
        axes.plot(*shown.T, ".", ms=3, alpha=0.3, color="0.5")
        for number, (width, height) in enumerate(self.pixels):
            cells = f"{width / CELL:.2f}, {height / CELL:.2f}"
            axes.plot([0, width, width], [height, height, 0], "x-", color=f"C{number}", label=cells)
        axes.set(xlim=0, ylim=0, aspect="equal")
        axes.set(xlabel="width, pixels of the input", ylabel="height, pixels of the input")
        axes.legend(title="cells", fontsize=8, title_fontsize=8)


def clusters(
    examples: Any,
    k: int = 5,
    *,
    image_size: int | tuple[int, int] = 416,
    resize: str = "letterbox",
    max_clusters: int = 9,
    others: Mapping[str, Any] | None = None,
    starts: int = _STARTS,
    seed: int = 0,
) -> Clusters:
    """Clusters the boxes of a data set into anchors.

    Args:
        examples: what a reader gives, any data set of examples, or a sequence of `Record`s. With
            `records`, no image is decoded. Crowds do not count.
        k: how many anchors.
        image_size: of the network's input, a number or (height, width).
        resize: how an image comes to that size: "letterbox", YOLOv2's way, or "warp".
        max_clusters: average IoU is also measured for 1, 2, ... this many; `k` if that is more.
        others: anchor sets to compare with: name to (n, 2), width and height in cells.
        starts: how many times each clustering begins anew; the best counts.
        seed: of the starts.

    Raises:
        InputError: if there are fewer different box sizes than `k`, or an argument makes no sense.
    """
    if k < 1 or max_clusters < 1 or starts < 1:
        raise InputError(f"clusters wants whole numbers above 0: {k=}, {max_clusters=}, {starts=}")
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    compared = {name: _checked(anchors, name) for name, anchors in (others or {}).items()}
    sizes = box_sizes(examples, image_size=(height, width), resize=resize)
    name = getattr(examples, "name", None) or "data"
    most = len(_distinct(sizes)[0])
    if k > most:
        raise InputError(f"{k} clusters want {k} boxes of different sizes, and {name} has {most}")
    curve: dict[int, float] = {}
    chosen = Means(np.zeros((0, 2)), 0.0)
    counts = range(1, min(max(k, max_clusters), most) + 1)
    for count in track(counts, "Clustering boxes"):
        means = k_means(sizes, count, starts=starts, seed=seed)
        curve[count] = means.average_iou
        if count == k:
            chosen = means
    measured = {
        name: (len(cells), average_iou(sizes, cells * CELL)) for name, cells in compared.items()
    }
    return Clusters(
        name, (height, width), resize, sizes, chosen.anchors, chosen.average_iou, curve, measured
    )


def box_sizes(
    examples: Any, *, image_size: tuple[int, int], resize: str = "letterbox"
) -> np.ndarray:
    """(N, 2) float64: width and height of every box but crowds', in pixels of the network's input.

    Args:
        examples: as in `clusters`.
        image_size: (height, width) of that input.
        resize: "letterbox" or "warp".

    Raises:
        InputError: if there is no box, or the data's images have no size.
    """
    if resize not in _RESIZES:
        raise InputError(f"resize is {' or '.join(_RESIZES)}, not {resize!r}")
    if min(image_size) < 1:
        raise InputError(f"image_size wants whole numbers above 0, not {image_size}")
    found = [np.zeros((0, 2))]
    for height, width, boxes, crowd in _images(examples):
        place = placement((height, width), image_size, resize)
        boxes = np.asarray(boxes, np.float64)[~np.asarray(crowd, bool)]
        found.append((boxes[:, 2:] - boxes[:, :2]) * place.scale[:2])
    sizes = np.concatenate(found)
    sizes = sizes[(sizes > 0).all(axis=1)]
    if not len(sizes):
        raise InputError(f"{getattr(examples, 'name', None) or 'data'} has no boxes to cluster")
    return sizes


def _images(examples: Any) -> Any:
    """height, width, boxes, crowd of every image."""
    records = getattr(examples, "records", examples)
    if isinstance(records, list | tuple):
        if not all(isinstance(record, Record) for record in records):
            raise InputError("clusters wants examples with boxes, not classification data")
        for record in records:
            yield record.height, record.width, record.boxes, record.crowd
        return
    for example in track(examples.as_numpy_iterator(), "Reading examples"):
        no = np.zeros(len(example["boxes"]), bool)
        yield *example["image"].shape[:2], example["boxes"], example.get("crowd", no)


def _checked(anchors: Any, name: str) -> np.ndarray:
    cells = np.asarray(anchors, np.float64)
    if cells.ndim != 2 or cells.shape[1:] != (2,) or not len(cells) or not (cells > 0).all():
        raise InputError(f"anchors {name!r} want pairs of width and height above 0 in cells")
    return cells


def average_iou(sizes: np.ndarray, anchors: np.ndarray) -> float:
    """Mean over the boxes of the IoU with the anchor they overlap most, centres together.

    Args:
        sizes: (N, 2), widths and heights.
        anchors: (k, 2), in the same unit.
    """
    sizes, weights = _distinct(sizes)
    return float(np.average(_assigned(sizes, np.asarray(anchors, np.float64))[1], weights=weights))


def k_means(sizes: np.ndarray, k: int, *, starts: int = _STARTS, seed: int = 0) -> Means:
    """Clusters widths and heights by the distance 1 - IoU.

    Args:
        sizes: (N, 2), above 0.
        k: how many clusters; none stays empty.
        starts: how many times to begin anew; the best counts.
        seed: of the starts.

    Raises:
        InputError: if there are fewer different sizes than `k`.
    """
    distinct, weights = _distinct(sizes)
    if k > len(distinct):
        raise InputError(
            f"{k} clusters want {k} boxes of different sizes, and there are {len(distinct)}"
        )
    rng = np.random.default_rng([seed, k])
    tried, tried_weights = distinct, weights
    if len(distinct) > _SAMPLE:
        share = rng.choice(len(distinct), _SAMPLE, replace=False)
        tried, tried_weights = distinct[share], weights[share]
    runs = [
        _iterated(tried, tried_weights, _spread(tried, tried_weights, k, rng))
        for _ in range(starts)
    ]
    best = max(runs, key=lambda means: means.average_iou)
    if len(distinct) > _SAMPLE:
        best = _iterated(distinct, weights, best.anchors, most=_LAST_ITERATIONS)
    order = np.argsort(best.anchors.prod(axis=1), kind="stable")
    return Means(best.anchors[order], best.average_iou)


def _distinct(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different sizes (M, 2), and how many boxes have each (M,)."""
    return np.unique(np.asarray(sizes, np.float64), axis=0, return_counts=True)


def _spread(sizes: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """First centroids by k-means++: each a box drawn by its distance from those before it."""
    chosen = [rng.choice(len(sizes), p=weights / weights.sum())]
    distance = np.full(len(sizes), np.inf)
    for _ in range(k - 1):
        newest = sizes[chosen[-1:]]
        distance = np.minimum(distance, 1.0 - _iou(sizes, newest)[:, 0])
        distance = np.maximum(distance, 1e-12)  # sizes that differ by rounding alone
        distance[chosen] = 0.0
        chance = distance * weights
        chosen.append(rng.choice(len(sizes), p=chance / chance.sum()))
    return sizes[chosen]


def _iterated(
    sizes: np.ndarray, weights: np.ndarray, centroids: np.ndarray, *, most: int = _ITERATIONS
) -> Means:
    """k-means from these centroids (k, 2) until nothing changes; the average IoU never falls."""
    nearest, overlap = _assigned(sizes, centroids)
    for _ in range(most):
        moved = _moved(sizes, weights, centroids, nearest, overlap)
        if (moved == centroids).all():
            break
        centroids = moved
        nearest, overlap = _assigned(sizes, centroids)
    return Means(centroids, float(np.average(overlap, weights=weights)))


def _moved(
    sizes: np.ndarray,
    weights: np.ndarray,
    centroids: np.ndarray,
    nearest: np.ndarray,
    overlap: np.ndarray,
) -> np.ndarray:
    """Each centroid where its boxes overlap it most; one without boxes at a box that fits worst."""
    moved = centroids.copy()
    worst = iter(np.argsort(overlap, kind="stable"))
    for number, own in enumerate(nearest == np.arange(len(centroids))[:, None]):  # (N,) each
        boxes, count = sizes[own], weights[own]
        if not len(boxes):
            moved[number] = sizes[next(worst)]
            continue
        mean = np.average(boxes, axis=0, weights=count)
        places = np.stack([centroids[number], mean, _median(boxes, count)])
        moved[number] = places[np.argmax(count @ _iou(boxes, places))]
    return moved


def _median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of each column (n, 2); a row counts as often as its weight says."""
    order = np.argsort(values, axis=0)
    below = np.cumsum(weights[order], axis=0)  # (n, 2)
    half = [np.searchsorted(column, column[-1] / 2) for column in below.T]
    return values[order[half, [0, 1]], [0, 1]]


def _assigned(sizes: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each box (N,) its best anchor and the IoU with it."""
    nearest = np.empty(len(sizes), np.int64)
    overlap = np.empty(len(sizes))
    step = max(1, _CHUNK // len(anchors))
    for start in range(0, len(sizes), step):
        part = slice(start, start + step)
        iou = _iou(sizes[part], anchors)
        nearest[part] = iou.argmax(axis=1)
        overlap[part] = iou.max(axis=1)
    return nearest, overlap


def _iou(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """IoU of boxes (N, 2) and anchors (k, 2) about one centre, (N, k)."""
    (w, h), (across, down) = sizes.T[..., None], anchors.T  # (2, N, 1), (2, k)
    shared = np.minimum(w, across) * np.minimum(h, down)
    return shared / (w * h + across * down - shared)
