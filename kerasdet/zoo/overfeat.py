"""Builders of OverFeat: the release's two networks, each as a detector and as the classifier it is."""

from pathlib import Path

from kerasdet import classifier
from kerasdet.backbones.overfeat import layout_of, scaled
from kerasdet.classes import overfeat_labels
from kerasdet.classifier import Classifier
from kerasdet.data import class_names as names_of
from kerasdet.detectors.overfeat import OverFeat
from kerasdet.errors import InputError
from kerasdet.weights.file_format import recognise
from kerasdet.weights.maps import overfeat as weights_map
from kerasdet.weights.overfeat_file import class_count, read_overfeat, released
from kerasdet.zoo import pretrained as pretrained_sets
from kerasdet.zoo.arguments import classes, is_path, wanted_count

_RELEASED_CLASSES = 1000


def overfeat_fast(
    num_classes=None, *, class_names=None, pretrained=False, width=1.0, **kwargs
) -> OverFeat:
    """OverFeat's fast network, windows of 231 pixels: 145,920,872 weights released, at 1000 classes.

    Those are the classifier's; the regression and the background class come on top and start fresh,
    unless a `.weights.h5` has them.

    Args:
        num_classes: K, background not counted. None: the weight file's, or VOC's 20.
        class_names: names of the labels, or a text file with one a line; say these or `num_classes`. The
            release's labels are in an order of OverFeat's own (src/classes.h of its sources), whose
            names do not come with this package: without any they are "OverFeat label 0", ...
        pretrained: False, True or "imagenet" (the authors'), or a weight file's path: raw floats as
            the authors', or the `.weights.h5` of a `Classifier` or of an `OverFeat` of the same
            network and width.
        width: what the channels are multiplied by.
        **kwargs: as in `kerasdet.OverFeat`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Sermanet et al., arXiv:1312.6229, table 1; the release's net_weight_0.
    """
    return _overfeat("fast", num_classes, class_names, pretrained, {"width": width, **kwargs})


def overfeat_accurate(
    num_classes=None, *, class_names=None, pretrained=False, width=1.0, **kwargs
) -> OverFeat:
    """OverFeat's accurate network, windows of 221 pixels: 144,656,488 weights released.

    Args:
        num_classes: as in `overfeat_fast`.
        class_names: as in `overfeat_fast`.
        pretrained: as in `overfeat_fast`.
        width: what the channels are multiplied by.
        **kwargs: as in `kerasdet.OverFeat`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Sermanet et al., arXiv:1312.6229, table 3; the release's net_weight_1.
    """
    return _overfeat("accurate", num_classes, class_names, pretrained, {"width": width, **kwargs})


def overfeat_fast_classifier(
    num_classes=None, *, class_names=None, pretrained=False, width=1.0, **kwargs
) -> Classifier:
    """OverFeat's fast network as it was released: the classifier alone, 145,920,872 weights.

    Args:
        num_classes: K. None: the weight file's, or ImageNet's 1000.
        class_names: as in `overfeat_fast`.
        pretrained: as in `overfeat_fast`.
        width: what the channels are multiplied by.
        **kwargs: as in `kerasdet.Classifier`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: as of `overfeat_fast`.
    """
    return _classifier("fast", num_classes, class_names, pretrained, {"width": width, **kwargs})


def overfeat_accurate_classifier(
    num_classes=None, *, class_names=None, pretrained=False, width=1.0, **kwargs
) -> Classifier:
    """OverFeat's accurate network as it was released: the classifier alone, 144,656,488 weights.

    Args:
        num_classes: as in `overfeat_fast_classifier`.
        class_names: as in `overfeat_fast`.
        pretrained: as in `overfeat_fast`.
        width: what the channels are multiplied by.
        **kwargs: as in `kerasdet.Classifier`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: as of `overfeat_accurate`.
    """
    return _classifier("accurate", num_classes, class_names, pretrained, {"width": width, **kwargs})


def _overfeat(network, num_classes, class_names, pretrained, kwargs) -> OverFeat:
    name = f"overfeat_{network}"
    class_names = names_of.resolve(class_names)
    wanted_count(name, num_classes, class_names)
    kwargs = {"name": name, "network": network, **kwargs}
    if not pretrained:
        return OverFeat(**classes(num_classes, class_names), **kwargs)

    def build(**of_classes):
        return OverFeat(**of_classes, **kwargs)

    return _loaded(build, network, num_classes, class_names, pretrained, kwargs)


def _classifier(network, num_classes, class_names, pretrained, kwargs) -> Classifier:
    builder = getattr(classifier, f"overfeat_{network}")
    name = f"overfeat_{network}_classifier"
    class_names = names_of.resolve(class_names)
    wanted_count(name, num_classes, class_names)
    kwargs = {"name": name, **kwargs}

    def build(num_classes, class_names):
        return builder(num_classes, class_names=class_names, **kwargs)

    if not pretrained:
        if num_classes is None and class_names is None:
            num_classes = _RELEASED_CLASSES
        return build(num_classes, class_names)
    wanted = {"network": network, **kwargs}
    return _loaded(build, network, num_classes, class_names, pretrained, wanted)


def _loaded(build, network, num_classes, class_names, pretrained, kwargs):
    """What is built for the file's classes or others, with the file's weights."""
    name = kwargs["name"]
    if is_path(pretrained):
        path = Path(pretrained)
    else:
        path = pretrained_sets.fetch(f"overfeat_{network}", pretrained)
    kind = recognise(path)
    if kind == "hdf5":
        arrays = weights_map.read_own(path)
        theirs = arrays["classes/kernel"].shape[-1]
    elif kind == "overfeat":
        theirs = _classes_of(path, network, kwargs)
    else:
        raise InputError(f"{name} reads raw floats and Keras' .weights.h5, and {path} is neither.")
    if class_names is None and num_classes in (None, theirs):
        num_classes = theirs
        if kind == "overfeat" and theirs == _RELEASED_CLASSES:
            class_names = overfeat_labels(theirs)
    model = build(num_classes=num_classes, class_names=class_names)
    if kind == "hdf5":
        report = weights_map.load_own(model, arrays, source=str(path))
    else:
        report = weights_map.load(model, path, outputs=model.num_classes == theirs)
    if report.left:
        from rich.console import Console

        Console(stderr=True).print(report.table())
    return model


def _classes_of(path, network, kwargs) -> int:
    """K of a raw file of this network."""
    layout = layout_of(kwargs["network"])
    shapes = _shapes(layout, kwargs["width"])
    hidden = shapes[-1][0]
    theirs = class_count(path, shapes, hidden)
    if theirs is None or released(path.stat().st_size) not in (None, network):
        read_overfeat(path, [*shapes, (_RELEASED_CLASSES, hidden, 1, 1)])  # says what is wrong
    return theirs or _RELEASED_CLASSES


def _shapes(layout, width):
    """(out, in, kernel rows, kernel columns) of the layers below the classes'."""
    sides = [*((layer.filters, layer.kernel) for layer in layout.convolutions)]
    sides += [(layout.hidden[0], layout.kernel), (layout.hidden[1], 1)]
    found, channels = [], 3
    for filters, side in sides:
        found.append((scaled(filters, width), channels, side, side))
        channels = found[-1][0]
    return found
