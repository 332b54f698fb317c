"""Training from a recipe: the run folder, resuming, schedules, and what is refused at once."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasdet import runs, training, zoo
from kerasdet.errors import InputError
from kerasdet.training import Recipe
from tests import small
from tests.data.annotation_files import voc_folder, voc_xml

TINY = Path(__file__).with_name("tiny_recipe.py")

pytestmark = pytest.mark.filterwarnings("ignore:.*ran out of data.*:UserWarning")


def metrics(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {k: float(v.replace("NA", "nan")) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    return training.train(runs.read_recipe(TINY), output=output, recipe_file=TINY)


def test_a_run_folder_holds_what_the_design_names(whole_run):
    names = {path.relative_to(whole_run).as_posix() for path in whole_run.rglob("*")}
    assert whole_run.name == "tiny-1"
    assert {
        "config.json",
        "recipe.py",
        "model.json",
        "env.json",
        "metrics.csv",
        "result.json",
        "weights/best.weights.h5",
        "weights/last.weights.h5",
        "plots/metrics.png",
        "tb/train",
        "backup/latest.weights.h5",
    } <= names
    assert not [name for name in names if name.endswith(".part")]


def test_every_epoch_has_a_row_with_each_loss_term_and_the_average_precision(whole_run):
    rows = metrics(whole_run)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    for row in rows:
        parts = row["localization"] + row["confidence"] + row["weight_decay"]
        assert row["loss"] == pytest.approx(parts, rel=1e-5)
        assert 0 <= row["val_AP50"] <= 1


def test_the_result_names_command_machine_seed_and_time(whole_run):
    result = json.loads((whole_run / "result.json").read_text())
    best = max(row["val_AP50"] for row in metrics(whole_run))
    assert result["evaluation"]["metrics"]["AP50"] == pytest.approx(best, abs=1e-6)
    assert result["training"]["seed"] == 0
    assert result["training"]["training_seconds"] > 0
    assert {"command", "commit", "machine", "keras", "backend", "date"} <= set(result["training"])


def test_an_opened_run_is_the_network_with_its_best_weights(whole_run):
    model = runs.open_run(whole_run)
    again = runs.read_recipe(TINY).build(model.class_names)
    again.load_weights(whole_run / "weights" / "best.weights.h5")
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    for name, expected in again(images).items():
        np.testing.assert_array_equal(model(images)[name], expected)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_where_the_best_weights_were_cut_short_the_last_are_opened(
    share, whole_run, tmp_path, capsys
):
    shutil.copytree(whole_run, tmp_path / "run")
    best, last = (tmp_path / "run" / "weights" / f"{n}.weights.h5" for n in ("best", "last"))
    content = best.read_bytes()
    best.write_bytes(content[: int(share * len(content))])
    model = runs.open_run(tmp_path / "run")
    said = capsys.readouterr().err
    assert f"{best} does not hold the weights of tiny" in said
    assert f"{last} is used in its place." in said
    again = runs.read_recipe(TINY).build(model.class_names)
    again.load_weights(last)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    last.unlink()
    with pytest.raises(InputError, match=r"best.weights.h5 does not hold the weights"):
        runs.open_run(tmp_path / "run")


def test_a_resumed_run_ends_with_the_numbers_of_one_that_was_not_interrupted(whole_run, tmp_path):
    interrupted = tmp_path / "tiny-1"
    recipe = training.replaced(runs.read_recipe(TINY), {"epochs": 1})
    # The schedule counts in epochs that pass, not in epochs planned, so one epoch is a true beginning.
    first = training.train(recipe, output=tmp_path, recipe_file=TINY)
    assert first == interrupted
    training.resume(interrupted, epochs=3)
    for row, expected in zip(metrics(interrupted), metrics(whole_run), strict=True):
        assert row == pytest.approx(expected, rel=2e-4, nan_ok=True)
    resumed, straight = runs.open_run(interrupted), runs.open_run(whole_run)
    for one, other in zip(resumed.get_weights(), straight.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_a_finished_run_is_not_resumed_without_more_epochs(whole_run):
    with pytest.raises(InputError, match="has all its 3 epochs"):
        training.resume(whole_run)


@pytest.mark.parametrize(
    "lost", ["config.json", "backup/training_metadata.json", "backup/latest.weights.h5"]
)
def test_a_run_that_lost_a_file_says_which(whole_run, tmp_path, lost):
    run = tmp_path / "run"
    shutil.copytree(whole_run, run)
    (run / lost).unlink()
    for before in (run / "backup").glob("*.bkp"):  # else it goes on from the one before
        before.unlink()
    with pytest.raises(InputError, match=r"config\.json|backup"):
        training.resume(run, epochs=5)


def killed_while_it_wrote(run, folder, *, weights, progress):
    """A copy of a run after its second epoch, killed when so much of the third backup was there."""
    shutil.copytree(run, folder)
    backup = folder / "backup"
    third = {name: (backup / name).read_bytes() for name in runs._BACKUP}
    for name in runs._BACKUP:  # as Keras begins: the second is copied
        shutil.copyfile(backup / f"{name}.bkp", backup / name)
    for name, share in zip(runs._BACKUP, (weights, progress), strict=True):
        if share is not None:
            (backup / name).write_bytes(third[name][: int(share * len(third[name]))])
    return folder


@pytest.mark.parametrize(
    ("weights", "progress"),
    [
        pytest.param(0.9, None, marks=pytest.mark.slow),
        pytest.param(1, None, marks=pytest.mark.slow),
        (1, 0.5),
        pytest.param(1, 0, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_while_its_backup_was_written_goes_on_from_the_one_before(
    whole_run, tmp_path, weights, progress
):
    run = killed_while_it_wrote(whole_run, tmp_path / "run", weights=weights, progress=progress)
    training.resume(run)
    for row, expected in zip(metrics(run), metrics(whole_run), strict=True):
        assert row == pytest.approx(expected, rel=2e-4, nan_ok=True)


def test_a_backup_written_to_its_end_counts(whole_run, tmp_path):
    run = killed_while_it_wrote(whole_run, tmp_path / "run", weights=1, progress=1)
    with pytest.raises(InputError, match="has all its 3 epochs"):
        training.resume(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="run folder"):
        training.resume(tmp_path)
    with pytest.raises(InputError, match="run folder"):
        runs.open_run(tmp_path)


def test_a_damaged_settings_file_is_one_sentence(whole_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole_run, run)
    (run / "config.json").write_text('{"epochs": ')
    with pytest.raises(InputError, match="cannot be read"):
        training.resume(run, epochs=5)


def test_images_there_is_no_memory_for_leave_no_run_folder(tmp_path):
    recipe = training.Recipe(
        model=lambda class_names: small.overfeat(class_names=class_names),
        train="shapes:train?count=2&size=64",
        batch_size=2,
        image_size=600_000,
    )
    with pytest.raises(
        InputError, match="overfeat on 2 images of 600000x600000 pixels wants about"
    ):
        training.train(recipe, output=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_data_leaves_no_run_folder(tmp_path):
    recipe = training.replaced(runs.read_recipe(TINY), {"train": "voc:nowhere:train"})
    with pytest.raises(InputError, match="nowhere"):
        training.train(recipe, output=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_is_wrong_with_the_data_is_said_before_training_and_what_came_up_after_it(
    tmp_path, capsys, caplog
):
    good, flat = ("dog", 5, 9, 41, 50), ("dog", 8, 8, 8, 20)
    annotations = {stem: voc_xml([good], (64, 64)) for stem in "abcde"}
    annotations["a"] = voc_xml([good, flat, flat], (64, 64))
    folder = voc_folder(tmp_path / "my d", annotations, {"t": "abcd", "v": "de"}, size=(64, 64))
    for stem in "ce":
        image = folder / "JPEGImages" / f"{stem}.png"
        image.write_bytes(image.read_bytes()[:60])
    recipe = dataclasses.replace(
        runs.read_recipe(TINY),
        **{"train": f"voc:{folder}:t", "val": f"voc:{folder}:v", "epochs": 2, "batch_size": 2},
    )
    training.train(recipe, output=tmp_path / "runs")
    before, _, after = capsys.readouterr().out.partition("Epoch 1/2")
    listed = f"; `kerasdet data check 'voc:{folder}:%s'` lists them\n"
    assert before == f"train: 2 annotations left out{listed % 't'}"
    # "train" once, although two epochs met the image; and the flat boxes not again.
    assert after.count("annotations") == 0
    assert after.count(f"train: 1 image that cannot be read (c.png){listed % 't'}") == 1
    assert after.count(f"val: 1 image that cannot be read (e.png){listed % 'v'}") == 1
    assert not [r for r in caplog.records if "unreadable" in r.message], "they break the bar"


def truncated_photos(root):
    folder = voc_folder(
        root,
        {stem: voc_xml([("dog", 5, 9, 41, 50)], (64, 64)) for stem in "ab"},
        {"t": "ab"},
        (64, 64),
    )
    for image in (folder / "JPEGImages").iterdir():
        image.write_bytes(image.read_bytes()[:60])
    return folder


@pytest.mark.parametrize("broken", ["train", "val"])
def test_data_of_which_no_image_can_be_read_is_refused_before_anything_is_written(tmp_path, broken):
    folder = truncated_photos(tmp_path / "d")
    recipe = training.replaced(runs.read_recipe(TINY), {broken: f"voc:{folder}:t"})
    with pytest.raises(
        InputError, match=r"None of the images of voc:.* can be read, the first .*a\.png"
    ):
        training.train(recipe, output=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_val_data_in_which_nothing_counts_is_refused_before_an_epoch_is_trained(tmp_path):
    xml = voc_xml([("dog", 5, 9, 41, 50)], (64, 64))
    xml = xml.replace("<difficult>0</difficult>", "<difficult>1</difficult>")
    assert "<difficult>1" in xml
    folder = voc_folder(tmp_path / "d", {"a": xml}, {"v": "a"}, size=(64, 64))
    recipe = training.replaced(runs.read_recipe(TINY), {"val": f"voc:{folder}:v"})
    with pytest.raises(InputError, match=r"No image of voc:.* has an object to find"):
        training.train(recipe, output=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_of_good_data_nothing_is_said(tmp_path, capsys):
    recipe = dataclasses.replace(runs.read_recipe(TINY), epochs=1, val=None)
    training.train(recipe, output=tmp_path)
    assert "train:" not in capsys.readouterr().out


def test_classes_of_val_that_differ_are_both_printed(tmp_path):
    (tmp_path / "names.txt").write_text("ball\nbox\ntip\nsun\nplus\n")
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    image = np.full((64, 64, 3), 90, "uint8")
    keras.utils.save_img(tmp_path / "images" / "a.png", image)
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    recipe = training.replaced(
        runs.read_recipe(TINY),
        {"val": f"yolo:{tmp_path}/images,{tmp_path}/labels?names={tmp_path}/names.txt"},
    )
    with pytest.raises(InputError, match="ball") as error:
        training.train(recipe, output=tmp_path / "runs")
    assert "triangle" in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_recipe_that_wants_a_data_folder_asks_for_it():
    recipe = Recipe(model="ssd300", train="voc:{data_dir}/VOC2007:trainval")
    with pytest.raises(InputError, match="--data-dir"):
        training.train(recipe)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"optimizer": "sdg"}, "optimizer wants"),
        ({"schedule": "linear"}, "schedule wants"),
        ({"precision": "float8"}, "precision wants"),
        ({"rule": "voc12"}, "rule wants"),
        ({"epochs": 0}, "epochs wants"),
        ({"learning_rate": float("nan")}, "learning_rate wants"),
        ({"learning_rate": -1.0}, "learning_rate wants"),
    ],
)
def test_a_setting_out_of_range_is_named(setting, said):
    with pytest.raises(InputError, match=said):
        Recipe(model="ssd300", train="shapes", **setting)


def test_a_run_starts_from_anothers_best_weights(whole_run, tmp_path, capsys):
    """A rate of next to nothing leaves them where they were."""
    recipe = training.replaced(
        runs.read_recipe(TINY),
        {
            "start_from": "{data_dir}/tiny-1",
            "train": "shapes:train?count=8&size=64&objects=2",
            "val": None,
            "epochs": 1,
            "learning_rate": 1e-30,
            "milestones": (),
        },
    )
    run = training.train(recipe, output=tmp_path, data_dir=whole_run.parent)
    pairs = zip(*(runs.open_run(each).trainable_weights for each in (run, whole_run)), strict=True)
    for now, then in pairs:
        np.testing.assert_allclose(np.asarray(now), np.asarray(then), atol=1e-20)
    assert f"Started from {whole_run}; afresh: nothing." in capsys.readouterr().out


def test_layers_for_other_classes_start_afresh(whole_run, tmp_path, capsys):
    recipe = training.replaced(
        runs.read_recipe(TINY),
        {
            "start_from": str(whole_run),
            "train": "shapes:train?count=8&size=64&classes=star,cross",
            "val": None,
            "epochs": 1,
            "learning_rate": 1e-30,
            "milestones": (),
        },
    )
    run = training.train(recipe, output=tmp_path)
    said = capsys.readouterr().out
    assert "afresh: fine_mbox_conf, coarse_mbox_conf." in said
    old, new = (runs.open_run(each).get_layer("fine_mbox_loc") for each in (whole_run, run))
    np.testing.assert_array_equal(np.asarray(new.kernel), np.asarray(old.kernel))


def test_a_run_to_start_from_takes_the_place_of_published_weights():
    """Which are not looked for, and here could not be found."""
    recipe = Recipe(
        model="darknet19", train="shapes", pretrained="no/such.weights", start_from="runs/first"
    )
    assert recipe.build(["a", "b", "c"]).num_classes == 3


def test_a_function_is_given_pretrained_where_it_takes_it():
    """Nothing is looked for where a run is started from; there is no download of that name."""

    def darknet(class_names, pretrained):
        return zoo.darknet19(class_names=class_names, pretrained=pretrained)

    recipe = Recipe(model=darknet, train="shapes", pretrained="no/such.weights")
    with pytest.raises(InputError, match=r"no/such\.weights"):
        recipe.build(["a", "b"])
    started = training.replaced(recipe, {"start_from": "runs/first"})
    assert started.build(["a", "b"]).num_classes == 2
    with pytest.raises(InputError, match="a parameter of that name, which tiny has not"):
        training.replaced(runs.read_recipe(TINY), {"pretrained": "imagenet"})


def test_what_a_run_cannot_start_from_is_refused_before_anything_is_written(tmp_path):
    recipe = training.replaced(runs.read_recipe(TINY), {"start_from": str(tmp_path / "none")})
    with pytest.raises(InputError, match="none"):
        training.train(recipe, output=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_two_runs_at_once_get_two_folders(tmp_path):
    model = runs.read_recipe(TINY).build(["a", "b"])
    assert [runs.create(tmp_path, "tiny", model).name for _ in range(3)] == [
        "tiny-1",
        "tiny-2",
        "tiny-3",
    ]
    (tmp_path / "tiny-7").mkdir()
    assert runs.create(tmp_path, "tiny", model).name == "tiny-8"


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_leaves_the_process_in_float32(precision, tmp_path):
    recipe = training.replaced(
        runs.read_recipe(TINY), {"precision": precision, "epochs": 1, "val": None}
    )
    run = training.train(recipe, output=tmp_path, recipe_file=TINY)
    (row,) = metrics(run)
    assert np.isfinite(row["loss"])
    assert keras.config.dtype_policy().name == "float32"
