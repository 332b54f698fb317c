"""Fast R-CNN's own parts: what a step learns from, reading its outputs, detecting, compressing."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet.compiling import compiled
from kerasdet.detectors import fast_rcnn as module
from kerasdet.detectors.fast_rcnn import FastRCNN
from kerasdet.errors import InputError
from kerasdet.suppression import Detections
from tests import oracles, small

pytestmark = pytest.mark.slow

MEANS = [[0.1, -0.2, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0], [-0.1, 0.2, 0.0, 0.4]]
DEVIATIONS = [[0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0], [0.5, 0.1, 0.2, 0.25]]


@pytest.fixture(scope="module")
def detector():
    """With the paper's sampling and statistics of its own for each class."""
    keras.utils.set_random_seed(4)
    return small.fast_rcnn(sampling={}, target_means=MEANS, target_deviations=DEVIATIONS)


compiles_long = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="half a minute of compiling on JAX; the contract tests save, train and detect there",
)


def numpy(values):
    return {name: ops.convert_to_numpy(value) for name, value in values.items()}


def inputs_of(batch):
    regions = np.tile(small.proposals(batch.images.shape[1:3]), (len(batch.images), 1, 1))
    return {"images": batch.images, "regions": regions}


def raw(detector, inputs):
    """The network's outputs; compiled on JAX, which is slow at single operations."""
    if keras.backend.backend() != "jax":
        return numpy(detector(inputs))
    return numpy(compiled(detector, lambda outputs: outputs, None)(inputs))


def assign(detector, targets, inputs):
    """`Detector.assign`, likewise; every call draws the same."""
    if keras.backend.backend() != "jax":
        return detector.assign(targets, inputs)
    import jax

    drawn = detector._draw.state

    @jax.jit
    def assign(state, targets, inputs):
        with keras.StatelessScope(state_mapping=[(drawn, state)]):
            return detector.assign(targets, inputs)

    targets = {name: targets[name] for name in ("boxes", "labels")}
    return assign(drawn.value, targets, inputs)


def decode(detector, outputs, regions, **settings):
    """`Detector.decode`, likewise."""
    arrays = {name: np.asarray(v, "float32") for name, v in outputs.items()}
    arrays["regions"] = np.asarray(regions, "float32")

    def read(arrays):
        return detector.decode(arrays, regions=arrays["regions"], **settings)

    found = module._compiled_alone(read)(arrays)
    return Detections(*(ops.convert_to_numpy(v) for v in found))


# ---------------------------------------------------------------------- sampling and targets


def test_targets_equal_the_releases_loops(detector):
    """Each drawn region's class is its object's, and its offsets are that class's, normalised."""
    batch = small.four_images()
    inputs = inputs_of(batch)
    assigned = numpy(assign(detector, batch.targets, inputs))
    boxes, labels = batch.targets["boxes"], batch.targets["labels"]
    objects = 0
    for image in range(4):
        there = assigned["classes"][image] >= 0
        rows = np.concatenate([inputs["regions"][image], boxes[image]]).tolist()
        drawn = assigned["regions"][image]
        assert (drawn[~there] == -1).all()
        assert (assigned["boxes"][image][assigned["classes"][image] <= 0] == 0).all()
        for slot in np.flatnonzero(there):
            assert drawn[slot].tolist() in rows
            real = [g for g in range(3) if labels[image, g] >= 0]
            overlap, g = max((oracles.iou(drawn[slot], boxes[image, g]), -g) for g in real)
            label = labels[image, -g]
            if overlap < 0.5:
                assert overlap >= 0.1
                assert assigned["classes"][image, slot] == 0
                continue
            objects += 1
            assert assigned["classes"][image, slot] == label + 1
            raw = np.array(oracles.region_offsets(drawn[slot], boxes[image, -g]))
            expected = (raw - MEANS[label]) / DEVIATIONS[label]
            np.testing.assert_allclose(assigned["boxes"][image, slot], expected, atol=1e-4)
    assert objects > 12


def test_64_regions_of_an_image_are_drawn_16_of_them_of_objects():
    """Sec. 2.3: 64 from each image, a quarter from 0.5 on. All 30 good ones and all else is at hand."""
    detector = small.fast_rcnn()
    batch = small.painted([[(0, 20, 20, 60, 60)]])
    rng = np.random.default_rng(0)
    good = np.array([20, 20, 60, 60]) + rng.uniform(-3, 3, (30, 4))
    poor = np.array([62, 2, 90, 40]) + rng.uniform(-2, 2, (70, 4))
    regions = np.concatenate([poor, good])[None].astype("float32")
    inputs = {"images": batch.images, "regions": regions}
    assigned = numpy(assign(detector, batch.targets, inputs))
    assert assigned["regions"].shape == (1, 64, 4)
    assert assigned["classes"].tolist() == [[1] * 16 + [0] * 48]
    assert (assigned["regions"][0, :16, 0] < 30).all()
    assert (assigned["regions"][0, 16:, 0] > 50).all()


