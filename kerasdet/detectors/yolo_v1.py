"""YOLO v1: one grid, one regression, 98 boxes.

Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection,
CVPR 2016, arXiv:1506.02640; darknet, src/detection_layer.c, src/data.c (fill_truth_region),
examples/yolo.c, and the cfg files named in the table below.

The file, top to bottom: the network, targets, loss, decoding, helpers.

    cfg                                  backbone      head     other arguments
    yolo.cfg of 2015-11 (the paper's)    "extraction"  "paper"  input_range=(-1, 1)
    yolo.cfg of 2016-06                  "extraction"  "paper"
    yolov1.cfg, since 2016-08            "extraction"  "local"
    yolov1.weights of 2016-11            "extraction"  "local"  boxes_per_cell=2
    yolo-small.cfg                       "extraction"  "paper"  hidden=(512, 4096), input_range=(-1, 1)
    yolo-coco.cfg (4655 outputs)         "extraction"  "local"  dropout=0; 80 classes
    yolo-coco.cfg of 2016-06 (4410)      "extraction"  "local"  local_filters=192, boxes_per_cell=2,
                                                                batch_norm=False, input_range=(-1, 1)
    yolov1-tiny.cfg                      "tiny"        "direct"
    tiny-coco.cfg                        "tiny"        "direct" boxes_per_cell=3; 80 classes
    yolo-tiny.cfg of 2015-11             "fast"        "paper"

Differences from the paper and the release:

- The outputs are the release's plan (all classes, then all confidences, then all boxes), split
  into three maps; the paper's 7x7x30 tensor holds the same numbers cell by cell.
- A connected layer reads a map in rows, columns, channels; darknet in channels, rows, columns.
- The loss is half the paper's sum of squares (eq. 3), averaged over the images of the batch:
  its gradient is darknet's delta, so that darknet's learning rates hold.
- Of two objects in a cell the first row of the targets is kept; darknet shuffles them before.
- Image and grid may have any sides, and any Keras model can stand in the trunk's place.
- Scores above 1 are cut to 1 after suppression, and boxes at the image's edges before it;
  darknet cuts boxes when it prints them, and scores never.
- Darknet's `random` and `forced` choice of the responsible box, off in every cfg, are not here.
- Photos are warped with half-pixel centres; darknet's resize lays corner on corner.
"""

from numbers import Integral, Real

import keras
from keras import layers, ops

from kerasdet import boxes as box_ops
from kerasdet.backbones import extraction
from kerasdet.classes import named_classes
from kerasdet.detectors.detector import Detector
from kerasdet.errors import InputError
from kerasdet.layers.locally_connected import LocallyConnected2D
from kerasdet.suppression import Detections, non_max_suppression

# Weights of eq. 3, as in the [detection] section of every cfg (coord_scale, noobject_scale, ...).
_COORDINATES, _OBJECT, _NO_OBJECT, _CLASSES = 5.0, 1.0, 0.5, 1.0

# Objects narrower or lower than this share of the image are not learned (fill_truth_region, data.c).
_SMALLEST = 0.005

_TRUNKS = {
    "extraction": lambda x, norm: extraction.detection_convolutions(
        extraction.extraction(x, batch_norm=norm), batch_norm=norm
    ),
    "tiny": lambda x, norm: extraction.tiny(x, batch_norm=norm),
    "fast": lambda x, norm: extraction.fast(x, batch_norm=norm),
}
_HEADS = ("paper", "local", "direct")


