"""The YOLO builders: what a darknet file says of its network, and what is loaded from it."""

import numpy as np
import pytest

from kerasdet import zoo
from kerasdet.classes import COCO_NAMES, VOC_NAMES
from kerasdet.classifier import extraction
from kerasdet.errors import InputError
from kerasdet.weights.darknet_file import read_darknet
from kerasdet.weights.maps import darknet as darknet_weights
from kerasdet.zoo import pretrained, yolo


def of_size(layouts, floats, given=None, **kwargs):
    """(K, arguments, settings) of the network that is read, or None."""
    fitting = yolo._fitting(layouts, floats, kwargs, given)
    return (fitting[0][1], fitting[0][0].arguments, fitting[0][0].settings) if fitting else None


@pytest.mark.parametrize(
    ("layouts", "size", "classes", "arguments"),
    [
        # Sizes in bytes of the published files, headers of 16 bytes.
        (yolo._V1, 789_312_988, 20, {"head": "local", "boxes_per_cell": 3}),
        (yolo._V1, 777_018_888, 20, {"head": "local", "boxes_per_cell": 2}),
        (yolo._V1, 1_086_814_216, 20, {"head": "paper", "hidden": (4096,)}),
        (yolo._V1, 375_881_736, 20, {"hidden": (512, 4096), "input_range": (-1, 1)}),
        (yolo._V1, 936_842_188, 80, {"head": "local", "boxes_per_cell": 3}),
        (yolo._V1_TINY, 108_399_816, 20, {"backbone": "tiny", "boxes_per_cell": 2}),
        (yolo._V2, 203_934_260, 80, {"passthrough_filters": 64}),
        (yolo._V2, 202_704_260, 20, {"passthrough_filters": 64}),
        (yolo._V2, 269_862_452, 80, {"passthrough_filters": None}),
        (yolo._V2_TINY, 63_471_556, 20, {"head_filters": (1024,)}),
        (yolo._V2_TINY, 44_948_596, 80, {"head_filters": (512,), "loss": {"rescore": False}}),
    ],
)
def test_the_size_of_a_published_file_names_its_network(layouts, size, classes, arguments):
    found, own, settings = of_size(layouts, (size - 16) // 4)
    assert found == classes
    assert arguments.items() <= {**own, **settings}.items()


def test_a_file_of_other_classes_is_solved_for_them():
    # Five priors' filters of 1024 inputs and a bias for each class more than VOC's 20.
    found, arguments, _ = of_size(yolo._V2, 50_676_061 + 3 * 5 * 1025)
    assert (found, arguments) == (23, yolo._V2[0].arguments)
    assert of_size(yolo._V2, 50_676_061 + 1) is None


def test_of_networks_of_one_size_the_callers_classes_and_arguments_choose():
    # 15 classes and three boxes a cell have as many outputs as 20 and two.
    count = 197_328_243 - 5 * 49 * (7 * 7 * 256 + 1)
    assert count == 194_254_718

    def chosen(**said):
        found, arguments, _ = of_size(yolo._V1, count, **said)
        return found, arguments["boxes_per_cell"]

    assert chosen() == (20, 2), "a release's classes, where nothing is said"
    assert chosen(given=15) == (15, 3)
    assert chosen(given=20) == (20, 2)
    assert chosen(boxes_per_cell=3) == (15, 3)
    assert chosen(given=7) == (20, 2)
    assert of_size(yolo._V1, count, head="paper") is None


@pytest.fixture(scope="module")
def fifteen_classes(tmp_path_factory):
    """A file of the tiny YOLO v1 with three boxes a cell, and its last bias."""
    model = zoo.yolo_v1_tiny(15, boxes_per_cell=3)
    bias = np.arange(49 * (15 + 3 * 5), dtype="float32")
    model.get_layer("connected1").bias.assign(bias)
    path = tmp_path_factory.mktemp("weights") / "fifteen.weights"
    darknet_weights.save(model, path)
    return path, bias


@pytest.mark.parametrize(
    "said", [{"class_names": [f"kind {n}" for n in range(15)]}, {"boxes_per_cell": 3}]
)
def test_the_output_layer_is_loaded_where_the_caller_says_which_network_it_is(
    fifteen_classes, capsys, said
):
    path, bias = fifteen_classes
    model = zoo.yolo_v1_tiny(**said, pretrained=path)
    assert (model.num_classes, model.boxes_per_cell) == (15, 3)
    np.testing.assert_array_equal(model.get_layer("connected1").bias, bias)
    assert not capsys.readouterr().err


def test_a_file_that_may_be_of_two_networks_is_opened_as_one_and_the_other_named(
    fifteen_classes, capsys
):
    model = zoo.yolo_v1_tiny(pretrained=fifteen_classes[0])
    assert (model.num_classes, model.boxes_per_cell) == (20, 2)
    said = " ".join(capsys.readouterr().err.split())
    assert "is read as 20 classes with backbone='tiny', boxes_per_cell=2" in said
    assert "as many numbers has 15 classes with backbone='tiny', boxes_per_cell=3" in said


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory):
    """A file of yolo_v2_tiny for three classes, and its last kernel."""
    model = zoo.yolo_v2_tiny(3)
    path = tmp_path_factory.mktemp("weights") / "three.weights"
    darknet_weights.save(model, path)
    return (
        path,
        np.array(model.get_layer("conv9").kernel),
        np.array(model.get_layer("conv8").kernel),
    )