def test_the_objects_own_boxes_are_among_the_regions(detector):
    """With no other region, each gives one of class label + 1 whose raw offset is 0."""
    batch = small.four_images()
    regions = np.full((4, 5, 4), -1, "float32")
    assigned = numpy(assign(detector, batch.targets, {"images": 0, "regions": regions}))
    boxes, labels = batch.targets["boxes"], batch.targets["labels"]
    for image in range(4):
        real = labels[image] >= 0
        assert (assigned["classes"][image] >= 0).sum() == real.sum()
        found = {tuple(box) for box in assigned["regions"][image][: real.sum()]}
        assert found == {tuple(box) for box in boxes[image][real]}
        for slot in range(real.sum()):
            label = assigned["classes"][image, slot] - 1
            zero = -np.array(MEANS[label]) / DEVIATIONS[label]
            np.testing.assert_allclose(assigned["boxes"][image, slot], zero, atol=1e-5)


def test_padding_may_stand_anywhere_and_hold_anything(detector):
    """The same regions are there to be drawn; with 16 and 64 wanted, all of them are."""
    batch = small.four_images()
    inputs = inputs_of(batch)
    inputs["regions"] = inputs["regions"][:, 20:40]
    expected = numpy(assign(detector, batch.targets, inputs))
    rubbish = np.full((4, 1, 4), [3, 3, 40, 50], "float32")
    padded = {
        "boxes": np.concatenate([rubbish, batch.targets["boxes"][:, ::-1], rubbish], axis=1),
        "labels": np.pad(batch.targets["labels"][:, ::-1], ((0, 0), (1, 1)), constant_values=-1),
    }
    spaced = np.full((4, 41, 4), -1, "float32")
    spaced[:, 1::2] = inputs["regions"]
    found = numpy(assign(detector, padded, {**inputs, "regions": spaced}))
    for image in range(4):
        rows = [
            sorted(map(tuple, np.c_[values["regions"][image], values["classes"][image]].tolist()))
            for values in (expected, found)
        ]
        assert rows[0] == rows[1]


@pytest.mark.parametrize("boxes", [np.zeros((4, 2, 4), "float32"), np.zeros((4, 0, 4), "float32")])
def test_an_image_without_objects_gives_nothing_to_learn_from(boxes, detector):
    """As written in sec. 2.3: background overlaps an object by 0.1 or more."""
    inputs = inputs_of(small.no_objects())
    labels = np.full(boxes.shape[:2], -1, "int32")
    assigned = numpy(assign(detector, {"boxes": boxes, "labels": labels}, inputs))
    assert (assigned["classes"] == -1).all()
    assert (assigned["regions"] == -1).all()
    outputs = raw(detector, detector.sampled_inputs(inputs, assigned))
    assert [float(term) for term in detector.loss_terms(outputs, assigned).values()] == [0, 0]


def test_the_network_sees_the_drawn_regions_alone(detector):
    batch = small.four_images()
    inputs = {name: ops.convert_to_tensor(v) for name, v in inputs_of(batch).items()}
    assigned = assign(detector, batch.targets, inputs)
    seen = detector.sampled_inputs(inputs, assigned)
    assert seen["images"] is inputs["images"]
    assert seen["regions"] is assigned["regions"]
    assert raw(detector, seen)["classes"].shape == (4, 64, 4)


def losses(seed):
    """Of three steps of a network that never changes, so that they differ by the draw alone."""
    keras.utils.set_random_seed(9)
    detector = small.fast_rcnn(sampling={"samples": 4}, seed=seed)
    detector.compile(keras.optimizers.SGD(0.0))
    batch = small.four_images()
    history = detector.fit(inputs_of(batch), batch.targets, batch_size=4, epochs=3, verbose=0)
    return history.history["loss"]


def test_every_step_draws_anew_and_a_seed_makes_it_repeat():
    first = losses(seed=5)
    assert len(set(first)) == 3
    assert losses(seed=5) == first


def test_validation_draws_too(detector):
    batch = small.four_images()
    detector.compile("sgd")
    logs = detector.evaluate(inputs_of(batch), batch.targets, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["classification"] + logs["localization"], rel=1e-5)


