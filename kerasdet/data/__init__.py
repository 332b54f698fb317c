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
    from kerasdet.data.crops import object_crops
    from kerasdet.data.gallery import show
    from kerasdet.data.joining import joint, relabelled
    from kerasdet.data.proposal_cache import propose
    from kerasdet.data.proposals import edge_boxes, selective_search, sliding_windows
    from kerasdet.data.region_files import read_region_sets, read_regions
    from kerasdet.data.regions import with_regions
    from kerasdet.data.report import check, stats
    from kerasdet.data.source import load, load_images
    from kerasdet.data.stream import join
    from kerasdet.data.synthetic import shapes
    from kerasdet.data.tfds_reader import from_tfds
    from kerasdet.data.voc import from_voc
    from kerasdet.data.yolo_txt import from_yolo

__all__ = [
    "check",
    "classification_pipeline",
    "clusters",
    "edge_boxes",
    "from_coco",
    "from_image_folders",
    "from_tfds",
    "from_tfds_classification",
    "from_voc",
    "from_yolo",
    "join",
    "joint",
    "load",
    "load_images",
    "object_crops",
    "pipeline",
    "propose",
    "read_region_sets",
    "read_regions",
    "relabelled",
    "selective_search",
    "shape_images",
    "shapes",
    "show",
    "sliding_windows",
    "stats",
    "with_regions",
]

# No module here has the name of a public function: importing it would put the module in the
# function's place.
_HOMES = {
    "check": "report",
    "classification_pipeline": "classification",
    "clusters": "anchors",
    "edge_boxes": "proposals",
    "from_coco": "coco",
    "from_image_folders": "classification",
    "from_tfds": "tfds_reader",
    "from_tfds_classification": "classification",
    "from_voc": "voc",
    "from_yolo": "yolo_txt",
    "join": "stream",
    "joint": "joining",
    "load": "source",
    "load_images": "source",
    "object_crops": "crops",
    "pipeline": "batching",
    "propose": "proposal_cache",
    "read_region_sets": "region_files",
    "read_regions": "region_files",
    "relabelled": "joining",
    "selective_search": "proposals",
    "shape_images": "classification",
    "shapes": "synthetic",
    "show": "gallery",
    "sliding_windows": "proposals",
    "stats": "report",
    "with_regions": "regions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
