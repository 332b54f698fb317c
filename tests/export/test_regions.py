"""The SavedModel of a detector of regions: given by the client, or windows made in the graph."""

import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasdet import export
from kerasdet.detectors.fast_rcnn import FastRCNN
from kerasdet.errors import InputError
from kerasdet.region_proposals import sliding_windows
from tests import small
from tests.export.models import NAMES

pytestmark = pytest.mark.slow

SETTINGS = {"score_threshold": 0.3, "max_detections": 12}


def detector(**changes):
    """A random one whose scores spread over 0..1."""
    keras.utils.set_random_seed(0)
    arguments = {
        "class_names": NAMES,
        "backbone": small.backbone(sides=(None, None)),
        "feature_layer": "fine",
        "pool_size": 2,
        "hidden": (32,),
        "image_size": (60, 90),
        "short_side": 48,
    }
    model = FastRCNN(**{**arguments, **changes})
    random = np.random.default_rng(3)
    kernel, bias = model.get_layer("cls_score").get_weights()
    model.get_layer("cls_score").set_weights([random.normal(size=kernel.shape) * 20, bias])
    kernel, bias = model.get_layer("bbox_pred").get_weights()
    model.get_layer("bbox_pred").set_weights([random.normal(size=kernel.shape) * 5, bias])
    return model


@pytest.fixture(scope="module")
def model():
    return detector()


@pytest.fixture(scope="module")
def report(model, tmp_path_factory):
    return export.export(model, tmp_path_factory.mktemp("export") / "regions", **SETTINGS)


@pytest.fixture(scope="module")
def signatures(report):
    return tf.saved_model.load(str(report.path)).signatures


@pytest.fixture(scope="module")
def regions(photos):
    """50 for each photo, some of them on the same cells."""
    random = np.random.default_rng(4)
    found = []
    for photo in photos:
        height, width = photo.shape[:2]
        corners = np.sort(random.uniform(0, 1, (400, 2, 2)), axis=1) * [width, height]
        corners = corners[(corners[:, 1] - corners[:, 0] > 6).all(axis=1)][:40]
        boxes = corners.reshape(-1, 4)
        found.append(np.concatenate([boxes, boxes[:10] + 0.01]).astype("float32"))
    return found


def assert_found(outputs, row, found, shape):
    """Row `row` of the named outputs is what `detect` found in an image of this shape."""
    height, width = shape[:2]
    assert found.count > 3
    assert int(outputs["num_detections"][row]) == found.count
    boxes = outputs["detection_boxes"][row].numpy()[: found.count][:, [1, 0, 3, 2]]
    np.testing.assert_allclose(boxes * [width, height, width, height], found.boxes, atol=0.05)
    scores = outputs["detection_scores"][row][: found.count]
    np.testing.assert_allclose(scores, found.scores, atol=1e-4)
    labels = outputs["detection_classes"][row][: found.count]
    np.testing.assert_array_equal(labels, found.labels + 1)


def test_images_and_regions_give_what_detect_gives(signatures, model, photos, regions):
    expected = model.detect(photos, regions, **SETTINGS)
    for photo, rows, found in zip(photos, regions, expected, strict=True):
        outputs = signatures["serving_default"](
            images=tf.constant(photo[None]), regions=tf.constant(rows[None])
        )
        assert_found(outputs, 0, found, photo.shape)


def test_a_batch_has_regions_of_its_own_for_each_image(signatures, model, photos, regions):
    """The second has fewer, padded with -1."""
    batch = np.stack([photos[0], photos[0][::-1]])
    rows = np.stack([regions[0], regions[0][::-1]])
    rows[1, 30:] = -1
    outputs = signatures["serving_default"](images=tf.constant(batch), regions=tf.constant(rows))
    for i, found in enumerate(model.detect(batch, [regions[0], rows[1]], **SETTINGS)):
        assert_found(outputs, i, found, (50, 70))


def test_rows_that_are_no_regions_spoil_no_others(signatures, model, photos, regions):
    """Reversed, empty, not finite and outside: left out; what juts out is cut."""
    rubbish = [
        [30, 5, 20, 9],
        [5, 5, 5, 9],
        [np.nan, 5, 20, 9],
        [0, 0, np.inf, 9],
        [200, 5, 300, 9],
    ]
    rows = np.concatenate([rubbish, regions[0], [[-20, -5, 40, 900]]]).astype("float32")
    outputs = signatures["serving_default"](
        images=tf.constant(photos[0][None]), regions=tf.constant(rows[None])
    )
    (found,) = model.detect(photos[0], rows[5:], **SETTINGS)
    assert_found(outputs, 0, found, photos[0].shape)


