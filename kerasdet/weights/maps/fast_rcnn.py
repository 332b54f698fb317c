"""Fast R-CNN as its Caffe release saves it, and the ImageNet networks that it starts from.

Layers have Caffe's names here too. What differs, beside the order of axes:

| part          | in the file                        | here                                   |
| ------------- | ---------------------------------- | -------------------------------------- |
| first kernel  | takes BGR                          | takes RGB                              |
| fc6, fc6_L    | a region's bins as (C, row, column)| as (row, column, C)                    |
| bbox_pred     | four rows for background as well   | classes only                           |
| bbox_pred     | gives raw offsets                  | gives normalised ones, which the layer |
|               |                                    | "boxes" after it makes raw             |

A convolution in two groups (CaffeNet's conv2, conv4 and conv5) has the inputs of one group as its
kernel's input axis in both.

Sources: rbgirshick/fast-rcnn, b612190f (models/*/test.prototxt, models/VGG16/compressed,
lib/fast_rcnn/train.py, whose snapshot multiplies the targets' statistics into bbox_pred);
inner_product_layer.cpp and flatten of BVLC/caffe.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kerasdet.classes import VOC_NAMES
from kerasdet.errors import InputError
from kerasdet.weights.assign import Assigned, assign_matching
from kerasdet.weights.caffe_file import CaffeModel, read_caffe
from kerasdet.weights.file_format import recognise
from kerasdet.weights.maps import vgg16
from kerasdet.weights.maps.vgg16 import Arrays, convolutions_from_caffe, kernel_from_torch

OUTPUTS = ("cls_score", "bbox_pred")
"""The layers whose size is the class count."""

_HIDDEN = ("fc6", "fc6_L", "fc6_U", "fc7", "fc7_L", "fc7_U")
_CLASSIFIER = "fc8"  # of ImageNet's 1000 classes; Fast R-CNN has its two outputs in its place

# First and last convolution; the two with five are told apart by the side of the first's kernel.
_VGG16 = ("conv1_1", "conv5_3")
_FIVE = ("conv1", "conv5")
_BY_FIRST_KERNEL = {11: "caffenet", 7: "vgg_m_1024"}

# The detector's layer of statistics, which no file of Caffe's has.
_SCALE = "boxes"


class FastRCNNWeights(NamedTuple):
    """Weights of a Fast R-CNN, or of an ImageNet network to start from, and what they are for.

    Attributes:
        network: "vgg16", "vgg_m_1024" or "caffenet".
        arrays: "layer/kernel" and "layer/bias"; `bbox_pred` gives raw offsets.
        class_names: names of the labels; None for an ImageNet network. "class 0" and so on where
            the file's are not known.
        ranks: of the hidden layers that are two in the file, by name.
    """

    network: str
    arrays: Arrays
    class_names: list[str] | None
    ranks: dict[str, int]

    @property
    def is_trunk(self) -> bool:
        """Whether these are an ImageNet network's weights."""
        return self.class_names is None

    def arguments(self) -> dict[str, Any]:
        """What `kerasdet.FastRCNN` is called with for the network these weights are for."""
        ours: dict[str, Any] = {"backbone": self.network}
        if self.ranks:
            ours["ranks"] = dict(self.ranks)
        if self.class_names is not None:
            ours["class_names"] = self.class_names
        return ours


def read_fast_rcnn(path: str | Path) -> FastRCNNWeights:
    """Reads a caffemodel of a Fast R-CNN or of an ImageNet network, or keras.applications' VGG16.

    Raises:
        InputError: if the file is damaged or not one of these networks'.
    """
    kind = recognise(path)
    if kind == "caffe":
        return from_caffe(read_caffe(path), source=str(path))
    if kind == "hdf5":
        return FastRCNNWeights("vgg16", vgg16.read_keras(path), None, {})
    raise InputError(
        f"{path} is neither a .caffemodel nor keras.applications' VGG16, which are what Fast R-CNN's "
        "weights are read from."
    )


def from_caffe(model: CaffeModel, *, source="the file") -> FastRCNNWeights:
    """The release's three networks, compressed ones, and the ImageNet networks they start from.

    Args:
        model: what was read.
        source: the file, for the error's sentence.

    Raises:
        InputError: if the layers are of no such network, or the outputs do not agree on the classes.
    """
    network, (first, last) = _network(model, source)
    dense = [name for name in (*_HIDDEN, *OUTPUTS) if name in model.layers]
    arrays = convolutions_from_caffe(model, skip=(*dense, _CLASSIFIER), first=first)
    channels = model.layers[last][0].shape[0]
    for name in dense:
        weight, bias = _inner_product(model, name, source)
        if name in ("fc6", "fc6_L"):
            weight = _channels_last(weight, channels)
        arrays[f"{name}/kernel"] = weight.T
        if bias is not None:
            arrays[f"{name}/bias"] = bias
    ranks = {
        name: arrays[f"{name}_L/kernel"].shape[1]
        for name in ("fc6", "fc7")
        if f"{name}_L" in model.layers
    }
    outputs = [name for name in OUTPUTS if name in model.layers]
    if not outputs:
        return FastRCNNWeights(network, arrays, None, ranks)
    count = _class_count(arrays, source)
    for part in ("kernel", "bias"):
        arrays[f"bbox_pred/{part}"] = arrays[f"bbox_pred/{part}"][..., 4:]
    names = list(VOC_NAMES) if count == len(VOC_NAMES) else _numbered(count)
    return FastRCNNWeights(network, arrays, names, ranks)


