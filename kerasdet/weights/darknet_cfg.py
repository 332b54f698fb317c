"""Writes the cfg file that darknet wants beside a network's weights.

Source: darknet src/parser.c (which sections there are, and what each reads), cfg/*.cfg; for the
[crop] that shows the first YOLO images of -1..1, cfg/yolo.cfg of 2015-11 and src/crop_layer.c.
"""

from pathlib import Path

import keras

from kerasdet.errors import InputError
from kerasdet.layers.locally_connected import LocallyConnected2D
from kerasdet.layers.passthrough import Passthrough
from kerasdet.weights.maps import darknet

# Normalisation, activation, padding and flattening: part of the section before.
_PART_OF_ANOTHER = (
    keras.layers.BatchNormalization,
    keras.layers.LeakyReLU,
    keras.layers.ZeroPadding2D,
    keras.layers.Flatten,
)


def darknet_cfg(model, *, tree=None) -> str:
    """The cfg of a network, sections in the order of its weights; what training alone reads is left out.

    Args:
        model: a `YOLOv1`, `YOLOv2` or `YOLO9000` on one of its own trunks, or a `Classifier` of
            darknet's; a YOLOv2's boxes' centres are bound to their cells, a YOLOv1's grid is square.
        tree: of a YOLO9000, where darknet finds its tree from the folder it runs in; None: in a
            file named as the model.

    Raises:
        InputError: if darknet has no such network.
    """
    sections = _Sections(model)
    sections.add_output(tree)
    height, width = model.image_size
    net = {"batch": 1, "subdivisions": 1, "width": width, "height": height, "channels": 3}
    return "\n".join(_text(*section) for section in [("net", net), *sections.found])


def save_darknet_cfg(model, path: str | Path) -> None:
    """Writes `darknet_cfg` to a file: `save_darknet_cfg(model, "mine.cfg")`; a tree to mine.tree.

    Raises:
        InputError: if darknet has no such network, or a file cannot be written.
    """
    path = Path(path)
    tree = path.with_suffix(".tree")
    texts = {path: darknet_cfg(model, tree=tree.name)}
    if hasattr(model, "tree"):
        texts[tree] = model.tree.darknet_text()
    for file, text in texts.items():
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"Cannot write {file}: {error.strerror or error}.") from error


class _Sections:
    """The sections behind [net], each numbered by its place.

    Attributes:
        found: (name, {key: value}) of each.
    """

    def __init__(self, model):
        self.found = []
        self._model = model
        self._places = {}  # of an operation's name
        names = darknet.layer_names(model)
        darknet.check_passthrough(model, f"{model.name}.cfg")
        layers = {layer.name: layer for layer in model.layers}
        for name in names:
            layer = layers[name]
            self._follow(self._place(layer.input))
            keys = {"batch_normalize": 1} if f"{name}_norm" in layers else {}
            section, own = _weighted(layer)
            activation = "leaky" if f"{name}_leaky" in layers else "linear"
            self._add(section, keys | own | {"activation": activation}, name)

    def add_output(self, tree):
        """Adds what stands behind the last layer and says what its numbers are."""
        model = self._model
        outputs = model.output if isinstance(model.output, dict) else ()
        # A YOLO9000 for a flat list of classes has nodes; darknet's `map` is for 200 classes alone.
        bound = getattr(model, "location", "direct") == "direct" and not hasattr(model, "nodes")
        if "region" in outputs and bound:
            self._add("region", _region(model, tree))
        elif "confidence" in outputs:
            self._add("detection", _detection(model))
        elif hasattr(model, "classify") and not outputs:
            self._follow(self._place(model.output))
            self._add("softmax", {"groups": 1})
        else:
            raise InputError(
                "A cfg is written for YOLO v1, YOLOv2 with location='direct', YOLO9000 and the "
                f"classifiers that they start from, and model {model.name!r} is none."
            )

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
        section, keys = self._unweighted(operation)
        if section is None:
            return before
        self._follow(before)
        return self._add(section, keys, operation.name)

    def _unweighted(self, operation):
        """Name and keys of a section without weights; None and none for part of the one before."""
        if isinstance(operation, _PART_OF_ANOTHER):
            return None, {}
        if isinstance(operation, keras.layers.Rescaling):
            return self._seen(operation)
        if isinstance(operation, keras.layers.MaxPooling2D):
            return "maxpool", {"size": operation.pool_size[0], "stride": operation.strides[0]}
        if isinstance(operation, keras.layers.GlobalAveragePooling2D):
            return "avgpool", {}
        if isinstance(operation, keras.layers.Dropout):
            return "dropout", {"probability": operation.rate}
        if isinstance(operation, Passthrough):
            return "reorg", {"stride": operation.block_size}
        raise InputError(
            f"Model {self._model.name!r} is no network of darknet's, which has nothing like its "
            f"{type(operation).__name__} {operation.name!r}."
        )

    def _seen(self, rescaling):
        """Nothing for images of 0..1, which darknet reads; a crop of nothing makes -1..1 of them."""
        low, high = rescaling.offset, rescaling.scale * 255 + rescaling.offset
        if abs(low) < 1e-6 and abs(high - 1) < 1e-6:
            return None, {}
        if abs(low + 1) < 1e-6 and abs(high - 1) < 1e-6:
            height, width = self._model.image_size
            return "crop", {"crop_height": height, "crop_width": width, "flip": 0}
        raise InputError(
            f"darknet shows its networks images of 0..1 or -1..1, and model {self._model.name!r} "
            f"sees {low:g}..{high:g}."
        )

    def _follow(self, place):
        """Lets the next section read that of this number."""
        if place != len(self.found) - 1:
            self._add("route", {"layers": place})

    def _add(self, section, keys, name=None) -> int:
        self.found.append((section, keys))
        place = len(self.found) - 1
        if name is not None:
            self._places[name] = place
        return place


def _weighted(layer):
    """Name and keys of a section with weights, but for its activation."""
    if isinstance(layer, keras.layers.Dense):
        return "connected", {"output": layer.units}
    local = isinstance(layer, LocallyConnected2D)
    size = layer.kernel.shape[-3]
    stride = layer.stride if local else layer.strides[0]
    pad = int(layer.pad > 0) if local else 1
    keys = {"filters": layer.filters, "size": size, "stride": stride, "pad": pad}
    return "local" if local else "convolutional", keys


def _region(model, tree):
    settings = model._settings()
    keys = {
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
    if hasattr(model, "tree"):
        keys["tree"] = tree or f"{model.name}.tree"
    return keys


def _detection(model):
    rows, columns = model.grid
    if rows != columns:
        raise InputError(
            f"darknet's [detection] has as many rows of cells as columns, and model {model.name!r} "
            f"has {rows}x{columns}."
        )
    return {
        "classes": model.num_classes,
        "coords": 4,
        "rescore": 1,
        "side": rows,
        "num": model.boxes_per_cell,
        "softmax": 0,
        "sqrt": 1,
        # The scales of every cfg (cfg/yolov1.cfg), which `YOLOv1` trains with too.
        "object_scale": 1,
        "noobject_scale": 0.5,
        "class_scale": 1,
        "coord_scale": 5,
    }


def _text(section, keys):
    return "".join([f"[{section}]\n", *(f"{key}={value}\n" for key, value in keys.items())])
