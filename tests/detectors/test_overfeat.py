"""OverFeat's own parts: every window at once, targets, negatives, tasks, scales, votes."""

import json
import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet import memory
from kerasdet.classifier import Classifier
from kerasdet.compiling import compiled
from kerasdet.data.epochs import planned
from kerasdet.detectors.overfeat import OverFeat, threshold_of
from kerasdet.errors import InputError
from kerasdet.images import warp
from kerasdet.voting import ten_views
from kerasdet.windows import Candidates
from tests import oracles, small
from tests.test_greedy_merge import merge


def numpy(values):
    return {name: ops.convert_to_numpy(value) for name, value in values.items()}


def raw(model, images):
    """The outputs; compiled, as a network of single operations takes long."""
    images = np.asarray(images, "float32")
    return numpy(compiled(model, lambda outputs: outputs, (None, *images.shape[1:]))(images))


def shaken(model, seed=0, neighbours=True):
    """With weights that all matter; without neighbours, 3x3 kernels are their middle alone."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if not layer.get_weights():
            continue
        kernel, bias = layer.get_weights()
        kernel = rng.normal(0, 1.5 / math.sqrt(kernel[..., 0].size), kernel.shape)
        if not neighbours and kernel.shape[0] == 3:
            middle = np.zeros((3, 3, 1, 1))
            middle[1, 1] = 3
            kernel = kernel * middle
        layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
    return model


def noise(*shape, seed=1):
    return np.random.default_rng(seed).uniform(0, 255, shape).astype("float32")


# ---------------------------------------------------------------------- every window at once

NARROW = {"num_classes": 3, "width": 0.02, "stddev": None, "dropout": 0.0}


@pytest.mark.parametrize("fine", [True, False], ids=["fine", "coarse"])
@pytest.mark.parametrize(
    ("network", "size", "windows"),
    [
        ("accurate", (245, 245), {True: (3, 3), False: (1, 1)}),
        ("accurate", (281, 317), {True: (6, 9), False: (2, 3)}),
        ("fast", (247, 279), {True: (2, 4), False: (1, 2)}),
        ("fast", (305, 321), {True: (5, 6), False: (3, 3)}),
    ],
)
def test_dense_outputs_are_the_networks_on_each_window_alone(network, size, windows, fine):
    """The image cut at every position, each piece run by itself.

    The 3x3 layers have their middle taps alone: with the others, which reach over a window's edge
    onto the image, a piece that ends there sees the padding's zeros.
    """
    model = shaken(OverFeat(network=network, fine=fine, **NARROW), neighbours=False)
    image = noise(*size, 3)
    dense = raw(model, image[None])
    rows, columns = windows[fine]
    step, side = model.step, model.layout.window
    assert step == {"accurate": 12, "fast": 16}[network] * (1 if fine else model.layout.last_pool)
    pieces = [
        image[step * i : step * i + side, step * j : step * j + side]
        for i in range(rows)
        for j in range(columns)
    ]
    alone = raw(model, np.stack(pieces))
    for name, channels in (("classes", 3), ("background", 1), ("boxes", 4)):
        assert dense[name].shape == (1, rows, columns, channels)
        assert alone[name].shape == (rows * columns, 1, 1, channels)
        expected = alone[name].reshape(dense[name].shape)
        np.testing.assert_allclose(dense[name], expected, atol=1e-4)
        if rows * columns > 1:
            assert expected.std(axis=(0, 1, 2)).min() > 5e-3  # windows that differ


@pytest.mark.parametrize("boxes_per_class", [False, True])
@pytest.mark.parametrize(
    ("network", "size"),
    [
        ("accurate", (245, 257)),
        ("accurate", (281, 317)),
        ("fast", (247, 279)),
        ("fast", (305, 321)),
    ],
)
def test_dense_outputs_are_the_networks_on_each_window_in_its_surroundings(
    network, size, boxes_per_class
):
    """All weights, every position: a piece of the image, its window's cells alone, pooled plainly.

    The 3x3 layers, all of one stride, reach a cell further each. So a piece is the window and as
    many cells around it as there are such layers, or what the image has of them: where the image
    ends both see the same padding.
    """
    model = shaken(OverFeat(network=network, boxes_per_class=boxes_per_class, **NARROW))
    image = noise(*size, 3)
    dense = raw(model, image[None])
    around = sum(layer.kernel == 3 for layer in model.layout.convolutions)
    assert around == {"accurate": 4, "fast": 3}[network]
    maps = model.get_layer(f"conv{len(model.layout.convolutions)}_relu").output
    trunk = keras.Model(model.input, maps)
    step, side, cells = model.step, model.layout.window, model.layout.shrinkage + 1
    windows = []
    rows, columns = dense["classes"].shape[1:3]
    for i, j in np.ndindex(rows, columns):
        top, left = max(i - around, 0), max(j - around, 0)
        bottom, right = (step * (k + around) + side for k in (i, j))
        piece = image[top * step : bottom, left * step : right]
        seen = ops.convert_to_numpy(trunk(piece[None], training=False))[0]
        windows.append(seen[i - top : i - top + cells, j - left : j - left + cells])
    model.fine = False  # plain pooling, nothing interleaved
    alone = numpy(keras.Model(maps, model.output)(np.stack(windows)))
    for name, value in dense.items():
        expected = alone[name].reshape(value.shape)
        np.testing.assert_allclose(value, expected, atol=1e-4)
        assert expected.std(axis=(0, 1, 2)).min() > 5e-3  # windows that differ


def test_where_the_windows_are_said_to_be_is_where_the_network_looks():
    """Pixels outside a window do not reach its outputs; those at its corners do."""
    model = shaken(OverFeat(network="accurate", **NARROW), neighbours=False)
    model.image_size = (245, 257)
    assert len(model.default_boxes) == 3 * 4
    x1, y1, x2, y2 = model.default_boxes[1 * 4 + 2].astype(int)
    assert (x1, y1, x2, y2) == (24, 12, 245, 233)
    image = noise(1, 245, 257, 3)
    expected = raw(model, image)["classes"][0, 1, 2]
    outside = noise(1, 245, 257, 3, seed=9)
    outside[0, y1:y2, x1:x2] = image[0, y1:y2, x1:x2]
    np.testing.assert_allclose(raw(model, outside)["classes"][0, 1, 2], expected, atol=1e-5)
    corner = image.copy()
    corner[0, y1 : y1 + 24, x1 : x1 + 24] = noise(24, 24, 3, seed=3) * 20 - 2500
    assert abs(raw(model, corner)["classes"][0, 1, 2] - expected).max() > 1e-3


# ---------------------------------------------------------------------- targets


@pytest.fixture(scope="module")
def model():
    """Nobody trains this one."""
    keras.utils.set_random_seed(4)
    return shaken(small.overfeat(), seed=2)


def painted_edges(image, label):
    """x1, y1, x2, y2 of the pixels that have a class's own colour."""
    rows, columns = np.nonzero((image == np.eye(3)[label] * 255).all(axis=-1))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_what_windows_learn_decodes_to_the_painted_rectangles(model):
    batch = small.painted(
        [[(0, 12, 8, 40, 30), (2, 60, 20, 80, 62)], [(1, 30, 4, 90, 40)], [(2, 3, 30, 33, 50)]]
    )
    assigned = numpy(model.assign(batch.targets, batch.images))
    boxes = ops.convert_to_numpy(model.boxes({"boxes": assigned["boxes"]}))
    seen = set()
    for image, row, column in zip(*np.nonzero(assigned["classes"] < 3), strict=True):
        label = assigned["classes"][image, row, column]
        if label < 0:
            continue
        seen.add((image, label))
        expected = painted_edges(batch.images[image], label)
        np.testing.assert_allclose(boxes[image, row, column], expected, atol=1e-4)
    assert seen == {(0, 0), (0, 2), (1, 1), (2, 2)}


