"""VGG-16 under other programs' names, and its reduction to SSD's trunk.

This package's names are those of Caffe's release (conv1_1 ... conv5_3, fc6, fc7); kernels
are (height, width, in, out), and conv1_1 takes RGB.
"""

from collections.abc import Mapping
from typing import NamedTuple

import h5py
import numpy as np

from kerasdet.errors import InputError
from kerasdet.weights.caffe_file import CaffeModel

Arrays = dict[str, np.ndarray]

LAYERS = (
    *("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3"),
    *("conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3", "fc6", "fc7"),
)

# Index of each convolution in torch's nn.Sequential of VGG-16, where ReLUs and pools count too.
# fc6 and fc7 are there in the reduced network only (amdegroot's, mmdetection's).
TORCH_INDEX = dict(
    zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33), LAYERS, strict=True)
)

# Subtracted from the RGB input, 0..255.
CAFFE_MEAN = (123.0, 117.0, 104.0)  # ssd_pascal.py; BGR there
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # torchvision's and mmdetection's
_IMAGENET_STD = (58.395, 57.12, 57.375)  # 255 * (0.229, 0.224, 0.225)
_KERAS_MEAN = (123.68, 116.779, 103.939)  # keras.applications.vgg16, BGR there


class Trunk(NamedTuple):
    """Weights of the reduced VGG-16.

    Attributes:
        source: the program that wrote them.
        arrays: "layer/kernel" and "layer/bias".
        mean: what the network they are for subtracts from its RGB input.
    """

    source: str
    arrays: Arrays
    mean: tuple[float, float, float]


def kernel_from_torch(weight: np.ndarray) -> np.ndarray:
    """(out, in, height, width) to (height, width, in, out); Caffe's order is torch's."""
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight


def renamed(arrays: Mapping[str, np.ndarray], layers: Mapping[str, str]) -> Arrays:
    """A torch state dict under this package's names.

    Args:
        arrays: the state dict.
        layers: what stands before ".weight" or ".bias" there, to the layer here.

    Returns:
        "layer/kernel" and "layer/bias"; what has no name here keeps the one it has, so
        that assigning it says that it was not used.
    """
    ours: Arrays = {}
    for name, array in arrays.items():
        before, _, last = name.rpartition(".")
        layer = layers.get(before)
        if layer is None or last not in ("weight", "bias"):
            ours[name] = array
        elif last == "weight":
            ours[f"{layer}/kernel"] = kernel_from_torch(array)
        else:
            ours[f"{layer}/bias"] = array
    return ours


def flip_input(arrays: Arrays, first="conv1_1") -> None:
    """Makes the first layer's kernel take RGB instead of BGR, in place."""
    kernel = arrays.get(f"{first}/kernel")
    if kernel is not None and kernel.ndim == 4:
        arrays[f"{first}/kernel"] = kernel[:, :, ::-1]


def reduce_fc(fc6, fc6_bias, fc7, fc7_bias) -> Arrays:
    """VGG-16's fully connected layers as SSD's convolutions, by leaving out.

    Of fc6, a 7x7 window of 512 channels to 4096 numbers, every third tap each way and every
    fourth number stay; of fc7, every fourth of both sides.

    Args:
        fc6: (4096, 512, 7, 7), or as many numbers in that order.
        fc6_bias: (4096,).
        fc7: (4096, 4096), (out, in).
        fc7_bias: (4096,).

    Returns:
        "fc6/kernel" (3, 3, 512, 1024), "fc7/kernel" (1, 1, 1024, 1024) and both biases.

    Raises:
        InputError: if the sizes are not VGG-16's.

    Source: net_surgery.py of weiliu89/caffe, branch fcn: sample_filter(fc6, 4, 1, 3, 3) and
        sample_filter(fc7, 4, 4, 1, 1), which made VGG_ILSVRC_16_layers_fc_reduced.
    """
    sizes = [np.size(array) for array in (fc6, fc6_bias, fc7, fc7_bias)]
    if sizes != [4096 * 512 * 7 * 7, 4096, 4096 * 4096, 4096]:
        raise InputError(
            "VGG-16's fc6 and fc7 want 4096x512x7x7, 4096, 4096x4096 and 4096 numbers, not "
            + ", ".join(f"{size:,}" for size in sizes)
            + "."
        )
    fc6, fc7 = fc6.reshape(4096, 512, 7, 7), fc7.reshape(4096, 4096)
    fc6_bias, fc7_bias = fc6_bias.reshape(4096), fc7_bias.reshape(4096)
    return {
        "fc6/kernel": kernel_from_torch(fc6[::4, :, ::3, ::3]),
        "fc6/bias": fc6_bias[::4],
        "fc7/kernel": kernel_from_torch(fc7[::4, ::4, None, None]),
        "fc7/bias": fc7_bias[::4],
    }


def from_caffe(model: CaffeModel) -> Trunk:
    """VGG_ILSVRC_16_layers_fc_reduced, or VGG_ILSVRC_16_layers, reduced on the way."""
    arrays = convolutions_from_caffe(model, skip=("fc8",))
    fc = [*model.layers.get("fc6", []), *model.layers.get("fc7", [])]
    if len(fc) == 4 and fc[0].size > 1024 * 512 * 3 * 3:
        arrays.update(reduce_fc(*fc))
    return Trunk("caffe", arrays, CAFFE_MEAN)


