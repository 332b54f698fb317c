"""SSD's own parts: its targets, loss, decoding, output order, backbones and saving."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet import SSD
from kerasdet.errors import InputError
from tests import oracles, small


@pytest.fixture(scope="module")
def ssd():
    return small.ssd()


def numpy(values):
    return {name: ops.convert_to_numpy(value) for name, value in values.items()}


# ---------------------------------------------------------------------- targets


def test_targets_equal_the_loops(ssd):
    """Class 0 for background, else label + 1; offsets of the matched object."""
    _, targets = small.four_images()
    assigned = numpy(ssd.assign(targets))
    boxes, labels = targets["boxes"], targets["labels"]
    for image in range(4):
        owners = oracles.match(ssd.default_boxes, boxes[image], labels[image])
        expected = [0 if owner == -1 else labels[image, owner] + 1 for owner in owners]
        assert assigned["classes"][image].tolist() == expected
        for anchor, owner in enumerate(owners):
            if owner != -1:
                code = oracles.encode(boxes[image, owner], ssd.default_boxes[anchor])
                np.testing.assert_allclose(
                    assigned["boxes"][image, anchor], code, rtol=1e-4, atol=1e-4
                )
    assert (assigned["classes"] > 0).sum(axis=1).min() >= 1
    assert np.isfinite(assigned["boxes"]).all()


def test_padding_may_stand_anywhere_and_hold_anything(ssd):
    _, targets = small.four_images()
    expected = numpy(ssd.assign(targets))
    rubbish = np.full((4, 1, 4), 7.0, "float32")
    padded = {
        "boxes": np.concatenate([rubbish, targets["boxes"][:, ::-1], rubbish], axis=1),
        "labels": np.pad(targets["labels"][:, ::-1], ((0, 0), (1, 1)), constant_values=-1),
    }
    found = numpy(ssd.assign(padded))
    np.testing.assert_array_equal(found["classes"], expected["classes"])
    matched = expected["classes"] > 0
    np.testing.assert_allclose(found["boxes"][matched], expected["boxes"][matched])


def test_a_batch_without_a_single_row_is_all_background(ssd):
    empty = {"boxes": np.zeros((2, 0, 4), "float32"), "labels": np.zeros((2, 0), "int32")}
    assigned = numpy(ssd.assign(empty))
    assert assigned["classes"].shape == (2, 504)
    assert not assigned["classes"].any()
    assert np.isfinite(assigned["boxes"]).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX knows every shape")
def test_the_number_of_rows_may_change_from_batch_to_batch(ssd):
    import tensorflow as tf

    assign = tf.function(
        lambda boxes, labels: ssd.assign({"boxes": boxes, "labels": labels}),
        [tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), tf.int32)],
    )
    _, targets = small.four_images()
    for rows in (3, 2, 0):
        boxes, labels = targets["boxes"][:, :rows], targets["labels"][:, :rows]
        expected = numpy(ssd.assign({"boxes": boxes, "labels": labels}))
        found = numpy(assign(boxes, labels))
        np.testing.assert_array_equal(found["classes"], expected["classes"])


# ---------------------------------------------------------------------- loss


def test_an_untrained_networks_loss_is_the_papers_sum_by_loops(ssd):
    images, targets = small.four_images()
    outputs, assigned = numpy(ssd(images)), numpy(ssd.assign(targets))
    expected = oracles.multibox(
        outputs["boxes"], outputs["classes"], assigned["boxes"], assigned["classes"]
    )
    terms = ssd.loss_terms(outputs, assigned)
    assert list(terms) == ["localization", "confidence"]
    assert [float(value) for value in terms.values()] == pytest.approx(expected, rel=1e-4)


def test_a_network_that_says_nothing_pays_ln_4_four_times():
    """All logits 0: one positive and three negatives each cost ln(3 classes + background)."""
    images, targets = small.four_images()
    ssd = small.plain_ssd()
    for layer in ssd.layers:
        if "_mbox_" in layer.name and layer.weights:
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    ssd.compile("sgd")
    logs = ssd.evaluate(images, targets, verbose=0, return_dict=True)
    assert logs["confidence"] == pytest.approx((1 + 3) * math.log(4), rel=1e-5)
    assigned = numpy(ssd.assign(targets))
    errors = np.abs(assigned["boxes"][assigned["classes"] > 0]).astype("float64")
    smooth = np.where(errors < 1, errors**2 / 2, errors - 0.5)
    assert logs["localization"] == pytest.approx(smooth.sum() / len(errors), rel=1e-4)


# ---------------------------------------------------------------------- decode


def raw(ssd, rows):
    """Outputs for one image that say background, but for the given {anchor: (class, offsets)}."""
    classes = np.zeros((1, len(ssd.default_boxes), ssd.num_classes + 1), "float32")
    classes[..., 0] = 20
    boxes = np.zeros((1, len(ssd.default_boxes), 4), "float32")
    for anchor, (label, offsets) in rows.items():
        classes[0, anchor, label + 1] = 20 + math.log(3)  # odds 3 : 1, so 0.75
        boxes[0, anchor] = offsets
    return {"boxes": boxes, "classes": classes}


def decoded(ssd, rows, **options):
    found = ssd.decode(raw(ssd, rows), **options)
    n = int(found.count[0])
    return [ops.convert_to_numpy(value)[0][:n] for value in found[:3]]


def test_decode_by_hand(ssd):
    """Cell (3, 5) of the first map: its square of 12 pixels around (5.5 * 8, 3.5 * 8)."""
    anchor = (3 * 12 + 5) * 4
    boxes, scores, labels = decoded(ssd, {anchor: (2, [5, -5, 0, 5 * math.log(1.5)])})
    # Centre (44 + 0.5 * 12, 28 - 0.5 * 12); size (12, 18).
    np.testing.assert_allclose(boxes, [[50 - 6, 22 - 9, 50 + 6, 22 + 9]], rtol=1e-5)
    np.testing.assert_allclose(scores, [0.75], rtol=1e-5)
    assert labels.tolist() == [2]


def test_boxes_are_cut_at_the_networks_edges(ssd):
    boxes, _, _ = decoded(ssd, {0: (1, [0, 0, 20, 20])})
    # 12 * e**4 = 655 pixels around (4, 4): more than the whole 96 x 64.
    assert boxes.tolist() == [[0, 0, 96, 64]]


def test_equal_boxes_are_suppressed_within_a_class_alone(ssd):
    """Two neighbours, moved onto the same place."""
    left, right = 0, 4
    step = 8 / 12 / 0.1
    rows = {left: (1, [step, 0, 0, 0]), right: (1, [0, 0, 0, 0])}
    assert len(decoded(ssd, rows)[0]) == 1
    rows[left] = (2, rows[left][1])
    assert decoded(ssd, rows)[2].tolist() == [1, 2]


def test_the_releases_thresholds_are_the_defaults(ssd):
    """0.01, 0.45, 400 of a class and 200 in all."""
    keras.utils.set_random_seed(4)
    images = small.four_images().images
    outputs = numpy(ssd(images))
    found = ssd.decode(outputs)
    logits = outputs["classes"] - outputs["classes"].max(-1, keepdims=True)
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    from kerasdet import boxes as box_ops

    boxes = ops.convert_to_numpy(
        box_ops.clip(box_ops.decode(outputs["boxes"], ssd.default_boxes), 64, 96)
    )
    expected = [s for s, _, _ in oracles.suppress(boxes[0], scores[0, :, 1:].astype("float32"))]
    assert len(expected) == 200
    np.testing.assert_allclose(ops.convert_to_numpy(found.scores)[0], expected, rtol=1e-4)
    assert found.boxes.shape == (4, 200, 4)
    assert ssd.decode(outputs, max_detections=3).scores.shape == (4, 3)


# ---------------------------------------------------------------------- order of the outputs


@pytest.mark.parametrize(
    ("source", "first", "cells", "per_cell"),
    [("fine", 0, (8, 12), 4), ("coarse", 384, (4, 6), 4), ("extra1_2", 480, (2, 3), 4)],
)
def test_a_heads_channels_and_cells_land_on_their_default_boxes(source, first, cells, per_cell):
    """A bias on one channel, and one lit cell of the map, come out where their default box stands."""
    ssd = small.ssd()
    for name in ("fine", "coarse", "extra1_2"):
        for kind in ("loc", "conf"):
            layer = ssd.get_layer(f"{name}_mbox_{kind}")
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    box, number, label = 2, 3, 1
    loc, conf = (ssd.get_layer(f"{source}_mbox_{kind}") for kind in ("loc", "conf"))
    bias = np.zeros(per_cell * 4, "float32")
    bias[box * 4 + number] = 5
    loc.bias.assign(bias)
    bias = np.zeros(per_cell * 4, "float32")
    bias[box * 4 + 1 + label] = 7
    conf.bias.assign(bias)
    outputs = numpy(ssd(np.zeros((1, 64, 96, 3), "float32")))
    rows = first + np.arange(cells[0] * cells[1]) * per_cell + box
    expected = np.zeros((504, 4))
    expected[rows, number] = 5
    np.testing.assert_array_equal(outputs["boxes"][0], expected)
    expected = np.zeros((504, 4))
    expected[rows, 1 + label] = 7
    np.testing.assert_array_equal(outputs["classes"][0], expected)
    # The cells themselves: row by row, as the default boxes' centres say.
    centres = (ssd.default_boxes[rows, :2] + ssd.default_boxes[rows, 2:]) / 2
    x, y = np.meshgrid(
        (np.arange(cells[1]) + 0.5) * 96 / cells[1], (np.arange(cells[0]) + 0.5) * 64 / cells[0]
    )
    np.testing.assert_allclose(centres, np.stack([x.ravel(), y.ravel()], axis=1), atol=1e-4)


def test_a_bright_spot_moves_the_outputs_of_the_boxes_around_it(ssd):
    """Pixels near (x 76, y 20) reach the first map's boxes there, and none across the image."""
    image = np.full((1, 64, 96, 3), 127.5, "float32")
    lit = image.copy()
    lit[0, 18:22, 74:78] = 255
    moved = np.abs(numpy(ssd(lit))["boxes"] - numpy(ssd(image))["boxes"])[0].sum(-1)
    centres = (ssd.default_boxes[:384, :2] + ssd.default_boxes[:384, 2:]) / 2
    x, y = (centres[moved[:384] > 1e-6].min(0) + centres[moved[:384] > 1e-6].max(0)) / 2
    assert abs(x - 76) <= 8
    assert abs(y - 20) <= 8
    assert (moved[:384] > 1e-6).mean() < 0.4


