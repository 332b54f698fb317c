"""OverFeat's raw floats: order, round trips, sizes, and what other files are told."""

import h5py
import keras
import numpy as np
import pytest

from kerasdet.backbones.overfeat import Convolution, Layout
from kerasdet.classifier import Classifier, tiny_darknet
from kerasdet.detectors.overfeat import OverFeat
from kerasdet.errors import InputError
from kerasdet.weights import overfeat_file, recognise
from kerasdet.weights.maps import overfeat as weights_map
from kerasdet.weights.overfeat_file import Weights, read_overfeat, write_overfeat

# Two layers: 2 filters of 3 channels, 2x1; 4 filters of 2 channels, 1x3.
SHAPES = [(2, 3, 2, 1), (4, 2, 1, 3)]
FLOATS = 2 * 3 * 2 * 1 + 2 + 4 * 2 * 1 * 3 + 4

LAYOUT = Layout(
    (Convolution(6, 5, stride=2, pool=2), Convolution(10, 3)),
    last_pool=2,
    kernel=3,
    hidden=(12, 8),
    window=27,
)


@pytest.fixture
def raw(tmp_path):
    """A file that counts its own floats."""
    (tmp_path / "raw").write_bytes(np.arange(FLOATS, dtype="<f4").tobytes())
    return tmp_path / "raw"


def classifier(count=3):
    return Classifier(count, network=LAYOUT, stddev=None)


def detector(count=3, **changes):
    return OverFeat(count, network=LAYOUT, stddev=None, box_hidden=(7, 5), **changes)


def numbers(model, names):
    return {name: model.get_layer(name).get_weights() for name in names}


# ---------------------------------------------------------------------- the file


def test_weights_come_before_biases_with_the_column_fastest(raw):
    first, second = read_overfeat(raw, SHAPES)
    np.testing.assert_array_equal(first.weights.ravel(), range(12))
    np.testing.assert_array_equal(first.biases, [12, 13])
    np.testing.assert_array_equal(second.biases, [38, 39, 40, 41])
    for out, into, row, column in np.ndindex(*SHAPES[1]):
        assert (
            second.weights[out, into, row, column] == 14 + ((out * 2 + into) * 1 + row) * 3 + column
        )


def test_numbers_stay_on_the_disk_and_cannot_be_written_there(raw):
    first, _ = read_overfeat(raw, SHAPES)
    assert isinstance(first.weights, np.memmap)
    assert not first.weights.flags.writeable


def test_what_was_read_is_written_again_with_identical_bytes(raw, tmp_path):
    write_overfeat(tmp_path / "again", read_overfeat(raw, SHAPES))
    assert (tmp_path / "again").read_bytes() == raw.read_bytes()


def test_a_file_is_replaced_only_when_the_new_one_is_whole(raw, tmp_path):
    before = raw.read_bytes()

    def layers():
        yield Weights(np.zeros(SHAPES[0]), np.zeros(2))
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"Cannot write weight file .*No space left"):
        write_overfeat(raw, layers())
    assert raw.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    with pytest.raises(InputError, match="Cannot write weight file"):
        write_overfeat(tmp_path / "absent" / "a", [])


@pytest.mark.parametrize(
    ("cut", "found"), [(4, "41 floats"), (3, "41 floats and 1 bytes"), (-8, "44")]
)
def test_a_file_of_another_size_is_told_floats_wanted_and_found(raw, cut, found):
    content = raw.read_bytes() + bytes(8)
    raw.write_bytes(content[: 4 * FLOATS - cut])
    with pytest.raises(
        InputError, match=rf"holds {found}.*, not the 42 wanted: it is cut, damaged"
    ):
        read_overfeat(raw, SHAPES)


@pytest.mark.parametrize(
    ("network", "size", "words"),
    [
        ("fast", 583_683_488, "145,920,872 floats, not the 42 wanted: it is net_weight_0.* fast"),
        ("accurate", 578_625_952, "144,656,488 floats.* it is net_weight_1.* accurate network"),
    ],
)
def test_a_file_of_another_released_network_is_named(tmp_path, network, size, words):
    """A file with a hole of that size, which takes no space."""
    with (tmp_path / "raw").open("wb") as file:
        file.truncate(size)
    assert overfeat_file.released(size) == network
    assert recognise(tmp_path / "raw") == "overfeat"
    with pytest.raises(InputError, match=words):
        read_overfeat(tmp_path / "raw", SHAPES)


def test_no_file_and_a_folder_are_input_errors(tmp_path):
    with pytest.raises(InputError, match=r"Cannot read weight file .*absent"):
        read_overfeat(tmp_path / "absent", SHAPES)
    with pytest.raises(InputError):
        read_overfeat(tmp_path, SHAPES)