def test_targets_are_classes_background_or_neither_and_edges_in_window_sides(model):
    """One object of 12x12 at 0, 0: half of it in the windows from 0 to 4 pixels off in one direction."""
    batch = small.painted([[(1, 0, 0, 12, 12)]])
    assigned = numpy(model.assign(batch.targets, batch.images))
    assert assigned["classes"].shape == assigned["order"].shape == (1, 5, 13)
    # Off by 0, 4, 8 columns 12, 8, 4 of 12 are inside, and as many rows: 144, 96, 48, 64, 32, 16.
    expected = np.full((5, 13), 3)
    expected[:2, :2] = [[1, 1], [1, -1]]  # 64 of 144 is no half
    expected[0, 2] = expected[2, 0] = -1  # 48 of 144 is more than a quarter
    np.testing.assert_array_equal(assigned["classes"][0], expected)
    np.testing.assert_allclose(assigned["boxes"][0, 0, 1], [-4 / 48, 0, -40 / 48, -36 / 48])
    assert not assigned["boxes"][0][expected != 1].any()


@pytest.mark.parametrize("fine", [True, False])
def test_targets_have_the_shape_of_the_outputs_for_images_of_any_size(fine):
    model = small.overfeat(fine=fine)
    for size in ((48, 48), (64, 96), (71, 105), (90, 61)):
        batch = small.four_images()
        images = noise(4, *size, 3)
        assigned = model.assign(batch.targets, images)
        assert assigned["classes"].shape == raw(model, images)["classes"].shape[:3]


