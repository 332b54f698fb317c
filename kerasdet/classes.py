"""The class lists that released detectors were trained on."""

import re
from collections.abc import Sequence
from numbers import Integral

from kerasdet.errors import InputError

# Everingham et al., The PASCAL VOC Challenge, table 1; labelmap_voc.prototxt of the SSD release.
VOC_NAMES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip

# The 80 categories of COCO's instances_*2017.json by rising category id.
COCO_NAMES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote",
    "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

# COCO's category ids run from 1 to 90 and skip these, which have no objects.
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

# The category id of each of COCO_NAMES.
COCO_IDS: tuple[int, ...] = tuple(i for i in range(1, 91) if i not in _COCO_GAPS)


def _by_id() -> tuple[str, ...]:
    names = dict(zip(COCO_IDS, COCO_NAMES, strict=True))
    return tuple(names.get(i, f"unused {i}") for i in range(1, 91))


# Names of the labels 0..89 of networks that use COCO's ids as they are (torchvision's): label
# id - 1. The ten ids without objects are named "unused 12" and so on; nothing taught the
# network to find them.
COCO_NAMES_BY_ID: tuple[str, ...] = _by_id()


# VOC's words for what COCO has other words for.
_IN_COCOS_WORDS = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def common_name(name: str) -> str:
    """The one word for a class that VOC and COCO name differently; any other name as it is."""
    return _IN_COCOS_WORDS.get(name, name)


def overfeat_labels(count: int) -> list[str]:
    """Stand-ins for names that are not known, of labels whose order is OverFeat's own.

    Unlike "class 0", "class 1", ... they say that data of as many classes has another order.
    """
    return [f"OverFeat label {label}" for label in range(count)]


def about_names(names) -> str:
    """What to do about stand-ins of `overfeat_labels`, as the end of a sentence; else ""."""
    if list(names) != overfeat_labels(len(names)):
        return ""
    return (
        "; the release's labels are in an order of OverFeat's own, neither by synset nor by alphabet: "
        "give their names in that order (src/classes.h of its sources), in the data's words, as "
        "class_names=FILE of the model's builder or --model-classes FILE, one a line"
    )


def listed(names) -> str:
    """The names for a sentence; of many the first ten and how many more."""
    rest = len(names) - 10
    return ", ".join(names) if rest <= 10 else f"{', '.join(names[:10])} and {rest} others"


def are_generic(names) -> bool:
    """Whether a detector was only told how many classes there are ("class 0", "class 1", ...)."""
    return all(re.fullmatch(r"class \d+", name) for name in names)


def is_unused(name: str) -> bool:
    """Whether this is one of `COCO_NAMES_BY_ID`'s ids without objects."""
    return re.fullmatch(r"unused \d+", name) is not None


def named_classes(of, num_classes, class_names) -> list[str]:
    """The names of a network's labels, from what its constructor was given of the two.

    Args:
        of: the network's name, for an error.
        num_classes: K, or None: as many as `class_names`.
        class_names: K names, or None: "class 0", "class 1", ...

    Raises:
        InputError: if neither is given, they do not agree, or are no number and no names.
    """
    if num_classes is None and class_names is None:
        raise InputError(f"{of} wants num_classes or class_names.")
    if class_names is None:
        if not isinstance(num_classes, Integral) or num_classes < 1:
            raise InputError(f"{of} wants at least one class, not num_classes={num_classes!r}.")
        return [f"class {label}" for label in range(num_classes)]
    if isinstance(class_names, str) or not isinstance(class_names, Sequence):
        raise InputError(f"{of} wants a list of names as class_names, not {class_names!r}.")
    if not class_names or num_classes not in (None, len(class_names)):
        raise InputError(
            f"num_classes={num_classes} does not fit the {len(class_names)} class_names."
        )
    return [str(name) for name in class_names]
