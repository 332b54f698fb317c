"""Darknet-19, the trunk of YOLOv2 and YOLO9000, and the trunk of the tiny YOLOv2.

Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, arXiv:1612.08242, table 6; darknet
cfg/darknet19.cfg, cfg/yolov2.cfg, cfg/yolov2-tiny.cfg.
"""

import keras
from keras import layers

from kerasdet.backbones.darknet_conv import darknet_conv

# Blocks between poolings; 3x3 convolutions and 1x1 ones (half as wide) take turns.
_BLOCKS = (
    (32,),
    (64,),
    (128, 64, 128),
    (256, 128, 256),
    (512, 256, 512, 256, 512),
    (1024, 512, 1024, 512, 1024),
)

# Convolutions of the tiny trunk before its last, each followed by a pooling (yolov2-tiny.cfg).
_TINY = (16, 32, 64, 128, 256, 512)


def darknet19(x) -> dict[str, keras.KerasTensor]:
    """Builds the 18 convolutions of Darknet-19 that a detector keeps; 19,831,776 numbers.

    Args:
        x: (B, H, W, 3) RGB in 0..1.

    Returns:
        What each convolution gives after its leaky ReLU, "conv1" to "conv18". The last at each
        stride: "conv13" (B, H/16, W/16, 512), which the passthrough reads (layer 16 of
        yolov2.cfg), and "conv18" (B, H/32, W/32, 1024). Sides round up, as darknet's do.
    """
    maps = {}
    number = 0
    for block, widths in enumerate(_BLOCKS):
        if block:
            x = pool(x, block)
        for place, filters in enumerate(widths):
            number += 1
            x = darknet_conv(x, filters, 1 if place % 2 else 3, number)
            maps[f"conv{number}"] = x
    return maps


def tiny(x) -> keras.KerasTensor:
    """Builds the seven convolutions of the tiny YOLOv2 below its detector's own.

    Args:
        x: (B, H, W, 3) RGB in 0..1.

    Returns:
        "conv7" after its leaky ReLU: (B, H/32, W/32, 1024).
    """
    for number, filters in enumerate(_TINY, start=1):
        x = darknet_conv(x, filters, 3, number)
        # The sixth pooling keeps the map's size: darknet pads right and bottom, and so does "same".
        x = pool(x, number, stride=1 if number == len(_TINY) else 2)
    return darknet_conv(x, 1024, 3, len(_TINY) + 1)


def pool(x, number, *, stride=2) -> keras.KerasTensor:
    """2x2 max pooling named `pool<number>`; an odd side rounds up, as in darknet.

    Source: darknet src/maxpool_layer.c: padding size - 1, of which none stands left or on top.
    """
    return layers.MaxPooling2D(2, stride, padding="same", name=f"pool{number}")(x)
