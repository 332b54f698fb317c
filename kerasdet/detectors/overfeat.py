"""OverFeat: one convolutional network that classifies, localises and detects at every window at once.

Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun: OverFeat: Integrated Recognition, Localization and
Detection using Convolutional Networks, ICLR 2014, arXiv:1312.6229.

The file, top to bottom: the network, targets, loss, decoding one scale, detection over scales,
localisation, classification, saving, helpers. Layouts are in `kerasdet.backbones.overfeat`, the
greedy merge is in `kerasdet.suppression`.

The paper trains three things one after the other, each from what the one before learned:

1. a classifier on single windows: `kerasdet.Classifier(network="overfeat_fast")`;
2. localisation (sec. 4): `OverFeat(task="localisation")` started from it with `start_from`; trunk
   and classifier are frozen, and the regressor alone learns;
3. detection (sec. 5): `task="detection"`: classes and a background class are learned on whole
   images, every window of which counts; the regressor as well, unless its layers are frozen.

Where the paper is silent, this was chosen:

- A box is four edges relative to the window, in shares of its side, and the loss half their squared
  errors. An untrained regressor says the window itself, but for little.
- The regressor stands on the released trunk's last map, of 1024 channels; the paper's figure 8
  has 256. It looks at every offset of the last pooling, as the classifier does.
- A window is about the object whose centre is nearest to its own, among those at least half of
  whose area is inside it and whose longer side is at least a quarter of the window's. It is
  background if no object has more than a quarter in it, of the object's area or of the window's;
  what is between teaches nothing.
- Background is a class of its own layer, so that a classifier's rows are used as they are.
- The negatives of an image: the background windows that look most like a class, and some at random,
  in numbers of one's own; the loss is a mean over them and all windows about objects.
- The released networks' last pooling is 2x2 (fast) or 3x3 (accurate), and so are their offsets.
- The merge: `kerasdet.suppression.greedy_merge`. Its threshold is said as an overlap, as that of
  suppression is: boxes merge that match better than two of one size, one beside the other, with
  this overlap.
- What was merged may overlap, unless a suppression is asked for.
- An image higher than wide is looked at in the scales' sizes with sides swapped.
"""

from numbers import Integral

import keras
import numpy as np
from keras import ops

from kerasdet import arguments, memory, voting
from kerasdet import boxes as box_ops
from kerasdet.backbones import overfeat as networks
from kerasdet.classes import named_classes
from kerasdet.compiling import compiled, compiled_alone
from kerasdet.detectors.detector import Detector
from kerasdet.errors import InputError
from kerasdet.images import each_image, read_image, warp
from kerasdet.layers.connected_conv import ConnectedConv2D
from kerasdet.layers.offset_pooling import Interleave, OffsetMaxPooling
from kerasdet.layers.split_channels import SplitChannels
from kerasdet.suppression import (
    Detections,
    greedy_merge,
    labelled_non_max_suppression,
    threshold_of,
)
from kerasdet.voting import Classification
from kerasdet.windows import (
    Candidates,
    candidates_of,
    mined_negatives,
    objects_of_windows,
    sizes_for,
    window_boxes,
)

TASKS = {"localisation": ("boxes",), "detection": ("classes", "boxes")}
"""What is trained, and the terms of its loss."""

_PAPERS_WINDOWS = (221, 231)

# Images that `detect` sends through the network together, where there is memory for them.
_BATCH = 8

# What `detect` goes by where nothing is said.
_LEAST_SCORE, _MOST = 0.3, 100
MERGES = {"greedy": 0.5, "nms": 0.3}
"""How candidates become detections, and the overlap from which on they are one where nothing is said."""


