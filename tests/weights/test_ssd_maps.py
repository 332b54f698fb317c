import caffe_writer
import keras
import numpy as np
import pytest
import ssd_names as names
import torch_writer

from kerasdet.classes import COCO_IDS, COCO_NAMES, COCO_NAMES_BY_ID, VOC_NAMES
from kerasdet.detectors.ssd import SSD
from kerasdet.errors import InputError
from kerasdet.layers.default_boxes import RELEASED
from kerasdet.weights.assign import variable_names
from kerasdet.weights.caffe_file import CaffeModel, PriorBox
from kerasdet.weights.darknet_file import write_darknet
from kerasdet.weights.maps import ssd


@pytest.fixture(scope="module")
def voc300():
    return SSD(class_names=VOC_NAMES)


def values(model):
    return {name: np.asarray(v) for name, v in variable_names(model).items()}


def check(model, expected):
    """Every variable has its tensor: (out, in, h, w) there, (h, w, in, out) here."""
    found = values(model)
    assert len(found) == 2 * len(expected) + 1  # kernel and bias each, and the gain
    for layer, (weight, bias) in expected.items():
        np.testing.assert_array_equal(
            found[f"{layer}/kernel"], np.moveaxis(weight, (2, 3), (0, 1)).swapaxes(2, 3)
        )
        np.testing.assert_array_equal(found[f"{layer}/bias"], bias)
    np.testing.assert_array_equal(found["conv4_3_norm/gain"], names.gain())


def background_first(weight, bias, logits):
    """mmdetection's class outputs, box by box with background last, one row at a time."""
    moved = [np.empty_like(weight), np.empty_like(bias)]
    for source, target in zip((weight, bias), moved, strict=True):
        for box in range(len(source) // logits):
            for theirs in range(logits):
                ours = 0 if theirs == logits - 1 else theirs + 1
                target[box * logits + ours] = source[box * logits + theirs]
    return tuple(moved)


@pytest.mark.parametrize("program", names.PROGRAMS)
def test_every_tensor_of_a_torch_ssd300_lands_in_its_variable(voc300, program):
    weights = ssd.from_torch(names.state_dict(program, 21))
    assert weights.source == program.split()[0]
    assert not ssd.load(voc300, weights).left
    expected = names.tensors(21)
    if weights.source == "mmdetection":
        for layer in [layer for layer in expected if layer.endswith("conf")]:
            expected[layer] = background_first(*expected[layer], 21)
    check(voc300, expected)


def test_every_tensor_of_mmdetections_ssd512_lands_in_its_variable():
    model = SSD(class_names=["cat", "dog"], image_size=512)
    state = names.state_dict("mmdetection", 3, size=512)
    weights = ssd.from_torch(state, class_names=("cat", "dog"))
    assert weights.class_names == ["cat", "dog"]
    assert weights.boxes == RELEASED["ssd512_coco"]
    assert not ssd.load(model, weights).left
    expected = names.tensors(3, size=512)
    for layer in [layer for layer in expected if layer.endswith("conf")]:
        expected[layer] = background_first(*expected[layer], 3)
    check(model, expected)


def caffe_model(logits, *, size=300, priors=None):
    layers = {layer: list(blobs) for layer, blobs in names.tensors(logits, size=size).items()}
    layers["conv4_3_norm"] = [names.gain()]
    types = dict.fromkeys(layers, "Convolution") | {"conv4_3_norm": "Normalize"}
    return CaffeModel("ssd", layers, types, priors or {})


def test_every_blob_of_a_caffe_ssd300_lands_in_its_variable_and_bgr_becomes_rgb(voc300):
    assert not ssd.load(voc300, ssd.from_caffe(caffe_model(21))).left
    expected = names.tensors(21)
    weight, bias = expected["conv1_1"]
    rgb = np.stack([weight[:, 2], weight[:, 1], weight[:, 0]], axis=1)
    expected["conv1_1"] = rgb, bias
    check(voc300, expected)


def test_the_first_kernel_gives_in_rgb_what_it_gave_in_bgr(rng):
    weight = rng.normal(size=(64, 3, 3, 3)).astype("f4")
    model = CaffeModel("", {"conv1_1": [weight, np.zeros(64, "f4")]}, {}, {})
    kernel = ssd.convolutions_from_caffe(model)["conv1_1/kernel"]
    rgb = rng.normal(size=(3, 3, 3)).astype("f4")  # one patch: row, column, channel
    bgr_planes = rgb[:, :, ::-1].transpose(2, 0, 1)
    theirs = (weight * bgr_planes).sum((1, 2, 3))
    ours = (kernel * rgb[..., None]).sum((0, 1, 2))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("program", "logits", "labels", "boxes"),
    [
        ("torchvision", 91, list(COCO_NAMES_BY_ID), "ssd300_torchvision"),
        ("torchvision", 4, ["class 0", "class 1", "class 2"], "ssd300_torchvision"),
        ("amdegroot", 21, list(VOC_NAMES), "ssd300_amdegroot"),
        ("mmdetection", 81, list(COCO_NAMES), "ssd300_coco"),
        ("mmdetection", 21, list(VOC_NAMES), "ssd300_voc"),
        ("mmdetection before 2.14", 81, list(COCO_NAMES), "ssd300_coco"),
    ],
)
def test_classes_and_default_boxes_follow_from_the_file(program, logits, labels, boxes):
    weights = ssd.from_torch(names.state_dict(program, logits))
    assert weights.class_names == labels
    assert weights.boxes == RELEASED[boxes]
    means = {"torchvision": 122.99925, "amdegroot": 123, "mmdetection": 123.675}
    assert weights.mean[0] == pytest.approx(means[weights.source])


