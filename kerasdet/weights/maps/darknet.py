"""The order in which a darknet `.weights` file holds a network's numbers.

A file has no names: the layers follow one another as in the cfg, which for every network here
is `conv1`, `conv2`, ..., then `local1`, then `connected1`, ... Each holds:

- `conv`: biases; with batch normalisation scales, means, variances; weights as (out, in, kernel
  rows, kernel columns).
- `local`: biases as (out, rows, columns); weights as (rows, columns, out, in, kernel rows,
  kernel columns).
- `connected`: biases; weights as (out, in), where the inputs that were a map stand by channel,
  row, column; with batch normalisation scales, means, variances.

A normalised layer's biases are its normalisation's beta. Variances are used as they are: on a
GPU, where the published networks were trained, darknet adds 1e-5 inside the root as
`darknet_conv` does (src/blas_kernels.cu); without one it adds 1e-6 outside.

Source: darknet src/parser.c, load_weights_upto and the functions it calls.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers.passthrough import Passthrough
from kerasdet.weights.assign import Assigned, assign_matching, variable_names
from kerasdet.weights.darknet_file import read_darknet, write_darknet

# Kinds of layers in the order of every cfg here, and their names.
_KINDS = ("conv", "local", "connected")
_NAME = re.compile(r"(conv|local|connected)(\d+)")

# Counts the images that a network was trained on; a file has it in its header.
_SEEN = "images_seen"


class Block(NamedTuple):
    """One run of numbers in a file, and the variable that they are.

    Attributes:
        layer: "conv7".
        what: "biases", "scales", "means", "variances" or "weights".
        variable: "conv7_norm/gamma".
        shape: how the numbers lie in the file; the filters or units first, but for `local`
            weights.
        axes: axes of `shape` in the order of the variable's.
        wanted: shape of the variable.
    """

    layer: str
    what: str
    variable: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    wanted: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    def from_file(self, numbers) -> np.ndarray:
        """A file's numbers as the variable."""
        return numbers.reshape(self.shape).transpose(self.axes).reshape(self.wanted)

    def to_file(self, array) -> np.ndarray:
        """The variable's array as the file's numbers."""
        array = np.asarray(array).reshape([self.shape[axis] for axis in self.axes])
        return array.transpose(np.argsort(self.axes)).reshape(-1)


def blocks(model, *, transposed=False) -> list[Block]:
    """What a file of this network holds, in order.

    Args:
        model: a built functional Keras model whose layers with weights are named
            `conv<n>`, `conv<n>_norm`, `local<n>` and `connected<n>`.
        transposed: connected layers' matrices are (in, out), as in files from before
            2015-12.

    Raises:
        InputError: if the model has other weights; a file has no place for them.
    """
    layers = {layer.name: layer for layer in model.layers}
    inside = [name for name, layer in layers.items() if isinstance(layer, keras.Model)]
    if inside:
        raise InputError(
            f"Model {model.name!r} is no network of darknet's: a .weights file has no place for "
            f"the model {inside[0]!r} inside it; save it as .weights.h5."
        )
    matches = [m for name in layers if (m := _NAME.fullmatch(name))]
    matches.sort(key=lambda m: (_KINDS.index(m[1]), int(m[2])))
    readers = {"conv": _conv, "local": _local, "connected": _connected}
    found = []
    for match in matches:
        layer, norm = layers[match[0]], layers.get(f"{match[0]}_norm")
        found += readers[match[1]](layer, norm, transposed)
    known = {block.variable for block in found}
    others = [name for name in variable_names(model) if name not in known and not _is_seen(name)]
    if others or not found:
        raise InputError(
            f"Model {model.name!r} is no network of darknet's: a .weights file has no place for "
            + (
                ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
                or "a model without weights"
            )
            + "."
        )
    return found


def expected_floats(model) -> int:
    """Numbers in a file of this network; each is 4 bytes, behind a header of 16 or 20."""
    return sum(block.size for block in blocks(model))


