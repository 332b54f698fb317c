"""Nine plain convolutions: a trunk that learns from scratch in minutes without a GPU.

Not from any paper: dense convolutions, which CPUs are fast at, and batch normalisation that
follows short trainings.
"""

import keras
from keras import layers

# Name, filters in units of the width, stride.
_CONVOLUTIONS = (
    ("conv1", 1, 2),
    ("conv2", 2, 2),
    ("conv3", 2, 1),
    ("conv4", 4, 2),
    ("conv5", 4, 1),
    ("conv6", 6, 2),
    ("conv7", 6, 1),
    ("conv8", 8, 2),
    ("conv9", 8, 1),
)

FEATURE_LAYERS = ("conv5_relu", "conv7_relu", "conv9_relu")
"""The last layers at strides 8, 16 and 32, finest first."""


def small(image_size, *, width=16) -> keras.Model:
    """The trunk as a Keras model, for `kerasdet.SSD(backbone=..., feature_layers=FEATURE_LAYERS)`.

    Args:
        image_size: (height, width) of the input, pixels.
        width: filters of the first convolution; the last has 8 times as many.
    """
    x = image = keras.Input((*image_size, 3))
    for name, filters, stride in _CONVOLUTIONS:
        x = layers.Conv2D(filters * width, 3, stride, "same", use_bias=False, name=name)(x)
        # Batches here are few: the usual 0.99 would still hold the first steps' statistics.
        x = layers.BatchNormalization(momentum=0.95, name=f"{name}_norm")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    return keras.Model(image, x, name="small")
