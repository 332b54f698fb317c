"""OverFeat's builders: what is loaded from raw floats, from a classifier and from a detector."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerasdet import zoo
from kerasdet.classes import VOC_NAMES
from kerasdet.classifier import Classifier
from kerasdet.data.classification import classification_pipeline
from kerasdet.detectors.overfeat import MERGES, OverFeat, threshold_of
from kerasdet.errors import InputError
from kerasdet.evaluation import evaluate
from kerasdet.weights import overfeat_file
from kerasdet.weights.maps import overfeat as weights_map
from kerasdet.zoo import overfeat, pretrained

WIDTH = 1 / 64
ROOT = Path(__file__).resolve().parents[2]


def assert_same(layer, one, other):
    for a, b in zip(
        one.get_layer(layer).get_weights(), other.get_layer(layer).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A classifier of seven classes, its raw file and its .weights.h5."""
    folder = tmp_path_factory.mktemp("weights")
    model = Classifier(7, network="overfeat_fast", width=WIDTH, stddev=None)
    weights_map.save(model, folder / "raw")
    model.save_weights(folder / "classifier.weights.h5")
    return model, folder


@pytest.mark.parametrize(("network", "window"), [("fast", 231), ("accurate", 221)])
def test_builders_build_the_network_of_their_name(network, window):
    model = zoo.build(f"overfeat_{network}", width=WIDTH)
    assert isinstance(model, OverFeat)
    assert model.name == f"overfeat_{network}"
    assert model.layout.window == window
    assert model.class_names == list(VOC_NAMES)
    assert zoo.build(f"overfeat_{network}", num_classes=2, width=WIDTH).num_classes == 2


@pytest.mark.parametrize("file", ["raw", "classifier.weights.h5"])
def test_a_files_classes_are_the_models_and_a_table_says_what_starts_fresh(source, file, capsys):
    classifier, folder = source
    model = zoo.overfeat_fast(pretrained=str(folder / file), width=WIDTH)
    assert model.class_names == [f"class {label}" for label in range(7)]
    for layer in ("conv1", "conv5", "fc6", "fc7", "classes"):
        assert_same(layer, model, classifier)
    error = capsys.readouterr().err
    assert "box_fc1/kernel" in error
    assert "background/bias" in error
    assert "classes" not in error


@pytest.mark.parametrize("file", ["raw", "classifier.weights.h5"])
def test_with_other_classes_all_but_the_outputs_is_loaded(source, file, capsys):
    classifier, folder = source
    model = zoo.overfeat_fast(class_names=["a", "b"], pretrained=folder / file, width=WIDTH)
    assert model.class_names == ["a", "b"]
    assert_same("fc7", model, classifier)
    assert model.get_layer("classes").filters == 2
    assert "classes/kernel" in capsys.readouterr().err


def test_a_classifiers_answers_are_the_detectors(source, rng):
    """At the window there is one place, and without background the classes are the same."""
    classifier, folder = source
    alone = {"background": False, "task": "localisation"}
    model = zoo.overfeat_fast(pretrained=folder / "raw", width=WIDTH, **alone)
    image = rng.uniform(0, 255, (2, 231, 231, 3)).astype("f4")
    np.testing.assert_allclose(model(image)["classes"][:, 0, 0], classifier(image), atol=1e-4)


def test_a_detectors_own_weights_come_back_whole(tmp_path, capsys):
    model = zoo.overfeat_accurate(3, width=WIDTH, stddev=None)
    model.save_weights(tmp_path / "detector.weights.h5")
    again = zoo.overfeat_accurate(pretrained=tmp_path / "detector.weights.h5", width=WIDTH)
    for layer in ("conv6", "fc8", "classes", "background", "box_fc1", "box_fc2", "boxes"):
        assert_same(layer, model, again)
    assert capsys.readouterr().err == ""


def test_names_may_be_given_for_the_files_classes(source):
    classifier, folder = source
    names = [f"name {label}" for label in range(7)]
    model = zoo.overfeat_fast(class_names=names, pretrained=folder / "raw", width=WIDTH)
    assert model.class_names == names
    assert_same("classes", model, classifier)


# ---------------------------------------------------------------------- the classifier as released


@pytest.mark.parametrize("file", ["raw", "classifier.weights.h5"])
def test_the_classifier_alone_is_loaded_whole(source, file, capsys, rng):
    classifier, folder = source
    model = zoo.build("overfeat_fast_classifier", pretrained=folder / file, width=WIDTH)
    assert isinstance(model, Classifier)
    assert model.name == "overfeat_fast_classifier"
    image = rng.uniform(0, 255, (2, 240, 250, 3)).astype("f4")
    np.testing.assert_array_equal(model(image), classifier(image))
    assert capsys.readouterr().err == ""
    other = zoo.overfeat_fast_classifier(2, pretrained=folder / file, width=WIDTH)
    assert_same("fc7", other, classifier)
    assert "classes/kernel" in capsys.readouterr().err


def test_a_classifier_without_weights_has_imagenets_number_of_classes():
    assert zoo.overfeat_accurate_classifier(width=WIDTH).num_classes == 1000
    model = zoo.overfeat_accurate_classifier(class_names=["a", "b"], width=WIDTH)
    assert (model.class_names, model.image_size) == (["a", "b"], (221, 221))
    with pytest.raises(InputError, match="num_classes=3 does not fit the 2 class_names"):
        zoo.overfeat_accurate_classifier(3, class_names=["a", "b"], width=WIDTH)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A raw file of 1000 classes, as the release's but narrow; and their names in an order of its own."""
    folder = tmp_path_factory.mktemp("released")
    weights_map.save(Classifier(1000, network="overfeat_fast", width=WIDTH), folder / "raw")
    names = [f"n{(7 * label + 3) % 1000:03}" for label in range(1000)]
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in names))
    return folder / "raw", folder / "names.txt", names


