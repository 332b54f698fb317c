import h5py
import numpy as np
import pytest
import ssd_names as names

from kerasdet.detectors.ssd import SSD
from kerasdet.errors import InputError
from kerasdet.weights.caffe_file import CaffeModel
from kerasdet.weights.maps import ssd, vgg16


def convolutions():
    """conv1_1 ... conv5_3: layer to (weight, bias), (out, in, h, w)."""
    made = names.tensors(3)
    return {row[0]: made[row[0]] for row in names.CONVOLUTIONS[:13]}


def fc6_value(out, channel, row, column):
    """What stands at a place of fc6: a number below 256 that tells the place's parts apart."""
    return (out * 5 + channel * 3 + row * 31 + column * 67) % 256


@pytest.fixture(scope="module")
def fully_connected():
    """fc6 (4096, 512, 7, 7), its bias, fc7 (4096, 4096), its bias; bytes, to be small."""
    out, channel = np.arange(4096), np.arange(512)
    row = column = np.arange(7)
    parts = np.ix_(*(n.astype("u1") for n in (out * 5, channel * 3, row * 31, column * 67)))
    fc6 = parts[0] + parts[1] + parts[2] + parts[3]  # bytes wrap at 256
    fc7 = (out * 5).astype("u1")[:, None] + (out * 3).astype("u1")
    return fc6, out.astype("f4"), fc7, -out.astype("f4")


def check_reduced(arrays):
    kernel = arrays["fc6/kernel"]
    assert kernel.shape == (3, 3, 512, 1024)
    for row, column, channel, out in ((0, 0, 0, 0), (2, 1, 300, 7), (1, 2, 511, 1023)):
        expected = fc6_value(4 * out, channel, 3 * row, 3 * column)
        assert kernel[row, column, channel, out] == expected
    np.testing.assert_array_equal(arrays["fc6/bias"], range(0, 4096, 4))
    kernel = arrays["fc7/kernel"]
    assert kernel.shape == (1, 1, 1024, 1024)
    for into, out in ((0, 0), (3, 1000), (1023, 1)):
        assert kernel[0, 0, into, out] == (4 * out * 5 + 4 * into * 3) % 256
    np.testing.assert_array_equal(arrays["fc7/bias"], range(0, -4096, -4))


def test_fc6_keeps_every_third_tap_and_every_fourth_output(fully_connected):
    check_reduced(vgg16.reduce_fc(*fully_connected))


def test_a_plain_caffe_vgg16_is_reduced_whatever_the_age_of_its_shapes(fully_connected):
    fc6, bias6, fc7, bias7 = fully_connected
    layers = {name: list(pair) for name, pair in convolutions().items()}
    layers["fc6"] = [fc6.reshape(1, 1, 4096, 25088), bias6.reshape(1, 1, 1, 4096)]
    layers["fc7"] = [fc7, bias7]
    layers["fc8"] = [np.zeros((1000, 4096), "u1"), np.zeros(1000, "f4")]
    trunk = vgg16.from_caffe(CaffeModel("", layers, {}, {}))
    check_reduced(trunk.arrays)
    assert len(trunk.arrays) == 2 * 15  # fc8 is the classifier
    weight, _ = convolutions()["conv1_1"]
    np.testing.assert_array_equal(trunk.arrays["conv1_1/kernel"][1, 2, 0], weight[:, 2, 1, 2])


