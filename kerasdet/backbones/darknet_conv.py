"""The one convolution of every darknet network: padded on both sides, normalised, leaky."""

import keras
from keras import layers


def darknet_conv(
    x, filters, kernel, number, *, stride=1, batch_norm=True, activation="leaky", prefix="conv"
):
    """Convolution, batch normalisation and leaky ReLU, as a `[convolutional]` section with pad=1.

    The Keras layers are named by `number`, their place among the convolutions of the cfg:
    `conv7`, `conv7_norm`, `conv7_leaky`. Weight files are read in the order of these numbers.

    Args:
        x: (B, H, W, C) Keras tensor.
        filters: channels out.
        kernel: side of the kernel, odd.
        number: place among the network's convolutions, from 1.
        stride: 1 or 2; kernel // 2 zeros stand on every side whatever it is.
        batch_norm: normalise, then the convolution has no bias of its own.
        activation: "leaky" (slope 0.1) or "linear".
        prefix: stands before the number.

    Returns:
        (B, H / stride, W / stride, filters).

    Source: darknet src/convolutional_layer.c (weights N(0, 2 / fan_in)), batchnorm_layer.c
        (running average 0.99; epsilon 1e-5 on a GPU), activations.h (leaky).
    """
    name = f"{prefix}{number}"
    if stride > 1 and kernel > 1:
        # Keras' "same" with a stride pads right and bottom only.
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=not batch_norm,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal"),
        name=name,
    )(x)
    if batch_norm:
        x = layers.BatchNormalization(momentum=0.99, epsilon=1e-5, name=f"{name}_norm")(x)
    if activation == "leaky":
        x = layers.LeakyReLU(0.1, name=f"{name}_leaky")(x)
    return x
