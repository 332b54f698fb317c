"""Region proposals beside the images they belong to, for detectors that want regions."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kerasdet.data.joining import hand_on
from kerasdet.data.progress import track
from kerasdet.data.proposal_cache import (
    METHODS,
    SETTINGS_FILE,
    Method,
    content_key,
    regions_file,
)
from kerasdet.data.proposals import MAX_REGIONS
from kerasdet.data.region_files import read_region_sets, read_regions, read_written
from kerasdet.data.stream import reason_lost
from kerasdet.errors import InputError
from kerasdet.region_proposals import checked_regions

Load = Callable[[], np.ndarray]


class _Image(NamedTuple):
    """What tells whose regions are wanted.

    Attributes:
        name: its id.
        path: of its file; "" where the pixels count.
        pixels: gives uint8 (H, W, 3).
        size: (height, width).
    """

    name: str
    path: str
    pixels: Callable[[], np.ndarray]
    size: tuple[int, int]

    @property
    def stem(self) -> str:
        """What files of regions call it: the name of its file, or its id, without a suffix."""
        return Path(self.path or self.name).stem


def with_regions(
    examples: tf.data.Dataset,
    regions: Any,
    *,
    max_regions: int = MAX_REGIONS,
    first_pixel: int = 0,
) -> tf.data.Dataset:
    """The data set with region proposals in every example.

    An example then has "regions", float32 (R, 4), xyxy pixels of the image, the best first. Regions that
    jut out of their image are cut at its edges.

    Args:
        examples: what a reader gives. Where it has `records`, the regions of all its images are
            looked at here and now; otherwise each image's when it comes.
        regions: where they are: a folder that `propose` (`kerasdet data proposals`) filled; a folder with
            a file NAME.npz, NAME.mat or NAME_boxes.mat for each image file NAME, as
            `read_regions` reads; one file for all, as `read_region_sets` reads; a dict from such
            names, or image ids, to arrays (R, 4); or a function from an image (H, W, 3) to one.
        max_regions: the first so many of an image are taken.
        first_pixel: of `.mat` files of one image, see `read_regions`.

    Returns:
        The data set, with the attributes of the one given, and `max_regions`.

    Raises:
        InputError: if an image that can be read has no regions there, or something there is no
            region of its image: reversed, not finite, outside, or in shares of the image.
    """
    if max_regions < 1:
        raise InputError(f"max_regions wants 1 or more, not {max_regions}.")
    spec = examples.element_spec
    if not isinstance(spec, dict) or "image" not in spec:
        raise InputError(f"with_regions wants examples, dicts with an image, not {spec}.")
    if callable(regions):
        change = _computed(regions, max_regions)
    else:
        find, place = _source(regions, first_pixel)
        change = _looked_up(examples, find, place, max_regions)
    changed = examples.map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    hand_on(examples, changed, change)
    if hasattr(examples, "class_names"):
        changed.class_names = examples.class_names
    changed.max_regions = max_regions
    return changed


def regions_of_photos(
    regions: str | os.PathLike, *, single: bool = False, first_pixel: int = 0
) -> Callable[[Path, np.ndarray], np.ndarray]:
    """What gives a photo's regions from its path and its pixels (H, W, 3): (R, 4) float32.

    Args:
        regions: a path, as `with_regions` takes it, or the name of a method in
            `kerasdet.data.proposal_cache.METHODS`.
        single: whether there is one photo: a file then may hold its regions alone, as
            `read_regions` reads.
        first_pixel: of `.mat` files of one image, see `read_regions`.

    Raises:
        InputError: here or from what is returned, as `with_regions`.
    """
    if regions in METHODS:
        method = Method(str(regions))
        method.check()
        return lambda _, image: method.regions(image)
    if single and Path(regions).is_file():
        rows = read_regions(regions, first_pixel=first_pixel)
        return lambda _, image: checked_regions(rows, image.shape[:2], str(regions))
    find, place = _source(regions, first_pixel)

    def found(path, image):
        photo = _Image(path.name, str(path), lambda: image, image.shape[:2])
        load = find(photo)
        if load is None:
            raise _missing([photo], 1, place)
        return load()

    return found


def _put(example, function, inputs):
    """The example with what a NumPy function of these tensors gives as its regions."""
    rows = tf.numpy_function(function, inputs, tf.float32)
    return {**example, "regions": tf.ensure_shape(rows, (None, 4))}


def _computed(function, max_regions):
    def compute(image):
        rows = np.asarray(function(image))
        return checked_regions(rows, image.shape[:2], "the regions of an image")[:max_regions]

    return lambda example: _put(example, compute, [example["image"]])


def _looked_up(examples, find, place, max_regions):
    """The function from an example to one with regions, where an image's are found by `find`."""
    spec = examples.element_spec
    records = getattr(examples, "records", None)
    if records is not None and {"image_id", "path"} <= set(spec):
        table = _table(examples, find, place)

        def of_record(name, path):
            return table[name, path]()[:max_regions]

        return lambda example: _put(example, of_record, [example["image_id"], example["path"]])

    def of_image(name, image):
        here = _Image(_text(name), "", lambda: image, image.shape[:2])
        load = find(here)
        if load is None:
            raise _missing([here], 1, place)
        return load()[:max_regions]

    def change(example):
        return _put(example, of_image, [example.get("image_id", tf.constant("")), example["image"]])

    for _ in examples.take(1).map(change):  # a wrong folder shows here, where it can be caught
        pass
    return change


