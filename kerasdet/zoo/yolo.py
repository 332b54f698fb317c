"""Builders of the YOLO family: v1, v2, YOLO9000, and the classifiers that they start from.

A darknet `.weights` file has no names and no shapes. Which network it is for follows from how
many numbers it holds: the tables below have the released networks, and the count of classes is
what is left to solve for.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from kerasdet.backbones.small import FEATURE_LAYERS, small
from kerasdet.classes import COCO_NAMES, VOC_NAMES, named_classes
from kerasdet.classifier import Classifier
from kerasdet.classifier import darknet19 as darknet19_classifier
from kerasdet.classifier import darknet_reference as darknet_reference_classifier
from kerasdet.classifier import extraction as extraction_classifier
from kerasdet.classifier import tiny_darknet as tiny_darknet_classifier
from kerasdet.detectors.yolo9000 import YOLO9000
from kerasdet.detectors.yolo_v1 import YOLOv1
from kerasdet.detectors.yolo_v2 import YOLOv2
from kerasdet.errors import InputError
from kerasdet.weights.darknet_file import read_darknet
from kerasdet.weights.fetch import fetch
from kerasdet.weights.file_format import recognise
from kerasdet.weights.maps import darknet as darknet_weights
from kerasdet.word_tree import WordTree
from kerasdet.zoo import pretrained as pretrained_sets
from kerasdet.zoo.arguments import classes, is_path, wanted_count, with_own


class _Layout(NamedTuple):
    """A released network, but for its classes.

    Attributes:
        floats: numbers in its file.
        classes: K of that file.
        per_class: numbers that one more class adds to the output layer.
        arguments: what the size follows from; a caller who says otherwise has another network.
        settings: what else the constructor has to be told.
        by_classes: further settings where K is the release's.
    """

    floats: int
    classes: int
    per_class: int
    arguments: dict[str, Any]
    settings: Mapping[str, Any] = MappingProxyType({})
    by_classes: Mapping[int, dict[str, Any]] = MappingProxyType({})

    def solved(self, floats: int) -> int:
        """K of a file of so many numbers; 0 where none fits."""
        more, rest = divmod(floats - self.floats, self.per_class)
        return max(self.classes + more, 0) if not rest else 0

    def agrees(self, given: dict[str, Any]) -> bool:
        """Whether a caller's arguments leave the network as it is."""
        return all(given.get(name, own) == own for name, own in self.arguments.items())


# A class adds 49 cells * (inputs + bias) to YOLO v1's last connected layer. The counts are the
# sizes of the published files, and of yolo-small and yolo-tiny what their cfg files come to.
_V1_LOCAL = 49 * (7 * 7 * 256 + 1)
_V1_HIDDEN = 49 * (4096 + 1)
_LOCAL = {"backbone": "extraction", "head": "local"}
_PAPER = {"backbone": "extraction", "head": "paper", "boxes_per_cell": 2}
_V1 = (
    _Layout(197_328_243, 20, _V1_LOCAL, {**_LOCAL, "boxes_per_cell": 3}),
    _Layout(194_254_718, 20, _V1_LOCAL, {**_LOCAL, "boxes_per_cell": 2}),
    _Layout(271_703_550, 20, _V1_HIDDEN, {**_PAPER, "hidden": (4096,)}),
    _Layout(
        93_970_430, 20, _V1_HIDDEN, {**_PAPER, "hidden": (512, 4096)}, {"input_range": (-1, 1)}
    ),
)
_V1_TINY = (
    _Layout(27_099_950, 20, _V1_LOCAL, {"backbone": "tiny", "boxes_per_cell": 2}),
    _Layout(67_055_775, 80, _V1_LOCAL, {"backbone": "tiny", "boxes_per_cell": 3}),  # tiny-coco.cfg
    _Layout(45_089_374, 20, _V1_HIDDEN, {"backbone": "fast", "boxes_per_cell": 2}),
)