@keras.saving.register_keras_serializable(package="kerasdet")
class OverFeat(Detector):
    """OverFeat on one of the released layouts, or on a `Layout` of one's own.

    Args:
        num_classes: K, background not counted; None: as many as `class_names`.
        class_names: names of the labels; None: "class 0", "class 1", ...
        network: "fast", "accurate", or a `kerasdet.backbones.overfeat.Layout`.
        width: what the channels of trunk, classifier and regressor are multiplied by.
        background: with a background class, which detection wants.
        boxes_per_class: a regressor for each class, in place of one for all (which does better,
            sec. 4.4).
        box_hidden: channels of the regressor's hidden layers (sec. 4.1), before `width`.
        task: "detection" or "localisation": what is trained, and the loss. May be set, before
            `compile`.
        image_size: (height, width) that training images have, or one side: at least the window.
            None: the paper's third scale, in proportion to the window.
        scales: (height, width) sizes at which photos are looked at, each at least the window.
            None: `image_size` alone. May be set; `kerasdet.backbones.overfeat.SCALES` are the
            paper's.
        fine: outputs at every cell of the trunk's map; False: at the network's own stride, 2 x 2
            or 3 x 3 times fewer. May be set.
        merge: "greedy" or "nms", what detections are made with. May be set.
        classes_per_scale: of an image's classes the best so many are looked for at each scale.
        candidate_score: least probability of a box that is to be merged.
        max_candidates: boxes of an image that are merged, the best.
        merge_overlap: from which on boxes are merged, said as of two side by side (`threshold_of`).
        suppress_overlap: of a class's merged boxes, one that overlaps a better one by more (IoU)
            goes; None: none does, as in the paper.
        smallest: least longer side of an object that a window is about, in shares of the window's.
        part: of an object's area, or of the window's: a window with no more of any object in it is
            background.
        worst_negatives: background windows of an image learned from because they look like a class.
        random_negatives: others, drawn at random.
        box_weight: of the boxes' loss.
        dropout: share of the classifier's hidden outputs that training drops.
        stddev: of the first weights (sec. 3.1); None: He's, for networks trained in hours.
        seed: of the draw of negatives; None: from Keras' own.
        **kwargs: what `keras.Model` takes.

    Call:
        images: (B, H, W, 3) RGB, 0..255, of sides from the window on.
        returns: {"classes": (B, h, w, K) logits; "background": (B, h, w, 1) logits, with
            `background`; "boxes": (B, h, w, 4) or (B, h, w, K, 4), edges relative to the window in
            shares of its side}, float32. Row i and column j are the window whose top left pixel
            is (i * step, j * step).

    Attributes:
        layout: the network's `Layout`; its `window` is the side of a window in pixels.
        step: pixels from one window to the next.
        default_boxes: (h * w, 4) float32 NumPy: the windows in an input of `image_size`.

    Raises:
        InputError: if the arguments do not fit together.
    """

    loss_names = TASKS["detection"]

    def __init__(
        self,
        num_classes=None,
        *,
        class_names=None,
        network="fast",
        width=1.0,
        background=True,
        boxes_per_class=False,
        box_hidden=(4096, 1024),
        task="detection",
        image_size=None,
        scales=None,
        fine=True,
        merge="greedy",
        classes_per_scale=10,
        candidate_score=0.1,
        max_candidates=400,
        merge_overlap=MERGES["greedy"],
        suppress_overlap=None,
        smallest=0.25,
        part=0.25,
        worst_negatives=16,
        random_negatives=16,
        box_weight=1.0,
        dropout=0.5,
        stddev=0.01,
        seed=None,
        **kwargs,
    ):
        class_names = named_classes("OverFeat", num_classes, class_names)
        layout = networks.layout_of(network)
        count = len(class_names)
        if not isinstance(box_hidden, list | tuple) or len(box_hidden) != 2:
            raise InputError(f"box_hidden wants two numbers of channels, not {box_hidden!r}.")
        config = {
            "class_names": class_names,
            "network": network if isinstance(network, str) else layout,
            "width": width,
            "background": background,
            "boxes_per_class": boxes_per_class,
            "box_hidden": tuple(box_hidden),
            "classes_per_scale": classes_per_scale,
            "candidate_score": candidate_score,
            "max_candidates": max_candidates,
            "merge_overlap": merge_overlap,
            "suppress_overlap": suppress_overlap,
            "smallest": smallest,
            "part": part,
            "worst_negatives": worst_negatives,
            "random_negatives": random_negatives,
            "box_weight": box_weight,
            "dropout": dropout,
            "stddev": stddev,
            "seed": seed,
        }
        _check_numbers(config)

        # ---------------------------------------------------------------- architecture
        images = keras.Input((None, None, 3), name="images")
        maps = networks.trunk(networks.normalized(images), layout, width=width, stddev=stddev)
        pool = f"pool{len(layout.convolutions)}"
        pooled = OffsetMaxPooling(layout.last_pool, fine=fine, name=pool)(maps)

        def head(x, name, filters, deviation=stddev):
            x = networks.convolution(
                x, filters, 1, name, relu=False, stddev=deviation, layer=ConnectedConv2D
            )
            in_place = Interleave(layout.last_pool, fine=fine, name=f"{name}_map", dtype="float32")
            return in_place(x, maps)

        x = networks.connected(pooled, layout, width=width, dropout=dropout, stddev=stddev)
        outputs = {"classes": head(x, "classes", count)}
        if background:
            outputs["background"] = head(x, "background", 1)
        x = pooled
        for number, (filters, kernel) in enumerate(
            zip(box_hidden, (layout.kernel, 1), strict=True)
        ):
            filters = networks.scaled(filters, width)
            x = networks.convolution(
                x, filters, kernel, f"box_fc{number + 1}", stddev=stddev, layer=ConnectedConv2D
            )
        boxes = head(x, "boxes", 4 * count if boxes_per_class else 4, 0.001)
        if boxes_per_class:
            boxes = SplitChannels(count, name="boxes_by_class", dtype="float32")(boxes)
        outputs["boxes"] = boxes

        self._window = layout.window
        super().__init__(
            images,
            outputs,
            class_names=class_names,
            image_size=_default_size(layout.window) if image_size is None else image_size,
            **{"name": "overfeat", **kwargs},
        )
        if self.resize != "warp":
            raise InputError(f"OverFeat warps photos to its scales, not by {self.resize!r}.")

        self._count_memory()
        self.merge = merge
        self._draw = keras.random.SeedGenerator(seed, name="draw")
        self._given = lambda: config
        self._layout = lambda: layout
        self._fine = bool(fine)
        self._scales = None
        self.scales = scales
        self.task = task

    @property
    def layout(self):
        """The network's layout."""
        return self._layout()

    @property
    def task(self) -> str:
        """What is trained. Setting it freezes and thaws layers, and wants a new `compile`."""
        return self._task

    @task.setter
    def task(self, task):
        if task not in TASKS:
            raise InputError(f"task wants one of {', '.join(TASKS)}, not {task!r}.")
        if task == "detection" and not self._given()["background"]:
            raise InputError("Detection learns what is background: it wants background=True.")
        for layer in self.layers:
            layer.trainable = task == "detection" or layer.name.startswith("box")
        self._task = task
        self.loss_names = TASKS[task]
        for term in set(self._terms).difference(self.loss_names):
            self._terms.pop(term)
        self.compiled = False

    @property
    def fine(self) -> bool:
        """Whether there is an output for every cell of the trunk's map. May be set."""
        return self._fine

    @fine.setter
    def fine(self, fine):
        self._fine = bool(fine)
        for layer in self.layers:
            if isinstance(layer, OffsetMaxPooling | Interleave):
                layer.fine = self._fine
        self._detect_functions.by_use.clear()
        self._count_memory()
        self.train_function = self.test_function = self.predict_function = None

    def _count_memory(self):
        """Of both kinds of passes: a vote goes without the regressor."""
        votes = {name: output for name, output in self.output.items() if name != "boxes"}
        self._memory = memory.Demand(self, known_sides=True)
        voting_part = keras.Model(self.input, votes, name=self.name)
        self._vote_memory = memory.Demand(voting_part, known_sides=True)

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""
        return self.layout.stride * (1 if self.fine else self.layout.last_pool)

    @property
    def scales(self) -> tuple[tuple[int, int], ...]:
        """(height, width) sizes at which photos are looked at. May be set."""
        return (self.image_size,) if self._scales is None else self._scales

    @scales.setter
    def scales(self, scales):
        self._scales = None if scales is None else self._checked_scales(scales)

    @property
    def merge(self) -> str:
        """What detections are made with, "greedy" or "nms". May be set."""
        return self._merge

    @merge.setter
    def merge(self, merge):
        self._merge = _checked_merge(merge)

    def _checked_scales(self, scales):
        if scales is None:
            return self.scales
        if not isinstance(scales, list | tuple) or not scales:
            raise InputError(f"scales wants pairs of height and width, not {scales!r}.")
        if len(scales) == 2 and all(isinstance(side, Integral) for side in scales):
            one, other = scales
            raise InputError(
                f"scales wants pairs of height and width: [({one}, {other})] for one size, "
                f"[({one}, {one}), ({other}, {other})] for two squares, not {scales!r}."
            )
        return tuple(self._checked_size(size) for size in scales)

    def _checked_size(self, size):
        sides = super()._checked_size(size)
        self._check_room(*sides)
        return sides

    def _check_room(self, height, width):
        if min(height, width) < self._window:
            error = InputError(
                f"OverFeat looks at windows of {self._window}x{self._window} pixels, and an image "
                f"of {height}x{width} has no room for one."
            )
            error._keras_call_info_injected = True  # else Keras writes the image's numbers below it
            raise error

    @property
    def default_boxes(self):
        """(h * w, 4) NumPy: the windows in an input of `image_size`, xyxy pixels."""
        rows, columns = (self.layout.output_side(s, fine=self.fine) for s in self.image_size)
        return ops.convert_to_numpy(self._windows(rows, columns))

    def _windows(self, rows, columns):
        return window_boxes(rows, columns, step=self.step, side=self.layout.window)

    def call(self, inputs, *args, **kwargs):
        """The raw outputs."""
        height, width = inputs.shape[1:3]
        if height is not None and width is not None:
            self._check_room(height, width)
        return super().call(inputs, *args, **kwargs)

    # -------------------------------------------------------------------- targets

    def assign(self, targets, inputs=None):
        """What each window is about.

        Args:
            targets: {"boxes": (B, G, 4) pixels of the network input, "labels": (B, G)}.
            inputs: (B, H, W, 3), the batch's images; None: as large as `image_size`.

        Returns:
            {"classes": (B, h, w) int32, 0..K-1, K for background, -1 for neither; "boxes":
            (B, h, w, 4) the object's edges relative to the window, 0 where there is none;
            "order": (B, h, w) float32, random numbers that negatives are drawn by}.
        """
        height, width = self.image_size if inputs is None else inputs.shape[1:3]
        if None in (height, width):
            height, width = ops.shape(inputs)[1:3]
        else:
            self._check_room(height, width)
        rows, columns = (_along(self.layout, side, self.fine) for side in (height, width))
        windows = self._windows(rows, columns)
        boxes, labels = ops.cast(targets["boxes"], "float32"), ops.cast(targets["labels"], "int32")
        if not boxes.shape[1]:  # none or not known: a padded row, so that there is one to look at
            boxes = ops.pad(boxes, ((0, 0), (0, 1), (0, 0)))
            labels = ops.pad(labels, ((0, 0), (0, 1)), constant_values=-1)
        given = self._given()
        owner, near = objects_of_windows(
            windows,
            boxes,
            labels,
            smallest=given["smallest"] * self.layout.window,
            part=given["part"],
        )
        positive = owner >= 0
        row = ops.maximum(owner, 0)
        label = ops.take_along_axis(labels, row, axis=1)
        edges = ops.take_along_axis(boxes, ops.expand_dims(row, -1), axis=1)
        edges = (edges - windows) / self.layout.window
        classes = ops.where(positive, label, ops.where(near, -1, self.num_classes))
        shape = (-1, rows, columns)
        classes = ops.reshape(classes, shape)
        return {
            "classes": classes,
            "boxes": ops.reshape(ops.where(ops.expand_dims(positive, -1), edges, 0.0), (*shape, 4)),
            "order": keras.random.uniform(ops.shape(classes), seed=self._draw),
        }

    # -------------------------------------------------------------------- loss

    def loss_terms(self, outputs, assigned):
        """Cross-entropy over objects' windows and chosen negatives, L2 over objects' windows.

        Each a mean over the windows of the batch that it looks at.
        """
        terms = {}
        classes = assigned["classes"]
        positive = (classes >= 0) & (classes < self.num_classes)
        if self.task == "detection":
            terms["classes"] = self._class_loss(outputs, assigned, positive)
        boxes = ops.cast(outputs["boxes"], "float32")
        if self._given()["boxes_per_class"]:
            own = ops.where(positive, classes, 0)[..., None, None]
            boxes = ops.take_along_axis(boxes, own, axis=3)[..., 0, :]
        # Both branches stay finite: what no window is about must not reach the gradient.
        error = ops.where(ops.expand_dims(positive, -1), boxes - assigned["boxes"], 0.0)
        count = ops.maximum(ops.sum(ops.cast(positive, "float32")), 1.0)
        weight = self._given()["box_weight"]
        terms["boxes"] = weight * ops.sum(ops.square(error)) / 2 / count
        return terms

    def _class_loss(self, outputs, assigned, positive):
        logits = self._logits(outputs)  # (B, h, w, K + 1)
        classes, given = assigned["classes"], self._given()
        offence = ops.max(ops.softmax(ops.stop_gradient(logits), axis=-1)[..., :-1], axis=-1)
        flat = (ops.shape(classes)[0], -1)
        negative = mined_negatives(
            ops.reshape(classes == self.num_classes, flat),
            ops.reshape(offence, flat),
            ops.reshape(assigned["order"], flat),
            worst=given["worst_negatives"],
            random=given["random_negatives"],
        )
        chosen = positive | ops.reshape(negative, ops.shape(classes))
        own = ops.expand_dims(ops.maximum(classes, 0), -1)
        cross_entropy = ops.logsumexp(logits, axis=-1)
        cross_entropy -= ops.take_along_axis(logits, own, axis=-1)[..., 0]
        count = ops.maximum(ops.sum(ops.cast(chosen, "float32")), 1.0)
        # A NaN of the last layer shows even where nothing was chosen.
        unread = 0.0 * ops.sum(offence)
        return ops.sum(ops.where(chosen, cross_entropy, 0.0)) / count + unread

    def _logits(self, outputs):
        """(B, h, w, K), or (B, h, w, K + 1) with background last."""
        parts = [outputs["classes"], *([outputs["background"]] if "background" in outputs else [])]
        return ops.concatenate([ops.cast(part, "float32") for part in parts], axis=-1)

    # -------------------------------------------------------------------- decoding one scale

    def probabilities(self, outputs):
        """(B, h, w, K) of the classes at each window, background among the others of the softmax."""
        return ops.softmax(self._logits(outputs), axis=-1)[..., : self.num_classes]

    def boxes(self, outputs):
        """(B, h, w, 4) or (B, h, w, K, 4): each window's box, xyxy pixels of the network input.

        Not cut at the input's edges; edges that come the wrong way round change places.
        """
        edges = ops.cast(outputs["boxes"], "float32")
        rows, columns = ops.shape(edges)[1:3]
        windows = ops.reshape(self._windows(rows, columns), (1, rows, columns, 4))
        if self._given()["boxes_per_class"]:
            windows = ops.expand_dims(windows, 3)
        edges = windows + edges * self.layout.window
        first, last = edges[..., :2], edges[..., 2:]
        return ops.concatenate([ops.minimum(first, last), ops.maximum(first, last)], axis=-1)

    def every_window(self, outputs):
        """(B, n, K) probabilities and (B, n, 1 or K, 4) boxes, window by window."""
        probabilities, boxes = self.probabilities(outputs), self.boxes(outputs)
        rows, columns = ops.shape(probabilities)[1:3]
        regressors = self.num_classes if self._given()["boxes_per_class"] else 1
        return (
            ops.reshape(probabilities, (-1, rows * columns, self.num_classes)),
            ops.reshape(boxes, (-1, rows * columns, regressors, 4)),
        )

    def candidates(self, outputs) -> Candidates:
        """The boxes of all windows for each of the image's best classes at this scale.

        Args:
            outputs: the model's raw outputs.

        Source: sec. 4.3, steps (a) and (b).
        """
        return candidates_of(
            *self.every_window(outputs), classes=self._given()["classes_per_scale"]
        )

    def combined(
        self,
        candidates,
        *,
        score_threshold=None,
        iou_threshold=None,
        max_detections=None,
        merge=None,
        candidate_score=None,
    ) -> Detections:
        """Candidates, of one scale or of several together, to detections.

        Args:
            candidates: of all scales, in pixels of one size of the image.
            score_threshold: least score; None for 0.3.
            iou_threshold: the overlap beyond which boxes suppress each other, None for 0.3, or
                merge, None for the model's `merge_overlap`.
            max_detections: rows of the result; None for 100.
            merge: "greedy" or "nms"; None: the model's.
            candidate_score: least probability of a box that is to be merged; None: the model's.
        """
        given = self._given()
        if candidate_score is None:
            candidate_score = given["candidate_score"]
        merge = _checked_merge(self.merge if merge is None else merge)
        score_threshold = _LEAST_SCORE if score_threshold is None else score_threshold
        if iou_threshold is None:
            iou_threshold = given["merge_overlap"] if merge == "greedy" else MERGES[merge]
        iou_threshold = arguments.share("iou_threshold", iou_threshold)
        max_detections = _MOST if max_detections is None else max_detections
        kept = {"score_threshold": score_threshold, "max_detections": max_detections}
        if merge == "nms":
            return labelled_non_max_suppression(*candidates, iou_threshold=iou_threshold, **kept)
        overlap, most = given["suppress_overlap"], given["max_candidates"]
        found = greedy_merge(
            *candidates,
            threshold=threshold_of(iou_threshold),
            candidate_score=candidate_score,
            score_threshold=score_threshold,
            max_candidates=most,
            max_detections=max_detections if overlap is None else most,
        )
        if overlap is None:
            return found
        kept["score_threshold"] = max(score_threshold, 0.0)  # rows past the count have 0
        return labelled_non_max_suppression(*found[:3], iou_threshold=overlap, **kept)

    def decode(
        self,
        outputs,
        *,
        image_size=None,
        score_threshold=None,
        iou_threshold=None,
        max_detections=None,
        merge=None,
    ) -> Detections:
        """One scale's raw outputs to detections in pixels of the network input.

        Args:
            outputs: the model's raw outputs.
            image_size: (height, width) of the input that gave them, where boxes are cut; None:
                the model's.
            score_threshold: as for `combined`.
            iou_threshold: as for `combined`.
            max_detections: as for `combined`.
            merge: as for `combined`.
        """
        height, width = self.image_size if image_size is None else image_size
        found = self.combined(
            self.candidates(outputs),
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            merge=merge,
        )
        return found._replace(boxes=box_ops.clip(found.boxes, height, width))

    # -------------------------------------------------------------------- detection over scales

    def detect(
        self,
        images,
        *,
        score_threshold=None,
        iou_threshold=None,
        max_detections=None,
        regions=None,
        scales=None,
        merge=None,
    ) -> list[Detections]:
        """Finds objects in photos of any size, at several scales.

        Args:
            images: as for every detector.
            score_threshold: least score; None for 0.3. A merged box's is S / (1 + S) of the sum S
                of its windows' probabilities.
            iou_threshold: the overlap beyond which boxes merge, None for the model's
                `merge_overlap`, or suppress each other, None for 0.3.
            max_detections: most detections an image; None for 100.
            regions: None, as for every detector that looks at whole images.
            scales: (height, width) sizes to look at; None: the model's `scales`.
            merge: "greedy" (sec. 4.3) or "nms"; None: the model's.

        Returns:
            One `Detections` an image, as for every detector.

        Raises:
            InputError: if something is not an image, a scale is smaller than the window, a number
                makes no sense, there are regions, or it wants more memory than there is.
        """
        self._refuse(regions)
        images = [read_image(image, where) for where, image in each_image(images)]
        scales = self._checked_scales(scales)
        settings = {
            **arguments.thresholds(score_threshold, iou_threshold, max_detections),
            "merge": _checked_merge(self.merge if merge is None else merge),
        }
        most = self._memory.images_at_once(scales, _BATCH)
        found: list[Detections] = []
        while len(found) < len(images):
            sizes = sizes_for(scales, *images[len(found)].shape[:2])
            alike = []
            for image in images[len(found) : len(found) + most]:
                if sizes_for(scales, *image.shape[:2]) != sizes:
                    break
                alike.append(image)
            found += self._found(alike, sizes, settings, most if len(images) > most else 0)
        return found

    def _found(self, images, sizes, settings, rows):
        """Detections in images that are looked at in the same sizes; `rows`: of a padded batch."""
        padded = map(
            ops.convert_to_numpy, self._combined(self._every(images, sizes, rows), **settings)
        )
        found = []
        for image, *one in zip(images, *padded, strict=False):
            found.append(self._named(Detections(*one), image.shape))
        return found

    def _every(self, images, sizes, rows=0):
        """Candidates of all sizes, in the photos' pixels."""
        parts = []
        for size in sizes:
            batch = np.stack([warp(image, size) for image in images])
            batch = np.pad(batch, [(0, max(rows - len(images), 0)), (0, 0), (0, 0), (0, 0)])
            boxes, scores, labels = map(
                ops.convert_to_numpy, self._run(self.candidates, size)(batch)
            )
            scale = np.ones((len(batch), 1, 4), "float32")
            for i, image in enumerate(images):
                scale[i] = _to_source(size, image.shape[:2])
            parts.append(Candidates(boxes * scale, scores, labels))
        return Candidates(*(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))

    def _named(self, padded, shape):
        """Trims one image's rows and cuts its boxes at the image's edges."""
        count = int(padded.count)
        height, width = shape[:2]
        boxes = np.clip(padded.boxes[:count], 0, [width, height, width, height])
        boxes = boxes.astype("float32")
        found = Detections(boxes, padded.scores[:count], padded.labels[:count], count)
        found.names = [self.class_names[label] for label in found.labels]
        return found

    def _run(self, read, size):
        """Network and `read` of its outputs compiled together for images of one size."""
        functions = self._detect_functions.by_use
        use = (read.__name__, size)
        if use not in functions:
            functions[use] = compiled(self, read, (None, *size, 3))
        return functions[use]

    def _combined(self, candidates, **settings):
        """`combined`, compiled for this number of candidates and these settings."""
        functions = self._detect_functions.by_use
        use = ("combined", candidates.scores.shape[1], *sorted(settings.items()))
        if use not in functions:
            shape = (None, use[1])
            functions[use] = compiled_alone(
                lambda *arrays: self.combined(Candidates(*arrays), **settings),
                ((*shape, 4), "float32"),
                (shape, "float32"),
                (shape, "int32"),
            )
        return functions[use](*candidates)

    def fit(self, *args, **kwargs):
        """As every detector's; refused where there is no memory for one image.

        Raises:
            InputError: if there is not.
        """
        self._memory.require([self.image_size])
        return super().fit(*args, **kwargs)

    # -------------------------------------------------------------------- localisation

    def localise(self, images, *, top=5, scales=None, merge=None) -> list[Detections]:
        """Says what photos show, each guess with a box: ILSVRC's localisation.

        The classes are those that `classify` votes for, without mirror images. Of each the boxes of
        all windows at all scales are merged, and the merged box with the highest sum of
        probabilities is the guess.

        Args:
            images: as for `detect`.
            top: how many guesses.
            scales: (height, width) sizes to look at; None: the model's `scales`.
            merge: "greedy", or "nms" for the box of the most probable window; None: the model's.

        Returns:
            One `Detections` an image, of `top` rows or as many as there are classes: the most
            probable class first, scores as voted, boxes in the image's own pixels.

        Raises:
            InputError: as `detect`.

        Source: sec. 4.3.
        """
        top = min(arguments.whole_number("top", top), self.num_classes)
        scales = self._checked_scales(scales)
        self._memory.require(scales)
        merge = _checked_merge(self.merge if merge is None else merge)
        images = [read_image(image, where) for where, image in each_image(images)]
        return [self._localised(image, scales, top, merge) for image in images]

    def _localised(self, image, scales, top, merge):
        probabilities, boxes = [], []
        for size in sizes_for(scales, *image.shape[:2]):
            found = self._run(self.every_window, size)(warp(image, size)[None])
            of_scale, places = (ops.convert_to_numpy(array)[0] for array in found)
            probabilities.append(of_scale)  # (n, K)
            boxes.append(places * _to_source(size, image.shape[:2]))  # (n, 1 or K, 4)
        votes = np.mean([of_scale.max(axis=0) for of_scale in probabilities], axis=0)
        labels = np.argsort(-votes, kind="stable")[:top].astype("int32")
        scores = np.concatenate(probabilities)[:, labels].T
        every = np.concatenate(boxes)
        every = every[:, labels if every.shape[1] > 1 else np.zeros_like(labels)].transpose(1, 0, 2)
        # A class stands where an image does otherwise: none takes another's place.
        merged = self._combined(
            Candidates(np.ascontiguousarray(every), scores, np.zeros_like(scores, "int32")),
            score_threshold=0.0,
            max_detections=1,
            merge=merge,
            candidate_score=0.0,
        )
        rows, counts = (ops.convert_to_numpy(array) for array in (merged[0], merged[3]))
        height, width = image.shape[:2]
        # A class whose probability is 0 everywhere has no place of its own.
        rows = np.where(counts[:, None] > 0, rows[:, 0], [0, 0, width, height])
        return self._named(Detections(rows, votes[labels], labels, len(labels)), image.shape)

    # -------------------------------------------------------------------- classification

    def classify(
        self, images, *, scales=None, flips=True, top=5, views="scales"
    ) -> list[Classification]:
        """Says what photos show, by a vote of many windows.

        Args:
            images: as for `detect`.
            scales: (height, width) sizes to look at; None: the model's `scales`.
            flips: whether mirror images vote as well.
            top: how many classes, the most probable first.
            views: "scales" (`kerasdet.voting.vote_scales`), or "ten": corners, centre and their
                mirror images (`kerasdet.voting.vote_views`).

        Returns:
            One `Classification` an image.

        Raises:
            InputError: as `detect`.
        """
        found = []
        for where, image in each_image(images):
            votes = self.vote(read_image(image, where), views, scales=scales, flips=flips)
            found.append(voting.ranked(votes, self.class_names, top))
        return found

    def vote(self, image, views="scales", *, scales=None, flips=True) -> np.ndarray:
        """The scores (K,) of one image (H, W, 3), 0..255; arguments and errors as of `classify`."""
        if views not in ("scales", "ten"):
            raise InputError(f"views wants scales or ten, not {views!r}.")
        if views == "ten":
            self._vote_memory.require([(self.layout.window, self.layout.window)], images=10)
            return voting.vote_views(self._seen, image, self.layout.window)
        scales = self._checked_scales(scales)
        self._vote_memory.require(scales, 2 if flips else 1)
        sizes = sizes_for(scales, *image.shape[:2])
        if image.shape[0] > image.shape[1]:  # the vote will swap them
            sizes = tuple(size[::-1] for size in sizes)
        return voting.vote_scales(self._seen, image, sizes, flip=flips)

    def _seen(self, images):
        """(B, h, w, K) probabilities of images (B, H, W, 3)."""
        return ops.convert_to_numpy(self._run(self.probabilities, images.shape[1:3])(images))

    # -------------------------------------------------------------------- saving

    def _arguments(self):
        return {
            **self._given(),
            "task": self.task,
            "fine": self.fine,
            "scales": self._scales,
            "merge": self.merge,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds the same network; weights are loaded apart."""
        model = super().from_config(config, custom_objects)
        if "frozen" in config:  # some may have been thawed since the task was set
            for layer in model.layers:
                layer.trainable = layer.name not in config["frozen"]
        return model


# ------------------------------------------------------------------------ helpers


def _along(layout, side, fine):
    """`Layout.output_side`, of a tensor as well, for a side from the window on."""
    if isinstance(side, int):
        return layout.output_side(side, fine=fine)
    for layer in layout.convolutions:
        if layer.kernel > 3:
            side = (side - layer.kernel) // layer.stride + 1
        side //= layer.pool
    return side - layout.shrinkage if fine else side // layout.last_pool - layout.kernel + 1


def _default_size(window):
    """The paper's third scale, in proportion where the window is not one of the release's."""
    height, width = networks.SCALES[2]
    if window in _PAPERS_WINDOWS:
        return height, width
    return round(height * window / max(_PAPERS_WINDOWS)), round(
        width * window / max(_PAPERS_WINDOWS)
    )


def _to_source(size, source):
    """What brings xyxy from a network input of `size` to a photo of `source`, (height, width) both."""
    down, across = source[0] / size[0], source[1] / size[1]
    return np.array([across, down, across, down], "float32")


def _checked_merge(merge):
    if merge not in MERGES:
        raise InputError(f"merge wants one of {', '.join(MERGES)}, not {merge!r}.")
    return merge


def _check_numbers(config):
    """Those that the layers do not check themselves."""
    for channels in config["box_hidden"]:
        arguments.whole_number("box_hidden", channels)
    for name in ("classes_per_scale", "max_candidates"):
        arguments.whole_number(name, config[name])
    for name in ("worst_negatives", "random_negatives"):
        arguments.whole_number(name, config[name], least=0)
    for name in ("candidate_score", "merge_overlap", "part"):
        arguments.share(name, config[name])
    if config["suppress_overlap"] is not None:
        arguments.share("suppress_overlap", config["suppress_overlap"])
    for name in ("smallest", "box_weight"):
        arguments.number(name, config[name])
