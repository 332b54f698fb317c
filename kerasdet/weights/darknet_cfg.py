"""Writes the cfg file that darknet wants beside a YOLOv2's weights.

Source: darknet src/parser.c (which sections there are, and what each reads), cfg/yolov2.cfg.
"""

from pathlib import Path

import keras

from kerasdet.errors import InputError
from kerasdet.layers.passthrough import Passthrough
from kerasdet.weights.maps import darknet


def darknet_cfg(model) -> str:
    """The cfg of a YOLOv2, sections in the order of its weights; what training alone reads is left out.

    Args:
        model: a `YOLOv2` on one of its own trunks, whose boxes' centres are bound to their cells.

    Raises:
        InputError: if darknet has no such network.
    """
    if getattr(model, "location", None) != "direct":
        raise InputError(
            f"A cfg is written for YOLOv2 with location='direct', and model {model.name!r} is none."
        )
    darknet.check_passthrough(model, f"{model.name}.cfg")
    height, width = model.image_size
    net = {"batch": 1, "subdivisions": 1, "width": width, "height": height, "channels": 3}
    sections = [("net", net), *_Sections(model).found, ("region", _region(model))]
    return "\n".join(_text(*section) for section in sections)


def save_darknet_cfg(model, path: str | Path) -> None:
    """Writes `darknet_cfg` to a file: `save_darknet_cfg(model, "mine.cfg")`.

    Raises:
        InputError: if darknet has no such network, or the file cannot be written.
    """
    text = darknet_cfg(model)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from error


class _Sections:
    """The sections from the first convolution to the last, each numbered by its place.

    Attributes:
        found: (name, {key: value}) of each.
    """

    def __init__(self, model):
        self.found = []
        self._places = {}  # of an operation's name
        layers = {layer.name: layer for layer in model.layers}
        for name in darknet.layer_names(model):
            layer = layers[name]
            self._follow(self._place(layer.input))
            keys = {"batch_normalize": 1} if f"{name}_norm" in layers else {}
            keys |= {"filters": layer.filters, "size": layer.kernel_size[0]}
            keys |= {"stride": layer.strides[0], "pad": 1}
            keys["activation"] = "leaky" if f"{name}_leaky" in layers else "linear"
            self._add("convolutional", keys, name)

    def _place(self, tensor) -> int:
        """The number of the section that makes a tensor, -1 for the image; it is added if it must be."""
        operation = tensor._keras_history.operation
        if operation.name in self._places:
            return self._places[operation.name]
        if isinstance(operation, keras.layers.InputLayer):
            return -1
        if isinstance(operation, keras.layers.Concatenate):
            places = [self._place(each) for each in operation.input]
            return self._add("route", {"layers": ",".join(map(str, places))}, operation.name)
        before = self._place(operation.input)
        if isinstance(operation, keras.layers.MaxPooling2D):
            self._follow(before)
            keys = {"size": operation.pool_size[0], "stride": operation.strides[0]}
            return self._add("maxpool", keys, operation.name)
        if isinstance(operation, Passthrough):
            self._follow(before)
            return self._add("reorg", {"stride": operation.block_size}, operation.name)
        return before  # normalisation, activation, padding: part of the section before

    def _follow(self, place):
        """Lets the next section read that of this number."""
        if place != len(self.found) - 1:
            self._add("route", {"layers": place}, None)

    def _add(self, section, keys, name) -> int:
        self.found.append((section, keys))
        place = len(self.found) - 1
        if name is not None:
            self._places[name] = place
        return place


def _region(model):
    settings = model._settings()
    return {
        "anchors": ", ".join(f"{side:.7g}" for side in model.priors.reshape(-1)),
        "bias_match": 1,
        "classes": model.num_classes,
        "coords": 4,
        "num": len(model.priors),
        "softmax": 1,
        "rescore": int(settings.rescore),
        "object_scale": settings.object_scale,
        "noobject_scale": settings.no_object_scale,
        "class_scale": settings.class_scale,
        "coord_scale": settings.coordinate_scale,
        "absolute": 1,
        "thresh": settings.ignore_iou,
    }


def _text(section, keys):
    return "".join([f"[{section}]\n", *(f"{key}={value}\n" for key, value in keys.items())])