# A class adds five priors' filters of 1024 (or 512) inputs and a bias to YOLOv2's last convolution.
_V2 = (
    _Layout(
        50_983_561,
        80,
        5 * 1025,
        {"backbone": "darknet19", "passthrough_filters": 64},
        by_classes={80: {"anchors": "coco", "image_size": 608}, 20: {"anchors": "voc"}},
    ),
    _Layout(  # before the passthrough was squeezed, November 2016
        67_465_609,
        80,
        5 * 1025,
        {"backbone": "darknet19", "passthrough_filters": None},
        by_classes={80: {"anchors": "coco_2016"}, 20: {"anchors": "voc_2016"}},
    ),
)
_V2_TINY = (
    _Layout(
        15_867_885,
        20,
        5 * 1025,
        {"backbone": "tiny", "head_filters": (1024,)},
        by_classes={80: {"anchors": "coco_2016"}},
    ),
    _Layout(
        11_237_145,
        80,
        5 * 513,
        {"backbone": "tiny", "head_filters": (512,)},
        {"loss": {"rescore": False}},
        by_classes={80: {"anchors": "coco"}},
    ),
)


class _Trunk(NamedTuple):
    """Convolutions that a detector starts from, trained as a classifier of one more, 1x1.

    Attributes:
        backbone: the detector's.
        floats: their numbers.
        layers: how many they are.
        batch_norm: whether they are normalised.
    """

    backbone: str
    floats: int
    layers: int
    batch_norm: bool


# A file of the trunk alone or of the whole classifier will do. Of extraction.conv.weights there are
# two: the older is from before darknet normalised.
_PER_CLASS = 1024 + 1
_MOST_CLASSES = 21_842  # darknet's list of all of ImageNet (cfg/extraction22k.cfg)
_TRUNKS = (
    _Trunk("darknet19", 19_831_776, 18, True),  # darknet19_448.conv.23
    _Trunk("extraction", 22_430_400, 20, True),
    _Trunk("extraction", 22_403_136, 20, False),
    _Trunk("tiny", 6_298_480, 7, True),  # darknet.conv.weights
    _Trunk("fast", 6_298_480, 7, True),
)

_RELEASED_CLASSES = {20: VOC_NAMES, 80: COCO_NAMES}


def yolo_v1(num_classes=None, *, class_names=None, pretrained=False, **kwargs) -> YOLOv1:
    """YOLO v1 on its 24 convolutions: 98 boxes with the paper's head, 147 with the released one.

    Args:
        num_classes: K. None: the weight file's, or VOC's 20.
        class_names: names of the labels; say these or `num_classes`.
        pretrained: False, True (darknet's VOC training of 2016), "voc", "voc_2016", "imagenet"
            (the trunk alone), or a weight file's path; of a classifier's the trunk is loaded.
            Head, classes and a trunk's `batch_norm` follow from a file's size, but not
            `input_range`: the network of 2015 that the paper describes saw -1..1, and has as
            many numbers as the one that sees 0..1.
        **kwargs: as in `kerasdet.YOLOv1`; they come before what a weight file says.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Redmon et al., arXiv:1506.02640; darknet cfg/yolov1.cfg.
    """
    kwargs = {"name": "yolo_v1", "backbone": "extraction", **kwargs}
    return _detector(YOLOv1, _V1, num_classes, class_names, pretrained, kwargs)


def yolo_v1_tiny(num_classes=None, *, class_names=None, pretrained=False, **kwargs) -> YOLOv1:
    """The small YOLO v1: darknet's eight convolutions, or with `backbone="fast"` the paper's nine.

    Args:
        num_classes: as in `yolo_v1`.
        class_names: as in `yolo_v1`.
        pretrained: False, True (darknet's VOC training), "voc", "imagenet" (seven convolutions
            of `darknet_reference`), or a weight file's path.
        **kwargs: as in `kerasdet.YOLOv1`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Redmon et al., arXiv:1506.02640, sec. 2.1 (Fast YOLO); cfg/yolov1-tiny.cfg.
    """
    kwargs = {"name": "yolo_v1_tiny", "backbone": "tiny", **kwargs}
    return _detector(YOLOv1, _V1_TINY, num_classes, class_names, pretrained, kwargs)


