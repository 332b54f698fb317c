"""Readers of annotated images, all giving the same `tf.data.Dataset`, and what is done to it."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasdet.data.batching import pipeline
    from kerasdet.data.coco import from_coco
    from kerasdet.data.gallery import show
    from kerasdet.data.report import check, stats
    from kerasdet.data.source import load
    from kerasdet.data.stream import join
    from kerasdet.data.synthetic import shapes
    from kerasdet.data.tfds_reader import from_tfds
    from kerasdet.data.voc import from_voc
    from kerasdet.data.yolo_txt import from_yolo

__all__ = [
    "check",
    "from_coco",
    "from_tfds",
    "from_voc",
    "from_yolo",
    "join",
    "load",
    "pipeline",
    "shapes",
    "show",
    "stats",
]

# No module here has the name of a public function: importing it would put the module in the
# function's place.
_HOMES = {
    "check": "report",
    "from_coco": "coco",
    "from_tfds": "tfds_reader",
    "from_voc": "voc",
    "from_yolo": "yolo_txt",
    "join": "stream",
    "load": "source",
    "pipeline": "batching",
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