# ---------------------------------------------------------------------- statistics of targets


def test_adapted_targets_have_mean_0_and_deviation_1_and_the_outputs_stay():
    detector = small.fast_rcnn(sampling={"samples": 200, "foreground_share": 1.0})
    batch = small.four_images()
    inputs = inputs_of(batch)
    before = raw(detector, inputs)
    detector.adapt_targets([(inputs, batch.targets)])
    for name, value in raw(detector, inputs).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-3, atol=1e-4)
    assigned = numpy(assign(detector, batch.targets, inputs))
    for of_class in (1, 2, 3):
        targets = assigned["boxes"][assigned["classes"] == of_class]
        assert len(targets) > 5
        np.testing.assert_allclose(targets.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(targets.std(axis=0), 1, atol=1e-3)


def test_a_class_without_regions_keeps_its_statistics():
    detector = small.fast_rcnn(target_means=MEANS, target_deviations=DEVIATIONS)
    batch = small.painted([[(0, 10, 10, 50, 40)]])
    regions = np.array([[[12, 9, 50, 40], [10, 10, 44, 45]]], "float32")
    detector.adapt_targets([({"images": batch.images, "regions": regions}, batch.targets)])
    scale = detector.get_layer("boxes")
    means, deviations = (ops.convert_to_numpy(v) for v in (scale.means, scale.deviations))
    np.testing.assert_allclose(means[1:], MEANS[1:], rtol=1e-6)
    np.testing.assert_allclose(deviations[1:], DEVIATIONS[1:], rtol=1e-6)
    raw = [oracles.region_offsets(r, (10, 10, 50, 40)) for r in [*regions[0], (10, 10, 50, 40)]]
    np.testing.assert_allclose(means[0], np.mean(raw, axis=0), atol=1e-6)
    np.testing.assert_allclose(deviations[0], np.std(raw, axis=0), atol=1e-6)


# ---------------------------------------------------------------------- the network


def test_normalised_offsets_leave_the_network_raw(detector):
    """What bbox_pred gives, times the deviations, plus the means."""
    inputs = inputs_of(small.four_images())
    head = detector.get_layer("bbox_pred_by_class").output
    learned = keras.Model(detector.input, head)(inputs)
    expected = ops.convert_to_numpy(learned) * DEVIATIONS + MEANS
    np.testing.assert_allclose(raw(detector, inputs)["boxes"], expected, rtol=1e-5, atol=1e-5)


def test_a_padded_region_changes_nothing_for_the_others(detector):
    inputs = inputs_of(small.four_images())
    expected = raw(detector, inputs)
    padded = np.full((4, 83, 4), -1, "float32")
    padded[:, 2:82] = inputs["regions"]
    for name, value in raw(detector, {**inputs, "regions": padded}).items():
        np.testing.assert_allclose(value[:, 2:82], expected[name], rtol=1e-5, atol=1e-5)


def test_heads_begin_as_in_the_paper():
    """Sec. 2.3: Gaussian of deviation 0.01 for classes, 0.001 for boxes; biases 0."""
    detector = small.fast_rcnn(hidden=(8, 4000))
    for name, deviation, outputs in (("cls_score", 0.01, 4), ("bbox_pred", 0.001, 12)):
        kernel, bias = detector.get_layer(name).get_weights()
        assert kernel.shape == (4000, outputs)
        assert kernel.std() == pytest.approx(deviation, rel=0.05)
        assert abs(kernel.mean()) < deviation / 20
        assert not bias.any()


def test_the_mean_is_the_models_first_line():
    """127.5 for a model of one's own; the release's numbers, in RGB order, for its networks."""
    detector = small.fast_rcnn(mean=(10.0, 20.0, 30.0), scale=0.5)
    normalized = keras.Model(
        detector.get_layer("images").output, detector.get_layer("normalize").output
    )
    pixel = np.broadcast_to(np.float32([12, 20, 34]), (1, 8, 8, 3))
    np.testing.assert_allclose(ops.convert_to_numpy(normalized(pixel))[0, 0, 0], [1, 0, 2])
    assert small.fast_rcnn().mean == 127.5
    assert module.PIXEL_MEAN == (122.7717, 115.9465, 102.9801)


def test_the_stride_of_a_model_is_worked_out():
    assert small.fast_rcnn().stride == 8
    assert small.fast_rcnn(feature_layer="coarse").stride == 16
    assert small.fast_rcnn(backbone=small.backbone()).stride == 8
    unpadded = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 7, strides=3)(unpadded)
    x = layers.Conv2D(4, 5, strides=2, name="last")(x)
    detector = small.fast_rcnn(backbone=keras.Model(unpadded, x), feature_layer="last")
    assert detector.stride == 6


