"""SSD300 and SSD512 on VGG-16 as four other programs save them.

| program       | classes                         | input mean (RGB)        | default boxes        |
| ------------- | ------------------------------- | ----------------------- | -------------------- |
| Caffe release | background first                | 123, 117, 104; BGR      | in the file          |
| amdegroot     | background first                | 123, 117, 104           | VOC's, clamped       |
| torchvision   | background first, COCO's 91 ids | 0.48235, ... times 255  | COCO's, clamped      |
| mmdetection   | background last                 | 123.675, 116.28, 103.53 | by class count       |

All four order a head's channels box by box of a cell, then class or coordinate, as this
package does; all kernels are (out, in, height, width). Tensors that have no name here keep
their own, so that assigning them says that they were not used.

Sources: weiliu89/caffe, branch ssd, 4817bf8b; amdegroot/ssd.pytorch, 5b0b77f (ssd.py,
data/voc0712.py turns BGR to RGB after the mean, prior_box.py); torchvision 0.29
models/detection/ssd.py; mmdetection ssd_vgg.py, ssd_neck.py, ssd_head.py and, for files
before 2.14, tools/model_converters/upgrade_ssd_version.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasdet.classes import COCO_IDS, COCO_NAMES, COCO_NAMES_BY_ID, VOC_NAMES
from kerasdet.errors import InputError
from kerasdet.layers.default_boxes import RELEASED, BoxTable
from kerasdet.weights.assign import Assigned, assign, assign_matching
from kerasdet.weights.caffe_file import CaffeModel, PriorBox, read_caffe
from kerasdet.weights.file_format import recognise
from kerasdet.weights.maps import vgg16
from kerasdet.weights.maps.vgg16 import Arrays, convolutions_from_caffe, renamed
from kerasdet.weights.torch_file import read_torch_file

# The maps that have heads, finest first; SSD300 has the first six.
SOURCES = ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2", "conv10_2")

TORCHVISION_MEAN = tuple(255 * m for m in (0.48235, 0.45882, 0.40784))

_VARIANCES = (0.1, 0.1, 0.2, 0.2)


class SSDWeights(NamedTuple):
    """Weights of an SSD, or of its trunk, and the network that they are for.

    Attributes:
        source: "caffe", "amdegroot", "torchvision", "mmdetection" or "keras".
        arrays: "layer/kernel", "layer/bias" and "conv4_3_norm/gain" to array.
        mean: what the network subtracts from its RGB input, 0..255.
        class_names: names of the labels; None for a trunk alone. "class 0" and so on where
            the file's are not known.
        boxes: the default boxes; None for a trunk alone.
    """

    source: str
    arrays: Arrays
    mean: tuple[float, ...]
    class_names: list[str] | None = None
    boxes: BoxTable | None = None

    @property
    def is_trunk(self) -> bool:
        """Whether these are the weights of VGG-16 alone."""
        return self.boxes is None

    def arguments(self) -> dict[str, Any]:
        """What `kerasdet.SSD` is called with for the network these weights are for."""
        if self.boxes is None:
            return {"mean": self.mean}
        return {
            "class_names": self.class_names,
            "image_size": self.boxes.image_size,
            "box_sizes": self.boxes.sizes,
            "box_ratios": self.boxes.ratios,
            "clamp_sizes": self.boxes.clamp_sizes,
            "clamp_centres": self.boxes.clamp_centres,
            "mean": self.mean,
        }


def read_ssd(path: str | Path) -> SSDWeights:
    """Reads an SSD's or a VGG-16's weights from any of the formats, recognised by content.

    Raises:
        InputError: if the file is damaged or not one of these networks'.
    """
    kind = recognise(path)
    if kind == "torch":
        arrays, meta = read_torch_file(path)
        return from_torch(arrays, class_names=_noted_names(meta), source=str(path))
    if kind == "caffe":
        return from_caffe(read_caffe(path), source=str(path))
    if kind == "hdf5":
        return SSDWeights(*vgg16.from_keras(path))
    if kind == "keras":
        raise InputError(f"{path} is a whole Keras model; load it with keras.saving.load_model.")
    raise InputError(
        f"{path} holds weights of {kind}; SSD's come as torch .pth, .caffemodel or Keras .weights.h5."
    )


def load(model, weights: SSDWeights, *, source="the weights", classes=None) -> Assigned:
    """Puts the weights into an SSD.

    Everything must fit, but for two things that are left as they were: with a trunk's
    weights what is not the trunk, and with other classes the class outputs.

    Args:
        model: a `kerasdet.SSD` on VGG-16.
        weights: as `read_ssd` gives them.
        source: where they came from, for the error's sentence.
        classes: names that the caller wants for the labels; None: the file's, where the
            number of classes is the model's.

    Returns:
        What was loaded and what was left; `left` is empty when all of it was loaded.
    """
    if weights.is_trunk:
        layers = {name.partition("/")[0] for name in weights.arrays}
        return assign_matching(
            model, weights.arrays, skip=lambda name: _layer(name) not in layers, source=source
        )
    theirs = weights.class_names or []
    others = classes is not None and list(classes) != theirs and theirs != _numbered(len(theirs))
    if others or len(theirs) != model.num_classes:
        return assign_matching(model, weights.arrays, skip=is_class_output, source=source)
    return assign(model, weights.arrays, source=source)


def is_class_output(name: str) -> bool:
    """Whether a variable "layer/kernel" belongs to the outputs whose size is the class count."""
    return _layer(name).endswith("_mbox_conf")


def _layer(name):
    return name.partition("/")[0]


def from_torch(arrays: Mapping[str, np.ndarray], *, class_names=None, source="the file"):
    """Weights from a state dict, whose program is told by its names.

    Args:
        arrays: name to array, in torch's order.
        class_names: names of the labels where the file has them.
        source: the file, for the error's sentence.

    Raises:
        InputError: if the names are of no program known here.
    """
    if "head.classification_head.module_list.0.weight" in arrays:
        return torchvision(arrays, source=source)
    if any(name.startswith("bbox_head.cls_convs.") for name in arrays):
        return mmdetection(arrays, class_names=class_names, source=source)
    if "vgg.0.weight" in arrays and "conf.0.weight" in arrays:
        return amdegroot(arrays, source=source)
    if "features.0.weight" in arrays or {"0.weight", "31.weight"} <= set(arrays):
        return SSDWeights(*vgg16.from_torch(arrays))
    some = ", ".join(sorted(arrays)[:4])
    raise InputError(
        f"{source} is no SSD on VGG-16 of torchvision, mmdetection or amdegroot and no VGG-16: "
        f"its tensors are {some}, ..."
    )


def torchvision(arrays: Mapping[str, np.ndarray], *, source="the file") -> SSDWeights:
    """The ssd300_vgg16 of torchvision. Its 91 logits are COCO's ids: see `COCO_NAMES_BY_ID`."""
    if "backbone.extra.5.0.weight" in arrays:
        raise InputError(
            f"{source} is torchvision's SSD with highres=True, whose maps of 64, 32, 16, 8, 6, 4 "
            "and 1 cells are not SSD512's; only its SSD300 can be read."
        )
    names = {f"backbone.features.{i}": n for i, n in vgg16.TORCH_INDEX.items() if i <= 21}
    names |= {f"backbone.extra.0.{i}": f"conv5_{n}" for n, i in enumerate((1, 3, 5), start=1)}
    names |= {"backbone.extra.0.7.1": "fc6", "backbone.extra.0.7.3": "fc7"}
    for block in range(1, 5):
        names |= {f"backbone.extra.{block}.{2 * i}": f"conv{block + 5}_{i + 1}" for i in (0, 1)}
    names |= _head_names("head.classification_head.module_list.{}", "mbox_conf", 6)
    names |= _head_names("head.regression_head.module_list.{}", "mbox_loc", 6)
    ours = _with_gain(renamed(arrays, names), "backbone.scale_weight")
    count = _class_count(ours, 6, source)
    known = list(COCO_NAMES_BY_ID) if count == len(COCO_NAMES_BY_ID) else _numbered(count)
    boxes = RELEASED["ssd300_torchvision"]
    return SSDWeights("torchvision", ours, TORCHVISION_MEAN, known, boxes)


