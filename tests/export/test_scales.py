"""The SavedModel of a detector of several scales: all of them, and their merge, inside the graph."""

import importlib.util
import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasdet import export, memory
from kerasdet.errors import InputError, KerasdetError
from kerasdet.export import scales_graph, ties
from kerasdet.export.inputs import Options
from tests import small
from tests.detectors.test_overfeat import shaken
from tests.export.models import NAMES
from tests.export.test_regions import assert_found

pytestmark = pytest.mark.slow

SETTINGS = {"score_threshold": 0.2, "max_detections": 15}
SCALES = ((52, 64), (64, 96), (80, 72))


def detector(**changes):
    """A random one whose scores spread over 0..1."""
    keras.utils.set_random_seed(0)
    arguments = {"class_names": NAMES, "scales": SCALES, "max_candidates": 60, **changes}
    return shaken(small.overfeat(**arguments), seed=2)


@pytest.fixture(scope="module")
def model():
    return detector()


@pytest.fixture(scope="module")
def report(model, tmp_path_factory):
    return export.export(model, tmp_path_factory.mktemp("export") / "scales", **SETTINGS)


@pytest.fixture(scope="module")
def signatures(report):
    return tf.saved_model.load(str(report.path)).signatures


def test_photos_that_lie_stand_and_are_square_give_what_detect_gives(signatures, model, photos):
    shapes = [photo.shape[:2] for photo in photos]
    assert [np.sign(width - height) for height, width in shapes] == [1, -1, 0]
    for photo, found in zip(photos, model.detect(photos, **SETTINGS), strict=True):
        outputs = signatures["serving_default"](images=tf.constant(photo[None]))
        assert_found(outputs, 0, found, photo.shape)


def test_a_batch_of_no_images_gives_outputs_of_no_rows(signatures):
    images, files = tf.zeros((0, 50, 60, 3), tf.uint8), tf.zeros((0,), tf.string)
    for outputs in (
        signatures["serving_default"](images=images),
        signatures["serving_bytes"](image_bytes=files),
    ):
        assert outputs["detection_boxes"].shape == (0, 15, 4)
        assert outputs["num_detections"].shape == (0,)


def test_a_model_there_is_no_memory_to_export_is_refused_before_anything_is_written(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "available", lambda: 600 * 2**20)
    sentence = (
        r"Exporting overfeat at its scales wants about \d+ MiB of memory, and 600 MiB are free"
    )
    for write in (export.saved_model, export.onnx, export.litert):
        with pytest.raises(InputError, match=sentence):
            write(model, tmp_path / "it.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_batch_gives_what_its_images_give(signatures, model, photos):
    batch = np.stack([photos[1], photos[1][::-1], photos[1][:, ::-1]])
    outputs = signatures["serving_default"](images=tf.constant(batch))
    for i, found in enumerate(model.detect(batch, **SETTINGS)):
        assert_found(outputs, i, found, batch.shape[1:])


def test_files_of_several_sizes_share_a_request_and_a_bad_one_spoils_no_other(
    signatures, model, photos
):
    files = [b"no image"]
    for photo in photos:
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "PNG")
        files.append(buffer.getvalue())
    outputs = signatures["serving_bytes"](image_bytes=tf.constant(files))
    sizes = [list(photo.shape[:2]) for photo in photos]
    assert outputs["image_size"].numpy().tolist() == [[0, 0], *sizes]
    assert outputs["num_detections"][0] == 0
    for i, found in enumerate(model.detect(photos, **SETTINGS)):
        assert_found(outputs, i + 1, found, photos[i].shape)


def test_a_loaded_export_is_used_as_the_model_is(report, model, photos):
    loaded = export.load(report.path)
    for one, other in zip(loaded.detect(photos), model.detect(photos, **SETTINGS), strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
        assert one.names == other.names
    settings = json.loads((report.path / "assets" / "detector.json").read_text("utf-8"))
    assert settings["scales"] == [list(size) for size in SCALES]
    assert "resizing to 52x64, 64x96, 80x72 (warp)" in (report.path / "README.md").read_text(
        "utf-8"
    )


def test_what_is_set_when_it_is_written_is_what_is_served(photos, tmp_path):
    model = detector(merge="nms", scales=[(64, 64)], fine=False, boxes_per_class=True)
    path = export.saved_model(model, tmp_path / "nms", **SETTINGS, serving=False)
    expected = model.detect(photos, **SETTINGS)
    for one, other in zip(export.load(path).detect(photos), expected, strict=True):
        assert other.count > 0
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)


@pytest.mark.parametrize("merge", ["greedy", "nms"])
@pytest.mark.parametrize("format", ["litert", "onnx"])
def test_other_formats_look_at_one_scale(format, merge, tmp_path):
    """The export compares them with the model on photos, many of whose boxes overlap."""
    if format == "onnx" and not all(
        importlib.util.find_spec(name) for name in ("tf2onnx", "onnx", "onnxruntime")
    ):
        pytest.skip("tf2onnx, onnx and onnxruntime are not installed: pip install 'kerasdet[onnx]'")
    file = tmp_path / {"litert": "it.tflite", "onnx": "it.onnx"}[format]
    report = export.export(detector(merge=merge), file, format, **SETTINGS)
    assert report.difference.detections > 5
    assert report.difference.pixels < 0.01
    said = (
        "It looks at this size alone, and the model at 52x64, 64x96, 80x72, as its SavedModel does."
    )
    assert said in str(report)


def test_where_the_merge_hangs_on_rounding_candidates_are_compared(tmp_path):
    """Untrained, its boxes are the windows themselves, whose pairs match alike."""
    keras.utils.set_random_seed(0)
    model = small.overfeat(class_names=NAMES, stddev=0.01, scales=SCALES)
    report = export.export(model, tmp_path / "ties", serving=False)
    windows = sum(
        model.layout.output_side(height) * model.layout.output_side(width)
        for height, width in SCALES
    )
    # Each of two images alone, and both together.
    assert report.difference.detections == 4 * windows * len(NAMES)
    assert report.difference.unmatched == 0
    assert model.merge == "greedy"


def test_a_copy_of_other_candidates_is_refused_where_the_merge_hangs_on_rounding(
    tmp_path, monkeypatch
):
    keras.utils.set_random_seed(0)
    model = small.overfeat(class_names=NAMES, stddev=0.01, scales=SCALES)
    right = scales_graph._candidates

    def moved(*arguments):
        found = right(*arguments)
        return found._replace(boxes=found.boxes + 0.2)

    monkeypatch.setattr(scales_graph, "_candidates", moved)
    with pytest.raises(KerasdetError, match="does not find what the model finds"):
        export.export(model, tmp_path / "ties", serving=False)


def test_what_a_trained_merge_finds_does_not_hang_on_rounding(model, photos):
    options = Options(SETTINGS | {"iou_threshold": None}, False, None, export.Tolerance())
    assert not ties.hang_on_rounding(model, SCALES, photos, options)
