"""Tiny Darknet: 16 convolutions in 4 MB, a classifier of the author's site (cfg/tiny.cfg)."""

from kerasdet.backbones.darknet19 import pool
from kerasdet.backbones.darknet_conv import darknet_conv

# Blocks between poolings: (kernel, filters).
_BLOCKS = (
    ((3, 16),),
    ((3, 32),),
    ((1, 16), (3, 128)) * 2,
    ((1, 32), (3, 256)) * 2,
    (*((1, 64), (3, 512)) * 2, (1, 128)),
)


def tiny_darknet(x):
    """Builds conv1 to conv15.

    Args:
        x: (B, H, W, 3) RGB in 0..1.

    Returns:
        (B, ceil(H/16), ceil(W/16), 128).
    """
    number = 0
    for block, convolutions in enumerate(_BLOCKS):
        if block:
            x = pool(x, block)
        for kernel, filters in convolutions:
            number += 1
            x = darknet_conv(x, filters, kernel, number)
    return x
