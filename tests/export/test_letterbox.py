"""Exports of a network for any size that keeps photos' aspect: every copy finds what `detect` finds."""

import importlib.util
import json

import numpy as np
import pytest
import tensorflow as tf

from kerasdet import export
from kerasdet.export import check, converted
from kerasdet.images import letterbox, placement
from tests.export.models import HEIGHT, WIDTH, letterboxing

SIZES = [(50, 70), (131, 40), (96, 96)]


@pytest.fixture(scope="module")
def model():
    return letterboxing()


@pytest.fixture(scope="module")
def expected(model, photos):
    found = model.detect(photos)
    assert min(one.count for one in found) > 5  # there is something to compare
    return found


@pytest.fixture(scope="module")
def loaded(model, tmp_path_factory):
    folder = export.saved_model(model, tmp_path_factory.mktemp("export") / "cells")
    assert json.loads((folder / "assets" / "detector.json").read_text())["resize"] == "letterbox"
    assert "(letterbox)" in (folder / "README.md").read_text()
    return tf.saved_model.load(str(folder))


def assert_same(found, expected):
    for one, want in zip(found, expected, strict=True):
        assert one.count == want.count
        np.testing.assert_allclose(one.boxes, want.boxes, atol=0.05)
        np.testing.assert_allclose(one.scores, want.scores, atol=1e-4)
        np.testing.assert_array_equal(one.labels, want.labels)


def numpy(outputs):
    return {key: np.asarray(value) for key, value in outputs.items()}


def test_a_letterboxed_detection_is_not_a_warped_one(model, photos, expected):
    model.resize = "warp"
    try:
        warped = model.detect(photos[1])[0]
    finally:
        model.resize = "letterbox"
    assert warped.count != expected[1].count or np.abs(warped.boxes - expected[1].boxes).max() > 1


def test_images_of_one_size_come_back_in_shares_of_themselves(loaded, photos, expected):
    for photo, want in zip(photos, expected, strict=True):
        outputs = numpy(loaded.signatures["serving_default"](images=tf.constant(photo[None])))
        assert_same(check.from_outputs(outputs, [photo.shape[:2]]), [want])


def test_files_of_several_sizes_come_back_in_shares_of_themselves(loaded, photos, expected):
    files = tf.stack([b"no image", *(tf.io.encode_png(photo) for photo in photos)])
    outputs = numpy(loaded.signatures["serving_bytes"](image_bytes=files))
    assert outputs["image_size"].tolist() == [[0, 0], *map(list, SIZES)]
    found = check.from_outputs(outputs, [(1, 1), *SIZES])
    assert found[0].count == 0
    assert_same(found[1:], expected)


def in_photos(outputs):
    """What the one who runs a converted file has to do: shares of the input to pixels of photos."""
    found = []
    for one, size in zip(check.from_outputs(outputs, [(HEIGHT, WIDTH)] * 3), SIZES, strict=True):
        place = placement(size, (HEIGHT, WIDTH), "letterbox")
        boxes = (one.boxes - np.array(place.offset)) / np.array(place.scale)
        edges = [size[1], size[0], size[1], size[0]]
        found.append(one._replace(boxes=np.clip(boxes, 0, edges)))
    return found


def test_litert_takes_letterboxed_images_of_the_models_size(model, photos, expected, tmp_path):
    report = export.export(model, tmp_path / "cells.tflite", "litert")
    assert f"(B, {HEIGHT}, {WIDTH}, 3)" in str(report)
    assert "letterbox" in str(report)
    batch = np.stack([letterbox(photo, (HEIGHT, WIDTH)) for photo in photos])
    assert_same(in_photos(converted._open_litert(report.path)(batch)), expected)


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnx", "onnxruntime")),
    reason="tf2onnx, onnx and onnxruntime are not installed: pip install 'kerasdet[onnx]'",
)
def test_onnx_takes_letterboxed_images_of_the_models_size(model, photos, expected, tmp_path):
    path = export.onnx(model, tmp_path / "cells.onnx")
    batch = np.stack([letterbox(photo, (HEIGHT, WIDTH)) for photo in photos])
    assert_same(in_photos(converted._open_onnx(path)(batch)), expected)


def test_at_another_size_the_copy_has_that_size(photos, tmp_path):
    model = letterboxing()
    model.image_size = (40, 24)
    expected = model.detect(photos)
    copy = export.load(export.saved_model(model, tmp_path / "cells", serving=False).parent)
    assert copy.image_size == (40, 24)
    assert_same(copy.detect(photos), expected)
