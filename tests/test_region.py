"""The region layer against loops written from darknet's region_layer.c, and by hand."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet import region
from kerasdet.errors import InputError
from tests import backend, oracles

ROWS, COLUMNS, CLASSES = 3, 5, 4
PRIORS = [(1.0, 1.5), (2.5, 0.75), (3.0, 4.0)]
HEIGHT, WIDTH = ROWS * 32, COLUMNS * 32


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def box(centre_x, centre_y, width, height):
    return [
        centre_x - width / 2,
        centre_y - height / 2,
        centre_x + width / 2,
        centre_y + height / 2,
    ]


def raw_outputs(seed, images=1):
    """With objectness and classes spread out, and boxes near their priors."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(images, ROWS, COLUMNS, len(PRIORS), 5 + CLASSES))
    raw[..., 2:4] *= 0.4
    return raw.astype("float32")


# Image 0: two objects that meet in cell (1, 2) at the first prior, the second of them twice as
# high, and a wide one; image 1: nothing; image 2: one that a box is laid on below.
TARGETS = {
    "boxes": np.array(
        [
            [box(70, 50, 30, 40), box(75, 40, 35, 60), box(20, 80, 90, 20), box(0, 0, 0, 0)],
            [box(0, 0, 0, 0)] * 4,
            [box(110, 70, 60, 50), box(0, 0, 0, 0), box(0, 0, 0, 0), box(0, 0, 0, 0)],
        ],
        "float32",
    ),
    "labels": np.array([[2, 0, 3, -1], [-1] * 4, [1, -1, -1, -1]], "int32"),
}


def outputs_with_a_good_box():
    """The third image's cell (2, 3) predicts its object with prior 1, while prior 0 answers for it."""
    raw = raw_outputs(1, images=3)
    raw[2, 2, 3, 1, :4] = 0, -1.4, math.log(58 / 80), math.log(52 / 24)
    return raw


def darknet_deltas(raw, boxes, labels, *, seen, settings):
    """One image's `l.delta` after forward_region_layer, and what backward passes down.

    Indices are [row, column, anchor, entry]; truth boxes are relative, as darknet's.
    """
    out = raw.astype("float64")
    rows, columns, anchors, size = out.shape
    for index in np.ndindex(rows, columns, anchors):
        for entry in (0, 1, 4):
            out[(*index, entry)] = sigmoid(out[(*index, entry)])
        odds = np.exp(out[index][5:])
        out[index][5:] = odds / odds.sum()
    delta = np.zeros_like(out)

    def get_region_box(j, i, n):
        x, y, w, h = out[j, i, n, :4]
        width, height = PRIORS[n]
        return (
            (i + x) / columns,
            (j + y) / rows,
            math.exp(w) * width / columns,
            math.exp(h) * height / rows,
        )

    def box_iou(one, other):
        one, other = (np.array(box(*b)) * 1000 for b in (one, other))
        return float(oracles.iou(one, other))

    def delta_region_box(truth, j, i, n, scale):
        width, height = PRIORS[n]
        wanted = (
            truth[0] * columns - i,
            truth[1] * rows - j,
            math.log(truth[2] * columns / width),
            math.log(truth[3] * rows / height),
        )
        delta[j, i, n, :4] = scale * (np.array(wanted) - out[j, i, n, :4])
        return box_iou(get_region_box(j, i, n), truth)

    truths = [
        (
            (b[0] + b[2]) / 2 / WIDTH,
            (b[1] + b[3]) / 2 / HEIGHT,
            (b[2] - b[0]) / WIDTH,
            (b[3] - b[1]) / HEIGHT,
        )
        for b in boxes[labels >= 0].astype("float64")
    ]
    for j, i, n in np.ndindex(rows, columns, anchors):
        best = max((box_iou(get_region_box(j, i, n), truth) for truth in truths), default=0)
        delta[j, i, n, 4] = settings.no_object_scale * (0 - out[j, i, n, 4])
        if best > settings.ignore_iou:
            delta[j, i, n, 4] = 0
        if seen < 12800:
            width, height = PRIORS[n]
            prior = ((i + 0.5) / columns, (j + 0.5) / rows, width / columns, height / rows)
            delta_region_box(prior, j, i, n, 0.01)
    for truth, label in zip(truths, labels[labels >= 0], strict=True):
        i, j = int(truth[0] * columns), int(truth[1] * rows)
        best, best_n = 0, 0
        for n, (width, height) in enumerate(PRIORS):
            iou = box_iou((0, 0, width / columns, height / rows), (0, 0, *truth[2:]))
            if iou > best:
                best, best_n = iou, n
        share = truth[2] * truth[3] if settings.weigh_small else 1
        iou = delta_region_box(truth, j, i, best_n, settings.coordinate_scale * (2 - share))
        wanted = iou if settings.rescore else 1
        delta[j, i, best_n, 4] = settings.object_scale * (wanted - out[j, i, best_n, 4])
        onehot = np.arange(size - 5) == label
        delta[j, i, best_n, 5:] = settings.class_scale * (onehot - out[j, i, best_n, 5:])
    passed = delta.copy()  # backward_region_layer_gpu: gradient_array_ongpu on x, y and objectness
    for entry in (0, 1, 4):
        passed[..., entry] *= out[..., entry] * (1 - out[..., entry])
    return delta, passed


