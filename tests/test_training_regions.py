"""Training a detector of regions from a recipe: where regions come from, and target statistics."""

import json

import numpy as np
import pytest

from kerasdet import cli, data, runs, training
from kerasdet.errors import InputError
from kerasdet.training import Recipe
from tests import small

pytestmark = pytest.mark.slow

TRAIN = "shapes:train?count=8&size=64&objects=2"


def regions_of_shapes(class_names):
    return small.fast_rcnn(class_names=class_names, image_size=(64, 64))


RECIPE = Recipe(
    model=regions_of_shapes,
    train=TRAIN,
    val="shapes:val?count=4&size=64&objects=2",
    regions="sliding_windows",
    adapt_targets=True,
    epochs=2,
    batch_size=4,
    max_boxes=4,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return training.train(RECIPE, output=tmp_path_factory.mktemp("runs"))


def statistics(model):
    scale = model.get_layer("boxes")
    return np.array(scale.means), np.array(scale.deviations)


def test_targets_are_normalised_by_the_statistics_of_the_training_data(run):
    """They travel with the weights; those of the images as they are, without flips."""
    examples = training.with_proposals(data.load(TRAIN), "sliding_windows")
    model = regions_of_shapes(examples.class_names)
    model.adapt_targets(data.pipeline(examples, model, 3))
    expected = statistics(model)
    assert not np.allclose(expected[1], statistics(regions_of_shapes(examples.class_names))[1])
    for found, wanted in zip(statistics(runs.open_run(run)), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_both_sets_have_regions_and_the_recipe_is_written_down(run):
    settings = json.loads((run / "config.json").read_text())
    assert (settings["regions"], settings["adapt_targets"]) == ("sliding_windows", True)
    rows = (run / "metrics.csv").read_text().splitlines()
    names = rows[0].split(",")
    assert {"classification", "val_classification", "val_AP50"} <= set(names)
    for row in rows[1:]:
        assert all(np.isfinite(float(value)) for value in row.split(","))


def test_a_resumed_run_keeps_its_statistics(run, tmp_path):
    """Computed once, before the first epoch: here nothing could compute them again."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from tests.test_training_regions import RECIPE\n\ndef recipe():\n    return RECIPE\n"
    )
    short = training.replaced(RECIPE, {"epochs": 1})
    first = training.train(short, output=tmp_path, recipe_file=recipe)
    before = statistics(runs.open_run(first))
    training.resume(first, epochs=2)
    for found, wanted in zip(statistics(runs.open_run(first)), before, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_regions_in_a_folder_of_the_data_want_to_know_it(tmp_path):
    recipe = training.replaced(RECIPE, {"regions": "{data_dir}/proposals"})
    with pytest.raises(InputError, match=r"regions are \{data_dir\}/proposals: say where it is"):
        training.train(recipe, output=tmp_path)
    data.propose(data.load(TRAIN), tmp_path / "proposals", method="sliding_windows", workers=1)
    with pytest.raises(InputError, match="no regions"):  # of the other data's images
        training.train(recipe, data_dir=tmp_path, output=tmp_path)
    found = training.train(
        training.replaced(recipe, {"val": None, "epochs": 1}), data_dir=tmp_path, output=tmp_path
    )
    assert (found / "weights" / "last.weights.h5").is_file()


def test_statistics_of_regions_want_a_detector_of_regions(tmp_path):
    recipe = training.replaced(
        RECIPE, {"model": lambda names: small.ssd(class_names=names), "regions": None}
    )
    with pytest.raises(InputError, match="adapt_targets goes with a detector that learns from"):
        training.train(recipe, output=tmp_path)


def test_a_detector_of_regions_without_any_is_refused(tmp_path):
    recipe = training.replaced(RECIPE, {"regions": None})
    with pytest.raises(InputError, match="the model wants regions with its images"):
        training.train(recipe, output=tmp_path)


def test_a_method_without_its_file_is_refused_before_an_image_is_searched(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    examples = data.load(TRAIN)
    with pytest.raises(InputError, match=r"EdgeBoxes wants .*no file .*model\.yml\.gz"):
        training.with_proposals(examples, "edge_boxes")
    recipe = training.replaced(RECIPE, {"regions": "edge_boxes"})
    with pytest.raises(InputError, match="EdgeBoxes wants"):
        training.train(recipe, output=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_regions_for_a_detector_of_whole_images_are_refused(tmp_path):
    recipe = training.replaced(
        RECIPE, {"model": lambda names: small.ssd(class_names=names), "adapt_targets": False}
    )
    with pytest.raises(InputError, match="regions goes with a detector that looks at regions"):
        training.train(recipe, output=tmp_path)


def about_to_train(monkeypatch, tmp_path, **changes):
    """The model as it is trained, after no training."""
    trained = []
    monkeypatch.setattr(training, "_fit", lambda job, run, first_epoch: trained.append(job.model))
    training.train(training.replaced(RECIPE, changes), output=tmp_path)
    return trained[0]


def test_training_begins_at_the_layer_that_the_recipe_names(monkeypatch, tmp_path):
    """The convolutions before it have no variables that the optimizer moves."""
    model = about_to_train(monkeypatch, tmp_path, train_from="fc6", adapt_targets=False, val=None)
    trained = {variable.path.split("/")[0] for variable in model.trainable_variables}
    assert trained == {"fc6", "fc7", "cls_score", "bbox_pred"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_from": "fc9"}, "train_from wants one of .*fc6, fc7, .*, not 'fc9'"),
        (
            {"train_from": "paper"},
            "train_from wants one of .*, not 'paper'",
        ),  # none of its networks
        (
            {
                "train_from": "fc6",
                "model": lambda names: small.ssd(class_names=names),
                "regions": None,
            },
            "train_from goes with a Fast R-CNN",
        ),
    ],
)
def test_a_layer_to_train_from_that_is_none_is_refused(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        training.train(training.replaced(RECIPE, changes), output=tmp_path)


def test_the_shell_hands_the_layer_to_the_recipe(monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(training, "train", lambda recipe, **_: seen.append(recipe) or tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["train", "fast_rcnn_small", "--data", TRAIN, "--train-from", "fc6"])
    assert seen[0].train_from == "fc6"
