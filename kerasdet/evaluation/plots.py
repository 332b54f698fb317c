"""Pictures of an evaluation: precision over recall, and the worst mistakes, cut out."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasdet import visualize
from kerasdet.errors import InputError
from kerasdet.evaluation.evaluation import ClassResult, Evaluation
from kerasdet.evaluation.inputs import numpy_examples, text
from kerasdet.evaluation.mistakes import KINDS, Mistake, count_mistakes, find_mistakes
from kerasdet.images import read_image
from kerasdet.orientation import size_of

_TRUTH: visualize.Color = (64, 224, 96)
_FOUND: visualize.Color = (255, 64, 64)
_KIND_COLORS: dict[str, visualize.Color] = {
    "missed": (64, 156, 255),
    "class": (190, 95, 255),
    "location": (255, 160, 20),
    "both": (214, 64, 140),
    "duplicate": (0, 190, 190),
    "background": (230, 60, 60),
}
_WORDS = {
    "missed": "missed",
    "class": "wrong class",
    "location": "badly placed",
    "both": "wrong class and place",
    "duplicate": "duplicate",
    "background": "nothing there",
}
_ONE_AXES = 10  # more classes than this get a panel each: more lines cannot be told apart


def plot_precision_recall(evaluation: Evaluation, path: str | Path) -> Path:
    """Writes the precision-recall curves of every class, at IoU 0.5, as a picture.

    Up to ten classes share one pair of axes, in the classes' own colours; more have a panel
    each, best class first. A dot marks the score threshold with the best F1.

    Args:
        evaluation: from `evaluate`.
        path: .png, .svg or .pdf; missing folders are made.

    Raises:
        InputError: if the file cannot be written.
    """
    from matplotlib.figure import Figure  # no pyplot: no window, no global state

    results = [(label, one) for label, one in enumerate(evaluation.classes) if one.objects]
    results.sort(key=lambda pair: -pair[1].metrics["AP50"])
    if len(results) <= _ONE_AXES:
        figure = Figure(figsize=(8.6, 5.2), layout="constrained")
        _one_axes(figure.subplots(), results)
    else:
        columns = min(8, math.ceil(math.sqrt(len(results) * 1.5)))
        rows = math.ceil(len(results) / columns)
        figure = Figure(figsize=(1.9 * columns, 1.75 * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        _panels(axes, results)
        figure.supxlabel("recall")
        figure.supylabel("precision")
    mean = evaluation.metrics["AP50"]
    name = f"{evaluation.data}: " if evaluation.data else ""
    title = f"{_plain(name)}AP50 {100 * mean:.1f} ({len(results)} classes)"
    figure.suptitle(title, fontsize=12)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:  # ValueError: an ending matplotlib does not write
        raise InputError(f"The curves cannot be written to {path}: {error}.") from error
    return path


def plot_mistakes(
    evaluation: Evaluation,
    path: str | Path,
    *,
    examples: Any = None,
    mistakes: Sequence[Mistake] | None = None,
    score_threshold: float = 0.3,
    per_kind: int = 4,
    columns: int = 4,
    tile: int = 300,
) -> Path:
    """Writes the worst mistakes of each kind as one picture, truth green and detection red.

    Images are read again, only those needed: from their files where the examples named them,
    otherwise in one more pass over `examples`.

    Args:
        evaluation: from `evaluate`.
        path: picture to write; missing folders are made.
        examples: those evaluated, in the same order. Needed where they have no files.
        mistakes: from `find_mistakes`, worst first. None: found here.
        score_threshold: detections below it are taken as not made.
        per_kind: most mistakes shown of a kind; of one image as few as can be.
        columns: in a row.
        tile: side of each cut-out, pixels.

    Raises:
        InputError: if an image can be read neither way, or the picture cannot be written.
    """
    if mistakes is None:
        mistakes = find_mistakes(evaluation, score_threshold=score_threshold)
    chosen = [one for kind in KINDS for one in _worst(mistakes, kind, per_kind)]
    counts = count_mistakes(list(mistakes))
    title = " · ".join(f"{count} {_WORDS[kind]}" for kind, count in counts.items() if count)
    if not chosen:
        blank = np.full((tile // 3, tile * 2, 3), 245, np.uint8)
        note = f"no mistakes at scores of {score_threshold:g} or more"
        return visualize.save_image(path, visualize.gallery([blank], captions=[note]))
    wanted = defaultdict(list)
    for place, one in enumerate(chosen):
        wanted[one.image].append(place)
    tiles: list[np.ndarray] = [np.zeros((1, 1, 3), np.uint8)] * len(chosen)
    for index, image in _images(evaluation, set(wanted), examples):
        for place in wanted[index]:
            tiles[place] = _tile(evaluation, chosen[place], image, tile)
    sheet = visualize.gallery(
        tiles,
        columns=columns,
        captions=[caption(evaluation, one) for one in chosen],
        caption_colors=[_KIND_COLORS[one.kind] for one in chosen],
        title=title,
    )
    return visualize.save_image(path, sheet)


def caption(evaluation: Evaluation, mistake: Mistake) -> str:
    """One line that says what is wrong, such as `wrong class: cat 0.93 on a dog`."""
    names = evaluation.class_names
    one = evaluation.images[mistake.image]
    of_truth = names[one.truth.labels[mistake.truth]] if mistake.truth >= 0 else ""
    if mistake.kind == "missed":
        return f"{_WORDS[mistake.kind]}: {of_truth}"
    found = f"{names[one.found.labels[mistake.detection]]} {mistake.score:.2f}"
    after = {
        "class": f" on {of_truth}",
        "location": f", IoU {mistake.iou:.2f}",
        "both": f" near {of_truth}",
    }
    return f"{_WORDS[mistake.kind]}: {found}{after.get(mistake.kind, '')}"


def _one_axes(axes: Any, results: Sequence[tuple[int, ClassResult]]) -> None:
    for label, one in results:
        color = _darker(visualize.class_color(label))
        recall, precision = _stairs(one)
        entry = f"{_plain(one.name)}  {100 * one.metrics['AP50']:.1f}"
        best = _best_f1(one)
        if best is not None:
            entry += f"  (F1 {best[1]:.2f} at {one.scores[best[0]]:.2f})"
            axes.plot(one.recall[best[0]], one.precision[best[0]], "o", color=color, ms=5)
        axes.plot(recall[:-1], precision[:-1], color=color, lw=1.8, label=entry)
    axes.set(xlim=(0, 1.005), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        title="class  AP50  (best F1 at score)",
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        alignment="left",
    )


def _panels(axes: np.ndarray, results: Sequence[tuple[int, ClassResult]]) -> None:
    for place, panel in enumerate(axes.ravel()):
        if place >= len(results):
            panel.set_axis_off()
            continue
        label, one = results[place]
        color = _darker(visualize.class_color(label))
        recall, precision = _stairs(one)
        panel.plot(recall, precision, color=color, lw=1.4)
        panel.fill_between(recall, precision, color=color, alpha=0.15, lw=0)
        best = _best_f1(one)
        if best is not None:
            panel.plot(one.recall[best[0]], one.precision[best[0]], "o", color=color, ms=3)
        panel.set(xlim=(0, 1.02), ylim=(0, 1.04), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        title = f"{_plain(one.name)}  {100 * one.metrics['AP50']:.0f}"
        panel.set_title(title, fontsize=8.5, pad=3)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.25)


def _plain(name: str) -> str:
    """For matplotlib, which reads what stands between two dollars as a formula."""
    return name.replace("$", r"\$")


def _stairs(one: ClassResult) -> tuple[np.ndarray, np.ndarray]:
    """The curve from recall 0 on, ended by a fall to precision 0 where no more is found."""
    reached = one.precision > 0
    recall, precision = one.recall[reached], one.precision[reached]
    if not len(recall):
        return np.zeros(2), np.zeros(2)
    return (
        np.concatenate([[0.0], recall, recall[-1:]]),
        np.concatenate([precision[:1], precision, [0.0]]),
    )


def _best_f1(one: ClassResult) -> tuple[int, float] | None:
    """(place on the curve, F1) of the best compromise; None for an empty curve."""
    total = one.recall + one.precision
    if not len(total) or not np.any(total > 0):
        return None
    f1 = 2 * one.recall * one.precision / np.where(total > 0, total, 1)
    place = int(np.argmax(f1))
    return place, float(f1[place])


def _darker(color: visualize.Color) -> tuple[float, ...]:
    """The class colours are made for photographs; on white paper they need more ink."""
    return tuple(0.8 * part / 255 for part in color)


def _worst(mistakes: Sequence[Mistake], kind: str, count: int) -> list[Mistake]:
    """The first few of a kind, a second one of the same image only after all others' first."""
    seen: Counter[int] = Counter()
    ranked = []
    for one in mistakes:
        if one.kind == kind:
            ranked.append((seen[one.image], one))
            seen[one.image] += 1
    ranked.sort(key=lambda pair: pair[0])
    return [one for _, one in ranked[:count]]


