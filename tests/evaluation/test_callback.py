import csv
import math

import keras
import numpy as np
import pytest

from kerasdet.errors import InputError
from kerasdet.evaluation import MeanAveragePrecision

HERE = [5, 5, 25, 25]
NAMES = ["cat", "dog"]


class Learner(keras.Sequential):
    """A network whose detections get better with the number of epochs it has been through."""

    class_names = NAMES
    quality = (0.0, 0.5, 1.0, 0.5, 0.0, 0.0)  # recall by epoch
    seen = 0
    calls = 0

    def detect(self, images, **settings):
        from types import SimpleNamespace

        Learner.calls += 1
        share = self.quality[self.seen]
        found = []
        for image in images:
            count = int(image[0, 0, 0] < 4 * share)
            found.append(
                SimpleNamespace(
                    boxes=np.array([HERE] * count, np.float32).reshape(-1, 4),
                    scores=np.full(count, 0.9, np.float32),
                    labels=np.zeros(count, np.int32),
                )
            )
        return found


class Count(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.seen = epoch


@pytest.fixture
def train(rote):
    """Trains six epochs on nothing; four images with one object each are evaluated."""

    def run(*callbacks, make=None, epochs=6, **options):
        model = Learner([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        Learner.calls = 0
        examples = [rote.example(i, boxes=[HERE], labels=[0]) for i in range(4)]
        measure = MeanAveragePrecision(examples, batch_size=4, **options)
        history = model.fit(
            np.ones((2, 1)), np.ones((2, 1)), epochs=epochs, verbose=0,
            callbacks=[Count(), measure, *callbacks],
        )  # fmt: skip
        return history.history, measure

    return run


def test_numbers_reach_history_and_the_callbacks_after_it(train, tmp_path):
    checkpoint = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "{epoch}.weights.h5"), monitor="val_AP50", mode="max",
        save_best_only=True, save_weights_only=True,
    )  # fmt: skip
    history, measure = train(checkpoint, keras.callbacks.CSVLogger(tmp_path / "log.csv"))
    assert history["val_AP50"] == pytest.approx([0, 0.5, 1, 0.5, 0, 0])
    assert sorted(file.name for file in tmp_path.glob("*.h5")) == [
        "1.weights.h5", "2.weights.h5", "3.weights.h5",
    ]  # fmt: skip
    with open(tmp_path / "log.csv") as file:
        told = [float(row["val_AP50"]) for row in csv.DictReader(file)]
    assert told == pytest.approx([0, 0.5, 1, 0.5, 0, 0])
    assert measure.evaluation.metrics == {"AP50": 0.0}


def test_epochs_left_out_are_nan_in_the_same_column(train, tmp_path):
    checkpoint = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "{epoch}.weights.h5"), monitor="val_AP50", mode="max",
        save_best_only=True, save_weights_only=True,
    )  # fmt: skip
    history, _ = train(checkpoint, keras.callbacks.CSVLogger(tmp_path / "log.csv"), every=2)
    # The first, then every second, then the last.
    np.testing.assert_allclose(history["val_AP50"], [0, 0.5, math.nan, 0.5, math.nan, 0])
    assert Learner.calls == 4
    assert sorted(file.name for file in tmp_path.glob("*.h5")) == ["1.weights.h5", "2.weights.h5"]
    with open(tmp_path / "log.csv") as file:
        assert [row["val_AP50"] for row in csv.DictReader(file)][2] == "nan"


def test_the_last_epoch_is_always_evaluated(train):
    history, _ = train(every=100, epochs=3)
    np.testing.assert_allclose(history["val_AP50"], [0, math.nan, 1])


def test_early_stopping_sees_progress_after_epochs_left_out(train):
    stop = keras.callbacks.EarlyStopping(monitor="val_AP50", mode="max", patience=3)
    history, _ = train(stop, every=2)
    assert stop.best == pytest.approx(0.5)
    assert len(history["val_AP50"]) == 5  # best at the second epoch, then three without progress


def test_coco_logs_its_three_numbers_with_a_prefix(train):
    history, _ = train(rule="coco", prefix="test_", epochs=2)
    assert {"test_AP", "test_AP50", "test_AP75"} <= set(history)
    assert history["test_AP"] == pytest.approx([0, 51 / 101])


def test_max_images_limits_what_is_looked_at(train):
    history, measure = train(max_images=2, epochs=2)
    assert len(measure.evaluation.images) == 2
    assert history["val_AP50"] == pytest.approx([0, 1])


def test_other_classes_stop_the_fit_before_it_trains(train):
    with pytest.raises(InputError, match="does not know 'fish'"):
        train(class_names=["cat", "fish"])
    assert Learner.calls == 0


def test_odd_arguments_are_refused():
    with pytest.raises(InputError, match="voc10, voc07, coco"):
        MeanAveragePrecision([], rule="map")
    with pytest.raises(InputError, match="at least 1: 0"):
        MeanAveragePrecision([], every=0)