def amdegroot(arrays: Mapping[str, np.ndarray], *, source="the file") -> SSDWeights:
    """SSD300 of amdegroot/ssd.pytorch: its own training, or its copy of the Caffe release."""
    names = {f"vgg.{i}": layer for i, layer in vgg16.TORCH_INDEX.items()}
    names |= {f"extras.{i}": f"conv{6 + i // 2}_{1 + i % 2}" for i in range(8)}
    names |= _head_names("conf.{}", "mbox_conf", 6) | _head_names("loc.{}", "mbox_loc", 6)
    ours = _with_gain(renamed(arrays, names), "L2Norm.weight")
    count = _class_count(ours, 6, source)
    # data/config.py has COCO's sizes for every class count but VOC's; both are clamped.
    boxes = RELEASED["ssd300_amdegroot"]
    if count != len(VOC_NAMES):
        boxes = boxes._replace(sizes=RELEASED["ssd300_coco"].sizes)
    return SSDWeights("amdegroot", ours, vgg16.CAFFE_MEAN, _names(count), boxes)


def mmdetection(
    arrays: Mapping[str, np.ndarray], *, class_names=None, source="the file"
) -> SSDWeights:
    """The SSD300 or SSD512 of mmdetection, of files before and since 2.14."""
    new = "bbox_head.cls_convs.0.0.weight" in arrays
    heads = sum(name.startswith("bbox_head.reg_convs.") for name in arrays) // 2
    if heads not in (6, 7):
        raise InputError(f"{source} has {heads} heads; SSD300 has 6 and SSD512 7.")
    names = {f"backbone.features.{i}": layer for i, layer in vgg16.TORCH_INDEX.items()}
    for i in range(2 * (heads - 2)):
        theirs = f"neck.extra_layers.{i // 2}.{i % 2}.conv" if new else f"backbone.extra.{i}"
        names[theirs] = f"conv{6 + i // 2}_{1 + i % 2}"
    last = ".0" if new else ""
    names |= _head_names("bbox_head.cls_convs.{}" + last, "mbox_conf", heads)
    names |= _head_names("bbox_head.reg_convs.{}" + last, "mbox_loc", heads)
    gain = "neck.l2_norm.weight" if new else "backbone.l2_norm.weight"
    ours = _with_gain(renamed(arrays, names), gain)
    count = _class_count(ours, heads, source)
    for name in [name for name in ours if is_class_output(name)]:
        ours[name] = _background_first(ours[name], count + 1)
    table = f"ssd{300 if heads == 6 else 512}_{'voc' if count == len(VOC_NAMES) else 'coco'}"
    known = _names(count)
    if isinstance(class_names, list | tuple) and len(class_names) == count:
        known = [str(name) for name in class_names]
    return SSDWeights("mmdetection", ours, vgg16.IMAGENET_MEAN, known, RELEASED[table])


