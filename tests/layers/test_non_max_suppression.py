import keras
import numpy as np
from keras import ops

from kerasdet.layers import NonMaxSuppression
from kerasdet.suppression import non_max_suppression
from tests import backend

OPTIONS = {"score_threshold": 0.2, "iou_threshold": 0.3, "max_per_class": 9, "max_detections": 6}


def case(rng):
    corner, size = rng.integers(0, 30, (3, 20, 2)), rng.integers(5, 20, (3, 20, 2))
    return (
        np.concatenate([corner, corner + size], -1).astype("float32"),
        rng.random((3, 20, 2)).astype("float32"),
    )


def model():
    boxes, scores = keras.Input((20, 4)), keras.Input((20, 2))
    found = NonMaxSuppression(**OPTIONS)(boxes, scores)
    outputs = {
        "boxes": found.boxes,
        "scores": found.scores,
        "labels": found.labels,
        "count": found.count,
    }
    return keras.Model([boxes, scores], outputs)


def test_in_a_functional_model_it_is_the_function_before_and_after_saving(rng, tmp_path):
    boxes, scores = case(rng)
    expected = backend.call(non_max_suppression, boxes, scores, **OPTIONS)
    saved = model()
    saved.save(tmp_path / "nms.keras")
    for network in (saved, keras.saving.load_model(tmp_path / "nms.keras")):
        found = network.predict([boxes, scores], verbose=0)
        for name, value in expected._asdict().items():
            np.testing.assert_array_equal(
                ops.convert_to_numpy(found[name]), ops.convert_to_numpy(value)
            )


def test_the_symbolic_outputs_have_the_shapes_and_types_of_the_real_ones(rng):
    network = model()
    found = network.predict(list(case(rng)), verbose=0)
    for name, symbol in network.output.items():
        assert symbol.shape[1:] == found[name].shape[1:], name
        assert symbol.dtype == keras.backend.standardize_dtype(found[name].dtype), name


def test_config_keeps_every_argument():
    revived = NonMaxSuppression.from_config(NonMaxSuppression(**OPTIONS, name="nms").get_config())
    assert {name: getattr(revived, name) for name in OPTIONS} == OPTIONS
    assert revived.name == "nms"


def test_half_precision_policy_does_not_move_boxes_by_pixels(rng):
    """Above 2048 float16 knows even numbers only."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = NonMaxSuppression(max_detections=1)
    finally:
        keras.config.set_dtype_policy("float32")
    found = layer(np.array([[(2049, 3001, 2999, 3333)]], "float32"), np.array([[[0.5]]], "float32"))
    assert ops.convert_to_numpy(found.boxes).tolist() == [[[2049, 3001, 2999, 3333]]]
