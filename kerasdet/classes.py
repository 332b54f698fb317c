"""The class lists that released detectors were trained on."""

import re

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


def are_generic(names) -> bool:
    """Whether a detector was only told how many classes there are ("class 0", "class 1", ...)."""
    return all(re.fullmatch(r"class \d+", name) for name in names)


def is_unused(name: str) -> bool:
    """Whether this is one of `COCO_NAMES_BY_ID`'s ids without objects."""
    return re.fullmatch(r"unused \d+", name) is not None
