"""The SavedModel, loaded as TensorFlow loads it and as TensorFlow Serving's v1 loader does."""

import io
import shutil
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

import kerasdet
from kerasdet import export
from kerasdet.errors import InputError, KerasdetError
from kerasdet.export import graph
from tests.export.models import HEIGHT, NAMES, WIDTH, small_ssd
from tests.oriented_files import jpeg, tiff

ROWS = 30
OUTPUTS = {"detection_boxes", "detection_scores", "detection_classes", "num_detections"}


@pytest.fixture(scope="session")
def report(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "ssd"
    return export.export(model, path, max_detections=ROWS, score_threshold=0.05)


@pytest.fixture(scope="session")
def base(report):
    return report.path.parent


@pytest.fixture(scope="session")
def loaded(base):
    return tf.saved_model.load(str(base / "1"))


@pytest.fixture(scope="session")
def expected(model, photos):
    return model.detect(photos, max_detections=ROWS, score_threshold=0.05)


def encoded(image, format):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format)
    return buffer.getvalue()


def numpy(outputs):
    return {key: np.asarray(value) for key, value in outputs.items()}


def assert_found(outputs, row, found, size):
    """Row `row` of the named outputs is what `detect` found in an image of `size`."""
    height, width = size
    assert found.count > 5  # there is something to compare
    assert outputs["num_detections"][row] == found.count
    ymin, xmin, ymax, xmax = outputs["detection_boxes"][row, : found.count].T
    boxes = np.stack([xmin * width, ymin * height, xmax * width, ymax * height], axis=1)
    np.testing.assert_allclose(boxes, found.boxes, atol=0.05)
    np.testing.assert_allclose(
        outputs["detection_scores"][row, : found.count], found.scores, atol=1e-4
    )
    np.testing.assert_array_equal(
        outputs["detection_classes"][row, : found.count], found.labels + 1
    )


# ---------------------------------------------------------------------- loaded by TensorFlow


def test_images_of_any_size_give_what_detect_gives(loaded, photos, expected):
    for photo, found in zip(photos, expected, strict=True):
        outputs = numpy(loaded.signatures["serving_default"](images=tf.constant(photo[None])))
        assert set(outputs) == OUTPUTS
        assert_found(outputs, 0, found, photo.shape[:2])


def test_a_batch_of_images_gives_what_each_gives_alone(loaded, model, photos):
    batch = np.stack([photos[0], photos[0][::-1], photos[0][:, ::-1]])
    outputs = numpy(loaded.signatures["serving_default"](images=tf.constant(batch)))
    for row, found in enumerate(model.detect(batch, max_detections=ROWS, score_threshold=0.05)):
        assert_found(outputs, row, found, (50, 70))


def test_png_and_jpeg_of_different_sizes_share_a_request(loaded, model, photos, expected):
    lossy = encoded(photos[1], "JPEG")
    files = tf.constant([encoded(photos[0], "PNG"), lossy])
    outputs = numpy(loaded.signatures["serving_bytes"](image_bytes=files))
    assert_found(outputs, 0, expected[0], (50, 70))
    seen = np.asarray(Image.open(io.BytesIO(lossy)))  # JPEG is lossy: what Pillow decodes
    (found,) = model.detect([seen], max_detections=ROWS, score_threshold=0.05)
    assert_found(outputs, 1, found, (131, 40))
    assert outputs["image_size"].tolist() == [[50, 70], [131, 40]]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_colour_modes_are_read_as_detect_reads_them(loaded, model, photos, mode, tmp_path):
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    Image.fromarray(photos[0]).convert(mode).save(path)
    files = tf.constant([path.read_bytes()])
    outputs = numpy(loaded.signatures["serving_bytes"](image_bytes=files))
    (found,) = model.detect([str(path)], max_detections=ROWS, score_threshold=0.05)
    assert_found(outputs, 0, found, (50, 70))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_photo_is_turned_upright_as_detect_turns_it(loaded, model, photos, orientation, tmp_path):
    stored = jpeg(photos[0], tiff(orientation))
    (tmp_path / "photo.jpg").write_bytes(stored)
    outputs = numpy(loaded.signatures["serving_bytes"](image_bytes=tf.constant([stored])))
    thresholds = {"max_detections": ROWS, "score_threshold": 0.05}
    (found,) = model.detect([tmp_path / "photo.jpg"], **thresholds)
    size = (70, 50) if orientation == 6 else (50, 70)
    assert outputs["image_size"].tolist() == [[*size]]
    assert_found(outputs, 0, found, size)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(stored)))
    (upright,) = model.detect([np.asarray(turned)], **thresholds)
    np.testing.assert_array_equal(found.boxes, upright.boxes)