def test_classes_follow_from_a_files_size(raw):
    """Below the classes 14 floats; of 3 hidden channels each class has 4."""
    assert overfeat_file.class_count(raw, SHAPES[:1], 3) == (FLOATS - 14) // 4 == 7
    assert overfeat_file.class_count(raw, SHAPES[:1], 4) is None  # 28 floats are no multiple of 5
    raw.write_bytes(raw.read_bytes()[: 4 * 14])
    assert overfeat_file.class_count(raw, SHAPES[:1], 3) is None


# ---------------------------------------------------------------------- recognised


def test_narrow_files_are_known_by_what_they_begin_with(tmp_path, rng):
    for scale in (0.01, 0.5):
        for first in (b"", b"\x0a\x09\xee\x3c", b"<!\xee\x3c"):  # as a caffemodel, a web page
            content = rng.normal(scale=scale, size=300).astype("<f4").tobytes()
            (tmp_path / "raw").write_bytes(first + content)
            assert recognise(tmp_path / "raw") == "overfeat"


@pytest.mark.parametrize(
    "content",
    [
        bytes(2000),
        b"a text of many words " * 50,
        np.full(200, np.nan, "<f4").tobytes(),
        np.linspace(1, 1e5, 200).astype("<f4").tobytes(),
        np.linspace(-1, 1, 200).astype(">f4").tobytes(),
        np.arange(7, 207, dtype="<i4").tobytes(),
        np.linspace(-1, 1, 200).astype("<f4").tobytes()[:508],
        np.random.default_rng(0).bytes(2000),
    ],
    ids=["zeros", "text", "NaN", "large", "big-endian", "integers", "short", "noise"],
)
def test_others_are_not_taken_for_floats(tmp_path, content):
    (tmp_path / "raw").write_bytes(content)
    with pytest.raises(InputError, match="no weight file known here"):
        recognise(tmp_path / "raw")


# ---------------------------------------------------------------------- into models


def test_a_file_holds_a_networks_layers_in_order():
    expected = {
        "conv1": (6, 3, 5, 5),
        "conv2": (10, 6, 3, 3),
        "fc3": (12, 10, 3, 3),
        "fc4": (8, 12, 1, 1),
        "classes": (4, 8, 1, 1),
    }
    for model in (classifier(4), detector(4)):
        found = weights_map.shapes(model)
        assert found == expected
        assert list(found) == list(expected)
    assert weights_map.expected_floats(classifier(4)) == classifier(4).count_params()


@pytest.mark.parametrize("make", [classifier, detector])
def test_a_files_numbers_come_to_their_places(make, tmp_path, rng):
    """Not mirrored: the file's kernels are those of a cross-correlation, as Keras' are."""
    model = make()
    count = weights_map.expected_floats(model)
    file = rng.normal(size=count).astype("<f4")
    (tmp_path / "raw").write_bytes(file.tobytes())
    report = weights_map.load(model, tmp_path / "raw")
    kernel, bias = model.get_layer("conv1").get_weights()
    for out, into, row, column in [(0, 0, 0, 0), (2, 1, 3, 4), (5, 2, 4, 0)]:
        place = ((out * 3 + into) * 5 + row) * 5 + column
        assert kernel[row, column, into, out] == file[place]
    np.testing.assert_array_equal(bias, file[6 * 3 * 5 * 5 :][:6])
    np.testing.assert_array_equal(model.get_layer("classes").get_weights()[1], file[-3:])
    layers = list(dict.fromkeys(left.name.partition("/")[0] for left in report.left))
    assert sorted(layers) == (
        [] if make is classifier else ["background", "box_fc1", "box_fc2", "boxes"]
    )


