"""Keras' own weight files: whole, or one sentence about why not."""

import shutil

import pytest

from kerasdet import runs
from kerasdet.errors import InputError
from kerasdet.opening import load
from kerasdet.weights import keras_file
from tests import small


def test_weights_of_another_network_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "other.weights.h5"
    small.overfeat().save_weights(path)
    with pytest.raises(InputError, match=r"does not hold the weights of ssd\w* with 3") as caught:
        keras_file.load(small.ssd(), path)
    assert len(str(caught.value)) < 500
    with pytest.raises(InputError, match="there is no"):
        keras_file.load(small.ssd(), tmp_path / "nowhere.weights.h5")


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    model = small.ssd()
    model.save(tmp_path / "it.keras")
    model.save_weights(tmp_path / "it.weights.h5")
    for name in ("it.keras", "it.weights.h5"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"it\.weights\.h5 does not hold"):
        keras_file.load(model, tmp_path / "it.weights.h5")
    with pytest.raises(InputError, match=r"Wanted a model saved as .*it\.keras cannot"):
        load(tmp_path / "it.keras")


def test_a_saved_model_and_a_run_load_as_they_were(tmp_path):
    model = small.ssd()
    model.save(tmp_path / "it.keras")
    run = runs.create(tmp_path, "ssd", model)
    model.save_weights(run / "weights" / "last.weights.h5")
    for again in (load(tmp_path / "it.keras"), load(run)):
        assert again.class_names == model.class_names
        for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
            assert (mine == theirs).all()
    with pytest.raises(InputError, match="nothing at"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ['{"a": 1}', '{"class_name": "Dense", "config": {}}', "[]"])
def test_a_run_whose_network_is_none_is_refused(tmp_path, content):
    run = runs.create(tmp_path, "ssd", small.ssd())
    (run / "model.json").write_text(content)
    with pytest.raises(InputError, match=r"model\.json"):
        runs.open_run(run)


def test_a_backup_cut_short_or_a_table_without_epochs_does_not_resume(tmp_path):
    model = small.ssd()
    model.compile()
    model.optimizer.build(model.trainable_variables)
    run = runs.create(tmp_path, "ssd", model)
    (run / "backup" / "training_metadata.json").write_text('{"epoch": 1}')
    model.save_weights(run / "backup" / "latest.weights.h5")
    assert runs.epochs_done(run) == 1
    whole = (run / "backup" / "latest.weights.h5").read_bytes()
    (run / "backup" / "latest.weights.h5").write_bytes(whole[:-500])
    with pytest.raises(InputError, match="not whole"):
        runs.epochs_done(run)
    (run / "metrics.csv").write_text("0,1.5,2.5\n1,1.5,2.5\n")
    with pytest.raises(InputError, match=r"metrics\.csv wants a column 'epoch'"):
        runs.cut_metrics(run, 1)
    shutil.rmtree(run)
