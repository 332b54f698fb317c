import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdet.errors import InputError
from kerasdet.evaluation import DetectionImages

HERE, THERE = [5, 5, 25, 25], [30, 10, 50, 30]


def written(folder):
    """(tag, step, picture) of everything in the event files."""
    found = []
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset([str(file)]):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                png = tf.make_ndarray(value.tensor)[2]
                found.append((value.tag, event.step, tf.io.decode_png(png, channels=3).numpy()))
    return found


def train(rote, callback, epochs):
    rote_model = rote.RoteModel({0: [(HERE, 0.9, 1)], 1: [(THERE, 0.8, 2)], 2: []})
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.detect, model.class_names = rote_model.detect, rote_model.class_names
    model.fit(np.ones((2, 1)), np.ones((2, 1)), epochs=epochs, verbose=0, callbacks=[callback])
    return rote_model


def needs_tensorboard():
    pytest.importorskip("tensorboard", reason="tf.summary.image is in the package tensorboard")


def test_truth_and_detections_stand_side_by_side_each_epoch(rote, tmp_path):
    needs_tensorboard()
    examples = [
        rote.example(0, boxes=[HERE], labels=[1]),
        rote.example(1, boxes=[HERE], labels=[2], size=(50, 70)),
        rote.example(2, boxes=[HERE], labels=[0]),
    ]
    model = train(rote, DetectionImages(rote.data_set(examples), tmp_path, count=2), epochs=3)
    found = written(tmp_path)
    assert [(tag, step) for tag, step, _ in found] == [
        (f"detections/image-{i}", epoch) for epoch in range(3) for i in range(2)
    ]
    assert all(settings == {"score_threshold": 0.3} for _, settings in model.calls)
    picture = found[1][2]  # of image 1: truth at HERE on the left, detection at THERE on the right
    height, width, gap = 50, 70, 4
    assert picture.shape == (height + 2 * gap, 2 * width + 3 * gap, 3)
    left = picture[gap : gap + height, gap : gap + width]
    right = picture[gap : gap + height, 2 * gap + width : 2 * gap + 2 * width]
    grey = [200, 200, 200]
    assert (left[24, 15] != grey).any()  # the lower edge of HERE
    assert (left[29, 40] == grey).all()
    assert (right[24, 15] == grey).all()
    assert (right[29, 40] != grey).any()  # the lower edge of THERE


def test_first_every_and_last_epoch_are_drawn(rote, tmp_path):
    needs_tensorboard()
    train(rote, DetectionImages([rote.example(0)], tmp_path, every=3), epochs=5)
    assert [step for _, step, _ in written(tmp_path)] == [0, 2, 4]


def test_odd_arguments_are_refused(tmp_path):
    with pytest.raises(InputError, match="at least 1: 0 and 1"):
        DetectionImages([], tmp_path, count=0)


def test_missing_tensorboard_is_said_before_training(rote, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install tensorboard"):
        train(rote, DetectionImages([rote.example(0)], tmp_path), epochs=1)
    assert not list(tmp_path.iterdir())