# ---------------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [(0 - 127.5) / 127.5, (100 - 127.5) / 127.5, (255 - 127.5) / 127.5]),
        ({"mean": 10, "scale": 0.5}, [(0 - 10) * 0.5, (100 - 10) * 0.5, (255 - 10) * 0.5]),
        ({"mean": (1, 2, 3), "scale": 2}, [(0 - 1) * 2, (100 - 2) * 2, (255 - 3) * 2]),
    ],
)
def test_the_mean_is_subtracted_and_then_the_scale_multiplied(arguments, expected):
    ssd = small.plain_ssd(**arguments)
    pixel = np.array([[[[0, 100, 255]]]], "float32")
    found = ops.convert_to_numpy(ssd.get_layer("normalize")(pixel))
    np.testing.assert_allclose(found, [[[expected]]], rtol=1e-5)


# ---------------------------------------------------------------------- backbones


def test_layers_of_the_backbone_that_lead_to_no_head_are_not_the_detectors():
    names = {variable.path for variable in small.ssd().variables}
    assert not [name for name in names if "unused" in name]


def test_the_backbones_weights_are_used_as_they_are():
    own = small.backbone()
    ssd = small.ssd(backbone=own)
    kernel = ssd.get_layer("backbone").get_layer("fine_conv").kernel
    assert kernel is own.get_layer("fine_conv").kernel


