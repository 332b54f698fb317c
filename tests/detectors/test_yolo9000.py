"""YOLO9000's own parts: losses against loops, mixed batches, descent, flat class lists, saving."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet import region
from kerasdet.detectors.yolo9000 import IMAGE_OBJECTNESS, YOLO9000
from kerasdet.errors import InputError
from kerasdet.word_tree import WordTree
from tests import backend, small

TREE = small.animals_and_things()
PRIORS = [(0.5, 0.5), (1.0, 1.0), (2.0, 1.5)]  # of small.yolo9000
NOTHING = -20.0  # an objectness of 2e-9


@pytest.fixture(scope="module")
def yolo():
    keras.utils.set_random_seed(2)
    return small.yolo9000(tree=TREE)


def numpy(value):
    return ops.convert_to_numpy(value)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def conditional(logits):
    """Softmax in each group of the small tree."""
    result = np.zeros(10)
    for offset, size in zip(TREE.group_offsets, TREE.group_sizes, strict=True):
        odds = np.exp(logits[offset : offset + size].astype("float64"))
        result[offset : offset + size] = odds / odds.sum()
    return result


def raw_outputs(images, seed=0):
    """Of 2x3 cells, three priors, ten nodes."""
    return np.random.default_rng(seed).normal(size=(images, 2, 3, 3, 15)).astype("float32")


def targets_of(labels, image_label=None):
    """The boxes of `small.four_images` under nodes of the tree."""
    batch = small.four_images()
    targets = {"boxes": batch.targets["boxes"], "labels": np.array(labels, "int32")}
    if image_label is not None:
        targets["image_label"] = np.array(image_label, "int32")
    return targets


# Terrier and car; animal; boat, poodle and taxi; bird.
LABELS = [[7, 5, -1], [0, -1, -1], [6, 8, 9], [4, -1, -1]]


def terms(detector, raw, targets):
    def of_raw(r):
        return detector.loss_terms({"region": r}, detector.assign(targets))

    return {name: float(value) for name, value in backend.call(of_raw, raw).items()}


# ---------------------------------------------------------------------- detection images


def path_loss(logits, node):
    """Minus the logarithms of the label's and all its ancestors' probabilities."""
    p = conditional(logits)
    return -sum(math.log(p[above]) for above in TREE.path(node))


def test_an_object_pays_for_its_label_and_every_node_above(yolo):
    raw, targets = raw_outputs(4), targets_of(LABELS)
    objects = yolo.assign(targets)["objects"]
    slots, owns = numpy(objects.slot), numpy(objects.owns)
    expected = 0.0
    for image, of_image in enumerate(LABELS):
        boxes = raw[image].reshape(18, 15)
        for row, node in enumerate(of_image):
            if node >= 0 and owns[image, row]:
                expected += path_loss(boxes[slots[image, row], 5:], node) / 4
    assert owns.sum() == 7
    assert terms(yolo, raw, targets)["classes"] == pytest.approx(expected, rel=1e-5)


def test_nodes_below_and_beside_the_path_get_no_gradient(yolo):
    """A box labelled "dog": its group and the roots learn, terrier or poodle and all things do not."""
    targets = targets_of([[2, -1, -1], *[[-1] * 3] * 3])
    assigned = yolo.assign(targets)

    def classes(raw):
        return yolo.loss_terms({"region": raw}, assigned)["classes"]

    raw = raw_outputs(4)
    (gradient,) = backend.gradients(classes, raw)
    slot = int(assigned["objects"].slot[0, 0])
    own = gradient.reshape(4, 18, 15)[0, slot, 5:]
    p = conditional(raw.reshape(4, 18, 15)[0, slot, 5:])
    expected = np.zeros(10)
    expected[:5] = p[:5] - np.eye(10)[0, :5] - np.eye(10)[2, :5]
    np.testing.assert_allclose(own, expected / 4, atol=1e-6)
    assert np.count_nonzero(gradient) == 5


def test_the_rest_of_the_loss_is_the_region_layers(yolo):
    raw, targets = raw_outputs(4), targets_of(LABELS)
    assigned = region.assign_objects(targets["boxes"], targets["labels"], PRIORS, (2, 3))
    expected = region.region_loss(
        raw, assigned, PRIORS, class_loss=lambda x, _: ops.sum(x, axis=-1), images_seen=0
    )
    found = terms(yolo, raw, targets)
    for name in ("coordinates", "objectness", "no_object", "prior"):
        assert found[name] == pytest.approx(numpy(getattr(expected, name)).mean(), rel=1e-5)
    assert found["image_classes"] == found["image_objectness"] == 0


# ---------------------------------------------------------------------- images with a label alone


def best_box(boxes, node):
    """The row with the largest objectness times absolute probability, one box after another."""
    chances = [sigmoid(b[4]) * math.exp(-path_loss(b[5:], node)) for b in boxes]
    return int(np.argmax(chances))


def image_terms(boxes, node, mode):
    """One image's two terms, from the paper's and region_layer.c's words."""
    best = best_box(boxes, node)
    push = 0.0
    if mode == "floor" and sigmoid(boxes[best][4]) < 0.3:
        push = 5 / 2 * (0.3 - sigmoid(boxes[best][4])) ** 2
    if mode == "darknet":
        push = sum(1 / 2 * sigmoid(b[4]) ** 2 for row, b in enumerate(boxes) if row != best)
    return path_loss(boxes[best][5:], node), push


