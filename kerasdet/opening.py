"""Opens whatever the shell may call a model: a run, a saved model, an export, or a name."""

from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

import keras

from kerasdet import runs, zoo
from kerasdet.classifier import Classifier
from kerasdet.data import class_names as names_of
from kerasdet.errors import InputError
from kerasdet.weights.file_format import recognise

_PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def open_model(
    model: str,
    *,
    weights: str | None = None,
    tree: str | None = None,
    class_names: str | Path | None = None,
    image_size: str | None = None,
    classifiers: bool = False,
):
    """A detector from a run folder, a `.keras` file, an exported SavedModel, or a name.

    Args:
        model: which; a name takes its default pretrained set unless `weights` says other.
        weights: for a name: a pretrained set's name or a weight file.
        tree: for the name "yolo9000": the file of its WordTree.
        class_names: for a name: text file of the names of the weights' labels, one a line, where
            they come without: OverFeat's.
        image_size: the side of the network's input, or "HEIGHTxWIDTH", for one that takes
            several; None: its own.
        classifiers: whether a `kerasdet.classifier.Classifier` will do too.

    Raises:
        InputError: if it is none of these, or its input is of one size.
    """
    opened = _opened(model, weights, tree, class_names)
    classifies = isinstance(opened, Classifier)
    if not hasattr(opened, "detect") and not (classifies and classifiers):
        raise InputError(f"{model} is a {type(opened).__name__}, which is no detector.")
    if image_size is not None:
        if not (classifies or getattr(opened, "takes_any_size", False)):
            height, width = opened.image_size
            raise InputError(f"{model} works on images of {height}x{width} alone.")
        opened.image_size = sides(image_size)
    return opened


def sides(text: str) -> tuple[int, int]:
    """(height, width) of a size as the shell writes it: 416, or 320x608.

    Raises:
        InputError: if it is neither.
    """
    found = [int(side) for side in text.lower().split("x") if side.isdecimal()]
    if len(found) != text.lower().count("x") + 1 or len(found) > 2:
        raise InputError(
            f"An image size wants a side or HEIGHTxWIDTH, as 416 or 320x608: {text!r}."
        )
    return found[0], found[-1]


def set_looks(model, *, scales: str | None = None, merge: str | None = None) -> None:
    """Sets at which sizes a model looks at photos, and how what it finds is merged.

    Args:
        model: an OverFeat, or for `scales` a classifier.
        scales: HEIGHTxWIDTH, or the side of a square, separated by commas; None: as they are.
        merge: its name; None: as it is.

    Raises:
        InputError: if the model has no such setting, or does not take this one.
    """
    for option, value in (("scales", scales), ("merge", merge)):
        if value is not None and not hasattr(type(model), option):
            raise InputError(f"--{option} goes with an OverFeat, not with {model.name}.")
    if scales is not None:
        model.scales = [sides(size.strip()) for size in scales.split(",")]
    if merge is not None:
        model.merge = merge


def _opened(model, weights, tree=None, class_names=None):
    path = Path(model)
    if tree is not None and (path.exists() or model != "yolo9000"):
        raise InputError(f"A tree goes with yolo9000 by its name, not with {model}.")
    if class_names is not None and path.exists():
        raise InputError(
            f"Names of classes go with a model by name and its weights; {model} has its own."
        )
    if path.is_dir():
        if (path / "model.json").is_file():
            return runs.open_run(path)
        from kerasdet import export

        return export.load(path)
    if path.is_file():
        # A .keras that was cut short is an archive without an index, as a cut .pth is.
        if path.suffix != ".keras" and (form := recognise(path)) != "keras":
            raise InputError(
                f"{path} holds weights alone ({form}): name the model, and give the file by --weights."
            )
        return _saved(path)
    if "/" in model or path.suffix:
        raise InputError(
            f"Wanted a run folder, a .keras file or a model's name; no such path: {model}."
        )
    given = {}
    if tree is not None:
        given["tree"] = tree
    names = None if class_names is None else names_of.resolve(Path(class_names))
    opened = zoo.build(model, pretrained=weights or True, **given)
    if names is not None:
        if len(names) != opened.num_classes:
            raise InputError(
                f"The weights of {model} are of {opened.num_classes} classes, and {class_names} has "
                f"{len(names)} names."
            )
        opened.class_names = names
    return opened


def _saved(path):
    """The model of a `.keras` file, not compiled."""
    try:
        return keras.saving.load_model(path, compile=False)
    except (AttributeError, KeyError, OSError, TypeError, ValueError, BadZipFile) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0][:200]
        raise InputError(
            f"Wanted a model saved as .keras, but {path} cannot be read: {reason}."
        ) from error


def load(path):
    """A model as it was saved: a `.keras` file, a run folder or an exported SavedModel.

    `keras.saving.load_model` does for a `.keras` file too once the model's class has been used, as
    `kerasdet.SSD`.

    Args:
        path: the file or folder.

    Returns:
        The detector or `kerasdet.Classifier`, not compiled; of an export, what `kerasdet.export.load`
        gives.

    Raises:
        InputError: if it is none of these, or damaged.
    """
    if not Path(path).exists():
        raise InputError(f"Wanted a saved model, but there is nothing at {path}.")
    return _opened(str(path), None, None)


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
