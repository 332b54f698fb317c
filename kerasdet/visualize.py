"""Pictures of detections: boxes with names and scores drawn on an image, galleries, files.

Pillow only. Every function takes and returns NumPy arrays, RGB, (H, W, 3), 0..255.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kerasdet.errors import InputError

Color = tuple[int, int, int]

# Twenty colours chosen to differ in hue and lightness and to stand out on photographs: every
# VOC class has its own. Later classes continue by the golden angle.
_PALETTE: tuple[Color, ...] = (
    (255, 75, 75), (46, 204, 113), (64, 156, 255), (255, 196, 0), (190, 95, 255),
    (0, 214, 217), (255, 128, 28), (255, 105, 190), (154, 222, 20), (106, 108, 255),
    (0, 168, 132), (214, 64, 140), (196, 153, 108), (122, 200, 255), (232, 222, 110),
    (178, 34, 52), (28, 124, 62), (30, 84, 200), (255, 170, 160), (130, 60, 160),
)  # fmt: skip
_NO_CLASS: Color = (160, 160, 160)
_GOLDEN = 0.6180339887498949  # hues at this step never come close to repeating


class _Label(NamedTuple):
    """A name plate: where it goes (x, y, width, height), what it says, its colour."""

    place: tuple[int, int, int, int]
    text: str
    color: Color


class _Avoid(NamedTuple):
    """What a name plate should not cover: plates (n, 4) and small boxes (m, 4), xyxy."""

    plates: np.ndarray
    boxes: np.ndarray


def class_color(label: int) -> Color:
    """The colour of a class, the same in every picture and every run."""
    if label < 0:
        return _NO_CLASS
    if label < len(_PALETTE):
        return _PALETTE[label]
    step = label - len(_PALETTE)
    hue = step * _GOLDEN % 1.0
    # Of the triples tried, these keep the first eighty classes furthest apart.
    saturation, value = ((0.75, 1.0), (0.95, 0.72), (0.9, 0.9))[step % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(
    image: Any,
    found: Any = None,
    *,
    boxes: Any = None,
    labels: Any = None,
    scores: Any = None,
    class_names: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
    score_threshold: float = 0.0,
    line_width: int | None = None,
    font_size: float | None = None,
) -> np.ndarray:
    """Draws boxes with their names and scores on a copy of an image.

    Give either `found`, what `model.detect` returned for this image, or the arrays themselves.
    The best detections are drawn last, on top. Name plates stay inside the picture and keep
    out of each other's way where there is room.

    Args:
        image: (H, W, 3), (H, W, 1) or (H, W), RGB or grey, 0..255, integer or float.
        found: anything with `boxes`, `labels`, `scores`, and perhaps `names`.
        boxes: (N, 4) xyxy pixels of this image; parts outside it are cut off.
        labels: (N,) integers; a negative one is padding and is not drawn. None: all one class,
            no names.
        scores: (N,) 0..1. None: none is written, as for ground truth.
        class_names: names by label; a label beyond them is written as its number.
        captions: (N,) what to write instead of name and score.
        colors: (N,) RGB triples instead of the classes' own.
        score_threshold: detections with lower scores are left out.
        line_width: pixels. None: by the size of the picture.
        font_size: pixels. None: by the size of the picture.

    Returns:
        uint8 (H, W, 3).

    Raises:
        InputError: if the image is no image, or boxes, labels and scores do not fit together.
    """
    canvas = _as_uint8(image)
    height, width = canvas.shape[:2]
    if found is not None:
        if boxes is not None or labels is not None or scores is not None:
            raise InputError("draw wants either `found` or boxes, labels and scores; both came.")
        boxes, labels, scores = found.boxes, found.labels, getattr(found, "scores", None)
        if captions is None and class_names is None and getattr(found, "names", None) is not None:
            captions = _captions(labels, scores, found.names, by_row=True)
    boxes, labels, scores = _checked(boxes, labels, scores)
    if captions is None:
        captions = _captions(labels, scores, class_names)
    for name, rows in (("captions", captions), ("colors", colors)):
        if rows is not None and len(rows) != len(boxes):
            raise InputError(f"draw wants one of `{name}` a box: {len(rows)} for {len(boxes)}.")
    side = math.sqrt(height * width)
    line = line_width or max(1 if side < 120 else 2, round(side / 220))
    font = _font(font_size or max(9.0, round(side / 36)))

    by_score = np.arange(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    order = [i for i in by_score.tolist() if labels[i] >= 0]
    if scores is not None:
        order = [i for i in order if scores[i] >= score_threshold]
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture, "RGBA")
    corners = np.clip(boxes, 0, [width, height, width, height])
    tint = {i: colors[i] if colors is not None else class_color(int(labels[i])) for i in order}
    for i in order:
        _outline(pen, corners[i], tint[i], line, (width, height))
    for plate in _plates(corners, captions, tint, order, font, (width, height)):
        _write(pen, plate, font)
    return np.asarray(picture).copy()


def gallery(
    images: Sequence[Any],
    *,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    caption_colors: Sequence[Color] | None = None,
    title: str = "",
    tile: int | None = None,
    gap: int = 8,
    background: Color = (255, 255, 255),
) -> np.ndarray:
    """Lays pictures of any sizes out in rows and columns.

    Args:
        images: arrays as `draw` takes and returns them.
        columns: pictures in a row. None: about as many as there are rows.
        captions: a line under each picture; too long a one is cut.
        caption_colors: the colour of the bar beside each caption.
        title: a line above them all.
        tile: longest side of a picture, pixels; larger ones are shrunk, smaller ones stay as
            they are. None: nothing is resized.
        gap: pixels between pictures.
        background: RGB.

    Returns:
        uint8 (H, W, 3).

    Raises:
        InputError: if there is no picture, or not one caption a picture.
    """
    if not len(images):
        raise InputError("A gallery wants at least one picture; none came.")
    if captions is not None and len(captions) != len(images):
        raise InputError(
            f"A gallery wants one caption a picture: {len(captions)} for {len(images)}."
        )
    pictures = [_shrink(Image.fromarray(_as_uint8(image)), tile) for image in images]
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    cell_width = max(picture.width for picture in pictures)
    font = _font(max(11.0, round(cell_width / 25)))
    strip = 0 if captions is None else _line_height(font) + 8
    heights = [max(picture.height for picture in row) for row in rows]
    head = gap + (_line_height(font) + 12 if title else 0)
    size = (columns * (cell_width + gap) + gap, head + sum(heights) + len(rows) * (strip + gap))
    sheet = Image.new("RGB", size, background)
    pen = ImageDraw.Draw(sheet)
    if title:
        title = _shorten(title, font, size[0] - 2 * gap)
        pen.text((gap, (head + gap) // 2), title, fill=_ink(background), font=font, anchor="lm")
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        x = gap + column * (cell_width + gap)
        y = head + sum(heights[:row]) + row * (strip + gap)
        free = cell_width - picture.width, heights[row] - picture.height
        sheet.paste(picture, (x + free[0] // 2, y + free[1] // 2))
        if captions is None:
            continue
        left, top = x, y + heights[row]
        if caption_colors is not None:
            pen.rectangle((x, top + 4, x + 4, top + strip - 4), fill=caption_colors[i])
            left += 11
        text = _shorten(captions[i], font, cell_width - (left - x))
        pen.text((left, top + strip // 2), text, fill=_ink(background), font=font, anchor="lm")
    return np.asarray(sheet).copy()


def save_image(path: str | Path, image: Any) -> Path:
    """Writes a picture; the name's ending chooses the format, and missing folders are made.

    Raises:
        InputError: if the ending is not that of a picture, or the file cannot be written.
    """
    path = Path(path)
    picture = Image.fromarray(_as_uint8(image))
    if path.suffix.lower() not in {
        ".png",
        ".jpg",
        ".jpeg",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
    }:
        raise InputError(f"A picture's name wants to end in .png or .jpg; {path} does not.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in {".jpg", ".jpeg"}:
            picture.save(
                path, quality=92, subsampling=0
            )  # full colour: thin coloured lines stay sharp
        else:
            picture.save(path)
    except OSError as error:
        raise InputError(f"The picture {path} cannot be written: {error}.") from error
    return path


def _as_uint8(image: Any) -> np.ndarray:
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape or array.dtype == object:
        raise InputError(
            f"An image wants the shape (H, W, 3), (H, W, 1) or (H, W), values 0..255; "
            f"{array.dtype} {np.shape(image)} came."
        )
    if array.dtype == bool:
        array = array * np.uint8(255)
    if array.dtype != np.uint8:
        array = np.clip(np.rint(np.nan_to_num(array.astype(np.float32))), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _checked(
    boxes: Any, labels: Any, scores: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    boxes = np.zeros((0, 4)) if boxes is None else np.asarray(boxes, dtype=np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"Boxes to draw want the shape (N, 4), xyxy pixels; {boxes.shape} came.")
    if not np.isfinite(boxes).all():
        raise InputError("Boxes to draw want finite numbers; there is a NaN or an infinity.")
    labels = (
        np.zeros(len(boxes), int) if labels is None else np.asarray(labels).astype(int).reshape(-1)
    )
    scores = None if scores is None else np.asarray(scores, dtype=np.float64).reshape(-1)
    for name, rows in (("labels", labels), ("scores", scores)):
        if rows is not None and len(rows) != len(boxes):
            raise InputError(f"draw wants one of `{name}` a box: {len(rows)} for {len(boxes)}.")
    return boxes, labels, scores


def _captions(
    labels: Any, scores: Any, names: Sequence[str] | None, *, by_row: bool = False
) -> list[str]:
    """`dog 0.87`, or without names `0.87`."""
    captions = []
    for row, label in enumerate(labels):
        if names is None:
            name = ""
        elif by_row:
            name = str(names[row])
        else:
            name = str(names[label]) if 0 <= label < len(names) else str(label)
        captions.append(name if scores is None else f"{name} {scores[row]:.2f}".strip())
    return captions


@lru_cache(maxsize=64)
def _font(size: float) -> Any:
    return ImageFont.load_default(size)  # Pillow's built-in scalable font: no file to find


def _line_height(font: Any) -> int:
    box = font.getbbox("Ay|")
    return math.ceil(box[3] - box[1])


def _plates(
    corners: np.ndarray,
    captions: Sequence[str],
    tint: dict[int, Color],
    order: Sequence[int],
    font: Any,
    size: tuple[int, int],
) -> list[_Label]:
    """Name plates in drawing order; the best detection, the last, has the first choice of place."""
    # Plates keep off each other and, less strictly, off small boxes.
    small = _area(corners) < 6 * font.size**2
    small_boxes = corners[[i for i in order if small[i]]]
    taken: list[list[float]] = []
    plates = []
    for i in reversed(order):
        text = _shorten(captions[i], font, size[0])
        if not text:
            continue
        avoid = _Avoid(np.array(taken).reshape(-1, 4), small_boxes)
        place = _place(corners[i], _plate_size(text, font), size, avoid)
        taken.append([place[0], place[1], place[0] + place[2], place[1] + place[3]])
        plates.append(_Label(place, text, tint[i]))
    return plates[::-1]


def _plate_size(text: str, font: Any) -> tuple[int, int]:
    pad = max(2, round(font.size / 5))
    return math.ceil(font.getlength(text)) + 2 * pad, _line_height(font) + pad


def _shorten(text: str, font: Any, width: float) -> str:
    """The text, with its end cut off and dots put there where it is wider than `width` pixels."""
    room = width - 2 * max(2, round(font.size / 5))
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""


def _outline(
    pen: ImageDraw.ImageDraw, box: np.ndarray, color: Color, line: int, size: tuple[int, int]
) -> None:
    """The box's frame, drawn inwards, with thin dark edges to show on bright ground."""
    width, height = size
    # A continuous edge x lies between pixels x - 1 and x: the box holds the pixels x1 .. x2 - 1.
    x1, y1 = round(float(box[0])), round(float(box[1]))
    x2, y2 = round(float(box[2])) - 1, round(float(box[3])) - 1
    x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    x2, y2 = min(max(x2, x1), width - 1), min(max(y2, y1), height - 1)
    if line > 1:
        pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0, 110), width=1)
        if x2 - x1 > 2 * line and y2 - y1 > 2 * line:
            inner = (x1 + line, y1 + line, x2 - line, y2 - line)
            pen.rectangle(inner, outline=(0, 0, 0, 110), width=1)
    pen.rectangle((x1, y1, x2, y2), outline=(*color, 255), width=line)


