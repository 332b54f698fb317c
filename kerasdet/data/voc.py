"""Pascal VOC folders: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/<split>.txt`.

VOC's boxes name the first and the last pixel that belong to the object, counted from 1 (VOC
development kit, sec. 4.2), so `xmin, xmax` spans the continuous edges `xmin - 1` to `xmax`. Files
by others in this layout often count from 0; theirs come out one pixel larger at the top left, and a
box that would begin at -1 begins at 0. Only a box that sticks out by more than one pixel is
reported. As two equal corners mark an object of one pixel, which no annotator draws, such a box is
reported as degenerate.
"""

import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kerasdet.classes import VOC_NAMES
from kerasdet.data import class_names as names_of
from kerasdet.data import example as ex
from kerasdet.data.decoding import SUFFIXES, header_size
from kerasdet.data.progress import track
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError

_MAX_XML_BYTES = 16 * 2**20  # VOC's largest is some 30 kB
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def from_voc(
    folder: str | os.PathLike,
    split: str | None = None,
    *,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    strict: bool = False,
):
    """Reads a folder in the layout of Pascal VOC.

    Args:
        folder: holds `Annotations` and `JPEGImages`.
        split: a file in `ImageSets/Main`, without `.txt`, such as `trainval`; its order is kept.
            None: every annotation file, by name.
        class_names: label order; see `class_names.resolve`. None: VOC's 20 if no other name occurs,
            else the sorted names of all annotations in the folder, whatever the split, so that
            splits agree.
        strict: the first bad annotation or image is an error.

    Returns:
        The data set of examples (`kerasdet.data.example`). An annotation file that cannot be read
        takes its image with it: without its boxes the image would teach the
        detector to see nothing there.

    Raises:
        InputError: if folder or split is not there, or no object is valid.
    """
    folder = Path(folder)
    for part in ("Annotations", "JPEGImages"):
        if not (folder / part).is_dir():
            raise InputError(
                f"a VOC folder holds Annotations and JPEGImages; there is no folder {folder / part}"
            )
    inspector = ex.Inspector(strict)
    annotations = {p.stem: p for p in sorted((folder / "Annotations").glob("*.xml"))}
    images = _images(folder / "JPEGImages")
    stems = list(annotations) if split is None else _split(folder, split)
    if not stems:
        raise InputError(f"{folder}: no images in split {split or 'of all annotations'}")

    names = names_of.resolve(class_names)
    # Names that are not given come from every file of the folder, so every file is read.
    wanted = [s for s in stems if s in annotations] if names else list(annotations)
    parsed = {stem: _parse(annotations[stem]) for stem in track(wanted, "Reading VOC annotations")}
    names = names or _names_in(parsed.values())
    labels = {name: label for label, name in enumerate(names)}

    records = []
    for stem in stems:
        if stem not in annotations:
            inspector.report(
                folder / "Annotations" / f"{stem}.xml",
                "",
                rule=ex.MISSING_ANNOTATION,
                value=f"split {split}",
                action=ex.DROPPED_IMAGE,
            )
            continue
        record = _record(annotations[stem], parsed[stem], images, labels, inspector)
        if record is not None:
            records.append(record)
    name = f"voc:{folder}" + (f":{split}" if split else "")
    return to_dataset(records, names, inspector, name)


class _Object(NamedTuple):
    name: str | None
    corners: tuple[str | None, ...]
    difficult: bool


class _Annotation(NamedTuple):
    filename: str
    size: tuple[int, int] | None  # height, width
    objects: list[_Object]
    fault: str  # why the file cannot be read, or ""


def _images(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            found.setdefault(path.stem, path)
            found[path.name] = path
    return found


def _split(folder: Path, split: str) -> list[str]:
    file = folder / "ImageSets" / "Main" / f"{split}.txt"
    inside = file.resolve().is_relative_to((folder / "ImageSets").resolve())
    if not inside or not file.is_file():
        there = sorted(p.stem for p in (folder / "ImageSets" / "Main").glob("*.txt"))
        raise InputError(
            f"{folder} has no split {split!r} in ImageSets/Main; there: "
            f"{', '.join(there) or 'none'}"
        )
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not a list of image names") from error
    # VOC's class-wise lists have a second column, -1 where the class is absent.
    return list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))


