"""OverFeat's builders: what is loaded from raw floats, from a classifier and from a detector."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from kerasdet import zoo
from kerasdet.classes import VOC_NAMES
from kerasdet.classifier import Classifier
from kerasdet.detectors.overfeat import MERGES, OverFeat, threshold_of
from kerasdet.errors import InputError
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