def load(model, weights: FastRCNNWeights, *, source="the weights", classes=None) -> Assigned:
    """Puts the weights into a Fast R-CNN.

    Everything must fit, but for the two outputs, which are left as they were with an ImageNet
    network's weights, and with other classes. The model keeps the statistics that its targets are
    normalised by: what the file's `bbox_pred` gives is normalised by them, so that the model gives
    the raw offsets of the release, and can be trained on.

    Args:
        model: a `kerasdet.FastRCNN` with the network's layers.
        weights: as `read_fast_rcnn` gives them.
        source: where they came from, for the error's sentence.
        classes: names that the caller wants for the labels; None: the file's, where the number of
            classes is the model's.

    Returns:
        What was loaded and what was left; `left` is empty when all of it was loaded.

    Raises:
        InputError: if something does not fit; all faults in one message, and nothing loaded.
    """
    theirs = weights.class_names
    others = theirs is None or len(theirs) != model.num_classes
    if theirs is not None and classes is not None:
        others = others or (list(classes) != theirs and theirs != _numbered(len(theirs)))
    arrays = weights.arrays if others else _normalized(model, weights.arrays)
    left_out = (*OUTPUTS, _SCALE) if others else (_SCALE,)
    report = assign_matching(
        model, arrays, skip=lambda name: name.partition("/")[0] in left_out, source=source
    )
    left = [each for each in report.left if not each.name.startswith(f"{_SCALE}/")]
    return report._replace(left=left)


# ------------------------------------------------------------------------ helpers


def _network(model, source):
    """(name, (first convolution, last)) of the network a file is of."""
    for ends in (_VGG16, _FIVE):
        if all(name in model.layers and model.layers[name][0].ndim == 4 for name in ends):
            side = model.layers[ends[0]][0].shape[-1]
            network = "vgg16" if ends == _VGG16 else _BY_FIRST_KERNEL.get(side)
            if network is not None:
                return network, ends
    some = ", ".join(list(model.layers)[:4]) or "none"
    raise InputError(
        f"{source} is no VGG16, VGG_CNN_M_1024 or CaffeNet, nor a Fast R-CNN on one: its layers with "
        f"weights are {some}, ..."
    )


def _inner_product(model, layer, source):
    """(out, in) weights and (out,) biases, or None, of a connected layer."""
    weight, *rest = model.layers[layer]
    if weight.ndim == 4 and weight.shape[:2] == (1, 1):  # as older files write it
        weight = weight.reshape(weight.shape[2:])
    bias = rest[0].reshape(-1) if rest else None
    if weight.ndim != 2 or (bias is not None and len(bias) != len(weight)):
        shapes = ", ".join(str(blob.shape) for blob in model.layers[layer])
        raise InputError(f"{source}: {layer} is no InnerProduct layer, its blobs are {shapes}.")
    return weight, bias


def _channels_last(weight, channels):
    """(out, channels * p * p), a region's bins channel by channel, to the channels innermost."""
    side = math.isqrt(weight.shape[1] // channels) if channels else 0
    if not side or channels * side * side != weight.shape[1]:
        return weight  # of no map of this network: assigning it says so
    by_bin = kernel_from_torch(weight.reshape(-1, channels, side, side))  # (p, p, C, out)
    return by_bin.reshape(weight.shape[1], -1).T


def _class_count(arrays, source) -> int:
    """K: there are K + 1 scores, and four offsets for each of these."""
    sizes = [np.size(arrays.get(f"{name}/bias", ())) for name in OUTPUTS]
    logits, offsets = sizes
    if logits < 2 or offsets != 4 * logits:
        raise InputError(
            f"{source}'s outputs do not agree on how many classes there are: cls_score gives "
            f"{logits} numbers and bbox_pred {offsets}, which is not four for each."
        )
    return logits - 1


def _normalized(model, arrays) -> Arrays:
    """The arrays with a `bbox_pred` that gives offsets normalised by the model's statistics."""
    scale = model.get_layer(_SCALE)
    means, deviations = (ops.convert_to_numpy(v).ravel() for v in (scale.means, scale.deviations))
    return {
        **arrays,
        "bbox_pred/kernel": arrays["bbox_pred/kernel"] / deviations,
        "bbox_pred/bias": (arrays["bbox_pred/bias"] - means) / deviations,
    }


def _numbered(count):
    return [f"class {label}" for label in range(count)]
