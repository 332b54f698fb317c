"""SSD: Single Shot MultiBox Detector.

Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: SSD: Single Shot MultiBox Detector, ECCV 2016,
arXiv:1512.02325; Caffe release weiliu89/caffe, branch ssd, commit 4817bf8b.

The file, top to bottom: the network, targets, loss, decoding, helpers. The sizes of the
released networks are the tables in `kerasdet.layers.default_boxes`.

Differences from the paper and the release:

- RGB in, with the mean in RGB order; the released weights' first kernel is flipped on
  loading. The paper's and Caffe's input is BGR.
- Biases learn at the kernels' rate; the release's at twice that.
- Weight decay leaves conv4_3's gain alone; the release's decays it.
- Test images are resized bilinearly with half-pixel centres, as OpenCV's and torch's
  linear resize; the release trains on a random choice of five interpolations.
- Boxes are cut at the image's edges before suppression, as torchvision does; the release
  never cuts them.
- Log sizes are cut at ln(1000/16) in decoding, as torchvision does; the release has no cut.
- SSD512's box sizes are whole pixels, as the released code ran; its files print decimals.
- Any Keras model can stand in VGG's place. Its extra layers have batch normalisation, which
  the paper's have not.
"""

import keras
from keras import layers, ops

from kerasdet import boxes as box_ops
from kerasdet.backbones.vgg16 import caffe_xavier, vgg16_reduced
from kerasdet.classes import named_classes
from kerasdet.detectors.detector import Detector
from kerasdet.errors import InputError
from kerasdet.layers.default_boxes import RELEASED, DefaultBoxes, paper_sizes
from kerasdet.layers.l2_normalization import L2Normalization
from kerasdet.losses import multibox
from kerasdet.matching import match_default_boxes
from kerasdet.suppression import Detections, non_max_suppression

# What the Caffe release subtracts (ssd_pascal.py, mean_value), in RGB order.
CAFFE_MEAN = (123.0, 117.0, 104.0)

# Extra layers after VGG's fc7, each a 1x1 and a 3x3 convolution: channels of both, stride and padding
# of the second (model_libs.py, AddExtraLayers). SSD512's last kernel is 4x4 on a 2x2 map.
_EXTRAS = {
    300: ((256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0)),
    512: ((256, 512, 2, 1), *((128, 256, 2, 1),) * 3, (128, 256, 1, 1)),
}


