"""YOLO v1's targets, loss, gradient and decoding against darknet's loops and numbers by hand."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.detectors.yolo_v1 import YOLOv1
from kerasdet.errors import InputError
from tests import backend, small

HEIGHT, WIDTH = 60, 100  # cells of 20x20 pixels on a grid of three rows and five columns
ROWS, COLUMNS, CLASSES, PER_CELL = 3, 5, 3, 2


def numpy(tree):
    return keras.tree.map_structure(ops.convert_to_numpy, tree)


def trunk(height=HEIGHT, width=WIDTH):
    image = keras.Input((height, width, 3))
    return keras.Model(image, keras.layers.AveragePooling2D(20)(image), name="pooled")


def build(**changes):
    """One connected layer on the image's pooled cells."""
    arguments = {
        "class_names": small.CLASS_NAMES,
        "backbone": trunk(),
        "head": "direct",
        "grid": (ROWS, COLUMNS),
        **changes,
    }
    return YOLOv1(**arguments)


@pytest.fixture(scope="module")
def yolo():
    return build()


# ---------------------------------------------------------------------- darknet's loops


def fill_truth(boxes, labels):
    """One image's truth (data.c, fill_truth_region): [object, classes ..., x, y, w, h] a cell."""
    truth = np.zeros((ROWS * COLUMNS, 1 + CLASSES + 4), "float32")
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        if label < 0:
            continue
        x, y = (x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT
        w, h = (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT
        if w < 0.005 or h < 0.005:
            continue
        column, row = int(x * COLUMNS), int(y * ROWS)
        cell = truth[column + row * COLUMNS]
        if cell[0]:
            continue
        cell[0], cell[1 + label] = 1, 1
        cell[1 + CLASSES :] = x * COLUMNS - column, y * ROWS - row, w, h
    return truth


def box_iou(a, b):
    """box.c, on (x, y, w, h)."""
    sides = []
    for k in (0, 1):
        left = max(a[k] - a[k + 2] / 2, b[k] - b[k + 2] / 2)
        right = min(a[k] + a[k + 2] / 2, b[k] + b[k + 2] / 2)
        sides.append(right - left)
    intersection = 0.0 if min(sides) < 0 else sides[0] * sides[1]
    return intersection / (a[2] * a[3] + b[2] * b[3] - intersection)


def detection_layer(output, truth):
    """One image's deltas, terms of half the squared deltas, and responsible boxes.

    Written from forward_detection_layer (detection_layer.c), softmax=0, sqrt=1, rescore=1.

    Args:
        output: flat, all classes, all confidences, all boxes.
        truth: what `fill_truth` gives.
    """
    cells = ROWS * COLUMNS
    delta = np.zeros_like(output, "float64")
    terms = dict.fromkeys(YOLOv1.loss_names, 0.0)
    responsible = {}
    for i in range(cells):
        confidence = cells * CLASSES + i * PER_CELL
        for j in range(PER_CELL):
            delta[confidence + j] = 0.5 * (0 - output[confidence + j])
        if not truth[i, 0]:
            continue
        for j in range(CLASSES):
            delta[i * CLASSES + j] = truth[i, 1 + j] - output[i * CLASSES + j]
        x, y, w, h = (float(number) for number in truth[i, 1 + CLASSES :])
        wanted = (x / COLUMNS, y / ROWS, w, h)
        best, best_iou, best_rmse = -1, 0.0, 20.0
        overlaps = []
        for j in range(PER_CELL):
            at = cells * (CLASSES + PER_CELL) + (i * PER_CELL + j) * 4
            px, py, pw, ph = (float(number) for number in output[at : at + 4])
            out = (px / COLUMNS, py / ROWS, pw * pw, ph * ph)
            iou = box_iou(out, wanted)
            rmse = math.sqrt(sum((a - b) ** 2 for a, b in zip(out, wanted, strict=True)))
            overlaps.append(iou)
            if best_iou > 0 or iou > 0:
                if iou > best_iou:
                    best, best_iou = j, iou
            elif rmse < best_rmse:
                best, best_rmse = j, rmse
        responsible[i] = (best, overlaps[best])
        delta[confidence + best] = 1.0 * (overlaps[best] - output[confidence + best])
        at = cells * (CLASSES + PER_CELL) + (i * PER_CELL + best) * 4
        for k, goal in enumerate((x, y, math.sqrt(w), math.sqrt(h))):
            delta[at + k] = 5 * (goal - output[at + k])
    # A delta is its weight times an error: half the squared error, weighed, is delta**2 / weight / 2.
    for place, value in enumerate(delta):
        if place < cells * CLASSES:
            terms["classes"] += value**2 / 2
        elif place < cells * (CLASSES + PER_CELL):
            i, j = divmod(place - cells * CLASSES, PER_CELL)
            mine = i in responsible and responsible[i][0] == j
            terms["object" if mine else "no_object"] += value**2 / 2 / (1 if mine else 0.5)
        else:
            term = "centre" if (place - cells * (CLASSES + PER_CELL)) % 4 < 2 else "size"
            terms[term] += value**2 / 2 / 5
    return delta, terms, responsible


def planar(output):
    """Flat outputs (B, ...) to the model's maps."""
    cells = ROWS * COLUMNS
    classes, confidence, boxes = np.split(
        output, [cells * CLASSES, cells * (CLASSES + PER_CELL)], 1
    )
    return {
        "classes": classes.reshape(-1, ROWS, COLUMNS, CLASSES),
        "confidence": confidence.reshape(-1, ROWS, COLUMNS, PER_CELL),
        "boxes": boxes.reshape(-1, ROWS, COLUMNS, PER_CELL, 4),
    }


def batch():
    """Three images: five objects (two in one cell, one too thin), none, and one at the far corner."""
    boxes = np.array(
        [
            [
                [2, 3, 28, 31],
                [10, 10, 21, 25],
                [63, 22, 99, 38],
                [50, 50, 50.2, 58],
                [40, 41, 44, 59],
            ],
            [[0, 0, 0, 0]] * 5,
            [[81, 41, 100, 60], *[[0, 0, 0, 0]] * 4],
        ],
        "float32",
    )
    labels = np.array([[1, 2, 0, 1, 2], [-1] * 5, [2, -1, -1, -1, -1]], "int32")
    return {"boxes": boxes, "labels": labels}


# ---------------------------------------------------------------------- targets


def test_targets_are_what_darknet_writes(yolo):
    targets = batch()
    found = numpy(backend.call(yolo.assign, targets))
    for image in range(3):
        truth = fill_truth(targets["boxes"][image], targets["labels"][image])
        cells = truth.reshape(ROWS, COLUMNS, -1)
        np.testing.assert_array_equal(found["object"][image], cells[..., 0] == 1)
        one_hot = np.eye(CLASSES)[found["label"][image]] * cells[..., :1]
        np.testing.assert_array_equal(one_hot, cells[..., 1 : 1 + CLASSES])
        np.testing.assert_allclose(found["boxes"][image], cells[..., 1 + CLASSES :], atol=1e-5)
    assert found["object"].sum(axis=(1, 2)).tolist() == [3, 0, 1]


def test_a_target_by_hand(yolo):
    """Centre (81, 30), 36x16 pixels: 1 of 20 pixels into column 4, half way down row 1."""
    found = numpy(backend.call(yolo.assign, batch()))
    np.testing.assert_allclose(found["boxes"][0, 1, 4], [1 / 20, 0.5, 36 / 100, 16 / 60], atol=1e-6)
    assert found["label"][0, 1, 4] == 0


def test_of_two_objects_in_a_cell_the_first_is_kept(yolo):
    """Both centres, (15, 17) and (15.5, 17.5), lie in the first cell."""
    found = numpy(backend.call(yolo.assign, batch()))
    assert found["label"][0, 0, 0] == 1
    np.testing.assert_allclose(found["boxes"][0, 0, 0, 2:], [26 / 100, 28 / 60], rtol=1e-6)


def test_objects_below_half_a_percent_are_left_out(yolo):
    """0.005 of 100 pixels is 0.5: a box of 0.4 is left out, one of 0.6 is not."""
    boxes = np.array([[[50, 50, 50.4, 58], [10, 10, 10.6, 18]]], "float32")
    targets = {"boxes": boxes, "labels": np.array([[1, 2]], "int32")}
    found = numpy(backend.call(yolo.assign, targets))
    assert found["label"][found["object"]].tolist() == [2]


def test_a_centre_on_the_far_edges_belongs_to_the_last_cell(yolo):
    boxes = np.array([[[90, 50, 110, 70]]], "float32")
    targets = {"boxes": boxes, "labels": np.array([[1]], "int32")}
    found = numpy(backend.call(yolo.assign, targets))
    assert np.argwhere(found["object"][0]).tolist() == [[2, 4]]
    np.testing.assert_allclose(found["boxes"][0, 2, 4, :2], [1, 1], atol=1e-5)


def test_targets_without_any_row_are_no_objects(yolo):
    targets = {"boxes": np.zeros((2, 0, 4), "float32"), "labels": np.zeros((2, 0), "int32")}
    found = numpy(backend.call(yolo.assign, targets))
    assert found["object"].shape == (2, ROWS, COLUMNS)
    assert not found["object"].any()


# ---------------------------------------------------------------------- loss


@pytest.mark.parametrize("spread", [0.15, 1.0], ids=["boxes that overlap", "boxes far off"])
def test_loss_and_gradient_are_darknets(yolo, spread):
    """The gradient by every output is its delta with the sign changed, over the three images."""
    rng = np.random.default_rng(4)
    targets = batch()
    count = ROWS * COLUMNS * (CLASSES + 5 * PER_CELL)
    output = (0.4 + rng.normal(size=(3, count)) * spread).astype("float32")
    output[0, -4 * PER_CELL :] = 3.0, 3.0, 0.1, 0.1, -2.5, 3.0, 0.1, 0.1
    deltas, overlapping, apart = [], 0, 0
    expected = dict.fromkeys(YOLOv1.loss_names, 0.0)
    for image in range(3):
        truth = fill_truth(targets["boxes"][image], targets["labels"][image])
        delta, terms, responsible = detection_layer(output[image], truth)
        deltas.append(delta)
        overlapping += sum(iou > 0 for _, iou in responsible.values())
        apart += sum(iou == 0 for _, iou in responsible.values())
        for name, value in terms.items():
            expected[name] += value / 3
    assert overlapping > 0
    assert apart > 0 or spread < 1, "the rule for boxes that overlap nothing must be seen"
    assigned = yolo.assign(targets)

    def total(classes, confidence, boxes):
        outputs = {"classes": classes, "confidence": confidence, "boxes": boxes}
        return sum(yolo.loss_terms(outputs, assigned).values())

    maps = planar(output)
    terms = numpy(backend.call(yolo.loss_terms, maps, assigned))
    assert set(terms) == set(YOLOv1.loss_names)
    for name, value in expected.items():
        assert value > 0
        assert terms[name] == pytest.approx(value, rel=1e-4), name
    slopes = backend.gradients(total, *maps.values())
    for found, wanted in zip(slopes, planar(-np.stack(deltas) / 3).values(), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_where_no_box_overlaps_the_nearest_is_responsible(yolo):
    """Box 1 lies three cells off, box 0 five; neither touches the object."""
    targets = {
        "boxes": np.array([[[42, 22, 58, 38]]], "float32"),
        "labels": np.array([[0]], "int32"),
    }
    boxes = np.zeros((1, ROWS, COLUMNS, PER_CELL, 4), "float32")
    boxes[0, 1, 2] = [[5.5, 0.5, 0.1, 0.1], [3.5, 0.5, 0.1, 0.1]]
    outputs = {
        "classes": np.zeros((1, ROWS, COLUMNS, CLASSES), "float32"),
        "confidence": np.full((1, ROWS, COLUMNS, PER_CELL), 0.5, "float32"),
        "boxes": boxes,
    }
    terms = numpy(backend.call(yolo.loss_terms, outputs, yolo.assign(targets)))
    assert terms["centre"] == pytest.approx(5 / 2 * 3**2)
    assert terms["object"] == pytest.approx(1 / 2 * (0 - 0.5) ** 2)
    assert terms["no_object"] == pytest.approx(0.5 / 2 * 29 * 0.5**2)  # all other boxes of 30


def test_confidence_learns_the_overlap(yolo):
    """The object is 20x20 pixels, the box above it 20x10: IoU 1/2."""
    targets = {
        "boxes": np.array([[[40, 20, 60, 40]]], "float32"),
        "labels": np.array([[0]], "int32"),
    }
    boxes = np.zeros((1, ROWS, COLUMNS, PER_CELL, 4), "float32")
    boxes[0, 1, 2, 1] = [
        0.5,
        0.5,
        math.sqrt(20 / 100),
        -math.sqrt(10 / 60),
    ]  # a root may be negative
    outputs = {
        "classes": np.zeros((1, ROWS, COLUMNS, CLASSES), "float32"),
        "confidence": np.zeros((1, ROWS, COLUMNS, PER_CELL), "float32"),
        "boxes": boxes,
    }
    terms = numpy(backend.call(yolo.loss_terms, outputs, yolo.assign(targets)))
    assert terms["object"] == pytest.approx(1 / 2 * 0.5**2, rel=1e-5)
    assert terms["classes"] == pytest.approx(1 / 2)


def test_what_no_object_reads_has_no_gradient_even_when_it_is_not_a_number(yolo):
    targets = batch()
    maps = planar(np.full((3, ROWS * COLUMNS * (CLASSES + 5 * PER_CELL)), 0.3, "float32"))
    maps["classes"][1], maps["boxes"][1] = np.nan, np.inf  # the image without objects
    assigned = yolo.assign(targets)

    def total(classes, boxes):
        outputs = {"classes": classes, "confidence": maps["confidence"], "boxes": boxes}
        return sum(yolo.loss_terms(outputs, assigned).values())

    for slope in backend.gradients(total, maps["classes"], maps["boxes"]):
        assert np.isfinite(slope).all()
        assert not slope[1].any()


# ---------------------------------------------------------------------- decode


def one_cell(row, column, *, classes, confidence, boxes):
    outputs = {
        "classes": np.zeros((1, ROWS, COLUMNS, CLASSES), "float32"),
        "confidence": np.zeros((1, ROWS, COLUMNS, PER_CELL), "float32"),
        "boxes": np.zeros((1, ROWS, COLUMNS, PER_CELL, 4), "float32"),
    }
    outputs["classes"][0, row, column] = classes
    outputs["confidence"][0, row, column] = confidence
    outputs["boxes"][0, row, column] = boxes
    return outputs


def test_detections_by_hand(yolo):
    """Cell (row 1, column 3) starts at (60, 20); sizes are squares of shares of 100x60 pixels."""
    outputs = one_cell(
        1,
        3,
        classes=[0.5, 0.0, 0.25],
        confidence=[0.8, 0.3],
        boxes=[[0.5, 0.25, 0.5, 0.5], [0.1, 0.5, -0.2, 0.6]],
    )
    found = numpy(backend.call(yolo.decode, outputs))
    assert found.count.tolist() == [4]
    big = [70 - 12.5, 25 - 7.5, 70 + 12.5, 25 + 7.5]  # 0.25 * 100 by 0.25 * 60, round (70, 25)
    thin = [62 - 2, 30 - 10.8, 62 + 2, 30 + 10.8]  # 0.04 * 100 by 0.36 * 60, round (62, 30)
    np.testing.assert_allclose(found.boxes[0, :4], [big, big, thin, thin], atol=1e-4)
    np.testing.assert_allclose(found.scores[0, :4], [0.4, 0.2, 0.15, 0.075], rtol=1e-6)
    assert found.labels[0, :4].tolist() == [0, 2, 0, 2]
    assert found.scores.shape == (1, 200)


def test_decoding_undoes_the_targets(yolo):
    targets = batch()
    assigned = numpy(backend.call(yolo.assign, targets))
    boxes = np.concatenate([assigned["boxes"][..., :2], np.sqrt(assigned["boxes"][..., 2:])], -1)
    outputs = {
        "classes": np.eye(CLASSES, dtype="float32")[assigned["label"]],
        "confidence": assigned["object"][..., None] * np.array([0.9, 0], "float32"),
        "boxes": np.repeat(boxes[..., None, :], PER_CELL, axis=3),
    }
    found = numpy(backend.call(yolo.decode, outputs))
    assert found.count.tolist() == [3, 0, 1]
    order = np.argsort(found.boxes[0, :3, 0])
    np.testing.assert_allclose(found.boxes[0, :3][order], targets["boxes"][0][[0, 4, 2]], atol=1e-3)
    assert found.labels[0, :3][order].tolist() == [1, 2, 0]
    np.testing.assert_allclose(found.boxes[2, 0], [81, 41, 100, 60], atol=1e-3)


def test_suppression_is_class_by_class_at_half(yolo):
    """Of two boxes with IoU 0.6 the better stays, in its class alone; scores end at 1."""
    outputs = one_cell(
        1,
        2,
        classes=[1.5, 0.0005, -0.2],
        confidence=[0.9, 0.5],
        boxes=[[0.5, 0.5, math.sqrt(0.2), 0.5], [0.5, 0.5, math.sqrt(0.12), 0.5]],
    )
    found = numpy(backend.call(yolo.decode, outputs))
    assert (found.count.tolist(), found.labels[0, 0]) == ([1], 0)  # 0.9 * 0.0005 is below 0.001
    assert found.scores[0, 0] == 1  # of 1.35
    both = numpy(backend.call(yolo.decode, outputs, iou_threshold=0.7))
    assert both.count.tolist() == [2]
    np.testing.assert_allclose(both.scores[0, 1], 0.75)


def test_boxes_are_cut_at_the_image(yolo):
    outputs = one_cell(
        0, 0, classes=[1, 0, 0], confidence=[0.9, 0], boxes=[[0.5, 0.5, 1.0, 2.0], [0, 0, 0, 0]]
    )
    found = numpy(backend.call(yolo.decode, outputs))
    np.testing.assert_allclose(
        found.boxes[0, 0], [0, 0, 60, 60]
    )  # 10 + 50, and 10 + 120 is too low


# ---------------------------------------------------------------------- network


def test_outputs_are_darknets_plan():
    """All classes cell by cell, then all confidences, then all boxes."""
    yolo = build()
    cells = ROWS * COLUMNS
    yolo.get_layer("connected1").set_weights(
        [np.zeros((3 * 5 * 3, cells * 13)), np.arange(cells * 13, dtype="float32")]
    )
    found = numpy(yolo(np.zeros((1, HEIGHT, WIDTH, 3), "float32")))
    row, column, box = 2, 1, 1
    cell = row * COLUMNS + column
    assert found["classes"][0, row, column].tolist() == [cell * 3, cell * 3 + 1, cell * 3 + 2]
    assert found["confidence"][0, row, column, box] == cells * 3 + cell * 2 + box
    first = cells * 5 + (cell * 2 + box) * 4
    assert found["boxes"][0, row, column, box].tolist() == [first, first + 1, first + 2, first + 3]


def test_the_connected_layer_reads_rows_columns_channels():
    """Row (row * 5 + column) * 3 + channel of its kernel, as its darknet map must know."""
    yolo = build()
    kernel = np.zeros((3 * 5 * 3, ROWS * COLUMNS * 13), "float32")
    kernel[(2 * 5 + 4) * 3 + 1, 0] = 1
    yolo.get_layer("connected1").set_weights([kernel, np.zeros(ROWS * COLUMNS * 13)])
    image = np.zeros((1, HEIGHT, WIDTH, 3), "float32")
    image[0, 40:, 80:, 1] = 255
    assert numpy(yolo(image))["classes"][0, 0, 0, 0] == pytest.approx(1)
    assert yolo.get_layer("flatten").input.shape == (None, 3, 5, 3)


@pytest.mark.parametrize(("input_range", "grey"), [((0, 1), 0.2), ((-1, 1), -0.6)])
def test_the_input_comes_into_its_range(input_range, grey):
    yolo = build(input_range=input_range)
    normalized = keras.Model(yolo.input, yolo.get_layer("normalize").output)
    found = numpy(normalized(np.full((1, HEIGHT, WIDTH, 3), 51, "float32")))
    np.testing.assert_allclose(found, grey, atol=1e-6)


def test_hidden_layers_are_leaky_unless_linear_and_dropped_in_training_alone():
    yolo = build(head="paper", hidden=((4, "linear"), 6), dropout=0.9)
    names = [layer.name for layer in yolo.layers]
    tail = ["flatten", "connected1", "connected2", "connected2_leaky", "dropout", "connected3"]
    assert [name for name in names if name in tail or "connected" in name] == tail
    image = np.full((1, HEIGHT, WIDTH, 3), 100, "float32")
    once, again = (numpy(yolo(image))["classes"] for _ in range(2))
    np.testing.assert_array_equal(once, again)
    dropped = [numpy(yolo(image, training=True))["classes"] for _ in range(4)]
    assert any(not np.allclose(once, each) for each in dropped)


def test_half_precision_ends_in_single():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        yolo = build(head="local", local_filters=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert yolo.get_layer("local1").compute_dtype == "float16"
    outputs = yolo(np.zeros((1, HEIGHT, WIDTH, 3), "float32"))
    dtypes = {keras.backend.standardize_dtype(value.dtype) for value in outputs.values()}
    assert dtypes == {"float32"}


def test_a_sides_grid_need_not_be_the_maps():
    """A 2x4 grid on a 3x5 map: only the connected layer stands between them."""
    yolo = build(grid=(2, 4), head="paper", hidden=(7,))
    assert yolo.output["boxes"].shape == (None, 2, 4, 2, 4)
    assert build(grid=6).grid == (6, 6)


CHANGES = {
    "class_names": ["a", "b"],
    "backbone": "tiny",
    "head": "local",
    "boxes_per_cell": 4,
    "hidden": ((5, "linear"),),
    "local_filters": 6,
    "dropout": 0.25,
    "batch_norm": False,
    "grid": (2, 3),
    "image_size": (64, 128),
    "input_range": (-2, 3),
    "resize": "letterbox",
}


def test_config_keeps_every_argument():
    with keras.StatelessScope(initialize_variables=False):
        yolo = YOLOv1(**CHANGES)
        revived = YOLOv1.from_config(yolo.get_config())
    keras.utils.clear_session()
    for name, value in CHANGES.items():
        assert yolo.get_config()[name] == value, name
        assert revived.get_config()[name] == value, name
    assert revived.grid == (2, 3)
    assert revived.boxes_per_cell == 4
    assert revived.resize == "letterbox"
    assert revived.get_layer("normalize").get_config() == yolo.get_layer("normalize").get_config()
    assert revived.get_layer("dropout").rate == 0.25
    assert revived.get_layer("conv1").use_bias


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": None}, "num_classes or class_names"),
        ({"num_classes": 4}, "does not fit the 3"),
        ({"class_names": None, "num_classes": 0}, "at least one class"),
        ({"backbone": "vgg16"}, "not 'vgg16'"),
        ({"head": "papers"}, "not 'papers'"),
        ({"grid": (7, 0)}, r"grid wants .* not \(7, 0\)"),
        ({"image_size": "448"}, "image_size wants .* not '448'"),
        ({"boxes_per_cell": 0}, "positive boxes_per_cell"),
        ({"class_names": None, "num_classes": 2.5}, r"num_classes=2\.5"),
        ({"class_names": "cat"}, "a list of names as class_names, not 'cat'"),
        ({"local_filters": -1}, "local_filters, .* -1"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": "a"}, "dropout in .* 'a'"),
        ({"input_range": 5}, "rising input_range, .* 5"),
        ({"head": "paper", "hidden": 5}, "hidden wants a list of units, not 5"),
        ({"input_range": (1, 0)}, "rising input_range"),
        ({"head": "paper", "hidden": (4096, (5, "relu"))}, r"\(5, 'relu'\)"),
        ({"resize": "crop"}, "not 'crop'"),
    ],
)
def test_arguments_that_do_not_fit_are_one_clear_error(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)


def test_a_backbone_must_give_one_map():
    image = keras.Input((HEIGHT, WIDTH, 3))
    flat = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image), name="flat")
    with pytest.raises(InputError, match=r"one map .* not flat"):
        build(backbone=flat)
