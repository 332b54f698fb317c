"""The shell command: what it prints, what it writes, and its exit codes."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import typer
from PIL import Image

from kerasdet import cli, runs, training, zoo
from kerasdet.data import forms
from kerasdet.recipe import Recipe
from kerasdet.suppression import Detections
from tests import small
from tests.data.annotation_files import voc_folder, voc_xml

TINY = Path(__file__).with_name("tiny_recipe.py")
DATA = "shapes:test?count=5&size=64&objects=2"


def run(capsys, *arguments):
    """(exit code, what was printed, what went to stderr)."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    code = left.value.code
    return (0 if code is None else code), printed.out, printed.err


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run folder with an untrained network in it."""
    output = tmp_path_factory.mktemp("runs")
    detector = runs.read_recipe(TINY).build(["ellipse", "rectangle", "triangle", "star", "cross"])
    folder = runs.create(output, "tiny", detector)
    detector.save_weights(folder / "weights" / "last.weights.h5")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["evaluate"],
        ["detect"],
        ["export"],
        ["compress"],
        ["bench"],
        ["models"],
        ["data"],
        ["data", "check"],
    ],
)
def test_help_answers(capsys, command):
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert "Usage:" in out


def options(*command):
    """The options and arguments of a command by their names in Python."""
    found = typer.main.get_command(cli.app)
    for word in command:
        found = found.commands[word]
    return {option.name: option for option in found.params}


def test_every_option_of_train_has_a_text_and_the_defaults_it_names_are_the_recipes():
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    named = {}
    for name, option in options("train").items():
        assert option.help, name
        if isinstance(option.show_default, str):
            named[name] = option.show_default
    assert {"epochs", "batch_size", "learning_rate", "weight_decay", "seed"} <= set(named)
    assert named.pop("cache") == "no-cache"
    assert defaults["cache"] is False
    for name, shown in named.items():
        assert type(defaults[name])(shown) == defaults[name], name


@pytest.mark.parametrize("command", ["train", "data"])
def test_help_shows_every_form_of_data_as_the_errors_do(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(capsys, command, "--help")
    shown = [line.strip() for line in out.splitlines()]
    for line in (*forms.FORMS.splitlines(), *forms.IMAGE_FORMS.splitlines()):
        assert line in shown, "whole, on one line"


def test_data_of_one_command_names_the_same_forms_in_a_line():
    words = [line.split("[")[0].split()[0] for line in forms.FORMS.splitlines()[:6]]
    words[1] = "coco:"
    for option in (options("data", "check")["data"], options("evaluate")["data"]):
        assert [word for word in words if word not in option.help] == []
    for word in ("folders:DIR", "crops:DATA"):
        assert word in options("evaluate")["data"].help


def test_models_lists_each_detector_with_its_licence(capsys):
    code, out, _ = run(capsys, "models")
    assert code == 0
    for word in ("ssd300", "ssd512", "ssd_mobilenet", "BSD-3-Clause", "25.1"):
        assert word in out


def test_train_evaluates_and_says_where_everything_is(capsys, tmp_path):
    code, out, _ = run(capsys, "train", TINY, "--epochs", "1", "--output", tmp_path / "runs")
    assert code == 0
    folder = tmp_path / "runs" / "tiny-1"
    for name in (folder, folder / "weights" / "best.weights.h5", folder / "tb"):
        assert str(name) in out
    assert "AP50" in out
    code, _, err = run(capsys, "train", "--resume", folder)
    assert code == 2
    assert "all its 1 epochs" in err
    assert len(err.strip().splitlines()[-1]) < 200
    code, _, err = run(
        capsys, "train", "--resume", folder, "--epochs", "2", "--lr", "50", "--strict"
    )
    assert code == 2
    assert "learning-rate, strict too" in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize("epoch", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_training_that_was_stopped_by_hand_says_how_it_goes_on(
    epoch, capsys, monkeypatch, tmp_path
):
    def stop(number, logs):
        if number == epoch:
            raise KeyboardInterrupt

    stopping = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    own = training._callbacks

    def callbacks(*given):  # but for the one that would leave its file open
        made = own(*given)
        return [*(c for c in made if not isinstance(c, keras.callbacks.CSVLogger)), stopping]

    monkeypatch.setattr(training, "_callbacks", callbacks)
    code, out, _ = run(capsys, "train", TINY, "--output", tmp_path)
    assert code == 130
    said = f"Stopped; `kerasdet train --resume {tmp_path / 'tiny-1'}` goes on with epoch 2."
    assert (said in out) == ("Stopped" in out) == (epoch == 1)


def test_evaluate_prints_the_table_and_writes_numbers_and_plots(
    capsys, tmp_path, monkeypatch, model
):
    files = ["--plots", tmp_path / "plots", "--json", tmp_path / "r.json"]
    arguments = ["evaluate", model, "--data", DATA, *files]
    monkeypatch.setattr(sys, "argv", ["/some/where/bin/kerasdet", *map(str, arguments)])
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "AP50" in out
    content = json.loads((tmp_path / "r.json").read_text())
    assert "AP50" in content["evaluation"]["metrics"]
    command = shlex.split(content["evaluation"]["environment"]["command"])
    assert command == ["kerasdet", *map(str, arguments)], "as one may type it again"
    assert content["evaluation"]["data"].startswith("shapes:test")
    assert content["evaluation"]["rule"] == "voc10"
    assert content["evaluation"]["images"] == 5
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {
        "precision_recall.png",
        "worst_mistakes.png",
    }


def test_detect_draws_each_photo_of_a_folder(capsys, tmp_path, model):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, size in (("a.png", (50, 70)), ("b.jpg", (90, 40))):
        Image.fromarray(np.full((*size, 3), 128, "uint8")).save(photos / name)
    (photos / "notes.txt").write_text("not a photo")
    code, out, _ = run(
        capsys, "detect", model, photos, "--output", tmp_path / "drawn", "--score", "0.0"
    )
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["a.png", "b.png"]
    assert "a.png" in out
    with Image.open(tmp_path / "drawn" / "a.png") as drawn:
        assert drawn.size == (70, 50)


def test_photos_of_one_name_are_drawn_apart_and_those_that_are_none_left_out(
    capsys, tmp_path, model
):
    for folder, gray in (("a", 60), ("b", 200)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((20, 30, 3), gray, "uint8")).save(tmp_path / folder / "x.png")
    (tmp_path / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a photo")
    drawn = tmp_path / "drawn"
    code, out, err = run(
        capsys, "detect", model, tmp_path / "a", tmp_path / "b", "--output", drawn, "--score", 1
    )
    assert code == 2
    assert out.count("0 found") == 2
    assert "1 of 3 photos left out" in err
    assert "broken.jpg" in err
    assert [Image.open(drawn / name).getpixel((15, 10))[0] for name in ("x.png", "x-2.png")] == [
        60,
        200,
    ]


def test_detect_prints_the_path_in_a_tree_to_what_it_found(capsys, tmp_path):
    """Of the walk down from a root: animal, or animal > dog, or animal > dog > terrier."""
    model = small.yolo9000(tree=small.animals_and_things(), tree_threshold=0.0)
    model.save(tmp_path / "m.keras")
    Image.fromarray(np.full((64, 96, 3), 128, "uint8")).save(tmp_path / "a.png")
    code, out, _ = run(
        *(capsys, "detect", tmp_path / "m.keras", tmp_path / "a.png", "--score", "0"),
        *("--output", tmp_path / "drawn"),
    )
    assert code == 0
    (found,) = model.detect([tmp_path / "a.png"], score_threshold=0)
    shown = [line.rsplit(maxsplit=5)[0].strip() for line in out.splitlines()[1:]]
    assert shown == [" > ".join(model.path(label)) for label in found.labels]
    assert any(" > " in path for path in shown)
    assert all(path.split(" > ")[0] in ("animal", "thing") for path in shown)


def test_train_hands_the_length_of_an_epoch_to_joint_training_alone(capsys, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(training, "train", lambda recipe, **_: seen.append(recipe) or tmp_path)
    words = ("train", "yolo9000", "--data", DATA, "--images-per-epoch", "640")
    assert run(capsys, *words, "--classification-data", DATA)[0] == 0
    assert seen[0].images_per_epoch == 640
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "images_per_epoch goes with classification_train" in err


def test_train_hands_tree_and_nodes_to_the_recipe(capsys, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(training, "train", lambda recipe, **_: seen.append(recipe) or tmp_path)
    words = ("--tree", "kinds.json", "--nodes", "coco.map", "--data", DATA)
    assert run(capsys, "train", "yolo9000", *words)[0] == 0
    assert (seen[0].model, seen[0].tree, seen[0].nodes) == ("yolo9000", "kinds.json", "coco.map")
    code, _, err = run(capsys, "train", "yolo_v2", *words)
    assert code == 2
    assert "tree goes with yolo9000 by its name, not with yolo_v2" in err


def test_train_hands_on_the_crops_of_a_classifier(capsys, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(training, "train", lambda recipe, **_: seen.append(recipe) or tmp_path)
    words = ("--data", "folders:some/where", "--augment", "overfeat", "--crops", "5")
    assert run(capsys, "train", "overfeat_fast_classifier", *words)[0] == 0
    assert (seen[0].augment, seen[0].crops) == ("overfeat", 5)
    code, _, err = run(capsys, "train", "ssd300", "--data", DATA, "--crops", "5")
    assert code == 2
    assert "crops is for a classifier" in err


def test_a_run_is_opened_by_a_process_that_did_not_train_it(tmp_path):
    """Rates by steps, which a recipe takes if it says nothing, are kept with the network."""

    def kerasdet(*arguments):
        command = [sys.executable, "-m", "kerasdet", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = ("--batch-size", 4, "--image-size", 64, "--augment", "none")
    kerasdet("train", "yolo_v2_small", "--data", DATA, "--epochs", 1, *small)
    found = kerasdet("evaluate", "runs/yolo_v2_small-1", "--data", DATA)
    assert "AP50" in found


def test_results_that_could_not_be_written_are_refused_before_the_work(capsys, tmp_path, model):
    (tmp_path / "file").write_text("")
    Image.fromarray(np.zeros((20, 30, 3), "uint8")).save(tmp_path / "x.png")
    for arguments in (
        ["evaluate", model, "--data", DATA, "--json", tmp_path / "file" / "x.json"],
        ["evaluate", model, "--data", DATA, "--json", tmp_path],
        ["evaluate", model, "--data", DATA, "--plots", tmp_path / "file"],
        ["detect", model, tmp_path / "x.png", "--output", tmp_path / "file"],
        ["compress", model, tmp_path / "file" / "x.keras"],
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert "Cannot write" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "{model}", "--data", DATA, "--rule", "voc12"], "--rule wants voc10"),
        (["bench", "{model}", "--batch-sizes", "0"], "--batch-sizes wants"),
        (["bench", "{model}", "--batch-sizes=-1,2"], "--batch-sizes wants"),
        (["bench", "{model}", "--batch-sizes", "1.5"], "--batch-sizes wants"),
        (["bench", "{model}", "--batch-sizes", "inf"], "--batch-sizes wants"),
        (["evaluate", "nowhere/at-all", "--data", DATA], "no such path"),
        (["evaluate", "ssd301", "--data", DATA], "ssd300"),
        (["evaluate", "{model}", "--data", "voc:nowhere"], "nowhere"),
        (["evaluate", "{model}", "--data", "coffee:beans"], "voc:DIR"),
        (["detect", "{model}", "nowhere.jpg"], "nowhere.jpg"),
        (["train", "ssd300", "--data", "yolo:nowhere.yaml"], "nowhere.yaml"),
        (["train", "nowhere.py"], "nowhere.py"),
        (["train", "--resume", "nowhere"], "nowhere"),
        (["data", "check", "coco:nowhere.json,nowhere/"], "nowhere"),
        (["export", "{model}", "out", "--format", "paper"], "paper"),
        (["export", "{model}", "a.weights", "--format", "darknet"], "is no network of darknet's"),
        (["bench", "{model}", "--image-size", "128"], "64x64 alone"),
        (["detect", "{model}", ".", "--image-size", "big"], "no photos"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    capsys, tmp_path, monkeypatch, model, arguments, said
):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *[a.replace("{model}", str(model)) for a in arguments])
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_classifier_is_exported_for_darknet_alone(capsys, tmp_path):
    zoo.tiny_darknet(3, image_size=64).save(tmp_path / "tiny.keras")
    file = tmp_path / "new" / "tiny.weights"
    code, out, _ = run(capsys, "export", tmp_path / "tiny.keras", file, "--format", "darknet")
    assert code == 0
    assert "tiny.cfg" in out
    assert sorted(p.suffix for p in file.parent.iterdir()) == [
        ".cfg",
        ".data",
        ".names",
        ".weights",
    ]
    code, _, err = run(capsys, "export", tmp_path / "tiny.keras", tmp_path / "saved")
    assert code == 2
    assert "no detector" in err


def test_wrong_use_is_exit_code_2(capsys):
    for arguments in (
        ["train"],
        ["train", "ssd300"],
        ["fly"],
        ["train", "ssd300", "--epochs", "0"],
    ):
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--milestones", "a,b"),
        ("--scales", "0.1;0.2"),
        ("--multi-scale", "abc"),
        ("--multi-scale", "320.5,352"),
        ("--multi-scale", "inf"),
        ("--multi-scale", "608-320"),
    ],
)
def test_numbers_that_are_none_are_refused_by_the_name_of_their_option(capsys, option, value):
    code, _, err = run(capsys, "train", "ssd300", "--data", "shapes", option, value)
    assert code == 2
    assert option in err
    assert value in err


def test_a_photo_that_is_none_is_named(capsys, tmp_path, model):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a photo")
    code, _, err = run(
        capsys, "detect", model, tmp_path / "broken.jpg", "--output", tmp_path / "out"
    )
    assert code == 2
    assert "broken.jpg" in err
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_data_check_strict_fails_on_a_bad_box(capsys, tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.0 0.2\n")
    spec = f"yolo:{tmp_path}/images,{tmp_path}/labels"
    code, out, _ = run(capsys, "data", "check", spec, "--csv", tmp_path / "problems.csv")
    assert code == 0
    assert "a.txt" in out.replace("\n", "")
    assert (tmp_path / "problems.csv").read_text().count("\n") >= 2
    code, _, _ = run(capsys, "data", "check", spec, "--strict")
    assert code == 2


def test_a_file_of_classes_names_those_of_data_that_names_none(capsys, tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    (tmp_path / "my.names").write_text("ant\nbee\n")
    spec = f"yolo:{tmp_path}/images,{tmp_path}/labels"
    code, out, _ = run(capsys, "data", "stats", spec, "--classes", tmp_path / "my.names")
    assert code == 0
    rows = [line.split()[1:4:2] for line in out.splitlines() if {"ant", "bee"} & set(line.split())]
    assert rows == [["ant", "0"], ["bee", "1"]]
    code, _, err = run(capsys, "data", "check", spec, "--classes", tmp_path / "none.names")
    assert code == 2
    assert "none.names' is none of these" in err


def test_data_check_strict_fails_on_a_photo_cut_off(capsys, tmp_path):
    folder = voc_folder(tmp_path / "d", {stem: voc_xml([("dog", 1, 1, 3, 4)]) for stem in "ab"})
    photo = folder / "JPEGImages" / "b.png"
    photo.write_bytes(photo.read_bytes()[:50])
    code, out, _ = run(capsys, "data", "check", f"voc:{folder}", "--strict")
    assert code == 2
    assert "1 problem: 1 unreadable image" in out


def test_data_stats_and_show(capsys, tmp_path, model):
    code, out, _ = run(capsys, "data", "stats", DATA, "--model", model)
    assert code == 0
    assert "match no default box" in out
    code, _, _ = run(
        capsys, "data", "show", DATA, "--output", tmp_path / "samples.png", "--count", "4"
    )
    assert code == 0
    with Image.open(tmp_path / "samples.png") as samples:
        assert np.asarray(samples).std() > 10


def test_evaluate_says_how_often_a_classifier_is_right(capsys, tmp_path):
    from kerasdet.classifier import Classifier

    kinds = ["ellipse", "rectangle", "triangle"]
    classifier = Classifier(class_names=kinds, network="tiny_darknet", image_size=40)
    classifier.save(tmp_path / "classifier.keras")
    data = f"shapes:val?count=6&size=48&classes={','.join(kinds)}"
    files = ["--json", tmp_path / "r.json"]
    code, out, _ = run(
        capsys, "evaluate", tmp_path / "classifier.keras", "--data", data, "--limit", "3", *files
    )
    assert code == 0
    metrics = json.loads((tmp_path / "r.json").read_text())["evaluation"]["metrics"]
    assert f"top1 {metrics['top1']:.4f}" in out
    assert metrics["top5"] == 1.0
    assert metrics["top1"] * 3 == pytest.approx(round(metrics["top1"] * 3))  # of three images
    code, _, err = run(capsys, "detect", tmp_path / "classifier.keras", tmp_path)
    assert code == 2
    assert "holds no photos" in err
    code, _, err = run(capsys, "bench", tmp_path / "classifier.keras")
    assert code == 2
    assert "a Classifier, which is no detector" in err


@pytest.mark.slow
def test_a_classifier_with_its_classes_in_another_order_is_evaluated_by_their_names(
    capsys, tmp_path
):
    from kerasdet import data
    from kerasdet.classifier import Classifier
    from kerasdet.voting import accuracy

    kinds = ["triangle", "ellipse", "rectangle", "star"]
    classifier = Classifier(
        class_names=kinds, network="overfeat_fast", width=1 / 96, stddev=None, scales=[(245, 245)]
    )
    classifier.save(tmp_path / "it.keras")
    evaluate = ("evaluate", tmp_path / "it.keras", "--data")
    spec = "shapes:val?count=6&size=48&classes=ellipse,triangle,rectangle"
    images = data.load_images(spec)
    own = [kinds.index(name) for name in images.class_names]
    images = [{**each, "label": own[each["label"]]} for each in images.as_numpy_iterator()]
    for views in ("centre", "scales"):
        expected = accuracy(lambda image, views=views: classifier.vote(image, views), images)
        code, out, _ = run(capsys, *evaluate, spec, "--match-names", "--views", views)
        assert code == 0
        assert f"top1 {expected['top1']:.4f}" in out
    for classes, options, said in (
        (",".join(sorted(kinds)), (), "the same names in another order"),
        ("star,cross", ("--match-names",), "has no class by the name of cross."),
    ):
        spec = f"shapes:val?count=6&size=48&classes={classes}"
        code, _, err = run(capsys, *evaluate, spec, *options)
        assert code == 2
        assert said in " ".join(err.split())


def test_evaluate_lets_several_views_of_an_image_vote(capsys, tmp_path, model):
    from kerasdet import data
    from kerasdet.classifier import Classifier
    from kerasdet.voting import accuracy

    kinds = ["ellipse", "rectangle", "triangle"]
    classifier = Classifier(
        class_names=kinds,
        network="overfeat_fast",
        width=1 / 96,
        stddev=None,
        scales=[(245, 245), (281, 317)],
    )
    path = tmp_path / "classifier.keras"
    classifier.save(path)
    spec = f"shapes:val?count=6&size=60x50&classes={','.join(kinds)}"
    for views in ("ten", "scales"):
        code, out, _ = run(
            *(capsys, "evaluate", path, "--data", spec, "--views", views, "--limit", "4"),
            *("--json", tmp_path / "r.json"),
        )
        assert code == 0
        result = json.loads((tmp_path / "r.json").read_text())["evaluation"]
        images = list(data.load_images(spec).take(4).as_numpy_iterator())
        expected = accuracy(lambda image, views=views: classifier.vote(image, views), images)
        assert result["metrics"] == expected
        assert result["views"] == views
        assert f"top1 {expected['top1']:.4f}, top5 1.0000" in out
    code, _, err = run(capsys, "evaluate", path, "--data", spec, "--views", "five")
    assert code == 2
    assert "centre, ten, scales" in err
    code, _, err = run(capsys, "evaluate", model, "--data", DATA, "--views", "ten")
    assert code == 2
    assert "goes with a classifier" in err


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """An OverFeat as a file, untrained."""
    path = tmp_path_factory.mktemp("overfeat") / "overfeat.keras"
    small.overfeat(class_names=["ellipse", "rectangle", "triangle"]).save(path)
    return path


ONE_SHAPE = "shapes:val?count=3&size=64&classes=ellipse,rectangle,triangle"


def test_the_localisation_error_is_a_rule_of_its_own(capsys, tmp_path, windows, model):
    from kerasdet import evaluation, load
    from kerasdet.data.source import load as load_data

    spec = f"{ONE_SHAPE}&objects=1"
    evaluate = ["evaluate", windows, "--data", spec, "--rule", "localisation"]
    code, out, _ = run(capsys, *evaluate, "--limit", "2", "--json", tmp_path / "r.json")
    assert code == 0
    expected = evaluation.evaluate_localization(load(windows), load_data(spec), max_images=2)
    result = json.loads((tmp_path / "r.json").read_text())["evaluation"]
    for name in ("error", "class_error", "images", "top"):
        assert result[name] == getattr(expected, name)
    assert f"Localisation error {100 * expected.error:.1f}% of 2 images with 5 guesses" in out
    evaluate[1] = model
    for options, said in (
        ([], "--rule localisation goes with an OverFeat"),
        (["--views", "ten"], "go with the other rules"),
        (
            ["--plots", tmp_path / "plots"],
            "--plots, --views and --match-names go with the other rules",
        ),
    ):
        code, _, err = run(capsys, *evaluate, *options)
        assert code == 2
        assert said in " ".join(err.split())


@pytest.mark.parametrize("views", ["ten", "scales"])
def test_an_overfeat_votes_on_images_with_labels(capsys, tmp_path, windows, views):
    from kerasdet import data, load
    from kerasdet.voting import accuracy

    code, out, _ = run(
        *(capsys, "evaluate", windows, "--data", ONE_SHAPE, "--views", views),
        *("--scales", "52x64,80", "--json", tmp_path / "r.json"),
    )
    assert code == 0
    opened = load(windows)
    opened.scales = [(52, 64), (80, 80)]
    images = list(data.load_images(ONE_SHAPE).as_numpy_iterator())
    expected = accuracy(lambda image: opened.vote(image, views), images)
    assert f"top1 {expected['top1']:.4f}" in out
    result = json.loads((tmp_path / "r.json").read_text())["evaluation"]
    assert (result["views"], result["metrics"]) == (views, expected)


def test_an_overfeat_on_images_with_labels_says_which_views_there_are(capsys, windows):
    code, _, err = run(capsys, "evaluate", windows, "--data", "folders:some/where")
    assert code == 2
    said = (
        "folders:some/where has a label for each image, and no boxes: say how overfeat is to vote"
    )
    assert f"{said} on them, --views ten or --views scales." in " ".join(err.split())


def test_detect_looks_at_the_scales_and_merges_as_the_shell_says(
    capsys, tmp_path, monkeypatch, windows, model
):
    from kerasdet.detectors.overfeat import OverFeat

    keras.utils.save_img(tmp_path / "it.png", np.zeros((64, 96, 3)), scale=False)
    seen = []

    def detect(self, image, **_):
        seen.append((self.scales, self.merge))
        return [self._named(Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), 0), (1, 1))]

    monkeypatch.setattr(OverFeat, "detect", detect)
    look = ["detect", tmp_path / "it.png", "--output", tmp_path / "drawn"]
    look.insert(1, windows)
    assert run(capsys, *look, "--scales", "52x64, 80", "--merge", "nms")[0] == 0
    assert run(capsys, *look)[0] == 0
    assert seen == [(((52, 64), (80, 80)), "nms"), (((64, 96),), "greedy")]
    for options, said in (
        (["--scales", "40x64"], "windows of 48x48 pixels, and an image of 40x64 has no room"),
        (["--scales", "wide"], "An image size wants a side or HEIGHTxWIDTH"),
        (["--merge", "soft"], "merge wants one of greedy, nms, not 'soft'"),
    ):
        code, _, err = run(capsys, *look, *options)
        assert code == 2
        assert said in err
    look[1] = model
    for options in (["--scales", "64"], ["--merge", "nms"]):
        code, _, err = run(capsys, *look, *options)
        assert code == 2
        assert f"{options[0]} goes with an OverFeat" in err


def test_a_back_end_that_is_not_installed_is_one_sentence(tmp_path):
    """In a process of its own, where importing jax or tensorflow fails as if it were not there."""
    for missing, arguments, said in (
        ("jax", ["bench", "ssd300", "--backend", "jax"], "kerasdet[jax]"),
        (
            "tensorflow",
            ["evaluate", "ssd300", "--data", "shapes", "--backend", "jax"],
            "tensorflow",
        ),
        ("tensorflow", ["train", "ssd300", "--data", "shapes", "--backend", "jax"], "tensorflow"),
        ("tensorflow", ["data", "check", "shapes"], "tensorflow"),
    ):
        code = f"import sys; sys.modules[{missing!r}] = None; from kerasdet import cli; cli.main({arguments})"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert f"this wants {missing}, which is not installed: pip install" in done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_bench_prints_images_a_second(capsys, model):
    code, out, _ = run(capsys, "bench", model, "--batch-sizes", "1,2", "--runs", "2")
    assert code == 0
    assert out.count("images a second") == 2


def test_compress_writes_a_smaller_fast_rcnn(capsys, tmp_path, model):
    whole, smaller = tmp_path / "whole.keras", tmp_path / "small" / "smaller.keras"
    detector = small.fast_rcnn(hidden=(64, 48))
    detector.save(whole)
    code, out, _ = run(capsys, "compress", whole, smaller, "--fc6", "8", "--fc7", "0")
    assert code == 0
    # fc6 reads 3x3 bins of 32 channels: 288 * 64 numbers become 8 * (288 + 64).
    fewer = detector.count_params() - 288 * 64 + 8 * (288 + 64)
    assert f"{fewer:,}. Wrote {smaller}" in out
    assert keras.saving.load_model(smaller).ranks == {"fc6": 8}
    assert list(smaller.parent.iterdir()) == [smaller]

    code, _, err = run(capsys, "compress", model, tmp_path / "ssd.keras")
    assert code == 2
    assert f"Wanted a Fast R-CNN to compress, but {model} is a " in err
