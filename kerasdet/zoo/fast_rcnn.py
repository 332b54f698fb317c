"""Builders of Fast R-CNN: the paper's three networks, and a small one."""

from kerasdet.backbones.small import FEATURE_LAYERS, small
from kerasdet.detectors.fast_rcnn import FastRCNN
from kerasdet.errors import InputError
from kerasdet.weights.file_format import recognise
from kerasdet.weights.maps import fast_rcnn as weights_map
from kerasdet.zoo import pretrained as pretrained_sets
from kerasdet.zoo.arguments import classes, is_own, is_path, wanted_count, with_own


def fast_rcnn_vgg16(num_classes=None, *, class_names=None, pretrained=False, **kwargs) -> FastRCNN:
    """Fast R-CNN on VGG-16, the paper's L: 134,690,729 weights in the release at 20 classes.

    Four times 4097 of those are background's offsets, which nothing reads and this one lacks.

    Args:
        num_classes: K, background not counted. None: the weight file's, or VOC's 20.
        class_names: names of the labels; say these or `num_classes`.
        pretrained: False, True or "voc" (the authors'), "imagenet" (all but the two outputs, from
            the authors' file), "imagenet_keras" (the same network, from keras.applications), or a
            weight file's path; one that was compressed gives a compressed model.
        **kwargs: as in `kerasdet.FastRCNN`; they come before what a weight file says.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Girshick, arXiv:1504.08083; rbgirshick/fast-rcnn, models/VGG16.
    """
    return _fast_rcnn("vgg16", num_classes, class_names, pretrained, kwargs)


def fast_rcnn_vgg_m_1024(
    num_classes=None, *, class_names=None, pretrained=False, **kwargs
) -> FastRCNN:
    """Fast R-CNN on VGG_CNN_M_1024, the paper's M.

    Args:
        num_classes: as in `fast_rcnn_vgg16`.
        class_names: as in `fast_rcnn_vgg16`.
        pretrained: False, True or "voc" (the authors'), "imagenet" (all but the two outputs), or a
            weight file's path.
        **kwargs: as in `kerasdet.FastRCNN`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Girshick, arXiv:1504.08083; rbgirshick/fast-rcnn, models/VGG_CNN_M_1024.
    """
    return _fast_rcnn("vgg_m_1024", num_classes, class_names, pretrained, kwargs)


def fast_rcnn_caffenet(
    num_classes=None, *, class_names=None, pretrained=False, **kwargs
) -> FastRCNN:
    """Fast R-CNN on CaffeNet, Caffe's AlexNet: the paper's S.

    Args:
        num_classes: as in `fast_rcnn_vgg16`.
        class_names: as in `fast_rcnn_vgg16`.
        pretrained: False, True or "voc" (the authors'), "imagenet" (all but the two outputs, from
            the authors' file), "imagenet_caffe" (the same network, from Caffe's model zoo), or a
            weight file's path.
        **kwargs: as in `kerasdet.FastRCNN`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Girshick, arXiv:1504.08083; rbgirshick/fast-rcnn, models/CaffeNet.
    """
    return _fast_rcnn("caffenet", num_classes, class_names, pretrained, kwargs)


def fast_rcnn_small(
    num_classes=None, *, class_names=None, pretrained=False, image_size=480, width=16, **kwargs
) -> FastRCNN:
    """Fast R-CNN on five plain convolutions, to train from scratch without a GPU; of no paper.

    Regions are pooled at stride 8 to 5x5 bins, then two connected layers of 256.

    Args:
        num_classes: K, background not counted. None: VOC's 20.
        class_names: names of the labels; say these or `num_classes`.
        pretrained: False, or the path of a `.weights.h5` of the same network.
        image_size: as in `kerasdet.FastRCNN`.
        width: filters of the first convolution; the last has 4 times as many.
        **kwargs: as in `kerasdet.FastRCNN`.

    Raises:
        InputError: if the weights do not fit.
    """
    arguments = {
        "name": "fast_rcnn_small",
        "backbone": small((None, None), width=width),
        "feature_layer": FEATURE_LAYERS[0],
        "pool_size": 5,
        "hidden": (256, 256),
        "image_size": image_size,
        **classes(num_classes, class_names),
        **kwargs,
    }
    return with_own(FastRCNN(**arguments), pretrained)


def _fast_rcnn(network, num_classes, class_names, pretrained, kwargs) -> FastRCNN:
    name = f"fast_rcnn_{network}"
    wanted_count(name, num_classes, class_names)
    kwargs = {"name": name, "backbone": network, **kwargs}
    if not pretrained:
        return FastRCNN(**classes(num_classes, class_names), **kwargs)
    path = pretrained if is_path(pretrained) else pretrained_sets.fetch(name, pretrained)
    if recognise(path) == "hdf5" and is_own(path):
        return with_own(FastRCNN(**classes(num_classes, class_names), **kwargs), path)
    weights = weights_map.read_fast_rcnn(path)
    if weights.network != network:
        raise InputError(f"{path} holds the network {weights.network}, not {network}.")
    of_file = weights.arguments()
    ours = classes(num_classes, class_names, default=of_file.pop("class_names", None))
    model = FastRCNN(**ours, **{**of_file, **kwargs})
    report = weights_map.load(model, weights, source=str(path), classes=class_names)
    if report.left:
        from rich.console import Console

        Console(stderr=True).print(report.table())
    return model