def test_a_files_classes_are_the_models(three_classes):
    path, last, _ = three_classes
    model = zoo.yolo_v2_tiny(pretrained=path)
    assert model.num_classes == 3
    np.testing.assert_array_equal(model.get_layer("conv9").kernel, last)


def test_with_other_classes_all_but_the_outputs_is_loaded_and_a_table_says_so(
    three_classes, capsys
):
    path, last, before_last = three_classes
    model = zoo.yolo_v2_tiny(class_names=["a", "b"], pretrained=path)
    np.testing.assert_array_equal(model.get_layer("conv8").kernel, before_last)
    assert model.get_layer("conv9").kernel.shape == (1, 1, 1024, 5 * 7) != last.shape
    assert "conv9/kernel" in capsys.readouterr().err


def test_a_network_of_other_anchors_is_loaded_whole_where_the_numbers_agree(tmp_path, capsys):
    """Nine priors of 5 classes have as many filters as the release's five of 13."""
    assert 9 * (5 + 5) == 5 * (5 + 13)
    anchors = [(n, n) for n in range(1, 10)]
    model = zoo.yolo_v2_tiny(5, anchors=anchors)
    darknet_weights.save(model, tmp_path / "nine.weights")
    again = zoo.yolo_v2_tiny(5, anchors=anchors, pretrained=tmp_path / "nine.weights")
    np.testing.assert_array_equal(again.get_layer("conv9").kernel, model.get_layer("conv9").kernel)
    assert not capsys.readouterr().err


def test_names_and_anchors_are_the_releases(shared_data):
    folder = shared_data / "weights" / "yolov2-tiny-voc_k5iogura"
    (path,) = folder.glob("*.weights")
    model = zoo.yolo_v2_tiny(pretrained=path)
    assert model.class_names == list(VOC_NAMES)
    np.testing.assert_allclose(model.priors[0], [1.08, 1.19])
    assert int(model.images_seen) == 5_145_600


def test_coco_is_tested_at_608_pixels_with_its_own_anchors():
    assert yolo._V2[0].by_classes[len(COCO_NAMES)] == {"anchors": "coco", "image_size": 608}


def test_a_file_of_another_network_is_refused_with_both_counts(three_classes, shared_data):
    path, *_ = three_classes
    with pytest.raises(InputError, match=r"15,780,760 numbers and model 'yolo_v2' wants"):
        zoo.yolo_v2(pretrained=path)
    with pytest.raises(InputError, match="is neither"):
        zoo.yolo_v2(pretrained=_keras_file(path.parent))


def _keras_file(folder):
    import keras

    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Dense(1)(inputs)).save(folder / "other.keras")
    return folder / "other.keras"


def test_yolo9000_without_a_tree_has_classes_of_one_level():
    names = ["cat", "dog", "cow"]
    model = zoo.yolo9000(class_names=names)
    assert model.tree.names == names
    assert list(model.tree.group_sizes) == [3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tree": 5}, "Wanted a WordTree, or the config of one"),
        ({"tree": {"terrier": "dog"}}, r"WordTree\.from_parents makes one"),
        ({"num_classes": 2.5}, r"at least one class, not num_classes=2\.5"),
        ({"num_classes": 3, "class_names": ["cat"]}, "does not fit the 1 class_names"),
    ],
)
def test_what_is_no_tree_and_no_classes_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        zoo.yolo9000(**arguments)


