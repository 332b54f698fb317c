"""YOLO v1's numbers: the paper's, and those of darknet's cfg files."""

import keras
import pytest

from kerasdet.backbones import extraction
from kerasdet.detectors.yolo_v1 import YOLOv1

# Floats of each published file, its header left out: (bytes - 16) / 4.
FLOATS = {
    "yolo.cfg of 2015": (271_703_550, 20, {"head": "paper"}),
    "yolov1.cfg": (197_328_243, 20, {"head": "local"}),
    "yolov1.weights of 2016-11": (194_254_718, 20, {"head": "local", "boxes_per_cell": 2}),
    "yolo-small.cfg": (93_970_430, 20, {"hidden": (512, 4096)}),
    "yolo-coco.cfg": (234_210_543, 80, {"head": "local"}),
    "yolov1-tiny.cfg": (27_099_950, 20, {"backbone": "tiny"}),
}


@pytest.fixture(autouse=True)
def unmade():
    """Weights have shapes but no memory: the largest network would take a gigabyte."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


@pytest.mark.parametrize(("count", "classes", "arguments"), FLOATS.values(), ids=FLOATS.keys())
def test_networks_have_as_many_numbers_as_their_files(count, classes, arguments):
    assert YOLOv1(classes, **arguments).count_params() == count


def test_the_paper_predicts_7x7x30_numbers_and_98_boxes():
    """Sec. 2: S = 7, B = 2, C = 20, and a tensor of S x S x (B * 5 + C)."""
    yolo = YOLOv1(20)
    assert yolo.get_layer("connected2").units == 7 * 7 * 30
    shapes = {name: value.shape[1:] for name, value in yolo.output.items()}
    assert shapes == {"classes": (7, 7, 20), "confidence": (7, 7, 2), "boxes": (7, 7, 2, 4)}
    assert 7 * 7 * 2 == 98
    assert yolo.image_size == (448, 448)


def test_the_paper_has_24_convolutions_then_two_connected_layers():
    """Figure 3: 448 pixels, 14x14x1024 after conv20, 7x7x1024, 4096, 1470; dropout 0.5 (sec. 2.2)."""
    yolo = YOLOv1(20)
    assert _count(yolo, keras.layers.Conv2D) == 24
    assert _count(yolo, keras.layers.Dense) == 2
    assert yolo.get_layer("conv20").output.shape == (None, 14, 14, 1024)
    assert yolo.get_layer("flatten").input.shape == (None, 7, 7, 1024)
    assert yolo.get_layer("connected1").units == 4096
    assert yolo.get_layer("dropout").rate == 0.5
    assert _count(yolo, keras.layers.BatchNormalization) == 0


def test_the_release_predicts_1715_numbers():
    """yolov1.cfg: 7 * 7 * (3 * 5 + 20), from a locally connected layer of 256 channels."""
    yolo = YOLOv1(20, head="local")
    assert yolo.get_layer("connected1").units == 7 * 7 * (3 * 5 + 20) == 1715
    assert yolo.get_layer("local1").kernel.shape == (7, 7, 3, 3, 1024, 256)


def test_fast_yolo_has_nine_convolutions():
    """Sec. 2.2; cfg/yolo-tiny.cfg of 2015-11-09: 16 to 512 doubling, three of 1024; 256, 4096, 1470."""
    yolo = YOLOv1(20, backbone="fast")
    convolutions = [yolo.get_layer(f"conv{number}").filters for number in range(1, 10)]
    assert convolutions == [16, 32, 64, 128, 256, 512, 1024, 1024, 1024]
    assert [yolo.get_layer(f"connected{n}").units for n in (1, 2, 3)] == [256, 4096, 1470]
    kernels = 3 * 3 * sum(a * b for a, b in zip([3, *convolutions], convolutions, strict=False))
    connected = (7 * 7 * 1024 + 1) * 256 + (256 + 1) * 4096 + (4096 + 1) * 1470
    assert yolo.count_params() == kernels + sum(convolutions) + connected
    assert _seen(yolo) == (-1, 1)


def test_the_first_release_of_coco_has_4410_numbers():
    """yolo-coco.cfg of 2016-06 (commit ae43c2bc): 192 local channels, 7 * 7 * (80 + 2 * 5)."""
    yolo = YOLOv1(
        80,
        head="local",
        local_filters=192,
        boxes_per_cell=2,
        batch_norm=False,
        input_range=(-1, 1),
    )
    assert yolo.get_layer("connected1").kernel.shape == (7 * 7 * 192, 4410)
    assert _count(yolo, keras.layers.BatchNormalization) == 0


@pytest.mark.parametrize(
    ("cfg", "classes", "arguments"),
    [
        ("cfg/yolov1.cfg", 20, {"head": "local"}),
        ("cfg/yolov1-tiny.cfg", 20, {"backbone": "tiny"}),
        ("cfg_history/yolov1/yolo.cfg", 20, {"head": "local"}),
        ("cfg_history/yolov1/yolo-coco.cfg", 80, {"head": "local", "dropout": 0}),
        ("cfg_history/yolov1/tiny-coco.cfg", 80, {"backbone": "tiny", "boxes_per_cell": 3}),
        (
            "cfg_history/yolov1/yolo-small.cfg",
            20,
            {"hidden": (512, 4096), "input_range": (-1, 1)},
        ),
    ],
)
def test_layers_are_those_of_the_cfg(cfg, classes, arguments, shared_data):
    sections = _read_cfg(shared_data / "darknet" / cfg)
    cropped = [name for name, _ in sections if name == "crop"]
    yolo = YOLOv1(classes, **arguments)
    assert _layers(yolo) == _expected(sections)
    detection = dict(sections)["detection"]
    assert yolo.boxes_per_cell == int(detection["num"])
    assert yolo.grid == (int(detection["side"]),) * 2
    assert _seen(yolo) == ((-1, 1) if cropped else (0, 1))


@pytest.mark.parametrize(
    ("cfg", "trunk", "batch_norm"),
    [
        ("cfg/extraction.cfg", extraction.extraction, True),
        ("cfg/extraction.conv.cfg", extraction.extraction, False),
        ("cfg/darknet.cfg", extraction.darknet_reference, True),
    ],
)
def test_trunks_are_those_of_the_classifiers(cfg, trunk, batch_norm, shared_data):
    sections = _read_cfg(shared_data / "darknet" / cfg)
    until_pool = sections[: [name for name, _ in sections].index("avgpool")]
    image = keras.Input((224, 224, 3))
    found = _layers(keras.Model(image, trunk(image, batch_norm=batch_norm)))
    expected = _expected(until_pool)
    if cfg == "cfg/extraction.cfg":  # its last convolution makes the class scores
        assert expected.pop() == ("convolutional", 1000, 1, 1, False, "leaky")
    assert found == expected


# ---------------------------------------------------------------------- reading


def _read_cfg(path):
    """(name, options) of each section after [net]."""
    sections = []
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            sections.append((line.strip("[]"), {}))
        elif line:
            key, value = line.split("=")
            sections[-1][1][key.strip()] = value.strip()
    return sections[1:]


def _expected(sections):
    rows = []
    for name, options in sections:
        if name == "convolutional":
            shape = [int(options[key]) for key in ("filters", "size", "stride")]
            norm = options.get("batch_normalize") == "1"
            rows.append((name, *shape, norm, options["activation"]))
        elif name == "maxpool":
            rows.append((name, int(options["size"]), int(options["stride"])))
        elif name == "local":
            shape = [int(options[key]) for key in ("filters", "size", "stride", "pad")]
            rows.append((name, *shape, options["activation"]))
        elif name == "dropout":
            rows.append((name, float(options["probability"])))
        elif name == "connected":
            rows.append((name, int(options["output"]), options["activation"]))
    return rows


def _layers(model):
    """The same rows, read from the Keras layers."""
    names = {layer.name for layer in model.layers}
    rows = []
    for layer in model.layers:
        active = "leaky" if f"{layer.name}_leaky" in names else "linear"
        if isinstance(layer, keras.layers.Conv2D):
            shape = (layer.filters, layer.kernel_size[0], layer.strides[0])
            rows.append(("convolutional", *shape, f"{layer.name}_norm" in names, active))
        elif isinstance(layer, keras.layers.MaxPooling2D):
            rows.append(("maxpool", layer.pool_size[0], layer.strides[0]))
        elif layer.name.startswith("local") and layer.weights:
            shape = (layer.filters, layer.kernel_size, layer.stride, layer.pad)
            rows.append(("local", *shape, active))
        elif isinstance(layer, keras.layers.Dropout):
            rows.append(("dropout", layer.rate))
        elif isinstance(layer, keras.layers.Dense):
            rows.append(("connected", layer.units, active))
    return rows


def _count(model, kind):
    return sum(isinstance(layer, kind) for layer in model.layers)


def _seen(model):
    """What the network sees for 0 and for 255."""
    normalize = model.get_layer("normalize")
    return normalize.offset, round(255 * normalize.scale + normalize.offset, 9)