def test_extra_maps_halve_the_last_one_until_there_are_enough_sizes():
    ssd = small.ssd(box_sizes=(12, 24, 48, 64, 80))
    sides = [
        ssd.get_layer(f"{name}_mbox_loc").output.shape[1:3] for name in ("extra1_2", "extra2_2")
    ]
    assert sides == [(2, 3), (1, 2)]
    assert (
        len(ssd.default_boxes) == 96 * 4 + 24 * 6 + 6 * 4 + 2 * 4
    )  # ratio 3 on the second of four


def test_sizes_left_out_are_the_papers_formula():
    """Maps of 8x12, 4x6, 2x3, 1x2 and 1x1; then nothing is left to halve. 0.1, 0.2 ... 0.9 of 64."""
    ssd = small.ssd(box_sizes=None)
    assert len(ssd.default_boxes) == 96 * 4 + 24 * 6 + 6 * 6 + 2 * 4 + 1 * 4
    width = ssd.default_boxes[:, 2] - ssd.default_boxes[:, 0]
    firsts = [0, 384, 528, 564, 572]
    expected = [64 * s for s in (0.1, 0.2, 0.2 + 0.7 / 3, 0.2 + 1.4 / 3, 0.9)]
    np.testing.assert_allclose(width[firsts], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"feature_layers": None}, "feature_layers"),
        ({"feature_layers": ["fine", "nowhere"]}, "unknown: ['nowhere']"),
        ({"feature_layers": ["a", "b", "fine", "coarse"]}, "1 to 3 names"),
        ({"backbone": "vgg19"}, "vgg19"),
        ({"backbone": None}, "None"),
        ({"box_sizes": (12, 24, -3, 80)}, "positive"),
        ({"box_ratios": [(2,), (2,)]}, "3 feature maps want 3 lists of ratios"),
        ({"num_classes": 4}, "num_classes=4"),
        ({"class_names": []}, "class_names"),
        ({"class_names": None}, "num_classes or class_names"),
        ({"class_names": None, "num_classes": 0}, "num_classes=0"),
        ({"backbone": "vgg16", "feature_layers": None, "box_sizes": None}, "300 or 512, not 64x96"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_sentence(arguments, words):
    with pytest.raises(InputError) as caught:
        small.ssd(**arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_classes_without_names_are_numbered():
    ssd = small.ssd(class_names=None, num_classes=2)
    assert ssd.class_names == ["class 0", "class 1"]
    assert ssd.num_classes == 2


def test_the_image_size_left_out_is_the_backbones():
    """Lopsided as it is; 300 where it takes any, and for VGG."""
    ssd = small.ssd(image_size=None)
    assert ssd.image_size == (64, 96)
    assert ssd.input_shape == (None, 64, 96, 3)
    anything = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=32, padding="same", name="b")(anything)
    free = SSD(2, backbone=keras.Model(anything, x), feature_layers=["b"], box_sizes=(20, 60))
    assert free.image_size == (300, 300)
    assert len(free.default_boxes) == 10 * 10 * 4  # 300 / 32, rounded up


# ---------------------------------------------------------------------- saving


def test_config_keeps_every_argument():
    arguments = {
        "class_names": ["a", "b"],
        "feature_layers": ["b", "coarse"],
        "image_size": (32, 64),
        "box_sizes": (5, 11, 23, 61),
        "box_ratios": ((3,), (), (2, 5)),
        "clamp_sizes": True,
        "clamp_centres": True,
        "mean": (1.0, 2.0, 3.0),
        "scale": 0.25,
        "name": "tiny",
    }
    inputs = keras.Input((32, 64, 3))
    x = layers.Conv2D(4, 3, strides=4, padding="same", name="b")(inputs)
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="coarse")(x)
    made = SSD(backbone=keras.Model(inputs, x, name="two"), **arguments)
    revived = SSD.from_config(made.get_config())
    for ssd in (made, revived):
        config = ssd.get_config()
        assert {name: config[name] for name in arguments} == arguments
        assert ssd.image_size == (32, 64)
        assert ssd.class_names == ["a", "b"]
        assert ssd.name == "tiny"
        np.testing.assert_allclose(ssd.get_layer("normalize").scale, 0.25)
    np.testing.assert_array_equal(revived.default_boxes, made.default_boxes)
    # Clamped: the last map's ratio-5 box of 23 * sqrt 5 = 51 is as high as the image.
    assert (made.default_boxes[:, 3] - made.default_boxes[:, 1]).max() == pytest.approx(32)


def test_frozen_layers_are_still_frozen_after_loading(tmp_path):
    ssd = small.ssd()
    for layer in (
        ssd.get_layer("backbone").get_layer("fine_conv"),
        ssd.get_layer("coarse_mbox_loc"),
    ):
        layer.trainable = False
    ssd.save(tmp_path / "frozen.keras")
    revived = keras.saving.load_model(tmp_path / "frozen.keras")
    paths = [[v.path for v in each.trainable_variables] for each in (ssd, revived)]
    assert paths[0] == paths[1]
    assert "coarse_mbox_loc/kernel" not in paths[1]


def test_saved_without_training_it_holds_only_what_it_uses(tmp_path):
    """Its own 4-byte weights and little else; not the backbone's unused layers once more."""
    ssd = small.ssd()
    ssd.save_weights(tmp_path / "ssd.weights.h5")
    size = (tmp_path / "ssd.weights.h5").stat().st_size
    assert size < 4 * ssd.count_params() + 150_000
