"""Files of region proposals: the release's `.mat` of one image or of a whole set, and `.npz`.

Everything comes out as float32 (R, 4), xyxy pixels of the image with continuous edges.
"""

import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from kerasdet.errors import InputError

REGIONS_KEY = "regions"
"""Of the array in our own `.npz` files; "size", (height, width) of the image, stands beside it."""

_KEYS = (REGIONS_KEY, "boxes")
# No file packs more than this into a byte (deflate), so none can hold more numbers.
_MOST_PER_BYTE = 1032
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, IndexError)


def read_regions(path: str | os.PathLike, *, first_pixel: int = 0) -> np.ndarray:
    """The regions of one image, from a `.mat` or `.npz` file.

    Args:
        path: a `.mat` file with the key "boxes", (R, 4) of x1, y1, x2, y2, each the number of a
            pixel inside the box, as the release's demo has them; or an `.npz` file with the key
            "regions" or "boxes", (R, 4) xyxy with continuous edges.
        first_pixel: number of a `.mat` file's first pixel: 0 as in the release's demo, or 1 as
            MATLAB counts and the files that pascal_voc.py reads for selective_search_IJCV and
            coco.py for every method.

    Returns:
        (R, 4) float32, xyxy pixels.

    Raises:
        InputError: if it cannot be read, has other keys, or a row is no region: not finite,
            reversed, before the first pixel, or in shares of the image in place of pixels.

    Source: Fast R-CNN, tools/demo.py, lib/datasets/pascal_voc.py, lib/datasets/coco.py.
    """
    path = Path(path)
    if path.suffix == ".npz":
        arrays = _npz(path)
        key = next((key for key in _KEYS if key in arrays), None)
        if key is None:
            raise InputError(
                f"Regions of one image in {path} want the key regions or boxes, and it has "
                f"{_listed(arrays)}."
            )
        return checked(arrays[key], path)
    found = _mat(path)["boxes"]
    if found.dtype == object:
        raise InputError(
            f"{path} holds the regions of {found.size} images, not of one: kerasdet.data."
            "read_region_sets reads it."
        )
    return _from_pixel_numbers(found, first_pixel, path)