def test_torchvisions_vgg16_is_reduced_and_its_standard_deviation_folded_in(fully_connected):
    fc6, bias6, fc7, bias7 = fully_connected
    columns = {row[0]: row[5].replace("vgg", "features") for row in names.CONVOLUTIONS if row[5]}
    state = {}
    for name, (weight, bias) in convolutions().items():
        state[f"{columns[name]}.weight"], state[f"{columns[name]}.bias"] = weight, bias
    state["classifier.0.weight"], state["classifier.0.bias"] = fc6.reshape(4096, -1), bias6
    state["classifier.3.weight"], state["classifier.3.bias"] = fc7, bias7
    state["classifier.6.weight"], state["classifier.6.bias"] = np.zeros((10, 4096)), np.zeros(10)
    trunk = ssd.from_torch(state)
    assert trunk.is_trunk
    check_reduced(trunk.arrays)
    weight, _ = convolutions()["conv1_1"]
    patch = np.arange(27, dtype="f4").reshape(3, 3, 3) * 9  # RGB, 0..255
    theirs = (patch / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    ours = patch - np.array(trunk.mean)
    np.testing.assert_allclose(
        np.einsum("hwc,hwco->o", ours, trunk.arrays["conv1_1/kernel"]),
        np.einsum("hwc,ochw->o", theirs, weight),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_classifier_of_nan_means_the_caffe_copy_without_fc6_and_fc7():
    state = {
        "features.0.weight": np.ones((64, 3, 3, 3), "f4"),
        "features.0.bias": np.ones(64, "f4"),
    }
    for index in (0, 3):
        state[f"classifier.{index}.weight"] = np.full((2, 2), np.nan, "f4")
        state[f"classifier.{index}.bias"] = np.full(2, np.nan, "f4")
    trunk = vgg16.from_torch(state)
    assert set(trunk.arrays) == {"conv1_1/kernel", "conv1_1/bias"}
    assert trunk.mean == (123, 117, 104)
    np.testing.assert_array_equal(trunk.arrays["conv1_1/kernel"], np.ones((3, 3, 3, 64)))


def test_a_reduced_trunk_is_loaded_and_the_rest_left_as_it_was():
    model = SSD(2)
    made = names.tensors(3)
    state = {}
    for row in names.CONVOLUTIONS[:15]:
        index = row[5].removeprefix("vgg.")
        state[f"{index}.weight"], state[f"{index}.bias"] = made[row[0]]
    weights = ssd.from_torch(state)
    report = ssd.load(model, weights)
    assert len(report.loaded) == 2 * 15
    assert {name.split("_")[0] for name, *_ in report.left} == {
        "conv4", "fc7", "conv6", "conv7", "conv8", "conv9",
    }  # fmt: skip
    assert all("fc7/" not in item.name for item in report.left)
    np.testing.assert_array_equal(model.get_layer("fc6").kernel[2, 0], made["fc6"][0][:, :, 2, 0].T)


def write_keras(path, *, leave_out=None):
    with h5py.File(path, "w") as file:
        for name, (weight, bias) in convolutions().items():
            group = f"{name.replace('conv', 'block').replace('_', '_conv')}"
            if name == leave_out:
                continue
            file[f"{group}/{group}_W_1:0"] = weight.transpose(2, 3, 1, 0)
            file[f"{group}/{group}_b_1:0"] = bias
    return path


def test_keras_own_vgg16_is_read_and_its_bgr_turned(tmp_path):
    weights = ssd.read_ssd(write_keras(tmp_path / "vgg16_notop.h5"))
    assert weights.is_trunk
    assert weights.arguments() == {"mean": (123.68, 116.779, 103.939)}
    assert len(weights.arrays) == 2 * 13
    weight, bias = convolutions()["conv1_1"]
    np.testing.assert_array_equal(weights.arrays["conv1_1/kernel"][0, 1, 2], weight[:, 0, 0, 1])
    np.testing.assert_array_equal(weights.arrays["conv1_1/bias"], bias)
    weight, _ = convolutions()["conv5_3"]
    np.testing.assert_array_equal(weights.arrays["conv5_3/kernel"][0, 1, 2], weight[:, 2, 0, 1])


def test_keras_dense_layers_are_reduced(fully_connected):
    fc6, bias6, fc7, bias7 = fully_connected
    flat = fc6.transpose(2, 3, 1, 0).reshape(25088, 4096)  # rows, columns, channels; then out
    check_reduced(vgg16._reduce_keras_fc(flat, bias6, fc7.T, bias7))


def test_damaged_and_other_hdf5_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no weights for conv3_2"):
        ssd.read_ssd(write_keras(tmp_path / "a.h5", leave_out="conv3_2"))
    data = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "b.h5").write_bytes(data[:5000])
    with pytest.raises(InputError, match="damaged HDF5"):
        ssd.read_ssd(tmp_path / "b.h5")


def test_a_data_set_without_bytes_behind_it_is_not_allocated(tmp_path):
    path = write_keras(tmp_path / "a.h5", leave_out="conv3_2")
    with h5py.File(path, "a") as file:
        file.create_dataset("block3_conv2/kernel", (2**20, 2**20), "f4")  # four terabytes
    with pytest.raises(InputError, match="has no weights for conv3_2"):
        ssd.read_ssd(path)


def test_fully_connected_layers_of_other_sizes_are_refused():
    with pytest.raises(InputError, match="want 4096x512x7x7"):
        vgg16.reduce_fc(np.zeros((2, 3, 7, 7)), np.zeros(2), np.zeros((2, 2)), np.zeros(2))
