"""Grids of boxes and a tree of classes, exported: what comes back is what `detect` finds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdet import export
from tests import small

pytestmark = pytest.mark.slow

DETECTORS = {
    "yolo_v1": small.yolo_v1,
    "yolo9000": lambda: small.yolo9000(tree=small.animals_and_things(), tree_threshold=0.2),
    "yolo9000 for classes": lambda: small.yolo9000(tree=small.animals_and_things()).for_classes(
        ["a cat", "a poodle", "a taxi"], ["cat", "poodle", "taxi"]
    ),
}


@pytest.mark.parametrize("kind", DETECTORS)
def test_an_export_finds_what_the_model_finds(kind, tmp_path):
    keras.utils.set_random_seed(5)
    model = DETECTORS[kind]()
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, (*size, 3), dtype="uint8") for size in ((64, 96), (50, 70))]
    expected = model.detect(photos, score_threshold=0.001, max_detections=20)
    report = export.export(model, tmp_path / "out", score_threshold=0.001, max_detections=20)
    loaded = tf.saved_model.load(str(report.path))
    for photo, found in zip(photos, expected, strict=True):
        outputs = loaded.signatures["serving_default"](images=tf.constant(photo[None]))
        count = int(outputs["num_detections"][0])
        assert count == found.count > 5
        ymin, xmin, ymax, xmax = np.asarray(outputs["detection_boxes"])[0, :count].T
        height, width = photo.shape[:2]
        boxes = np.stack([xmin * width, ymin * height, xmax * width, ymax * height], axis=1)
        np.testing.assert_allclose(boxes, found.boxes, atol=0.05)
        labels = np.asarray(outputs["detection_classes"])[0, :count]
        np.testing.assert_array_equal(labels, found.labels + 1)
    served = export.load(report.path).detect(photos)
    assert [each.names for each in served] == [each.names for each in expected]