def prior(size, following, ratios, step, **changes):
    """A PriorBox layer of the release; integers in a file are floats."""
    fields = {"variances": (0.1, 0.1, 0.2, 0.2), "step": step, **changes}
    return PriorBox((float(size),), (float(following),), ratios, **fields)


def priors_512():
    sizes = (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72)  # SSD512 COCO's prototxt
    return {
        f"{name}_mbox_priorbox": prior(size, following, ratios, step)
        for (name, *_), size, following, ratios, step in zip(
            names.SOURCES,
            sizes[:-1],
            sizes[1:],
            ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
            (8, 16, 32, 64, 128, 256, 512),
            strict=True,
        )
    }


def test_default_boxes_of_a_caffe_file_are_its_own_in_whole_pixels():
    weights = ssd.from_caffe(caffe_model(4, size=512, priors=priors_512()))
    assert weights.boxes == RELEASED["ssd512_coco"]  # 20.48 became 20, 542.72 became 542
    assert weights.class_names == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": True}, "of a kind"),
        ({"flip": False}, "of a kind"),
        ({"variances": (0.1,)}, "of a kind"),
        ({"step": float("nan")}, "of a kind"),
        ({"min_sizes": (float("inf"),)}, "of a kind"),
        ({"min_sizes": ()}, "of a kind"),
        ({"max_sizes": (70.0,)}, "not the next maps' smallest"),
    ],
)
def test_default_boxes_that_this_package_does_not_have_are_refused(changes, message):
    priors = priors_512()
    priors["fc7_mbox_priorbox"] = priors["fc7_mbox_priorbox"]._replace(**changes)
    with pytest.raises(InputError, match=message):
        ssd.from_caffe(caffe_model(4, size=512, priors=priors))


def test_a_file_on_disk_is_recognised_read_and_described(tmp_path, voc300):
    torch_path, caffe_path = tmp_path / "a", tmp_path / "b"  # no endings: content decides
    torch_writer.write(torch_path, names.state_dict("amdegroot", 21), "legacy")
    blobs = caffe_model(21)
    layers = {name: (blobs.types[name], arrays) for name, arrays in blobs.layers.items()}
    few = {name: layers[name] for name in layers if "mbox" in name or name == "conv1_1"}
    caffe_path.write_bytes(caffe_writer.net(few).SerializeToString())
    weights = ssd.read_ssd(torch_path)
    assert (weights.source, len(weights.arrays)) == ("amdegroot", 2 * 35 + 1)
    assert not ssd.load(voc300, weights).left
    weights = ssd.read_ssd(caffe_path)
    assert (weights.source, weights.class_names) == ("caffe", list(VOC_NAMES))
    with pytest.raises(InputError, match=r"conv1_2/kernel 3x3x64x64 is missing.*and \d+ more"):
        ssd.load(voc300, weights, source=str(caffe_path))


