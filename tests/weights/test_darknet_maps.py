import struct

import darknet_oracle as oracle
import keras
import numpy as np
import pytest
from keras import layers

from kerasdet import zoo
from kerasdet.backbones.darknet_conv import darknet_conv
from kerasdet.detectors.yolo_v2 import YOLOv2
from kerasdet.errors import InputError
from kerasdet.layers.locally_connected import LocallyConnected2D
from kerasdet.layers.passthrough import Passthrough
from kerasdet.weights.assign import variable_names
from kerasdet.weights.darknet_file import read_darknet, write_darknet
from kerasdet.weights.maps import darknet

NEW = struct.pack("<3iQ", 0, 2, 0, 640)
OLD = struct.pack("<3fi", 0.001, 0.9, 0.0005, 640)  # before 2015-12: connected layers transposed

# Behind conv1 (124), conv2 (120), conv3 (8), local1 (228), connected1 (65).
BEHIND = {"conv1": 124, "conv2": 244, "conv3": 252, "local1": 480, "connected1": 545}


class Counted(keras.Model):
    """With the counter that YOLOv2 has."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.images_seen = self.add_weight(
            name="images_seen", shape=(), dtype="int32", initializer="zeros", trainable=False
        )


def network(classes=3, kind=keras.Model):
    """The network of `darknet_oracle`, as the detectors build theirs."""
    images = keras.Input((oracle.HEIGHT, oracle.WIDTH, 3))
    x = layers.Rescaling(1 / 255, name="normalize")(images)
    x = darknet_conv(x, 4, 3, 1)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = darknet_conv(x, 3, 3, 2, stride=2)
    x = darknet_conv(x, 2, 1, 3, batch_norm=False, activation="linear")
    x = LocallyConnected2D(2, 3, pad=1, name="local1")(x)
    x = layers.LeakyReLU(0.1)(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(5, name="connected1")(x)
    x = layers.LeakyReLU(0.1)(x)
    x = layers.Dropout(0.5)(x)
    return kind(images, layers.Dense(classes, name="connected2")(x), name="small")


@pytest.fixture(scope="module")
def small():
    return network()


def numbers(count, seed=1):
    """Positive where a variance may stand, so that every number may stand everywhere."""
    return np.random.default_rng(seed).uniform(0.1, 1, count).astype("f4") * _signs(count)


def _signs(count):
    signs = np.where(np.arange(count) % 3 == 0, -1, 1).astype("f4")
    signs[:16] = signs[124 : 124 + 12] = 1  # statistics of conv1, conv2
    return signs


def write(path, values, header=NEW):
    path.write_bytes(header + np.asarray(values, "<f4").tobytes())
    return path


def values(model):
    return {name: np.array(v.numpy()) for name, v in variable_names(model).items()}


@pytest.mark.parametrize("header", [NEW, OLD], ids=["new", "transposed"])
def test_the_network_computes_what_loops_over_the_files_numbers_compute(
    tmp_path, rng, header, small
):
    stored = numbers(oracle.count(3))
    done = darknet.load(small, write(tmp_path / "a", stored, header))
    assert not done.left
    images = rng.integers(0, 256, (2, oracle.HEIGHT, oracle.WIDTH, 3)).astype("f4")
    found = keras.ops.convert_to_numpy(small(images))
    for image, logits in zip(images, found, strict=True):
        expected = oracle.forward(image, stored, 3, transposed=header is OLD)
        assert np.abs(expected).min() > 0.01
        np.testing.assert_allclose(logits, expected, rtol=1e-4)


def test_the_numbers_of_each_layer_stand_in_darknets_order(small):
    found = [(block.layer, block.what, block.size) for block in darknet.blocks(small)]
    conv1 = [(what, 4) for what in ("biases", "scales", "means", "variances")]
    assert found[:5] == [*(("conv1", what, n) for what, n in conv1), ("conv1", "weights", 108)]
    assert found[-6:] == [
        ("local1", "biases", 12),
        ("local1", "weights", 216),
        ("connected1", "biases", 5),
        ("connected1", "weights", 60),
        ("connected2", "biases", 3),
        ("connected2", "weights", 15),
    ]
    assert darknet.expected_floats(small) == oracle.count(3) == small.count_params() == 563


def test_convolutions_go_by_number_not_by_place_in_the_graph():
    """conv10 behind conv9, and a passthrough's conv2 that the graph makes last."""
    images = x = keras.Input((8, 8, 3))
    for number in [*range(3, 11), 1, 2]:
        x = darknet_conv(x, 2, 1, number, batch_norm=False)
    found = [block.layer for block in darknet.blocks(keras.Model(images, x))]
    assert found[::2] == [f"conv{n}" for n in range(1, 11)]