def terms_of(raw, boxes, labels, *, seen=None, settings=None):
    assigned = region.assign_objects(boxes, labels, PRIORS, (ROWS, COLUMNS))
    return region.region_loss(raw, assigned, PRIORS, settings=settings, images_seen=seen)


def loss_of(raw, boxes, labels, *, seen=None, settings=None):
    """The mean over the images."""
    terms = terms_of(raw, boxes, labels, seen=seen, settings=settings)
    return sum(ops.mean(term) for term in terms)


@pytest.mark.parametrize(
    ("seen", "settings"),
    [
        (12_800, region.RegionSettings()),
        (12_799, region.RegionSettings()),
        (0, region.RegionSettings(rescore=False, weigh_small=False, ignore_iou=0.3)),
        (10**6, region.RegionSettings(3.0, 0.5, 0.7, 2.0, weigh_small=False)),
    ],
)
def test_gradients_are_darknets_deltas(seen, settings):
    """Of the mean over three images; darknet divides the learning rate by the batch."""
    raw = outputs_with_a_good_box()
    boxes, labels = TARGETS["boxes"], TARGETS["labels"]
    (found,) = backend.gradients(
        lambda raw: loss_of(raw, boxes, labels, seen=seen, settings=settings), raw
    )
    expected = [
        -darknet_deltas(*image, seen=seen, settings=settings)[1] / 3
        for image in zip(raw, boxes, labels, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-6)


def test_every_branch_of_the_loops_was_entered():
    """The targets above do what they are there for."""
    raw, (boxes, labels) = outputs_with_a_good_box(), TARGETS.values()
    assigned = region.assign_objects(boxes, labels, PRIORS, (ROWS, COLUMNS))
    slot, owns = ops.convert_to_numpy(assigned.slot), ops.convert_to_numpy(assigned.owns)
    assert slot[0, 0] == slot[0, 1] == (1 * COLUMNS + 2) * 3 + 0
    assert owns.tolist() == [[False, True, True, False], [False] * 4, [True, False, False, False]]
    delta, _ = darknet_deltas(
        raw[2], boxes[2], labels[2], seen=20_000, settings=region.RegionSettings()
    )
    silent = np.argwhere(delta[..., 4] == 0).tolist()
    assert silent == [[2, 3, 1]], "one box without an object overlaps one by more than 0.6"
    assert slot[2, 0] == (2 * COLUMNS + 3) * 3 + 0, "which another box of its cell owns"


def test_terms_are_half_the_squared_deltas_over_their_scales():
    raw, (boxes, labels) = outputs_with_a_good_box(), TARGETS.values()
    settings = region.RegionSettings()
    assigned = region.assign_objects(boxes, labels, PRIORS, (ROWS, COLUMNS))
    terms = backend.call(terms_of, raw, boxes, labels, seen=7)
    found = {name: ops.convert_to_numpy(value) for name, value in terms._asdict().items()}
    slot, owns = ops.convert_to_numpy(assigned.slot), ops.convert_to_numpy(assigned.owns)
    for image in range(3):
        delta, _ = darknet_deltas(
            raw[image], boxes[image], labels[image], seen=7, settings=settings
        )
        delta = delta.reshape(-1, 5 + CLASSES)
        logits = raw[image].reshape(-1, 5 + CLASSES)[:, 5:].astype("float64")
        objects = {slot[image, g]: g for g in range(4) if owns[image, g]}
        without = [n for n in range(len(delta)) if n not in objects]
        expected = dict.fromkeys(found, 0.0)
        for n, g in objects.items():
            x1, y1, x2, y2 = boxes[image, g].astype("float64")
            scale = 2 - (x2 - x1) * (y2 - y1) / (HEIGHT * WIDTH)
            expected["coordinates"] += (delta[n, :4] ** 2).sum() / scale / 2
            expected["objectness"] += delta[n, 4] ** 2 / 5 / 2
            expected["classes"] += np.log(np.exp(logits[n]).sum()) - logits[n, labels[image, g]]
        expected["no_object"] = (delta[without, 4] ** 2).sum() / 2
        expected["prior"] = (delta[without, :4] ** 2).sum() / 0.01 / 2
        for name, value in expected.items():
            assert found[name][image] == pytest.approx(value, rel=2e-4, abs=1e-7), (name, image)


def test_an_image_without_objects_pays_for_its_objectness_alone():
    raw = np.zeros((1, ROWS, COLUMNS, 3, 5 + CLASSES), "float32")
    empty = np.zeros((1, 0, 4), "float32"), np.zeros((1, 0), "int32")
    terms = backend.call(terms_of, raw, *empty)
    assert float(terms.no_object[0]) == pytest.approx(ROWS * COLUMNS * 3 * 0.5**2 / 2)
    assert [float(t[0]) for t in terms if t is not terms.no_object] == [0] * 4


def test_the_pull_to_the_priors_ends_with_image_12800():
    raw = raw_outputs(4)
    empty = TARGETS["boxes"][1:2], TARGETS["labels"][1:2]
    found = [
        float(backend.call(terms_of, raw, *empty, seen=seen).prior[0])
        for seen in (1, 12_799, 12_800)
    ]
    offsets = np.concatenate([1 / (1 + np.exp(-raw[..., :2])) - 0.5, raw[..., 2:4]], axis=-1)
    assert found == pytest.approx([0.01 / 2 * (offsets**2).sum()] * 2 + [0], rel=1e-4)


def test_classes_are_scored_by_the_callers_function_at_the_objects_own_boxes():
    raw = raw_outputs(5, images=3)
    assigned = region.assign_objects(*TARGETS.values(), PRIORS, (ROWS, COLUMNS))
    seen = []

    def first_logit(logits, labels):
        seen.append((ops.convert_to_numpy(logits), ops.convert_to_numpy(labels)))
        return logits[..., 0]

    terms = region.region_loss(raw, assigned, PRIORS, class_loss=first_logit)
    logits, labels = seen[0]
    assert logits.shape == (3, 4, CLASSES)
    assert labels.tolist() == [[2, 0, 3, 0], [0] * 4, [1, 0, 0, 0]]
    np.testing.assert_array_equal(logits[0, 1], raw[0, 1, 2, 0, 5:])
    np.testing.assert_array_equal(logits[2, 0], raw[2, 2, 3, 0, 5:])
    own = raw[0, 1, 2, 0, 5] + raw[0, 2, 0, 1, 5], 0, raw[2, 2, 3, 0, 5]
    np.testing.assert_allclose(ops.convert_to_numpy(terms.classes), own, rtol=1e-6)


# ---------------------------------------------------------------------- targets


def assign(boxes, labels, *, location="direct"):
    return region.assign_objects(boxes, labels, PRIORS, (ROWS, COLUMNS), location=location)


def assigned_to(boxes, labels=None, **options):
    boxes = np.array([boxes], "float32")
    labels = np.zeros(boxes.shape[:2], "int32") if labels is None else np.array([labels], "int32")
    found = backend.call(assign, boxes, labels, **options)
    return region.AssignedObjects(*(ops.convert_to_numpy(value)[0] for value in found))


def test_an_object_by_hand():
    """Centre (106, 40) in cell (1, 3); 72x28 pixels are nearest to the second prior, 80x24."""
    found = assigned_to([box(106, 40, 72, 28)])
    assert found.slot.tolist() == [(1 * COLUMNS + 3) * 3 + 1]
    expected = [106 / 32 - 3, 40 / 32 - 1, math.log(72 / 80), math.log(28 / 24)]
    np.testing.assert_allclose(found.offsets[0], expected, rtol=1e-5)
    assert found.share[0] == pytest.approx(72 * 28 / (96 * 160))


def test_an_object_by_hand_as_an_offset_from_its_prior():
    found = assigned_to([box(106, 40, 72, 28)], location="offset")
    expected = [(106 - 112) / 80, (40 - 48) / 24, math.log(72 / 80), math.log(28 / 24)]
    np.testing.assert_allclose(found.offsets[0], expected, rtol=1e-5)


def test_centres_on_and_past_the_edge_belong_to_the_last_cell():
    found = assigned_to([box(160, 96, 32, 48), box(-3, 200, 32, 48)])
    assert (found.slot // 3).tolist() == [2 * COLUMNS + 4, 2 * COLUMNS + 0]


def test_of_equally_near_priors_the_first_answers():
    tied = [(2.0, 1.0), (1.0, 2.0)]
    square = np.array([[box(16, 16, 48, 48)]], "float32")
    found = region.assign_objects(square, np.zeros((1, 1), "int32"), tied, (ROWS, COLUMNS))
    assert int(found.slot[0, 0]) == 0


def test_padding_may_stand_anywhere_and_hold_anything():
    real, rubbish = box(106, 40, 72, 28), box(106, 40, 72, 28)
    found = assigned_to([rubbish, real, rubbish, [math.inf, 7, -3, 0]], [-1, 2, -1, -1])
    assert found.owns.tolist() == [False, True, False, False]
    raw = raw_outputs(6)
    boxes, labels = np.array([[rubbish, real, rubbish]], "float32"), np.array([[-1, 2, -1]])
    alone = np.array([[real]], "float32"), np.array([[2]])
    found, expected = (
        float(backend.call(loss_of, raw, *both, seen=1)) for both in ((boxes, labels), alone)
    )
    assert found == pytest.approx(expected)


def test_more_than_darknets_30_objects_count():
    boxes = [
        box(16 + 32 * column, 16 + 32 * row, 32 * width, 32 * height)
        for width, height in PRIORS
        for row in range(ROWS)
        for column in range(COLUMNS)
    ]
    found = assigned_to(boxes)
    assert found.owns.all()
    assert sorted(found.slot) == list(range(45))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX knows every shape")
def test_grid_and_number_of_rows_may_change_without_a_new_trace():
    import tensorflow as tf

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 3, 5 + CLASSES)),
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None, None), tf.int32),
        ]
    )
    def loss(raw, boxes, labels):
        assigned = region.assign_objects(boxes, labels, PRIORS, tf.unstack(tf.shape(raw)[1:3]))
        return sum(ops.mean(t) for t in region.region_loss(raw, assigned, PRIORS, images_seen=5))

    for rows in (4, 1, 0):
        raw = raw_outputs(rows, images=3)
        boxes, labels = TARGETS["boxes"][:, :rows], TARGETS["labels"][:, :rows]
        expected = float(loss_of(raw, boxes, labels, seen=5))
        assert float(loss(raw, boxes, labels)) == pytest.approx(expected, rel=1e-5)
    larger = np.tile(raw_outputs(9, images=3), (1, 2, 1, 1, 1))
    assert np.isfinite(float(loss(larger, *TARGETS.values())))
    assert loss.experimental_get_tracing_count() == 1


