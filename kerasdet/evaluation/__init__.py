"""How good a detector is: average precision by VOC and COCO, localisation error, mistakes."""

from importlib import import_module

_HOME = {
    "evaluate": "evaluation",
    "Evaluation": "evaluation",
    "MeanAveragePrecision": "callback",
    "Localization": "localization",
    "evaluate_localization": "localization",
    "localization_error": "localization",
    "DetectionImages": "tensorboard",
    "plot_precision_recall": "plots",
    "plot_mistakes": "plots",
    "find_mistakes": "mistakes",
    "count_mistakes": "mistakes",
    "voc_average_precision": "average_precision",
    "coco_average_precision": "coco",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