def test_in_a_graph_the_images_sides_need_not_be_known(model):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's")
    import tensorflow as tf

    batch = small.four_images()
    targets = {name: batch.targets[name] for name in ("boxes", "labels")}
    images = tf.TensorSpec((None, None, None, 3))
    for fine in (False, True):
        model.fine = fine
        graph = tf.function(lambda images: model.assign(targets, images), [images])
        found, expected = graph(batch.images), model.assign(targets, batch.images)
        np.testing.assert_array_equal(found["classes"], expected["classes"])
        np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-6)


@pytest.mark.parametrize("rows", [0, 2])
def test_an_image_without_objects_is_background_everywhere(rows, model):
    targets = {
        "boxes": np.zeros((4, rows, 4), "float32"),
        "labels": np.full((4, rows), -1, "int32"),
    }
    assigned = numpy(model.assign(targets, small.no_objects().images))
    assert (assigned["classes"] == 3).all()
    assert not assigned["boxes"].any()


# ---------------------------------------------------------------------- loss


def slow_losses(outputs, assigned, *, worst, random):
    """(classes, boxes) in float64, one image and one window at a time."""
    cross_entropy, chosen, error, about = 0.0, 0, 0.0, 0
    classes = assigned["classes"]
    for image in range(len(classes)):
        shares, logits = {}, {}
        for place in np.ndindex(*classes.shape[1:]):
            both = (outputs["classes"], outputs["background"])
            logits[place] = np.concatenate([o[(image, *place)] for o in both]).astype("float64")
            whole = np.exp(logits[place]).sum()
            shares[place] = np.exp(logits[place][:-1]).max() / whole
        nothing = [place for place in logits if classes[(image, *place)] == 3]
        taken = sorted(nothing, key=lambda place: -shares[place])[:worst]
        rest = [place for place in nothing if place not in taken]
        taken += sorted(rest, key=lambda place: -assigned["order"][(image, *place)])[:random]
        for place in logits:
            label = classes[(image, *place)]
            if 0 <= label < 3:
                about += 1
                found = outputs["boxes"][(image, *place)]
                found = found[label] if found.ndim > 1 else found
                error += ((found - assigned["boxes"][(image, *place)]) ** 2).sum() / 2
            elif place not in taken:
                continue
            chosen += 1
            cross_entropy += np.log(np.exp(logits[place]).sum()) - logits[place][label]
    return cross_entropy / max(chosen, 1), error / max(about, 1)


@pytest.mark.parametrize("boxes_per_class", [False, True])
def test_losses_equal_the_loop(boxes_per_class, rng):
    counts = {"worst_negatives": 5, "random_negatives": 3}
    model = small.overfeat(boxes_per_class=boxes_per_class, box_weight=2.5, **counts)
    batch = small.painted([[(0, 4, 6, 18, 17)], [(1, 50, 30, 80, 48), (2, 4, 4, 16, 16)], []])
    assigned = model.assign(batch.targets, batch.images)
    per_class = [3] if boxes_per_class else []
    outputs = {
        "classes": rng.normal(0, 2, (3, 5, 13, 3)).astype("float32"),
        "background": rng.normal(0, 2, (3, 5, 13, 1)).astype("float32"),
        "boxes": rng.normal(0.5, 1, (3, 5, 13, *per_class, 4)).astype("float32"),
    }
    terms = model.loss_terms(outputs, assigned)
    expected = slow_losses(outputs, numpy(assigned), worst=5, random=3)
    np.testing.assert_allclose(float(terms["classes"]), expected[0], rtol=1e-4)
    np.testing.assert_allclose(float(terms["boxes"]), 2.5 * expected[1], rtol=1e-4)
    assert (numpy(assigned)["classes"] == 3).sum() > 60  # more than are taken


def test_without_objects_only_negatives_count(model):
    batch = small.no_objects()
    outputs = raw(model, batch.images)
    terms = model.loss_terms(outputs, model.assign(batch.targets, batch.images))
    assert float(terms["boxes"]) == 0
    assert float(terms["classes"]) > 0


def losses(seed, **arguments):
    """Of three steps of a network that never changes, so that they differ by the draw alone."""
    keras.utils.set_random_seed(9)
    detector = shaken(small.overfeat(seed=seed, **arguments))
    detector.compile(keras.optimizers.SGD(0.0))
    batch = small.four_images()
    history = detector.fit(batch.images, batch.targets, batch_size=4, epochs=3, verbose=0)
    return history.history["classes"]


def test_every_step_draws_other_negatives_and_a_seed_makes_it_repeat():
    first = losses(seed=5, worst_negatives=0, random_negatives=3)
    assert len(set(first)) == 3
    assert losses(seed=5, worst_negatives=0, random_negatives=3) == first


# ---------------------------------------------------------------------- tasks


