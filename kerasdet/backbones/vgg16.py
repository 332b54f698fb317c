"""VGG-16 without its classifier: plain, the trunk of Fast R-CNN, and reduced, the trunk of SSD.

Simonyan and Zisserman, arXiv:1409.1556, table 1, column D; plain up to conv5_3, as
models/VGG16/test.prototxt of the Fast R-CNN release has it; reduced as Liu et al., SSD,
arXiv:1512.02325, sec. 3: pool5 is 3x3 with stride 1, fc6 a 3x3 convolution with holes (a trous),
fc7 1x1, both 1024 wide. Layer names are those of the Caffe releases.
"""

import keras
from keras import layers

from kerasdet.backbones.caffe_conv import caffe_conv, caffe_xavier
from kerasdet.layers.dilated_conv import DilatedConv2D

__all__ = ["caffe_xavier", "vgg16", "vgg16_reduced"]

# Convolutions and channels of the five blocks.
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def vgg16(x) -> dict[str, keras.KerasTensor]:
    """Builds the thirteen convolutions and the four pools between them on a tensor.

    Args:
        x: (B, H, W, 3) with the training mean already subtracted.

    Returns:
        Feature maps by layer name, conv1_1 to conv5_3; the last is (B, ceil(H/16), ceil(W/16),
        512), since Caffe's pooling rounds up.
    """
    maps = {}
    for block, (convolutions, filters) in enumerate(_BLOCKS, start=1):
        if block > 1:
            x = _pool(x, block - 1)
        for i in range(1, convolutions + 1):
            name = f"conv{block}_{i}"
            x = maps[name] = caffe_conv(x, filters, 3, name)
    return maps


def vgg16_reduced(x) -> dict[str, keras.KerasTensor]:
    """Builds the reduced trunk on a tensor.

    Args:
        x: (B, H, W, 3) with the training mean already subtracted.

    Returns:
        Feature maps by layer name: "conv4_3" (B, ceil(H/8), ceil(W/8), 512) and "fc7"
        (B, ceil(H/16), ceil(W/16), 1024). 300 pixels give 38 and 19, as Caffe's pooling,
        which rounds up, does.
    """
    maps = vgg16(x)
    x = layers.MaxPooling2D(3, 1, padding="same", name="pool5")(maps["conv5_3"])
    x = caffe_conv(x, 1024, 3, "fc6", layer=DilatedConv2D, dilation_rate=6)
    return {"conv4_3": maps["conv4_3"], "fc7": caffe_conv(x, 1024, 1, "fc7")}


def _pool(x, number):
    # "same" pads right and bottom only where the side is odd: Caffe's rounding up.
    return layers.MaxPooling2D(2, 2, padding="same", name=f"pool{number}")(x)