# ---------------------------------------------------------------------- boxes


def test_boxes_by_hand():
    """Cell (1, 3), second prior of 80x24 pixels; sigmoid(0) = 0.5, sigmoid(ln 3) = 0.75."""
    raw = np.zeros((1, ROWS, COLUMNS, 3, 5), "float32")
    raw[0, 1, 3, 1, :4] = math.log(3), 0, math.log(2), -math.log(2)
    found = ops.convert_to_numpy(backend.call(region.decode_boxes, raw, np.array(PRIORS)))
    np.testing.assert_allclose(found[0, 1, 3, 1], box(3.75 * 32, 1.5 * 32, 160, 12), rtol=1e-5)
    np.testing.assert_allclose(found[0, 2, 0, 2], box(0.5 * 32, 2.5 * 32, 96, 128), rtol=1e-5)


def test_offset_boxes_by_hand():
    raw = np.zeros((1, ROWS, COLUMNS, 3, 5), "float32")
    raw[0, 1, 3, 1, :4] = 2, -1, 0, 0
    found = ops.convert_to_numpy(region.decode_boxes(raw, PRIORS, location="offset"))
    expected = box(3.5 * 32 + 2 * 80, 1.5 * 32 - 24, 80, 24)
    np.testing.assert_allclose(found[0, 1, 3, 1], expected, rtol=1e-5)