@pytest.mark.parametrize(
    ("layers", "floats"),
    [(18, 19_831_776), (None, 19_831_776 + 7 * 1025)],  # darknet19_448.conv.23, darknet19.weights
    ids=["trunk", "whole"],
)
@pytest.mark.parametrize("builder", [zoo.yolo_v2, zoo.yolo9000])
def test_a_classifiers_file_starts_a_detector_by_its_first_18_convolutions(
    tmp_path, capsys, builder, layers, floats
):
    classifier = zoo.darknet19(7)
    path = tmp_path / "darknet19"
    darknet_weights.save(classifier, path, layers=layers)
    assert path.stat().st_size == 20 + 4 * floats
    detector = builder(2, pretrained=path)
    np.testing.assert_array_equal(
        detector.get_layer("conv18").kernel, classifier.get_layer("conv18").kernel
    )
    assert detector.get_layer("conv19").kernel.shape != classifier.get_layer("conv19").kernel.shape
    assert "conv19" in capsys.readouterr().err, "a table says what was not loaded"


@pytest.mark.parametrize(("batch_norm", "floats"), [(True, 22_430_400), (False, 22_403_136)])
def test_whether_yolos_trunk_is_normalised_follows_from_its_files_size(
    tmp_path, batch_norm, floats
):
    """Both are called extraction.conv.weights."""
    classifier = extraction(3, batch_norm=batch_norm)
    path = tmp_path / "extraction.conv.weights"
    darknet_weights.save(classifier, path, layers=20)
    assert path.stat().st_size == 20 + 4 * floats
    detector = zoo.yolo_v2(2, backbone="extraction", head_filters=(8,), pretrained=path)
    assert ("conv20_norm" in [layer.name for layer in detector.layers]) == batch_norm
    np.testing.assert_array_equal(
        detector.get_layer("conv20").kernel, classifier.get_layer("conv20").kernel
    )
    with pytest.raises(InputError, match=f"asked for with batch_norm={not batch_norm}"):
        zoo.yolo_v1(2, batch_norm=not batch_norm, pretrained=path)


def test_published_classifiers_have_the_trunks_of_the_detectors_that_start_from_them():
    published = {
        20_856_776: ("darknet19", 18, True),  # darknet19.weights, darknet19_448.weights
        23_455_400: ("extraction", 20, True),  # extraction.weights
        7_323_480: ("tiny", 7, True),  # darknet.weights
    }
    for floats, (backbone, layers, batch_norm) in published.items():
        trunk = yolo._trunk(backbone, floats)
        assert (trunk.layers, trunk.batch_norm) == (layers, batch_norm)
        assert yolo._trunk("hand-made", floats) is None
        assert yolo._trunk(backbone, floats + 1) is None


@pytest.mark.parametrize("builder", [zoo.yolo_v1_tiny, zoo.yolo_v2_tiny])
def test_the_tiny_detectors_start_from_the_reference_classifiers_seven_convolutions(
    tmp_path, builder
):
    """darknet.conv.weights is called "25 MB": 16 + 4 * 6,298,480 bytes."""
    classifier = zoo.darknet_reference(3)
    path = tmp_path / "darknet.conv.weights"
    darknet_weights.save(classifier, path, layers=7)
    assert path.stat().st_size == 20 + 4 * 6_298_480
    detector = builder(2, pretrained=path)
    np.testing.assert_array_equal(
        detector.get_layer("conv7").kernel, classifier.get_layer("conv7").kernel
    )


def test_tiny_darknet_reads_its_own_file_whole(shared_data, capsys):
    path = shared_data / "weights" / "tiny-darknet" / "tiny.weights"
    model = zoo.tiny_darknet(pretrained=path)
    assert model.num_classes == 1000
    expected = read_darknet(path).numbers[:16]  # the biases of the first convolution come first
    np.testing.assert_array_equal(model.get_layer("conv1_norm").beta, expected)
    assert not capsys.readouterr().err


def test_every_trunks_classifier_is_built_by_its_name():
    for name in zoo.CLASSIFIERS:
        narrow = {"width": 1 / 64} if name.startswith("overfeat") else {}
        model = zoo.build(name, num_classes=2, **narrow)
        assert (model.name, model.num_classes) == (name, 2)
        assert pretrained.find(name).name == "imagenet"


def test_a_name_that_is_not_known_is_answered_with_detectors_and_classifiers():
    with pytest.raises(InputError) as raised:
        zoo.build("yolo_v3")
    detectors, classifiers = str(raised.value).split(", or of the classifiers ")
    assert "yolo_v2" in detectors
    assert "darknet19" not in detectors
    assert classifiers.startswith(
        "darknet19, extraction, darknet_reference, tiny_darknet, overfeat_"
    )
    assert classifiers.endswith(", overfeat_accurate_classifier, not 'yolo_v3'.")