def from_caffe(model: CaffeModel, *, source="the file") -> SSDWeights:
    """The authors' SSD300 and SSD512, or the VGG-16 that they start from."""
    if "conv4_3_norm_mbox_conf" not in model.layers:
        if "conv5_3" in model.layers and "fc7" in model.layers:
            return SSDWeights(*vgg16.from_caffe(model))
        some = ", ".join(list(model.layers)[:4]) or "none"
        raise InputError(
            f"{source} is no SSD on VGG-16 and no VGG-16: its layers with weights are {some}, ..."
        )
    heads = 7 if "conv10_2_mbox_conf" in model.layers else 6
    ours = convolutions_from_caffe(model)
    gains = "conv4_3_norm/kernel"  # V1 files do not say that the layer is a Normalize
    if gains in ours:
        ours["conv4_3_norm/gain"] = ours.pop(gains).reshape(-1)
    count = _class_count(ours, heads, source)
    priors = [model.prior_boxes.get(f"{name}_mbox_priorbox") for name in SOURCES[:heads]]
    table = f"ssd{300 if heads == 6 else 512}_{'voc' if count == len(VOC_NAMES) else 'coco'}"
    boxes = RELEASED[table]
    if any(priors):
        boxes = _box_table(priors, boxes, source)
    return SSDWeights("caffe", ours, vgg16.CAFFE_MEAN, _names(count), boxes)


