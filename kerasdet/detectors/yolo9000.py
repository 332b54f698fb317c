"""YOLO9000: detection of thousands of classes, learned from images with boxes and images with a label.

Redmon and Farhadi: YOLO9000: Better, Faster, Stronger, CVPR 2017, arXiv:1612.08242, sec. 4;
darknet, cfg/yolo9000.cfg, src/region_layer.c, src/tree.c.

The file, top to bottom: anchors, the network, targets, loss, decoding, the same network for a flat
list of classes, helpers. Boxes and the detection loss are in `kerasdet.region`, shared with
YOLOv2; the tree is `kerasdet.word_tree.WordTree`.

Differences from the paper and the release:

- The paper's tree has one root, "physical object", which objectness stands for; the released
  9k.tree has four, and objectness stands above them. Any number goes here.
- A detection's score is objectness times the node's absolute probability, as the paper's
  confidence is; darknet draws objectness alone unless it has a map.
- The walk down the tree multiplies each probability in once. Darknet's multiplies numbers that
  are absolute already (hierarchy_top_prediction after hierarchy_predictions), so that it stops
  earlier: its threshold .5 is on a product that counts a node's ancestors again and again.
- An image with a label alone: objectness of the box that predicts the label best is raised to
  0.3, as the paper says ("image_objectness"). Darknet computes that delta and then sets it to
  0, and pulls every other box of the image to no object: "darknet". Its first version left
  objectness alone: "none".
- Boxes suppress each other where they have the same node; the release compares whole rows of
  probabilities, class by class.
- At most 200 detections come out; the release has no limit.
- Photos are brought to the network's size without aliasing; darknet's way is `resize="letterbox"`.
- Of two objects of one cell and prior the last alone is learned. Darknet overwrites the groups on
  its path, and leaves of the first what lies beside it.
- What else differs in boxes and loss stands in `kerasdet.region`.
"""

from numbers import Real

import keras
import numpy as np
from keras import layers, ops

from kerasdet import boxes as box_ops
from kerasdet import region
from kerasdet.backbones.darknet19 import darknet19
from kerasdet.backbones.darknet_conv import darknet_conv
from kerasdet.detectors.detector import Detector
from kerasdet.errors import InputError
from kerasdet.layers.split_channels import SplitChannels
from kerasdet.layers.word_tree_softmax import (
    along_paths,
    descend,
    log_softmax,
    path_log_probability,
)
from kerasdet.suppression import Detections, labelled_non_max_suppression, non_max_suppression
from kerasdet.word_tree import WordTree

ANCHORS = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
"""Widths and heights in cells of 32 pixels (cfg/yolo9000.cfg)."""

IMAGE_OBJECTNESS = ("floor", "darknet", "none")
"""What an image with a label alone teaches objectness; see the top of the file."""

# The box that predicts an image's label best is taken to overlap the object by so much (sec. 4).
_ASSUMED_IOU = 0.3


