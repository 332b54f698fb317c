"""Random detectors that are small, and yet find things."""

import keras
import numpy as np
from keras import layers, ops

import kerasdet
from kerasdet.suppression import non_max_suppression

# Outside ASCII, outside the basic plane, and with a space.
NAMES = ["bus stop", "Zebra größer", "猫🐈"]


HEIGHT, WIDTH = 32, 48


def backbone():
    """The layers of a MobileNet, four of them: maps of 8x12 ("fine") and 4x6 ("coarse") cells."""
    x = inputs = keras.Input((HEIGHT, WIDTH, 3))
    x = layers.Conv2D(8, 5, strides=4, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0, name="fine")(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0, name="coarse")(x)
    return keras.Model(inputs, x)


def small_ssd():
    """A random SSD whose scores spread over 0..1, so that suppression has something to do."""
    keras.utils.set_random_seed(0)
    model = kerasdet.SSD(
        class_names=NAMES,
        backbone=backbone(),
        feature_layers=["fine", "coarse"],
        image_size=(HEIGHT, WIDTH),
    )
    # Statistics of noise stand in for those of training.
    noise = np.random.default_rng(1).uniform(0, 255, (8, HEIGHT, WIDTH, 3)).astype("float32")
    for layer in [*model.get_layer("backbone").layers, *model.layers]:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(noise, training=True)
    spread = float(np.std(model(noise)["classes"]))
    for layer in model.layers:
        if layer.name.endswith("_mbox_conf"):
            kernel, bias = layer.get_weights()
            layer.set_weights([3 * kernel / spread, bias])  # logits of standard deviation 3
    return model


class Cells(kerasdet.Detector):
    """One box a cell of 8x8 pixels, on a network for any size that keeps photos' aspect."""

    resize = "letterbox"
    image_stride = 8

    def __init__(self):
        images = keras.Input((None, None, 3), name="photos")
        x = layers.Rescaling(1 / 127.5, -1.0)(images)
        x = layers.Conv2D(16, 8, strides=8, activation="relu")(x)
        x = layers.Conv2D(4 + len(NAMES), 3, padding="same", dtype="float32")(x)
        super().__init__(images, {"cells": x}, class_names=NAMES, image_size=(HEIGHT, WIDTH))

    def decode(self, outputs, *, score_threshold=None, iou_threshold=None, max_detections=None):
        cells = outputs["cells"]
        height, width = cells.shape[1:3]
        y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        centres = (np.stack([x, y], axis=-1) * 8 + 4).astype("float32")
        half = 12 * ops.sigmoid(cells[..., :2])
        boxes = ops.concatenate([centres + 8 * cells[..., 2:4] - half, centres + half], axis=-1)
        boxes = ops.concatenate([ops.minimum(boxes[..., :2], boxes[..., 2:]), boxes[..., 2:]], -1)
        return non_max_suppression(
            ops.reshape(boxes, (-1, height * width, 4)),
            ops.reshape(ops.sigmoid(3 * cells[..., 4:]), (-1, height * width, len(NAMES))),
            score_threshold=0.5 if score_threshold is None else score_threshold,
            iou_threshold=0.5 if iou_threshold is None else iou_threshold,
            max_detections=20 if max_detections is None else max_detections,
        )


def letterboxing():
    """A random one."""
    keras.utils.set_random_seed(0)
    return Cells()
