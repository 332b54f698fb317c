"""A trained tiny YOLOv2 in darknet's format finds on real photos what darknet's arithmetic finds."""

import numpy as np
import pytest
from PIL import Image

from kerasdet import data
from kerasdet.classes import VOC_NAMES
from kerasdet.detectors.yolo_v2 import YOLOv2
from kerasdet.evaluation import evaluate
from kerasdet.weights.maps import darknet
from tests import oracles

# At 416x416, threshold 0.3, suppression 0.45: by an independent forward pass in another framework, which
# shrank photos with Pillow's bilinear filter, an average of several pixels. Boxes in the photos' pixels.
LISTED = {
    "dog.jpg": [
        ("bicycle", 0.68, (133, 119, 622, 451)),
        ("dog", 0.67, (116, 199, 327, 516)),
        ("car", 0.45, (406, 83, 593, 152)),
    ],
    "person.jpg": [
        ("person", 0.83, (167, 102, 288, 355)),
        ("dog", 0.82, (67, 258, 194, 357)),
        ("sheep", 0.75, (413, 122, 599, 337)),
    ],
    "horses.jpg": [
        ("horse", 0.62, (-2, 189, 431, 418)),
        ("horse", 0.62, (417, 205, 602, 352)),
        ("horse", 0.56, (249, 182, 416, 365)),
    ],
    "eagle.jpg": [("bird", 1.00, (184, 82, 608, 449))],
}


@pytest.fixture(scope="module")
def weights(shared_data):
    return shared_data / "weights/yolov2-tiny-voc_k5iogura/yolov2-tiny-voc_352_288_final.weights"


@pytest.fixture(scope="module")
def trained(weights):
    model = YOLOv2(class_names=VOC_NAMES, backbone="tiny")
    darknet.load(model, weights)
    return model


@pytest.mark.parametrize("name", LISTED)
def test_detect_finds_the_listed_objects_best(trained, shared_data, name):
    """Boxes within 3 pixels, scores within 0.02."""
    (found,) = trained.detect(shared_data / "photos" / name, score_threshold=0.3)
    with Image.open(shared_data / "photos" / name) as photo:
        most = np.tile(photo.size, 2)
    boxes, scores, names = found.boxes[:3], found.scores[:3], found.names[:3]  # the list has three
    assert len(boxes) == len(LISTED[name])
    for label, score, box in LISTED[name]:
        nearest = np.abs(boxes - np.clip(box, 0, most)).max(axis=1).argmin()
        np.testing.assert_allclose(boxes[nearest], np.clip(box, 0, most), atol=3)
        assert scores[nearest] == pytest.approx(score, abs=0.02)
        assert names[nearest] == label


# What darknet's own program (f6afaabc, built for a CPU) prints with the same file:
#     ./darknet detector test cfg/voc.data yolov2-tiny-voc.cfg FILE PHOTO -thresh 0.3
PRINTED = {
    "dog.jpg": {"dog": 59, "car": 55, "bicycle": 65},
    "person.jpg": {"sheep": 67, "person": 84, "dog": 82},
}


@pytest.mark.parametrize("name", PRINTED)
def test_darknets_letterbox_gives_what_darknet_prints(trained, shared_data, name):
    trained.resize = "letterbox"
    (found,) = trained.detect(shared_data / "photos" / name, score_threshold=0.3)
    trained.resize = "letterbox_smooth"
    percent = dict(zip(found.names, 100 * found.scores, strict=True))
    assert percent == pytest.approx(PRINTED[name], abs=1)  # whole ones, of its own decoding of JPEG


def test_the_same_weights_serve_other_sizes(trained, shared_data):
    """At 288 and 544 pixels the dog is where it is at 416."""
    dog = np.array(LISTED["dog.jpg"][1][2], "float32")
    for side in (288, 544):
        trained.image_size = side
        found = trained.detect(shared_data / "photos/dog.jpg", score_threshold=0.2)[0]
        overlaps = [
            oracles.iou(box, dog)
            for box, name in zip(found.boxes, found.names, strict=True)
            if name == "dog"
        ]
        assert max(overlaps, default=0) > 0.7, side
    trained.image_size = 416


def test_the_count_of_images_seen_travels_in_the_header(trained, weights, tmp_path):
    seen = int(np.frombuffer(weights.read_bytes()[12:20], "<u8")[0])
    assert seen > 12_800
    assert int(trained.images_seen) == seen
    darknet.save(trained, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == weights.read_bytes()


@pytest.mark.slow
def test_average_precision_on_coco128_is_as_measured(trained, shared_data):
    """By `kerasdet evaluate yolo_v2_tiny --weights FILE --data coco:... --match-names --rule coco`."""
    folder = shared_data / "coco128"
    coco = data.load(
        f"coco:{folder}/annotations/instances_train2017.json,{folder}/images/train2017"
    )
    result = evaluate(trained, coco, rule="coco", match_names=True, progress=False)
    assert len(result.images) == 128
    assert result.metrics["AP50"] == pytest.approx(0.273, abs=0.01)