@pytest.mark.parametrize("mode", IMAGE_OBJECTNESS)
def test_a_label_without_a_box_teaches_the_box_that_predicts_it_best(mode):
    detector = small.yolo9000(tree=TREE, image_objectness=mode)
    raw = raw_outputs(4)
    raw[..., 4] -= np.array([3, 0, 3, 0])[:, None, None, None]  # two below the floor, two above
    nodes = [8, 5, 0, 9]
    found = terms(detector, raw, targets_of([[-1] * 3] * 4, nodes))
    expected = [
        image_terms(boxes, node, mode)
        for boxes, node in zip(raw.reshape(4, 18, 15), nodes, strict=True)
    ]
    classes, push = np.mean(expected, axis=0)
    assert found["image_classes"] == pytest.approx(classes, rel=1e-5)
    assert found["image_objectness"] == pytest.approx(push, rel=1e-5)
    others = set(found) - {"image_classes", "image_objectness"}
    assert all(found[name] == 0 for name in others)
    assert (push > 0) == (mode != "none")


@pytest.mark.parametrize("mode", IMAGE_OBJECTNESS)
def test_a_label_without_a_box_moves_nothing_else(mode):
    """Which entries of the outputs have a gradient at all: the best box's path, and objectness."""
    detector = small.yolo9000(tree=TREE, image_objectness=mode)
    raw = raw_outputs(1)
    raw[..., 4] -= 3
    targets = {
        "boxes": np.zeros((1, 2, 4), "float32"),
        "labels": np.full((1, 2), -1, "int32"),
        "image_label": np.array([7], "int32"),
    }
    assigned = detector.assign(targets)
    (gradient,) = backend.gradients(
        lambda x: sum(detector.loss_terms({"region": x}, assigned).values()), raw
    )
    gradient = gradient.reshape(18, 15)
    best = best_box(raw.reshape(18, 15), 7)
    moved = {tuple(place) for place in np.argwhere(gradient)}
    expected = {(best, 5 + node) for node in [0, 1, 2, 3, 4, 7, 8]}
    if mode == "floor":
        expected.add((best, 4))
        assert gradient[best, 4] < 0, "a step down the gradient raises objectness"
    if mode == "darknet":
        expected |= {(row, 4) for row in range(18) if row != best}
    assert moved == expected