def yolo_v2(num_classes=None, *, class_names=None, pretrained=False, **kwargs) -> YOLOv2:
    """YOLOv2 on Darknet-19 with passthrough: 50,676,061 numbers at 20 classes.

    Args:
        num_classes: K. None: the weight file's, or VOC's 20.
        class_names: names of the labels; say these or `num_classes`.
        pretrained: False, True (darknet's COCO training, 608 pixels), "coco", "voc",
            "imagenet" (the trunk alone), or a weight file's path; of a classifier's the trunk
            is loaded.
        **kwargs: as in `kerasdet.YOLOv2`; they come before what a weight file says.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Redmon and Farhadi, arXiv:1612.08242; darknet cfg/yolov2.cfg, cfg/yolov2-voc.cfg.
    """
    kwargs = {"name": "yolo_v2", "backbone": "darknet19", **kwargs}
    return _detector(YOLOv2, _V2, num_classes, class_names, pretrained, kwargs)


def yolo_v2_tiny(num_classes=None, *, class_names=None, pretrained=False, **kwargs) -> YOLOv2:
    """The small YOLOv2: nine convolutions, no passthrough, 15,867,885 numbers at 20 classes.

    Args:
        num_classes: as in `yolo_v2`.
        class_names: as in `yolo_v2`.
        pretrained: False, True (darknet's COCO training), "coco", "voc", "imagenet" (seven
            convolutions of `darknet_reference`), or a weight file's path.
        **kwargs: as in `kerasdet.YOLOv2`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: darknet cfg/yolov2-tiny.cfg, cfg/yolov2-tiny-voc.cfg.
    """
    kwargs = {"name": "yolo_v2_tiny", "backbone": "tiny", **kwargs}
    return _detector(YOLOv2, _V2_TINY, num_classes, class_names, pretrained, kwargs)


def yolo_v2_small(
    num_classes=None, *, class_names=None, pretrained=False, image_size=416, width=24, **kwargs
) -> YOLOv2:
    """YOLOv2 on nine plain convolutions, to train from scratch without a GPU; of no paper.

    Args:
        num_classes: K. None: VOC's 20.
        class_names: names of the labels; say these or `num_classes`.
        pretrained: False, or the path of a `.weights.h5` of the same network.
        image_size: side of the square input, or (height, width), multiples of 32.
        width: filters of the first convolution; the head has 16 times as many.
        **kwargs: as in `kerasdet.YOLOv2`.

    Raises:
        InputError: if the weights do not fit.
    """
    arguments = {
        "name": "yolo_v2_small",
        "backbone": small((None, None), width=width),
        "feature_layers": list(FEATURE_LAYERS[1:]),
        "image_size": image_size,
        "passthrough_filters": 2 * width,
        "head_filters": (16 * width,),
        **classes(num_classes, class_names),
        **kwargs,
    }
    return with_own(YOLOv2(**arguments), pretrained)


def yolo9000(
    num_classes=None, *, class_names=None, tree=None, pretrained=False, **kwargs
) -> YOLO9000:
    """YOLO9000: Darknet-19 and a WordTree of 9418 nodes, 48,807,501 numbers.

    Args:
        num_classes: how many classes of one level there are, where there is no tree.
        class_names: their names.
        tree: a `kerasdet.word_tree.WordTree`, or the path of a `.json` or `.tree` file (names
            in a `.names` file beside it). None: classes of one level if those are given, else
            darknet's 9k.tree, which is downloaded.
        pretrained: False, True or "coco_imagenet" (the authors'), "imagenet" (Darknet-19's
            trunk), or a weight file's path; of Darknet-19's the trunk is loaded.
        **kwargs: as in `kerasdet.YOLO9000`.

    Raises:
        InputError: if the tree or the weights cannot be had or do not fit; it says what to do.

    Source: Redmon and Farhadi, arXiv:1612.08242, sec. 4; darknet cfg/yolo9000.cfg.
    """
    if tree is None and (class_names is not None or num_classes is not None):
        names = named_classes("yolo9000", num_classes, class_names)
        tree = WordTree(names, [-1] * len(names))
    model = YOLO9000(_tree(tree), **{"name": "yolo9000", **kwargs})
    if not pretrained:
        return model
    path = _path("yolo9000", pretrained)
    if recognise(path) == "hdf5":
        return with_own(model, path)
    count = read_darknet(path).numbers.size
    trunk = _trunk(kwargs.get("backbone", "darknet19"), count)
    whole = darknet_weights.expected_floats(model) == count
    return _load(model, path, layers=trunk.layers if trunk and not whole else None)