def test_half_precision_keeps_its_outputs_and_regions_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        detector = small.fast_rcnn(pool_size=1)
        inputs = inputs_of(small.four_images())
        assert {str(v.dtype) for v in raw(detector, inputs).values()} == {"float32"}
        # 1001 is no number of half precision; the region begins in cell 125, not in 126.
        wide = np.zeros((1, 8, 1032, 3), "float32")
        wide[:, :, 1005:] = 255
        region = np.array([[[1003.9, 0, 1003.9, 4]], [[1004.1, 0, 1004.1, 4]]], "float32")
        left, right = (raw(detector, {"images": wide, "regions": r[None]}) for r in region)
        assert abs(left["classes"] - right["classes"]).max() > 0
    finally:
        keras.config.set_dtype_policy("float32")


# ---------------------------------------------------------------------- what is trained


def moved(detector):
    """Names of the layers whose kernels move in one step of SGD."""
    kernels = {
        layer.name: layer.kernel
        for layer in detector._flatten_layers()
        if getattr(layer, "kernel", None) is not None
    }
    before = {name: ops.convert_to_numpy(kernel) for name, kernel in kernels.items()}
    detector.compile(keras.optimizers.SGD(1.0))
    batch = small.four_images()
    detector.train_on_batch(inputs_of(batch), batch.targets)
    return {
        name
        for name, kernel in kernels.items()
        if not np.array_equal(before[name], ops.convert_to_numpy(kernel))
    }


HEADS = {"fc6", "fc7", "cls_score", "bbox_pred"}


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (None, {"a_conv", "b_conv", "fine_conv", *HEADS}),
        ("b_conv", {"b_conv", "fine_conv", *HEADS}),
        ("fc6", HEADS),
    ],
)
def test_every_layer_from_the_chosen_one_on_is_trained_and_no_other(first, expected):
    assert moved(small.fast_rcnn(train_from=first)) == expected


@compiles_long
def test_frozen_layers_stay_frozen_when_saved_and_may_be_thawed(tmp_path):
    detector = small.fast_rcnn(train_from="fc6")
    detector.save(tmp_path / "it.keras")
    revived = keras.saving.load_model(tmp_path / "it.keras")
    assert revived.train_from == "fc6"
    assert moved(revived) == HEADS
    revived.train_from = "fine_conv"
    assert moved(revived) == {"fine_conv", *HEADS}


def test_an_unknown_layer_to_train_from_is_named():
    with pytest.raises(InputError, match=r"train_from wants one of a_conv, .*, not 'conv9'"):
        small.fast_rcnn(train_from="conv9")


# ---------------------------------------------------------------------- decode