@keras.saving.register_keras_serializable(package="kerasdet")
class YOLO9000(Detector):
    """YOLO9000 on Darknet-19 or on any Keras model, for the labels of any `WordTree`.

    Labels are nodes of the tree, in targets and in detections: the deepest node that the
    network is sure of. `for_classes` gives the same network for a flat list of classes.

    Args:
        tree: a `WordTree` of N nodes, or the config of one.
        backbone: "darknet19", or a functional Keras model on images of 0..1, of 32 pixels a
            cell at its feature layer.
        feature_layer: name of a model's layer whose output is used; None: its output.
        anchors: A pairs of width and height in cells of 32 pixels; None: the release's three.
        image_size: side of the square input, or (height, width), multiples of 32. None: 544,
            or what a model was built for.
        resize: "letterbox_smooth"; "letterbox", which samples a photo as darknet does; or "warp".
        tree_threshold: absolute probability above which a node is entered.
        image_objectness: what an image with a label alone teaches: "floor", "darknet" or "none".
        loss: {name: number} over `kerasdet.region.RegionSettings`, as {"prior_images": 0}.
        **kwargs: what `keras.Model` takes.

    Call:
        images: (B, H, W, 3) RGB, 0..255; H and W any multiples of 32.
        returns: {"region": (B, H/32, W/32, A, 5 + N)} raw tx ty tw th to, then the nodes'
            logits; float32.

    Targets:
        boxes: (B, G, 4) and labels (B, G), nodes, as everywhere.
        image_label: (B,) int32, optional: the node of an image that has a label and no boxes,
            -1 for one that has boxes.

    Attributes:
        tree: the `WordTree`; `class_names` are its names.
        tree_threshold: may be set.
        priors: (A, 2) float32 NumPy, the anchors in cells.
        default_boxes: (H/32 * W/32 * A, 4) float32 NumPy: the anchors around the cells'
            middles, xyxy pixels of an input of `image_size`.
        image_size: (height, width) that photos are brought to; may be set.
        images_seen: integer variable, images trained on, which darknet's weight files carry.

    Raises:
        InputError: if the anchors, sizes or layers do not fit together.
    """

    loss_names = (*region.RegionTerms._fields, "image_classes", "image_objectness")
    augmentation = "yolo_v2"
    resize = "letterbox_smooth"
    image_stride = region.CELL

    def __init__(
        self,
        tree,
        *,
        backbone="darknet19",
        feature_layer=None,
        anchors=None,
        image_size=None,
        resize=None,
        tree_threshold=0.5,
        image_objectness="floor",
        loss=None,
        **kwargs,
    ):
        tree = tree if isinstance(tree, WordTree) else WordTree.from_config(tree)
        anchors = ANCHORS if anchors is None else anchors
        priors = region.checked_priors(anchors)
        if image_objectness not in IMAGE_OBJECTNESS:
            raise InputError(
                f"image_objectness wants one of {', '.join(IMAGE_OBJECTNESS)}, "
                f"not {image_objectness!r}."
            )
        settings = region.checked_settings(loss)
        loss = dict(loss or {})

        # ---------------------------------------------------------------- architecture
        height, width = _input_sides(backbone)
        images = keras.Input((height, width, 3), name="images")
        x = layers.Rescaling(1 / 255, name="normalize")(images)
        if backbone == "darknet19":
            x, number = darknet19(x)["conv18"], 19
        else:
            x, number = _model_map(backbone, feature_layer, x), 1
        channels = len(priors) * (5 + len(tree))
        x = darknet_conv(x, channels, 1, number, batch_norm=False, activation="linear")
        outputs = {"region": SplitChannels(len(priors), dtype="float32", name="region")(x)}
        if image_size is None:
            image_size = 544 if height is None or width is None else (height, width)
        super().__init__(
            images,
            outputs,
            class_names=tree.names,
            image_size=image_size,
            resize=resize,
            **{"name": "yolo9000", **kwargs},
        )

        self.tree = tree
        self.tree_threshold = tree_threshold
        self.priors = priors
        self.image_objectness = image_objectness
        self._count_images()
        config = {
            "backbone": backbone,
            "feature_layer": feature_layer,
            "anchors": np.asarray(anchors, "float64").tolist(),
            "image_objectness": image_objectness,
            "loss": loss,
        }
        # Behind functions: Keras would take a model inside a dict for one of this model's layers.
        self._given = lambda: config
        self._settings = lambda: settings

    @property
    def tree_threshold(self):
        """Absolute probability above which a node is entered."""
        return self._tree_threshold

    @tree_threshold.setter
    def tree_threshold(self, threshold):
        if not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise InputError(f"tree_threshold wants a probability, not {threshold!r}.")
        self._tree_threshold = float(threshold)
        self._detect_functions.by_use.clear()  # it is a constant in them

    @property
    def default_boxes(self):
        """(S * S * A, 4), the priors around the cells' middles, xyxy pixels of `image_size`."""
        return region.prior_boxes(self.priors, self.image_size)

    def path(self, label) -> list[str]:
        """Names from the root to a node: `path("Norfolk terrier")`, `path(found.labels[0])`."""
        return self.tree.path_names(label)

    def for_classes(self, names, nodes=None) -> "YOLO9000ForClasses":
        """The same network, its weights shared, for a flat list of classes.

        Args:
            names: K names of the labels, as a data set's `class_names`.
            nodes: the node of each, as `tree.read_map("coco9k.map")` gives, or what
                `tree.node` takes; None: the nodes of these names.

        Raises:
            InputError: if there are not as many nodes as names, or a node is not in the tree.
        """
        return YOLO9000ForClasses(self, names, names if nodes is None else nodes)

    # -------------------------------------------------------------------- targets

    def assign(self, targets, inputs=None):
        """Each object's box of the grid, and the images' own labels where the batch has any."""
        sides = self._sides(inputs)
        return _assigned(targets, targets["labels"], self.priors, sides)

    # -------------------------------------------------------------------- loss

    def loss_terms(self, outputs, assigned):
        """Image by image the region layer's terms or the two of an image's label; their means.

        The classes of an object: the cross-entropies of the groups on its label's path.
        """
        raw = ops.cast(outputs["region"], "float32")
        terms = region.region_loss(
            raw,
            assigned["objects"],
            self.priors,
            class_loss=lambda logits, nodes: -path_log_probability(logits, nodes, self.tree),
            settings=self._settings(),
            images_seen=self.images_seen.value,
        )._asdict()
        nothing = ops.zeros_like(terms["classes"])
        terms |= {"image_classes": nothing, "image_objectness": nothing}
        if "image_label" in assigned:
            labels = assigned["image_label"]
            of_label = image_label_loss(
                raw,
                ops.maximum(labels, 0),
                self.tree,
                objectness=self.image_objectness,
                settings=self._settings(),
            )
            for name, term in terms.items():
                terms[name] = ops.where(labels >= 0, of_label.get(name, 0.0), term)
        return {name: ops.mean(of_images) for name, of_images in terms.items()}

    # -------------------------------------------------------------------- decode

    def decode(
        self, outputs, *, score_threshold=None, iou_threshold=None, max_detections=None
    ) -> Detections:
        """Each box's deepest sure node, then suppression node by node; the release's 0.005 and 0.45.

        Score: objectness times the node's absolute probability.
        """
        raw = ops.cast(outputs["region"], "float32")
        boxes, objectness, logits = _taken_apart(raw, self.priors)
        nodes, probability = descend(logits, self.tree, threshold=self.tree_threshold)
        found = labelled_non_max_suppression(
            boxes,
            objectness * probability,
            nodes,
            score_threshold=0.005 if score_threshold is None else score_threshold,
            iou_threshold=0.45 if iou_threshold is None else iou_threshold,
            max_detections=200 if max_detections is None else max_detections,
        )
        return _inside(found, raw)

    # -------------------------------------------------------------------- saving

    def _arguments(self):
        return {
            "tree": self.tree.get_config(),
            **self._given(),
            "tree_threshold": self.tree_threshold,
            "image_size": self.image_size,
            "resize": self.resize,
        }