@keras.saving.register_keras_serializable(package="kerasdet")
class SSD(Detector):
    """SSD on the reduced VGG-16 of the paper, or on any Keras model with named feature layers.

    Args:
        num_classes: K, background not counted; None: as many as `class_names`.
        class_names: names of the labels; None: "class 0", "class 1", ...
        backbone: "vgg16", or a functional Keras model (its first input is not used: it is
            called on the normalised image) such as
            `keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(300, 300, 3))`.
        feature_layers: names of the backbone's layers whose outputs get heads, finest first.
            Only with a model as backbone; halving extra maps follow the last until there
            are as many maps as `box_sizes` asks for or the map is one cell.
        image_size: side of the square input, or (height, width), pixels; 300 or 512 for VGG.
            None: the backbone's own, or 300 where it has none.
        box_sizes: side of each map's square default box, and one more, pixels; None: the VOC
            release's for VGG, the paper's formula (0.1, then 0.2 to 0.9) for other backbones.
        box_ratios: extra width/height ratios of each map; None: (2,) on the first and the
            last two maps, (2, 3) between.
        clamp_sizes: cut default boxes' widths and heights at the image's, as torchvision does.
        clamp_centres: move default boxes' centres onto the image, as amdegroot/ssd.pytorch does.
        mean: subtracted from the RGB input; None: Caffe's for VGG, 127.5 for other backbones.
        scale: multiplied in after that; None: 1 for VGG, 1/127.5 for other backbones.
        **kwargs: what `keras.Model` takes.

    Call:
        images: (B, H, W, 3) RGB, 0..255.
        returns: {"boxes": (B, A, 4) offsets from the default boxes in the centre-size code,
            "classes": (B, A, K+1) logits, background first}; float32.

    Attributes:
        default_boxes: (A, 4) float32 NumPy, xyxy pixels of the network input.

    Raises:
        InputError: if the classes, sizes or layers do not fit together.
    """

    loss_names = ("localization", "confidence")
    augmentation = "ssd"

    def __init__(
        self,
        num_classes=None,
        *,
        class_names=None,
        backbone="vgg16",
        feature_layers=None,
        image_size=None,
        box_sizes=None,
        box_ratios=None,
        clamp_sizes=False,
        clamp_centres=False,
        mean=None,
        scale=None,
        **kwargs,
    ):
        class_names = named_classes("SSD", num_classes, class_names)
        own = backbone == "vgg16"
        mean = mean if mean is not None else (CAFFE_MEAN if own else 127.5)
        scale = scale if scale is not None else (1.0 if own else 1 / 127.5)
        if image_size is None:
            image_size = 300 if own else _input_size(backbone)
        height, width = image_size if isinstance(image_size, list | tuple) else (image_size,) * 2

        # ---------------------------------------------------------------- architecture
        images = keras.Input((height, width, 3), name="images")
        offset = [-m * scale for m in mean] if isinstance(mean, list | tuple) else -mean * scale
        x = layers.Rescaling(scale, offset, name="normalize")(images)
        if own:
            table = _released_table(height, width)
            maps = _vgg_maps(x, height)
            box_sizes = box_sizes or table.sizes
            box_ratios, steps = box_ratios or table.ratios, table.steps
        else:
            most = len(box_sizes) - 1 if box_sizes else 6
            maps = _model_maps(backbone, feature_layers, x, most)
            box_sizes = box_sizes or paper_sizes(min(height, width), len(maps), s_first=0.1)
            box_ratios, steps = box_ratios or _default_ratios(len(maps)), None
        default_boxes = DefaultBoxes(
            (height, width),
            [feature_map.shape[1:3] for feature_map in maps.values()],
            box_sizes,
            box_ratios,
            steps=steps,
            clamp_sizes=clamp_sizes,
            clamp_centres=clamp_centres,
            name="default_boxes",
        )
        heads = zip(maps.items(), default_boxes.boxes_per_cell, strict=True)
        offsets, logits = [], []
        for (source, feature_map), per_cell in heads:
            offsets.append(_head(feature_map, per_cell, 4, f"{source}_mbox_loc"))
            logits.append(_head(feature_map, per_cell, len(class_names) + 1, f"{source}_mbox_conf"))
        outputs = {
            "boxes": layers.Concatenate(axis=1, dtype="float32", name="boxes")(offsets),
            "classes": layers.Concatenate(axis=1, dtype="float32", name="classes")(logits),
        }
        super().__init__(images, outputs, class_names=class_names, **kwargs)

        self.default_boxes = default_boxes.boxes
        config = {
            "class_names": class_names,
            "backbone": backbone,
            "feature_layers": feature_layers,
            "image_size": image_size,
            "box_sizes": box_sizes,
            "box_ratios": box_ratios,
            "clamp_sizes": clamp_sizes,
            "clamp_centres": clamp_centres,
            "mean": mean,
            "scale": scale,
        }
        # Behind a function: Keras would take a model inside a dict for one of this model's layers,
        # and train and save even those of its layers that lead to no head.
        self._given = lambda: config

    # -------------------------------------------------------------------- targets

    def assign(self, targets, inputs=None):
        """Each default box's class (B, A), 0 for background, and offsets (B, A, 4)."""
        boxes, labels = ops.cast(targets["boxes"], "float32"), ops.cast(targets["labels"], "int32")
        if not boxes.shape[1]:  # none or not known: a padded row, so that there is one to look at
            boxes = ops.pad(boxes, ((0, 0), (0, 1), (0, 0)))
            labels = ops.pad(labels, ((0, 0), (0, 1)), constant_values=-1)
        anchors = ops.convert_to_tensor(self.default_boxes)
        matches = match_default_boxes(anchors, boxes, labels)
        owner = ops.maximum(matches.index, 0)
        label = ops.take_along_axis(labels, owner, axis=1)
        matched = ops.take_along_axis(boxes, ops.expand_dims(owner, -1), axis=1)  # (B, A, 4)
        return {
            "classes": ops.where(matches.index >= 0, label + 1, 0),
            "boxes": box_ops.encode(matched, anchors),
        }

    # -------------------------------------------------------------------- loss

    def loss_terms(self, outputs, assigned):
        """Smooth L1 and softmax, both summed and divided by the batch's matched boxes (eq. 1)."""
        terms = multibox(
            outputs["boxes"], outputs["classes"], assigned["boxes"], assigned["classes"]
        )
        return terms._asdict()

    # -------------------------------------------------------------------- decode

    def decode(
        self, outputs, *, score_threshold=None, iou_threshold=None, max_detections=None
    ) -> Detections:
        """Softmax, default boxes, per-class suppression; the release's 0.01, 0.45, 400 and 200."""
        scores = ops.softmax(ops.cast(outputs["classes"], "float32"), axis=-1)[..., 1:]
        offsets = ops.cast(outputs["boxes"], "float32")
        height, width = self.image_size
        boxes = box_ops.decode(offsets, ops.convert_to_tensor(self.default_boxes))
        return non_max_suppression(
            box_ops.clip(boxes, height, width),
            scores,
            score_threshold=0.01 if score_threshold is None else score_threshold,
            iou_threshold=0.45 if iou_threshold is None else iou_threshold,
            max_detections=200 if max_detections is None else max_detections,
        )

    # -------------------------------------------------------------------- saving

    def _arguments(self):
        return self._given()


