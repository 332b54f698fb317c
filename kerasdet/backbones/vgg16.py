"""VGG-16, reduced: the trunk of SSD, with fc6 and fc7 as convolutions.

Simonyan and Zisserman, arXiv:1409.1556, table 1, column D; reduced as Liu et al., SSD,
arXiv:1512.02325, sec. 3: pool5 is 3x3 with stride 1, fc6 a 3x3 convolution with holes (a
trous), fc7 1x1, both 1024 wide. Layer names are those of the Caffe release.
"""

import keras
from keras import layers

from kerasdet.layers.dilated_conv import DilatedConv2D

# Convolutions and channels of the five blocks.
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def caffe_xavier():
    """Caffe's xavier filler, uniform by fan-in alone (filler.hpp), which the release starts from.

    Each of VGG's layers then halves the signal's energy, and sixteen of them bring pixels in
    -128..128 down to features about 1; He's factor 2 would keep them in the hundreds, and the
    first steps from scratch would diverge.
    """
    return keras.initializers.VarianceScaling(1.0, mode="fan_in", distribution="uniform")


def _conv(filters, kernel_size, name, layer=layers.Conv2D, **kwargs):
    return layer(
        filters,
        kernel_size,
        padding="same",
        activation="relu",
        kernel_initializer=caffe_xavier(),
        name=name,
        **kwargs,
    )


def vgg16_reduced(x) -> dict[str, keras.KerasTensor]:
    """Builds the reduced trunk on a tensor.

    Args:
        x: (B, H, W, 3) with the training mean already subtracted.

    Returns:
        Feature maps by layer name: "conv4_3" (B, ceil(H/8), ceil(W/8), 512) and "fc7"
        (B, ceil(H/16), ceil(W/16), 1024). 300 pixels give 38 and 19, as Caffe's pooling,
        which rounds up, does.
    """
    maps = {}
    for block, (convolutions, filters) in enumerate(_BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            name = f"conv{block}_{i}"
            x = maps[name] = _conv(filters, 3, name)(x)
        # "same" pads right and bottom only where the side is odd: Caffe's rounding up.
        size, stride = (3, 1) if block == 5 else (2, 2)
        x = layers.MaxPooling2D(size, stride, padding="same", name=f"pool{block}")(x)
    x = _conv(1024, 3, "fc6", DilatedConv2D, dilation_rate=6)(x)
    maps["fc7"] = _conv(1024, 1, "fc7")(x)
    return {name: maps[name] for name in ("conv4_3", "fc7")}
