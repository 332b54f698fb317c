"""LiteRT and ONNX files, each run by its own runtime."""

import importlib.util
import json
import warnings

import keras
import numpy as np
import pytest

from kerasdet import export
from kerasdet.errors import InputError, KerasdetError
from kerasdet.export import check, converted
from kerasdet.images import warp
from tests.export.models import HEIGHT, NAMES, WIDTH, small_ssd

ROWS = 9


@pytest.fixture(scope="module")
def expected(model, photos):
    return model.detect(photos, max_detections=ROWS)


def assert_same(run, photos, expected):
    """Runs all photos together and one alone, and compares with `detect`."""
    batch = np.stack([warp(photo, (HEIGHT, WIDTH)) for photo in photos])
    for images, found in ((batch, expected), (batch[1:2], expected[1:2])):
        outputs = run(images)
        sizes = (
            [photo.shape[:2] for photo in photos][-len(found) :] if len(found) > 1 else [(131, 40)]
        )
        for got, want in zip(check.from_outputs(outputs, sizes), found, strict=True):
            assert want.count == ROWS
            np.testing.assert_allclose(got.boxes, want.boxes, atol=0.05)
            np.testing.assert_allclose(got.scores, want.scores, atol=1e-4)
            np.testing.assert_array_equal(got.labels, want.labels)


def test_litert_finds_what_the_model_finds(model, photos, expected, tmp_path):
    report = export.export(model, tmp_path / "ssd.tflite", "litert", max_detections=ROWS)
    assert report.path == tmp_path / "ssd.tflite"
    assert report.files == {"ssd.tflite": report.path.stat().st_size}
    assert report.difference.detections == 3 * ROWS  # two pictures together, one alone
    assert [p.name for p in tmp_path.iterdir()] == ["ssd.tflite"]
    interpreter = converted._interpreter(str(report.path))
    names = {"detection_boxes", "detection_scores", "detection_classes", "num_detections"}
    ((_, signature),) = interpreter.get_signature_list().items()
    assert (signature["inputs"], set(signature["outputs"])) == (["images"], names)
    with pytest.raises(InputError, match="exists; pass overwrite=True or another name"):
        export.litert(model, report.path)
    assert_same(converted._open_litert(report.path), photos, expected)


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnx", "onnxruntime")),
    reason="tf2onnx, onnx and onnxruntime are not installed: pip install 'kerasdet[onnx]'",
)
def test_onnx_finds_what_the_model_finds(model, photos, expected, tmp_path):
    import onnx
    import onnxruntime

    path = export.onnx(model, tmp_path / "ssd.onnx", max_detections=ROWS)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()] == [
        ("images", "tensor(float)", [HEIGHT, WIDTH, 3])
    ]
    (metadata,) = onnx.load(path).metadata_props
    assert json.loads(metadata.value) == {"1": NAMES[0], "2": NAMES[1], "3": NAMES[2]}

    def run(images):
        return dict(zip(names, session.run(None, {"images": images}), strict=True))

    assert_same(run, photos, expected)


def test_missing_onnx_packages_are_named_with_the_command(model, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"tf2onnx, onnx, onnxruntime: pip install .kerasdet\[onnx"
    ):
        export.onnx(model, tmp_path / "ssd.onnx")


def test_half_precision_is_converted_as_float32(tmp_path, photos):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = small_ssd()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    network = converted._network(model, {"max_detections": ROWS})
    assert all(value.dtype == "float32" for value in network.weights)
    plain = small_ssd()
    plain.set_weights(model.get_weights())
    batch = np.stack([warp(photo, (HEIGHT, WIDTH)) for photo in photos])
    outputs = {key: np.asarray(value) for key, value in network(batch).items()}
    expected = plain.detect(photos, max_detections=ROWS)
    found = check.from_outputs(outputs, [photo.shape[:2] for photo in photos])
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got.scores, want.scores, atol=1e-5)
        np.testing.assert_allclose(got.boxes, want.boxes, atol=1e-3)


def test_a_file_that_does_not_run_is_removed(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.Model, "export", lambda self, file, **kwargs: open(file, "w").close())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KerasdetError, match=r"The file for .*new/ssd\.tflite does not run"):
            export.litert(model, tmp_path / "new" / "ssd.tflite")
    assert list(tmp_path.iterdir()) == []


def test_the_suffix_is_asked_for(model, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.tflite, not .*ssd"):
        export.litert(model, tmp_path / "ssd")
