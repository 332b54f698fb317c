"""Darknet-19, the tiny trunks and the classifiers' trunks against darknet's own cfg files."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasdet.backbones.darknet19 import darknet19, pool, tiny
from kerasdet.backbones.tiny_darknet import tiny_darknet


def network(build, size=(None, None)):
    images = keras.Input((*size, 3))
    return keras.Model(images, build(images))


def sections(path):
    """(kind, options) of each section of a cfg but [net]."""
    found = []
    for line in path.read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif line:
            key, _, value = line.partition("=")
            found[-1][1][key.strip()] = value.strip()
    return [section for section in found if section[0] != "net"]


def of_cfg(path, convolutions):
    """What the cfg says of its first convolutions and the poolings between them, one tuple each."""
    found = []
    for kind, options in sections(path):
        if kind == "maxpool":
            found.append(("maxpool", int(options["size"]), int(options["stride"])))
        if kind == "convolutional":
            size, stride = int(options["size"]), int(options["stride"])
            norm = options.get("batch_normalize") == "1"
            filters = int(options["filters"])
            assert options["pad"] == "1"
            found.append(("conv", size, stride, filters, norm, options["activation"]))
            if sum(each[0] == "conv" for each in found) == convolutions:
                return found
    raise AssertionError(f"{path} has fewer convolutions")


def of_model(model):
    """The same of a Keras model, in the order of its graph."""
    found = []
    for layer in model.layers:
        if isinstance(layer, layers.MaxPooling2D):
            found.append(("maxpool", layer.pool_size[0], layer.strides[0]))
        if isinstance(layer, layers.Conv2D):
            assert layer.padding == "same"
            names = {other.name for other in model.layers}
            norm, leaky = f"{layer.name}_norm" in names, f"{layer.name}_leaky" in names
            assert layer.use_bias is not norm
            row = ("conv", layer.kernel_size[0], layer.strides[0], layer.filters, norm)
            found.append((*row, "leaky" if leaky else "linear"))
    return found


@pytest.mark.parametrize(
    ("cfg", "build", "convolutions"),
    [
        ("darknet19.cfg", lambda x: darknet19(x)["conv18"], 18),
        ("darknet19_448.cfg", lambda x: darknet19(x)["conv18"], 18),
        ("yolov2.cfg", lambda x: darknet19(x)["conv18"], 18),
        ("yolo9000.cfg", lambda x: darknet19(x)["conv18"], 18),
        ("yolov2-tiny.cfg", tiny, 7),
        ("yolov2-tiny-voc.cfg", tiny, 7),
        ("tiny.cfg", tiny_darknet, 15),
    ],
)
def test_trunks_are_what_the_cfg_says_layer_by_layer(shared_data, cfg, build, convolutions):
    expected = of_cfg(shared_data / "darknet" / "cfg" / cfg, convolutions)
    model = network(build)
    assert of_model(model) == expected
    names = [layer.name for layer in model.layers if isinstance(layer, layers.Conv2D)]
    assert names == [f"conv{n}" for n in range(1, convolutions + 1)]


def test_darknet19_has_the_papers_filters():
    """Table 6, without its last convolution."""
    rows = "32 64 128 64 128 256 128 256 512 256 512 256 512 1024 512 1024 512 1024"
    maps = darknet19(keras.Input((224, 224, 3)))
    assert [maps[f"conv{n}"].shape[-1] for n in range(1, 19)] == list(map(int, rows.split()))
    sides = [maps[f"conv{n}"].shape[1] for n in (1, 2, 3, 6, 9, 14)]
    assert sides == [224, 112, 56, 28, 14, 7]


@pytest.mark.parametrize(
    ("size", "fine", "coarse"),
    [((416, 416), (26, 26), (13, 13)), ((608, 320), (38, 20), (19, 10))],
)
def test_the_passthrough_reads_stride_16_and_the_last_map_has_stride_32(size, fine, coarse):
    maps = darknet19(keras.Input((*size, 3)))
    assert maps["conv13"].shape == (None, *fine, 512)
    assert maps["conv18"].shape == (None, *coarse, 1024)
    assert tiny(keras.Input((*size, 3))).shape == (None, *coarse, 1024)


def test_every_map_lies_on_the_way_to_the_last():
    images = keras.Input((None, None, 3))
    maps = darknet19(images)
    order = [layer.name for layer in keras.Model(images, maps["conv18"]).layers]
    for n in range(1, 19):
        assert maps[f"conv{n}"]._keras_history.operation.name == f"conv{n}_leaky"
        assert f"conv{n}_leaky" in order


def darknets_pool(x, stride):
    """maxpool_layer.c with size 2 and its padding of size - 1; x is (H, W)."""
    size, padding = 2, 1
    height, width = ((side + padding - size) // stride + 1 for side in x.shape)
    out = np.full((height, width), -np.inf)
    for i in range(height):
        for j in range(width):
            for n in range(size):
                for m in range(size):
                    row, column = -(padding // 2) + i * stride + n, -(padding // 2) + j * stride + m
                    if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                        out[i, j] = max(out[i, j], x[row, column])
    return out


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(5, 3), (4, 6), (1, 2)])
def test_pooling_is_darknets_at_the_edges_too(rng, size, stride):
    x = rng.normal(size=(1, *size, 1)).astype("f4") - 5  # below zero: padding must not win
    found = network(lambda t: pool(t[..., :1], 1, stride=stride), size)
    images = np.concatenate([x, x, x], axis=-1)
    result = keras.ops.convert_to_numpy(found(images))[0, ..., 0]
    np.testing.assert_array_equal(result, darknets_pool(x[0, ..., 0], stride))


def test_trunks_have_the_numbers_of_the_published_partial_file():
    assert network(lambda x: darknet19(x)["conv18"]).count_params() == 19_831_776
