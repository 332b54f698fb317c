"""Data by one word, as the shell takes it: `voc:DIR:train`, `coco:ann.json,images/`, and so on."""

import os
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from kerasdet.data.classification import (
    from_image_folders,
    from_tfds_classification,
    shape_images,
)
from kerasdet.data.coco import from_coco
from kerasdet.data.crops import object_crops
from kerasdet.data.forms import FORMS, IMAGE_FORMS
from kerasdet.data.stream import join
from kerasdet.data.synthetic import CLASS_NAMES, SIDES, shapes
from kerasdet.data.tfds_reader import from_tfds
from kerasdet.data.voc import from_voc
from kerasdet.data.yolo_txt import from_yolo
from kerasdet.errors import InputError

_KINDS = ("voc", "coco", "yolo", "tfds", "shapes")
LABELS_ALONE = ("folders:", "crops:")
"""What begins the words of data whose images have a label each, and no boxes."""

_OPTIONS = {
    "voc": {"names"},
    "coco": {"names"},
    "yolo": {"names"},
    "tfds": {"names", "data_dir"},
    "shapes": {"count", "size", "objects", "seed", "classes", "sides"},
}


def load(
    spec: str, *, strict: bool = False, class_names: Sequence[str] | str | os.PathLike | None = None
):
    """Opens the data that a word names; `FORMS` lists what can be said.

    Args:
        spec: one of the forms.
        strict: the first bad annotation is an error, for the kinds that check.
        class_names: label order, see `class_names.resolve`; goes before an option `names`.

    Returns:
        The data set of examples (`kerasdet.data.example`).

    Raises:
        InputError: for a word of no such form, with the forms; and as the readers raise.
    """
    parts = re.split(rf"\+(?=(?:{'|'.join(_KINDS)})[:?]|shapes$)", os.fspath(spec))
    datasets = [_load_one(part.strip(), strict, class_names) for part in parts]
    return join(*datasets) if len(datasets) > 1 else datasets[0]


def load_images(spec: str, *, strict: bool = False):
    """Opens classification data, images with one label each, that a word names (`IMAGE_FORMS`).

    Args:
        spec: one of the forms.
        strict: the first image that cannot be used is an error.

    Returns:
        The data set of examples (`kerasdet.data.classification`).

    Raises:
        InputError: for a word of no such form, with the forms; and as the readers raise.
    """
    kind, _, place = os.fspath(spec).partition(":")
    if kind == "crops":
        return object_crops(load(place, strict=strict))
    head, _, query = os.fspath(spec).partition("?")
    kind, _, place = head.partition(":")
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = {"folders": {"names"}, "tfds": {"names", "data_dir"}}
    known["shapes"] = _OPTIONS["shapes"] - {"objects"}
    if kind not in known or (kind != "shapes" and not place):
        raise InputError(f"Data of labelled images is not {spec!r}. It is one of:\n{IMAGE_FORMS}")
    for key in options:
        if key not in known[kind]:
            there = ", ".join(sorted(known[kind]))
            raise InputError(f"{kind} has no option {key!r}, but {there}: {spec!r}.")
    if kind == "shapes":
        arguments = _shape_arguments(spec, options)
        arguments.pop("max_objects")
        return shape_images(split=place or "train", **arguments)
    place, split = _split(place)
    names: Any = options.get("names")
    if kind == "folders":
        return from_image_folders(place, split, class_names=names, strict=strict)
    data_dir = options.get("data_dir")
    return from_tfds_classification(
        place, split or "train", data_dir=data_dir, class_names=names, strict=strict
    )


def _load_one(spec: str, strict: bool, class_names: Sequence[str] | str | os.PathLike | None):
    head, _, query = spec.partition("?")
    kind, _, place = head.partition(":")
    if kind not in _KINDS:
        raise _wrong(spec, _guess(head))
    options = dict(parse_qsl(query, keep_blank_values=True))
    for key in options:
        if key not in _OPTIONS[kind]:
            there = ", ".join(sorted(_OPTIONS[kind]))
            raise _wrong(spec, f"{kind} has no option {key!r}, but {there}")
    if kind == "shapes":
        return _shapes(spec, place, options)
    if not place:
        raise _wrong(spec, f"nothing follows {kind}:")
    names = class_names if class_names is not None else options.get("names")
    if kind == "coco":
        file, comma, images = place.rpartition(",")
        if not comma:
            raise _wrong(spec, "the folder of images is missing after a comma")
        return from_coco(file, images, class_names=names, strict=strict)
    if kind == "yolo" and "," in place and not os.path.exists(place):
        images, _, labels = place.partition(",")
        return from_yolo(images, labels, class_names=names, strict=strict)
    place, split = _split(place)
    if kind == "voc":
        return from_voc(place, split, class_names=names, strict=strict)
    if kind == "yolo":
        return from_yolo(place, split=split or "train", class_names=names, strict=strict)
    data_dir = options.get("data_dir")
    return from_tfds(place, split or "train", data_dir=data_dir, class_names=names, strict=strict)


def _split(place: str) -> tuple[str, str | None]:
    """A split follows the last colon, unless a path goes on there (C:/data)."""
    head, colon, tail = place.rpartition(":")
    if colon and tail and head and not re.search(r"[/\\]", tail):
        return head, tail
    return place, None


def _shapes(spec: str, split: str, options: dict[str, str]):
    return shapes(split=split or "train", **_shape_arguments(spec, options))


def _shape_arguments(spec: str, options: dict[str, str]) -> dict[str, Any]:
    try:
        size = [int(side) for side in options.get("size", "160").split("x")]
        count, objects, seed = (
            int(options.get(key, default))
            for key, default in (("count", 1000), ("objects", 5), ("seed", 0))
        )
    except ValueError as error:
        raise _wrong(spec, "its options are whole numbers, size also like 120x160") from error
    if len(size) > 2:
        raise _wrong(spec, "size is one number, or height x width as in 120x160")
    try:
        sides = tuple(map(float, options["sides"].split(","))) if "sides" in options else SIDES
        low, high = sides
    except ValueError as error:
        raise _wrong(spec, "sides is two parts of the image's, as in 0.1,0.6") from error
    return {
        "count": count,
        "image_size": (size[0], size[-1]),
        "sides": (low, high),
        "max_objects": objects,
        "seed": seed,
        "classes": options["classes"].split(",") if "classes" in options else CLASS_NAMES,
    }


def _guess(path: str) -> str:
    if path.startswith(LABELS_ALONE):
        return "its images have a label each, and no boxes"
    if os.path.isdir(os.path.join(path, "Annotations")):
        return f"did you mean voc:{path}?"
    if path.endswith((".yaml", ".yml")):
        return f"did you mean yolo:{path}?"
    if path.split(",")[0].endswith(".json"):
        return f"did you mean coco:{path if ',' in path else path + ',IMAGES/'}?"
    return f"it does not begin with {', '.join(kind + ':' for kind in _KINDS[:-1])} or shapes"


def _wrong(spec: str, why: str) -> InputError:
    return InputError(f"{spec!r} names no data: {why}. The forms are:\n{FORMS}")
