"""YOLO text labels: one file an image, rows `class cx cy w h` in parts of the image.

Photos count as upright, as tools show them: a file does not say on which pixels it was made. A row with
more numbers is an outline `class x1 y1 x2 y2 ...` (a segmentation data set): its box is taken. Either a
`data.yaml` says where the images are and what the classes are called, or two folders do.
"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kerasdet.data import class_names as names_of
from kerasdet.data import example as ex
from kerasdet.data.decoding import SUFFIXES, header_size
from kerasdet.data.images import ImageFolder
from kerasdet.data.progress import track
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError

_MAX_YAML_BYTES = 4 * 2**20  # 9418 names of YOLO9000 are 0.2 MB
_MAX_LABEL_BYTES = 16 * 2**20
_MAX_CLASSES = 1_000_000
_ROUNDING = 1e-3  # as far outside 0..1 a rounded number may lie


def from_yolo(
    source: str | os.PathLike,
    labels: str | os.PathLike | None = None,
    *,
    split: str = "train",
    class_names: Sequence[str] | str | os.PathLike | None = None,
    strict: bool = False,
):
    """Reads YOLO text labels.

    Args:
        source: a `data.yaml` (keys `path`, `train`, `val`, `test`, `names`), or the folder of
            images.
        labels: the folder of label files, with a folder of images; a label file has its image's
            relative path with `.txt`. None: as with `data.yaml`, the last part `images` of an
            image's path replaced by `labels`, or else beside the image.
        split: the key of `data.yaml` to read; of no meaning for folders.
        class_names: label order, see `class_names.resolve`. With names in `data.yaml` it selects
            and orders among these; without, it names the numbers in the files. None: the names in
            `data.yaml`; for folders the lines of `classes.txt` among the labels, or else "class 0",
            "class 1", ... up to the greatest number found.
        strict: the first bad row or image is an error.

    Returns:
        The data set of examples (`kerasdet.data.example`), by file name. `image_id` is the file's
        stem, without leading zeros if it is a number, so that it is COCO's id for COCO's files. An
        image without a label file is an image without objects.

    Raises:
        InputError: if something named is not there, no image has a label file, or no object is
            valid.
    """
    source = Path(source)
    inspector = ex.Inspector(strict)
    own_names: list[str] | None
    if source.is_dir():
        folder = Path(labels) if labels is not None else None
        if folder is not None and not folder.is_dir():
            raise InputError(f"there is no folder of labels {folder}")
        images = _in_folder(source, folder)
        own_names = _classes_txt(images, folder)
        name = f"yolo:{source}" + (f",{folder}" if folder else "")
    elif labels is not None:
        raise InputError(f"there is no folder of images {source}")
    else:
        images, own_names = _from_yaml(source, split)
        name = f"yolo:{source}:{split}"
    if not images:
        raise InputError(f"{name}: there is no image ({', '.join(SUFFIXES)})")

    parsed = [_parse(image.label) for image in track(images, "Reading YOLO labels")]
    if all(lines is None for lines in parsed):
        raise InputError(
            f"{name}: none of {len(images)} images has a label file; the first would be "
            f"{images[0].label}"
        )
    names, label_of = _names(own_names, names_of.resolve(class_names), parsed)
    _report_labels_without_image(images, inspector)
    ids = _ids(images)
    records = []
    for number, image in enumerate(track(images, "Reading image sizes")):
        record = _record(image, ids[number], parsed[number], names, label_of, inspector)
        if record is not None:
            records.append(record)
    return to_dataset(records, names, inspector, name)


class _Image(NamedTuple):
    path: Path
    label: Path
    relative: str  # of the image, without suffix


def _in_folder(folder: Path, labels: Path | None) -> list[_Image]:
    images = []
    found = ImageFolder(folder).paths.items()
    for relative, path in sorted(found, key=lambda item: item[1].as_posix()):
        stem = os.path.splitext(relative)[0]
        label = labels / f"{stem}.txt" if labels is not None else _label_of(path)
        images.append(_Image(path, label, stem))
    return images


def _label_of(image: Path) -> Path:
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _classes_txt(images: list[_Image], folder: Path | None) -> list[str] | None:
    """LabelImg and its kin write the names beside the labels."""
    folder = folder or (images[0].label.parent if images else None)
    file = folder / "classes.txt" if folder else None
    return names_of.resolve(str(file)) if file is not None and file.is_file() else None


def _from_yaml(file: Path, split: str) -> tuple[list[_Image], list[str]]:
    content = _yaml(file)
    names = content.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    # A scalar a name: text made of nested aliases could grow without bound.
    plain = isinstance(names, list) and all(isinstance(n, str | int | float) for n in names)
    if not isinstance(names, list) or not names or not plain:
        raise InputError(f"{file}: `names` must be a list, or a mapping from 0, 1, 2, ... to names")
    if isinstance(content.get("nc"), int) and content["nc"] != len(names):
        raise InputError(f"{file}: `nc` is {content['nc']}, but `names` has {len(names)} entries")
    places = content.get(split)
    places = [places] if isinstance(places, str) else places
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        there = [key for key in ("train", "val", "test") if content.get(key)]
        raise InputError(f"{file} has no split {split!r}; there: {', '.join(there) or 'none'}")
    root = content.get("path")
    roots = [file.parent / root] if isinstance(root, str) else []
    images: list[_Image] = []
    for place in places:
        folders = [*roots, file.parent]
        images += _at(_place(file, place, folders), folders)
    return sorted(images, key=lambda image: image.path.as_posix()), [str(name) for name in names]


def _yaml(file: Path) -> dict[Any, Any]:
    try:
        if file.stat().st_size > _MAX_YAML_BYTES:
            raise InputError(f"{file} is too long for a data.yaml")
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise InputError(
            f"YOLO data is a data.yaml or a folder of images; cannot read {file}: {error.strerror}"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a data.yaml: it has no keys")
    return content


def _place(file: Path, place: str, roots: Sequence[Path]) -> Path:
    # Exports of Roboflow write ../train/images and mean train/images.
    for root in roots:
        for variant in (place, place.removeprefix("../")):
            if (root / variant).exists():
                return root / variant
    raise InputError(
        f"{file} names {place!r}, which is neither in {' nor in '.join(map(str, roots))}"
    )


def _at(place: Path, roots: Sequence[Path]) -> list[_Image]:
    """The images of a folder, or of a list whose lines count from the list or from the first root."""
    if place.is_dir():
        return _in_folder(place, None)
    images = []
    try:
        lines = place.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{place} is neither a folder nor a list of images") from error
    for line in filter(None, map(str.strip, lines)):
        path = place.parent / line if line.startswith("./") else roots[0] / line
        images.append(_Image(path, _label_of(path), os.path.splitext(path.name)[0]))
    return images


def _parse(label: Path) -> list[list[str]] | str | None:
    """The words of each line; a reason if it cannot be read; None if there is no file."""
    try:
        if label.stat().st_size > _MAX_LABEL_BYTES:
            return f"more than {_MAX_LABEL_BYTES >> 20} MiB"
        return [line.split() for line in label.read_text("utf-8").splitlines()]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())


def _class_number(word: str) -> int | None:
    try:
        number = float(word)  # some tools write 3.0
    except ValueError:
        return None
    return int(number) if number.is_integer() and 0 <= number < _MAX_CLASSES else None


def _names(
    own: list[str] | None, wanted: list[str] | None, parsed: Iterable
) -> tuple[list[str], dict[int, int | str]]:
    """Names in label order, and for each number in the files its label or its unwanted name."""
    if own is None and wanted is None:
        words = (line[0] for lines in parsed if isinstance(lines, list) for line in lines if line)
        numbers = {number for word in words if (number := _class_number(word)) is not None}
        own = [f"class {number}" for number in range(max(numbers, default=0) + 1)]
    elif own is None:
        own = wanted
    names = names_of.resolve(wanted or list(dict.fromkeys(own or []))) or []
    labels = {name: label for label, name in enumerate(names)}
    return names, {number: labels.get(name, name) for number, name in enumerate(own or [])}


def _report_labels_without_image(images: list[_Image], inspector: ex.Inspector) -> None:
    used = {image.label for image in images}
    for folder in sorted({label.parent for label in used}):
        # An image list may leave out images on purpose: a label is stray if no image lies where its
        # would.
        beside = {image.path.parent for image in images if image.label.parent == folder}
        stems = {p.stem for f in beside if f.is_dir() for p in f.iterdir() if p.suffix != ".txt"}
        for label in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
            if label not in used and label.stem not in stems and label.name != "classes.txt":
                inspector.report(
                    label, "", rule=ex.LABEL_WITHOUT_IMAGE, value=label.stem, action="label ignored"
                )


def _ids(images: list[_Image]) -> list[str]:
    stems = [image.path.stem for image in images]
    ids = [str(int(s)) if s.isascii() and s.isdecimal() and len(s) < 20 else s for s in stems]
    for unique in (ids, stems, [image.relative for image in images]):
        if len(set(unique)) == len(images):
            return unique
    return [str(image.path) for image in images]


def _record(
    image: _Image,
    image_id: str,
    lines: list[list[str]] | str | None,
    names: list[str],
    label_of: dict[int, int | str],
    inspector: ex.Inspector,
) -> ex.Record | None:
    def dropped(file, rule, value):
        inspector.report(file, "", rule=rule, value=value, action=ex.DROPPED_IMAGE)

    file = image.label
    if isinstance(lines, str):
        return dropped(file, ex.UNREADABLE_ANNOTATION, lines)
    if not image.path.is_file():
        return dropped(image.path, ex.MISSING_IMAGE, image.relative)
    try:
        height, width = header_size(image.path)
    except ValueError as error:
        return dropped(image.path, ex.UNREADABLE_IMAGE, error)
    if lines is None:
        inspector.report(
            image.path, "", rule=ex.NO_OBJECTS, value="no label file", action="image kept"
        )
    rows = []
    for number, words in enumerate(lines or [], start=1):
        if not words:
            continue
        row = _row(file, f"line {number}", words, height, width, label_of, inspector)
        if row is not None:
            rows.append(row)
    return ex.make_record(image_id, str(image.path), height=height, width=width, rows=rows)


def _row(
    file: Path,
    row: str,
    words: list[str],
    height: int,
    width: int,
    label_of: dict[int, int | str],
    inspector: ex.Inspector,
) -> ex.Row | None:
    def dropped(rule, value):
        inspector.report(file, row, rule=rule, value=value, action=ex.DROPPED_BOX)

    number = _class_number(words[0])
    label = label_of.get(number) if number is not None else None
    if label is None or isinstance(label, str):
        return dropped(ex.UNKNOWN_CLASS, words[0] if label is None else label)
    try:
        values = [float(word) for word in words[1:]]
    except ValueError:
        return dropped(ex.NOT_A_NUMBER, " ".join(words))
    if not all(map(math.isfinite, values)):
        return dropped(ex.NOT_A_NUMBER, " ".join(words))
    outline = len(values) >= 6 and len(values) % 2 == 0
    if len(values) != 4 and not outline:
        return dropped(ex.MISSING_VALUE, f"{len(values)} numbers after the class")
    if not outline and min(values[2:]) < 0:
        return dropped(ex.INVERTED, " ".join(words))
    if min(values) < -_ROUNDING or max(values) > 1 + _ROUNDING:
        return dropped(ex.NOT_NORMALISED, " ".join(words))
    if outline:
        xs, ys = values[0::2], values[1::2]
        edges = (min(xs), min(ys), max(xs), max(ys))
    else:
        cx, cy, w, h = values
        edges = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    raw = [edge * side for edge, side in zip(edges, (width, height, width, height), strict=True)]
    box = inspector.box(file, row, raw=raw, height=height, width=width)
    return None if box is None else ex.Row(box, label)