def test_a_normalised_connected_layer_has_its_statistics_behind_the_weights(tmp_path):
    images = keras.Input((4,))
    x = layers.Dense(2, use_bias=False, name="connected1")(images)
    model = keras.Model(images, layers.BatchNormalization(name="connected1_norm")(x))
    darknet.load(model, write(tmp_path / "a", np.arange(16)))
    found = values(model)
    np.testing.assert_array_equal(found["connected1_norm/beta"], [0, 1])
    np.testing.assert_array_equal(found["connected1/kernel"], [[2, 6], [3, 7], [4, 8], [5, 9]])
    np.testing.assert_array_equal(found["connected1_norm/gamma"], [10, 11])
    np.testing.assert_array_equal(found["connected1_norm/moving_mean"], [12, 13])
    np.testing.assert_array_equal(found["connected1_norm/moving_variance"], [14, 15])


def test_a_connected_layer_behind_a_pooled_map_takes_its_inputs_in_order(tmp_path):
    images = keras.Input((3, 2, 4))
    x = layers.GlobalAveragePooling2D()(images)
    model = keras.Model(images, layers.Dense(2, name="connected1")(x))
    darknet.load(model, write(tmp_path / "a", np.arange(10)))
    expected = [[2, 6], [3, 7], [4, 8], [5, 9]]
    np.testing.assert_array_equal(values(model)["connected1/kernel"], expected)


