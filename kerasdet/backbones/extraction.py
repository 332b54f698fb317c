"""The trunks of YOLO v1: the 24-convolution network and the small ones.

Redmon, Divvala, Girshick, Farhadi: You Only Look Once, arXiv:1506.02640, figure 3 (24
convolutions) and sec. 2.2 (nine for Fast YOLO); darknet cfg/extraction.cfg, yolov1.cfg,
darknet.cfg, yolov1-tiny.cfg, and cfg/yolo-tiny.cfg of 2015-11-09 (commit eaf033c0).

Every convolution is `darknet_conv`'s and bears its number in the cfg. Figure 3 draws conv1 with
192 and conv2 with 256 channels; the released networks, and these, have 64 and 192.
"""

from keras import layers

from kerasdet.backbones.darknet_conv import darknet_conv

# Kernel and filters of each convolution; None is a pool.
_EXTRACTION = (
    (7, 64),  # stride 2
    None,
    (3, 192),
    None,
    *((1, 128), (3, 256), (1, 256), (3, 512)),
    None,
    *((1, 256), (3, 512)) * 4,
    *((1, 512), (3, 1024)),
    None,
    *((1, 512), (3, 1024)) * 2,
)


def extraction(x, *, batch_norm=True):
    """The 20 convolutions trained on ImageNet first (cfg/extraction.cfg): conv1 to conv20.

    Args:
        x: (B, H, W, 3) normalised image.
        batch_norm: as every release from August 2016 on; the paper's network has none.

    Returns:
        (B, ceil(H/32), ceil(W/32), 1024).
    """
    number = pool = 0
    for section in _EXTRACTION:
        if section is None:
            pool += 1
            x = _pool(x, pool)
            continue
        number += 1
        kernel, filters = section
        stride = 2 if number == 1 else 1
        x = darknet_conv(x, filters, kernel, number, stride=stride, batch_norm=batch_norm)
    return x


def detection_convolutions(x, *, batch_norm=True):
    """The four convolutions a detector adds to `extraction` (sec. 2.2): conv21 to conv24.

    Args:
        x: (B, H, W, 1024), what `extraction` returns.
        batch_norm: as there.

    Returns:
        (B, ceil(H/2), ceil(W/2), 1024): conv22 has stride 2.
    """
    for number in (21, 22, 23, 24):
        stride = 2 if number == 22 else 1
        x = darknet_conv(x, 1024, 3, number, stride=stride, batch_norm=batch_norm)
    return x


def darknet_reference(x, *, batch_norm=True):
    """The seven convolutions that the small trunks share (cfg/darknet.cfg): conv1 to conv7.

    Args:
        x: (B, H, W, 3) normalised image.
        batch_norm: the classifier and the releases from September 2016 on have it.

    Returns:
        (B, ceil(H/64), ceil(W/64), 1024).
    """
    for number, filters in enumerate((16, 32, 64, 128, 256, 512), start=1):
        x = darknet_conv(x, filters, 3, number, batch_norm=batch_norm)
        x = _pool(x, number)
    return darknet_conv(x, 1024, 3, 7, batch_norm=batch_norm)


def tiny(x, *, batch_norm=True):
    """Eight convolutions, the trunk of cfg/yolov1-tiny.cfg: conv1 to conv8.

    Args:
        x: (B, H, W, 3) normalised image.
        batch_norm: as released.

    Returns:
        (B, ceil(H/64), ceil(W/64), 256).
    """
    x = darknet_reference(x, batch_norm=batch_norm)
    return darknet_conv(x, 256, 3, 8, batch_norm=batch_norm)


def fast(x, *, batch_norm=False):
    """Nine convolutions, the trunk of the paper's Fast YOLO (cfg/yolo-tiny.cfg of 2015).

    Args:
        x: (B, H, W, 3) normalised image.
        batch_norm: the release has none.

    Returns:
        (B, ceil(H/64), ceil(W/64), 1024).
    """
    x = darknet_reference(x, batch_norm=batch_norm)
    for number in (8, 9):
        x = darknet_conv(x, 1024, 3, number, batch_norm=batch_norm)
    return x


def _pool(x, number):
    # Darknet pads right and bottom where the side is odd, as "same" does (maxpool_layer.c).
    return layers.MaxPooling2D(2, padding="same", name=f"pool{number}")(x)
