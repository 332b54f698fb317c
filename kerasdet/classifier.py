"""Classifiers that the detectors start from: trained at 224 pixels, Darknet-19 then at 448.

Redmon et al., You Only Look Once, arXiv:1506.02640, sec. 2.2 (extraction); Redmon and Farhadi,
YOLO9000, arXiv:1612.08242, sec. 3 (Darknet-19, high-resolution fine-tuning); darknet cfg/*.cfg
as named below.
"""

from numbers import Integral
from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from kerasdet.backbones import extraction as extraction_trunks
from kerasdet.backbones.darknet19 import darknet19 as darknet19_trunk
from kerasdet.backbones.darknet_conv import darknet_conv
from kerasdet.backbones.tiny_darknet import tiny_darknet as tiny_darknet_trunk
from kerasdet.errors import InputError
from kerasdet.images import each_image, read_image, warp
from kerasdet.weight_decay import penalty, replica_count, spare_others

# Images that `classify` sends through the network together.
_BATCH = 8


class Classification(NamedTuple):
    """What an image shows, most probable first.

    Attributes:
        names: of the classes.
        probabilities: (n,) float32.
        labels: (n,) int32.
    """

    names: list[str]
    probabilities: np.ndarray
    labels: np.ndarray


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


@keras.saving.register_keras_serializable(package="kerasdet")
class Classifier(keras.Model):
    """A convolutional trunk, a 1x1 convolution to the classes, global average pooling.

    Args:
        num_classes: K; None: as many as `class_names`.
        class_names: names of the labels; None: "class 0", "class 1", ...
        network: "darknet19", "extraction" (YOLO v1's; "extraction_plain" without batch
            normalisation, as in 2015), "darknet_reference" (the small networks'), or
            "tiny_darknet".
        image_size: side of the square, or (height, width), that photos are brought to.
        **kwargs: what `keras.Model` takes.

    Call:
        images: (B, H, W, 3) RGB, 0..255, of any size.
        returns: (B, K) logits, float32.

    Attributes:
        class_names: list of K strings.
        num_classes: K.
        image_size: (height, width), pixels; may be set: the same weights serve every size.

    Layers: `conv<n>` as in the cfg; the last is the classes'.

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
        image_size=224,
        **kwargs,
    ):
        class_names = _names(num_classes, class_names)
        if network not in tuple(_NETWORKS):
            raise InputError(f"network wants one of {', '.join(_NETWORKS)}, not {network!r}.")
        trunk, last, activation, pooled_before = _NETWORKS[network]
        images = keras.Input((None, None, 3), name="images")
        x = trunk(layers.Rescaling(1 / 255, name="normalize")(images))
        pooling = layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name="average")
        if pooled_before:
            x = pooling(x)
        x = darknet_conv(x, len(class_names), 1, last, batch_norm=False, activation=activation)
        if not pooled_before:
            x = pooling(x)
        logits = layers.Flatten(dtype="float32", name="logits")(x)
        super().__init__(images, logits, **kwargs)
        self.class_names = class_names
        self.num_classes = len(class_names)
        self.network = network
        self.image_size = image_size
        self.weight_decay = 0.0

    @property
    def image_size(self):
        """(height, width) that photos are brought to."""
        return self._image_size

    @image_size.setter
    def image_size(self, size):
        sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
        if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
            raise InputError(f"image_size wants one or two positive whole numbers, not {size!r}.")
        self._image_size = sides

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

    def get_compile_config(self):
        """Adds the weight decay to Keras' own, so that a loaded model trains on as it did."""
        config = super().get_compile_config()
        return config and {**config, "weight_decay": self.weight_decay}

    def compile_from_config(self, config):
        """Compiles as the saved model was."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Keras' own, and the weight decay."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if self.weight_decay:
            loss += penalty(self.trainable_variables, self.weight_decay) / replica_count()
        return loss

    # ------------------------------------------------------------------ use

    def classify(self, images, *, top=5) -> list[Classification]:
        """Says what photos show.

        Args:
            images: one image, a batch (B, H, W, 3), or a list of images of any sizes, as in
                `Detector.detect`. Of each the middle, as large as it can be in the aspect of
                `image_size`, is seen (darknet src/image.c, center_crop_image).
            top: how many classes, the most probable first.

        Returns:
            One `Classification` an image.

        Raises:
            InputError: if something is not an image.
        """
        images = [read_image(image, where) for where, image in each_image(images)]
        top = min(top, self.num_classes)
        results = []
        for start in range(0, len(images), _BATCH):
            chunk = [_middle(image, self.image_size) for image in images[start : start + _BATCH]]
            logits = self.predict_on_batch(np.stack(chunk))
            probabilities = ops.convert_to_numpy(ops.softmax(logits, axis=-1))
            for row in probabilities:
                labels = np.argsort(-row, kind="stable")[:top].astype("int32")
                names = [self.class_names[label] for label in labels]
                results.append(Classification(names, row[labels], labels))
        return results

    # ------------------------------------------------------------------ saving

    def get_config(self):
        """Constructor arguments."""
        return {
            "class_names": self.class_names,
            "network": self.network,
            "image_size": self.image_size,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds the same network; weights are loaded apart."""
        config = dict(config)
        trainable = config.pop("trainable", True)
        model = cls(**config)
        model.trainable = trainable
        return model


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


# ------------------------------------------------------------------------ helpers


def _built(network, num_classes, class_names, image_size, kwargs):
    return Classifier(
        None if class_names else num_classes,
        class_names=class_names,
        network=network,
        image_size=image_size,
        **{"name": network, **kwargs},
    )


def _names(num_classes, class_names):
    if num_classes is None and class_names is None:
        raise InputError("A classifier wants num_classes or class_names.")
    if class_names is None:
        if not isinstance(num_classes, Integral) or num_classes < 1:
            raise InputError(f"A classifier wants at least one class, not {num_classes!r}.")
        return [f"class {label}" for label in range(num_classes)]
    if not class_names or num_classes not in (None, len(class_names)):
        raise InputError(
            f"num_classes={num_classes} does not fit the {len(class_names)} class_names."
        )
    return [str(name) for name in class_names]


def _middle(image, size):
    """The largest part in the middle of (H, W, 3) with the aspect of `size`, resized to it."""
    (height, width), (target_height, target_width) = image.shape[:2], size
    inner_height = max(1, min(height, width * target_height // target_width))
    inner_width = max(1, min(width, height * target_width // target_height))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    return warp(image[top : top + inner_height, left : left + inner_width], size)
