"""Fast R-CNN's Caffe files: every number in its place, and the same outputs."""

import caffe_writer
import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet.classes import VOC_NAMES
from kerasdet.detectors.fast_rcnn import FastRCNN
from kerasdet.errors import InputError
from kerasdet.weights.assign import variable_names
from kerasdet.weights.caffe_file import CaffeModel
from kerasdet.weights.maps import fast_rcnn as maps
from kerasdet.weights.maps import vgg16

pytestmark = pytest.mark.slow

BINS, CHANNELS, HIDDEN = 3, 5, (7, 6)  # of the narrow networks: fc6 sees 3 * 3 * 5 numbers
MEANS = [[0.1, -0.2, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0], [-0.1, 0.2, 0.0, 0.4]]
DEVIATIONS = [[0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0], [0.5, 0.1, 0.2, 0.25]]


def place(out, channel=0, row=0, column=0):
    """The number that a narrow kernel has there: it tells the place's parts apart."""
    return 1009 * out + 101 * channel + 11 * row + column


def kernel(*shape):
    """(out, channel, row, column) in Caffe's order, `place` everywhere; (out, channel) likewise."""
    return np.fromfunction(place, shape).astype("f4")


def convolutions(network):
    """Layer to [weight, bias] of a narrow trunk, in Caffe's order."""
    if network == "vgg16":
        sizes = [(name, 3, 1) for name in vgg16.LAYERS[:13]]
    else:  # name, kernel, groups
        first, groups = (11, 2) if network == "caffenet" else (7, 1)
        sizes = [("conv1", first, 1), ("conv2", 5, groups), ("conv3", 3, 1)]
        sizes += [("conv4", 3, groups), ("conv5", 3, groups)]
    blobs, channels = {}, 3
    for number, (name, side, groups) in enumerate(sizes):
        filters = CHANNELS if number == len(sizes) - 1 and groups == 1 else 4
        blobs[name] = [
            kernel(filters, channels // groups, side, side) + number,
            np.arange(filters, dtype="f4") - number,
        ]
        channels = filters
    return blobs


def last_channels(blobs):
    return [pair[0].shape[0] for name, pair in blobs.items() if name.startswith("conv")][-1]


def classifier(blobs, *, rank=None):
    """The same with fc6 and fc7; with a rank in two each, as models/VGG16/compressed has them."""
    inputs = BINS * BINS * last_channels(blobs)
    made = dict(blobs)
    for name, units in zip(("fc6", "fc7"), HIDDEN, strict=True):
        if rank is None:
            made[name] = [kernel(units, inputs), np.arange(units, dtype="f4")]
        else:
            made[f"{name}_L"] = [kernel(rank, inputs)]
            made[f"{name}_U"] = [kernel(units, rank), np.arange(units, dtype="f4")]
        inputs = units
    return made


def imagenet(blobs):
    """The same with a classifier of ten classes."""
    return {**classifier(blobs), "fc8": [kernel(10, HIDDEN[1]), np.zeros(10, "f4")]}


def released(blobs, *, classes=3, rank=None):
    """The same with the two outputs, background first."""
    made = classifier(blobs, rank=rank)
    for name, rows in (("cls_score", classes + 1), ("bbox_pred", 4 * (classes + 1))):
        made[name] = [kernel(rows, HIDDEN[1]), np.arange(rows, dtype="f4") / 8]
    return made


def random(blobs, seed=0):
    """Of the same shapes, numbers that a forward pass stays finite with."""
    rng = np.random.default_rng(seed)
    return {
        name: [
            (rng.normal(size=blob.shape) / np.sqrt(max(np.prod(blob.shape[1:]), 1))).astype("f4")
            for blob in pair
        ]
        for name, pair in blobs.items()
    }


def caffe(blobs):
    return CaffeModel("net", blobs, {}, {})


def write(path, blobs):
    kinds = {
        name: ("Convolution" if pair[0].ndim == 4 else "InnerProduct", pair)
        for name, pair in blobs.items()
    }
    path.write_bytes(caffe_writer.net(kinds).SerializeToString())
    return path


def narrow(blobs, **changes):
    """A Fast R-CNN for these blobs, its trunk no network of the paper but for the layers' names."""
    x = inputs = keras.Input((None, None, 3))
    for number, (name, pair) in enumerate(blobs.items()):
        if not name.startswith("conv"):
            break
        filters, of_group, side, _ = pair[0].shape
        x = layers.Conv2D(
            filters,
            side,
            strides=2 if number < 2 else 1,
            padding="same",
            activation="relu",
            groups=x.shape[-1] // of_group,
            name=name,
        )(x)
        last = name
    arguments = {
        "class_names": ["a", "b", "c"],
        "backbone": keras.Model(inputs, x),
        "feature_layer": last,
        "pool_size": BINS,
        "hidden": HIDDEN,
        "image_size": 64,
        "target_means": MEANS,
        "target_deviations": DEVIATIONS,
        **changes,
    }
    return FastRCNN(**arguments)


def values(model):
    return {name: np.asarray(v) for name, v in variable_names(model).items()}


def rows_of(blob, channels):
    """fc6's (out, in) as (row, column, channel, out), place by place from Caffe's index."""
    moved = np.empty((BINS, BINS, channels, len(blob)), "f4")
    for channel in range(channels):
        for row in range(BINS):
            for column in range(BINS):
                index = (channel * BINS + row) * BINS + column  # C, H, W: inner_product_layer.cpp
                moved[row, column, channel] = blob[:, index]
    return moved.reshape(-1, len(blob))


# ---------------------------------------------------------------------- places


@pytest.mark.parametrize("network", ["vgg16", "vgg_m_1024", "caffenet"])
def test_every_blob_of_a_released_network_lands_in_its_variable(network):
    blobs = released(convolutions(network))
    weights = maps.from_caffe(caffe(blobs))
    assert (weights.network, weights.is_trunk, weights.ranks) == (network, False, {})
    model = narrow(blobs, target_means=[0] * 4, target_deviations=[1] * 4)
    assert not maps.load(model, weights).left
    found = values(model)
    first = next(iter(blobs))
    for name, (weight, bias) in blobs.items():
        if name.startswith("conv"):
            if name == first:
                weight = np.stack([weight[:, 2], weight[:, 1], weight[:, 0]], axis=1)  # BGR
            expected = weight.transpose(2, 3, 1, 0)
        elif name == "fc6":
            expected = rows_of(weight, last_channels(blobs))
        elif name == "bbox_pred":
            expected, bias = weight[4:].T, bias[4:]
        else:
            expected = weight.T
        np.testing.assert_array_equal(found[f"{name}/kernel"], expected, err_msg=name)
        np.testing.assert_array_equal(found[f"{name}/bias"], bias, err_msg=name)
    assert len(found) == 2 * len(blobs) + 2  # and the targets' means and deviations


def test_a_place_of_fc6_and_of_bbox_pred_by_hand():
    arrays = maps.from_caffe(caffe(released(convolutions("vgg16")))).arrays
    # Row 2, column 1 of channel 4 of 5: Caffe's column 4 * 9 + 2 * 3 + 1, here (2 * 3 + 1) * 5 + 4.
    assert arrays["fc6/kernel"][39, 6] == place(6, 43)
    # Height of the third class: Caffe's row 4 * 3 + 3, here 4 * 2 + 3.
    assert arrays["bbox_pred/kernel"][5, 11] == place(15, 5)
    assert arrays["bbox_pred/bias"].tolist() == [row / 8 for row in range(4, 16)]
    # The first filter's top left tap: blue is Caffe's first channel and the last here.
    assert arrays["conv1_1/kernel"][0, 0].tolist() == [
        [place(out, channel) for out in range(4)] for channel in (2, 1, 0)
    ]


def test_a_compressed_network_has_its_first_half_without_bias():
    blobs = released(convolutions("vgg16"), rank=2)
    weights = maps.from_caffe(caffe(blobs))
    assert weights.ranks == {"fc6": 2, "fc7": 2}
    assert weights.arguments()["ranks"] == {"fc6": 2, "fc7": 2}
    model = narrow(blobs, ranks=weights.ranks)
    assert not maps.load(model, weights).left
    found = values(model)
    np.testing.assert_array_equal(found["fc6_L/kernel"], rows_of(blobs["fc6_L"][0], CHANNELS))
    for name in ("fc6_U", "fc7_L", "fc7_U"):
        np.testing.assert_array_equal(found[f"{name}/kernel"], blobs[name][0].T)
    np.testing.assert_array_equal(found["fc7_U/bias"], range(6))


# ---------------------------------------------------------------------- outputs


def heads(pooled, blobs):
    """Caffe's fc6 to outputs of pooled regions (R, C, p, p), by inner_product_layer.cpp."""

    def connected(x, name):
        weight, *bias = blobs[name]
        return x @ weight.T + (bias[0] if bias else 0)

    x = pooled.reshape(len(pooled), -1)
    for name in ("fc6", "fc7"):
        halves = (name,) if name in blobs else (f"{name}_L", f"{name}_U")
        for half in halves:
            x = connected(x, half)
        x = np.maximum(x, 0)
    return connected(x, "cls_score"), connected(x, "bbox_pred")


@pytest.mark.parametrize("rank", [None, 4])
def test_outputs_are_those_of_caffes_heads_whatever_the_models_statistics(rank, rng):
    blobs = random(released(convolutions("vgg16"), rank=rank))
    weights = maps.from_caffe(caffe(blobs))
    model = narrow(blobs, ranks=weights.ranks)
    assert not maps.load(model, weights).left
    corners = np.sort(rng.uniform(0, 64, (1, 9, 2, 2)), axis=2)
    inputs = {
        "images": rng.uniform(0, 255, (1, 64, 48, 3)).astype("f4"),
        "regions": corners.reshape(1, 9, 4).astype("f4"),
    }
    pool = keras.Model(model.input, model.get_layer("roi_pool5").output)
    pooled = ops.convert_to_numpy(pool(inputs))[0].transpose(0, 3, 1, 2)
    assert pooled.std() > 0.01
    logits, offsets = heads(pooled, blobs)
    found = model(inputs, training=False)
    np.testing.assert_allclose(found["classes"][0], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found["boxes"][0], offsets.reshape(9, 4, 4)[:, 1:], rtol=1e-4, atol=1e-5
    )
    scale = model.get_layer("boxes")
    np.testing.assert_array_equal(scale.means, np.float32(MEANS))
    np.testing.assert_array_equal(scale.deviations, np.float32(DEVIATIONS))


def test_a_convolution_in_two_groups_gives_what_caffes_gives(rng):
    """conv_layer.cpp: each half of the filters sees its half of the channels."""
    blobs = random(released(convolutions("caffenet")))
    kernel = maps.from_caffe(caffe(blobs)).arrays["conv4/kernel"]
    weight, bias = blobs["conv4"]
    x = rng.normal(size=(4, 6, 3)).astype("f4")  # channel, row, column
    layer = layers.Conv2D(4, 3, groups=2)
    layer.build((1, 6, 3, 4))
    layer.set_weights([kernel, bias])
    expected = np.zeros((4, 4, 1))
    for out in range(4):
        group = out // 2
        for row in range(4):
            window = x[2 * group : 2 * group + 2, row : row + 3]
            expected[out, row, 0] = (weight[out] * window).sum() + bias[out]
    found = ops.convert_to_numpy(layer(x.transpose(1, 2, 0)[None]))[0].transpose(2, 0, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------- files


def test_a_file_on_disk_is_read(tmp_path):
    blobs = released(convolutions("caffenet"))
    weights = maps.read_fast_rcnn(write(tmp_path / "net", blobs))
    assert weights.network == "caffenet"
    assert weights.class_names == ["class 0", "class 1", "class 2"]
    expected = maps.from_caffe(caffe(blobs)).arrays
    assert set(weights.arrays) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(weights.arrays[name], array)


def test_the_old_format_writes_connected_layers_with_four_sides(tmp_path):
    blobs = imagenet(convolutions("vgg_m_1024"))
    message = caffe_writer.MESSAGES["NetParameter"](name="old")
    for name, pair in blobs.items():
        made = [caffe_writer.blob(blob, legacy=True) for blob in pair]
        message.layers.add(name=name, type=4 if "conv" in name else 14, blobs=made)
    (tmp_path / "old").write_bytes(message.SerializeToString())
    weights = maps.read_fast_rcnn(tmp_path / "old")
    for name, array in maps.from_caffe(caffe(blobs)).arrays.items():
        np.testing.assert_array_equal(weights.arrays[name], array)


def test_twenty_classes_are_vocs():
    weights = maps.from_caffe(caffe(released(convolutions("vgg16"), classes=20)))
    assert weights.arguments() == {"backbone": "vgg16", "class_names": list(VOC_NAMES)}


def test_keras_own_vgg16_has_fc6_in_our_order(tmp_path):
    blobs = imagenet(convolutions("vgg16"))
    names = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    with h5py.File(tmp_path / "vgg16.h5", "w") as file:
        for name, (weight, bias) in blobs.items():
            group = names.get(name, name.replace("conv", "block").replace("_", "_conv"))
            if name == "fc6":  # rows, columns, channels there
                array = rows_of(weight, CHANNELS)
            else:
                array = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
            file[f"{group}/{group}_W_1:0"] = array
            file[f"{group}/{group}_b_1:0"] = bias
    weights = maps.read_fast_rcnn(tmp_path / "vgg16.h5")
    assert weights.is_trunk
    expected = maps.from_caffe(caffe(blobs)).arrays  # its first kernel is BGR as well
    assert set(weights.arrays) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(weights.arrays[name], array, err_msg=name)


# ---------------------------------------------------------------------- what is left


def test_an_imagenet_network_sets_all_but_the_outputs_and_fc8_goes_nowhere():
    blobs = imagenet(convolutions("caffenet"))
    model = narrow(blobs)
    before = values(model)
    report = maps.load(model, maps.from_caffe(caffe(blobs)))
    outputs = [
        f"{name}/{part}" for name in ("bbox_pred", "cls_score") for part in ("bias", "kernel")
    ]
    assert sorted(item.name for item in report.left) == outputs
    assert len(report.loaded) == 2 * 7
    after = values(model)
    for name in (*outputs, "boxes/means", "boxes/deviations"):
        np.testing.assert_array_equal(after[name], before[name])
    np.testing.assert_array_equal(after["fc7/kernel"], blobs["fc7"][0].T)


@pytest.mark.parametrize(
    ("classes", "names"), [(3, ["x", "y"]), (20, [f"part {i}" for i in range(20)])]
)
def test_with_other_classes_both_outputs_are_left(classes, names):
    blobs = released(convolutions("vgg16"), classes=classes)
    model = narrow(
        blobs, class_names=names, target_means=[0] * 4, target_deviations=[0.1, 0.1, 0.2, 0.2]
    )
    weights = maps.from_caffe(caffe(blobs))
    report = maps.load(model, weights, classes=names)
    left = {item.name: (item.wanted, item.came) for item in report.left}
    assert left == {
        "cls_score/kernel": ((6, len(names) + 1), (6, classes + 1)),
        "cls_score/bias": ((len(names) + 1,), (classes + 1,)),
        "bbox_pred/kernel": ((6, 4 * len(names)), (6, 4 * classes)),
        "bbox_pred/bias": ((4 * len(names),), (4 * classes,)),
    }
    np.testing.assert_array_equal(values(model)["fc7/bias"], range(6))


def test_as_many_nameless_classes_take_the_callers_names():
    blobs = released(convolutions("vgg16"))
    names = ["red", "green", "blue"]
    model = narrow(blobs, class_names=names)
    assert not maps.load(model, maps.from_caffe(caffe(blobs)), classes=names).left


# ---------------------------------------------------------------------- refused


def test_an_imagenet_network_that_lacks_a_convolution_is_refused():
    blobs = imagenet(convolutions("vgg16"))
    model = narrow(blobs)
    del blobs["conv3_2"]
    before = values(model)
    with pytest.raises(InputError, match=r"conv3_2/kernel 3x3x4x4 is missing"):
        maps.load(model, maps.from_caffe(caffe(blobs)))
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_another_number_of_bins_is_refused():
    blobs = released(convolutions("vgg16"))
    model = narrow(blobs, pool_size=2)
    with pytest.raises(InputError, match=r"fc6/kernel wants 20x7, the file has 45x7"):
        maps.load(model, maps.from_caffe(caffe(blobs)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cls_score": [np.zeros((5, 6), "f4"), np.zeros(5, "f4")]}, "gives 5 numbers and bbox_pred 16"),
        ({"bbox_pred": [np.zeros((4, 6), "f4"), np.zeros(4, "f4")]}, "gives 4 numbers and bbox_pred 4"),
        ({"cls_score": [np.zeros((4, 6), "f4")]}, "gives 0 numbers"),
        ({"fc7": [np.zeros((6, 7, 1), "f4"), np.zeros(6, "f4")]}, "fc7 is no InnerProduct layer"),
        ({"fc7": [np.zeros((6, 7), "f4"), np.zeros(5, "f4")]}, "fc7 is no InnerProduct layer"),
        ({"fc6": [np.zeros((), "f4")]}, "fc6 is no InnerProduct layer"),
        ({"conv1_1": [np.zeros(3, "f4")]}, "is no VGG16, VGG_CNN_M_1024 or CaffeNet"),
        ({"conv5_3": [np.zeros((0, 4, 3, 3), "f4")]}, None),
        ({"fc6": [np.zeros((7, 46), "f4"), np.zeros(7, "f4")]}, None),
        ({"scale5": [np.zeros(3, "f4")]}, "scale5/kernel 3 is not used"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(changes, message):
    blobs = released(convolutions("vgg16"))
    model = narrow(blobs)
    with pytest.raises(InputError, match=message):
        maps.load(model, maps.from_caffe(caffe(blobs | changes)))


def test_a_file_without_one_of_the_outputs_is_refused():
    blobs = released(convolutions("vgg16"))
    del blobs["bbox_pred"]
    with pytest.raises(InputError, match="bbox_pred 0, which is not four for each"):
        maps.from_caffe(caffe(blobs))


def test_other_networks_are_refused_by_what_they_have():
    with pytest.raises(InputError, match="its layers with weights are res2a"):
        maps.from_caffe(caffe({"res2a": [np.zeros(2)]}))
    blobs = convolutions("caffenet")
    blobs["conv1"][0] = blobs["conv1"][0][..., :5, :5]  # 5x5 is neither network's
    with pytest.raises(InputError, match="its layers with weights are conv1, conv2"):
        maps.from_caffe(caffe(blobs))


def test_files_of_other_formats_are_refused(tmp_path):
    (tmp_path / "it.keras").write_bytes(b"")
    inputs = keras.Input((2,))
    keras.Model(inputs, layers.Dense(1)(inputs)).save(tmp_path / "it.keras")
    with pytest.raises(InputError, match=r"neither a \.caffemodel nor keras\.applications' VGG16"):
        maps.read_fast_rcnn(tmp_path / "it.keras")
