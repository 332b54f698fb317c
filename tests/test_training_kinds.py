"""Recipes of other kinds: a classifier, images of several sizes, and joint training with a WordTree."""

import csv
import json

import numpy as np
import pytest

from kerasdet import runs, training, zoo
from kerasdet.backbones.overfeat import Convolution, Layout
from kerasdet.classifier import Classifier
from kerasdet.errors import InputError
from kerasdet.recipe import Recipe
from kerasdet.word_tree import WordTree
from tests import small

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*ran out of data.*:UserWarning"),
]

KINDS = "ellipse,rectangle,triangle"


def metrics(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def little_darknet(class_names):
    return Classifier(class_names=class_names, network="tiny_darknet", image_size=40)


def classifying(**changes):
    given = {
        "task": "classification",
        "train": f"shapes:train?count=12&size=48&classes={KINDS}",
        "val": f"shapes:val?count=6&size=48&classes={KINDS}",
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "schedule": "poly",
        **changes,
    }
    return Recipe(model=given.pop("model", little_darknet), **given)


def test_a_classifier_trains_into_a_run_folder(tmp_path):
    run = training.train(classifying(), output=tmp_path)
    rows = metrics(run)
    assert [row["epoch"] for row in rows] == [0, 1]
    assert {"loss", "top1", "top5", "val_loss", "val_top1", "val_top5"} <= set(rows[0])
    result = json.loads((run / "result.json").read_text())
    best = max(row["val_top1"] for row in rows)
    assert result["evaluation"]["metrics"]["top1"] == pytest.approx(best, abs=1e-6)
    assert result["evaluation"]["metrics"]["top5"] == 1.0, "of three classes"
    assert result["evaluation"]["data"].startswith("shape images:val")
    assert (run / "plots" / "metrics.png").is_file()
    opened = runs.open_run(run)
    assert opened.class_names == ["ellipse", "rectangle", "triangle"]
    assert opened.image_size == (40, 40)
    names = opened.classify(np.full((50, 70, 3), 90, "uint8"), top=2)[0].names
    assert set(names) <= set(opened.class_names)


def little_overfeat(class_names):
    layout = Layout(
        (Convolution(16, 5, stride=2, pool=2), Convolution(24, 3)),
        last_pool=2,
        kernel=3,
        hidden=(32, 16),
        window=27,
    )
    return Classifier(class_names=class_names, network=layout, stddev=None)


def test_an_overfeat_trains_on_its_windows_and_opens_with_its_layout(tmp_path):
    run = training.train(classifying(model=little_overfeat, schedule="steps"), output=tmp_path)
    assert metrics(run)[-1]["val_top5"] == 1.0
    opened = runs.open_run(run)
    assert opened.image_size == (27, 27)
    assert opened.augmentation == "overfeat"
    again = little_overfeat(opened.class_names)
    again.load_weights(run / "weights" / "best.weights.h5")
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    one, other = (each.classify(image, views="scales")[0] for each in (opened, again))
    assert one.names == other.names
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


CROPPING = """
import kerasdet
from tests.test_training_kinds import classifying, little_overfeat

def overfeat(class_names):
    return kerasdet.Classifier(
        class_names=class_names, network=little_overfeat(["a", "b"]).network, dropout=0.0, stddev=None
    )

def recipe():
    return classifying(model=overfeat, augment="overfeat", crops=2, schedule="steps")
"""


def test_a_run_of_crops_that_was_resumed_ends_with_the_numbers_of_one_that_was_not(tmp_path):
    file = tmp_path / "recipe.py"
    file.write_text(CROPPING)
    recipe = runs.read_recipe(file)
    whole = training.train(recipe, output=tmp_path / "whole", recipe_file=file)
    begun = training.replaced(recipe, {"epochs": 1})
    resumed = training.train(begun, output=tmp_path / "resumed", recipe_file=file)
    training.resume(resumed, epochs=2)
    for row, expected in zip(metrics(resumed), metrics(whole), strict=True):
        assert row == pytest.approx(expected, rel=2e-4)
    one, other = (runs.open_run(run).get_weights() for run in (whole, resumed))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_model_of_the_other_task_is_named():
    with pytest.raises(InputError, match="task='classification' does not go with one_ssd, a SSD"):
        training.train(classifying(model=one_ssd))
    with pytest.raises(InputError, match="task wants"):
        classifying(task="segmentation")
    with pytest.raises(InputError, match="classification_train is for a detector"):
        classifying(classification_train="shapes")
    with pytest.raises(InputError, match="crops is for a classifier"):
        classifying(task="detection", crops=5)
    with pytest.raises(InputError, match="crops goes with augment='overfeat'"):
        training.train(classifying(crops=5))


def one_ssd(class_names):
    return small.plain_ssd(class_names=class_names)


def test_a_classifier_by_name_needs_no_task():
    assert Recipe(model="darknet19", train="folders:somewhere").classifies
    assert not Recipe(model="ssd300", train="shapes").classifies
    with pytest.raises(InputError, match="there is no somewhere"):
        training.train(Recipe(model="darknet19", train="folders:somewhere"))


# ---------------------------------------------------------------------- several sizes


def one_yolo(class_names):
    return small.yolo_v2(class_names=class_names)


def test_a_network_for_any_size_trains_on_several_and_is_measured_at_its_own(tmp_path):
    sizes = []

    def seen(example, image_size, seed):
        from kerasdet.data import augment

        sizes.append(image_size)  # once a trace: a tensor, so that no size means another graph
        return augment.flip(example, image_size, seed)

    recipe = Recipe(
        model=one_yolo,
        train="shapes:train?count=12&size=64&objects=2",
        val="shapes:val?count=4&size=64&objects=2",
        epochs=2,
        batch_size=4,
        augment=seen,
        image_size=(64, 96),
        multi_scale=(64, 128),
        multi_scale_last=2,
        warmup_epochs=1,
        warmup_power=4,
        weight_decay=0.0,
    )
    run = training.train(recipe, output=tmp_path)
    assert len(sizes) == 1
    assert all(np.isfinite(row["loss"]) and "val_AP50" in row for row in metrics(run))
    assert json.loads((run / "config.json").read_text())["multi_scale"] == [64, 128]
    opened = runs.open_run(run)
    assert opened.image_size == (64, 96)
    assert int(opened.images_seen) > 0, "travels with the best weights"
    for changes in ({"multi_scale": None}, {"model": "darknet19"}):
        with pytest.raises(InputError, match="multi_scale_last goes with the multi_scale of a det"):
            training.replaced(recipe, {"multi_scale_last": 9, **changes})
    with pytest.raises(InputError, match="multi_scale wants a network that takes images of any"):
        training.train(
            training.replaced(recipe, {"model": one_ssd, "image_size": None, "val": None}),
            output=tmp_path,
        )


# ---------------------------------------------------------------------- joint


def every_shape(class_names):
    """Roots for the kinds with boxes, the others below a root of their own."""
    assert class_names == ["star", "cross"]
    parents = {"stern": None, "cross": None, "round": None, "ellipse": "round"}
    return small.yolo9000(tree=WordTree.from_parents(parents))


def test_joint_training_learns_from_boxes_and_from_labels_alone(tmp_path):
    """The data's labels become nodes; average precision is of the data's classes."""
    recipe = Recipe(
        model=every_shape,
        train="shapes:train?count=8&size=64&objects=2&classes=star,cross",
        classification_train="shapes:train?count=8&size=64&classes=ellipse",
        detection_share=0.5,
        images_per_epoch=12,
        val="shapes:val?count=4&size=64&objects=2&classes=star,cross",
        epochs=1,
        batch_size=4,
        max_boxes=4,
        nodes="{data_dir}/shapes.map",
    )
    (tmp_path / "shapes.map").write_text("stern\ncross\n")  # the star is called otherwise there
    with pytest.raises(InputError, match="say where it is with --data-dir"):
        training.train(recipe, output=tmp_path)
    run = training.train(recipe, data_dir=tmp_path, output=tmp_path)
    (row,) = metrics(run)
    assert row["image_classes"] > 0, "the labels of whole images were learnt from"
    assert row["classes"] > 0
    assert int(runs.open_run(run).images_seen) == 12
    assert np.isfinite(row["val_loss"])
    classes = json.loads((run / "result.json").read_text())["evaluation"]["classes"]
    assert [one["name"] for one in classes] == ["star", "cross"]


def test_a_model_by_name_is_built_on_the_tree_of_the_recipe(tmp_path, monkeypatch):
    """Boxes by nodes of a map, labels of whole images by their names; the val's classes by the map."""

    def build(name, *, tree, pretrained):
        assert (name, pretrained) == ("yolo9000", False)
        return small.yolo9000(tree=WordTree.from_json(tree))

    monkeypatch.setattr(zoo, "build", build)
    (tmp_path / "kinds.json").write_text('{"stern": null, "round": null, "ellipse": "round"}')
    (tmp_path / "shapes.map").write_text("stern\nround\n")
    shapes = "shapes:train?count=8&size=64&objects=2&classes=star,cross"
    recipe = Recipe(
        model="yolo9000",
        tree="{data_dir}/kinds.json",
        nodes="{data_dir}/shapes.map",
        train=shapes,
        classification_train="shapes:train?count=8&size=64&classes=ellipse",
        val=shapes.replace("train", "val"),
        epochs=1,
        batch_size=4,
        max_boxes=4,
    )
    with pytest.raises(InputError, match=r"tree is .*kinds.json: say where it is with --data-dir"):
        training.train(recipe, output=tmp_path)
    run = training.train(recipe, data_dir=tmp_path, output=tmp_path)
    assert runs.open_run(run).class_names == ["stern", "round", "ellipse"]
    assert json.loads((run / "config.json").read_text())["tree"] == "{data_dir}/kinds.json"
    classes = json.loads((run / "result.json").read_text())["evaluation"]["classes"]
    assert [one["name"] for one in classes] == ["star", "cross"]
    with pytest.raises(
        InputError, match="tree goes with yolo9000 by its name, not with every_shape"
    ):
        training.replaced(recipe, {"model": every_shape})