@keras.saving.register_keras_serializable(package="kerasdet")
class YOLO9000ForClasses(Detector):
    """A YOLO9000 that answers with the classes of a flat list; its weights are the other's own.

    For evaluation on a set such as COCO, and for training on one: labels become nodes.

    Args:
        detector: the `YOLO9000`, or the config of one.
        names: K names of the labels.
        nodes: the node of each label, as `WordTree.nodes` takes them.
        **kwargs: what `keras.Model` takes.

    Call: as `YOLO9000`'s.

    Raises:
        InputError: if there are not as many nodes as names, or a node is not in the tree.

    Source: darknet src/region_layer.c, get_region_boxes with a map (coco9k.map, inet9k.map).
    """

    loss_names = YOLO9000.loss_names
    augmentation = "yolo_v2"
    resize = YOLO9000.resize
    image_stride = YOLO9000.image_stride

    def __init__(self, detector, names, nodes, *, image_size=None, resize=None, **kwargs):
        if isinstance(detector, dict):
            detector = YOLO9000.from_config(detector)
        names = [str(name) for name in names]
        nodes = detector.tree.nodes(nodes)
        if len(names) != len(nodes) or not names:
            raise InputError(
                f"A list of classes wants a node for every name, not {len(nodes)} nodes for "
                f"{len(names)} names."
            )
        super().__init__(
            detector.inputs[0],
            detector.output,
            class_names=names,
            image_size=detector.image_size if image_size is None else image_size,
            resize=detector.resize if resize is None else resize,
            **kwargs,
        )
        self.images_seen = detector.images_seen
        self.tree = detector.tree
        self.nodes = nodes
        self.priors = detector.priors
        self._detector = lambda: detector  # behind a function, or its layers would count twice

    @property
    def default_boxes(self):
        """(S * S * A, 4), the priors around the cells' middles, xyxy pixels of `image_size`."""
        return region.prior_boxes(self.priors, self.image_size)

    def assign(self, targets, inputs=None):
        """As YOLO9000's, after each label of an object has become its node."""
        sides = self._sides(inputs)
        labels = ops.cast(targets["labels"], "int32")
        nodes = ops.take(self.nodes, ops.maximum(labels, 0), axis=0)
        return _assigned(targets, ops.where(labels >= 0, nodes, -1), self.priors, sides)

    def loss_terms(self, outputs, assigned):
        """As YOLO9000's."""
        return self._detector().loss_terms(outputs, assigned)

    def decode(
        self, outputs, *, score_threshold=None, iou_threshold=None, max_detections=None
    ) -> Detections:
        """Objectness times each class's absolute probability, suppression class by class."""
        raw = ops.cast(outputs["region"], "float32")
        boxes, objectness, logits = _taken_apart(raw, self.priors)
        log_absolute = along_paths(log_softmax(logits, self.tree), self.tree, log=True)
        scores = ops.exp(ops.take(log_absolute, self.nodes, axis=-1))  # (B, N, K)
        found = non_max_suppression(
            boxes,
            ops.expand_dims(objectness, -1) * scores,
            score_threshold=0.005 if score_threshold is None else score_threshold,
            iou_threshold=0.45 if iou_threshold is None else iou_threshold,
            max_detections=200 if max_detections is None else max_detections,
        )
        return _inside(found, raw)

    def _arguments(self):
        return {
            "detector": self._detector().get_config(),
            "names": list(self.class_names),
            "nodes": self.nodes.tolist(),
        }


