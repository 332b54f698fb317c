"""The numbers of the YOLOv2 paper and of darknet's releases (arXiv:1612.08242; darknet cfg/)."""

import re

import numpy as np
import pytest

from kerasdet.detectors.yolo_v2 import ANCHORS, YOLOv2
from kerasdet.layers.passthrough import Passthrough

# Published files: constructor's arguments, cfg, and the numbers behind the header.
RELEASES = {
    "yolov2-voc": ({"num_classes": 20}, "cfg/yolov2-voc.cfg", 50_676_061),
    "yolov2": ({"num_classes": 80, "anchors": "coco"}, "cfg/yolov2.cfg", 50_983_561),
    "yolo 2016": (
        {"num_classes": 80, "anchors": "coco_2016", "passthrough_filters": None},
        "cfg_history/yolo.cfg",
        67_465_609,
    ),
    "yolov2-tiny-voc": (
        {"num_classes": 20, "backbone": "tiny"},
        "cfg/yolov2-tiny-voc.cfg",
        15_867_885,
    ),
    "yolov2-tiny": (
        {"num_classes": 80, "backbone": "tiny", "anchors": "coco", "head_filters": (512,)},
        "cfg/yolov2-tiny.cfg",
        11_237_145,
    ),
}


@pytest.fixture(scope="module", params=RELEASES, ids=list(RELEASES))
def release(request):
    arguments, cfg, numbers = RELEASES[request.param]
    return YOLOv2(**arguments), cfg, numbers


def sections(text):
    """(name, {key: value}) of a cfg's sections."""
    found = []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif "=" in line:
            key, value = line.split("=")
            found[-1][1][key.strip()] = value.strip()
    return found


def test_parameter_counts_are_the_published_files(release):
    """All but the count of images seen, which stands in the file's header."""
    model, _, numbers = release
    assert model.count_params() - 1 == numbers


def test_the_last_map_has_a_cell_for_32_pixels(release):
    """416 pixels are 13x13 cells, 5 priors each: 125 or 425 channels."""
    model, _, _ = release
    channels = 5 * (5 + model.num_classes)
    assert channels in (125, 425)
    for side, cells in ((288, 9), (416, 13), (544, 17), (608, 19)):
        shape = model.compute_output_shape((1, side, side, 3))["region"]
        assert shape == (1, cells, cells, 5, channels // 5)


def test_every_convolution_is_the_cfgs_of_its_number(release, shared_data):
    """Filters, kernel, normalisation; and the priors."""
    model, cfg, _ = release
    read = sections((shared_data / "darknet" / cfg).read_text())
    convolutions = [values for name, values in read if name == "convolutional"]
    ours = {layer.name for layer in model.layers if re.fullmatch(r"conv\d+", layer.name)}
    assert ours == {f"conv{n}" for n in range(1, len(convolutions) + 1)}
    for number, values in enumerate(convolutions, start=1):
        layer = model.get_layer(f"conv{number}")
        assert layer.filters == int(values["filters"])
        assert layer.kernel_size[0] == int(values["size"])
        assert layer.use_bias == ("batch_normalize" not in values)
        leaky = f"conv{number}_leaky" in {each.name for each in model.layers}
        assert leaky == (values["activation"] == "leaky")
    pools = [layer for layer in model.layers if layer.name.startswith("pool")]
    strides = [int(values["stride"]) for name, values in read if name == "maxpool"]
    assert [pool.strides[0] for pool in pools] == strides
    anchors = [float(a) for a in read[-1][1]["anchors"].split(",")]
    np.testing.assert_allclose(model.priors.ravel(), anchors, rtol=1e-6)


def test_the_passthrough_folds_the_26x26_map_and_stands_first():
    """yolov2.cfg: 26x26x512, 1x1 to 64, reorg to 13x13x256, with 1024 channels 1280 in all."""
    model = YOLOv2(20)
    squeeze, fold = model.get_layer("conv21"), model.get_layer("passthrough")
    assert squeeze.kernel.shape == (1, 1, 512, 64)
    assert isinstance(fold, Passthrough)
    assert fold.order == "darknet"
    assert fold.compute_output_shape((1, 26, 26, 64)) == (1, 13, 13, 256)
    first, second = model.get_layer("joined").input
    assert (first.shape[-1], second.shape[-1]) == (256, 1024)
    assert model.get_layer("conv22").kernel.shape == (3, 3, 1280, 1024)
    assert model.get_layer("conv23").kernel.shape == (1, 1, 1024, 125)


def test_the_paper_folds_all_512_channels():
    model = YOLOv2(20, passthrough="space_to_depth", passthrough_filters=None)
    assert model.get_layer("conv21").kernel.shape == (3, 3, 4 * 512 + 1024, 1024)


def test_there_are_845_boxes_at_416_and_1805_at_608():
    model = YOLOv2(20, backbone="tiny")
    assert len(model.default_boxes) == 845 == 13 * 13 * 5
    model.image_size = 608
    assert len(model.default_boxes) == 1805 == 19 * 19 * 5


def test_the_voc_priors_are_in_cells_of_32_pixels():
    """The last is 11.2x10.0 of the 13x13 cells: 360x320 of 416x416 pixels."""
    np.testing.assert_allclose(np.array(ANCHORS["voc"][-1]) * 32, (359.6, 320.2), atol=0.1)
    assert all(len(anchors) == 5 for name, anchors in ANCHORS.items() if name != "hand_picked")