REGRESSOR = {"box_fc1", "box_fc2", "boxes"}
EVERYTHING = {"conv1", "conv2", "fc3", "fc4", "classes", "background"} | REGRESSOR


def moved(model):
    """Names of the layers whose kernels and biases move in one step of SGD, and the logs."""
    shaken(model)
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    before = {name: layer.get_weights() for name, layer in layers.items()}
    model.compile(keras.optimizers.SGD(0.01))
    batch = small.four_images()
    logs = model.train_on_batch(batch.images, batch.targets, return_dict=True)
    names = set()
    for name, layer in layers.items():
        same = [
            np.array_equal(*pair) for pair in zip(before[name], layer.get_weights(), strict=True)
        ]
        assert len(set(same)) == 1
        if not same[0]:
            names.add(name)
    return names, set(logs)


def test_each_task_trains_its_own_weights_and_no_other():
    model = small.overfeat(task="localisation")
    assert moved(model) == (REGRESSOR, {"boxes", "loss"})
    model.task = "detection"
    assert moved(model) == (EVERYTHING, {"classes", "boxes", "loss"})
    for name in REGRESSOR:
        model.get_layer(name).trainable = False
    assert moved(model)[0] == EVERYTHING - REGRESSOR
    model.task = "localisation"
    assert moved(model) == (REGRESSOR, {"boxes", "loss"})


def test_a_localiser_needs_no_background():
    model = small.overfeat(task="localisation", background=False)
    assert set(raw(model, small.four_images().images)) == {"classes", "boxes"}
    assert moved(model)[0] == REGRESSOR
    with pytest.raises(InputError, match="background=True"):
        model.task = "detection"
    with pytest.raises(InputError, match="background=True"):
        small.overfeat(background=False)


def test_a_task_that_was_set_wants_a_new_compile():
    model = small.overfeat()
    model.compile("sgd")
    model.task = "localisation"
    batch = small.four_images()
    with pytest.raises(ValueError, match="compile"):
        model.fit(batch.images, batch.targets, verbose=0)


def test_localisation_learns_boxes_and_leaves_the_classes_as_they_were():
    keras.utils.set_random_seed(2)
    model = small.overfeat(task="localisation")
    batch = small.four_images()
    before = raw(model, batch.images)["classes"]
    model.compile(keras.optimizers.Adam(3e-3))
    history = model.fit(batch.images, batch.targets, batch_size=4, epochs=60, verbose=0).history
    assert history["boxes"][-1] < 0.2 * history["boxes"][0]
    np.testing.assert_array_equal(raw(model, batch.images)["classes"], before)


def test_it_starts_from_a_classifier_of_the_same_network_and_says_what_is_new():
    """On a window the classes are the classifier's."""
    classifier = shaken(Classifier(3, network=small.OVERFEAT, stddev=None))
    model = small.overfeat()
    assert set(model.start_from(classifier)) == {"background", *REGRESSOR}
    windows = noise(2, 48, 48, 3)
    expected = ops.convert_to_numpy(classifier(windows))
    np.testing.assert_allclose(raw(model, windows)["classes"][:, 0, 0], expected, atol=1e-4)
    detector = small.overfeat()
    assert detector.start_from(model) == []
    fewer = small.overfeat(class_names=["a", "b"])
    assert fewer.start_from(model) == ["classes"]
    with pytest.raises(InputError, match="its first layer, conv1, has kernel"):
        small.overfeat(width=0.5).start_from(classifier)


# ---------------------------------------------------------------------- decoding, detection


def slow_candidates(model, image, sizes, *, classes=3):
    """(box in the image's pixels, score, label) of every window of every scale, one by one."""
    found = []
    height, width = image.shape[:2]
    for size in sizes:
        outputs = raw(model, warp(image, size)[None])
        shape = outputs["classes"].shape[1:3]
        logits = np.concatenate([outputs["classes"], outputs["background"]], axis=-1)[0]
        shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        loudest = np.argsort(-shares[..., :3].max(axis=(0, 1)))[:classes]
        for i, j in np.ndindex(*shape):
            edges = outputs["boxes"][0, i, j] * 48 + [4 * j, 4 * i, 4 * j + 48, 4 * i + 48]
            x, y = sorted(edges[0::2]), sorted(edges[1::2])
            box = np.array([x[0], y[0], x[1], y[1]])
            box *= [width / size[1], height / size[0]] * 2
            found += [(box, shares[i, j, label], label) for label in loudest]
    return sorted(found, key=lambda c: -c[1])


@pytest.fixture(scope="module")
def few():
    """Of every photo the best 20 boxes of two classes are merged."""
    model = shaken(small.overfeat(max_candidates=20, classes_per_scale=2), seed=2)
    model.scales = ((52, 64), (64, 96))
    return model