def claims_to_be_huge(png):
    """The file with 30000 x 30000 in its header, and a right checksum."""
    header = b"IHDR" + struct.pack(">II", 30000, 30000) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def test_a_file_that_cannot_be_decoded_spoils_no_other(loaded, photos, expected):
    good = encoded(photos[0], "PNG")
    bad = [b"", b"no image", encoded(photos[1], "PNG")[:200], claims_to_be_huge(good)]
    outputs = numpy(loaded.signatures["serving_bytes"](image_bytes=tf.constant([*bad, good])))
    assert_found(outputs, 4, expected[0], (50, 70))
    assert outputs["image_size"].tolist() == [[0, 0]] * 4 + [[50, 70]]
    for name in OUTPUTS:
        assert not outputs[name][:4].any(), name


def test_a_batch_of_no_images_gives_outputs_of_no_rows(loaded):
    images, files = tf.zeros((0, 50, 60, 3), tf.uint8), tf.zeros((0,), tf.string)
    for outputs in (loaded.from_images(images), loaded.from_bytes(files)):
        assert outputs["detection_boxes"].shape == (0, ROWS, 4)
        assert outputs["num_detections"].shape == (0,)


def test_class_names_are_an_asset_in_the_order_of_the_ids(loaded, base):
    lines = (base / "1" / "assets" / "class_names.txt").read_text("utf-8").splitlines()
    assert lines == NAMES
    path = loaded.class_names.asset_path.numpy().decode()
    assert tf.io.read_file(path).numpy().decode() == "".join(f"{name}\n" for name in NAMES)


# ---------------------------------------------------------------------- as TensorFlow Serving does


@pytest.fixture(scope="session")
def session(base):
    """The v1 loader's session and its signatures; the folder is moved first, as a deploy does."""
    moved = base.parent / "elsewhere" / "7"
    shutil.copytree(base / "1", moved)
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(moved))
    yield session, meta.signature_def
    session.close()


def run_v1(session, signature, **inputs):
    session, signatures = session
    signature = signatures[signature]
    feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
    fetches = {key: tensor.name for key, tensor in signature.outputs.items()}
    return session.run(fetches, feeds)


def test_the_v1_loader_serves_one_image_and_a_batch(session, model, photos, expected):
    outputs = run_v1(session, "serving_default", images=photos[1][None])
    assert_found(outputs, 0, expected[1], (131, 40))
    batch = np.stack([photos[2], photos[2][::-1]])
    outputs = run_v1(session, "serving_default", images=batch)
    for row, found in enumerate(model.detect(batch, max_detections=ROWS, score_threshold=0.05)):
        assert_found(outputs, row, found, (96, 96))


def test_the_v1_loader_serves_encoded_images(session, photos, expected):
    files = [encoded(photo, "PNG") for photo in photos]
    outputs = run_v1(session, "serving_bytes", image_bytes=files[:1])
    assert_found(outputs, 0, expected[0], (50, 70))
    outputs = run_v1(session, "serving_bytes", image_bytes=[*files, b"broken"])
    for row, (photo, found) in enumerate(zip(photos, expected, strict=True)):
        assert_found(outputs, row, found, photo.shape[:2])
    assert outputs["num_detections"][3] == 0


