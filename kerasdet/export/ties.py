"""Detections that hang on rounding, as a greedy merge's of boxes that match alike, and what decides then.

A network that has learned nothing says much the same of every window. Its boxes lie on a grid, many
pairs match equally well, and which is merged first is a matter of the last digit; what comes out is
another set of boxes. A copy is then compared by its candidates, before any are merged.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
from keras import ops

from kerasdet.export import check
from kerasdet.suppression import Detections
from kerasdet.windows import sizes_for

_ROUNDING = 1e-4  # pixels; far below what `check.Tolerance` allows


def hang_on_rounding(model, scales, images, options) -> bool:
    """Whether a greedy model's own detections change as its candidates are nudged.

    Args:
        model: the detector.
        scales: (height, width) sizes at which it looks at photos.
        images: list of (H, W, 3).
        options: of the export.
    """
    if getattr(model, "merge", None) != "greedy":
        return False
    random = np.random.default_rng(0)
    one: list[Detections] = []
    other: list[Detections] = []
    for image in images:
        every = model._every([image.astype("float32")], sizes_for(scales, *image.shape[:2]))
        nudge = random.uniform(-_ROUNDING, _ROUNDING, every.boxes.shape).astype("float32")
        for merged, boxes in ((one, every.boxes), (other, every.boxes + nudge)):
            found = model._combined(
                every._replace(boxes=boxes), merge="greedy", **options.thresholds
            )
            boxes, scores, labels, count = (ops.convert_to_numpy(array)[0] for array in found)
            merged.append(Detections(boxes[:count], scores[:count], labels[:count], count))
    own = check.difference(one, other, [image.shape[:2] for image in images])
    return not check.agrees(own, options.tolerance)


@contextlib.contextmanager
def unmerged(model, options) -> Iterator:
    """While it lasts every candidate of the model is a detection; gives the options that let all through.

    Args:
        model: a detector with `merge`.
        options: of the export.
    """
    merge, given = model.merge, model.get_config()
    windows = sum(
        model.layout.output_side(height, fine=model.fine)
        * model.layout.output_side(width, fine=model.fine)
        for height, width in {*model.scales, model.image_size}
    )
    everything = {
        "score_threshold": 0.0,
        "iou_threshold": 1.0,
        "max_detections": windows * min(given["classes_per_scale"], model.num_classes),
    }
    model.merge = "nms"
    try:
        yield options._replace(thresholds=everything)
    finally:
        model.merge = merge
