"""The detectors that founded object detection, in Keras 3.

    model = kerasdet.zoo.ssd300(pretrained=True)
    for found in model.detect([image]):
        print(found.boxes, found.scores, found.names)

Importing kerasdet does no work: each name below is imported when it is first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_MODULES = (
    "boxes",
    "data",
    "evaluation",
    "export",
    "layers",
    "losses",
    "matching",
    "visualize",
    "weights",
    "zoo",
)
_NAMES = {
    "Classifier": "kerasdet.classifier",
    "FastRCNN": "kerasdet.detectors.fast_rcnn",
    "SSD": "kerasdet.detectors.ssd",
    "Detector": "kerasdet.detectors.detector",
    "Detections": "kerasdet.suppression",
    "InputError": "kerasdet.errors",
    "OverFeat": "kerasdet.detectors.overfeat",
    "Recipe": "kerasdet.recipe",
    "WordTree": "kerasdet.word_tree",
    "YOLO9000": "kerasdet.detectors.yolo9000",
    "YOLOv1": "kerasdet.detectors.yolo_v1",
    "YOLOv2": "kerasdet.detectors.yolo_v2",
    "load": "kerasdet.opening",
}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name):
    if name in _MODULES:
        return import_module(f"kerasdet.{name}")
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'kerasdet' has no attribute {name!r}")


def __dir__():
    return __all__