@keras.saving.register_keras_serializable(package="kerasdet")
class YOLOv1(Detector):
    """YOLO v1 with the paper's head, darknet's released one, or none between map and outputs.

    Args:
        num_classes: K; None: as many as `class_names`.
        class_names: names of the labels; None: "class 0", "class 1", ...
        backbone: "extraction" (24 convolutions), "tiny" (eight), "fast" (the nine of the paper's
            Fast YOLO), or a Keras model from an image to one map.
        head: what stands between the map and the output layer. "paper": connected layers and
            dropout; "local": a locally connected layer and dropout; "direct": nothing. None:
            "direct" for "tiny", "paper" for the others.
        boxes_per_cell: n; None: 3 for the local head, 2 for the others.
        hidden: units of the paper head's connected layers; a pair (units, "linear") leaves out
            the leaky ReLU. None: (4096,), and for "fast" ((256, "linear"), 4096).
        local_filters: channels of the locally connected layer.
        dropout: share of the last hidden layer that training drops.
        batch_norm: normalise the own trunks' convolutions; None: for "tiny" and with the
            local head.
        grid: S, cells on each side, or (rows, columns).
        image_size: side of the square input, or (height, width), pixels; None: the
            backbone's own, or 448 where it has none.
        input_range: what the network sees for 0 and 255; None: (-1, 1) for "fast", else (0, 1).
        resize: "warp" (as darknet's evaluation) or "letterbox".
        **kwargs: what `keras.Model` takes.

    Call:
        images: (B, H, W, 3) RGB, 0..255.
        returns: float32 {"classes": (B, rows, columns, K), "confidence": (B, rows, columns, n),
            "boxes": (B, rows, columns, n, 4)}; a box is its centre's offset in the cell, in
            cells, and the square roots of its width and height, in widths and heights of the
            image. All are linear: nothing keeps them in 0..1.

    Attributes:
        grid: (rows, columns).
        boxes_per_cell: n.

    Layers: `conv<n>`, `local1` and `connected<n>` count the cfg's sections; the connected layer
        after a map reads what the layer "flatten" got, in rows, columns, channels.

    Raises:
        InputError: if the arguments do not fit together.
    """

    loss_names = ("centre", "size", "object", "no_object", "classes")
    augmentation = "yolo_v1"

    def __init__(
        self,
        num_classes=None,
        *,
        class_names=None,
        backbone="extraction",
        head=None,
        boxes_per_cell=None,
        hidden=None,
        local_filters=256,
        dropout=0.5,
        batch_norm=None,
        grid=7,
        image_size=None,
        input_range=None,
        resize="warp",
        **kwargs,
    ):
        class_names = named_classes("YOLOv1", num_classes, class_names)
        if not isinstance(backbone, keras.Model) and backbone not in tuple(_TRUNKS):
            raise InputError(
                f"backbone wants one of {', '.join(_TRUNKS)}, or a Keras model, not {backbone!r}."
            )
        if head is None:
            head = "direct" if backbone == "tiny" else "paper"
        if head not in _HEADS:
            raise InputError(f"head wants one of {', '.join(_HEADS)}, not {head!r}.")
        rows, columns = _pair(grid, "grid")
        image_size = _input_size(backbone) if image_size is None else image_size
        height, width = _pair(image_size, "image_size")
        if boxes_per_cell is None:
            boxes_per_cell = 3 if head == "local" else 2
        if hidden is None:
            hidden = ((256, "linear"), 4096) if backbone == "fast" else (4096,)
        if batch_norm is None:
            batch_norm = backbone == "tiny" or head == "local"
        if input_range is None:
            input_range = (-1, 1) if backbone == "fast" else (0, 1)
        counts = _whole(boxes_per_cell) and _whole(local_filters)
        share = isinstance(dropout, Real) and 0 <= dropout < 1
        if not (counts and share and _rising(input_range)):
            raise InputError(
                "YOLOv1 wants a positive boxes_per_cell and local_filters, dropout in 0..1 and a "
                f"rising input_range, not {boxes_per_cell!r}, {local_filters!r}, {dropout!r} and "
                f"{input_range!r}."
            )
        low, high = input_range

        # ---------------------------------------------------------------- architecture
        images = keras.Input((height, width, 3), name="images")
        x = layers.Rescaling((high - low) / 255, low, name="normalize")(images)
        if isinstance(backbone, keras.Model):
            x = _model_map(backbone, x)
        else:
            x = _TRUNKS[backbone](x, batch_norm)
        if head == "local":
            x = LocallyConnected2D(local_filters, 3, pad=1, name="local1")(x)
            x = layers.LeakyReLU(0.1, name="local1_leaky")(x)
        # Rows, columns, channels; a darknet file's rows of `connected1` are channels first.
        x = layers.Flatten(name="flatten")(x)
        connected = _hidden(hidden) if head == "paper" else []
        for number, (units, activation) in enumerate(connected, start=1):
            x = _connected(x, units, number)
            if activation == "leaky":
                x = layers.LeakyReLU(0.1, name=f"connected{number}_leaky")(x)
        if dropout and head != "direct":
            x = layers.Dropout(dropout, name="dropout")(x)
        per_cell = len(class_names) + 5 * boxes_per_cell
        flat = _connected(x, rows * columns * per_cell, len(connected) + 1)
        outputs = _split(flat, rows, columns, boxes_per_cell, len(class_names))
        super().__init__(
            images,
            outputs,
            class_names=class_names,
            resize=resize,
            **{"name": "yolo_v1", **kwargs},
        )

        self.grid = (rows, columns)
        self.boxes_per_cell = boxes_per_cell
        config = {
            "class_names": class_names,
            "backbone": backbone,
            "head": head,
            "boxes_per_cell": boxes_per_cell,
            "hidden": hidden,
            "local_filters": local_filters,
            "dropout": dropout,
            "batch_norm": batch_norm,
            "grid": (rows, columns),
            "image_size": (height, width),
            "input_range": (low, high),
        }
        # Behind a function: Keras would take a model inside a dict for a layer of this model.
        self._given = lambda: config

    # -------------------------------------------------------------------- targets

    def assign(self, targets, inputs=None):
        """The object of each cell: the first row whose centre lies in it.

        Args:
            targets: {"boxes": (B, G, 4) pixels of the network input, "labels": (B, G)}.
            inputs: not read; image and grid are fixed.

        Returns:
            {"object": (B, rows, columns) bool, "label": (B, rows, columns) int32, and "boxes":
            (B, rows, columns, 4): centre's offset in the cell, in cells, then width and height,
            in widths and heights of the image}; label 0 and box 0 where there is no object.
            Objects below 0.005 of the image in width or height are left out.
        """
        (rows, columns), (height, width) = self.grid, self.image_size
        boxes, labels = ops.cast(targets["boxes"], "float32"), ops.cast(targets["labels"], "int32")
        if not boxes.shape[1]:  # none or not known: a padded row, so that there is one to look at
            boxes = ops.pad(boxes, ((0, 0), (0, 1), (0, 0)))
            labels = ops.pad(labels, ((0, 0), (0, 1)), constant_values=-1)
        x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
        w, h = (x2 - x1) / width, (y2 - y1) / height
        x, y = (x1 + x2) * columns / (2 * width), (y1 + y2) * rows / (2 * height)  # in cells
        column = ops.clip(ops.floor(x), 0, columns - 1)
        row = ops.clip(ops.floor(y), 0, rows - 1)
        there = (labels >= 0) & (w >= _SMALLEST) & (h >= _SMALLEST)
        cell = ops.where(there, ops.cast(row * columns + column, "int32"), -1)  # (B, G)
        in_cell = ops.expand_dims(cell, -1) == ops.arange(rows * columns, dtype="int32")
        taken = ops.any(in_cell, axis=1)  # (B, cells)
        first = ops.argmax(ops.cast(in_cell, "int32"), axis=1)  # (B, cells)
        coded = ops.stack([x - column, y - row, w, h], axis=-1)  # (B, G, 4)
        coded = ops.take_along_axis(coded, ops.expand_dims(first, -1), axis=1)
        label = ops.take_along_axis(labels, first, axis=1)
        return {
            "object": ops.reshape(taken, (-1, rows, columns)),
            "label": ops.reshape(ops.where(taken, label, 0), (-1, rows, columns)),
            "boxes": ops.reshape(
                ops.where(ops.expand_dims(taken, -1), coded, 0.0), (-1, rows, columns, 4)
            ),
        }

    # -------------------------------------------------------------------- loss

    def loss_terms(self, outputs, assigned):
        """The five lines of eq. 3, each half a weighted sum of squares, averaged over the images.

        Of a cell's boxes the responsible one is the one of best IoU with the object, or, where
        none overlaps it, the nearest (root mean square of centre and size). It learns its IoU as
        confidence (`rescore=1` of every cfg), all other boxes learn 0.

        Source: detection_layer.c, forward_detection_layer; the gradient by each output is
            its delta with the sign changed, over the number of images.
        """
        outputs = {name: ops.cast(value, "float32") for name, value in outputs.items()}
        truth = assigned["boxes"]  # (B, rows, columns, 4)
        exists = assigned["object"]  # (B, rows, columns)
        overlap, mine = self._responsible(ops.stop_gradient(outputs["boxes"]), truth)
        mine = mine & ops.expand_dims(exists, -1)  # (B, rows, columns, n)
        overlap, mine = ops.stop_gradient(overlap), ops.stop_gradient(mine)
        # sqrt has an infinite slope at 0, where a padded row lies; no gradient goes there.
        wanted = ops.concatenate([truth[..., :2], ops.sqrt(truth[..., 2:])], axis=-1)
        box_error = _where(mine, ops.expand_dims(wanted, -2) - outputs["boxes"])
        one_hot = ops.one_hot(assigned["label"], self.num_classes, dtype="float32")
        confidence = outputs["confidence"]
        return {
            "centre": _COORDINATES * _half_squares(box_error[..., :2]),
            "size": _COORDINATES * _half_squares(box_error[..., 2:]),
            "object": _OBJECT * _half_squares(ops.where(mine, overlap - confidence, 0.0)),
            "no_object": _NO_OBJECT * _half_squares(ops.where(mine, 0.0, confidence)),
            "classes": _CLASSES * _half_squares(_where(exists, one_hot - outputs["classes"])),
        }

    def _responsible(self, boxes, truth):
        """IoU of each cell's boxes with its object, and which one answers: both (..., n)."""
        rows, columns = self.grid
        cell = ops.convert_to_tensor([1 / columns, 1 / rows], "float32")
        truth = ops.expand_dims(truth, -2)  # (B, rows, columns, 1, 4)
        # In widths and heights of the image, from the cell's corner.
        own = ops.concatenate([boxes[..., :2] * cell, ops.square(boxes[..., 2:])], axis=-1)
        truth = ops.concatenate([truth[..., :2] * cell, truth[..., 2:]], axis=-1)
        overlap = box_ops.iou(_corners(own), _corners(truth))[..., 0]  # (B, rows, columns, n)
        distance2 = ops.sum(ops.square(own - truth), axis=-1)
        best = ops.where(
            ops.any(overlap > 0, axis=-1),
            ops.argmax(overlap, axis=-1),
            ops.argmin(distance2, axis=-1),
        )
        return overlap, ops.one_hot(best, self.boxes_per_cell, dtype="bool")

    # -------------------------------------------------------------------- decode

    def decode(
        self, outputs, *, score_threshold=None, iou_threshold=None, max_detections=None
    ) -> Detections:
        """Class-specific confidences (eq. 1), then suppression class by class.

        The defaults are those of `darknet yolo valid`, 0.001 and 0.5, and at most 200; for
        pictures `darknet yolo test` takes 0.2 and 0.4. A score is confidence times class as in
        darknet, even where both are negative.
        """
        (rows, columns), (height, width) = self.grid, self.image_size
        outputs = {name: ops.cast(value, "float32") for name, value in outputs.items()}
        corner_y, corner_x = ops.meshgrid(
            ops.arange(rows, dtype="float32"), ops.arange(columns, dtype="float32"), indexing="ij"
        )
        corner = ops.expand_dims(
            ops.stack([corner_x, corner_y], axis=-1), -2
        )  # (rows, columns, 1, 2)
        cell = ops.convert_to_tensor([width / columns, height / rows], "float32")
        image = ops.convert_to_tensor([width, height], "float32")
        centre = (outputs["boxes"][..., :2] + corner) * cell
        size = ops.square(outputs["boxes"][..., 2:]) * image
        boxes = _corners(ops.concatenate([centre, size], axis=-1))
        confidence, classes = outputs["confidence"], outputs["classes"]
        scores = ops.expand_dims(confidence, -1) * ops.expand_dims(classes, -2)
        count = rows * columns * self.boxes_per_cell
        found = non_max_suppression(
            box_ops.clip(ops.reshape(boxes, (-1, count, 4)), height, width),
            ops.reshape(scores, (-1, count, self.num_classes)),
            score_threshold=0.001 if score_threshold is None else score_threshold,
            iou_threshold=0.5 if iou_threshold is None else iou_threshold,
            max_detections=200 if max_detections is None else max_detections,
        )
        return found._replace(scores=ops.minimum(found.scores, 1.0))

    # -------------------------------------------------------------------- saving

    def _arguments(self):
        return {**self._given(), "resize": self.resize}


