"""COCO's object-detection JSON: `images`, `annotations`, `categories`.

Boxes are x, y, width, height from the image's corner; labels follow the rising category ids, so
COCO's 80 categories with ids 1..90 get labels 0..79. Images come in the order of their file names,
which is that of their ids in COCO, and which other readers share.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasdet.data import class_names as names_of
from kerasdet.data import example as ex
from kerasdet.data.decoding import header_size
from kerasdet.data.images import ImageFolder
from kerasdet.data.progress import track
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError


def from_coco(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    *,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    strict: bool = False,
):
    """Reads COCO's JSON and a folder of images.

    Args:
        annotations: the JSON file.
        images: the folder that `file_name` is relative to.
        class_names: label order, see `class_names.resolve`; an object of another category is
            reported and dropped. None: all categories by rising id.
        strict: the first bad annotation or image is an error.

    Returns:
        The data set of examples (`kerasdet.data.example`). `image_id` is the JSON's id in digits.
        Crowd regions are kept and flagged. An image without annotations is kept.

    Raises:
        InputError: if the file is not COCO's JSON, the folder is not there, or no object is valid.
    """
    file, folder = Path(annotations), Path(images)
    if not folder.is_dir():
        raise InputError(f"there is no folder of images {folder}")
    content = _content(file)
    inspector = ex.Inspector(strict)
    names, label_of = _categories(file, content["categories"], names_of.resolve(class_names))
    found = _images(file, content["images"], ImageFolder(folder), inspector)

    rows: dict[Any, list[ex.Row]] = {image_id: [] for image_id in found}
    listed = {i["id"] for i in content["images"] if isinstance(i, dict) and _is_id(i.get("id"))}
    for number, annotation in enumerate(track(content["annotations"], "Reading COCO annotations")):
        checked = _annotation(file, number, annotation, found, listed, label_of, inspector)
        if checked is not None:
            rows[annotation["image_id"]].append(checked)

    records = [
        ex.make_record(str(image_id), str(path), height=height, width=width, rows=rows[image_id])
        for image_id, (path, height, width) in sorted(
            found.items(), key=lambda item: item[1][0].as_posix()
        )
    ]
    return to_dataset(records, names, inspector, f"coco:{file},{folder}")


def _content(file: Path) -> dict[str, list]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # JSON and unicode errors are ValueErrors
        raise InputError(f"{file} is not JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{file} is not COCO's object-detection JSON: it has no list {key!r}")
    return content


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _categories(
    file: Path, categories: list, wanted: list[str] | None
) -> tuple[list[str], dict[Any, int | str]]:
    """Names in label order, and for each category id its label, or its name if it is not wanted.

    Categories of one name are one class: Roboflow's exports often begin with a category that is
    called as another one is.
    """
    if not categories:
        raise InputError(f"{file} has no categories, so that its annotations are of no class")
    named = {}
    for category in categories:
        if not isinstance(category, dict) or not isinstance(category.get("name"), str):
            raise InputError(f"{file}: every category needs an id and a name, not {category!r:.80}")
        if not _is_id(category.get("id")) or category["id"] in named:
            raise InputError(f"{file}: category {category['name']!r} has no id of its own")
        named[category["id"]] = category["name"]
    # Numbers before strings: both are rare in one file, and neither compares with the other.
    ids = sorted(named, key=lambda i: (isinstance(i, str), i))
    names = names_of.resolve(wanted or list(dict.fromkeys(named[i] for i in ids))) or []
    labels = {name: label for label, name in enumerate(names)}
    label_of = {i: labels[named[i]] if named[i] in labels else named[i] for i in ids}
    return names, label_of


def _images(
    file: Path, images: list, folder: ImageFolder, inspector: ex.Inspector
) -> dict[Any, tuple[Path, int, int]]:
    """Path, height and width of every image that is there, by image id."""
    found: dict[Any, tuple[Path, int, int]] = {}
    for number, image in enumerate(images):

        def dropped(rule, value, row):
            inspector.report(file, row, rule=rule, value=value, action=ex.DROPPED_IMAGE)

        row = f"images[{number}]"
        if not isinstance(image, dict) or not _is_id(image.get("id")):
            dropped(ex.MISSING_VALUE, "id", row)
            continue
        row = f"image {image['id']}"
        if image["id"] in found:
            dropped(ex.DUPLICATE, image["id"], row)
            continue
        name = image.get("file_name")
        path = folder.find(name) if isinstance(name, str) else None
        if path is None:
            dropped(ex.MISSING_IMAGE, name, row)
            continue
        height: Any = image.get("height")
        width: Any = image.get("width")
        if not all(isinstance(v, int) and 0 < v < 2**31 for v in (height, width)):
            try:
                height, width = header_size(path)
            except ValueError as error:
                dropped(ex.UNREADABLE_IMAGE, f"{path.name}: {error}", row)
                continue
            inspector.report(
                file,
                row,
                rule=ex.MISSING_SIZE,
                value=f"{image.get('width')}x{image.get('height')}, the image is {width}x{height}",
                action="size taken from the image",
            )
        found[image["id"]] = (path, height, width)
    return found


def _annotation(
    file: Path,
    number: int,
    annotation: Any,
    found: dict[Any, tuple[Path, int, int]],
    listed: set,
    label_of: dict[Any, int | str],
    inspector: ex.Inspector,
) -> ex.Row | None:
    def dropped(rule, value):
        inspector.report(file, row, rule=rule, value=value, action=ex.DROPPED_BOX)

    row = f"annotations[{number}]"
    if not isinstance(annotation, dict):
        return dropped(ex.MISSING_VALUE, "not an object")
    if _is_id(annotation.get("id")):
        row = f"annotation {annotation['id']}"
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if not _is_id(image_id) or image_id not in listed:
        return dropped(ex.UNKNOWN_IMAGE, image_id)
    if image_id not in found:
        return None  # the image was reported already, once for all its boxes
    label = label_of.get(category_id) if _is_id(category_id) else None
    if label is None or isinstance(label, str):
        return dropped(ex.UNKNOWN_CLASS, f"category {category_id}" if label is None else label)
    corner_and_size = annotation.get("bbox")
    if not isinstance(corner_and_size, list) or len(corner_and_size) != 4:
        return dropped(ex.MISSING_VALUE, f"bbox {corner_and_size}")
    try:
        x, y, w, h = (float(value) for value in corner_and_size)
    except (TypeError, ValueError, OverflowError):
        return dropped(ex.NOT_A_NUMBER, corner_and_size)
    _, height, width = found[image_id]
    box = inspector.box(file, row, raw=(x, y, x + w, y + h), height=height, width=width)
    if box is None:
        return None
    area: Any = annotation.get("area")
    own = isinstance(area, int | float) and 0 < area < float("inf")
    crowd = annotation.get("iscrowd") in (1, True)
    return ex.Row(box, label, crowd=crowd, area=float(area) if own else None)
