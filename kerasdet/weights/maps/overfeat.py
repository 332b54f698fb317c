"""OverFeat's layers and the order in which its raw files hold them; its own `.weights.h5` by name.

`conv1`, `conv2`, ..., then `fc<n>`, then `classes`: the names that a `Classifier` and an `OverFeat`
share, so that one's weights start the other. What an `OverFeat` has besides, its regression and its
background, no released file has.
"""

import re
from pathlib import Path

import h5py
import numpy as np
from keras import ops

from kerasdet.errors import InputError
from kerasdet.weights.assign import Assigned, assign_matching, variable_names
from kerasdet.weights.overfeat_file import (
    Weights,
    class_count,
    floats_of,
    read_overfeat,
    write_overfeat,
)

Arrays = dict[str, np.ndarray]

_NAME = re.compile(r"(conv|fc)(\d+)|classes")
_KINDS = ("conv", "fc", None)
_CLASSES = "classes"
_BOXES = "boxes"


def shapes(model) -> dict[str, tuple[int, int, int, int]]:
    """The layers of a file of this network, in order, with (out, in, kernel rows, kernel columns).

    Args:
        model: a built `Classifier` or `OverFeat`, or any model whose layers have those names.

    Raises:
        InputError: if the model is no OverFeat.
    """
    layers = {layer.name: layer for layer in model.layers}
    matches = [match for name in layers if (match := _NAME.fullmatch(name))]
    matches.sort(key=lambda match: (_KINDS.index(match[1]), int(match[2] or 0)))
    names = [match[0] for match in matches]
    if names[-1:] != [_CLASSES] or not any(name.startswith("fc") for name in names):
        raise InputError(f"Model {model.name!r} is no OverFeat, whose weights these files hold.")
    return {name: _file_shape(layers[name].kernel.shape) for name in names}


def expected_floats(model) -> int:
    """Numbers in a file of this network; each is 4 bytes."""
    return floats_of(shapes(model).values())


def load(model, path: str | Path, *, outputs=True) -> Assigned:
    """Puts a raw file into a model; all of it must fit, or nothing is done.

    Args:
        model: as `shapes` wants it.
        path: the file.
        outputs: False leaves "classes" as it is, and the file's may be of any number: for a
            network of other classes than the file's.

    Returns:
        What was loaded and what was left: of an `OverFeat` also what no such file has.

    Raises:
        InputError: if the file is damaged or of another network.
    """
    of_file = shapes(model)
    if not outputs:
        *below, (_, hidden, *_) = of_file.values()
        if count := class_count(path, below, hidden):
            of_file[_CLASSES] = (count, hidden, 1, 1)
    arrays: Arrays = {}
    for name, layer in zip(of_file, read_overfeat(path, list(of_file.values())), strict=True):
        arrays[f"{name}/kernel"] = layer.weights.transpose(2, 3, 1, 0)
        arrays[f"{name}/bias"] = layer.biases
    spared = () if outputs else (_CLASSES,)
    return assign_matching(
        model,
        arrays,
        skip=lambda name: name not in arrays or name.rpartition("/")[0] in spared,
        source=str(path),
    )


def save(model, path: str | Path) -> None:
    """Writes a raw file as the release's, which the released program reads at full width.

    Args:
        model: as `shapes` wants it.
        path: of the file; replaced only when the new one is whole.

    Raises:
        InputError: if the model is no OverFeat, or the file cannot be written.
    """
    variables = variable_names(model)

    def layer(name):
        kernel, biases = (
            ops.convert_to_numpy(variables[f"{name}/{part}"]) for part in ("kernel", "bias")
        )
        return Weights(kernel.transpose(3, 2, 0, 1), biases)

    write_overfeat(path, (layer(name) for name in shapes(model)))


# ------------------------------------------------------------------------ Keras' own files


def read_own(path: str | Path) -> Arrays:
    """Kernels and biases of a `.weights.h5` as "layer/kernel" and "layer/bias", by its layers' names.

    Keras itself matches layers by class and order, so that a classifier's would not go into a
    detector.

    Raises:
        InputError: if the file is damaged or no `.weights.h5` of an OverFeat.
    """
    arrays: Arrays = {}

    def collect(_, item):  # a layer's name stands at the group of its variables
        name = item.attrs.get("name") if isinstance(item, h5py.Group) else None
        for number, variable in zip("01", ("kernel", "bias"), strict=True):
            if isinstance(name, str) and _is_plain(array := item.get(number)):
                arrays[f"{name}/{variable}"] = array[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    # h5py raises these for damaged files, by what the damage hits.
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is a damaged HDF5 file: {error}.") from error
    if np.ndim(arrays.get("classes/kernel", 0)) != 4:
        raise InputError(f"{path} holds no weights of an OverFeat: it has no layer 'classes'.")
    return arrays


def load_own(model, arrays: Arrays, *, source: str) -> Assigned:
    """Puts into a model what `read_own` found of the same names.

    What the file lacks, as a classifier's lacks the regression, keeps its value. Where the number of
    classes differs, so do the classes, and the boxes if there are some for each class.

    Args:
        model: a `Classifier` or an `OverFeat`.
        arrays: of the file.
        source: the file, for the error's sentence.

    Raises:
        InputError: if another shape differs, or a layer up to the classes is missing.
    """
    here = variable_names(model)
    spared = set()
    if arrays["classes/kernel"].shape[-1] != model.num_classes:
        per_class = {f"{_BOXES}/kernel", f"{_BOXES}/bias"} & set(arrays) & set(here)
        if any(arrays[name].shape != tuple(here[name].shape) for name in per_class):
            spared.add(_BOXES)
        spared.add(_CLASSES)
    needed = {f"{name}/{part}" for name in shapes(model) for part in ("kernel", "bias")}

    def left(name):
        layer = name.rpartition("/")[0]
        return layer in spared or (name not in arrays and name not in needed)

    given = {name: array for name, array in arrays.items() if name in here}
    return assign_matching(model, given, skip=left, source=source)


# ------------------------------------------------------------------------ helpers


def _file_shape(kernel):
    rows, columns, channels, filters = kernel
    return filters, channels, rows, columns


def _is_plain(item):
    # An HDF5 data set may lie in another file, or claim a size that no bytes stand behind.
    return (
        isinstance(item, h5py.Dataset)
        and item.dtype == np.float32
        and not item.is_virtual
        and item.external is None
        and item.id.get_storage_size() == item.nbytes
    )
