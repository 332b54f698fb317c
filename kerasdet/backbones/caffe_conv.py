"""A convolution with its ReLU, started and padded as Caffe's networks have it."""

import keras
from keras import layers


def caffe_xavier():
    """Caffe's xavier filler, uniform by fan-in alone (filler.hpp), which the releases start from.

    Each of VGG's layers then halves the signal's energy, and sixteen of them bring pixels in
    -128..128 down to features about 1; He's factor 2 would keep them in the hundreds, and the
    first steps from scratch would diverge.
    """
    return keras.initializers.VarianceScaling(1.0, mode="fan_in", distribution="uniform")


def caffe_conv(x, filters, kernel_size, name, *, stride=1, pad=None, layer=layers.Conv2D, **kwargs):
    """Convolution and ReLU.

    Args:
        x: (B, H, W, C) Keras tensor.
        filters: channels out.
        kernel_size: side of the kernel.
        name: of the layer, Caffe's.
        stride: pixels from one window to the next.
        pad: zeros on every side; None for as many as keep the size at stride 1.
        layer: `Conv2D` or a class of its kind.
        **kwargs: what the layer takes besides, such as `groups`.

    Returns:
        (B, H', W', filters), a side s giving floor((s + 2 * pad - kernel_size) / stride) + 1.
    """
    if pad:  # Keras' "same" with a stride pads right and bottom first.
        x = layers.ZeroPadding2D(pad, name=f"{name}_pad")(x)
    return layer(
        filters,
        kernel_size,
        strides=stride,
        padding="same" if pad is None else "valid",
        activation="relu",
        kernel_initializer=caffe_xavier(),
        name=name,
        **kwargs,
    )(x)