def test_signatures_are_what_a_server_batches(session):
    signatures = session[1]
    images = signatures["serving_default"].inputs["images"]
    files = signatures["serving_bytes"].inputs["image_bytes"]
    assert (images.dtype, files.dtype) == (tf.uint8.as_datatype_enum, tf.string.as_datatype_enum)
    assert [d.size for d in images.tensor_shape.dim] == [-1, -1, -1, 3]
    assert [d.size for d in files.tensor_shape.dim] == [-1]
    shapes = {
        "detection_boxes": [-1, ROWS, 4],
        "detection_scores": [-1, ROWS],
        "detection_classes": [-1, ROWS],
        "num_detections": [-1],
    }
    for name in ("serving_default", "serving_bytes"):
        for key, shape in shapes.items():
            output = signatures[name].outputs[key]
            assert [d.size for d in output.tensor_shape.dim] == shape
            assert output.dtype == tf.float32.as_datatype_enum
    extra = signatures["serving_bytes"].outputs["image_size"]
    assert [d.size for d in extra.tensor_shape.dim] == [-1, 2]


# ---------------------------------------------------------------------- loaded by kerasdet


@pytest.fixture(scope="session")
def served(base):
    return export.load(base)


def test_a_loaded_export_detects_as_the_model(served, photos, expected):
    assert (served.class_names, served.num_classes, served.image_size) == (
        NAMES,
        3,
        (HEIGHT, WIDTH),
    )
    for got, found in zip(served.detect(photos), expected, strict=True):
        np.testing.assert_allclose(got.boxes, found.boxes, atol=0.05)
        assert got.names == found.names


def test_a_loaded_export_can_only_be_stricter(served, photos, expected):
    threshold = float(expected[0].scores[3] + expected[0].scores[4]) / 2
    (found,) = served.detect(photos[0], score_threshold=threshold)
    assert (found.count, len(found.boxes), len(found.names)) == (4, 4, 4)
    (found,) = served.detect(photos[0], max_detections=2)
    np.testing.assert_allclose(found.scores, expected[0].scores[:2], atol=1e-4)
    with pytest.raises(InputError, match=r"suppresses at an overlap of its own, not at 0\.3"):
        served.detect(photos[0], iou_threshold=0.3)


def test_a_folder_without_a_saved_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="has none"):
        export.load(tmp_path)


def test_a_saved_model_of_others_is_refused(tmp_path):
    other = tf.Module()
    other.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec((None,))])
    tf.saved_model.save(other, str(tmp_path), signatures={"serving_default": other.double})
    with pytest.raises(InputError, match="was not written by kerasdet"):
        export.load(tmp_path)


def test_a_damaged_saved_model_is_refused(base, tmp_path):
    shutil.copytree(base / "1", tmp_path / "1")
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"\x0a\xff\xff\xff")
    with pytest.raises(InputError, match="cannot be read"):
        export.load(tmp_path)


# ---------------------------------------------------------------------- what is on disk


def folders(path):
    return sorted(child.name for child in path.iterdir())


def test_the_next_version_stands_beside_the_older(model, tmp_path):
    (tmp_path / "ssd" / "7").mkdir(parents=True)
    (tmp_path / "ssd" / "7" / "saved_model.pb").write_text("older")
    (tmp_path / "ssd" / "notes").mkdir()
    path = export.saved_model(model, tmp_path / "ssd", max_detections=9, serving=False)
    assert path == tmp_path / "ssd" / "8"
    assert folders(tmp_path / "ssd") == ["7", "8", "notes"]
    assert (tmp_path / "ssd" / "7" / "saved_model.pb").read_text() == "older"
    assert not (path / "assets.extra").exists()  # as asked for
    with pytest.raises(InputError, match="7 exists; pass overwrite=True or another version"):
        export.saved_model(model, tmp_path / "ssd", version=7)


def test_a_folder_that_tensorflow_would_take_for_a_pattern_is_refused(model, tmp_path):
    with pytest.raises(InputError, match=r"name another folder than .*ssd \[x\]"):
        export.saved_model(model, tmp_path / "ssd [x]")
    assert not list(tmp_path.iterdir())


def test_a_copy_that_finds_something_else_is_removed(model, tmp_path, monkeypatch):
    def nearest(images, size, resize):
        return tf.image.resize(tf.cast(images, tf.float32), size, method="nearest")

    monkeypatch.setattr(graph, "resized_in_graph", nearest)
    with pytest.raises(KerasdetError, match=r"removed; they differ: boxes by .* px"):
        export.saved_model(model, tmp_path / "deep" / "ssd", max_detections=9)
    assert folders(tmp_path) == []