# ------------------------------------------------------------------------ helpers


def _whole(number) -> bool:
    return isinstance(number, Integral) and int(number) > 0


def _rising(pair) -> bool:
    pair = pair if isinstance(pair, list | tuple) else ()
    return len(pair) == 2 and all(isinstance(n, Real) for n in pair) and pair[0] < pair[1]


def _pair(sides, name):
    pair = tuple(sides) if isinstance(sides, list | tuple) else (sides, sides)
    if len(pair) != 2 or not all(map(_whole, pair)):
        raise InputError(f"{name} wants one or two positive whole numbers, not {sides!r}.")
    return pair


def _input_size(backbone):
    """(height, width) a model was built for, or the paper's 448 where it takes any."""
    shape = getattr(backbone, "input_shape", None)
    fixed = isinstance(shape, tuple) and len(shape) == 4 and None not in shape[1:3]
    return tuple(shape[1:3]) if fixed else 448


def _hidden(hidden):
    """(units, activation) of each hidden connected layer."""
    if not isinstance(hidden, list | tuple):
        raise InputError(f"hidden wants a list of units, not {hidden!r}.")
    pairs = [each if isinstance(each, list | tuple) else (each, "leaky") for each in hidden]
    for pair in pairs:
        if len(pair) != 2 or not _whole(pair[0]) or pair[1] not in ("leaky", "linear"):
            raise InputError(
                "hidden wants units, or pairs of units and 'leaky' or 'linear', "
                f"not {pair!r} in {hidden!r}."
            )
    return pairs


