"""The detectors, and their classifiers, by name: `kerasdet.zoo.ssd300(pretrained=True)`.

Every builder takes the same arguments. `pretrained` is False; True for the default set;
a set's name ("voc", "coco", ...); or the path of a weight file, whose format is recognised
by its content and whose classes and default boxes are the network's when no classes are
given. With other classes than the file's, everything but the class outputs is loaded, and
a table says what was not.
"""

from typing import Any

from kerasdet.errors import InputError
from kerasdet.zoo import pretrained as pretrained_sets
from kerasdet.zoo.fast_rcnn import (
    fast_rcnn_caffenet,
    fast_rcnn_small,
    fast_rcnn_vgg16,
    fast_rcnn_vgg_m_1024,
)
from kerasdet.zoo.overfeat import (
    overfeat_accurate,
    overfeat_accurate_classifier,
    overfeat_fast,
    overfeat_fast_classifier,
)
from kerasdet.zoo.ssd import ssd300, ssd512, ssd_mobilenet, ssd_small
from kerasdet.zoo.yolo import (
    darknet19,
    darknet_reference,
    extraction,
    tiny_darknet,
    yolo9000,
    yolo_v1,
    yolo_v1_tiny,
    yolo_v2,
    yolo_v2_small,
    yolo_v2_tiny,
)

_BUILDERS = {
    "fast_rcnn_vgg16": fast_rcnn_vgg16,
    "fast_rcnn_vgg_m_1024": fast_rcnn_vgg_m_1024,
    "fast_rcnn_caffenet": fast_rcnn_caffenet,
    "fast_rcnn_small": fast_rcnn_small,
    "overfeat_fast": overfeat_fast,
    "overfeat_accurate": overfeat_accurate,
    "ssd300": ssd300,
    "ssd512": ssd512,
    "ssd_mobilenet": ssd_mobilenet,
    "ssd_small": ssd_small,
    "yolo_v1": yolo_v1,
    "yolo_v1_tiny": yolo_v1_tiny,
    "yolo_v2": yolo_v2,
    "yolo_v2_small": yolo_v2_small,
    "yolo_v2_tiny": yolo_v2_tiny,
    "yolo9000": yolo9000,
    "darknet19": darknet19,
    "extraction": extraction,
    "darknet_reference": darknet_reference,
    "tiny_darknet": tiny_darknet,
    "overfeat_fast_classifier": overfeat_fast_classifier,
    "overfeat_accurate_classifier": overfeat_accurate_classifier,
}

CLASSIFIERS = (
    "darknet19",
    "extraction",
    "darknet_reference",
    "tiny_darknet",
    "overfeat_fast_classifier",
    "overfeat_accurate_classifier",
)
"""Those of the builders that make no detector."""

__all__ = ["CLASSIFIERS", "build", "models", *_BUILDERS]


def build(name: str, **kwargs: Any):
    """Builds a detector or a classifier by its name, with the arguments of its builder.

    Raises:
        InputError: if there is no model of that name.
    """
    if name not in _BUILDERS:
        detectors = [known for known in _BUILDERS if known not in CLASSIFIERS]
        raise InputError(
            f"Wanted one of the detectors {', '.join(detectors)}, or of the classifiers "
            f"{', '.join(CLASSIFIERS)}, not {name!r}."
        )
    return _BUILDERS[name](**kwargs)


def models() -> list[dict[str, Any]]:
    """What there is to build and to load: one row a pretrained set, and one a model without any.

    Returns:
        Dicts with "model", and for a set what `pretrained.Pretrained.summary` says of it.
    """
    rows = [row.summary() for row in pretrained_sets.SETS]
    listed = {row["model"] for row in rows}
    return rows + [{"model": name} for name in _BUILDERS if name not in listed]
