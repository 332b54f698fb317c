"""CaffeNet without its classifier: the trunk of the small Fast R-CNN.

Caffe's version of AlexNet (Krizhevsky et al., ImageNet Classification with Deep Convolutional
Neural Networks, NIPS 2012), which pools before it normalises; layers and names as
models/CaffeNet/test.prototxt of the Fast R-CNN release, which pads the first convolution and the
pools where the classifier does not.
"""

import keras

from kerasdet.backbones.caffe_conv import caffe_conv
from kerasdet.layers.caffe_max_pooling import CaffeMaxPooling2D
from kerasdet.layers.local_response_normalization import LocalResponseNormalization


def caffenet(x) -> dict[str, keras.KerasTensor]:
    """Builds conv1 to conv5 on a tensor; conv2, conv4 and conv5 are in two groups.

    Args:
        x: (B, H, W, 3) with the training mean already subtracted.

    Returns:
        Feature maps by layer name, conv1 to conv5; the last is (B, H', W', 256) with 16 pixels a
        cell, 600 giving 39 and 1000 giving 64.
    """
    maps = {}
    x = maps["conv1"] = caffe_conv(x, 96, 11, "conv1", stride=4, pad=5)
    x = _pool_and_norm(x, 1)
    x = maps["conv2"] = caffe_conv(x, 256, 5, "conv2", groups=2)
    x = _pool_and_norm(x, 2)
    x = maps["conv3"] = caffe_conv(x, 384, 3, "conv3")
    x = maps["conv4"] = caffe_conv(x, 384, 3, "conv4", groups=2)
    maps["conv5"] = caffe_conv(x, 256, 3, "conv5", groups=2)
    return maps


def _pool_and_norm(x, number):
    x = CaffeMaxPooling2D(3, 2, pad=1, name=f"pool{number}")(x)
    return LocalResponseNormalization(5, alpha=1e-4, name=f"norm{number}")(x)
