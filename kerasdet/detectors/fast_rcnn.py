"""Fast R-CNN: one pass of the convolutions over the image, then regions pooled from their map.

Girshick: Fast R-CNN, ICCV 2015, arXiv:1504.08083; release rbgirshick/fast-rcnn.

The file, top to bottom: the networks, sampling and targets, loss, decoding, detecting, compressing,
saving, helpers. What is done to regions before they come here is `kerasdet.region_proposals`.

Differences from the paper and the release:

- RGB in, with the mean in RGB order; the released weights' first kernel is flipped on loading.
- Boxes have continuous edges: a region of the release that ends in pixel 99 ends here at 100. The
  overlaps are the same, since the release adds 1 to widths there; a region's last cell, and offsets,
  which the release takes without that 1, differ by a fraction of a pixel.
- `bbox_pred` has four rows for each class; the release's has four for background as well, which
  nothing trains or reads.
- Its outputs are normalised, and the layer "boxes" after it makes raw offsets of them with
  statistics that are saved among the weights; the release multiplies those into `bbox_pred` when it
  writes a snapshot. The statistics are fixed ones until `adapt_targets` computes the data's.
- Biases learn at the kernels' rate and do not decay; the release's learn at twice that, and the
  paper's decay.
- Images of a batch are drawn independently; each gives up to 64 regions. Drawn without a seed, no
  two epochs see the same regions, as in the release.
- Where regions are no better than 0.1 to any object, nothing of an image is learned from (as
  written in the paper); an image without objects counts as such.
- Log sizes are cut at ln(1000/16) in decoding; the release has no cut.
- Scores above 0.05 count, as in the author's later py-faster-rcnn; the release has a threshold for
  each class that lets 40 detections an image through, over a whole test set.
- A photo is resized to whole pixels, and its boxes by the same ratio; the release's by the
  unrounded one.
- The five sizes of multi-scale detection go through the network one after the other, each on a
  canvas of its own; the release puts all on one.
- In training every image lies on a canvas of one fixed size, filled with the mean; the release pads
  the images of a batch to the largest of them.
- Training in several sizes, the longer side is at most 5/3 of the short one, 2000 pixels at 1200; in
  the release 2000 at all sizes.
- Any Keras model can stand in VGG's place.
"""

import copy
import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from kerasdet import arguments, region_proposals
from kerasdet import boxes as box_ops
from kerasdet.backbones.caffenet import caffenet
from kerasdet.backbones.tapped import input_sides, tapped
from kerasdet.backbones.vgg16 import caffe_xavier, vgg16
from kerasdet.backbones.vgg_m_1024 import vgg_m_1024
from kerasdet.classes import named_classes
from kerasdet.compiling import compiled
from kerasdet.detectors.detector import Detector
from kerasdet.errors import InputError
from kerasdet.images import each_image, placement, read_image, warp
from kerasdet.layers.roi_pooling import ROIPooling
from kerasdet.layers.target_scale import TargetScale
from kerasdet.losses import MultiTaskLoss, multi_task
from kerasdet.low_rank import factors
from kerasdet.matching import sample_regions
from kerasdet.suppression import Detections, labelled_non_max_suppression

# What the release subtracts (lib/fast_rcnn/config.py, PIXEL_MEANS), in RGB order.
PIXEL_MEAN = (122.7717, 115.9465, 102.9801)

SHORT_SIDES = (480, 576, 688, 864, 1200)
"""The five sizes of multi-scale detection (paper sec. 5.2), for `detect(short_sides=...)`."""

# The longest side at those (the paper's sec. 5.2: 2000 pixels).
_LONGEST = 2000

# Candidates of a class that go into suppression. The release takes 100 of 2000 regions; in crowds
# these are all of one object.
_MAX_PER_CLASS = 1000

_STRIDE = 16  # of all three networks