# ------------------------------------------------------------------------ helpers


def _input_size(backbone):
    """(height, width) a model was built for, or 300 where it takes any."""
    shape = getattr(backbone, "input_shape", None)
    fixed = isinstance(shape, tuple) and len(shape) == 4 and None not in shape[1:3]
    return tuple(shape[1:3]) if fixed else 300


def _released_table(height, width):
    if height != width or height not in _EXTRAS:
        raise InputError(
            f"SSD on VGG-16 wants image_size 300 or 512, not {height}x{width}; "
            "pass a Keras model as backbone for other sizes."
        )
    return RELEASED[f"ssd{height}_voc"]


def _vgg_maps(x, side):
    """Maps with heads, by name: conv4_3_norm, fc7, conv6_2 ... (model_libs.py)."""
    trunk = vgg16_reduced(x)
    maps = {
        "conv4_3_norm": L2Normalization(20.0, name="conv4_3_norm")(trunk["conv4_3"]),
        "fc7": trunk["fc7"],
    }
    x = trunk["fc7"]
    for number, (squeeze, filters, stride, pad) in enumerate(_EXTRAS[side], start=6):
        kernel = 4 if number == 10 else 3
        x = _extra(x, squeeze, 1, 1, 0, f"conv{number}_1")
        x = maps[f"conv{number}_2"] = _extra(x, filters, kernel, stride, pad, f"conv{number}_2")
    return maps


def _extra(x, filters, kernel, stride, pad, name):
    # Caffe pads both sides; Keras' "same" with stride 2 would pad right and bottom only.
    if pad:
        x = layers.ZeroPadding2D(pad, name=f"{name}_pad")(x)
    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        activation="relu",
        kernel_initializer=caffe_xavier(),
        name=name,
    )(x)


def _model_maps(backbone, feature_layers, x, most):
    """The named layers' outputs on `x`, then halving extra maps, `most` maps at the most."""
    if not isinstance(backbone, keras.Model):
        raise InputError(f"backbone wants 'vgg16' or a functional Keras model, not {backbone!r}.")
    known = {layer.name for layer in backbone.layers}
    missing = [name for name in feature_layers or [] if name not in known]
    if not feature_layers or missing or len(feature_layers) > most:
        raise InputError(
            f"feature_layers wants 1 to {most} names of layers of {backbone.name}, finest first, "
            f"not {feature_layers}" + (f"; unknown: {missing}." if missing else ".")
        )
    tapped = [backbone.get_layer(name).output for name in feature_layers]
    features = keras.Model(backbone.inputs, tapped, name="backbone")(x)
    features = features if isinstance(features, list | tuple) else [features]
    maps = dict(zip(feature_layers, features, strict=True))
    x = features[-1]
    while len(maps) < most and max(x.shape[1:3]) > 1:
        name = f"extra{len(maps) - len(feature_layers) + 1}"
        x = _normalized(x, 128, 1, 1, f"{name}_1")
        x = maps[f"{name}_2"] = _normalized(x, 256, 3, 2, f"{name}_2")
    return maps


def _normalized(x, filters, kernel, stride, name):
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=caffe_xavier(),
        name=name,
    )(x)
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _default_ratios(count):
    """(2,) on the first and last two maps, (2, 3) between, as the paper's networks (sec. 3.1)."""
    return tuple((2, 3) if 0 < k < count - 2 else (2,) for k in range(count))


def _head(x, per_cell, numbers, name):
    """3x3 convolution on one map: (B, cells * per_cell, numbers), boxes of a cell together."""
    x = layers.Conv2D(
        per_cell * numbers, 3, padding="same", kernel_initializer=caffe_xavier(), name=name
    )(x)
    return layers.Reshape((-1, numbers), name=f"{name}_flat")(x)