def _images(
    evaluation: Evaluation, wanted: set[int], examples: Any
) -> Iterator[tuple[int, np.ndarray]]:
    """Each wanted image with its index, never more than one held."""
    rest = set()
    for index in sorted(wanted):
        one = evaluation.images[index]
        image = _from_file(one.path, one.size)
        if image is None:
            rest.add(index)
        else:
            yield index, image
    if not rest:
        return
    for index, example in enumerate(numpy_examples(examples if examples is not None else [])):
        if index not in rest:
            continue
        one = evaluation.images[index]
        if (
            text(example.get("image_id", "")) != one.image_id
            or example["image"].shape[:2] != one.size
        ):
            raise InputError(
                f"The gallery of mistakes wants the examples in the order evaluated: image "
                f"{index} is now {text(example.get('image_id', ''))!r}, not {one.image_id!r}."
            )
        rest.discard(index)
        yield index, np.asarray(example["image"])
        if not rest:
            return
    one = evaluation.images[min(rest)]
    raise InputError(
        f"The gallery of mistakes wants the pixels of image {one.image_id or min(rest)}: it has "
        f"no readable file ({one.path or 'no path'}), and the examples given do not reach it."
    )


def _from_file(path: str, size: tuple[int, int]) -> np.ndarray | None:
    """The file's pixels, if it is a picture of the size evaluated."""
    if not path:
        return None
    try:
        with Image.open(path) as picture:
            if size_of(picture, size) != size:  # before any pixel is decoded
                return None
            return read_image(picture, annotated=size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _tile(evaluation: Evaluation, mistake: Mistake, image: np.ndarray, side: int) -> np.ndarray:
    one = evaluation.images[mistake.image]
    names = evaluation.class_names
    boxes, captions, colors = [], [], []
    if mistake.truth >= 0:
        boxes.append(one.truth.boxes[mistake.truth])
        captions.append(f"truth: {names[one.truth.labels[mistake.truth]]}")
        colors.append(_TRUTH)
    if mistake.detection >= 0:
        boxes.append(one.found.boxes[mistake.detection])
        label = names[one.found.labels[mistake.detection]]
        captions.append(f"{label} {mistake.score:.2f}")
        colors.append(_FOUND)
    rows = np.array(boxes)
    around = np.concatenate([rows[:, :2].min(axis=0), rows[:, 2:].max(axis=0)])
    # What is around a box that is on nothing is the only clue to why it is there.
    margin = 0.35 if mistake.truth >= 0 else 0.8
    part, (scale, left, top) = crop(image, around, side=side, margin=margin)
    moved = (rows - [left, top, left, top]) * scale
    return visualize.draw(part, boxes=moved, captions=captions, colors=colors, font_size=12)


def crop(
    image: np.ndarray, box: np.ndarray, *, side: int, margin: float = 0.35
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a box and its surroundings out of an image, square where the image allows.

    Args:
        image: (H, W, 3) uint8.
        box: (4,) xyxy pixels.
        side: longer side of the result, pixels.
        margin: what is shown around the box on each side, in shares of its longer side.

    Returns:
        The cut-out, uint8 (h, w, 3), and (scale, left, top), with which
        `(boxes - [left, top, left, top]) * scale` are boxes in it.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = np.clip(box, 0, [width, height, width, height])
    extent = max((1 + 2 * margin) * max(x2 - x1, y2 - y1), 80.0)  # so that a dot is not a blur
    spans = []
    for low, high, size in ((x1, x2, width), (y1, y2, height)):
        length = min(math.ceil(extent), size)
        start = min(max(round((low + high - length) / 2), 0), size - length)
        spans.append((start, start + length))
    (left, right), (top, bottom) = spans
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    scale = side / max(part.size)
    size = (max(1, round(part.width * scale)), max(1, round(part.height * scale)))
    method = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    return np.asarray(part.resize(size, method)).copy(), np.array([scale, left, top])
