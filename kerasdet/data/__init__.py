"""Readers of annotated images, all giving the same `tf.data.Dataset`, and what is done to it."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasdet.data.anchors import clusters
    from kerasdet.data.batching import pipeline
    from kerasdet.data.classification import (
        classification_pipeline,
        from_image_folders,
        from_tfds_classification,
        shape_images,
    )
    from kerasdet.data.coco import from_coco
    from kerasdet.data.gallery import show
    from kerasdet.data.joining import joint, relabelled
    from kerasdet.data.report import check, stats
    from kerasdet.data.source import load
    from kerasdet.data.stream import join
    from kerasdet.data.synthetic import shapes
    from kerasdet.data.tfds_reader import from_tfds
    from kerasdet.data.voc import from_voc
    from kerasdet.data.yolo_txt import from_yolo

__all__ = [
    "check",
    "classification_pipeline",
    "clusters",
    "from_coco",
    "from_image_folders",
    "from_tfds",
    "from_tfds_classification",
    "from_voc",
    "from_yolo",
    "join",
    "joint",
    "load",
    "pipeline",
    "relabelled",
    "shape_images",
    "shapes",
    "show",
    "stats",
]

# No module here has the name of a public function: importing it would put the module in the
# function's place.
_HOMES = {
    "check": "report",
    "classification_pipeline": "classification",
    "clusters": "anchors",
    "from_coco": "coco",
    "from_image_folders": "classification",
    "from_tfds": "tfds_reader",
    "from_tfds_classification": "classification",
    "from_voc": "voc",
    "from_yolo": "yolo_txt",
    "join": "stream",
    "joint": "joining",
    "load": "source",
    "pipeline": "batching",
    "relabelled": "joining",
    "shape_images": "classification",
    "shapes": "synthetic",
    "show": "gallery",
    "stats": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
