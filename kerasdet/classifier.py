"""Classifiers that the detectors start from: darknet's at 224 pixels, OverFeat's at 231 or 221.

Redmon et al., You Only Look Once, arXiv:1506.02640, sec. 2.2 (extraction); Redmon and Farhadi,
YOLO9000, arXiv:1612.08242, sec. 3 (Darknet-19, high-resolution fine-tuning); darknet cfg/*.cfg
as named below. Sermanet et al., OverFeat, arXiv:1312.6229, sec. 3.
"""

import functools
from numbers import Integral
from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from kerasdet import (
    labels,
    memory,
    schedules,  # noqa: F401  (a compiled model's rate is read back with it)
    voting,
)
from kerasdet.backbones import extraction as extraction_trunks
from kerasdet.backbones import overfeat
from kerasdet.backbones.darknet19 import darknet19 as darknet19_trunk
from kerasdet.backbones.darknet_conv import darknet_conv
from kerasdet.backbones.tiny_darknet import tiny_darknet as tiny_darknet_trunk
from kerasdet.classes import named_classes
from kerasdet.compiling import compiled
from kerasdet.errors import InputError
from kerasdet.images import each_image, read_image, warp
from kerasdet.layers.connected_conv import ConnectedConv2D
from kerasdet.saving import kept_state, revived
from kerasdet.stopping import StopWhenNotFinite
from kerasdet.voting import Classification
from kerasdet.weight_decay import penalty, replica_count, spare_others
from kerasdet.weights.assign import share

# Images that `classify` sends through the network together.
_BATCH = 8

VIEWS = ("centre", "ten", "scales")
"""What a classifier may be asked about: an image's middle, ten windows, all of it at several sizes."""


class _Network(NamedTuple):
    """Attributes: trunk; number of the last convolution, its activation, whether pooling is before it."""

    trunk: object
    last: int
    activation: str = "linear"
    pooled_before: bool = False


_NETWORKS = {
    "darknet19": _Network(lambda x: darknet19_trunk(x)["conv18"], 19),  # darknet19.cfg
    # extraction.cfg ends in a leaky convolution, for which the paper has a linear layer.
    "extraction": _Network(extraction_trunks.extraction, 21, "leaky"),
    "extraction_plain": _Network(
        lambda x: extraction_trunks.extraction(x, batch_norm=False), 21, "leaky"
    ),
    "darknet_reference": _Network(  # darknet.cfg
        extraction_trunks.darknet_reference, 8, pooled_before=True
    ),
    "tiny_darknet": _Network(tiny_darknet_trunk, 16),  # tiny.cfg
}
_OVERFEAT = "overfeat_"  # before the name of one of its layouts