class _Network(NamedTuple):
    """A network of the paper (models/*/train.prototxt).

    Attributes:
        trunk: from an image to maps by name.
        feature_layer: the map that regions are pooled from.
        pool_size: bins a side.
        hidden: widths of fc6 and fc7.
        train_from: the layer from which on the paper fine-tunes (sec. 4.5).
    """

    trunk: Any
    feature_layer: str
    pool_size: int
    hidden: tuple[int, ...]
    train_from: str


_NETWORKS = {
    "vgg16": _Network(vgg16, "conv5_3", 7, (4096, 4096), "conv3_1"),
    "vgg_m_1024": _Network(vgg_m_1024, "conv5", 6, (4096, 1024), "conv2"),
    "caffenet": _Network(caffenet, "conv5", 6, (4096, 4096), "conv2"),
}


@keras.saving.register_keras_serializable(package="kerasdet")
class FastRCNN(Detector):
    """Fast R-CNN on the paper's three networks, or on any Keras model with one feature layer.

    Args:
        num_classes: K, background not counted; None: as many as `class_names`.
        class_names: names of the labels; None: "class 0", "class 1", ...
        backbone: "vgg16" (the paper's L), "vgg_m_1024" (M), "caffenet" (S), or a functional Keras
            model, which is called on the normalised image.
        feature_layer: name of a model's layer that regions are pooled from.
        pool_size: bins along each side of a region; None: the release's, 7 for a model.
        hidden: widths of fc6, fc7, ...; None: the release's, (1024, 1024) for a model.
        dropout: share of each hidden layer that is dropped in training.
        image_size: (height, width), or one side, that a photo's sides stay within; None: 1000, or
            what a model was built for.
        short_side: what a photo's shorter side becomes, if `image_size` lets it. None: 600, or
            the shorter side of `image_size` where that is given.
        mean: subtracted from the RGB input; None: the release's, 127.5 for a model.
        scale: multiplied in after that; None: 1, 1/127.5 for a model.
        target_means: of the offsets that are learned, 4 numbers or (K, 4).
        target_deviations: likewise their standard deviations.
        sampling: {name: number} over the arguments of `kerasdet.matching.sample_regions`, as
            {"background_iou": (0.0, 0.5)}.
        train_from: name of the first layer that is trained; those before it are frozen. "paper":
            conv3_1 of VGG16, conv2 of the others. "fc6": none of the convolutions, as SPPnet's
            training in stages (paper sec. 4.5). None: all are trained.
        short_sides: sizes that `detect` looks at photos in, such as `SHORT_SIDES`; None: one size,
            `short_side`.
        ranks: {"fc6": 1024, "fc7": 256}: hidden layers made of two of this width between; see
            `compress`.
        seed: of the draw of regions; None: from Keras' own.
        **kwargs: what `keras.Model` takes.

    Call:
        inputs: {"images": (B, H, W, 3) RGB, 0..255, "regions": (B, R, 4) xyxy pixels of these
            images, padded with -1}.
        returns: {"classes": (B, R, K+1) logits, background first; "boxes": (B, R, K, 4) offsets from
            the region for each class, tx ty tw th}; float32.

    Attributes:
        stride: pixels of the image for one cell of the map.
        short_side: see above.
        mean: what stands around a photo smaller than its canvas.
        train_from: may be set.
        short_sides: likewise, and is saved with the model.
        propose: function from an image (H, W, 3) to regions (R, 4) in its pixels, for `detect`
            without regions; may be set. Selective Search at first.

    Raises:
        InputError: if the classes, sizes or layers do not fit together.
    """

    loss_names = MultiTaskLoss._fields
    resize = "corner"
    takes_regions = True

    def __init__(
        self,
        num_classes=None,
        *,
        class_names=None,
        backbone="vgg16",
        feature_layer=None,
        pool_size=None,
        hidden=None,
        dropout=0.5,
        image_size=None,
        short_side=None,
        mean=None,
        scale=None,
        target_means=(0.0, 0.0, 0.0, 0.0),
        target_deviations=(0.1, 0.1, 0.2, 0.2),
        sampling=None,
        train_from=None,
        short_sides=None,
        ranks=None,
        seed=None,
        **kwargs,
    ):
        class_names = named_classes("Fast R-CNN", num_classes, class_names)
        own = isinstance(backbone, str)
        if own and backbone not in _NETWORKS:
            known = ", ".join(_NETWORKS)
            raise InputError(f"backbone wants {known} or a Keras model, not {backbone!r}.")
        default = _NETWORKS[backbone] if own else _Network(None, "", 7, (1024, 1024), "")
        pool_size = default.pool_size if pool_size is None else pool_size
        hidden = default.hidden if hidden is None else tuple(hidden)
        mean = (PIXEL_MEAN if own else 127.5) if mean is None else mean
        scale = (1.0 if own else 1 / 127.5) if scale is None else scale
        sampling = _checked_sampling(sampling)
        ranks = dict(ranks or {})
        count = len(class_names)

        # ---------------------------------------------------------------- architecture
        height, width = (None, None) if own else input_sides(backbone)
        images = keras.Input((height, width, 3), name="images")
        regions = keras.Input((None, 4), name="regions")
        offset = [-m * scale for m in mean] if isinstance(mean, list | tuple) else -mean * scale
        x = layers.Rescaling(scale, offset, name="normalize")(images)
        if own:
            x, stride = default.trunk(x)[default.feature_layer], _STRIDE
        else:
            x, stride = tapped(backbone, feature_layer, x)
        x = ROIPooling(pool_size, 1 / stride, name="roi_pool5")(x, regions)  # (B, R, p, p, C)
        x = layers.Reshape((-1, pool_size**2 * x.shape[-1]), name="flatten")(x)
        for number, units in enumerate(hidden, start=6):
            x = _hidden(x, units, f"fc{number}", ranks.get(f"fc{number}"))
            x = layers.Dropout(dropout, name=f"drop{number}")(x)
        logits = _head(x, count + 1, 0.01, "cls_score")  # sec. 2.3
        offsets = layers.Reshape((-1, count, 4), name="bbox_pred_by_class")(
            _head(x, 4 * count, 0.001, "bbox_pred")
        )
        outputs = {
            "classes": layers.Activation("linear", dtype="float32", name="classes")(logits),
            "boxes": TargetScale(target_means, target_deviations, name="boxes")(offsets),
        }
        if height is None or width is None:
            given = 1000 if image_size is None else image_size
        else:
            given = (height, width) if image_size is None else image_size
        super().__init__(
            {"images": images, "regions": regions},
            outputs,
            class_names=class_names,
            image_size=given,
            **{"name": "fast_rcnn", **kwargs},
        )
        if self.resize != "corner":
            raise InputError(f"Fast R-CNN resizes photos to a corner, not by {self.resize!r}.")
        unknown = [name for name in ranks if f"{name}_L" not in {each.name for each in self.layers}]
        if unknown:
            raise InputError(f"ranks names {unknown}; the hidden layers begin at fc6: {hidden}.")

        self.stride = stride
        if short_side is None:
            short_side = 600 if own and image_size is None else min(self.image_size)
        self.short_side = short_side
        self.mean, self.scale = mean, scale
        self.pool_size, self.dropout = pool_size, dropout
        self._draw = keras.random.SeedGenerator(seed, name="draw")
        config = {
            "class_names": class_names,
            "backbone": backbone,
            "feature_layer": feature_layer,
            "pool_size": pool_size,
            "hidden": hidden,
            "dropout": dropout,
            "short_side": short_side,
            "mean": mean,
            "scale": scale,
            "target_means": np.asarray(target_means).tolist(),
            "target_deviations": np.asarray(target_deviations).tolist(),
            "sampling": sampling,
            "ranks": ranks,
            "seed": seed,
        }
        # Behind functions: Keras would take a model inside a dict for one of this model's layers.
        self._given = lambda: config
        self._short_sides = None
        self.short_sides = short_sides
        self._train_from = None
        if train_from is not None:  # a model may come with layers frozen
            self.train_from = train_from

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of fc6, fc7, ..."""
        return self._given()["hidden"]

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of each hidden layer that was compressed."""
        return dict(self._given()["ranks"])

    @property
    def sampling(self) -> dict:
        """The arguments of `kerasdet.matching.sample_regions`."""
        return dict(self._given()["sampling"])

    @property
    def train_from(self):
        """Name of the first layer that is trained, or None; setting it, "paper" too, freezes those before.

        Set it before `compile`.
        """
        return self._train_from

    @train_from.setter
    def train_from(self, name):
        every = _every_layer(self)
        names = [layer.name for layer in every]
        backbone = self._given()["backbone"]
        if name == "paper" and isinstance(backbone, str):
            name = _NETWORKS[backbone].train_from
        if name is not None and name not in names:
            with_weights = ", ".join(layer.name for layer in every if layer.weights)
            raise InputError(f"train_from wants one of {with_weights}, not {name!r}.")
        first = 0 if name is None else names.index(name)
        for place, layer in enumerate(every):
            layer.trainable = place >= first
        self._train_from = name

    @property
    def short_sides(self) -> tuple[int, ...] | None:
        """Sizes that `detect` looks at photos in, by their short sides; None: `short_side` alone."""
        return self._short_sides

    @short_sides.setter
    def short_sides(self, sides):
        self._short_sides = None if sides is None else self._checked_sides(sides)

    def _checked_sides(self, sides):
        if not self.takes_any_size:
            raise InputError(f"{self.name} was built for images of one size: no short_sides.")
        found = tuple(sides) if isinstance(sides, Iterable) else ()
        if not found or not all(isinstance(side, Integral) and side >= 1 for side in found):
            raise InputError(
                f"short_sides wants sides in whole pixels, as {SHORT_SIDES}, not {sides!r}."
            )
        return tuple(int(side) for side in found)

    # -------------------------------------------------------------------- sampling and targets

    def assign(self, targets, inputs=None):
        """Draws regions, the objects' own boxes among them, and says what each should give.

        Args:
            targets: {"boxes": (B, G, 4) pixels of the network input, "labels": (B, G)}.
            inputs: {"images", "regions"}; the regions of the batch.

        Returns:
            {"regions": (B, S, 4), padded with -1; "classes": (B, S) int32, 1..K, 0 for
            background, -1 where there is none; "boxes": (B, S, 4) normalised offsets, 0 where
            there is no object}, objects first.
        """
        boxes, labels = ops.cast(targets["boxes"], "float32"), ops.cast(targets["labels"], "int32")
        regions = ops.cast(inputs["regions"], "float32")
        boxes = ops.where(ops.expand_dims(labels >= 0, -1), boxes, -1.0)
        regions = ops.concatenate([regions, boxes], axis=1)
        if not boxes.shape[1]:  # none or not known: a padded row, so that there is one to look at
            boxes = ops.pad(boxes, ((0, 0), (0, 1), (0, 0)), constant_values=-1.0)
            labels = ops.pad(labels, ((0, 0), (0, 1)), constant_values=-1)
        order = keras.random.uniform(ops.shape(regions)[:2], seed=self._draw)
        found = sample_regions(regions, boxes, labels, order, **self.sampling)
        owner = ops.maximum(found.owner, 0)
        label = ops.where(found.owner >= 0, ops.take_along_axis(labels, owner, axis=1), -1)
        regions = ops.take_along_axis(regions, ops.expand_dims(found.index, -1), axis=1)
        regions = ops.where(ops.expand_dims(found.taken, -1), regions, -1.0)
        object_ = ops.take_along_axis(boxes, ops.expand_dims(owner, -1), axis=1)
        is_object = ops.expand_dims(label >= 0, -1)
        # Both branches stay finite.
        whole = ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])
        offsets = region_proposals.offsets(
            ops.where(is_object, object_, whole), ops.where(is_object, regions, whole)
        )
        scale = self.get_layer("boxes")
        of_class = ops.maximum(label, 0)
        means, deviations = (ops.take(v, of_class, axis=0) for v in (scale.means, scale.deviations))
        return {
            "regions": regions,
            "classes": ops.where(found.taken, label + 1, -1),
            "boxes": ops.where(is_object, (offsets - means) / deviations, 0.0),
        }

    def sampled_inputs(self, inputs, assigned):
        """The images with the regions that were drawn, in place of all."""
        return {"images": inputs["images"], "regions": assigned["regions"]}

    def adapt_targets(self, batches) -> None:
        """Takes the means and deviations of the targets, class by class, from the training data.

        What the network gives stays as it was: `bbox_pred` is changed with them. A class without
        regions keeps what it had.

        Args:
            batches: `(inputs, targets)` as for `fit`, to be iterated over once.

        Source: lib/roi_data_layer/roidb.py, add_bbox_regression_targets.
        """
        scale = self.get_layer("boxes")
        found = region_proposals.target_statistics(
            ((inputs["regions"], targets) for inputs, targets in batches),
            self.num_classes,
            foreground_iou=self.sampling["foreground_iou"],
        )
        known = (found.regions > 0)[:, None] & (
            found.deviations > 1e-6
        )  # else regions were objects
        means, deviations = (
            np.where(known, new, ops.convert_to_numpy(old))
            for new, old in ((found.means, scale.means), (found.deviations, scale.deviations))
        )
        self.set_target_statistics(means, deviations)

    def set_target_statistics(self, means, deviations) -> None:
        """Sets what targets are normalised by; `bbox_pred` is changed so that the outputs are not.

        Args:
            means: (K, 4), or 4 numbers for all classes.
            deviations: likewise, above 0.

        Raises:
            InputError: for other shapes, or numbers that are not finite or not above 0.
        """
        self.get_layer("boxes").renormalize(self.get_layer("bbox_pred"), means, deviations)

    # -------------------------------------------------------------------- loss

    def loss_terms(self, outputs, assigned):
        """Softmax and smooth L1, each a mean over the batch's regions (eq. 1)."""
        terms = multi_task(
            outputs["classes"],
            self.get_layer("boxes").normalized(outputs["boxes"]),
            assigned["classes"],
            assigned["boxes"],
        )
        return terms._asdict()

    # -------------------------------------------------------------------- decode

    def decode(
        self,
        outputs,
        *,
        regions=None,
        image_size=None,
        score_threshold=None,
        iou_threshold=None,
        max_detections=None,
    ) -> Detections:
        """Softmax, each class's box of each region, per-class suppression; 0.05, 0.3 and 100.

        Args:
            outputs: the model's raw outputs.
            regions: (B, R, 4) that gave them. They may be in pixels of another size of the same
                images: the boxes come in theirs.
            image_size: (height, width) that boxes are cut at, in the regions' pixels; None: the
                model's.
            score_threshold: least score.
            iou_threshold: overlap that suppresses (the release's 0.3).
            max_detections: rows of the result.
        """
        if regions is None:
            raise InputError(
                "Fast R-CNN's outputs are offsets from regions: pass decode(regions=)."
            )
        regions = ops.cast(regions, "float32")
        scores = ops.softmax(ops.cast(outputs["classes"], "float32"), axis=-1)[..., 1:]
        # A padded row, or one of a graph that does not know how many there are.
        scores = ops.where(ops.expand_dims(box_ops.area(regions) > 0, -1), scores, 0.0)
        offsets = ops.cast(outputs["boxes"], "float32")
        boxes = box_ops.decode(offsets, ops.expand_dims(regions, 2), variances=(1.0,) * 4)
        height, width = self.image_size if image_size is None else image_size
        boxes = ops.transpose(box_ops.clip(boxes, height, width), (0, 2, 1, 3))  # (B, K, R, 4)
        scores = ops.transpose(scores, (0, 2, 1))
        most = _MAX_PER_CLASS if scores.shape[2] is None else min(scores.shape[2], _MAX_PER_CLASS)
        if scores.shape[2] is None:
            scores = ops.pad(scores, ((0, 0), (0, 0), (0, most)))
            boxes = ops.pad(boxes, ((0, 0), (0, 0), (0, most), (0, 0)))
        scores, best = ops.top_k(scores, most)  # (B, K, most)
        boxes = ops.take_along_axis(boxes, ops.expand_dims(best, -1), axis=2)
        total = self.num_classes * most
        label = ops.repeat(ops.arange(self.num_classes, dtype="int32"), most)
        labels = ops.zeros_like(best, dtype="int32") + ops.reshape(label, (1, -1, most))
        return labelled_non_max_suppression(
            ops.reshape(boxes, (-1, total, 4)),
            ops.reshape(scores, (-1, total)),
            ops.reshape(labels, (-1, total)),
            score_threshold=0.05 if score_threshold is None else score_threshold,
            iou_threshold=0.3 if iou_threshold is None else iou_threshold,
            max_detections=100 if max_detections is None else max_detections,
        )

    # -------------------------------------------------------------------- use

    def propose(self, image) -> np.ndarray:
        """Selective Search's regions (R, 4) of an image (H, W, 3), in its pixels."""
        from kerasdet.data.proposals import selective_search

        return selective_search(image)

    def detect(
        self,
        images,
        regions=None,
        *,
        score_threshold=None,
        iou_threshold=None,
        max_detections=None,
        short_sides=None,
    ) -> list[Detections]:
        """Finds objects in photos of any size, among regions given or proposed.

        Regions are cut at the image's edges; rows of four -1 are left out; of those that fall on
        the same cells of the map the first alone is looked at, as in the release.

        Args:
            images: as for every detector.
            regions: xyxy in each image's own pixels: (R, 4) for one image, else a list of such
                arrays, one for each. None, or None in the list: what `propose` finds.
            score_threshold: least score; None for 0.05.
            iou_threshold: overlap that suppresses; None for 0.3.
            max_detections: most detections an image; None for 100.
            short_sides: sizes for multi-scale detection, such as `SHORT_SIDES`: each region is
                looked at in the size at which it is nearest to 224x224 pixels. None: the model's
                `short_sides`.

        Returns:
            One `Detections` an image, as for every detector.

        Raises:
            InputError: if something is not an image, a number makes no sense, or a region is none:
                reversed, empty, outside, not finite, or in shares of the image in place of pixels.
        """
        images = [(where, read_image(image, where)) for where, image in each_image(images)]
        sides = self._sizes(short_sides)
        thresholds = arguments.thresholds(score_threshold, iou_threshold, max_detections)
        given = region_proposals.of_each_image(regions, len(images))
        found = []
        for (where, image), own in zip(images, given, strict=True):
            if own is None:
                own = self.propose(image)
            own = region_proposals.checked_regions(own, image.shape[:2], f"the regions of {where}")
            outputs, own = self._looked_at(image, own, sides)
            found.append(self._read(image, outputs, own, thresholds))
        return found

    def _sizes(self, short_sides):
        """Short sides of the sizes an image is looked at in, and the longest side."""
        sides = self.short_sides if short_sides is None else self._checked_sides(short_sides)
        if sides is None:
            return (self.short_side,), self.image_size
        return sides, (_LONGEST, _LONGEST)

    def _looked_at(self, image, regions, sides):
        """Raw outputs by name, each (n, ...), and the n distinct regions in the image's pixels."""
        short_sides, size = sides
        places = [
            placement(image.shape[:2], size, "corner", short_side=side) for side in short_sides
        ]
        level = region_proposals.best_level(
            regions, [math.sqrt(p.scale[0] * p.scale[1]) for p in places]
        )
        parts = []
        for number, place in enumerate(places):
            here = regions[level == number]
            rows = region_proposals.distinct(
                here * np.array(place.scale, "float32"), 1 / self.stride
            )
            if len(rows):
                parts.append((self._raw(image, here[rows], place), here[rows]))
        if not parts:
            return {}, regions
        names = parts[0][0].keys()
        outputs = {name: np.concatenate([raw[name] for raw, _ in parts]) for name in names}
        return outputs, np.concatenate([here for _, here in parts])

    def _raw(self, image, regions, place):
        """The network's outputs on one size of an image."""
        size = (place.height, place.width) if self.takes_any_size else self.image_size
        canvas = np.empty((*size, 3), "float32")
        canvas[:] = self.mean
        canvas[: place.height, : place.width] = warp(image, (place.height, place.width))
        rows = (regions * np.array(place.scale)).astype("float32")
        count = len(rows)
        if keras.backend.backend() != "tensorflow":  # which compiles once for any number
            rows = region_proposals.padded(rows, region_proposals.padded_count(count))
        functions = self._detect_functions.by_use
        if "network" not in functions:
            sides = (None, None) if self.takes_any_size else self.image_size
            shapes = {"images": (1, *sides, 3), "regions": (1, None, 4)}
            functions["network"] = compiled(self, lambda outputs: outputs, shapes)
        outputs = functions["network"]({"images": canvas[None], "regions": rows[None]})
        return {name: ops.convert_to_numpy(v)[0, :count] for name, v in outputs.items()}

    def _read(self, image, outputs, regions, thresholds):
        """Detections in an image from the outputs for its regions."""
        height, width = image.shape[:2]
        count = 0
        arrays = [np.zeros((0, 4)), np.zeros(0), np.zeros(0)]
        if len(regions):
            rows = region_proposals.padded_count(len(regions))
            inputs = {
                name: region_proposals.padded(v, rows, 0.0)[None] for name, v in outputs.items()
            }
            inputs["regions"] = region_proposals.padded(regions, rows)[None]
            inputs["image_size"] = np.array([height, width], "float32")
            *arrays, count = (ops.convert_to_numpy(v)[0] for v in self._decoder(thresholds)(inputs))
        boxes, scores, labels = (array[: int(count)] for array in arrays)
        found = Detections(
            boxes.astype("float32"), scores.astype("float32"), labels.astype("int32"), int(count)
        )
        found.names = [self.class_names[label] for label in found.labels]
        return found

    def _decoder(self, thresholds):
        """`decode` compiled, for each set of thresholds and number of rows."""
        functions = self._detect_functions.by_use
        use = ("decode", *thresholds.values())
        if use not in functions:

            def read(inputs):
                height, width = inputs["image_size"][0], inputs["image_size"][1]
                return self.decode(
                    inputs, regions=inputs["regions"], image_size=(height, width), **thresholds
                )

            functions[use] = _compiled_alone(read)
        return functions[use]

    # -------------------------------------------------------------------- compress

    def compress(self, fc6=1024, fc7=256):
        """A smaller, faster copy whose hidden layers are each two, by truncated SVD (sec. 3.1).

        W x + b becomes U (S V' x) + b with the `rank` largest singular values of W: layers fc6_L,
        without bias, and fc6_U. Nothing comes between, and nothing is fine-tuned. What fc6 gives
        before its ReLU moves by at most the first singular value left out times the length of x.

        Args:
            fc6: rank of that layer; None leaves it whole.
            fc7: likewise.

        Returns:
            A new FastRCNN, not compiled.

        Raises:
            InputError: if a layer has no such rank, or there is none, or it is compressed already.

        Source: tools/compress_net.py and models/VGG16/compressed of the release.
        """
        ranks = {name: rank for name, rank in (("fc6", fc6), ("fc7", fc7)) if rank is not None}
        for name, rank in ranks.items():
            if name in self.ranks:
                raise InputError(f"{name} is compressed already, to rank {self.ranks[name]}.")
            if int(name[2:]) - 6 >= len(self.hidden):
                raise InputError(f"{self.name} has no {name} to compress; pass {name}=None.")
            most = min(self.get_layer(name).kernel.shape)
            if not isinstance(rank, Integral) or not 1 <= rank <= most:
                raise InputError(f"{name} wants a rank of 1 to {most}, not {rank!r}.")
        config = self.get_config()
        halves = {name: (f"{name}_L", f"{name}_U") for name in ranks}
        config["ranks"] = {**self.ranks, **ranks}
        config["frozen"] = [half for name in config["frozen"] for half in halves.get(name, (name,))]
        if config["train_from"] in halves:
            config["train_from"] = halves[config["train_from"]][0]
        smaller = type(self).from_config(config)
        if "propose" in vars(self):
            smaller.propose = self.propose
        for layer in self.layers:
            if layer.name not in ranks:
                smaller.get_layer(layer.name).set_weights(layer.get_weights())
                continue
            kernel, bias = layer.get_weights()
            first, second = factors(kernel, ranks[layer.name])
            lower, upper = halves[layer.name]
            smaller.get_layer(lower).set_weights([first])
            smaller.get_layer(upper).set_weights([second, bias])
        return smaller

    # -------------------------------------------------------------------- saving

    def _arguments(self):
        return {
            **self._given(),
            "train_from": self.train_from,
            "short_sides": self.short_sides,
        }

    def get_config(self):
        """As every detector's; a model as backbone travels whole."""
        config = super().get_config()
        if isinstance(config["backbone"], keras.Model):
            config["backbone"] = keras.saving.serialize_keras_object(config["backbone"])
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds the same network; weights are loaded apart."""
        config = copy.deepcopy(config)  # Keras empties what it reads
        if isinstance(config["backbone"], dict):
            config["backbone"] = keras.saving.deserialize_keras_object(
                config["backbone"], custom_objects=custom_objects
            )
        # Which layers are frozen the config says itself: some may have been thawed since.
        train_from = config.pop("train_from", None) if "frozen" in config else None
        model = super().from_config(config, custom_objects)
        if train_from is not None:
            model._train_from = train_from
        return model


# ------------------------------------------------------------------------ helpers


def _checked_sampling(sampling):
    """All the keyword arguments of `sample_regions`."""
    known = sample_regions.__kwdefaults__
    unknown = sorted(set(sampling or {}) - set(known))
    if unknown:
        raise InputError(f"sampling wants some of {', '.join(known)}, not {', '.join(unknown)}.")
    return {**known, **(sampling or {})}


def _hidden(x, units, name, rank):
    """A hidden layer with ReLU, whole or in two."""
    if rank is not None:
        x = layers.Dense(rank, use_bias=False, name=f"{name}_L")(x)
        name = f"{name}_U"
    return layers.Dense(units, activation="relu", kernel_initializer=caffe_xavier(), name=name)(x)


def _head(x, units, deviation, name):
    start = keras.initializers.RandomNormal(stddev=deviation)
    return layers.Dense(units, kernel_initializer=start, name=name)(x)


def _every_layer(model):
    """The model's layers from the input on, those of a model inside it in its place."""
    found = []
    for layer in model.layers:
        found += _every_layer(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def _compiled_alone(read):
    """A function of arrays by name, compiled by the back end for each set of shapes."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(read, autograph=False)
        return lambda inputs: graph({name: tf.constant(v) for name, v in inputs.items()})
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(read)
    return read