@pytest.mark.parametrize("location", region.LOCATIONS)
def test_an_objects_offsets_decode_to_its_box(location):
    assigned = assigned_to([box(106, 40, 72, 28)], location=location)
    raw = np.zeros((1, ROWS, COLUMNS, 3, 5), "float32")
    tx, ty, tw, th = assigned.offsets[0]
    if location == "direct":
        tx, ty = (math.log(t / (1 - t)) for t in (tx, ty))
    raw.reshape(-1, 5)[assigned.slot[0], :4] = tx, ty, tw, th
    found = ops.convert_to_numpy(region.decode_boxes(raw, PRIORS, location=location))
    np.testing.assert_allclose(
        found.reshape(-1, 4)[assigned.slot[0]], box(106, 40, 72, 28), rtol=1e-4
    )


def test_a_wild_size_stays_finite():
    raw = np.full((1, 1, 1, 3, 5), 1e4, "float32")
    assert np.isfinite(ops.convert_to_numpy(region.decode_boxes(raw, PRIORS))).all()


def test_prior_boxes_stand_around_the_middles_of_the_cells():
    found = region.prior_boxes(PRIORS, (HEIGHT, WIDTH))
    assert found.shape == (ROWS * COLUMNS * 3, 4)
    expected = box(3.5 * 32, 1.5 * 32, 2.5 * 32, 0.75 * 32)
    np.testing.assert_allclose(found[(1 * COLUMNS + 3) * 3 + 1], expected)


@pytest.mark.parametrize(
    "priors",
    [[(1, 0)], [(1, -2)], [(1, math.nan)], [1, 2], [], "large", [(1, 2), (3,)], [[1, 2, 3]]],
)
def test_anchors_that_are_no_positive_pairs_are_refused(priors):
    with pytest.raises(InputError, match="anchors want pairs of a positive width and height"):
        region.checked_priors(priors)