@pytest.mark.parametrize("shape", [(80, 130), (130, 80)], ids=["lying", "upright"])
def test_detection_merges_the_windows_of_all_scales_in_the_photos_own_pixels(few, shape):
    image = noise(*shape, 3)
    sizes = [(52, 64), (64, 96)] if shape == (80, 130) else [(64, 52), (96, 64)]
    best = slow_candidates(few, image, sizes, classes=2)[:20]
    expected = merge(*zip(*best, strict=True), threshold=threshold_of(0.5))
    (found,) = few.detect(image, score_threshold=0.0)
    assert found.count == len(expected) >= 2
    boxes = [box.clip(0, [*shape[::-1]] * 2) for _, _, box, _ in expected]
    np.testing.assert_allclose(found.boxes, boxes, atol=0.05)
    sums = np.array([total for total, *_ in expected])
    np.testing.assert_allclose(found.scores, sums / (1 + sums), atol=1e-4)
    assert found.labels.tolist() == [label for _, label, _, _ in expected]
    assert found.names == [small.CLASS_NAMES[label] for label in found.labels]
    assert max(count for *_, count in expected) > 1


def test_suppression_is_the_alternative(few):
    image = noise(80, 130, 3)
    every = slow_candidates(few, image, few.scales, classes=2)
    boxes = np.array([box for box, *_ in every], "float32")
    scores = np.zeros((len(every), 3), "float32")
    for row, (_, score, label) in enumerate(every):
        scores[row, label] = score
    expected = oracles.suppress(
        boxes, scores, iou_threshold=0.2, score_threshold=0.3, max_per_class=999
    )
    (found,) = few.detect(image, merge="nms", iou_threshold=0.2)
    assert found.count == len(expected) >= 2
    np.testing.assert_allclose(found.scores, [score for score, *_ in expected], atol=1e-4)
    rows = boxes[[row for *_, row in expected]].clip(0, [130, 80, 130, 80])
    np.testing.assert_allclose(found.boxes, rows, atol=0.05)
    few.merge = "nms"
    again = few.detect(image, iou_threshold=0.2)[0]
    few.merge = "greedy"
    np.testing.assert_array_equal(again.boxes, found.boxes)


def test_decoding_one_scale_gives_what_detection_at_that_scale_gives(model):
    image = noise(64, 96, 3)
    outputs = raw(model, image[None])
    for merge_by in ("greedy", "nms"):
        found = model.decode(outputs, score_threshold=0.2, max_detections=30, merge=merge_by)
        boxes, scores, labels, count = (ops.convert_to_numpy(v)[0] for v in found)
        (expected,) = model.detect(
            image, score_threshold=0.2, max_detections=30, merge=merge_by, scales=[(64, 96)]
        )
        assert count == expected.count > 1
        np.testing.assert_allclose(boxes[:count], expected.boxes, atol=1e-3)
        np.testing.assert_allclose(scores[:count], expected.scores, atol=1e-5)
        np.testing.assert_array_equal(labels[:count], expected.labels)
        assert boxes[:, [0, 2]].max() <= 96
        assert boxes[:, [1, 3]].max() <= 64


def test_an_overlap_as_a_merge_threshold_is_that_of_two_boxes_side_by_side():
    """10x10 boxes moved by 2 have the IoU 80 / 120; their match score is 0.2 + 1 - 2 / 3."""
    assert threshold_of(2 / 3) == pytest.approx(0.2 + 1 / 3)
    assert threshold_of(1) == 0
    assert threshold_of(0) == 2  # side by side, and no overlap


def test_photos_that_lie_and_stand_go_through_in_their_own_batches(few):
    """Eleven of three sizes, mixed: each finds what it finds alone."""
    shapes = [(80, 130), (80, 130), (130, 80), (70, 70)] * 3
    photos = [noise(*shape, 3, seed=i) for i, shape in enumerate(shapes[:11])]
    together = few.detect(photos, score_threshold=0.1)
    for photo, found in zip(photos, together, strict=True):
        (alone,) = few.detect(photo, score_threshold=0.1)
        assert alone.count == found.count > 0
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-2)


def test_a_coarse_model_looks_at_fewer_windows_and_back(model):
    images = small.four_images().images
    fine = raw(model, images)["classes"]
    expected = model.detect(images)
    model.fine = False
    assert model.step == 8
    coarse = raw(model, images)["classes"]
    assert coarse.shape == (4, 3, 7, 3)
    np.testing.assert_allclose(coarse, fine[:, ::2, ::2], atol=1e-5)
    fewer = model.detect(images)
    model.fine = True
    for again, one in zip(model.detect(images), expected, strict=True):
        np.testing.assert_array_equal(again.boxes, one.boxes)
    assert any(
        a.count != b.count or not np.allclose(a.boxes, b.boxes)
        for a, b in zip(fewer, expected, strict=True)
    )


