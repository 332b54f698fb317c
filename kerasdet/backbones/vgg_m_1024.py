"""VGG_CNN_M_1024 without its classifier: the trunk of the medium Fast R-CNN.

Chatfield et al., Return of the Devil in the Details, arXiv:1405.3531, table 1, CNN-M; layers and
names as models/VGG_CNN_M_1024/test.prototxt of the Fast R-CNN release. "1024" is the width of its
fc7, which is no part of the trunk.
"""

import keras

from kerasdet.backbones.caffe_conv import caffe_conv
from kerasdet.layers.caffe_max_pooling import CaffeMaxPooling2D
from kerasdet.layers.local_response_normalization import LocalResponseNormalization


def vgg_m_1024(x) -> dict[str, keras.KerasTensor]:
    """Builds conv1 to conv5 on a tensor.

    Args:
        x: (B, H, W, 3) with the training mean already subtracted; sides of 25 pixels or more.

    Returns:
        Feature maps by layer name, conv1 to conv5; the last is (B, H', W', 512) with 16 pixels a
        cell, 600 giving 36 and 1000 giving 61: the first convolution is not padded and the second
        by 1 pixel for a kernel of 5, which loses up to two cells.
    """
    maps = {}
    x = maps["conv1"] = caffe_conv(x, 96, 7, "conv1", stride=2, pad=0)
    x = _norm(x, 1)
    x = CaffeMaxPooling2D(3, 2, name="pool1")(x)
    x = maps["conv2"] = caffe_conv(x, 256, 5, "conv2", stride=2, pad=1)
    x = _norm(x, 2)
    x = CaffeMaxPooling2D(3, 2, name="pool2")(x)
    for number in (3, 4, 5):
        x = maps[f"conv{number}"] = caffe_conv(x, 512, 3, f"conv{number}")
    return maps


def _norm(x, number):
    return LocalResponseNormalization(5, alpha=5e-4, k=2.0, name=f"norm{number}")(x)