@pytest.mark.parametrize("make", [classifier, detector])
def test_a_round_trip_is_byte_equal(make, tmp_path, rng):
    one, other = make(), make()
    content = rng.normal(size=weights_map.expected_floats(one)).astype("<f4").tobytes()
    (tmp_path / "a").write_bytes(content)
    weights_map.load(one, tmp_path / "a")
    weights_map.save(one, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content
    weights_map.load(other, tmp_path / "b")
    images = rng.uniform(0, 255, (2, 40, 33, 3)).astype("f4")
    one, other = (model(images) for model in (one, other))
    if make is detector:
        one, other = one["classes"], other["classes"]
    np.testing.assert_array_equal(one, other)


def test_of_other_classes_all_but_the_classes_is_loaded(tmp_path):
    source, model = classifier(5), classifier(3)
    weights_map.save(source, tmp_path / "raw")
    before = numbers(model, ["classes"])
    with pytest.raises(InputError, match=r"holds [\d,]+ floats, not the"):
        weights_map.load(model, tmp_path / "raw")
    report = weights_map.load(model, tmp_path / "raw", outputs=False)
    assert [(left.name, left.wanted, left.came) for left in report.left] == [
        ("classes/kernel", (1, 1, 8, 3), (1, 1, 8, 5)),
        ("classes/bias", (3,), (5,)),
    ]
    keras.tree.map_structure(np.testing.assert_array_equal, before, numbers(model, ["classes"]))
    below = ["conv1", "conv2", "fc3", "fc4"]
    keras.tree.map_structure(
        np.testing.assert_array_equal, numbers(source, below), numbers(model, below)
    )


def test_a_number_that_is_not_finite_is_refused_and_nothing_loaded(tmp_path):
    model = classifier()
    weights_map.save(model, tmp_path / "raw")
    content = np.fromfile(tmp_path / "raw", "<f4")
    content[-1] = np.nan
    content[:5] += 1
    content.tofile(tmp_path / "raw")
    before = numbers(model, ["conv1"])
    with pytest.raises(InputError, match="classes/bias has 1 numbers that are not finite"):
        weights_map.load(model, tmp_path / "raw")
    keras.tree.map_structure(np.testing.assert_array_equal, before, numbers(model, ["conv1"]))


def test_another_network_is_refused(tmp_path):
    with pytest.raises(InputError, match="'tiny_darknet' is no OverFeat"):
        weights_map.shapes(tiny_darknet(3))


# ---------------------------------------------------------------------- Keras' own files


def test_a_classifiers_file_starts_a_detector_by_the_layers_names(tmp_path):
    source, model = classifier(), detector()
    source.save_weights(tmp_path / "c.weights.h5")
    arrays = weights_map.read_own(tmp_path / "c.weights.h5")
    report = weights_map.load_own(model, arrays, source="c")
    names = ["conv1", "conv2", "fc3", "fc4", "classes"]
    keras.tree.map_structure(
        np.testing.assert_array_equal, numbers(source, names), numbers(model, names)
    )
    assert {left.name.partition("/")[0] for left in report.left} == {
        *("background", "box_fc1", "box_fc2", "boxes")
    }


@pytest.mark.parametrize("per_class", [False, True])
def test_a_detectors_file_for_other_classes_leaves_what_hangs_on_them(per_class, tmp_path):
    source, model = detector(5, boxes_per_class=per_class), detector(3, boxes_per_class=per_class)
    source.save_weights(tmp_path / "d.weights.h5")
    arrays = weights_map.read_own(tmp_path / "d.weights.h5")
    report = weights_map.load_own(model, arrays, source="d")
    left = {left.name.partition("/")[0] for left in report.left}
    assert left == ({"classes", "boxes"} if per_class else {"classes"})
    names = ["conv1", "fc4", "box_fc1", "box_fc2", "background", *([] if per_class else ["boxes"])]
    keras.tree.map_structure(
        np.testing.assert_array_equal, numbers(source, names), numbers(model, names)
    )


def test_a_file_of_another_width_is_refused(tmp_path):
    Classifier(3, network=LAYOUT, width=2).save_weights(tmp_path / "c.weights.h5")
    arrays = weights_map.read_own(tmp_path / "c.weights.h5")
    with pytest.raises(InputError, match="conv1/kernel wants 5x5x3x6, the file has 5x5x3x12"):
        weights_map.load_own(detector(), arrays, source="c")


def test_other_hdf5_files_are_refused(tmp_path):
    tiny_darknet(3).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(InputError, match="no layer 'classes'"):
        weights_map.read_own(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "b", "w") as file:
        file["x"] = np.zeros(2)
    with pytest.raises(InputError, match="no layer 'classes'"):
        weights_map.read_own(tmp_path / "b")
    (tmp_path / "c").write_bytes((tmp_path / "a.weights.h5").read_bytes()[:3000])
    with pytest.raises(InputError, match=r"damaged HDF5|no layer 'classes'"):
        weights_map.read_own(tmp_path / "c")


def test_an_array_in_another_file_is_not_followed(tmp_path):
    classifier().save_weights(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5", "a") as file:
        groups = []
        file.visititems(
            lambda _, item: groups.append(item) if item.attrs.get("name") == "classes" else None
        )
        (group,) = groups
        shape = group["0"].shape
        del group["0"]
        group.create_dataset("0", shape, "f4", external=[("/etc/hostname", 0, 4 * 24)])
    with pytest.raises(InputError, match="no layer 'classes'"):
        weights_map.read_own(tmp_path / "a.weights.h5")
