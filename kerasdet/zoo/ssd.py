"""Builders of SSD: the two networks of the paper, and a small one."""

import keras

from kerasdet.backbones.small import FEATURE_LAYERS, small
from kerasdet.classes import COCO_NAMES, COCO_NAMES_BY_ID
from kerasdet.detectors.ssd import SSD
from kerasdet.errors import InputError
from kerasdet.weights.file_format import recognise
from kerasdet.weights.maps import ssd as ssd_weights
from kerasdet.zoo import pretrained as pretrained_sets
from kerasdet.zoo.arguments import classes, is_own, is_path, wanted_count, with_own


def ssd300(num_classes=None, *, class_names=None, pretrained=False, **kwargs) -> SSD:
    """SSD300 on VGG-16: 8732 default boxes, 26,285,486 weights at 20 classes.

    Args:
        num_classes: K, background not counted. None: the weight file's, or VOC's 20.
        class_names: names of the labels; say these or `num_classes`.
        pretrained: False, True (COCO, as torchvision trained it), "coco", "voc", "imagenet"
            (the trunk alone) or another set's name, or a weight file's path. See
            `kerasdet.zoo`.
        **kwargs: as in `kerasdet.SSD`; they come before what a weight file says.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Liu et al., SSD, arXiv:1512.02325; the Caffe release.
    """
    return _ssd("ssd300", 300, num_classes, class_names, pretrained, kwargs)


def ssd512(num_classes=None, *, class_names=None, pretrained=False, **kwargs) -> SSD:
    """SSD512 on VGG-16: 24564 default boxes, 27,188,676 weights at 20 classes.

    Args:
        num_classes: as in `ssd300`.
        class_names: as in `ssd300`.
        pretrained: as in `ssd300`; True is mmdetection's COCO training.
        **kwargs: as in `kerasdet.SSD`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Liu et al., SSD, arXiv:1512.02325; the Caffe release.
    """
    return _ssd("ssd512", 512, num_classes, class_names, pretrained, kwargs)


def ssd_small(
    num_classes=None, *, class_names=None, pretrained=False, image_size=300, width=16, **kwargs
) -> SSD:
    """SSD on nine plain convolutions, to train from scratch without a GPU; of no paper.

    Args:
        num_classes: K, background not counted. None: VOC's 20.
        class_names: names of the labels; say these or `num_classes`.
        pretrained: False, or the path of a `.weights.h5` of the same network.
        image_size: side of the square input, or (height, width), pixels.
        width: filters of the first convolution.
        **kwargs: as in `kerasdet.SSD`.

    Raises:
        InputError: if the weights do not fit.
    """
    height, across = image_size if isinstance(image_size, list | tuple) else (image_size,) * 2
    model = SSD(
        backbone=small((height, across), width=width),
        feature_layers=list(FEATURE_LAYERS),
        image_size=image_size,
        **classes(num_classes, class_names),
        **{"name": "ssd_small", **kwargs},
    )
    return with_own(model, pretrained)


def ssd_mobilenet(
    num_classes=None, *, class_names=None, pretrained=False, image_size=300, alpha=0.5, **kwargs
) -> SSD:
    """SSD on MobileNet, for machines without a GPU; for training from scratch.

    Args:
        num_classes: K, background not counted. None: VOC's 20.
        class_names: names of the labels; say these or `num_classes`.
        pretrained: False, True or "imagenet" (MobileNet's trunk, which Keras downloads), or
            the path of a `.weights.h5` of the same network.
        image_size: side of the square input, pixels.
        alpha: width of MobileNet, 0.25, 0.5, 0.75 or 1.
        **kwargs: as in `kerasdet.SSD`.

    Raises:
        InputError: if the weights cannot be had or do not fit.

    Source: Howard et al., MobileNets, arXiv:1704.04861; heads as in SSD.
    """
    wanted_count("ssd_mobilenet", num_classes, class_names)
    trunk = "imagenet" if pretrained in (True, "imagenet") else None
    try:
        backbone = keras.applications.MobileNet(
            (image_size, image_size, 3), alpha, include_top=False, weights=trunk
        )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise InputError(f"MobileNet could not be built or downloaded: {error}") from error
    model = SSD(
        backbone=backbone,
        feature_layers=["conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"],
        image_size=image_size,
        **classes(num_classes, class_names),
        **{"name": "ssd_mobilenet", **kwargs},
    )
    return with_own(model, None if trunk else pretrained)


def _ssd(name, side, num_classes, class_names, pretrained, kwargs) -> SSD:
    wanted_count(name, num_classes, class_names)
    kwargs = {"name": name, "image_size": side, **kwargs}
    if not pretrained:
        return SSD(**classes(num_classes, class_names), **kwargs)
    path = pretrained if is_path(pretrained) else pretrained_sets.fetch(name, pretrained)
    if recognise(path) == "hdf5" and is_own(path):
        return with_own(SSD(**classes(num_classes, class_names), **kwargs), path)
    weights = ssd_weights.read_ssd(path)
    if weights.class_names == list(COCO_NAMES_BY_ID) and list(class_names or ()) == list(
        COCO_NAMES
    ):
        weights = ssd_weights.without_coco_gaps(weights)
    of_file = weights.arguments()
    if weights.boxes is not None and weights.boxes.image_size != side:
        raise InputError(f"{path} holds an SSD{weights.boxes.image_size}, not an SSD{side}.")
    theirs = of_file.pop("class_names", None)
    ours = classes(num_classes, class_names, default=theirs)
    model = SSD(**ours, **{**of_file, **kwargs})
    report = ssd_weights.load(model, weights, source=str(path), classes=class_names)
    if report.left:
        from rich.console import Console

        Console(stderr=True).print(report.table())
    return model