def without_coco_gaps(weights: SSDWeights) -> SSDWeights:
    """The 91 logits of torchvision cut to background and the 80 classes that COCO has.

    The ten logits that go took part in every softmax, so that scores rise by what those
    had; nothing taught the network to give them any.
    """
    if weights.class_names != list(COCO_NAMES_BY_ID):
        raise InputError("Only a network of COCO's 90 ids has gaps to leave out.")
    kept = [0, *COCO_IDS]
    arrays = dict(weights.arrays)
    for name in [name for name in arrays if is_class_output(name)]:
        array = arrays[name]
        by_class = array.reshape(*array.shape[:-1], -1, 91)
        arrays[name] = by_class[..., kept].reshape(*array.shape[:-1], -1)
    return weights._replace(arrays=arrays, class_names=list(COCO_NAMES))


# ------------------------------------------------------------------------ helpers


def _head_names(theirs, ours, heads):
    return {theirs.format(i): f"{SOURCES[i]}_{ours}" for i in range(heads)}


def _with_gain(arrays, theirs):
    if theirs in arrays:
        arrays["conv4_3_norm/gain"] = arrays.pop(theirs)
    return arrays


def _class_count(arrays, heads, source) -> int:
    """Classes without background: a head has 4 coordinates and K + 1 logits a box."""
    counts = set()
    for name in SOURCES[:heads]:
        offsets, logits = (arrays.get(f"{name}_mbox_{kind}/bias") for kind in ("loc", "conf"))
        if offsets is None or logits is None:
            raise InputError(f"{source} has no outputs on {name}.")
        boxes = offsets.size // 4
        counts.add(logits.size / boxes - 1 if boxes else 0)
    count = counts.pop()
    if counts or count < 1 or count != int(count):
        raise InputError(f"{source}'s outputs do not agree on how many classes there are.")
    return int(count)


def _noted_names(meta):
    """The class names in mmdetection's `meta`, of version 2 or 3, or None."""
    inner = meta.get("dataset_meta")
    inner = inner if isinstance(inner, dict) else {}
    return meta.get("CLASSES") or inner.get("CLASSES") or inner.get("classes")


def _names(count):
    known = {len(VOC_NAMES): VOC_NAMES, len(COCO_NAMES): COCO_NAMES}
    return list(known.get(count, ())) or _numbered(count)


def _numbered(count):
    return [f"class {label}" for label in range(count)]


def _background_first(array, logits):
    """Moves the last of each box's logits to the front; they are the last axis, box by box."""
    if array.ndim == 0 or array.shape[-1] % logits:
        return array  # no head of this network: assigning it says so
    by_box = array.reshape(*array.shape[:-1], -1, logits)
    return np.roll(by_box, 1, axis=-1).reshape(array.shape)


def _box_table(priors: list[PriorBox | None], like: BoxTable, source) -> BoxTable:
    """The table that a file's PriorBox layers describe, on the grids of `like`."""
    if not all(priors):
        raise InputError(f"{source} has default boxes for some of its outputs only.")
    found = [prior for prior in priors if prior]
    for name, prior in zip(SOURCES, found, strict=False):
        numbers = (*prior.min_sizes, *prior.max_sizes, *prior.ratios, prior.step)
        plain = len(prior.min_sizes) == len(prior.max_sizes) == 1 and prior.offset == 0.5
        plain = plain and prior.flip and not prior.clip and bool(np.isfinite(numbers).all())
        if not plain or tuple(round(v, 6) for v in prior.variances) != _VARIANCES:
            raise InputError(
                f"{source}: the default boxes of {name} are of a kind that kerasdet does not "
                f"have: {prior}."
            )
    # prior_box_layer.cpp reads sizes into integers: 35.84 is 35.
    sizes = [int(prior.min_sizes[0]) for prior in found]
    largest = [int(prior.max_sizes[0]) for prior in found]
    if largest[:-1] != sizes[1:]:
        raise InputError(
            f"{source}: the largest boxes of its maps, {largest}, are not the next maps' "
            f"smallest, {sizes[1:]}."
        )
    steps = tuple(
        prior.step or like.image_size / grid for prior, grid in zip(found, like.grids, strict=True)
    )
    return like._replace(
        steps=steps,
        sizes=(*sizes, largest[-1]),
        ratios=tuple(tuple(prior.ratios) for prior in found),
    )