def convolutions_from_caffe(model: CaffeModel, *, skip=(), first="conv1_1") -> Arrays:
    """Kernels and biases by Caffe's layer names, which are this package's; RGB input.

    Args:
        model: what was read.
        skip: layers to leave out.
        first: the layer that sees the image.
    """
    arrays: Arrays = {}
    for layer, blobs in model.layers.items():
        if layer in skip:
            continue
        if model.types.get(layer) == "Normalize":
            arrays[f"{layer}/gain"] = blobs[0].reshape(-1)
            continue
        arrays[f"{layer}/kernel"] = kernel_from_torch(blobs[0])
        if len(blobs) > 1:
            arrays[f"{layer}/bias"] = blobs[1].reshape(-1)  # older files: (1, 1, 1, out)
    flip_input(arrays, first)
    return arrays


def from_torch(arrays: Mapping[str, np.ndarray]) -> Trunk:
    """A vgg16_reducedfc.pth of amdegroot, or torchvision's vgg16, reduced on the way.

    torchvision has two: its own training, whose input is divided by a standard deviation
    (folded into conv1_1 here, exactly), and `vgg16_features-amdegroot`, a copy of Caffe's,
    whose classifier is filled with NaN and whose fc6 and fc7 are thus left out.
    """
    if "features.0.weight" not in arrays:
        names = {str(index): layer for index, layer in TORCH_INDEX.items()}
        return Trunk("amdegroot", renamed(arrays, names), CAFFE_MEAN)
    names = {f"features.{i}": layer for i, layer in TORCH_INDEX.items() if i <= 28}
    features = {name: a for name, a in arrays.items() if not name.startswith("classifier.")}
    ours = renamed(features, names)
    fc = [f"classifier.{i}.{part}" for i in (0, 3) for part in ("weight", "bias")]
    if all(name in arrays and np.isfinite(arrays[name]).all() for name in fc):
        ours.update(reduce_fc(*(arrays[name] for name in fc)))
        if ours["conv1_1/kernel"].shape != (3, 3, 3, 64):
            raise InputError(f"VGG-16's first kernel is not {ours['conv1_1/kernel'].shape}.")
        std = np.array(_IMAGENET_STD, "f4")[:, None]  # (in, 1), beside (height, width, in, out)
        ours["conv1_1/kernel"] = ours["conv1_1/kernel"] / std
        return Trunk("torchvision", ours, IMAGENET_MEAN)
    return Trunk("torchvision", ours, CAFFE_MEAN)


def from_keras(path) -> Trunk:
    """keras.applications' VGG16, reduced on the way.

    Args:
        path: as for `read_keras`.

    Raises:
        InputError: if the file is damaged or is not VGG-16's.
    """
    ours = read_keras(path)
    fc = [f"{layer}/{part}" for layer in ("fc6", "fc7") for part in ("kernel", "bias")]
    if all(name in ours for name in fc):
        ours.update(_reduce_keras_fc(*(ours[name] for name in fc)))
    return Trunk("keras", ours, _KERAS_MEAN)


def read_keras(path) -> Arrays:
    """The convolutions of keras.applications' VGG16, and fc6 and fc7 where the file has them.

    Args:
        path: the HDF5 file that `keras.applications.VGG16(weights="imagenet")` downloads
            (`vgg16_weights_tf_dim_ordering_tf_kernels.h5`).

    Returns:
        "layer/kernel" and "layer/bias"; conv1_1 takes RGB, fc6 the flattened (7, 7, 512) map.

    Raises:
        InputError: if the file is damaged or is not VGG-16's.
    """
    names = {name.replace("conv", "block", 1).replace("_", "_conv"): name for name in LAYERS[:13]}
    names |= {"fc1": "fc6", "fc2": "fc7"}
    ours: Arrays = {}
    try:
        with h5py.File(path, "r") as file:
            for theirs, layer in names.items():
                found: list[np.ndarray] = []
                if theirs in file:
                    file[theirs].visititems(lambda _, item, to=found: _collect(item, to))
                for array in found:  # a kernel and a bias, whatever this version calls them
                    ours[f"{layer}/{'bias' if array.ndim == 1 else 'kernel'}"] = array
    # h5py raises these for damaged files, by what the damage hits.
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is a damaged HDF5 file: {error}.") from error
    missing = [layer for layer in LAYERS[:13] if f"{layer}/kernel" not in ours]
    if missing:
        raise InputError(
            f"{path} is not keras.applications' VGG16: it has no weights for {', '.join(missing)}."
        )
    flip_input(ours)
    return ours


def _reduce_keras_fc(fc6, fc6_bias, fc7, fc7_bias):
    """Dense kernels are (in, out) there, and fc1's input the flattened (7, 7, 512) map."""
    if fc6.shape != (7 * 7 * 512, 4096) or fc7.ndim != 2:
        raise InputError(f"VGG-16's fc1 and fc2 want 25088x4096 and 4096x4096, not {fc6.shape}.")
    fc6 = fc6.reshape(7, 7, 512, 4096).transpose(3, 2, 0, 1)
    return reduce_fc(fc6, fc6_bias, fc7.transpose(), fc7_bias)


def _collect(item, to):
    # An HDF5 data set may lie in another file, or claim a size that no bytes stand behind.
    if (
        isinstance(item, h5py.Dataset)
        and item.dtype == np.float32
        and not item.is_virtual
        and item.external is None
        and item.id.get_storage_size() == item.nbytes
    ):
        to.append(item[()])