def decoded(regions, offsets, logits, sides, *, score_threshold, iou_threshold, most):
    """One image's (score, label, box), best first: im_detect and apply_nms of the release."""
    height, width = sides
    claims = []
    for row, (x1, y1, x2, y2) in enumerate(regions):
        shares = np.exp(logits[row] - logits[row].max())
        shares /= shares.sum()
        for label in range(logits.shape[1] - 1):
            tx, ty, tw, th = offsets[row, label]
            x, y = (x1 + x2) / 2 + tx * (x2 - x1), (y1 + y2) / 2 + ty * (y2 - y1)
            w, h = (x2 - x1) * np.exp(tw), (y2 - y1) * np.exp(th)
            box = np.clip(
                [x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, [width, height, width, height]
            )
            if shares[label + 1] > score_threshold and x2 > x1:
                claims.append((shares[label + 1], label, box))
    kept = []
    for claim in sorted(claims, key=lambda c: -c[0]):
        rivals = [k for k in kept if k[1] == claim[1]]
        if all(oracles.iou(k[2], claim[2]) <= iou_threshold for k in rivals):
            kept.append(claim)
    return kept[:most]


def test_decoding_equals_the_releases_loop(detector, rng):
    """Each class's own box of a region; cut at the image; 0.05, 0.3 and 100 unless told."""
    corner = rng.uniform(0, 60, (2, 40, 2))
    regions = np.concatenate([corner, corner + rng.uniform(5, 40, (2, 40, 2))], axis=2)
    regions[1, 30:] = -1
    outputs = {
        "classes": rng.normal(size=(2, 40, 4)) * 2,
        "boxes": rng.normal(size=(2, 40, 3, 4)) * 0.2,
    }
    for thresholds, settings in (
        ({}, (0.05, 0.3, 100)),
        (
            {"score_threshold": 0.4, "iou_threshold": 0.1, "max_detections": 7},
            (0.4, 0.1, 7),
        ),
    ):
        found = decode(detector, outputs, regions, image_size=(70, 90), **thresholds)
        boxes, scores, labels, count = found
        for image in range(2):
            expected = decoded(
                regions[image],
                outputs["boxes"][image],
                outputs["classes"][image],
                (70, 90),
                score_threshold=settings[0],
                iou_threshold=settings[1],
                most=settings[2],
            )
            assert count[image] == len(expected) > 5
            for row, (score, label, box) in enumerate(expected):
                assert labels[image, row] == label
                assert scores[image, row] == pytest.approx(score, abs=1e-5)
                np.testing.assert_allclose(boxes[image, row], box, atol=1e-3)


def test_decoding_wants_the_regions(detector):
    outputs = {"classes": np.zeros((1, 2, 4)), "boxes": np.zeros((1, 2, 3, 4))}
    with pytest.raises(InputError, match="offsets from regions: pass decode"):
        detector.decode(outputs)


# ---------------------------------------------------------------------- detect


@compiles_long
def test_boxes_come_in_each_images_own_pixels(detector):
    """A photo twice as large with regions twice as large gives boxes twice as large."""
    image = small.four_images().images[0]
    regions = small.proposals(image.shape[:2])
    (found,) = detector.detect(image, regions)
    (doubled,) = detector.detect(np.repeat(np.repeat(image, 2, axis=0), 2, axis=1), regions * 2)
    assert found.count > 10
    assert found.count == doubled.count
    np.testing.assert_allclose(doubled.boxes, 2 * found.boxes, atol=0.01)
    np.testing.assert_allclose(doubled.scores, found.scores, atol=1e-4)


def test_it_detects_what_decoding_its_outputs_gives(detector):
    """An image of the network's size, and regions of which no two fall on the same cells."""
    batch = small.four_images()
    regions = np.array([[8, 8, 40, 40], [16, 0, 90, 60], [0, 24, 32, 64]], "float32")
    inputs = {"images": batch.images[:1], "regions": regions[None]}
    expected = decode(detector, raw(detector, inputs), regions[None])
    (found,) = detector.detect(batch.images[0], regions)
    assert found.count == expected.count[0] > 2
    np.testing.assert_allclose(found.boxes, expected.boxes[0, : found.count], atol=1e-3)


def test_regions_on_the_same_cells_are_looked_at_once(detector, monkeypatch):
    looked_at = []
    look = FastRCNN._raw
    monkeypatch.setattr(
        FastRCNN,
        "_raw",
        lambda self, image, rows, place: looked_at.append(rows) or look(self, image, rows, place),
    )
    image = small.four_images().images[0]
    regions = np.array([[8, 8, 40, 40], [9, 7, 41, 42], [16, 0, 90, 60]], "float32")
    detector.detect(image, regions)
    np.testing.assert_array_equal(looked_at[0], regions[[0, 2]])


def test_without_regions_it_looks_at_what_is_proposed():
    detector = small.fast_rcnn()
    images = small.four_images().images[:2]
    seen = []

    def propose(image):
        seen.append(image.shape)
        return small.proposals(image.shape[:2])

    detector.propose = propose
    given = [small.proposals((64, 96)), None]
    with_regions = detector.detect(images, given)
    assert seen == [(64, 96, 3)]
    for one, other in zip(detector.detect(images), with_regions, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_an_image_without_regions_has_no_detections(detector):
    images = small.four_images().images[:2]
    none, some = detector.detect(images, [np.zeros((0, 4)), small.proposals((64, 96))])
    assert none.count == 0
    assert none.boxes.shape == (0, 4)
    assert none.names == []
    assert some.count > 0


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([[30, 4, 10, 20]], "x1 < x2 and y1 < y2 for the regions of the image, but row 0"),
        ([[100, 4, 110, 20]], "on the image of 96x64 pixels"),
        ([[0.1, 0.2, 0.5, 0.9]], "multiply shares of the image by its width 96 and height 64"),
        ([[1, 2, np.nan, 4]], "finite numbers"),
        ([[1, 2, 3]], r"Wanted an array \(R, 4\)"),
        ([np.ones((2, 4)), np.ones((2, 4))], "regions for 1 image"),
    ],
)
def test_bad_regions_are_refused_in_one_sentence(regions, message, detector):
    with pytest.raises(InputError, match=message):
        detector.detect(small.four_images().images[0], regions)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (5, "Wanted regions as an array .*, not 5"),
        (np.float32(5), "Wanted regions as an array"),
        (object(), "Wanted regions as an array .*, not of type object"),
        ({"image": [[0, 0, 9, 9]]}, "not of type dict"),
        ("regions.mat", "not 'regions.mat'"),
        ([object()], "Wanted an array .R, 4. for the regions of the image"),
        ([{"a": 1}], "Wanted an array .R, 4. for the regions of the image"),
        ([[1, 2, 3, 4], [1, 2]], "Wanted an array .R, 4. for the regions of the image"),
        ([[[1, 2, 3, 4], [1, 2]]], "Wanted an array .R, 4. for the regions of the image"),
    ],
)
def test_what_holds_no_regions_is_refused_in_one_sentence(regions, message, detector):
    with pytest.raises(InputError, match=message):
        detector.detect(small.four_images().images[0], regions)
    with pytest.raises(InputError):
        detector.detect(small.four_images().images[:2], regions)