def _table(examples, find, place) -> dict[tuple[bytes, bytes], Load]:
    """For each image what loads its regions, which are looked at once."""
    table: dict[tuple[bytes, bytes], Load] = {}
    missing = []
    for record, image in track(
        _images(examples), "Looking at regions", total=len(examples.records)
    ):
        try:
            load = find(image)
        except OSError:
            load = None
        if load is not None:
            load()
            table[record.image_id.encode(), record.path.encode()] = load
        elif not (image.path and reason_lost(image.path)):  # else the stream leaves it out
            missing.append(image)
    if missing:
        raise _missing(missing, len(examples.records), place)
    return table


def _images(examples) -> Iterator[tuple[Any, _Image]]:
    pixels = getattr(examples, "pixels", None)
    for number, record in enumerate(examples.records):

        def image(number=number):
            return np.asarray(pixels(number))

        path = record.path if pixels is None else ""
        yield record, _Image(record.image_id, path, image, (record.height, record.width))


def _missing(images, count, place):
    first = images[0].path or images[0].name or "an image"
    which = f"{len(images)} of {count} images have" if count > 1 else f"{first} has"
    named = f", the first {first}" if count > 1 else ""
    return InputError(f"{which} no regions in {place}{named}: kerasdet data proposals makes them.")


def _text(value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _source(regions, first_pixel):
    """From an `_Image` to what loads its regions, or None where there are none; and a name."""
    if isinstance(regions, Mapping):
        return _of_mapping(regions, "the regions given"), "the regions given"
    if not isinstance(regions, str | os.PathLike):
        raise InputError(
            "with_regions wants a folder, a file, a dict from image ids to arrays, or a function "
            f"of an image, not a {type(regions).__name__}."
        )
    place = Path(regions)
    if place.is_dir():
        kept = (place / SETTINGS_FILE).is_file()
        return (_of_cache(place) if kept else _of_folder(place, first_pixel)), str(place)
    if not place.is_file():
        raise InputError(f"Regions are wanted in {place}, and there is no such folder or file.")
    return _of_mapping(read_region_sets(place), str(place)), str(place)


def _of_mapping(regions, place):
    def find(image):
        for name in (image.name, image.stem):
            if name in regions:
                where = f"the regions of {name} in {place}"
                rows = checked_regions(regions[name], image.size, where)
                return lambda: rows
        return None

    return find


def _of_folder(folder, first_pixel):
    def find(image):
        for ending in (".npz", ".mat", "_boxes.mat"):
            path = folder / f"{image.stem}{ending}"
            if path.is_file():
                return lambda: checked_regions(
                    read_regions(path, first_pixel=first_pixel), image.size, str(path)
                )
        return None

    return find


def _of_cache(folder):
    def find(image):
        pixels = None if image.path else image.pixels()
        key = content_key(image.path, pixels, annotated=image.size)
        path = regions_file(folder, key)
        if not path.is_file():
            return None

        def load():
            rows, size = read_written(path)
            return checked_regions(rows, size, str(path))

        return load

    return find