def test_half_precision_keeps_its_outputs_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small.overfeat(boxes_per_class=True)
        assert {v.dtype for v in raw(model, small.four_images().images).values()} == {
            np.dtype("float32")
        }
        assert model.get_layer("conv1").compute_dtype == "float16"
    finally:
        keras.config.set_dtype_policy("float32")


# ---------------------------------------------------------------------- localisation, classification


@pytest.mark.parametrize("shape", [(80, 130), (130, 80)], ids=["lying", "upright"])
def test_localisation_gives_each_top_class_its_merged_box_of_the_highest_sum(few, shape):
    image = noise(*shape, 3)
    sizes = [(52, 64), (64, 96)] if shape == (80, 130) else [(64, 52), (96, 64)]
    every = slow_candidates(few, image, sizes)
    of_scale = [slow_candidates(few, image, [size]) for size in sizes]
    votes = [
        np.mean([max(score for _, score, of in one if of == label) for one in of_scale])
        for label in range(3)
    ]
    (found,) = few.localise(image, top=2)
    best = np.argsort(votes)[::-1][:2]
    assert found.labels.tolist() == best.tolist()
    np.testing.assert_allclose(found.scores, np.array(votes)[best], atol=1e-5)
    for row, label in enumerate(best):
        own = [c for c in every if c[2] == label][:20]
        _, _, box, _ = merge(*zip(*own, strict=True), threshold=threshold_of(0.5))[0]
        np.testing.assert_allclose(found.boxes[row], box.clip(0, [*shape[::-1]] * 2), atol=0.05)
    assert few.localise([image, image], top=9)[1].count == 3
    (best_window,) = few.localise(image, top=1, merge="nms")
    first = next(c for c in every if c[2] == best[0])
    np.testing.assert_allclose(
        best_window.boxes[0], first[0].clip(0, [*shape[::-1]] * 2), atol=0.05
    )


@pytest.mark.parametrize(("overlap", "goes"), [(None, False), (0.5, False), (0.4, True)])
def test_of_merged_boxes_of_a_class_one_that_overlaps_a_better_one_goes(overlap, goes):
    """Two of class 0 have an IoU of 6/14 = 0.43, too little to merge; the others' class is another.

    The second and the third are one box, of the sum 0.7.
    """
    model = small.overfeat(suppress_overlap=overlap)
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [4, 0, 14, 10], [4, 0, 14, 10]], "f4")
    scores, labels = np.array([0.5, 0.4, 0.3, 0.9], "f4"), np.array([0, 0, 0, 1], "i4")
    found = model.combined(
        Candidates(boxes[None], scores[None], labels[None]), score_threshold=0.01
    )
    found = [ops.convert_to_numpy(array)[0] for array in found]
    expected = [(1, 0.9), (0, 0.7)] if goes else [(1, 0.9), (0, 0.7), (0, 0.5)]
    count = found[3]
    assert found[2][:count].tolist() == [label for label, _ in expected]
    sums = [total / (1 + total) for _, total in expected]
    np.testing.assert_allclose(found[1][:count], sums, rtol=1e-5)


def test_boxes_merge_from_the_models_overlap_on_where_none_is_said():
    """An IoU of 6/14 = 0.43 is one side by side, of the sum 0.9."""
    boxes = np.array([[[0, 0, 10, 10], [4, 0, 14, 10]]], "f4")
    candidates = Candidates(boxes, np.array([[0.5, 0.4]], "f4"), np.array([[0, 0]], "i4"))
    for own, said, count in ((0.4, None, 1), (0.45, None, 2), (0.4, 0.45, 2), (0.45, 0.4, 1)):
        model = small.overfeat(merge_overlap=own)
        found = model.combined(candidates, score_threshold=0.01, iou_threshold=said)
        assert ops.convert_to_numpy(found.count).tolist() == [count]


def shares(model, images):
    """(B, h, w, K) probabilities."""
    outputs = raw(model, images)
    logits = np.concatenate([outputs["classes"], outputs["background"]], axis=-1)
    return (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True))[..., :3]


@pytest.mark.parametrize("shape", [(80, 130), (130, 80)], ids=["lying", "upright"])
@pytest.mark.parametrize("flips", [True, False])
def test_classification_is_the_mean_over_scales_of_the_best_window(few, shape, flips):
    image = noise(*shape, 3)
    sizes = [(52, 64), (64, 96)] if shape == (80, 130) else [(64, 52), (96, 64)]
    votes = []
    for size in sizes:
        seen = warp(image, size)[None]
        for view in (seen, seen[:, :, ::-1])[: 2 if flips else 1]:
            votes.append(shares(few, view)[0].max(axis=(0, 1)))
    votes = np.mean(votes, axis=0)
    (found,) = few.classify(image, flips=flips, top=2)
    best = np.argsort(-votes)[:2]
    assert found.labels.tolist() == best.tolist()
    np.testing.assert_allclose(found.probabilities, votes[best], atol=1e-5)
    assert found.names == [small.CLASS_NAMES[label] for label in best]


