"""Opens whatever the shell may call a model: a run, a saved model, an export, or a name."""

from collections.abc import Iterable
from pathlib import Path

import keras

from kerasdet import runs, zoo
from kerasdet.errors import InputError

_PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def open_model(model: str, *, weights: str | None = None):
    """A detector from a run folder, a `.keras` file, an exported SavedModel, or a name.

    Args:
        model: which; a name takes its default pretrained set unless `weights` says other.
        weights: for a name: a pretrained set's name or a weight file.

    Raises:
        InputError: if it is none of these.
    """
    path = Path(model)
    if path.is_dir():
        if (path / "model.json").is_file():
            return runs.open_run(path)
        from kerasdet import export

        return export.load(path)
    if path.is_file():
        try:
            loaded = keras.saving.load_model(path)
        except (ValueError, OSError, TypeError) as error:
            raise InputError(f"Wanted a model saved as .keras, but {path}: {error}") from error
        if not hasattr(loaded, "detect"):
            raise InputError(f"{path} holds a {type(loaded).__name__}, which is no detector.")
        return loaded
    if "/" in model or path.suffix:
        raise InputError(
            f"Wanted a run folder, a .keras file or a model's name; no such path: {model}."
        )
    return zoo.build(model, pretrained=weights or True)


def default_boxes_of(model: str):
    """(default boxes (A, 4), (height, width)) of a model by name, run folder or file."""
    detector = open_model(model) if Path(model).exists() else zoo.build(model, num_classes=1)
    return detector.default_boxes, detector.image_size


def photos(paths: Iterable[Path]) -> list[Path]:
    """The photos among these files and in these folders, in order of name.

    Raises:
        InputError: if a path is not there or a folder holds no photo.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"Wanted a photo or a folder of photos; no such path: {path}.")
        inside = (
            sorted(p for p in path.iterdir() if p.suffix.lower() in _PHOTOS)
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise InputError(f"{path} holds no photos ({', '.join(_PHOTOS)}).")
        found += inside
    return found