@keras.saving.register_keras_serializable(package="kerasdet")
class Classifier(keras.Model):
    """A convolutional trunk, a 1x1 convolution to the classes, global average pooling.

    Args:
        num_classes: K; None: as many as `class_names`.
        class_names: names of the labels; None: "class 0", "class 1", ...
        network: "darknet19", "extraction" (YOLO v1's; "extraction_plain" without batch
            normalisation, as in 2015), "darknet_reference" (the small networks'),
            "tiny_darknet", "overfeat_fast", "overfeat_accurate", or an OverFeat of another
            `kerasdet.backbones.overfeat.Layout`.
        image_size: side of the square, or (height, width), that photos are brought to. None: 224,
            of OverFeat the window that it is trained on.
        width: of OverFeat: what its channels are multiplied by.
        dropout: of OverFeat: share of the hidden layers' outputs that training drops.
        stddev: of OverFeat's first weights (sec. 3.1); None: He's, for networks trained in hours.
        scales: the (height, width) sizes that a vote over scales looks at; None: the paper's six, or
            for a window of another side than its two in their proportion.
        **kwargs: what `keras.Model` takes.

    Call:
        images: (B, H, W, 3) RGB, 0..255, of any size; OverFeat's from the window on.
        returns: (B, K) logits, float32: of OverFeat the mean over all windows, at its coarse stride.

    Attributes:
        class_names: list of K strings.
        num_classes: K.
        image_size: (height, width), pixels; may be set: the same weights serve every size.
        scales: as given; may be set.
        precision: the dtype policy that its layers were made in.

    Layers: `conv<n>` as in the cfg; the last is the classes'. Of OverFeat `conv<n>`, `fc<n>` and
        `classes`.

    Raises:
        InputError: if the arguments do not fit together.
    """

    augmentation = "darknet"  # what a `Recipe` that names none trains with

    def __init__(
        self,
        num_classes=None,
        *,
        class_names=None,
        network="darknet19",
        image_size=None,
        width=1.0,
        dropout=0.5,
        stddev=0.01,
        scales=None,
        **kwargs,
    ):
        class_names = named_classes("A classifier", num_classes, class_names)
        layout = _layout(network)
        if layout is None and (width, dropout, stddev) != (1.0, 0.5, 0.01):
            raise InputError(f"width, dropout and stddev are OverFeat's; {network} has none.")
        images = keras.Input((None, None, 3), name="images")
        pooling = layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name="average")
        if layout is None:
            x, places = _darknet(images, network, len(class_names), pooling)
        else:
            given = {"width": width, "dropout": dropout, "stddev": stddev}
            x = places = _overfeat(images, layout, len(class_names), **given)
            x = pooling(x)
        logits = layers.Flatten(dtype="float32", name="logits")(x)
        super().__init__(images, logits, **kwargs)
        self.precision = keras.config.dtype_policy().name
        self.class_names = class_names
        self.num_classes = len(class_names)
        self.network = network
        self.width, self.dropout, self.stddev = width, dropout, stddev
        self.weight_decay = 0.0
        self._places = lambda: places
        self._memory = memory.Demand(self)
        self._window = 1
        window = 224
        if layout is not None:
            self.augmentation = "overfeat"
            self._window = window = layout.window
        self.image_size = window if image_size is None else image_size
        if scales is None:
            scales = _default_scales(window if layout else min(self.image_size))
        self.scales = scales

    @property
    def image_size(self):
        """(height, width) that photos are brought to."""
        return self._image_size

    @image_size.setter
    def image_size(self, size):
        self._image_size = self._checked_size(size)

    def _checked_size(self, size):
        sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
        if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
            raise InputError(f"image_size wants one or two positive whole numbers, not {size!r}.")
        self._check_room(*sides)
        return sides

    @property
    def scales(self):
        """(height, width) sizes that a vote over scales looks at."""
        return self._scales

    @scales.setter
    def scales(self, scales):
        if not isinstance(scales, list | tuple) or any(
            not isinstance(size, list | tuple) or len(size) != 2 for size in scales
        ):
            raise InputError(f"scales wants pairs of height and width, not {scales!r}.")
        scales = tuple((int(height), int(width)) for height, width in scales)
        for size in scales:
            self._check_room(*size)
        self._scales = scales

    def _check_room(self, height, width):
        if min(height, width) < self._window:
            error = InputError(
                f"{self.name} looks at windows of {self._window}x{self._window} pixels, and an image "
                f"of {height}x{width} has no room for one."
            )
            error._keras_call_info_injected = True  # else Keras writes the image's numbers below it
            raise error

    def call(self, inputs, *args, **kwargs):
        """The logits (B, K)."""
        self._check_sides(inputs)
        return super().call(inputs, *args, **kwargs)

    def _check_sides(self, images):
        height, width = images.shape[1:3]
        if height is not None and width is not None:
            self._check_room(height, width)

    # ------------------------------------------------------------------ training

    def compile(self, optimizer="sgd", *, loss=None, metrics=None, weight_decay=0.0, **kwargs):
        """Keras' `compile`, for batches of images and integer labels (B,).

        Args:
            optimizer: a Keras optimizer or its name. A decay of the optimizer's own is kept
                from biases and normalisation.
            loss: of labels and logits; None: the cross-entropy of their softmax.
            metrics: None: "top1" and "top5", the shares of images whose label is the first,
                or among the first five.
            weight_decay: lambda of the L2 term lambda / 2 * sum(w**2) over kernels alone.
            **kwargs: as in `keras.Model.compile`.
        """
        optimizer = keras.optimizers.get(optimizer)
        spare_others(optimizer, self.trainable_variables)
        self.weight_decay = weight_decay
        if metrics is None:
            top5 = keras.metrics.SparseTopKCategoricalAccuracy(
                min(5, self.num_classes), name="top5"
            )
            metrics = [keras.metrics.SparseCategoricalAccuracy(name="top1"), top5]
        super().compile(
            optimizer=optimizer,
            loss=loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=metrics,
            **kwargs,
        )

    def start_from(self, other) -> list[str]:
        """Takes the weights of every layer that another model has by the same name and shapes.

        Args:
            other: a classifier of the same network for any classes, or a detector on it.

        Returns:
            Names of the layers that were left as they are.

        Raises:
            InputError: if the other is another network, by its first layer.
        """
        return share(self, other)

    def compile_from_config(self, config):
        """Compiles as the saved model was; its weight decay is in its own config."""
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**{"weight_decay": self.weight_decay, **config})
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Keras' own, and the weight decay; NaN where a label is none."""
        y, unknown = labels.told(y, self.num_classes)
        loss = unknown + super().compute_loss(x, y, y_pred, sample_weight, training)
        if self.weight_decay:
            loss += penalty(self.trainable_variables, self.weight_decay) / replica_count()
        return loss

    def fit(self, *args, callbacks=None, **kwargs):
        """Keras' own; refused where there is no memory for one image, stopped where a loss is not finite.

        Raises:
            InputError: if there is not, or labels in memory are none of the classifier's.
            TrainingError: naming the batch.
        """
        y = args[1] if len(args) > 1 else kwargs.get("y")
        if y is not None:
            labels.check(y, self.num_classes)
        self._memory.require([self.image_size])
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [StopWhenNotFinite(), *keras.tree.flatten(callbacks or [])]
        return super().fit(*args, callbacks=callbacks, **kwargs)

    # ------------------------------------------------------------------ use

    def classify(self, images, *, top=5, views="centre") -> list[Classification]:
        """Says what photos show.

        Args:
            images: one image, a batch (B, H, W, 3), or a list of images of any sizes, as in
                `Detector.detect`.
            top: how many classes, the most probable first.
            views: "centre": of each the middle is seen, as large as it can be in the aspect of
                `image_size` (darknet src/image.c, center_crop_image); "ten": corners, centre and
                their mirror images (`kerasdet.voting.vote_views`); "scales": every window of the
                image and its mirror image at each of `scales` (`kerasdet.voting.vote_scales`),
                whose probabilities do not add up to 1.

        Returns:
            One `Classification` an image.

        Raises:
            InputError: if something is not an image, or there is no memory for it at the size that
                the network sees.
        """
        if views not in VIEWS:
            raise InputError(f"views wants one of {', '.join(VIEWS)}, not {views!r}.")
        images = [read_image(image, where) for where, image in each_image(images)]
        if views == "centre":
            rows = self._of_middles(images)
        else:
            rows = (self.vote(image, views) for image in images)
        return [voting.ranked(row, self.class_names, top) for row in rows]

    def _of_middles(self, images):
        most = self._memory.images_at_once([self.image_size], _BATCH)
        for start in range(0, len(images), most):
            chunk = images[start : start + most]
            seen = [warp(voting.middle(image, self.image_size), self.image_size) for image in chunk]
            logits = self.predict_on_batch(np.stack(seen))
            yield from ops.convert_to_numpy(ops.softmax(logits, axis=-1))

    def vote(self, image, views="scales") -> np.ndarray:
        """The scores (K,) of one image (H, W, 3), 0..255, by `views` as in `classify`.

        Raises:
            InputError: as `classify`.
        """
        if views == "ten":
            self._memory.require([self.image_size], images=10)
            return voting.vote_views(self.probabilities, image, self.image_size)
        if views == "scales":
            if self.scales:
                self._memory.require(self.scales, images=2)  # and its mirror image
            return voting.vote_scales(self.probabilities, image, self.scales)
        (row,) = self._of_middles([image])
        return row

    def probabilities(self, images) -> np.ndarray:
        """The classes' probabilities at every place, before the mean over the places.

        Args:
            images: (B, H, W, 3), 0..255, of a size that the network takes.

        Returns:
            (B, h, w, K) float32; of OverFeat one place is a window, at the coarse stride.

        Raises:
            InputError: if OverFeat's window does not fit into the images.
        """
        images = np.asarray(images, "float32")
        self._check_sides(images)
        return ops.convert_to_numpy(self._dense(images))

    @functools.cached_property
    def _dense(self):
        places = keras.Model(self.inputs, self._places(), name="places")

        def probabilities(outputs):
            return ops.softmax(ops.cast(outputs, "float32"), axis=-1)

        return compiled(places, probabilities, (None, None, None, 3))

    # ------------------------------------------------------------------ saving

    def get_config(self):
        """Constructor arguments, the precision, and which layers are frozen."""
        return {
            "class_names": self.class_names,
            "network": self.network,
            "image_size": self.image_size,
            "width": self.width,
            "dropout": self.dropout,
            "stddev": self.stddev,
            "scales": self.scales,
            "name": self.name,
            **kept_state(self),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds the same network in the same precision; weights are loaded apart."""
        return revived(config, cls)


# ------------------------------------------------------------------------ builders


def darknet19(num_classes=1000, *, class_names=None, image_size=224, **kwargs) -> Classifier:
    """Darknet-19, the classifier of YOLOv2 and YOLO9000: 20,856,776 numbers at 1000 classes.

    Args:
        num_classes: K.
        class_names: names of the labels; `num_classes` is not read then.
        image_size: 224 to train, 448 for the last ten epochs (sec. 3).
        **kwargs: as in `Classifier`.

    Source: arXiv:1612.08242, table 6; darknet cfg/darknet19.cfg, cfg/darknet19_448.cfg.
    """
    return _built("darknet19", num_classes, class_names, image_size, kwargs)


def extraction(
    num_classes=1000, *, class_names=None, image_size=224, batch_norm=True, **kwargs
) -> Classifier:
    """The network that YOLO v1 is trained as first: 23,455,400 numbers at 1000 classes.

    Args:
        num_classes: K.
        class_names: names of the labels; `num_classes` is not read then.
        image_size: 224 to train (sec. 2.2).
        batch_norm: as released since 2016-08; the paper's and the first release have none.
        **kwargs: as in `Classifier`.

    Source: arXiv:1506.02640, sec. 2.2; darknet cfg/extraction.cfg.
    """
    network = "extraction" if batch_norm else "extraction_plain"
    return _built(network, num_classes, class_names, image_size, kwargs)


def darknet_reference(
    num_classes=1000, *, class_names=None, image_size=224, **kwargs
) -> Classifier:
    """The small network that the tiny YOLO v1 starts from.

    Args:
        num_classes: K.
        class_names: names of the labels; `num_classes` is not read then.
        image_size: 224 to train.
        **kwargs: as in `Classifier`.

    Source: darknet cfg/darknet.cfg.
    """
    return _built("darknet_reference", num_classes, class_names, image_size, kwargs)


def tiny_darknet(num_classes=1000, *, class_names=None, image_size=224, **kwargs) -> Classifier:
    """Tiny Darknet, 4 MB: 1,046,488 numbers at 1000 classes.

    Args:
        num_classes: K.
        class_names: names of the labels; `num_classes` is not read then.
        image_size: 224 to train.
        **kwargs: as in `Classifier`.

    Source: darknet cfg/tiny.cfg.
    """
    return _built("tiny_darknet", num_classes, class_names, image_size, kwargs)


def overfeat_fast(
    num_classes=1000, *, class_names=None, image_size=None, width=1.0, **kwargs
) -> Classifier:
    """OverFeat's fast network: 145,920,872 numbers at 1000 classes and full width.

    Args:
        num_classes: K.
        class_names: names of the labels; `num_classes` is not read then.
        image_size: None: the window, 231.
        width: what the channels are multiplied by.
        **kwargs: as in `Classifier`.

    Source: arXiv:1312.6229, table 1; the release's net_weight_0.
    """
    kwargs = {"width": width, **kwargs}
    return _built("overfeat_fast", num_classes, class_names, image_size, kwargs)


def overfeat_accurate(
    num_classes=1000, *, class_names=None, image_size=None, width=1.0, **kwargs
) -> Classifier:
    """OverFeat's accurate network: 144,656,488 numbers at 1000 classes and full width.

    Args:
        num_classes: K.
        class_names: names of the labels; `num_classes` is not read then.
        image_size: None: the window, 221.
        width: what the channels are multiplied by.
        **kwargs: as in `Classifier`.

    Source: arXiv:1312.6229, table 3; the release's net_weight_1.
    """
    kwargs = {"width": width, **kwargs}
    return _built("overfeat_accurate", num_classes, class_names, image_size, kwargs)


# ------------------------------------------------------------------------ helpers


def _built(network, num_classes, class_names, image_size, kwargs):
    return Classifier(
        None if class_names else num_classes,
        class_names=class_names,
        network=network,
        image_size=image_size,
        **{"name": network, **kwargs},
    )


def _layout(network):
    """OverFeat's layout of that name, or a `Layout`; None for darknet's networks."""
    if isinstance(network, list | tuple):
        return overfeat.layout_of(network)
    if network in tuple(_NETWORKS):
        return None
    known = [*_NETWORKS, *(_OVERFEAT + name for name in overfeat.LAYOUTS)]
    if network not in known:
        raise InputError(f"network wants one of {', '.join(known)}, not {network!r}.")
    return overfeat.layout_of(network.removeprefix(_OVERFEAT))


def _darknet(images, network, count, pooling):
    """The map's mean (B, 1, 1, K), and the map (B, h, w, K)."""
    trunk, last, activation, pooled_before = _NETWORKS[network]
    x = trunk(layers.Rescaling(1 / 255, name="normalize")(images))
    if pooled_before:
        x = pooling(x)
    places = darknet_conv(x, count, 1, last, batch_norm=False, activation=activation)
    return places if pooled_before else pooling(places), places


def _overfeat(images, layout, count, *, width, dropout, stddev):
    """The map (B, h, w, K): the last pooling at its first offset alone."""
    x = overfeat.trunk(overfeat.normalized(images), layout, width=width, stddev=stddev)
    number = len(layout.convolutions)
    x = layers.MaxPooling2D(layout.last_pool, name=f"pool{number}")(x)
    x = overfeat.connected(x, layout, width=width, dropout=dropout, stddev=stddev)
    return overfeat.convolution(
        x, count, 1, "classes", relu=False, stddev=stddev, layer=ConnectedConv2D
    )


def _default_scales(window):
    """The paper's sizes for its windows of 221 and 231, for others in proportion to 231."""
    if window in (221, 231):
        return overfeat.SCALES
    return tuple(
        (round(height * window / 231), round(width * window / 231))
        for height, width in overfeat.SCALES
    )
