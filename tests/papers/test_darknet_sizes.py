"""Every published darknet file has as many bytes as our layers have numbers, and its header.

The networks are built without numbers in their variables: YOLO v1's would take a gigabyte.
"""

import keras
import pytest

from kerasdet import classifier
from kerasdet.detectors.yolo9000 import YOLO9000
from kerasdet.detectors.yolo_v1 import YOLOv1
from kerasdet.detectors.yolo_v2 import YOLOv2
from kerasdet.weights.maps import darknet
from kerasdet.word_tree import WordTree

pytestmark = pytest.mark.slow


def blocks(build):
    """What the file of a network holds."""
    with keras.StatelessScope(initialize_variables=False):
        found = darknet.blocks(build())
    keras.utils.clear_session()  # forgets the variables that were promised numbers
    return found


def counts(build):
    """Numbers in the file of a network, layer by layer."""
    here = blocks(build)
    found = dict.fromkeys((block.layer for block in here), 0)
    for block in here:
        found[block.layer] += block.size
    return list(found.values())


def yolo9000():
    """As many nodes as 9k.tree has; how they hang together does not change the count."""
    return YOLO9000(WordTree([f"node {n}" for n in range(9418)], [-1] * 9418))


# File; bytes as published (with the header of that file) or as computed from its cfg with a header
# of 16; the network; how many of its layers the file has.
FILES = [
    ("yolov2.weights", 203_934_260, lambda: YOLOv2(80), None),
    ("yolov2-voc.weights", 202_704_260, lambda: YOLOv2(20), None),
    ("yolo.weights of 2016-11", 269_862_452, lambda: YOLOv2(80, passthrough_filters=None), None),
    (
        "yolov2-tiny.weights",
        44_948_596,
        lambda: YOLOv2(80, backbone="tiny", head_filters=(512,)),
        None,
    ),
    ("yolov2-tiny-voc.weights", 63_471_556, lambda: YOLOv2(20, backbone="tiny"), None),
    ("yolov1/yolov1.weights", 789_312_988, lambda: YOLOv1(20, head="local"), None),
    (
        "yolov1.weights of 2016-11",
        777_018_888,
        lambda: YOLOv1(20, head="local", boxes_per_cell=2),
        None,
    ),
    ("yolo.rescore.weights", 1_086_814_216, lambda: YOLOv1(20, head="paper"), None),
    ("yolo-small.weights", 375_881_736, lambda: YOLOv1(20, hidden=(512, 4096)), None),
    ("tiny-yolov1.weights", 108_399_816, lambda: YOLOv1(20, backbone="tiny"), None),
    ("yolo-coco.weights", 936_842_188, lambda: YOLOv1(80, head="local", dropout=0), None),
    ("yolo9000.weights", 195_230_020, yolo9000, None),
    ("darknet19_448.conv.23 in YOLO9000", 79_327_120, yolo9000, 18),
    ("darknet19.weights", 83_427_120, classifier.darknet19, None),
    ("darknet19_448.conv.23", 79_327_120, classifier.darknet19, 18),
    ("darknet19_448.conv.23 in YOLOv2", 79_327_120, lambda: YOLOv2(20), 18),
    ("darknet9000.weights", 117_940_920, lambda: classifier.darknet19(9418), None),
    ("extraction.weights", 93_821_616, classifier.extraction, None),
    ("extraction.conv.weights", 89_721_616, classifier.extraction, 20),
    ("extraction.conv.weights in YOLO v1", 89_721_616, lambda: YOLOv1(20, head="local"), 20),
    (
        "extraction.conv.weights without normalisation",
        89_612_560,
        lambda: classifier.extraction(batch_norm=False),
        20,
    ),
    ("tiny.weights", 4_185_968, classifier.tiny_darknet, None),
]


@pytest.mark.parametrize(
    ("published", "build", "layers"), [f[1:] for f in FILES], ids=[f[0] for f in FILES]
)
def test_our_layers_have_the_numbers_of_the_published_file(published, build, layers):
    assert 16 + 4 * sum(counts(build)[:layers]) == published


def test_counting_takes_no_memory_for_the_numbers(monkeypatch):
    """If Keras gave the variables numbers after all, this would call the initializer."""

    def never(*args, **kwargs):
        raise AssertionError("a variable got its numbers")

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", never)
    assert sum(counts(lambda: YOLOv1(20, head="paper"))) == 271_703_550


@pytest.mark.parametrize(
    ("build", "convolutions", "others"),
    [
        (lambda: YOLOv2(20), 23, []),
        (lambda: YOLOv2(20, passthrough_filters=None), 22, []),
        (lambda: YOLOv2(20, backbone="tiny"), 9, []),
        (yolo9000, 19, []),
        (lambda: YOLOv1(20, head="local"), 24, ["local1", "connected1"]),
        (lambda: YOLOv1(20, head="paper"), 24, ["connected1", "connected2"]),
        (lambda: YOLOv1(20, backbone="tiny"), 8, ["connected1"]),
    ],
)
def test_layers_come_in_the_order_of_the_cfg(build, convolutions, others):
    found = list(dict.fromkeys(block.layer for block in blocks(build)))
    assert found == [*(f"conv{n}" for n in range(1, convolutions + 1)), *others]


def test_the_passthroughs_convolution_is_the_21st_of_yolov2_cfg():
    weights = {b.layer: b.shape for b in blocks(lambda: YOLOv2(20)) if b.what == "weights"}
    assert weights["conv20"] == (1024, 1024, 3, 3)
    assert weights["conv21"] == (64, 512, 1, 1)
    assert weights["conv22"] == (1024, 4 * 64 + 1024, 3, 3)
    assert weights["conv23"] == (5 * 25, 1024, 1, 1)


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (
            lambda: YOLOv1(20, head="local"),
            {"local1": (7, 7, 256, 1024, 3, 3), "connected1": (1715, 256, 7, 7)},
        ),
        (
            lambda: YOLOv1(20, head="paper"),
            {"connected1": (4096, 1024, 7, 7), "connected2": (1470, 4096, 1, 1)},
        ),
    ],
)
def test_a_connected_layer_behind_a_map_has_its_inputs_by_channel_row_column(build, shapes):
    found = {b.layer: b.shape for b in blocks(build) if b.what == "weights"}
    assert {layer: found[layer] for layer in shapes} == shapes


def test_the_count_is_the_models_own():
    model = YOLOv2(20, backbone="tiny")
    assert darknet.expected_floats(model) == 15_867_885
    assert model.count_params() == 15_867_885 + 1  # the images seen
