"""Samples of a data set as one picture, with boxes and names drawn."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kerasdet.errors import InputError

_TILE = 320  # pixels, longer side of a sample in the picture
_GAP = 4  # pixels
_COLOURS = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (0, 128, 128),
    (240, 50, 230), (128, 0, 0), (0, 0, 128), (128, 128, 0),
)  # fmt: skip


def show(
    dataset: Any,
    path: str | os.PathLike,
    *,
    count: int = 16,
    columns: int = 4,
    seed: int | None = None,
) -> Path:
    """Draws samples of a data set in a grid and saves the picture.

    Args:
        dataset: of examples.
        path: of the picture; its ending decides the format (.png).
        count: of samples.
        columns: samples side by side.
        seed: draws samples from everywhere in the data; None: the first ones.

    Returns:
        The path.

    Raises:
        InputError: if there is nothing to draw, or the picture cannot be written.
    """
    path = Path(path)
    names = getattr(dataset, "class_names", None)
    chosen = _chosen(dataset, seed).take(count)
    tiles = [_tile(example, names) for example in chosen.as_numpy_iterator()]
    if not tiles:
        raise InputError("there is no image to draw")
    columns = min(max(columns, 1), len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + _GAP for row in rows]
    picture = Image.new("RGB", (columns * (_TILE + _GAP), sum(heights)), "white")
    for number, row in enumerate(rows):
        for column, tile in enumerate(row):
            picture.paste(tile, (column * (_TILE + _GAP), sum(heights[:number])))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except (OSError, ValueError) as error:  # ValueError: an ending that is no format
        raise InputError(f"cannot write the picture {path}: {error}") from error
    return path


def _chosen(dataset: Any, seed: int | None) -> Any:
    if seed is None:
        return dataset
    if getattr(dataset, "records", None) is None:
        return dataset.shuffle(1000, seed=seed)
    import tensorflow as tf

    order = np.random.default_rng(seed).permutation(len(dataset.records))
    return dataset.reordered(tf.data.Dataset.from_tensor_slices(order.astype(np.int64)))


def _tile(example: dict[str, Any], names: list[str] | None) -> Image.Image:
    image = Image.fromarray(np.clip(example["image"], 0, 255).astype(np.uint8))
    scale = _TILE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    flags = example.get("crowd", np.zeros(len(example["labels"]), bool))
    for box, label, crowd in zip(example["boxes"], example["labels"], flags, strict=True):
        colour = _COLOURS[label % len(_COLOURS)]
        x1, y1, x2, y2 = (float(edge) * scale for edge in box)
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=2)
        text = names[label] if names and label < len(names) else f"class {label}"
        text += " (crowd)" if crowd else ""
        length = draw.textlength(text, font=font)
        place = (max(2.0, min(x1 + 2, width - length - 2)), max(0.0, y1 - 13))
        left, top, right, bottom = draw.textbbox(place, text, font=font)
        draw.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=colour)
        draw.text(place, text, fill="white", font=font)
    return image