def test_ten_views_are_the_other_way_to_classify(few):
    image = noise(70, 90, 3)
    expected = shares(few, ten_views(image, 48)).mean(axis=(0, 1, 2))
    (found,) = few.classify(image, views="ten")
    np.testing.assert_allclose(found.probabilities, np.sort(expected)[::-1], atol=1e-5)
    with pytest.raises(InputError, match="views wants scales or ten, not 'one'"):
        few.classify(image, views="one")


# ---------------------------------------------------------------------- bad input


def test_what_is_smaller_than_the_window_is_refused_in_one_sentence(model):
    sentence = "windows of 48x48 pixels, and an image of {} has no room for one"
    with pytest.raises(InputError, match=sentence.format("47x96")):
        model.image_size = (47, 96)
    with pytest.raises(InputError, match=sentence.format("64x40")):
        model.scales = [(64, 96), (64, 40)]
    with pytest.raises(InputError, match=sentence.format("30x30")):
        model.detect(noise(64, 96, 3), scales=[(30, 30)])
    with pytest.raises(InputError, match=sentence.format("40x96")):
        model(noise(1, 40, 96, 3))
    with pytest.raises(InputError, match=sentence.format("40x96")):
        model.assign(small.four_images().targets, noise(4, 40, 96, 3))
    with pytest.raises(InputError, match="231x231 pixels, and an image of 200x200"):
        OverFeat(network="fast", image_size=200, **NARROW)
    assert model.detect(noise(5, 9, 3))[0].boxes.shape[1] == 4  # a photo may be of any size


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_sizes_of_training_below_the_window_are_refused_before_it_starts(kind):
    made = small.overfeat()
    if kind == "classifier":
        made = Classifier(num_classes=3, network=small.OVERFEAT, stddev=None)
    settings = {"multi_scale_every": 1, "shard": None}
    assert planned(made, 1, multi_scale=(64, 48), **settings).sizes == ((64, 64), (48, 48))
    with pytest.raises(
        InputError, match="windows of 48x48 pixels, and an image of 40x40 has no room"
    ):
        planned(made, 1, multi_scale=(64, 40), **settings)