def canvas(image, height, width):
    return keras.ops.convert_to_numpy(
        keras.ops.image.resize(image[None], (height, width), interpolation="bilinear")
    )[0]


def test_a_photo_comes_to_600_pixels_unless_its_long_side_passes_1000(monkeypatch):
    """lib/utils/blob.py, prep_im_for_blob: 375x500 to 600x800, 300x800 to 375x1000."""
    detector = small.fast_rcnn(image_size=1000, short_side=600)
    sizes = []
    monkeypatch.setattr(
        FastRCNN, "_raw", lambda self, image, rows, place: sizes.append(place[2:4]) or {}
    )
    monkeypatch.setattr(FastRCNN, "_read", lambda *_: None)
    for shape in ((375, 500), (800, 300), (600, 600), (60, 70)):
        detector.detect(np.zeros((*shape, 3), "uint8"), [[0, 0, 20, 20]])
    assert sizes == [(600, 800), (1000, 375), (600, 600), (600, 700)]


def test_in_several_sizes_each_region_is_looked_at_in_the_one_that_suits_it(monkeypatch):
    """Sides of 64 and 400: 200 pixels are nearest to 224 as they are, 30 when scaled by 6.25."""
    detector = small.fast_rcnn()
    seen = {}
    monkeypatch.setattr(
        FastRCNN,
        "_raw",
        lambda self, image, rows, place: (
            seen.__setitem__(place[2:4], rows.tolist())
            or {"classes": np.zeros((len(rows), 4)), "boxes": np.zeros((len(rows), 3, 4))}
        ),
    )
    image = np.zeros((256, 384, 3), "uint8")
    wide, little = [0.0, 0.0, 380.0, 250.0], [50.0, 60.0, 80.0, 90.0]
    detector.detect(image, [little, wide], short_sides=(200, 800))
    assert seen == {(200, 300): [wide], (800, 1200): [little]}


def test_it_looks_in_its_own_sizes_where_no_others_are_said(monkeypatch):
    detector = small.fast_rcnn(short_sides=(200, 800))
    seen = []
    monkeypatch.setattr(
        FastRCNN,
        "_raw",
        lambda self, image, rows, place: (
            seen.append(place[2])
            or {"classes": np.zeros((len(rows), 4)), "boxes": np.zeros((len(rows), 3, 4))}
        ),
    )
    image, regions = np.zeros((256, 384, 3), "uint8"), [[0, 0, 380, 250], [50, 60, 80, 90]]
    for own, asked, expected in (
        ((200, 800), None, [200, 800]),
        ((200, 800), [100], [100]),
        (None, None, [64]),
    ):
        detector.short_sides = own
        seen.clear()
        detector.detect(image, regions, short_sides=asked)
        assert seen == expected


def test_sizes_that_are_none_are_refused(detector):
    for sides in (300, [], ["a"], "ab", [200.5], [0], {"a": 1}, [True, None]):
        with pytest.raises(InputError, match="short_sides wants sides in whole pixels"):
            detector.detect(small.four_images().images[0], [[0, 0, 9, 9]], short_sides=sides)
        with pytest.raises(InputError, match="short_sides wants sides in whole pixels"):
            detector.short_sides = sides
    assert detector.short_sides is None