def test_with_another_class_count_only_the_class_outputs_are_left(voc300):
    before = values(voc300)
    report = ssd.load(voc300, ssd.from_torch(names.state_dict("amdegroot", 4)))
    left = {
        f"{name}_mbox_conf/{part}" for name, *_ in names.SOURCES[:6] for part in ("kernel", "bias")
    }
    assert {item.name for item in report.left} == left
    assert report.left[0].wanted == (3, 3, 512, 4 * 21)
    assert report.left[0].came == (3, 3, 512, 4 * 4)
    after = values(voc300)
    for name in left:
        np.testing.assert_array_equal(after[name], before[name])
    _, bias = names.tensors(4)["fc7_mbox_loc"]
    np.testing.assert_array_equal(after["fc7_mbox_loc/bias"], bias)


def test_as_many_classes_of_other_names_leave_the_class_outputs_too(voc300):
    weights = ssd.from_torch(names.state_dict("amdegroot", 21))
    assert len(ssd.load(voc300, weights, classes=[f"part {i}" for i in range(20)]).left) == 12
    assert not ssd.load(voc300, weights, classes=list(VOC_NAMES)).left


def test_tensors_too_many_are_named(voc300):
    state = names.state_dict("amdegroot", 21) | {"extras.8.weight": np.zeros((2, 3), "f4")}
    with pytest.raises(InputError, match=r"extras\.8\.weight 2x3 is not used"):
        ssd.load(voc300, ssd.from_torch(state))


def test_torchvisions_512_is_refused_since_it_is_another_network():
    state = names.state_dict("torchvision", 4) | {"backbone.extra.5.0.weight": np.zeros(1)}
    with pytest.raises(InputError, match="highres"):
        ssd.from_torch(state)


def test_other_networks_are_refused_by_what_they_have():
    with pytest.raises(InputError, match="its tensors are layer1, layer2"):
        ssd.from_torch({"layer1": np.zeros(2), "layer2": np.zeros(3)})
    with pytest.raises(InputError, match="its layers with weights are res2a"):
        ssd.from_caffe(CaffeModel("", {"res2a": [np.zeros(2)]}, {}, {}))


def test_a_file_of_another_program_is_refused_by_its_name(tmp_path):
    write_darknet(tmp_path / "yolo.weights", [np.zeros(9, "f4")])
    with pytest.raises(InputError, match=r"holds weights of darknet; SSD's come as torch \.pth"):
        ssd.read_ssd(tmp_path / "yolo.weights")


def test_heads_that_disagree_on_the_classes_are_refused():
    state = names.state_dict("amdegroot", 4)
    state["conf.2.bias"] = np.zeros(7, "f4")
    with pytest.raises(InputError, match="do not agree"):
        ssd.from_torch(state)
    del state["conf.2.bias"]
    with pytest.raises(InputError, match="no outputs on conv6_2"):
        ssd.from_torch(state)


def test_the_gaps_of_cocos_ids_can_be_left_out():
    weights = ssd.from_torch(names.state_dict("torchvision", 91))
    short = ssd.without_coco_gaps(weights)
    assert short.class_names == list(COCO_NAMES)
    full, cut = (w.arrays["conv4_3_norm_mbox_conf/bias"] for w in (weights, short))
    assert cut.shape == (4 * 81,)
    for box in range(4):
        assert cut[box * 81] == full[box * 91]  # background
        for label, coco_id in enumerate(COCO_IDS):
            assert cut[box * 81 + 1 + label] == full[box * 91 + coco_id]
    with pytest.raises(InputError, match="90 ids"):
        ssd.without_coco_gaps(short)


