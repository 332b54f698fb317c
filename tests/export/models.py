"""Random detectors that are small, and yet find things."""

import keras
import numpy as np
from keras import layers

import kerasdet

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
