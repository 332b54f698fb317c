"""YOLOv2: anchors on a grid, boxes bound to their cells, one network for many image sizes.

Redmon and Farhadi: YOLO9000: Better, Faster, Stronger, CVPR 2017, arXiv:1612.08242, sec. 2;
darknet, cfg/yolov2.cfg and its siblings, src/region_layer.c.

The file, top to bottom: anchors of the releases, the network, targets, loss, decoding, saving,
helpers. Boxes and loss are in `kerasdet.region`, shared with YOLO9000.

The paper's path from YOLO to YOLOv2 (table 2, VOC07 mAP), and what says each step here. A row
keeps what the rows before it changed; `recipe` is how it is trained, not how it is built.

    63.4  YOLO                      YOLOv1(batch_norm=False, dropout=0.5), image_size=448;
                                    recipe: zoo/yolo_v1_voc0712/plain.py
    65.8  batch normalisation       YOLOv1(batch_norm=True, dropout=0), as sec. 2 takes dropout out;
                                    recipe: zoo/yolo_v1_voc0712/recipe.py
    69.5  high-resolution classifier    recipe: start from what zoo/extraction_448_imagenet gives
    69.2  convolutional, anchors    YOLOv2(backbone="extraction", anchors="hand_picked",
                                    location="offset", passthrough=None), image_size=416
    69.6  new network               backbone="darknet19"
    74.4  dimension priors,         anchors="voc_2016" (or your clusters)
          location prediction       location="direct"
    75.4  passthrough               passthrough="space_to_depth" (the text) or "darknet" (the
                                    code), passthrough_filters=None (2016) or 64 (2017 on)
    76.8  multi-scale               recipe: batches of 320 to 608 pixels
    78.6  high-resolution detector  image_size=544

Differences from the paper and the release:

- For the step to anchors the paper takes a pooling layer out of YOLO's network, without saying
  which; here its second half, conv21 to conv24, has no stride.
- The paper prints no hand-picked anchors; "hand_picked" are Faster R-CNN's nine.
- Boxes are cut at the network input's edges after suppression; the release cuts when it draws.
- At most 400 boxes a class go into suppression, and 200 come out; the release has no limit.
- Batch normalisation adds 1e-5 inside the root, as darknet on a GPU; on a CPU darknet adds
  1e-6 outside.
- Photos are brought to the network's size without aliasing, as other libraries do it;
  `resize="letterbox"` samples four pixels for one, darknet's way, and gives darknet's numbers.
- What else differs in boxes and loss stands in `kerasdet.region`.
"""

import math
from numbers import Integral
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from kerasdet import boxes as box_ops
from kerasdet import region
from kerasdet.backbones.darknet19 import darknet19, tiny
from kerasdet.backbones.darknet_conv import darknet_conv
from kerasdet.backbones.extraction import extraction
from kerasdet.classes import named_classes
from kerasdet.detectors.detector import Detector
from kerasdet.errors import InputError
from kerasdet.layers.passthrough import ORDERS, Passthrough
from kerasdet.layers.split_channels import SplitChannels
from kerasdet.suppression import Detections, non_max_suppression

# Faster R-CNN: squares of 128, 256 and 512 pixels and boxes of ratio 1:2 and 2:1 and the same area,
# on images whose short side is 600 (arXiv:1506.01497, sec. 3.3); here for the 13 cells of 416 pixels.
_HAND_PICKED = tuple(
    (13 * side / 600 * math.sqrt(ratio), 13 * side / 600 / math.sqrt(ratio))
    for side in (128, 256, 512)
    for ratio in (0.5, 1, 2)
)

# fmt: off
ANCHORS = {
    # cfg/yolov2-voc.cfg, for 416 pixels
    "voc": ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053),
            (11.2364, 10.0071)),
    # cfg/yolov2.cfg and cfg/yolov2-tiny.cfg
    "coco": ((0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778),
             (9.77052, 9.16828)),
    # cfg/yolo-voc.cfg of November 2016 (commit c6afc7ff); cfg/yolov2-tiny-voc.cfg to this day
    "voc_2016": ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52)),
    # cfg/yolo.cfg and cfg/tiny-yolo.cfg of November 2016
    "coco_2016": ((0.738768, 0.874946), (2.42204, 2.65704), (4.30971, 7.04493), (10.246, 4.59428),
                  (12.6868, 11.8741)),
    "hand_picked": _HAND_PICKED,
}
# fmt: on
"""Widths and heights in cells of 32 pixels, by release."""