@compiles_long
def test_several_sizes_give_what_the_network_gives_in_each(detector):
    image = small.four_images().images[0]
    regions = np.array([[8, 8, 40, 40], [0, 0, 96, 64]], "float32")
    (found,) = detector.detect(image, regions, short_sides=(160, 400), score_threshold=0.0)
    parts = []
    for side, region in ((400, regions[:1]), (160, regions[1:])):
        scale = side / 64
        sized = canvas(image, side, round(96 * scale))[None]
        parts.append(raw(detector, {"images": sized, "regions": region[None] * scale}))
    outputs = {name: np.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}
    expected = decode(detector, outputs, regions[None], score_threshold=0.0)
    assert found.count == expected.count[0]
    np.testing.assert_allclose(found.scores, expected.scores[0, : found.count], atol=1e-3)
    np.testing.assert_allclose(found.boxes, expected.boxes[0, : found.count], atol=0.05)


@compiles_long
def test_a_model_built_for_one_size_gets_photos_in_its_corner(rng):
    """Half as large and alone on a canvas of the mean."""
    detector = small.fast_rcnn(backbone=small.backbone(), mean=(10.0, 20.0, 30.0))
    assert detector.image_size == (64, 96)
    photo = rng.uniform(0, 255, (128, 60, 3)).astype("float32")
    regions = np.array([[4, 6, 50, 100], [10, 60, 60, 128]], "float32")
    (found,) = detector.detect(photo, regions, score_threshold=0.0)
    whole = np.empty((1, 64, 96, 3), "float32")
    whole[:] = (10, 20, 30)
    whole[0, :, :30] = canvas(photo, 64, 30)
    outputs = raw(detector, {"images": whole, "regions": regions[None] / 2})
    expected = decode(detector, outputs, regions[None], image_size=(128, 60), score_threshold=0.0)
    assert found.count == expected.count[0]
    np.testing.assert_allclose(found.boxes, expected.boxes[0, : found.count], atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores[0, : found.count], atol=1e-4)
    with pytest.raises(InputError, match="built for images of one size"):
        detector.detect(photo, regions, short_sides=(64, 96))


# ---------------------------------------------------------------------- compress


def dense_outputs(detector, inputs):
    """What fc6 gives before its ReLU, and what it is given."""
    layer = detector.get_layer("fc6_U" if "fc6" in detector.ranks else "fc6")
    given = detector.get_layer("flatten").output
    x = ops.convert_to_numpy(keras.Model(detector.input, given)(inputs))[0]
    kernel = ops.convert_to_numpy(layer.kernel)
    if "fc6" in detector.ranks:
        kernel = ops.convert_to_numpy(detector.get_layer("fc6_L").kernel) @ kernel
    return x @ kernel + ops.convert_to_numpy(layer.bias), x


def test_compressed_outputs_stay_within_the_discarded_singular_values(detector):
    smaller = detector.compress(fc6=20, fc7=10)
    inputs = inputs_of(small.four_images())
    whole, x = dense_outputs(detector, inputs)
    cut, same = dense_outputs(smaller, inputs)
    np.testing.assert_array_equal(same, x)
    values = np.linalg.svd(detector.get_layer("fc6").get_weights()[0], compute_uv=False)
    moved_by = np.linalg.norm(whole - cut, axis=1)
    assert (moved_by <= values[20] * np.linalg.norm(x, axis=1) * 1.001).all()
    assert moved_by.max() > 0


def test_compressed_layers_are_named_and_sized_as_in_the_release(detector):
    """models/VGG16/compressed: fc6_L without bias, fc6_U with fc6's; fewer numbers by 20 and 10."""
    smaller = detector.compress(fc6=20, fc7=10)
    features = detector.get_layer("fc6").kernel.shape[0]
    shapes = {
        name: [w.shape for w in smaller.get_layer(name).get_weights()]
        for name in ("fc6_L", "fc6_U", "fc7_L", "fc7_U")
    }
    assert shapes == {
        "fc6_L": [(features, 20)],
        "fc6_U": [(20, 64), (64,)],
        "fc7_L": [(64, 10)],
        "fc7_U": [(10, 48), (48,)],
    }
    fewer = features * 64 - 20 * (features + 64) + 64 * 48 - 10 * (64 + 48)
    assert detector.count_params() - smaller.count_params() == fewer


@compiles_long
def test_full_ranks_change_nothing(detector):
    inputs = inputs_of(small.four_images())
    expected = raw(detector, inputs)
    for name, value in raw(detector.compress(fc6=64, fc7=48), inputs).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-4)