def test_saved_and_loaded_every_variable_is_the_same_and_the_bytes_too(tmp_path, rng):
    model = network(kind=Counted)
    for variable in model.weights[:-1]:
        variable.assign(rng.uniform(0.1, 1, variable.shape))
    model.images_seen.assign(12_800)
    darknet.save(model, tmp_path / "a")
    assert (tmp_path / "a").stat().st_size == 20 + 4 * 563
    revived = network(kind=Counted)
    assert not darknet.load(revived, tmp_path / "a").left
    expected = values(model)
    for name, value in values(revived).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    darknet.save(revived, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert read_darknet(tmp_path / "b").seen == 12_800


def test_a_count_of_images_too_large_for_the_counter_stops_at_its_end(tmp_path):
    model = network(kind=Counted)
    header = struct.pack("<3iQ", 0, 2, 0, 2**40)
    darknet.load(model, write(tmp_path / "a", numbers(563), header))
    assert int(model.images_seen) == 2**31 - 1


@pytest.mark.parametrize(
    ("count", "place"),
    [
        (564, "1 are left over behind connected2"),
        (1563, "1,000 are left over behind connected2"),
        (562, "it ends in the weights of connected2, 14 of 15"),
        (BEHIND["conv1"] + 5, "it ends in the scales of conv2, 2 of 3"),
        (BEHIND["conv3"] + 11, "it ends in the biases of local1, 11 of 12"),
        (7, "it ends in the scales of conv1, 3 of 4"),
        (0, "it ends in the biases of conv1, 0 of 4"),
        (BEHIND["local1"], "it ends behind local1, .* load it with partial=True"),
    ],
)
def test_another_count_is_one_error_that_says_where_the_file_ends(tmp_path, small, count, place):
    path = write(tmp_path / "a", np.full(count, 2.5))
    before = values(small)
    message = rf"a holds {count:,} numbers and model 'small' wants 563: {place}"
    with pytest.raises(InputError, match=message):
        darknet.load(small, path)
    for name, value in values(small).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("layer", list(BEHIND))
def test_a_file_of_the_first_layers_loads_these_and_leaves_the_others(tmp_path, layer):
    model = network(kind=Counted)
    before, stored = values(model), numbers(BEHIND[layer])
    done = darknet.load(model, write(tmp_path / "a", stored), partial=True)
    blocks = darknet.blocks(model)
    last = max(i for i, block in enumerate(blocks) if block.layer == layer)
    assert set(done.loaded) == {block.variable for block in blocks[: last + 1]}
    assert {left.name for left in done.left} == {b.variable for b in blocks[last + 1 :]}
    assert {left.came for left in done.left} == {None}
    after = values(model)
    for left in done.left:
        np.testing.assert_array_equal(after[left.name], before[left.name])
    np.testing.assert_array_equal(after["conv1_norm/beta"], stored[:4])
    assert int(model.images_seen) == 0, "another network's count is not this one's"


def test_a_partial_file_must_end_between_layers(tmp_path, small):
    path = write(tmp_path / "a", np.ones(BEHIND["conv2"] + 1))
    with pytest.raises(InputError, match="it ends in the biases of conv3"):
        darknet.load(small, path, partial=True)


def test_of_a_file_with_other_classes_all_but_the_outputs_is_loaded(tmp_path):
    model = network(classes=4, kind=Counted)
    before, stored = values(model), numbers(oracle.count(7))
    path = write(tmp_path / "a", stored)
    assert darknet.output_width(model, stored.size) == 7
    with pytest.raises(InputError, match="18 are left over behind connected2"):
        darknet.load(model, path)
    done = darknet.load(model, path, outputs=False)
    assert [(left.name, left.wanted, left.came) for left in done.left] == [
        ("connected2/kernel", (5, 4), (5, 7)),
        ("connected2/bias", (4,), (7,)),
    ]
    after = values(model)
    np.testing.assert_array_equal(after["connected2/kernel"], before["connected2/kernel"])
    np.testing.assert_array_equal(after["connected1/bias"], stored[480:485])
    assert int(model.images_seen) == 0


def test_outputs_are_left_alone_on_request_even_where_they_would_fit(tmp_path):
    model = network()
    before = values(model)
    done = darknet.load(model, write(tmp_path / "a", numbers(563)), outputs=False)
    assert {left.name for left in done.left} == {"connected2/kernel", "connected2/bias"}
    np.testing.assert_array_equal(values(model)["connected2/bias"], before["connected2/bias"])


def test_no_width_of_the_outputs_makes_up_for_another_network(tmp_path, small):
    assert darknet.output_width(small, 545 + 7) is None  # 6 numbers an output
    assert darknet.output_width(small, 545) is None
    with pytest.raises(InputError, match="it ends in the weights of connected2, 4 of 15"):
        darknet.load(small, write(tmp_path / "a", np.ones(552)), outputs=False)


def test_a_trunk_is_taken_from_a_file_of_another_network(tmp_path, small):
    stored = numbers(600)
    done = darknet.load(small, write(tmp_path / "a", stored), layers=2)
    assert len(done.loaded) == 10
    np.testing.assert_array_equal(values(small)["conv2_norm/beta"], stored[124:127])
    with pytest.raises(InputError, match="it ends in the weights of conv2"):
        darknet.load(small, write(tmp_path / "a", stored[:200]), layers=2)
    for layers_ in (0, 7):
        with pytest.raises(InputError, match=f"has 6 layers .* layers={layers_} is not 1 to 6"):
            darknet.load(small, write(tmp_path / "a", stored), layers=layers_)


def test_the_first_layers_are_written_alone(tmp_path, small):
    darknet.load(small, write(tmp_path / "a", numbers(563)))
    darknet.save(small, tmp_path / "b", layers=3)
    np.testing.assert_array_equal(
        read_darknet(tmp_path / "b").numbers, read_darknet(tmp_path / "a").numbers[:252]
    )
    assert read_darknet(tmp_path / "b").seen == 0


def test_numbers_that_are_not_finite_are_refused(tmp_path, small):
    stored = numbers(563)
    stored[300] = np.nan
    with pytest.raises(InputError, match="local1/kernel has 1 numbers that are not finite"):
        darknet.load(small, write(tmp_path / "a", stored))


def test_a_model_with_weights_that_darknet_has_no_place_for_is_refused(tmp_path):
    images = keras.Input((4, 4, 3))
    x = layers.Conv2D(2, 1, name="conv1")(images)
    model = keras.Model(images, layers.Conv2D(2, 1, name="mbox")(x), name="other")
    message = "'other' is no network of darknet's: .* no place for mbox/kernel, mbox/bias"
    with pytest.raises(InputError, match=message):
        darknet.save(model, tmp_path / "a")
    with pytest.raises(InputError, match="no place for a model without weights"):
        darknet.blocks(keras.Model(images, layers.ReLU()(images)))


def test_a_network_around_a_model_is_not_for_darknet(tmp_path):
    """The small YOLOv2 has its trunk so, and convolutions of its own by the trunk's numbers."""
    message = "'yolo_v2_small' is no network of darknet's: .* no place for the model 'backbone'"
    with pytest.raises(InputError, match=message):
        darknet.save(zoo.yolo_v2_small(3, width=2), tmp_path / "small.weights")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", ["darknet", "space_to_depth"])
def test_only_darknets_own_order_of_the_passthrough_is_loaded_and_saved(tmp_path, order):
    images = keras.Input((4, 4, 4))
    x = darknet_conv(images, 4, 1, 1, batch_norm=False)
    x = Passthrough(2, order)(x)
    model = keras.Model(images, darknet_conv(x, 1, 1, 2, batch_norm=False))
    whole = tmp_path / "whole"
    write_darknet(whole, [np.arange(20 + 17)])
    if order == "darknet":
        darknet.load(model, whole)
        darknet.save(model, tmp_path / "saved")
        return
    for act in (lambda: darknet.load(model, whole), lambda: darknet.save(model, whole)):
        with pytest.raises(InputError, match="has the order 'space_to_depth'"):
            act()
    write_darknet(tmp_path / "trunk", [np.arange(20)])
    assert len(darknet.load(model, tmp_path / "trunk", partial=True).loaded) == 2


def test_a_real_tiny_yolov2_loaded_and_saved_is_the_same_file_byte_for_byte(shared_data, tmp_path):
    folder = shared_data / "weights" / "yolov2-tiny-voc_k5iogura"
    path = folder / "yolov2-tiny-voc_352_288_final.weights"
    model = YOLOv2(20, backbone="tiny")
    assert not darknet.load(model, path).left
    assert int(model.images_seen) == 5_145_600
    darknet.save(model, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == path.read_bytes()


def test_a_real_tiny_yolov2_is_refused_by_the_big_one_with_the_place(shared_data):
    folder = shared_data / "weights" / "yolov2-tiny-voc_k5iogura"
    path = folder / "yolov2-tiny-voc_352_288_final.weights"
    with keras.StatelessScope(initialize_variables=False):
        model = YOLOv2(20)
        # conv1 to conv17 of Darknet-19 and the biases, scales, means and variances of conv18.
        before = 19_831_776 - 1024 * 512 * 9
        wanted = f"wants 50,676,061: it ends in the weights of conv18, {15_867_885 - before:,} of"
        with pytest.raises(InputError, match=f"holds 15,867,885 numbers .* {wanted} 4,718,592"):
            darknet.load(model, path)
    keras.utils.clear_session()