def test_a_write_that_fails_leaves_older_versions_alone(model, tmp_path, monkeypatch):
    (tmp_path / "3").mkdir()

    def full(*args):
        (args[1] / "saved_model.pb").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(graph.ServedDetector, "save", full)
    with pytest.raises(OSError, match="No space left"):
        export.saved_model(model, tmp_path)
    assert folders(tmp_path) == ["3"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"score_threshold": 1.5}, r"score_threshold wants a number in 0\.\.1, not 1\.5"),
        ({"iou_threshold": -0.1}, r"iou_threshold wants a number in 0\.\.1, not -0\.1"),
        ({"max_detections": 0}, "max_detections wants a whole number from 1, not 0"),
        ({"version": 0}, "version wants a whole number from 1, not 0"),
        ({"sample": np.zeros((4, 4, 2))}, r"Wanted an RGB array .* for sample 0"),
    ],
)
def test_settings_out_of_range_are_refused(model, tmp_path, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        export.saved_model(model, tmp_path / "x", **settings)
    assert folders(tmp_path) == []


def test_paths_that_hold_something_else_are_refused(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is a file"):
        export.saved_model(model, tmp_path / "file")
    (tmp_path / "saved_model.pb").write_text("mine")
    with pytest.raises(InputError, match="is itself a SavedModel"):
        export.saved_model(model, tmp_path)


def test_only_detectors_are_exported(model, tmp_path):
    with pytest.raises(InputError, match="Wanted a kerasdet detector to export, not a Functional"):
        export.saved_model(model.get_layer("backbone"), tmp_path / "x")
    with pytest.raises(InputError, match=r"format wants one of saved_model, .*, darknet, not 'tf'"):
        export.export(model, tmp_path / "x", "tf")


def test_export_on_another_back_end_says_how(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match="wants Keras on TensorFlow, not on jax: save the model"):
        export.saved_model(model, tmp_path / "x")
    assert folders(tmp_path) == []


def test_the_report_says_what_was_written_and_how_it_was_checked(report, base):
    assert report.path == base / "1"
    assert report.files["saved_model.pb"] == (report.path / "saved_model.pb").stat().st_size
    assert set(report.files) >= {"README.md", "batching_params.pbtxt", "assets/class_names.txt"}
    # Two pictures through each of two signatures, all rows taken.
    assert (report.difference.images, report.difference.detections) == (4, 4 * ROWS)
    assert report.difference.pixels < 0.05
    assert f"Written: {report.path}" in str(report)


def test_kerasdet_offers_export_by_name():
    assert kerasdet.export.saved_model is export.saved_model


# ---------------------------------------------------------------------- half precision, few found


class Half(NamedTuple):
    model: keras.Model
    threshold: float
    run: Callable


@pytest.fixture(scope="module")
def half(tmp_path_factory, photos):
    """A mixed-precision model, exported with a threshold that 8 boxes of the first photo pass."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = small_ssd()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    scores = model.detect(photos[0])[0].scores
    threshold = float(scores[7] + scores[8]) / 2
    path = export.saved_model(
        model, tmp_path_factory.mktemp("half"), score_threshold=threshold, max_detections=20
    )
    return Half(model, threshold, tf.saved_model.load(str(path)).signatures["serving_default"])


def test_half_precision_stays_inside(half, photos):
    assert {spec.dtype for spec in half.run.structured_outputs.values()} == {tf.float32}
    outputs = numpy(half.run(images=tf.constant(photos[0][None])))
    (found,) = half.model.detect(photos[0], score_threshold=half.threshold, max_detections=20)
    assert_found(outputs, 0, found, (50, 70))


def test_padded_rows_are_zero_throughout(half, photos):
    outputs = numpy(half.run(images=tf.constant(photos[0][None])))
    assert outputs["num_detections"].tolist() == [8.0]
    assert outputs["detection_scores"].shape == (1, 20)
    assert outputs["detection_classes"][0, :8].min() >= 1
    for name in OUTPUTS - {"num_detections"}:
        assert not outputs[name][0, 8:].any(), name