def _place(
    box: np.ndarray, plate: tuple[int, int], size: tuple[int, int], avoid: _Avoid
) -> tuple[int, int, int, int]:
    """Where a name plate goes: above the box if it may, otherwise the least bad place around it."""
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    w, h = plate
    width, height = size
    spots = [
        (x1, y1 - h), (x1, y1), (x1, y2), (x2 - w, y1 - h), (x2 - w, y1), (x1, y2 - h),
        (x2 - w, y2), (x2 - w, y2 - h), (x2, y1), (x1 - w, y1),
    ]  # fmt: skip
    best, best_cost = (0, 0, w, h), math.inf
    for rank, (x, y) in enumerate(spots):
        inside_x = min(max(x, 0), max(width - w, 0))
        inside_y = min(max(y, 0), max(height - h, 0))
        spot = np.array([inside_x, inside_y, inside_x + w, inside_y + h], dtype=float)
        # How far the edge of the picture pushed it, and what it would hide.
        cost = rank / 1000 + 0.1 * abs(inside_x - x) / w + 0.5 * abs(inside_y - y) / h
        cost += (_overlaps(spot, avoid.plates) / (w * h)).sum()
        cost += 0.3 * (_overlaps(spot, avoid.boxes) / np.maximum(_area(avoid.boxes), 1)).sum()
        if cost < best_cost:
            best, best_cost = (inside_x, inside_y, w, h), cost
    return best


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area that a box, (4,), shares with each of others, (n, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return np.prod(np.maximum(sides, 0), axis=1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def _write(pen: ImageDraw.ImageDraw, plate: _Label, font: Any) -> None:
    x, y, w, h = plate.place
    pen.rectangle((x, y, x + w - 1, y + h - 1), fill=(*plate.color, 235))
    # Whole pixels: letters at fractions are blurred.
    pad = (w - math.ceil(font.getlength(plate.text))) // 2
    pen.text((x + pad, y + h // 2), plate.text, fill=_ink(plate.color), font=font, anchor="lm")


def _ink(background: Color) -> Color:
    """Black or white, whichever reads better (ITU-R BT.601 luma)."""
    luma = 0.299 * background[0] + 0.587 * background[1] + 0.114 * background[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


def _shrink(picture: Image.Image, tile: int | None) -> Image.Image:
    if tile is None or max(picture.size) <= tile:
        return picture
    scale = tile / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)