# ------------------------------------------------------------------------ helpers


def _assigned(targets, nodes, priors, sides):
    """Objects by their nodes (B, G) to boxes of the grid, and the images' labels as they come."""
    grid = [side // region.CELL for side in sides]
    assigned = {"objects": region.assign_objects(targets["boxes"], nodes, priors, grid)}
    if "image_label" in targets:
        assigned["image_label"] = ops.cast(targets["image_label"], "int32")
    return assigned


def image_label_loss(raw, labels, tree, *, objectness="floor", settings=None):
    """The loss of images with a label alone, image by image.

    The box that predicts the label best, by objectness times absolute probability, pays the
    cross-entropies of the groups on the label's path.

    Args:
        raw: (B, rows, columns, A, 5 + N).
        labels: (B,) int32 nodes.
        tree: the `WordTree`.
        objectness: one of `IMAGE_OBJECTNESS`.
        settings: scales; None: `RegionSettings()`.

    Returns:
        {"image_classes": (B,), "image_objectness": (B,)}.

    Source: YOLO9000 sec. 4, joint classification and detection; region_layer.c,
        forward_region_layer, the case of a class without a box.
    """
    settings = settings or region.RegionSettings()
    numbers = raw.shape[-1]
    boxes = ops.reshape(raw, (ops.shape(raw)[0], -1, numbers))  # (B, N, 5 + nodes)
    chance = ops.sigmoid(boxes[..., 4])
    of_boxes = ops.broadcast_to(ops.expand_dims(labels, 1), ops.shape(chance))
    likeness = path_log_probability(ops.stop_gradient(boxes[..., 5:]), of_boxes, tree)
    best = ops.argmax(ops.log(ops.stop_gradient(chance) + 1e-30) + likeness, axis=1)  # (B,)
    own = ops.take_along_axis(boxes, ops.reshape(best, (-1, 1, 1)), axis=1)[:, 0]
    own_chance = ops.sigmoid(own[:, 4])
    if objectness == "floor":
        short = ops.maximum(_ASSUMED_IOU - own_chance, 0.0)
        push = settings.object_scale / 2 * ops.square(short)
    elif objectness == "darknet":
        others = ops.sum(ops.square(chance), axis=1) - ops.square(own_chance)
        push = settings.no_object_scale / 2 * others
    else:
        push = ops.zeros_like(own_chance)
    classes = -settings.class_scale * path_log_probability(own[:, 5:], labels, tree)
    return {"image_classes": classes, "image_objectness": push}


def _taken_apart(raw, priors):
    """Boxes (B, N, 4) pixels, objectness (B, N) and logits (B, N, nodes) of the raw outputs."""
    _, rows, columns, anchors, numbers = ops.shape(raw)
    count = rows * columns * anchors
    boxes = ops.reshape(region.decode_boxes(raw, priors), (-1, count, 4))
    flat = ops.reshape(raw, (-1, count, numbers))
    return boxes, ops.sigmoid(flat[..., 4]), flat[..., 5:]


def _inside(found, raw):
    """Detections cut at the network input's edges."""
    _, rows, columns, _, _ = ops.shape(raw)
    boxes = box_ops.clip(found.boxes, rows * region.CELL, columns * region.CELL)
    return found._replace(boxes=boxes)


def _input_sides(backbone):
    """(height, width) that a model was built for; (None, None) where any will do."""
    if backbone == "darknet19":
        return None, None
    if not isinstance(backbone, keras.Model):
        raise InputError(
            f"backbone wants 'darknet19' or a functional Keras model, not {backbone!r}."
        )
    shape = backbone.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise InputError(f"backbone wants one input of images (B, H, W, 3), not {shape}.")
    return shape[1:3]


def _model_map(backbone, feature_layer, x):
    """The named layer's output on `x`, one cell to 32 pixels."""
    if feature_layer is not None and feature_layer not in [layer.name for layer in backbone.layers]:
        raise InputError(f"feature_layer wants a layer of {backbone.name}, not {feature_layer!r}.")
    output = backbone.get_layer(feature_layer).output if feature_layer else backbone.output
    model = keras.Model(backbone.inputs, output, name="backbone")
    probe = [side or 10 * region.CELL for side in backbone.input_shape[1:3]]
    shape = model.compute_output_shape((1, *probe, 3))
    if tuple(shape[1:3]) != tuple(side // region.CELL for side in probe):
        raise InputError(
            f"YOLO9000 wants a map of one cell to {region.CELL} pixels, but {backbone.name} gives "
            f"{shape[1]}x{shape[2]} for an image of {probe[0]}x{probe[1]}."
        )
    return model(x)