class _NoDoctype(ET.TreeBuilder):
    """Refuses document types: an entity can grow without bound, or name other files."""

    def doctype(self, name, pubid, system):
        raise ValueError("it declares a document type")


def _parse(path: Path) -> _Annotation:
    def unreadable(reason):
        return _Annotation("", None, [], str(reason))

    try:
        if path.stat().st_size > _MAX_XML_BYTES:
            return unreadable(f"more than {_MAX_XML_BYTES >> 20} MiB")
        parser = ET.XMLParser(target=_NoDoctype())
        parser.feed(path.read_bytes())
        root = parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        return unreadable(error)
    except OSError as error:
        return unreadable(error.strerror)
    if root.tag != "annotation":
        return unreadable(f"its root is <{root.tag[:40]}>, not <annotation>")
    objects = []
    for element in root.iter(
        "object"
    ):  # direct children in VOC; the parts of people hold no <object>
        corners = tuple(_text(element, f"bndbox/{corner}") for corner in _CORNERS)
        difficult = _text(element, "difficult") not in (None, "0")
        objects.append(_Object(_text(element, "name"), corners, difficult))
    return _Annotation(_text(root, "filename") or "", _size(root), objects, "")


def _text(element: ET.Element, path: str) -> str | None:
    text = (element.findtext(path) or "").strip()
    return text or None


def _size(root: ET.Element) -> tuple[int, int] | None:
    try:
        height, width = (int(float(_text(root, f"size/{k}") or 0)) for k in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    fits = 0 < height < 2**31 and 0 < width < 2**31
    return (height, width) if fits else None


def _names_in(annotations) -> list[str]:
    found = {o.name for a in annotations for o in a.objects if o.name is not None}
    return list(VOC_NAMES) if found <= set(VOC_NAMES) else sorted(found)


def _record(
    file: Path,
    annotation: _Annotation,
    images: dict[str, Path],
    labels: dict[str, int],
    inspector: ex.Inspector,
) -> ex.Record | None:
    def dropped(rule: str, value: Any):
        inspector.report(file, "", rule=rule, value=value, action=ex.DROPPED_IMAGE)

    if annotation.fault:
        return dropped(ex.UNREADABLE_ANNOTATION, annotation.fault)
    # The name inside the file is only a fallback: copies are often renamed and not edited.
    image = images.get(file.stem) or images.get(os.path.basename(annotation.filename))
    if image is None:
        return dropped(ex.MISSING_IMAGE, f"JPEGImages/{file.stem}")
    size = annotation.size
    if size is None:
        try:
            size = header_size(image)
        except ValueError as error:
            return dropped(ex.UNREADABLE_IMAGE, f"{image.name}: {error}")
        inspector.report(
            file,
            "",
            rule=ex.MISSING_SIZE,
            value=f"the image is {size[1]}x{size[0]}",
            action="size taken from the image",
        )
    rows = []
    for number, found in enumerate(annotation.objects, start=1):
        row = f"object {number}"
        if found.name is None or None in found.corners:
            missing = "name" if found.name is None else _CORNERS[found.corners.index(None)]
            inspector.report(file, row, rule=ex.MISSING_VALUE, value=missing, action=ex.DROPPED_BOX)
            continue
        if found.name not in labels:
            inspector.report(
                file, row, rule=ex.UNKNOWN_CLASS, value=found.name, action=ex.DROPPED_BOX
            )
            continue
        box = inspector.box(file, row, raw=found.corners, height=size[0], width=size[1], first=1)
        if box is not None:
            rows.append(ex.Row(box, labels[found.name], difficult=found.difficult))
    return ex.make_record(file.stem, str(image), height=size[0], width=size[1], rows=rows)
