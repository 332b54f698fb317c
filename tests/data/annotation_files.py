"""Small data sets on disk for the readers' tests: one painted rectangle an object, boxes by formula."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def paint(path: Path, size, boxes=(), **options) -> np.ndarray:
    """Saves an image of size (height, width), grey 90, whose boxes (x1, y1, x2, y2) are painted."""
    pixels = np.full((*size, 3), 90, np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        pixels[y1:y2, x1:x2] = (250, 10 + 40 * number, 10)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def painted_box(pixels: np.ndarray, number: int = 0) -> list[int]:
    """The continuous edges x1, y1, x2, y2 of what was painted as this number."""
    ys, xs = np.nonzero((pixels == (250, 10 + 40 * number, 10)).all(axis=2))
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def voc_xml(objects, size=(5, 7), *, extra="") -> str:
    """An annotation; objects are (name, xmin, ymin, xmax, ymax[, difficult]) of any type."""
    height, width = size or (None, None)
    text = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    rows = [
        f"<object><name>{name}</name><difficult>{rest[0] if rest else 0}</difficult><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2, *rest in objects
    ]
    return f"<annotation>{extra}{text if size else ''}{''.join(rows)}</annotation>"


def voc_folder(folder: Path, annotations: dict[str, str], splits=None, size=(5, 7)) -> Path:
    """Annotations by stem, each with a PNG of this size."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for stem, text in annotations.items():
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
        paint(folder / "JPEGImages" / f"{stem}.png", size)
    for split, stems in (splits or {}).items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems))
    return folder


def coco_files(folder: Path, annotations, *, images=None, categories=None, size=(5, 7)):
    """The JSON and the folder of images; by default images 3 (b.png) and 11 (a.png)."""
    if images is None:
        images = [
            {"id": 3, "file_name": "b.png", "height": size[0], "width": size[1]},
            {"id": 11, "file_name": "a.png", "height": size[0], "width": size[1]},
        ]
    if categories is None:
        categories = [{"id": 7, "name": "cat"}, {"id": 2, "name": "ant"}, {"id": 5, "name": "bee"}]
    for name in ("a.png", "b.png"):
        paint(folder / "images" / name, size)
    file = folder / "ann.json"
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return file, folder / "images"


def annotation(number, image_id, category_id, bbox, **more) -> dict:
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def elements(dataset) -> list[dict]:
    return list(dataset.as_numpy_iterator())


def findings(dataset) -> list[tuple[str, str, str]]:
    """(file name, row, rule) of every problem."""
    return [(Path(p.file).name, p.row, p.rule) for p in dataset.problems]