def convolve(x, weight, bias, *, stride=1, pad=0, dilation=1):
    """Cross-correlation of (h, w, in) with (out, in, k, k), tap by tap."""
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    reach = dilation * (weight.shape[2] - 1)
    rows, columns = ((side - reach - 1) // stride + 1 for side in x.shape[:2])
    y = np.zeros((rows * columns, len(weight)), "f4") + bias
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            seen = x[i * dilation :, j * dilation :][: stride * (rows - 1) + 1 : stride]
            seen = seen[:, : stride * (columns - 1) + 1 : stride].reshape(rows * columns, -1)
            y += seen @ np.ascontiguousarray(weight[:, :, i, j].T)
    return y.reshape(rows, columns, -1)


def pool(x, size, stride, pad=0):
    """Maximum over windows, outputs counted upwards as Caffe and ceil_mode do."""
    rows, columns = (-(-(side + 2 * pad - size) // stride) + 1 for side in x.shape[:2])
    bottom = (
        (rows - 1) * stride + size - x.shape[0] - pad,
        (columns - 1) * stride + size - x.shape[1] - pad,
    )
    x = np.pad(
        x, ((pad, max(bottom[0], 0)), (pad, max(bottom[1], 0)), (0, 0)), constant_values=-np.inf
    )
    windows = [
        x[i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return np.max(windows, axis=0)


def forward(image, state):
    """torchvision's ssd300_vgg16 on one image (300, 300, 3), 0..255, from its state dict."""

    def layer(x, name, **kwargs):
        return np.maximum(convolve(x, state[f"{name}.weight"], state[f"{name}.bias"], **kwargs), 0)

    x = image / np.float32(255) - np.array([0.48235, 0.45882, 0.40784], "f4")
    x = x / np.float32(1 / 255)
    for block in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21)):
        for index in block:
            x = layer(x, f"backbone.features.{index}", pad=1)
        if block[-1] != 21:
            x = pool(x, 2, 2)
    length = np.sqrt((x**2).sum(-1, keepdims=True))
    maps = [state["backbone.scale_weight"] * x / np.maximum(length, 1e-12)]
    x = pool(x, 2, 2)
    for index in (1, 3, 5):
        x = layer(x, f"backbone.extra.0.{index}", pad=1)
    x = pool(x, 3, 1, 1)
    x = layer(x, "backbone.extra.0.7.1", pad=6, dilation=6)
    maps.append(layer(x, "backbone.extra.0.7.3"))
    for block, (stride, pad) in enumerate(((2, 1), (2, 1), (1, 0), (1, 0)), start=1):
        x = layer(maps[-1], f"backbone.extra.{block}.0")
        maps.append(layer(x, f"backbone.extra.{block}.2", stride=stride, pad=pad))
    outputs = []
    for head, numbers in (("regression", 4), ("classification", 91)):
        name = f"head.{head}_head.module_list"
        flat = [
            convolve(x, state[f"{name}.{i}.weight"], state[f"{name}.{i}.bias"], pad=1).reshape(
                -1, numbers
            )
            for i, x in enumerate(maps)
        ]
        outputs.append(np.concatenate(flat))
    return outputs


def test_loaded_weights_give_the_outputs_of_an_independent_forward_pass(rng):
    state = names.state_dict("torchvision", 91)
    weights = ssd.from_torch(state)
    model = SSD(**weights.arguments())
    assert model.count_params() == 35_641_826  # torchvision's own figure
    assert not ssd.load(model, weights).left
    image = rng.integers(0, 256, (300, 300, 3)).astype("f4")
    outputs = model(image[None], training=False)
    boxes, classes = (keras.ops.convert_to_numpy(outputs[key])[0] for key in ("boxes", "classes"))
    boxes_there, classes_there = forward(image, state)
    assert boxes_there.std() > 0.1  # the numbers reach the end
    np.testing.assert_allclose(boxes, boxes_there, atol=2e-3 * np.abs(boxes_there).max())
    np.testing.assert_allclose(classes, classes_there, atol=2e-3 * np.abs(classes_there).max())
