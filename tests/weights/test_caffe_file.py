import tracemalloc

import caffe_writer as c
import numpy as np
import pytest

from kerasdet.errors import InputError
from kerasdet.weights.caffe_file import PriorBox, read_caffe


@pytest.fixture
def write(tmp_path):
    def write(message):
        path = tmp_path / "net.caffemodel"
        path.write_bytes(message if isinstance(message, bytes) else message.SerializeToString())
        return path

    return write


def test_layers_come_back_by_name_with_their_blobs_types_and_shapes(write, rng):
    kernel = rng.normal(size=(4, 3, 2, 5)).astype("f4")
    bias = rng.normal(size=4).astype("f4")
    layers = {
        "data": ("Input", []),
        "conv": ("Convolution", [kernel, bias]),
        "norm": ("Normalize", [np.full(3, 20, "f4")]),
    }
    model = read_caffe(write(c.net(layers, name="VGG")))
    assert model.name == "VGG"
    assert model.types == {"data": "Input", "conv": "Convolution", "norm": "Normalize"}
    assert list(model.layers) == ["conv", "norm"]
    np.testing.assert_array_equal(model.layers["conv"][0], kernel)
    np.testing.assert_array_equal(model.layers["conv"][1], bias)
    np.testing.assert_array_equal(model.layers["norm"][0], [20, 20, 20])


def test_the_format_before_2014_is_read(write, rng):
    kernel, bias = rng.normal(size=(4, 3, 2, 5)).astype("f4"), np.arange(4, dtype="f4")
    message = c.MESSAGES["NetParameter"](name="old")
    blobs = [c.blob(kernel, legacy=True), c.blob(bias, legacy=True)]
    message.layers.add(name="conv", type=4, bottom=["data"], blobs=blobs, blobs_lr=[1, 2])
    model = read_caffe(write(message))
    assert model.types == {"conv": "Convolution"}
    np.testing.assert_array_equal(model.layers["conv"][0], kernel)
    np.testing.assert_array_equal(model.layers["conv"][1], bias.reshape(1, 1, 1, 4))


def test_double_precision_becomes_float32(write):
    message = c.MESSAGES["NetParameter"]()
    message.layer.add(name="a", blobs=[c.blob(np.array([[0.1, 2.5]]), double=True)])
    (array,) = read_caffe(write(message)).layers["a"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array([[0.1, 2.5]], "f4"))


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_numbers_written_one_by_one_are_read(write, count):
    values = np.arange(count, dtype="f4") - 3
    loose = c.MESSAGES["UnpackedBlob"](data=values.tolist())
    loose.shape.dim.append(count)
    packed = c.MESSAGES["BlobProto"]()
    packed.MergeFromString(loose.SerializeToString())
    assert len(loose.SerializeToString()) >= 5 * count  # a tag in front of each
    # The bytes of a layer with that blob: field 7 of a layer, field 100 of the net.
    inner = loose.SerializeToString()
    layer = b"\x0a\x01a" + b"\x3a" + varint(len(inner)) + inner
    (array,) = read_caffe(write(b"\xa2\x06" + varint(len(layer)) + layer)).layers["a"]
    np.testing.assert_array_equal(array, values)


def varint(value):
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def test_default_boxes_are_read_as_the_file_describes_them(write):
    prior = {
        "min_size": [60],
        "max_size": [111],
        "aspect_ratio": [2, 3],
        "flip": True,
        "clip": False,
        "variance": [0.5, 0.5, 0.25, 0.25],
        "step": 16,
    }
    model = read_caffe(write(c.net({}, priors={"fc7_mbox_priorbox": prior})))
    assert model.prior_boxes == {
        "fc7_mbox_priorbox": PriorBox(
            min_sizes=(60,),
            max_sizes=(111,),
            ratios=(2, 3),
            flip=True,
            clip=False,
            variances=(0.5, 0.5, 0.25, 0.25),
            step=16,
            offset=0.5,
        )
    }


def test_a_cut_file_says_at_which_byte_and_how_much_is_missing(write, tmp_path):
    whole = c.net({"a": ("Convolution", [np.zeros((10, 10), "f4")])}).SerializeToString()
    with pytest.raises(InputError, match=r"at byte 5 a field wants \d+ bytes and \d+ are left"):
        read_caffe(write(whole[:-100]))  # byte 5: behind the field of the name, "net"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a",
        b"\x0a\x03net",  # a name and nothing else
        b"not a caffemodel at all",
        b"\xa2\x06" + b"\xff" * 9 + b"\x01",  # a layer of 2**64 - 1 bytes
        b"\xff" * 20,
        b"\x00\x00",
        b"\x0b",  # a group, which proto2 dropped
        b"\xa2\x06\x0c\x0a\x01a\x3a\x07\x3a\x05\x08\xff\xff\xff\x7f",  # a blob of 2**28 numbers
        b"\xa2\x06\x08\x0a\x01a\x3a\x03\x2a\x01\x00",  # a float of one byte
    ],
    ids=lambda data: repr(data[:8]),
)
def test_nonsense_is_refused_in_little_memory(write, data):
    path = write(data)
    tracemalloc.start()
    with pytest.raises(InputError):
        read_caffe(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_blob_whose_shape_and_numbers_disagree_is_refused(write):
    message = c.net({"a": ("Convolution", [np.zeros((2, 3), "f4")])})
    message.layer[0].blobs[0].shape.dim[0] = 3
    with pytest.raises(InputError, match=r"shape \(3, 3\) has 6 numbers"):
        read_caffe(write(message))
    message.layer[0].blobs[0].shape.dim[0] = -2
    with pytest.raises(InputError, match="has 6 numbers"):
        read_caffe(write(message))


def test_a_layer_that_comes_twice_is_refused(write):
    message = c.net({"a": ("Convolution", [np.zeros(3, "f4")])})
    message.layer.append(message.layer[0])
    with pytest.raises(InputError, match="'a' has its weights twice"):
        read_caffe(write(message))


def test_damaged_files_raise_input_errors_only_and_take_little_memory(write, rng):
    layers = {"a": ("Convolution", [np.ones((3, 4), "f4"), np.ones(3, "f4")])}
    prior = {"min_size": [30], "max_size": [60], "aspect_ratio": [2], "step": 8}
    good = c.net(layers, priors={"p": prior}).SerializeToString()
    damaged = [good[:length] for length in range(len(good))]
    for _ in range(1000):
        flipped = bytearray(good)
        for position in rng.integers(0, len(good), size=rng.integers(1, 4)):
            flipped[position] = rng.integers(256)
        damaged.append(bytes(flipped))
    refused = 0
    tracemalloc.start()
    try:
        for data in damaged:
            try:
                read_caffe(write(data))
            except InputError:
                refused += 1
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert refused > 500


def test_a_file_of_nothing_but_small_fields_is_refused(write):
    with pytest.raises(InputError, match="more than 1,000,000 fields"):
        read_caffe(write(b"\x20\x00" * 1_000_001))


def test_an_absent_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="Cannot read"):
        read_caffe(tmp_path / "absent.caffemodel")