def test_a_mixed_batch_is_the_sum_of_its_two_kinds(yolo):
    """Images 0 and 2 have boxes, 1 and 3 a label; the loss is the mean over all four."""
    raw = raw_outputs(4, seed=1)
    mixed_labels = [LABELS[0], [-1] * 3, LABELS[2], [-1] * 3]
    mixed = terms(yolo, raw, targets_of(mixed_labels, [-1, 8, -1, 5]))
    targets = targets_of(mixed_labels)
    two = {name: value[[0, 2]] for name, value in targets.items()}
    boxes_alone = terms(yolo, raw[[0, 2]], two)
    for name in ("coordinates", "objectness", "no_object", "classes", "prior"):
        assert mixed[name] == pytest.approx(boxes_alone[name] / 2, rel=1e-5)
    rows = raw.reshape(4, 18, 15)
    expected = np.sum([image_terms(rows[1], 8, "floor"), image_terms(rows[3], 5, "floor")], axis=0)
    assert mixed["image_classes"] == pytest.approx(expected[0] / 4, rel=1e-5)
    assert mixed["image_objectness"] == pytest.approx(expected[1] / 4, rel=1e-5)


def test_mixed_batches_train():
    """Every term is there in every batch, and the loss falls."""
    detector = small.yolo9000(tree=TREE, loss={"prior_images": 0})
    images = small.four_images().images
    targets = targets_of([LABELS[0], [-1] * 3, LABELS[2], [-1] * 3], [-1, 4, -1, 3])
    detector.compile(keras.optimizers.Adam(3e-3))
    history = detector.fit(images, targets, batch_size=4, epochs=25, verbose=0).history
    assert set(history) == {"loss", *detector.loss_names}
    assert history["image_classes"][-1] < 0.2 * history["image_classes"][0]
    assert history["classes"][-1] < 0.6 * history["classes"][0]
    assert int(detector.images_seen) == 100


# ---------------------------------------------------------------------- decode


def decoded(detector, boxes, **options):
    """Detections of one image whose boxes say nothing, but for {(row, column, prior): numbers}."""
    raw = np.zeros((1, 2, 3, 3, 15), "float32")
    raw[..., 4] = NOTHING
    for place, numbers in boxes.items():
        raw[(0, *place)] = numbers
    found = backend.call(lambda r: detector.decode({"region": r}, **options), raw)
    count = int(found.count[0])
    return [numpy(value)[0][:count] for value in found[:3]]


def box(objectness, **odds):
    """Raw numbers of a box in its cell's middle, of its prior's size; odds of nodes, 1 for the others."""
    logits = [math.log(odds.get(name, 1)) for name in TREE.names]
    return [0, 0, 0, 0, math.log(objectness / (1 - objectness)), *logits]


def test_a_box_gets_the_deepest_node_it_is_sure_of(yolo):
    boxes, scores, labels = decoded(
        yolo,
        {
            # animal 9/10, dog 8/10, terrier 4/5: 0.9, 0.72, 0.576.
            (0, 0, 1): box(0.95, animal=9, dog=8, terrier=4),
            # 0.9 and 0.72, but its children share: dog.
            (0, 2, 1): box(0.7, animal=9, dog=8),
            # thing 3/4, car 4/5 and its only child: taxi at 0.6.
            (1, 1, 1): box(0.5, thing=3, car=4),
            # No root above one half: the likeliest of the two, which are equal.
            (1, 2, 1): box(0.4),
        },
    )
    assert [TREE[label] for label in labels] == ["terrier", "dog", "taxi", "animal"]
    np.testing.assert_allclose(scores, [0.95 * 0.576, 0.7 * 0.72, 0.5 * 0.6, 0.4 * 0.5], rtol=1e-5)
    expected = [[0, 0, 32, 32], [64, 0, 96, 32], [32, 32, 64, 64], [64, 32, 96, 64]]
    np.testing.assert_allclose(boxes, expected, atol=1e-4)


def test_boxes_suppress_each_other_where_they_have_the_same_node(yolo):
    """Priors of 16 and 32 pixels in one place overlap 1/4, of 32 and 64x48 1/3."""
    dog, cat = {"animal": 9, "dog": 8}, {"animal": 9, "cat": 8}
    found = decoded(
        yolo,
        {(0, 1, 0): box(0.9, **cat), (0, 1, 1): box(0.8, **dog), (0, 1, 2): box(0.7, **dog)},
        iou_threshold=0.3,
    )
    assert [TREE[label] for label in found[2]] == ["cat", "dog"]
    assert len(decoded(yolo, {(0, 1, 1): box(0.8, **dog), (0, 1, 2): box(0.7, **dog)})[0]) == 2