def load(model, path: str | Path, *, partial=False, outputs=True, layers=None) -> Assigned:
    """Puts a `.weights` file into a model; all of it must fit, or nothing is done.

    Args:
        model: as `blocks` wants it.
        path: the file.
        partial: whether the file may hold the first layers only, such as
            `darknet19_448.conv.23`; the others keep their values.
        outputs: False leaves the last layer as it is, and the file's may be of any width:
            for a network of other classes than the file's.
        layers: load so many of the first layers alone, whatever the file has behind them:
            the trunk that a classifier and a detector share. None: all.

    Returns:
        What was loaded and what was left. `model.images_seen`, where there is one, takes the
        header's count if all was loaded.

    Raises:
        InputError: if the file is damaged or of another network; the sentence says how many
            numbers were wanted and found, and where the file ends.
    """
    file = read_darknet(path)
    here = blocks(model, transposed=file.transposed)
    taken, spared = _taken(model, here, file.numbers.size, partial, outputs, layers, path)
    if taken[-1].layer == here[-1].layer or spared:
        check_passthrough(model, path)
    arrays, start = {}, 0
    for block in [*taken, *spared]:
        arrays[block.variable] = block.from_file(file.numbers[start : start + block.size])
        start += block.size
    wanted = {block.variable for block in taken}
    if taken == here:
        for name in filter(_is_seen, variable_names(model)):
            arrays[name] = np.array(min(file.seen, 2**31 - 1), "int32")
            wanted.add(name)
    done = assign_matching(model, arrays, skip=lambda name: name not in wanted, source=str(path))
    return done._replace(left=[left for left in done.left if not _is_seen(left.name)])


def save(model, path: str | Path, *, layers=None) -> None:
    """Writes a `.weights` file that darknet reads with the network's cfg, header 0.2.0.

    Args:
        model: as `blocks` wants it; the images it has seen stand in `model.images_seen`.
        path: of the file; replaced only when the new one is whole.
        layers: write so many of the first layers alone, to start another network from (as
            darknet's `partial`, which counts poolings too); None: all.

    Raises:
        InputError: if the model is no network of darknet's, or the file cannot be written.
    """
    here = blocks(model)
    if layers is None:
        check_passthrough(model, path)
    else:
        here = _first(model, here, layers)
    variables = variable_names(model)
    seen = [int(ops.convert_to_numpy(v)) for name, v in variables.items() if _is_seen(name)]
    write_darknet(
        path,
        (block.to_file(ops.convert_to_numpy(variables[block.variable])) for block in here),
        seen=seen[0] if seen and layers is None else 0,
    )


def layer_names(model) -> list[str]:
    """Names of the layers in the order of the file.

    Raises:
        InputError: as `blocks`.
    """
    return list(dict.fromkeys(block.layer for block in blocks(model)))


def output_width(model, count: int) -> int | None:
    """Filters or units of the last layer in a file of this network with other outputs.

    Args:
        model: as `blocks` wants it.
        count: numbers in the file.

    Returns:
        The width, or None where no width gives that count.
    """
    return _width(blocks(model), count)


# ------------------------------------------------------------------------ layers


def _conv(layer, norm, transposed):
    rows, columns, channels, filters = layer.kernel.shape
    weights = Block(
        layer.name,
        "weights",
        f"{layer.name}/kernel",
        (filters, channels, rows, columns),
        (2, 3, 1, 0),
        (rows, columns, channels, filters),
    )
    return [*_biases(layer, norm), *_statistics(layer, norm), weights]


def _connected(layer, norm, transposed):
    inputs, units = layer.kernel.shape
    # A map comes flattened by row, column, channel here, by channel, row, column there.
    height, width, channels = _map_before(layer) or (1, 1, inputs)
    shape, axes = (units, channels, height, width), (2, 3, 1, 0)
    if transposed:
        shape, axes = (channels, height, width, units), (1, 2, 0, 3)
    weights = Block(layer.name, "weights", f"{layer.name}/kernel", shape, axes, (inputs, units))
    return [*_biases(layer, norm), weights, *_statistics(layer, norm)]


def _local(layer, norm, transposed):
    height, width, rows, columns, channels, filters = layer.kernel.shape
    biases = Block(
        layer.name,
        "biases",
        f"{layer.name}/bias",
        (filters, height, width),
        (1, 2, 0),
        (height, width, filters),
    )
    weights = Block(
        layer.name,
        "weights",
        f"{layer.name}/kernel",
        (height, width, filters, channels, rows, columns),
        (0, 1, 4, 5, 3, 2),
        (height, width, rows, columns, channels, filters),
    )
    return [biases, weights]


def _biases(layer, norm):
    filters = layer.kernel.shape[-1]
    if norm is None:
        return [_vector(layer, "biases", f"{layer.name}/bias", filters)] if layer.use_bias else []
    return [_vector(layer, "biases", f"{norm.name}/beta", filters)]


