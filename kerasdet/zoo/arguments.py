"""What the builders' common arguments mean: the classes, and where `pretrained` points."""

from pathlib import Path
from typing import Any

from kerasdet.classes import VOC_NAMES, named_classes
from kerasdet.errors import InputError
from kerasdet.weights import keras_file


def classes(num_classes, class_names, default=None) -> dict[str, Any]:
    """Constructor arguments for the classes; `default` names serve where their number fits."""
    if class_names is not None:
        return {"num_classes": num_classes, "class_names": class_names}
    default = list(default or VOC_NAMES)
    if num_classes in (None, len(default)):
        return {"class_names": default}
    return {"num_classes": num_classes}


def wanted_count(of, num_classes, class_names) -> int | None:
    """K as a caller of the builder `of` says it; None where the weight file or a default is to say.

    Raises:
        InputError: if the two do not agree, or are no number and no names; before a file is looked at.
    """
    if num_classes is None and class_names is None:
        return None
    return len(named_classes(of, num_classes, class_names))


def is_path(pretrained) -> bool:
    """A set's name is a bare word; anything else, or a file that is there, is a path."""
    if pretrained is True:
        return False
    return (
        isinstance(pretrained, Path)
        or Path(pretrained).exists()
        or bool(set(pretrained) & {"/", "\\", "."})
    )


def is_own(path) -> bool:
    """Whether an HDF5 file is a Keras 3 `.weights.h5`, as this package's training writes."""
    import h5py

    try:
        with h5py.File(path) as file:
            return "layers" in file or "_layer_checkpoint_dependencies" in file
    except OSError as error:
        raise InputError(f"{path} begins like an HDF5 file but cannot be read: {error}.") from error


def with_own(model, path):
    """The model with the weights of a `.weights.h5`, if a path is given."""
    if not path:
        return model
    if path is True or not Path(path).is_file():
        raise InputError(f"{model.name} has no published weights; give a .weights.h5, not {path}.")
    keras_file.load(model, path)
    return model