def darknet19(num_classes=None, *, class_names=None, pretrained=False, **kwargs) -> Classifier:
    """Darknet-19, YOLOv2's classifier: 20,856,776 numbers at 1000 classes.

    Args:
        num_classes: K. None: ImageNet's 1000.
        class_names: names of the labels; say these or `num_classes`.
        pretrained: False, True or "imagenet" (fine-tuned at 448 pixels), "imagenet_224", or a
            weight file's path. With other classes than the file's, all but the output layer
            is loaded.
        **kwargs: as in `kerasdet.classifier.darknet19`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Redmon and Farhadi, arXiv:1612.08242, sec. 3; darknet cfg/darknet19.cfg.
    """
    kwargs = {"name": "darknet19", **kwargs}
    return _classifier(darknet19_classifier, num_classes, class_names, pretrained, kwargs)


def extraction(num_classes=None, *, class_names=None, pretrained=False, **kwargs) -> Classifier:
    """The classifier whose 20 convolutions YOLO v1 starts from: 23,455,400 numbers at 1000 classes.

    Args:
        num_classes: as in `darknet19`.
        class_names: as in `darknet19`.
        pretrained: False, True or "imagenet", or a weight file's path.
        **kwargs: as in `kerasdet.classifier.extraction`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: Redmon et al., arXiv:1506.02640, sec. 2.2; darknet cfg/extraction.cfg.
    """
    kwargs = {"name": "extraction", **kwargs}
    return _classifier(extraction_classifier, num_classes, class_names, pretrained, kwargs)


def darknet_reference(
    num_classes=None, *, class_names=None, pretrained=False, **kwargs
) -> Classifier:
    """The classifier whose seven convolutions the tiny YOLOs start from: 7,323,480 numbers.

    Args:
        num_classes: as in `darknet19`.
        class_names: as in `darknet19`.
        pretrained: False, True or "imagenet", or a weight file's path.
        **kwargs: as in `kerasdet.classifier.darknet_reference`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: darknet cfg/darknet.cfg.
    """
    kwargs = {"name": "darknet_reference", **kwargs}
    return _classifier(darknet_reference_classifier, num_classes, class_names, pretrained, kwargs)


def tiny_darknet(num_classes=None, *, class_names=None, pretrained=False, **kwargs) -> Classifier:
    """Tiny Darknet, a classifier of 4 MB: 1,046,488 numbers at 1000 classes.

    Args:
        num_classes: as in `darknet19`.
        class_names: as in `darknet19`.
        pretrained: False, True or "imagenet", or a weight file's path.
        **kwargs: as in `kerasdet.classifier.tiny_darknet`.

    Raises:
        InputError: if the weights cannot be had or do not fit; it says what to do.

    Source: darknet cfg/tiny.cfg.
    """
    kwargs = {"name": "tiny_darknet", **kwargs}
    return _classifier(tiny_darknet_classifier, num_classes, class_names, pretrained, kwargs)


# ------------------------------------------------------------------------ helpers