def _statistics(layer, norm):
    if norm is None:
        return []
    names = {"scales": "gamma", "means": "moving_mean", "variances": "moving_variance"}
    filters = layer.kernel.shape[-1]
    return [_vector(layer, what, f"{norm.name}/{name}", filters) for what, name in names.items()]


def _vector(layer, what, variable, length):
    return Block(layer.name, what, variable, (length,), (0,), (length,))


def _map_before(layer):
    """(height, width, channels) of the map whose flattened numbers a connected layer reads, or None."""
    tensor = layer.input
    while len(tensor.shape) == 2:
        operation = tensor._keras_history.operation
        if hasattr(operation, "kernel") or not operation._inbound_nodes[0].input_tensors:
            return None
        tensor = operation.input
    shape = tuple(tensor.shape[1:])
    pooled = None in shape or math.prod(shape) != layer.kernel.shape[0]
    return None if pooled or len(shape) != 3 else shape


# ------------------------------------------------------------------------ what fits


def _taken(model, here, count, partial, outputs, layers, path):
    """Blocks that the file is for, and behind them those it has that are left out."""
    if layers is not None:
        first = _first(model, here, layers)
        if sum(block.size for block in first) <= count:
            return first, []
        raise InputError(_misfit(model, first, count, path))
    above = [block for block in here if block.layer == here[-1].layer]
    below = here[: -len(above)]
    if count == sum(block.size for block in here):
        return (here, []) if outputs else (below, above)
    width = _width(here, count)
    if not outputs and width and below:
        return below, [_with_width(block, width) for block in above]
    whole, end = _whole_layers(here, count)
    if partial and whole and end == count:
        return here[:whole], []
    raise InputError(_misfit(model, here, count, path))


def _first(model, here, layers):
    """Blocks of so many layers."""
    names = list(dict.fromkeys(block.layer for block in here))
    if not 1 <= layers <= len(names):
        raise InputError(
            f"Model {model.name!r} has {len(names)} layers with numbers in a .weights file; "
            f"layers={layers} is not 1 to {len(names)}."
        )
    return [block for block in here if block.layer in names[:layers]]


def _width(here, count):
    last = [block for block in here if block.layer == here[-1].layer]
    below = sum(block.size for block in here if block.layer != here[-1].layer)
    each = sum(block.size for block in last) // last[-1].wanted[-1]  # of one filter or unit
    return (count - below) // each if count > below and (count - below) % each == 0 else None


def _with_width(block, width):
    place = block.axes[-1]  # the filters, last in every variable
    shape = (*block.shape[:place], width, *block.shape[place + 1 :])
    return block._replace(shape=shape, wanted=(*block.wanted[:-1], width))


def _whole_layers(here, count):
    """How many blocks stand in the layers that a file of `count` numbers holds whole, and their numbers."""
    whole = end = start = 0
    for i, block in enumerate(here):
        start += block.size
        last = i + 1 == len(here) or here[i + 1].layer != block.layer
        if last and start <= count:
            whole, end = i + 1, start
    return whole, end


def _misfit(model, here, count, path):
    wanted = sum(block.size for block in here)
    start = f"{path} holds {count:,} numbers and model {model.name!r} wants {wanted:,}: "
    if count > wanted:
        return start + f"{count - wanted:,} are left over behind {here[-1].layer}."
    whole, end = _whole_layers(here, count)
    if end == count and whole:
        return start + (
            f"it ends behind {here[whole - 1].layer}, so that it may be a file of the first layers "
            "alone; load it with partial=True if it is."
        )
    for block in here:
        if count < block.size:
            place = f"it ends in the {block.what} of {block.layer}, {count:,} of {block.size:,}"
            break
        count -= block.size
    return start + place + "."


def _is_seen(name):
    return name.rpartition("/")[2] == _SEEN


def check_passthrough(model, path):
    """Refuses a model whose passthrough orders channels otherwise than darknet's reorg.

    Raises:
        InputError: naming the file that is read or written.
    """
    for layer in model.layers:
        if isinstance(layer, Passthrough) and layer.order != "darknet":
            raise InputError(
                f"{path} is a file for darknet, whose reorg reads a map in its own order, and the "
                f"passthrough of model {model.name!r} has the order {layer.order!r}: make the "
                "model with darknet's."
            )