@compiles_long
def test_a_compressed_model_is_saved_trained_and_detects(detector, tmp_path):
    smaller = detector.compress(fc6=20, fc7=None)
    assert smaller.ranks == {"fc6": 20}
    smaller.save(tmp_path / "it.keras")
    revived = keras.saving.load_model(tmp_path / "it.keras")
    inputs = inputs_of(small.four_images())
    expected = raw(smaller, inputs)
    for name, value in raw(revived, inputs).items():
        np.testing.assert_array_equal(value, expected[name])
    image = small.four_images().images[0]
    (found,) = revived.detect(image, small.proposals(image.shape[:2]))
    assert found.count > 0
    assert moved(revived) == {
        "a_conv",
        "b_conv",
        "fine_conv",
        "fc6_L",
        "fc6_U",
        "fc7",
        "cls_score",
        "bbox_pred",
    }


def test_what_is_frozen_stays_so_in_the_compressed_copy():
    smaller = small.fast_rcnn(train_from="fc7").compress(fc6=20, fc7=10)
    assert smaller.train_from == "fc7_L"
    assert not smaller.get_layer("fc6_L").trainable
    assert not smaller.get_layer("fc6_U").trainable
    assert smaller.get_layer("fc7_U").trainable


def test_ranks_that_cannot_be_are_refused(detector):
    for ranks, message in (
        ({"fc6": 65}, "fc6 wants a rank of 1 to 64, not 65"),
        ({"fc6": 0}, "fc6 wants a rank of 1 to 64, not 0"),
        ({"fc6": "a"}, "fc6 wants a rank of 1 to 64, not 'a'"),
        ({"fc6": 2.5}, "fc6 wants a rank of 1 to 64, not 2.5"),
        ({"fc7": 49, "fc6": None}, "fc7 wants a rank of 1 to 48, not 49"),
    ):
        with pytest.raises(InputError, match=message):
            detector.compress(**{"fc7": None, **ranks})
    with pytest.raises(InputError, match="fc6 is compressed already, to rank 5"):
        detector.compress(fc6=5, fc7=None).compress(fc6=3, fc7=3)
    with pytest.raises(InputError, match="has no fc7 to compress; pass fc7=None"):
        small.fast_rcnn(hidden=(16,)).compress(fc6=3)


# ---------------------------------------------------------------------- building


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": None}, "wants num_classes or class_names"),
        ({"class_names": None, "num_classes": 0}, "at least one class, not num_classes=0"),
        ({"num_classes": 2}, "num_classes=2 does not fit the 3 class_names"),
        ({"backbone": "vgg19"}, "backbone wants vgg16, vgg_m_1024, caffenet or a Keras model"),
        ({"backbone": 3}, "functional Keras model of images, not 3"),
        ({"feature_layer": "conv7"}, "name of a layer of five_convolutions, not 'conv7'"),
        ({"sampling": {"sample": 3}}, "sampling wants some of samples, .*, not sample"),
        ({"ranks": {"fc9": 3}}, "the hidden layers begin at fc6"),
        ({"resize": "warp"}, "not by 'warp'"),
        ({"target_deviations": (1, 1, 1, 0)}, "above 0"),
        ({"image_size": (64, 0)}, "image_size wants whole numbers"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        small.fast_rcnn(**arguments)


def test_config_keeps_every_argument():
    changes = {
        "class_names": ["a", "b"],
        "feature_layer": "coarse",
        "pool_size": 2,
        "hidden": (32, 16, 8),
        "dropout": 0.25,
        "image_size": (128, 160),
        "short_side": 100,
        "mean": (1.0, 2.0, 3.0),
        "scale": 0.5,
        "target_means": [[0.5, 0, 0, 0], [0, 0.5, 0, 0]],
        "target_deviations": [0.5, 1.0, 2.0, 4.0],
        "sampling": {"samples": 10, "background_iou": (0.2, 0.4)},
        "train_from": "fine_conv",
        "short_sides": (90, 180),
        "ranks": {"fc7": 4},
        "seed": 7,
        "name": "mine",
    }
    revived = FastRCNN.from_config(small.fast_rcnn(**changes).get_config())
    names = "class_names hidden dropout image_size short_side mean scale train_from ranks name"
    names += " short_sides"
    for name in (*names.split(), "pool_size"):
        assert getattr(revived, name) == changes[name], name
    assert revived.stride == 16
    assert revived.sampling == {
        "samples": 10,
        "foreground_share": 0.25,
        "foreground_iou": 0.5,
        "background_iou": (0.2, 0.4),
    }
    scale = revived.get_layer("boxes")
    np.testing.assert_allclose(ops.convert_to_numpy(scale.means), changes["target_means"])
    np.testing.assert_allclose(ops.convert_to_numpy(scale.deviations), [[0.5, 1, 2, 4]] * 2)
    assert revived.get_layer("drop8").rate == 0.25