@pytest.mark.parametrize("scales", [(), 64, "all", [64.5], [(64, 96, 3)], [(0, 64)]])
def test_scales_that_are_none_are_refused(scales, model):
    with pytest.raises(InputError, match=r"scales wants|image_size wants"):
        model.scales = scales
    assert model.scales == ((64, 96),)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"task": "everything"}, "task wants one of localisation, detection, not 'everything'"),
        ({"merge": "soft"}, "merge wants one of greedy, nms, not 'soft'"),
        ({"network": "slow"}, "network of fast, accurate, not 'slow'"),
        ({"classes_per_scale": 0}, "classes_per_scale wants a whole number from 1, not 0"),
        ({"max_candidates": 2.5}, "max_candidates wants a whole number from 1, not 2.5"),
        ({"candidate_score": "a"}, "candidate_score wants a number in 0..1, not 'a'"),
        ({"merge_overlap": -0.1}, "merge_overlap wants a number in 0..1, not -0.1"),
        ({"merge_overlap": None}, "merge_overlap wants a number in 0..1, not None"),
        ({"suppress_overlap": 1.5}, "suppress_overlap wants a number in 0..1, not 1.5"),
        ({"suppress_overlap": "x"}, "suppress_overlap wants a number in 0..1, not 'x'"),
        ({"smallest": -1}, "smallest wants a number from 0 on, not -1"),
        ({"part": 2}, "part wants a number in 0..1, not 2"),
        ({"worst_negatives": -1}, "worst_negatives wants a whole number from 0, not -1"),
        ({"random_negatives": 1.5}, "random_negatives wants a whole number from 0, not 1.5"),
        ({"box_weight": float("nan")}, "box_weight wants a number from 0 on, not nan"),
        ({"resize": "letterbox"}, "warps photos to its scales, not by 'letterbox'"),
        ({"box_hidden": (8,)}, "box_hidden wants two numbers of channels"),
        ({"box_hidden": 8}, "box_hidden wants two numbers of channels, not 8"),
        ({"box_hidden": (8, 0)}, "box_hidden wants a whole number from 1, not 0"),
        ({"width": 0}, "width wants a positive number, not 0"),
        ({"width": "a"}, "width wants a positive number, not 'a'"),
        ({"stddev": -1}, "stddev wants a positive number, not -1"),
        ({"dropout": 1.0}, "dropout wants a number from 0 to below 1, not 1.0"),
        ({"scales": (60, 80)}, r"\[\(60, 80\)\] for one size, \[\(60, 60\), \(80, 80\)\] for two"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        small.overfeat(**arguments)


@pytest.mark.parametrize("overlap", [-1.0, -0.1, 1.1, float("nan")])
def test_an_overlap_that_is_none_is_refused(overlap, model):
    for look in (
        lambda: model.detect(noise(64, 96, 3), iou_threshold=overlap),
        lambda: model.decode(raw(model, noise(1, 64, 96, 3)), iou_threshold=overlap),
    ):
        with pytest.raises(
            InputError, match=f"iou_threshold wants a number in 0..1, not {overlap}"
        ):
            look()


@pytest.mark.parametrize("top", [0, -1, "a"])
def test_no_guesses_are_none_to_ask_for(top, model):
    for look in (model.localise, model.classify):
        with pytest.raises(InputError, match=f"top wants a whole number from 1, not {top!r}"):
            look(noise(64, 96, 3), top=top)


def test_an_image_without_room_for_a_window_is_refused_by_that_sentence_alone(model):
    classifier = Classifier(num_classes=3, network=small.OVERFEAT, stddev=None, name="overfeat")
    for network in (model, classifier):
        with pytest.raises(InputError) as refused:
            network(noise(1, 40, 96, 3))
        assert str(refused.value).lower() == (
            "overfeat looks at windows of 48x48 pixels, and an image of 40x96 has no room for one."
        )


def test_scales_that_want_more_memory_than_there_is_are_refused_before_they_take_it(
    model, monkeypatch
):
    """Of a million by a million pixels the regressor's first layer, of 64 channels, and its ReLU.

    Each of the four offsets has 125,000 cells a side, and 5 fewer outputs.
    """
    peak = memory.PEAK[keras.backend.backend()] * 2 * 4 * (125_000 - 5) ** 2 * 64 * 4
    photo = noise(64, 96, 3)
    for look, images in ((model.detect, 1), (model.localise, 1), (model.classify, 2)):
        wanted = (images * peak + memory.SPARE) / 2**30
        with pytest.raises(
            InputError, match=rf"1000000x1000000 pixels wants about {wanted:.1f} GiB .* are free"
        ):
            look(photo, scales=[(64, 96), (1_000_000, 1_000_000)])
    monkeypatch.setattr(memory, "available", lambda: 40_000)
    with pytest.raises(InputError, match=r"64x96 pixels wants about \d+ MiB .* 0 MiB are free"):
        model.detect(photo)
    with pytest.raises(InputError, match=r"10 images of 48x48 pixels wants about \d+ MiB"):
        model.classify(photo, views="ten")


def test_fewer_images_at_once_where_memory_is_short(few, monkeypatch):
    photos = [noise(80, 130, 3, seed=i) for i in range(5)]
    expected = few.detect(photos)
    two = few._memory.bytes(2, 64, 96)
    assert two < few._memory.bytes(3, 64, 96)
    monkeypatch.setattr(memory, "available", lambda: two)
    for found, one in zip(few.detect(photos), expected, strict=True):
        np.testing.assert_allclose(found.boxes, one.boxes, atol=1e-2)
    assert few._memory.images_at_once(few.scales, 8) == 2


# ---------------------------------------------------------------------- saving


def test_what_was_set_and_thawed_is_saved(tmp_path):
    model = small.overfeat(task="localisation", boxes_per_class=True, scales=[(52, 64), (64, 96)])
    model.fine, model.merge = False, "nms"
    model.get_layer("conv1").trainable = True
    model.save(tmp_path / "it.keras")
    revived = keras.saving.load_model(tmp_path / "it.keras")
    assert (revived.task, revived.fine, revived.merge) == ("localisation", False, "nms")
    assert revived.scales == ((52, 64), (64, 96))
    assert revived.layout == small.OVERFEAT
    assert moved(revived)[0] == moved(model)[0] == {"conv1", *REGRESSOR}
    assert [v.path for v in revived.trainable_variables] == [
        v.path for v in model.trainable_variables
    ]
    assert revived.get_config() == model.get_config()


def test_its_config_is_json():
    config = small.overfeat(scales=[(52, 64)]).get_config()
    revived = OverFeat.from_config(json.loads(json.dumps(config)))
    assert revived.scales == ((52, 64),)
    assert revived.layout == small.OVERFEAT


def test_sizes_left_out_are_the_papers_third_scale_or_in_its_proportion():
    model = OverFeat(network="accurate", **NARROW)
    assert model.image_size == (317, 389)
    assert model.scales == ((317, 389),)
    assert small.overfeat(image_size=None).image_size == (66, 81)  # 317 * 48 / 231, 389 * 48 / 231