def test_the_threshold_of_the_tree_may_be_set(yolo):
    detector = small.yolo9000(tree=TREE, tree_threshold=0.6)
    boxes = {(0, 0, 1): box(0.8, animal=9, dog=8, terrier=4)}
    assert TREE[decoded(detector, boxes)[2][0]] == "dog"
    detector.tree_threshold = 0.8
    assert TREE[decoded(detector, boxes)[2][0]] == "animal"
    image = small.four_images().images[0]
    coarse = detector.detect(image, score_threshold=0)[0]
    detector.tree_threshold = 0.0
    deepest = detector.detect(image, score_threshold=0)[0]
    assert set(TREE.depths[coarse.labels]) == {0}
    assert set(TREE.depths[deepest.labels]) <= {1, 2}, "to the leaves"
    with pytest.raises(InputError, match=r"probability, not 1\.5"):
        detector.tree_threshold = 1.5


def test_decoding_equals_the_tree_s_own_descent_box_by_box(yolo):
    raw = raw_outputs(1, seed=5) * 3
    found = backend.call(
        lambda r: yolo.decode({"region": r}, score_threshold=0.0, iou_threshold=1.0), raw
    )
    expected = []
    for numbers in raw.reshape(18, 15):
        node, probability = TREE.descend(conditional(numbers[5:]))
        expected.append((sigmoid(numbers[4]) * probability, node))
    expected.sort(reverse=True)
    assert int(found.count[0]) == 18
    assert numpy(found.labels)[0, :18].tolist() == [node for _, node in expected]
    np.testing.assert_allclose(numpy(found.scores)[0, :18], [s for s, _ in expected], rtol=1e-4)


def test_names_and_paths_of_what_is_found(yolo):
    found = yolo.detect(small.four_images().images[0], score_threshold=0)[0]
    assert found.names == [TREE[label] for label in found.labels]
    assert yolo.path(found.labels[0])[-1] == found.names[0]
    assert yolo.path("poodle") == ["animal", "dog", "poodle"]


# ---------------------------------------------------------------------- a flat list of classes


def test_for_classes_scores_objectness_times_the_absolute_probability(yolo):
    flat = yolo.for_classes(["hound", "automobile"], ["dog", "car"])
    boxes, scores, labels = decoded(
        flat, {(0, 0, 1): box(0.8, animal=9, dog=8, terrier=4), (1, 2, 1): box(0.5, thing=3, car=4)}
    )
    # Both classes of both boxes: dog 0.72 and car 1/10 * 1/2; dog 1/4 * 1/3 and car 0.6.
    expected = [(0.8 * 0.72, 0), (0.5 * 0.6, 1), (0.5 / 12, 0), (0.8 / 20, 1)]
    np.testing.assert_allclose(scores, [score for score, _ in expected], rtol=1e-5)
    assert labels.tolist() == [label for _, label in expected]
    np.testing.assert_allclose(boxes[0], [0, 0, 32, 32], atol=1e-4)


def test_for_classes_shares_the_weights_and_turns_labels_into_nodes(yolo):
    flat = yolo.for_classes(["bird", "taxi", "animal"])
    assert flat.class_names == ["bird", "taxi", "animal"]
    assert flat.nodes.tolist() == [4, 9, 0]
    assert all(a is b for a, b in zip(flat.weights, yolo.weights, strict=True))
    raw = raw_outputs(4)
    of_flat = terms(flat, raw, targets_of([[0, 1, -1], [2, -1, -1], [1, 1, 0], [0, -1, -1]]))
    of_tree = terms(yolo, raw, targets_of([[4, 9, -1], [0, -1, -1], [9, 9, 4], [4, -1, -1]]))
    assert of_flat == of_tree