def test_shares_of_the_image_in_place_of_pixels_are_no_regions(signatures, model, photos, regions):
    """Of the image that has them; `detect` refuses them."""
    height, width = photos[0].shape[:2]
    shares = regions[0] / np.float32([width, height, width, height])
    shares[0] = (0, 0, 1, 1)
    shares[1] = (0, 0, np.inf, 1)
    outputs = signatures["serving_default"](
        images=tf.constant(np.stack([photos[0]] * 2)),
        regions=tf.constant(np.stack([shares, regions[0]])),
    )
    assert outputs["num_detections"][0] == 0
    assert not outputs["detection_scores"][0].numpy().any()
    (found,) = model.detect(photos[0], regions[0], **SETTINGS)
    assert_found(outputs, 1, found, photos[0].shape)
    with pytest.raises(InputError, match="multiply shares"):
        model.detect(photos[0], shares[2:])


def test_a_client_with_only_an_image_gets_sliding_windows(signatures, model, photos):
    """Made inside the graph, for the photo's own size."""
    windows = [np.asarray(sliding_windows(*photo.shape[:2])) for photo in photos]
    expected = model.detect(photos, windows, **SETTINGS)
    for photo, found in zip(photos, expected, strict=True):
        outputs = signatures["serving_windows"](images=tf.constant(photo[None]))
        assert_found(outputs, 0, found, photo.shape)


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
    assert not outputs["detection_scores"][0].numpy().any()
    windows = [np.asarray(sliding_windows(*photo.shape[:2])) for photo in photos]
    for i, found in enumerate(model.detect(photos, windows, **SETTINGS)):
        assert_found(outputs, i + 1, found, photos[i].shape)


def test_no_regions_at_all_are_no_fault(signatures, photos):
    outputs = signatures["serving_default"](
        images=tf.constant(photos[0][None]), regions=tf.zeros((1, 0, 4))
    )
    assert outputs["num_detections"].numpy().tolist() == [0]


def test_a_batch_of_no_images_gives_outputs_of_no_rows(signatures):
    images, files = tf.zeros((0, 50, 60, 3), tf.uint8), tf.zeros((0,), tf.string)
    for outputs in (
        signatures["serving_default"](images=images, regions=tf.zeros((0, 3, 4))),
        signatures["serving_windows"](images=images),
        signatures["serving_bytes"](image_bytes=files),
    ):
        assert outputs["detection_boxes"].shape[::2] == (0, 4)
        assert outputs["num_detections"].shape == (0,)


def test_a_loaded_export_takes_regions_or_none(report, model, photos, regions):
    loaded = export.load(report.path)
    for one, other in zip(
        loaded.detect(photos, regions), model.detect(photos, regions, **SETTINGS), strict=True
    ):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
        assert one.names == other.names
    windows = [np.asarray(sliding_windows(*photos[1].shape[:2]))]
    (found,) = loaded.detect(photos[1])
    (expected,) = model.detect(photos[1], windows, **SETTINGS)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)
    (mixed,) = loaded.detect([photos[1]], [None])
    np.testing.assert_array_equal(mixed.boxes, found.boxes)
    with pytest.raises(InputError, match="x1 < x2 and y1 < y2 for the regions of image 0"):
        loaded.detect(photos[0], [[9, 9, 3, 3]])


def test_a_model_built_for_one_size_is_served_on_its_canvas(photos, regions, tmp_path):
    model = detector(backbone=small.backbone(), image_size=None, short_side=None, mean=90.0)
    assert not model.takes_any_size
    path = export.saved_model(model, tmp_path / "fixed", **SETTINGS)
    loaded = export.load(path)
    for one, other in zip(
        loaded.detect(photos, regions), model.detect(photos, regions, **SETTINGS), strict=True
    ):
        assert other.count > 3
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)


def test_what_stands_beside_the_graph_tells_of_regions(report):
    readme = (report.path / "README.md").read_text("utf-8")
    assert "`regions` in their pixels, x1, y1, x2, y2" in readme
    assert "`serving_windows`" in readme
    assert "no coordinate above 1 counts as one without regions" in " ".join(readme.split())
    settings = json.loads((report.path / "assets" / "detector.json").read_text("utf-8"))
    assert settings["takes_regions"] is True
    requests = list(
        tf.data.TFRecordDataset(str(report.path / "assets.extra" / "tf_serving_warmup_requests"))
    )
    names = (b"serving_bytes", b"serving_default", b"serving_windows")
    for name, request in zip(names, requests, strict=True):
        assert name in request.numpy()
    assert b"regions" in requests[1].numpy()


def test_a_model_that_looks_in_several_sizes_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"in one size, and fast_rcnn in \(48, 96\)"):
        export.saved_model(detector(short_sides=(48, 96)), tmp_path / "several")
    assert not list(tmp_path.glob("**/saved_model.pb"))


def test_another_format_says_what_can_be_had(model, tmp_path):
    with pytest.raises(InputError, match="takes images, regions; its SavedModel can be written"):
        export.litert(model, tmp_path / "it.tflite")