def _detector(kind, layouts, num_classes, class_names, pretrained, kwargs):
    given = wanted_count(kwargs["name"], num_classes, class_names)
    if not pretrained:
        return kind(**classes(num_classes, class_names), **kwargs)
    path = _path(kwargs["name"], pretrained)
    if recognise(path) == "hdf5":
        return with_own(kind(**classes(num_classes, class_names), **kwargs), path)
    count = read_darknet(path).numbers.size
    fitting = _fitting(layouts, count, kwargs, given)
    if not fitting and (trunk := _trunk(kwargs["backbone"], count)):
        normalised = {"batch_norm": trunk.batch_norm}
        if kwargs.get("batch_norm") not in (None, trunk.batch_norm):
            raise InputError(
                f"{path} holds convolutions {'with' if trunk.batch_norm else 'without'} batch "
                f"normalisation, and {kwargs['name']} was asked for with "
                f"batch_norm={kwargs['batch_norm']}."
            )
        model = kind(**classes(num_classes, class_names), **{**kwargs, **normalised})
        return _load(model, path, layers=trunk.layers)
    if not fitting:  # the first layers of a network, or another network, which `load` will say
        model = kind(**classes(num_classes, class_names), **kwargs)
        return _load(model, path, outputs=True)
    if given is None and len(fitting) > 1 and is_path(pretrained):
        _say_which(fitting, path)
    layout, theirs = fitting[0]
    names = _RELEASED_CLASSES.get(theirs, [f"class {label}" for label in range(theirs)])
    ours = classes(num_classes, class_names, default=names)
    of_file = {**layout.arguments, **layout.settings, **layout.by_classes.get(theirs, {})}
    if given not in (None, theirs):
        of_file.pop("image_size", None)
    model = kind(**ours, **{**of_file, **kwargs})
    return _load(model, path, outputs=darknet_weights.expected_floats(model) == count)


def _fitting(layouts, floats, kwargs, given=None) -> list[tuple[_Layout, int]]:
    """Each (layout, K) that a file may be of: the caller's K first, then a release's, then others."""
    kwargs = {name: tuple(v) if isinstance(v, list) else v for name, v in kwargs.items()}
    solved = [(layout, layout.solved(floats)) for layout in layouts if layout.agrees(kwargs)]
    solved = [(layout, count) for layout, count in solved if count > 0]
    return sorted(solved, key=lambda pair: (pair[1] != given, pair[1] not in _RELEASED_CLASSES))


def _trunk(backbone, floats) -> _Trunk | None:
    """The trunk that a file of so many numbers begins with, if it is this backbone's."""
    for trunk in _TRUNKS:
        count, rest = divmod(floats - trunk.floats, _PER_CLASS)
        if trunk.backbone == backbone and 0 <= count <= _MOST_CLASSES and not rest:
            return trunk
    return None


def _say_which(fitting, path):
    """Networks of several heads have as many numbers, each for other classes: which is taken."""
    first, *others = (
        f"{count} classes with "
        + ", ".join(f"{name}={value!r}" for name, value in layout.arguments.items())
        for layout, count in fitting
    )
    _tell(
        f"{path} is read as {first}; as many numbers has {' or '.join(others)}: say num_classes, "
        "class_names or these arguments if it is that."
    )


def _classifier(build, num_classes, class_names, pretrained, kwargs):
    given = wanted_count(kwargs["name"], num_classes, class_names)
    if class_names is not None:
        kwargs = {"class_names": class_names, **kwargs}
    count = 1000 if given is None else given
    model = build(count, **kwargs)
    if not pretrained:
        return model
    path = _path(kwargs["name"], pretrained)
    if recognise(path) == "hdf5":
        return with_own(model, path)
    width = darknet_weights.output_width(model, read_darknet(path).numbers.size)
    return _load(model, path, outputs=width in (None, count))


def _path(name, pretrained) -> Path:
    path = pretrained if is_path(pretrained) else pretrained_sets.fetch(name, pretrained)
    if recognise(path) not in ("darknet", "hdf5"):
        raise InputError(
            f"{name} reads darknet's .weights and Keras' .weights.h5, and {path} is neither."
        )
    return Path(path)


def _load(model, path, *, outputs=True, layers=None):
    report = darknet_weights.load(model, path, partial=True, outputs=outputs, layers=layers)
    if report.left:
        _tell(report.table())
    return model


def _tell(what):
    from rich.console import Console

    Console(stderr=True).print(what)


def _tree(tree) -> WordTree:
    if isinstance(tree, WordTree):
        return tree
    if tree is None:
        return WordTree.from_darknet(*(fetch(file) for file in pretrained_sets.TREE))
    if not isinstance(tree, str | Path):
        return WordTree.from_config(tree)
    path = Path(tree)
    if path.suffix == ".json":
        return WordTree.from_json(path)
    names = path.with_suffix(".names")
    return WordTree.from_darknet(path, names if names.is_file() else None)
