"""Puts arrays into a model's variables, and says exactly what did not fit.

Keras' own `.weights.h5` loading matches layers by class and order, so that a swapped pair
loads silently. Here everything goes by name, and nothing is assigned unless all of it fits.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from rich.table import Table

from kerasdet.errors import InputError

# Faults named in one message; a file of another network has one for every variable.
_FAULTS_SHOWN = 12


class Left(NamedTuple):
    """A variable that kept its value.

    Attributes:
        name: "layer/variable".
        wanted: the variable's shape.
        came: the array's shape, or None where the file has no such array.
    """

    name: str
    wanted: tuple[int, ...]
    came: tuple[int, ...] | None


class Assigned(NamedTuple):
    """What a loading did.

    Attributes:
        loaded: names of the variables that were set.
        left: the variables that kept their values.
    """

    loaded: list[str]
    left: list[Left]

    def table(self) -> Table:
        """A Rich table of what was not loaded, and how much was."""
        table = Table(
            title=f"{len(self.loaded)} variables loaded, {len(self.left)} left as they were",
            title_justify="left",
        )
        for column in ("left as it was", "wanted", "file has"):
            table.add_column(column)
        for left in self.left:
            table.add_row(left.name, _shape(left.wanted), _shape(left.came))
        return table


def variable_names(model) -> dict[str, Any]:
    """The model's variables by "layer/variable", the last two parts of their paths.

    Raises:
        InputError: if two variables have the same name.
    """
    variables: dict[str, Any] = {}
    for variable in model.weights:
        name = "/".join(variable.path.split("/")[-2:])
        if name in variables:
            raise InputError(
                f"Model {model.name!r} has two variables named {name!r}, so that weights "
                "cannot be given to it by name."
            )
        variables[name] = variable
    return variables


def assign(model, arrays: Mapping[str, np.ndarray], *, source="the weights") -> Assigned:
    """Sets every variable of the model from the array of its name.

    Args:
        model: a built Keras model.
        arrays: "layer/variable" to array; every one is used.
        source: where the arrays came from, for the error's sentence.

    Raises:
        InputError: if a variable has no array, an array no variable, a shape differs or a
            number is not finite; all faults in one message, and nothing assigned.
    """
    return assign_matching(model, arrays, skip=lambda name: False, source=source)


def assign_matching(
    model,
    arrays: Mapping[str, np.ndarray],
    *,
    skip: Callable[[str], bool],
    source="the weights",
) -> Assigned:
    """As `assign`, but variables that `skip` names keep their values, whatever the file has.

    Args:
        model: a built Keras model.
        arrays: "layer/variable" to array.
        skip: says of a name "layer/variable" whether to leave it, such as the class
            outputs of a network for other classes.
        source: where the arrays came from, for the error's sentence.

    Returns:
        What was loaded and what was left; print its `table()`.
    """
    variables = variable_names(model)
    wanted = {name: v for name, v in variables.items() if not skip(name)}
    given = {name: array for name, array in arrays.items() if not skip(name)}
    faults = _faults(wanted, given)
    if faults:
        shown = faults[:_FAULTS_SHOWN]
        if len(faults) > len(shown):
            shown.append(f"and {len(faults) - len(shown)} more")
        raise InputError(
            f"{source} and model {model.name!r} do not fit, nothing was loaded: "
            + "; ".join(shown)
            + "."
        )
    for name, variable in wanted.items():
        variable.assign(given[name])
    left = [
        Left(name, tuple(v.shape), _shape_of(arrays.get(name)))
        for name, v in variables.items()
        if name not in wanted
    ]
    return Assigned(list(wanted), left)


def share(model, other) -> list[str]:
    """Gives a model the weights of every layer that another model has by the same name and shapes.

    What a model counts itself, as images seen, stays as it is.

    Args:
        model: what is changed.
        other: what is read; its first layer has to fit, or it is another network.

    Returns:
        Names of the model's layers with weights that stayed as they were.

    Raises:
        InputError: if the first layer does not fit; nothing is changed then.
    """
    here, there = _by_layer(model), _by_layer(other)
    shared = [layer for layer in here if layer in there and _alike(here[layer], there[layer])]
    first = next(iter(here), None)
    if first is not None and first not in shared:
        wanted, came = (
            ", ".join(f"{name} {_shape(v.shape)}" for name, v in variables.items()) or "nothing"
            for variables in (here[first], there.get(first, {}))
        )
        raise InputError(
            f"{model.name} wants a model of its own network to start from: its first layer, "
            f"{first}, has {wanted}, and that of {other.name} {came}."
        )
    for layer in shared:
        for name, variable in here[layer].items():
            variable.assign(there[layer][name])
    return [layer for layer in here if layer not in shared]


def _by_layer(model, prefix=""):
    """Variables by name by layer, those of a model inside by "model/layer"; not the model's own."""
    found: dict[str, dict[str, Any]] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= _by_layer(layer, f"{prefix}{layer.name}/")
        elif layer.weights:
            found[prefix + layer.name] = {
                v.path.rpartition(f"{layer.name}/")[2]: v for v in layer.weights
            }
    return found


def _alike(mine, theirs):
    return {k: tuple(v.shape) for k, v in mine.items()} == {
        k: tuple(v.shape) for k, v in theirs.items()
    }


def _faults(variables, arrays) -> list[str]:
    faults = []
    for name, variable in variables.items():
        if name not in arrays:
            faults.append(f"{name} {_shape(variable.shape)} is missing")
            continue
        array = np.asarray(arrays[name])
        if array.shape != tuple(variable.shape):
            faults.append(
                f"{name} wants {_shape(variable.shape)}, the file has {_shape(array.shape)}"
            )
        elif not np.isfinite(array).all():
            bad = array.size - int(np.isfinite(array).sum())
            faults.append(f"{name} has {bad:,} numbers that are not finite")
    for name in arrays:
        if name not in variables:
            faults.append(f"{name} {_shape(np.shape(arrays[name]))} is not used")
    return faults


def _shape_of(array):
    return None if array is None else tuple(np.shape(array))


def _shape(shape) -> str:
    if shape is None:
        return "nothing"
    return "x".join(str(side) for side in shape) or "one number"
