"""Shapes: rendered images of five kinds of objects, for trying and testing without any download.

Only the outline tells the class: colours, textures, size, stretch and rotation are the same for
all, the background is textured and cluttered with lines, and objects cover each other. An image is
made from (seed, split, index) alone, so it can be made again at any time and no two splits share
one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from kerasdet.data import example as ex
from kerasdet.data.progress import track
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError

CLASS_NAMES = ("ellipse", "rectangle", "triangle", "star", "cross")

SIDES = (0.1, 0.6)
"""Longer side of an object, in parts of the image's shorter side, from and to."""

_STRETCH = 1.8  # greatest ratio of an outline's two axes before it is turned
_LEAST_VISIBLE = 0.4  # part of an object that later ones must leave uncovered
_LEAST_CONTRAST = 80.0  # distance in RGB of an object's colour from the background's
_EMPTY = 0.05  # part of the images without objects
_OVERSAMPLING = 4
_MEMORY = 2**30  # bytes of finished images that are kept


def shapes(
    count: int = 1000,
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 160,
    max_objects: int = 5,
    seed: int = 0,
    classes: Sequence[str] = CLASS_NAMES,
    sides: tuple[float, float] = SIDES,
):
    """Makes a data set of rendered shapes with exact boxes.

    A box spans the pixels that the whole object would paint (cover by half or more), also where
    another one hides a part of it; at least 40 % of every object can be seen. One image in 20 has
    no object.

    Args:
        count: of images.
        split: any word; two words give images that have nothing in common.
        image_size: pixels, a number or (height, width).
        max_objects: 1 to as many are drawn, all numbers equally often where there is room.
        seed: another one gives other images.
        classes: which kinds of `CLASS_NAMES`, in label order; there are no others in the images.
        sides: least and greatest longer side of an object, in parts of the image's shorter side.

    Returns:
        The data set of examples (`kerasdet.data.example`), rendered when needed and then kept in
        memory up to 1 GiB.

    Raises:
        InputError: for a count or number of objects below 1, an image's sides below 32 or above
            4096, an object's not between 0 and 1, or classes that there are not.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if count < 1 or max_objects < 1:
        raise InputError(f"shapes needs at least one image and object: {count=}, {max_objects=}")
    if not (32 <= height <= 4096 and 32 <= width <= 4096):
        raise InputError(f"image_size of shapes lies between 32 and 4096, not {image_size}")
    low, high = sides
    if not 0 < low <= high <= 1 or low * min(height, width) < 3:
        raise InputError(
            f"sides of shapes are two parts of the image's, the first of 3 pixels or more, as "
            f"(0.1, 0.6), not {sides!r}"
        )

    names = tuple(classes)
    if not names or len(set(names)) < len(names) or not set(names) <= set(CLASS_NAMES):
        there = ", ".join(CLASS_NAMES)
        raise InputError(f"classes of shapes are some of {there}, each once, not {classes!r}")

    def generator(index, purpose):
        key = [seed % 2**32, index, purpose, *split.encode()]
        return np.random.default_rng(key)

    def layout(index):
        return _layout(generator(index, 0), height, width, max_objects, names, (low, high))

    records = []
    for index in track(range(count), "Placing shapes"):
        rows = [ex.Row(shape.box, shape.label) for shape in layout(index)]
        image_id = f"{split}-{index:06d}"
        records.append(ex.make_record(image_id, "", height=height, width=width, rows=rows))

    kept: dict[int, np.ndarray] = {}
    room = _MEMORY // (height * width * 3)

    def pixels(index):
        index = int(index)
        if index in kept:
            return kept[index]
        image = _render(generator(index, 1), layout(index), height, width)
        if len(kept) < room:
            kept[index] = image
        return image

    name = f"shapes:{split}?count={count}&size={height}x{width}&objects={max_objects}&seed={seed}"
    if names != CLASS_NAMES:
        name += f"&classes={','.join(names)}"
    if (low, high) != SIDES:
        name += f"&sides={low:g},{high:g}"
    return to_dataset(records, names, ex.Inspector(), name, pixels=pixels)


class _Shape(NamedTuple):
    label: int
    left: int
    top: int
    cover: np.ndarray  # uint8 (h, w), 0..255: how much of each pixel the outline covers
    box: tuple[float, float, float, float]


def _layout(
    rng: np.random.Generator,
    height: int,
    width: int,
    max_objects: int,
    names: tuple[str, ...] = CLASS_NAMES,
    sides: tuple[float, float] = SIDES,
) -> list[_Shape]:
    owner = np.full((height, width), -1, np.int16)  # index of the topmost object
    shapes: list[_Shape] = []
    areas: list[int] = []
    number = 0 if rng.random() < _EMPTY else rng.integers(1, max_objects + 1)
    for _ in range(number):
        for _ in range(8):  # attempts to find room
            shape = _place(rng, height, width, names, sides)
            painted = shape.cover >= 128
            under = owner[
                shape.top : shape.top + painted.shape[0], shape.left : shape.left + painted.shape[1]
            ]
            hidden = np.bincount(under[painted] + 1, minlength=len(shapes) + 1)[1:]
            visible = np.bincount(owner.ravel() + 1, minlength=len(shapes) + 1)[1:] - hidden
            if (visible >= _LEAST_VISIBLE * np.array(areas)).all():
                under[painted] = len(shapes)
                shapes.append(shape)
                areas.append(int(painted.sum()))
                break
    return shapes


def _place(
    rng: np.random.Generator,
    height: int,
    width: int,
    names: tuple[str, ...] = CLASS_NAMES,
    sides: tuple[float, float] = SIDES,
) -> _Shape:
    label = int(rng.integers(len(names)))
    low, high = np.log(sides)
    # Even in the logarithm: as many small objects as large ones.
    side = np.exp(rng.uniform(low, high)) * min(height, width)
    points = _outline(names[label], rng)
    points -= points.min(0)
    points *= side / points.max()
    size = np.ceil(points.max(0) - 1e-9).astype(int)  # width, height
    grid = Image.new("L", tuple(size * _OVERSAMPLING))
    ImageDraw.Draw(grid).polygon([tuple(p) for p in points * _OVERSAMPLING], fill=255)
    cover = np.asarray(grid.reduce(_OVERSAMPLING))
    left, top = (int(rng.integers(room + 1)) for room in (width, height) - size)
    ys, xs = (np.flatnonzero((cover >= 128).any(axis)) for axis in (1, 0))
    x1, y1, x2, y2 = map(float, (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1))
    box = (left + x1, top + y1, left + x2, top + y2)
    return _Shape(label, left, top, cover, box)


def _outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """Corners (P, 2) about the origin, stretched along one axis, then turned."""
    if name == "ellipse":
        points = _ring(40)
    elif name == "rectangle":
        points = _ring(4)
    elif name == "triangle":
        points = _ring(3)
    elif name == "star":
        # A pentagram's inner corners lie at (3 - sqrt 5) / 2 = 0.38 of its outer ones.
        points = _ring(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    else:
        a = 0.34  # half the width of a cross's arms
        quarter = np.array([(a, -1), (a, -a), (1, -a)])
        turns = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        points = np.concatenate([quarter @ turn for turn in turns])
    axis = rng.uniform(0, 2 * np.pi) if name == "ellipse" else 0.0
    stretch = np.exp(rng.uniform(-1, 1) * np.log(_STRETCH) / 2)
    return points * [stretch, 1 / stretch] @ _turn(axis + rng.uniform(0, 2 * np.pi))


def _ring(count: int) -> np.ndarray:
    angles = (np.arange(count) + 0.5) * 2 * np.pi / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _turn(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s], [-s, c]])


def _render(rng: np.random.Generator, shapes: list[_Shape], height: int, width: int) -> np.ndarray:
    base = rng.uniform(30, 225, 3)
    canvas = _background(rng, base, height, width)  # int16 (H, W, 3)
    for shape in shapes:
        h, w = shape.cover.shape
        colour = rng.uniform(0, 255, 3)
        while np.linalg.norm(colour - base) < _LEAST_CONTRAST:
            colour = rng.uniform(0, 255, 3)
        paint = colour.astype(np.int16) + _texture(rng, h, w)[:, :, None]  # (h, w, 3)
        cover = shape.cover.astype(np.int16)[:, :, None]
        under = canvas[shape.top : shape.top + h, shape.left : shape.left + w]
        # 9-bit arithmetic stays inside int16: |difference| < 511 and cover / 4 < 64.
        under += ((np.clip(paint, 0, 255) - np.clip(under, 0, 255)) * (cover >> 2)) // 63
    canvas += rng.integers(-8, 9, canvas.shape, np.int8)  # the camera's noise
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator, base: np.ndarray, height: int, width: int) -> np.ndarray:
    cells = rng.integers(3, 9)
    coarse = np.clip(base + rng.normal(0, 22, (cells, cells, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(8)):  # lines that belong to nothing
        ends = rng.uniform(0, 1, 4) * [width, height, width, height]
        shade = np.clip(base + rng.normal(0, 40, 3), 0, 255).astype(int)
        draw.line(ends.tolist(), fill=tuple(shade.tolist()), width=int(rng.integers(1, 3)))
    return np.asarray(image).astype(np.int16)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Brightness to add, int16 (h, w): nothing, grain, stripes or a slope."""
    kind = rng.integers(4)
    if kind == 0:
        return np.zeros((height, width), np.int16)
    if kind == 1:
        return rng.integers(-25, 26, (height, width), np.int16)
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.ogrid[:height, :width]
    along = xs * np.float32(np.cos(angle)) + ys * np.float32(np.sin(angle))  # (h, w) pixels
    if kind == 2:
        period = np.float32(rng.uniform(3, 12))
        return (25 * np.sin(along * (2 * np.pi / period))).astype(np.int16)
    span = np.float32(max(height, width))
    return ((along - along.mean()) * (35 / span)).astype(np.int16)