def images_of(names):
    data = tf.data.Dataset.from_tensors({"image": np.zeros((30, 30, 3), "uint8"), "label": 0})
    data.class_names = names
    return data


@pytest.mark.parametrize("name", ["overfeat_fast", "overfeat_fast_classifier"])
def test_released_labels_without_names_do_not_pass_for_those_of_as_many_others(released, name):
    raw, _, names = released
    model = zoo.build(name, pretrained=raw, width=WIDTH)
    assert model.class_names[447:449] == ["OverFeat label 447", "OverFeat label 448"]
    assert zoo.build(name, num_classes=1000, pretrained=raw, width=WIDTH).class_names[0] == (
        "OverFeat label 0"
    )
    said = r"order of OverFeat's own.*class_names=FILE .* or --model-classes FILE, one a line"
    with pytest.raises(InputError, match=said) as refused:
        classification_pipeline(images_of(sorted(names)), model, 1)
    assert len(str(refused.value)) < 700
    if name == "overfeat_fast":
        with pytest.raises(InputError, match=said):
            evaluate(model, images_of(sorted(names)))


@pytest.mark.parametrize("name", ["overfeat_fast", "overfeat_fast_classifier"])
def test_released_labels_take_their_names_from_a_file(released, name):
    raw, file, names = released
    for given in (file, str(file), names):
        model = zoo.build(name, pretrained=raw, class_names=given, width=WIDTH)
        assert model.class_names == names
    assert classification_pipeline(images_of(names), model, 1).steps_per_epoch == 1
    with pytest.raises(InputError, match=r"the same names in another order: .*--match-names"):
        classification_pipeline(images_of(sorted(names)), model, 1)


def test_a_file_of_another_network_or_width_is_one_sentence(source, tmp_path):
    _, folder = source
    with pytest.raises(InputError, match=r"holds 36,003 floats, not the [\d,]+ wanted"):
        zoo.overfeat_accurate(pretrained=folder / "raw", width=WIDTH)
    with pytest.raises(InputError, match="36,003 floats, not the 145,920,872 wanted"):
        zoo.overfeat_fast(pretrained=folder / "raw")
    for network, other, name in (("fast", "accurate", "1"), ("accurate", "fast", "0")):
        with (tmp_path / "released").open("wb") as file:
            file.truncate(overfeat_file.SIZES[other])
        with pytest.raises(InputError, match=rf"is net_weight_{name}, OverFeat's {other} network"):
            zoo.build(f"overfeat_{network}", pretrained=tmp_path / "released")
    (tmp_path / "darknet").write_bytes(b"\0\0\0\0\2\0\0\0\0\0\0\0" + bytes(2000))
    with pytest.raises(InputError, match="reads raw floats and Keras'"):
        zoo.overfeat_fast(pretrained=tmp_path / "darknet")


@pytest.mark.parametrize("network", ["fast", "accurate"])
def test_the_sizes_that_classes_are_solved_from_are_the_networks(network):
    """Of the released file 1000 classes, and of a narrow one the model's own layers."""
    layout = overfeat.layout_of(network)
    shapes = overfeat._shapes(layout, 1.0)
    hidden = layout.hidden[1]
    floats = overfeat_file.floats_of([*shapes, (1000, hidden, 1, 1)])
    assert 4 * floats == overfeat_file.SIZES[network]
    model = Classifier(3, network=f"overfeat_{network}", width=WIDTH)
    *below, _ = weights_map.shapes(model).values()
    assert overfeat._shapes(layout, WIDTH) == below


def test_the_licence_is_told_before_a_download(tmp_path, monkeypatch, capsys):
    import keras

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(keras.utils, "get_file", offline)
    with pytest.raises(InputError, match=r"get it from http://cilvr\.cs\.nyu\.edu/.*give its path"):
        zoo.overfeat_fast(pretrained=True)
    told = capsys.readouterr().out
    assert "internal research and evaluation alone" in told
    assert "neither redistribution nor modification" in told


def test_both_networks_are_in_one_archive():
    one, other = (pretrained.find(f"overfeat_{name}").source for name in ("fast", "accurate"))
    assert one._replace(member=None) == other._replace(member=None)
    assert (one.member, other.member) == ("net_weight_0", "net_weight_1")


def test_the_card_says_of_every_choice_of_ours_what_was_chosen_and_why():
    card = (ROOT / "zoo" / "overfeat_fast_imagenet" / "card.md").read_text()
    rows = [line[2:-2].split(" | ") for line in card.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 12
    assert all(len(row) == 3 and all(map(str.strip, row)) for row in rows)
    chosen = dict(re.findall(r"`(\w+)=([\d.]+)`", " ".join(row[1] for row in rows)))
    defaults = inspect.signature(OverFeat).parameters
    assert {name: float(value) for name, value in chosen.items()} == {
        name: defaults[name].default
        for name in (
            "box_weight",
            "classes_per_scale",
            "smallest",
            "part",
            "worst_negatives",
            "random_negatives",
        )
    }
    assert f" {threshold_of(MERGES['greedy']):.2f}: " in card
    for other in ("overfeat_accurate_imagenet", "overfeat_shapes"):
        link = "(../overfeat_fast_imagenet/card.md#what-the-paper-does-not-say)"
        assert link in (ROOT / "zoo" / other / "card.md").read_text()