def _model_map(backbone, x):
    """The one map a model makes of `x`."""
    if len(backbone.outputs) != 1 or len(backbone.outputs[0].shape) != 4:
        raise InputError(f"backbone wants a model with one map (B, H, W, C), not {backbone.name}.")
    feature_map = keras.Model(backbone.inputs, backbone.outputs[0], name="backbone")(x)
    if None in feature_map.shape[1:]:
        raise InputError(
            f"backbone wants a map of known size from {backbone.name}, not {feature_map.shape}."
        )
    return feature_map


def _connected(x, units, number):
    # Uniform in +-sqrt(2 / inputs), connected_layer.c; the variance of that is 2 / 3 / inputs.
    start = keras.initializers.VarianceScaling(2 / 3, "fan_in", "uniform")
    return layers.Dense(units, kernel_initializer=start, name=f"connected{number}")(x)


def _split(flat, rows, columns, per_cell, class_count):
    """Darknet's flat plan to maps: all classes, all confidences, all boxes (detection_layer.c)."""
    flat = ops.cast(flat, "float32")
    cells = rows * columns
    first, last = cells * class_count, cells * (class_count + per_cell)
    return {
        "classes": ops.reshape(flat[:, :first], (-1, rows, columns, class_count)),
        "confidence": ops.reshape(flat[:, first:last], (-1, rows, columns, per_cell)),
        "boxes": ops.reshape(flat[:, last:], (-1, rows, columns, per_cell, 4)),
    }


def _corners(boxes):
    """(..., 4) centre and size to xyxy."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return ops.concatenate([centre - half, centre + half], axis=-1)


def _where(mask, error):
    """Errors of the chosen alone; what is masked before the square has no gradient, not even NaN."""
    return ops.where(ops.expand_dims(mask, -1), error, 0.0)


def _half_squares(error):
    """Half the sum of squares, averaged over the images."""
    images = ops.cast(ops.maximum(ops.shape(error)[0], 1), "float32")
    return 0.5 * ops.sum(ops.square(error)) / images