# Of each trunk: its anchors and the 3x3 convolutions between it and the output, where none are given.
# The passthrough joins before the last of them (paper sec. 2, training for detection).
_DEFAULTS = {
    "darknet19": ("voc", (1024, 1024, 1024)),
    "tiny": ("voc_2016", (1024,)),
    "extraction": ("hand_picked", (1024, 1024, 1024, 1024)),
}


@keras.saving.register_keras_serializable(package="kerasdet")
class YOLOv2(Detector):
    """YOLOv2 on Darknet-19, on the tiny trunk, on YOLO's own, or on any Keras model.

    Args:
        num_classes: K; None: as many as `class_names`.
        class_names: names of the labels; None: "class 0", "class 1", ...
        backbone: "darknet19", "tiny", "extraction" (YOLO's 20 convolutions), or a functional
            Keras model on images of 0..1, of 32 pixels a cell at its last feature layer.
        feature_layers: names of a model's layers whose outputs are used: the coarse one, or
            with a passthrough first one of 16 pixels a cell, then the coarse one.
        anchors: a name in `ANCHORS`, or A pairs of width and height in cells of 32 pixels.
            None: the VOC release's of that trunk; "voc" for a model.
        image_size: side of the square input, or (height, width), multiples of 32. None: 416,
            or what a model was built for.
        resize: "letterbox_smooth"; "letterbox", which samples a photo as darknet does from
            2017-03-26 on; or "warp" (before; the figures in the paper).
        passthrough: "darknet", "space_to_depth", or None for none. "default": "darknet" where
            there is a finer map, in Darknet-19 or as a model's second feature layer.
        passthrough_filters: of the 1x1 convolution before the passthrough; None for no such
            convolution, as in the paper and the first release.
        head_filters: of the 3x3 convolutions before the output. None: the release's,
            (512,) for yolov2-tiny.cfg; for a model one as wide as its coarse map.
        batch_norm: normalise the convolutions of the head, and YOLO's own trunk; the others
            always are.
        location: "direct", centres inside their cells, or "offset", unbound as in RPN.
        loss: {name: number} over `kerasdet.region.RegionSettings`, as {"rescore": False}.
        **kwargs: what `keras.Model` takes.

    Call:
        images: (B, H, W, 3) RGB, 0..255; H and W any multiples of 32.
        returns: {"region": (B, H/32, W/32, A, 5 + K)} raw tx ty tw th to, then class logits;
            float32.

    Attributes:
        priors: (A, 2) float32 NumPy, the anchors in cells.
        default_boxes: (H/32 * W/32 * A, 4) float32 NumPy: the anchors around the cells'
            middles, xyxy pixels of an input of `image_size`.
        image_size: (height, width) that photos are brought to; may be set.
        images_seen: integer variable, images trained on, which darknet's weight files carry.

    Raises:
        InputError: if the classes, anchors, sizes or layers do not fit together.
    """

    loss_names = region.RegionTerms._fields
    augmentation = "yolo_v2"
    resize = "letterbox_smooth"
    image_stride = region.CELL

    def __init__(
        self,
        num_classes=None,
        *,
        class_names=None,
        backbone="darknet19",
        feature_layers=None,
        anchors=None,
        image_size=None,
        resize=None,
        passthrough="default",
        passthrough_filters=64,
        head_filters=None,
        batch_norm=True,
        location="direct",
        loss=None,
        **kwargs,
    ):
        class_names = named_classes("YOLOv2", num_classes, class_names)
        height, width = _input_sides(backbone)
        anchors, priors = _anchors(anchors, backbone)
        if location not in region.LOCATIONS:
            raise InputError(
                f"location wants one of {', '.join(region.LOCATIONS)}, not {location!r}."
            )
        settings = region.checked_settings(loss)
        loss = dict(loss or {})

        # ---------------------------------------------------------------- architecture
        images = keras.Input((height, width, 3), name="images")
        x = layers.Rescaling(1 / 255, name="normalize")(images)
        trunk = _trunk(backbone, feature_layers, x, batch_norm)
        order = _order(passthrough, trunk.fine)
        x, number = trunk.coarse, trunk.convolutions
        if head_filters is None:
            head_filters = _DEFAULTS[backbone][1] if trunk.own else (x.shape[-1],)
        if not isinstance(head_filters, list | tuple) or not all(map(_whole, head_filters)):
            raise InputError(f"head_filters wants positive whole numbers, not {head_filters!r}.")
        if passthrough_filters is not None and not _whole(passthrough_filters):
            raise InputError(
                "passthrough_filters wants a positive whole number or None, not "
                f"{passthrough_filters!r}."
            )
        head_filters = tuple(head_filters)
        if order and not head_filters:
            raise InputError("The passthrough joins before the last of head_filters; name one.")
        for place, filters in enumerate(head_filters, start=1):
            if order and place == len(head_filters):
                fine = trunk.fine
                if passthrough_filters:
                    number += 1
                    fine = darknet_conv(fine, passthrough_filters, 1, number, batch_norm=batch_norm)
                fine = Passthrough(2, order, name="passthrough")(fine)
                x = layers.Concatenate(name="joined")([fine, x])
            number += 1
            x = darknet_conv(x, filters, 3, number, batch_norm=batch_norm)
        channels = len(priors) * (5 + len(class_names))
        x = darknet_conv(x, channels, 1, number + 1, batch_norm=False, activation="linear")
        outputs = {"region": SplitChannels(len(priors), dtype="float32", name="region")(x)}
        if image_size is None:
            image_size = 416 if height is None or width is None else (height, width)
        super().__init__(
            images,
            outputs,
            class_names=class_names,
            image_size=image_size,
            resize=resize,
            **{"name": "yolo_v2", **kwargs},
        )

        self.priors = priors
        self.location = location
        self._count_images()
        config = {
            "class_names": class_names,
            "backbone": backbone,
            "feature_layers": feature_layers,
            "anchors": anchors,
            "passthrough": passthrough,
            "passthrough_filters": passthrough_filters,
            "head_filters": head_filters,
            "batch_norm": batch_norm,
            "location": location,
            "loss": loss,
        }
        # Behind functions: Keras would take a model inside a dict for one of this model's layers.
        self._given = lambda: config
        self._settings = lambda: settings

    @property
    def default_boxes(self):
        """(S * S * A, 4), the priors around the cells' middles, xyxy pixels of `image_size`."""
        return region.prior_boxes(self.priors, self.image_size)

    # -------------------------------------------------------------------- targets

    def assign(self, targets, inputs=None):
        """Each object's box of the grid, by cell and prior: `region.AssignedObjects`."""
        sides = self._sides(inputs)
        return region.assign_objects(
            targets["boxes"],
            targets["labels"],
            self.priors,
            [side // region.CELL for side in sides],
            location=self.location,
        )

    # -------------------------------------------------------------------- loss

    def loss_terms(self, outputs, assigned):
        """The region layer's sums over cells and objects, averaged over the images."""
        terms = region.region_loss(
            outputs["region"],
            assigned,
            self.priors,
            location=self.location,
            settings=self._settings(),
            images_seen=self.images_seen.value,
        )
        return {name: ops.mean(of_images) for name, of_images in terms._asdict().items()}

    # -------------------------------------------------------------------- decode

    def decode(
        self, outputs, *, score_threshold=None, iou_threshold=None, max_detections=None
    ) -> Detections:
        """Objectness times softmax, per-class suppression; the release's 0.005 and 0.45.

        Source: darknet examples/detector.c, validate_detector.
        """
        raw = ops.cast(outputs["region"], "float32")
        _, rows, columns, anchors, _ = ops.shape(raw)
        boxes = region.decode_boxes(raw, self.priors, location=self.location)
        scores = ops.sigmoid(raw[..., 4:5])
        if self.num_classes > 1:  # of one class Keras' softmax warns that it is 1
            scores *= ops.softmax(raw[..., 5:], axis=-1)
        count = rows * columns * anchors
        found = non_max_suppression(
            ops.reshape(boxes, (-1, count, 4)),
            ops.reshape(scores, (-1, count, self.num_classes)),
            score_threshold=0.005 if score_threshold is None else score_threshold,
            iou_threshold=0.45 if iou_threshold is None else iou_threshold,
            max_detections=200 if max_detections is None else max_detections,
        )
        inside = box_ops.clip(found.boxes, rows * region.CELL, columns * region.CELL)
        return found._replace(boxes=inside)

    # -------------------------------------------------------------------- saving

    def _arguments(self):
        return {**self._given(), "image_size": self.image_size, "resize": self.resize}


# ------------------------------------------------------------------------ helpers


class _Trunk(NamedTuple):
    """What lies below the head.

    Attributes:
        coarse: (B, H/32, W/32, C).
        fine: (B, H/16, W/16, C), or None.
        convolutions: how many of the network's numbered ones it has.
        own: whether it is one of this file's, not a model from elsewhere.
    """

    coarse: Any
    fine: Any
    convolutions: int
    own: bool


def _trunk(backbone, feature_layers, x, batch_norm) -> _Trunk:
    if isinstance(backbone, keras.Model):
        return _model_maps(backbone, feature_layers, x)
    if feature_layers:
        raise InputError(f"feature_layers go with a Keras model as backbone, not {backbone!r}.")
    if backbone == "extraction":
        return _Trunk(extraction(x, batch_norm=batch_norm), None, 20, True)
    if not batch_norm:
        raise InputError(
            f"{backbone!r} has batch normalisation; batch_norm=False goes with 'extraction' or a model."
        )
    if backbone == "tiny":
        return _Trunk(tiny(x), None, 7, True)
    maps = darknet19(x)
    return _Trunk(maps["conv18"], maps["conv13"], 18, True)


def _model_maps(backbone, feature_layers, x) -> _Trunk:
    known = {layer.name for layer in backbone.layers}
    names = list(feature_layers or [])
    missing = [name for name in names if name not in known]
    if len(names) not in (1, 2) or missing:
        raise InputError(
            f"feature_layers wants one or two names of layers of {backbone.name}, the finer first, "
            f"not {feature_layers}" + (f"; unknown: {missing}." if missing else ".")
        )
    tapped = [backbone.get_layer(name).output for name in names]
    model = keras.Model(backbone.inputs, tapped, name="backbone")
    probe = [side or 10 * region.CELL for side in backbone.input_shape[1:3]]
    shapes = model.compute_output_shape((1, *probe, 3))
    shapes = shapes if isinstance(shapes, list) else [shapes]
    for name, shape, pixels in zip(names[::-1], shapes[::-1], (32, 16), strict=False):
        if tuple(shape[1:3]) != tuple(side // pixels for side in probe):
            raise InputError(
                f"YOLOv2 wants a map of one cell to {pixels} pixels, but {name} of {backbone.name} "
                f"is {shape[1]}x{shape[2]} for an image of {probe[0]}x{probe[1]}."
            )
    maps = model(x)
    maps = maps if isinstance(maps, list | tuple) else [maps]
    return _Trunk(maps[-1], maps[0] if len(maps) == 2 else None, 0, False)


def _whole(number) -> bool:
    return isinstance(number, Integral) and int(number) > 0


def _order(passthrough, fine):
    if passthrough == "default":
        return None if fine is None else "darknet"
    if passthrough not in (None, *ORDERS):
        raise InputError(
            f"passthrough wants one of {', '.join(ORDERS)}, 'default' or None, not {passthrough!r}."
        )
    if passthrough and fine is None:
        raise InputError(
            "A passthrough wants a finer map: Darknet-19's, or two feature_layers of a model."
        )
    return passthrough


def _input_sides(backbone):
    """(height, width) that a model was built for; (None, None) where any will do."""
    if not isinstance(backbone, keras.Model):
        if backbone not in tuple(_DEFAULTS):
            raise InputError(
                f"backbone wants one of {', '.join(_DEFAULTS)} or a functional Keras model, "
                f"not {backbone!r}."
            )
        return None, None
    shape = backbone.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise InputError(f"backbone wants one input of images (B, H, W, 3), not {shape}.")
    return shape[1:3]


def _anchors(anchors, backbone):
    """What the config keeps, and the array of it."""
    if anchors is None:
        anchors = "voc" if isinstance(backbone, keras.Model) else _DEFAULTS[backbone][0]
    if isinstance(anchors, str):
        if anchors not in ANCHORS:
            raise InputError(
                f"anchors wants pairs of numbers or one of {', '.join(ANCHORS)}, not {anchors!r}."
            )
        return anchors, region.checked_priors(ANCHORS[anchors])
    priors = region.checked_priors(anchors)
    return np.asarray(anchors, "float64").tolist(), priors