def read_region_sets(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The regions of many images, by the names of these, from one `.mat` or `.npz` file.

    Args:
        path: a `.mat` file as in the release's selective_search_data: cells "images" with the
            names, and "boxes" with (R, 4) of y1, x1, y2, x2 for each, numbers of pixels inside
            the box, the first of which is 1; or an `.npz` file with one array (R, 4) xyxy with
            continuous edges for each image, named as it.

    Returns:
        {name of the image, without folder and suffix: (R, 4) float32, xyxy pixels}.

    Raises:
        InputError: as `read_regions`.

    Source: Fast R-CNN, lib/datasets/pascal_voc.py, _load_selective_search_roidb; R-CNN,
        imdb/roidb_from_voc.m, attach_proposals.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return {name: checked(rows, path, f" {name}") for name, rows in _npz(path).items()}
    arrays = _mat(path, "images")
    names, cells = arrays["images"].ravel(), arrays["boxes"].ravel()
    if names.dtype != object or cells.dtype != object or len(names) != len(cells):
        raise InputError(
            f"Cells of regions for each image's name are wanted in {path}, not {len(cells)} "
            f"boxes of type {cells.dtype} for {len(names)} images of type {names.dtype}."
        )
    found = {}
    for cell, rows in zip(names, cells, strict=True):
        name = np.asarray(cell).ravel()
        if name.size != 1 or name.dtype.kind != "U":
            raise InputError(f"Names of images are wanted under images in {path}, not {cell!r}.")
        where = f" {name[0]}"
        array = _numbers(rows, path, where)[:, [1, 0, 3, 2]]
        found[Path(str(name[0])).stem] = _from_pixel_numbers(array, 1, path, where)
    return found


def write_regions(path: str | os.PathLike, regions: np.ndarray, size: tuple[int, int]) -> None:
    """Writes an `.npz` file that `read_regions` reads; it is there whole or not at all.

    Args:
        path: the file.
        regions: (R, 4) xyxy pixels.
        size: (height, width) of the image.

    Raises:
        InputError: if it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                arrays: dict[str, Any] = {
                    REGIONS_KEY: np.asarray(regions, np.float32),
                    "size": np.array(size),
                }
                np.savez_compressed(file, **arrays)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error


def read_written(path: str | os.PathLike) -> tuple[np.ndarray, tuple[int, int]]:
    """Regions (R, 4) and (height, width) of the image, from a file of `write_regions`.

    Raises:
        InputError: as `read_regions`.
    """
    path = Path(path)
    arrays = _npz(path)
    if {REGIONS_KEY, "size"} - set(arrays) or arrays["size"].shape != (2,):
        raise InputError(
            f"{path} wants regions and the image's size; it has {_listed(arrays)}: delete it."
        )
    height, width = arrays["size"].tolist()
    return checked(arrays[REGIONS_KEY], path), (int(height), int(width))


def checked(rows: Any, path: Path, where: str = "") -> np.ndarray:
    """Regions with continuous edges, as float32 (R, 4).

    Raises:
        InputError: if they are none.
    """
    boxes = _numbers(rows, path, where)
    _refuse((boxes[:, 2:] <= boxes[:, :2]).any(axis=1), "x1 < x2 and y1 < y2", boxes, path, where)
    return boxes.astype(np.float32)


def _from_pixel_numbers(rows: np.ndarray, first: int, path: Path, where: str = "") -> np.ndarray:
    """Regions from the numbers of their first and last pixels across and down."""
    boxes = _numbers(rows, path, where)
    _refuse((boxes < first).any(axis=1), f"pixels numbered from {first}", boxes, path, where)
    _refuse((boxes[:, 2:] < boxes[:, :2]).any(axis=1), "x1 <= x2 and y1 <= y2", boxes, path, where)
    return (boxes + np.array([-first, -first, 1 - first, 1 - first])).astype(np.float32)


def _numbers(rows: Any, path: Path, where: str) -> np.ndarray:
    """(R, 4) float64, finite, and no shares of the image."""
    array = np.asarray(rows)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "uif":
        raise InputError(
            f"Regions (R, 4) are wanted in {path}{where}, not {array.dtype} {array.shape}."
        )
    boxes = array.astype(np.float64)
    _refuse(~np.isfinite(boxes).all(axis=1), "finite numbers", boxes, path, where)
    if array.dtype.kind == "f" and np.abs(boxes).max() <= 1:
        raise InputError(
            f"Pixels are wanted for the regions in {path}{where}, but no coordinate is above 1: "
            "shares of the image are to be multiplied by its width and height."
        )
    return boxes


def _refuse(bad: Any, rule: str, boxes: np.ndarray, path: Path, where: str) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        values = ", ".join(f"{value:g}" for value in boxes[row])
        raise InputError(f"Regions want {rule}; row {row} of {path}{where} is {values}.")


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as opened:  # NumPy leaves a broken file open
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is another file of NumPy's")
            with file:
                return {name: file[name] for name in file.files}
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(f"{path} cannot be read as an .npz file: {_reason(error)}.") from error


def _mat(path: Path, *more: str) -> dict[str, np.ndarray]:
    """The variable "boxes" of a MATLAB file, and those named."""
    wanted = ("boxes", *more)
    try:
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        raise InputError(
            f"MATLAB files want SciPy, to read {path}: pip install 'kerasdet[proposals]'."
        ) from error
    try:
        there = {name: shape for name, shape, _ in whosmat(path)}
        missing = [name for name in wanted if name not in there]
        if missing:
            raise InputError(
                f"Regions in {path} want the key{'s' * (len(wanted) > 1)} {' and '.join(wanted)}, "
                f"and it has {_listed(there)}."
            )
        most = _MOST_PER_BYTE * path.stat().st_size
        for name in wanted:
            if np.prod(there[name], dtype=float) > most:
                raise ValueError(f"{name} claims {there[name]} values")
        arrays = loadmat(path, variable_names=list(wanted), appendmat=False)
        return {name: np.asarray(arrays[name]) for name in wanted}
    except InputError:
        raise
    except NotImplementedError as error:  # version 7.3
        raise InputError(
            f"{path} is a MATLAB file of version 7.3: save it as -v7 (or earlier) or as .npz."
        ) from error
    except Exception as error:  # SciPy's reader raises many kinds on a broken file
        raise InputError(f"{path} cannot be read as a MATLAB file: {_reason(error)}.") from error


def _listed(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "none"


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return (text or type(error).__name__)[:120].rstrip(".")