def test_a_detector_for_classes_trains_and_saves(tmp_path):
    flat = small.yolo9000(tree=TREE).for_classes(small.CLASS_NAMES, ["terrier", "boat", "cat"])
    flat.compile(keras.optimizers.SGD(1e-3))
    batch = small.four_images()
    flat.fit(*batch, batch_size=4, epochs=1, verbose=0)
    assert int(flat.images_seen) == 4
    flat.save(tmp_path / "flat.keras")
    revived = keras.saving.load_model(tmp_path / "flat.keras")
    assert revived.class_names == small.CLASS_NAMES
    assert revived.nodes.tolist() == [7, 6, 3]
    assert int(revived.images_seen) == 4
    one, other = (m.detect(batch.images, score_threshold=0.01) for m in (flat, revived))
    for a, b in zip(one, other, strict=True):
        assert a.count == b.count > 0
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-4)


def test_lists_of_classes_that_do_not_fit_are_refused(yolo):
    with pytest.raises(InputError, match="not 1 nodes for 2 names"):
        yolo.for_classes(["a", "b"], [3])
    with pytest.raises(InputError, match="no node 'hound'"):
        yolo.for_classes(["hound"])


# ---------------------------------------------------------------------- arguments


def test_config_keeps_every_argument():
    arguments = {
        "tree": TREE,
        "feature_layer": "fine",
        "backbone": twice_as_coarse(),
        "anchors": [[1.0, 2.0], [3.0, 4.0]],
        "image_size": (96, 128),
        "resize": "warp",
        "tree_threshold": 0.25,
        "image_objectness": "darknet",
        "loss": {"object_scale": 2.0},
    }
    revived = YOLO9000.from_config(YOLO9000(**arguments).get_config())
    assert revived.tree == TREE
    assert revived.class_names == TREE.names
    assert revived.priors.tolist() == arguments["anchors"]
    assert (revived.image_size, revived.resize) == ((96, 128), "warp")
    assert (revived.tree_threshold, revived.image_objectness) == (0.25, "darknet")
    config = revived.get_config()
    assert (config["loss"], config["feature_layer"]) == ({"object_scale": 2.0}, "fine")
    assert revived(np.zeros((1, 64, 96, 3)))["region"].shape == (1, 2, 3, 2, 15)


def twice_as_coarse():
    """Its layer "fine" has 32 pixels a cell."""
    x = image = keras.Input((None, None, 3))
    x = keras.layers.AveragePooling2D(16)(x)
    x = keras.layers.Conv2D(8, 3, 2, "same", name="fine")(x)
    return keras.Model(image, keras.layers.Conv2D(4, 3, 2, "same")(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vgg16"}, "'darknet19' or a functional Keras model, not 'vgg16'"),
        ({"backbone": twice_as_coarse()}, "one cell to 32 pixels"),
        ({"feature_layer": "finest"}, "a layer of five_convolutions, not 'finest'"),
        ({"anchors": [(1.0, -1.0)]}, "positive width and height"),
        ({"image_size": 100}, "multiples of 32"),
        ({"tree_threshold": 2}, "probability, not 2"),
        ({"tree_threshold": "a"}, "probability, not 'a'"),
        ({"tree_threshold": None}, "probability, not None"),
        ({"loss": 5}, "a dict of names and numbers, not 5"),
        ({"tree": 5}, "Wanted a WordTree, or the config of one with names and parents, not 5"),
        ({"tree": {"terrier": "dog"}}, r"not {'terrier': 'dog'}; .* WordTree\.from_parents"),
        ({"tree": {"names": ["a"], "parents": ["b"]}}, "Node 0 has the parent 'b'"),
        ({"image_objectness": "ceiling"}, "one of floor, darknet, none, not 'ceiling'"),
        ({"loss": {"objekt_scale": 1}}, "not objekt_scale"),
        ({"tree": {"names": ["a", "b"], "parents": [-1, 1]}}, "stands above itself"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        small.yolo9000(**changes)


def test_a_network_for_the_real_tree_has_28269_outputs_and_detects(shared_data):
    """3 * (9418 + 5) channels (cfg/yolo9000.cfg), on a small trunk."""
    folder = shared_data / "darknet" / "data"
    tree = WordTree.from_darknet(folder / "9k.tree", folder / "9k.names")
    detector = small.yolo9000(tree=tree)
    assert detector.layers[-2].filters == 28269 == 3 * (9418 + 5)
    found = detector.detect(small.four_images().images[0], score_threshold=0)[0]
    assert found.names == [tree[label] for label in found.labels]
    assert found.count > 0
