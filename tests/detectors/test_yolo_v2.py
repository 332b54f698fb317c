"""YOLOv2's own parts: networks by argument, targets, the counter, decoding, sizes, saving."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet import region
from kerasdet.detectors.yolo_v2 import ANCHORS, YOLOv2
from kerasdet.errors import InputError
from tests import backend, small


@pytest.fixture(scope="module")
def yolo():
    return small.yolo_v2()


def numpy(value):
    return ops.convert_to_numpy(value)


def resized(batch, height, width):
    """Images and boxes of a batch at another size, by nearest pixels."""
    rows = np.arange(height) * small.HEIGHT // height
    columns = np.arange(width) * small.WIDTH // width
    scale = np.array([width / small.WIDTH, height / small.HEIGHT] * 2, "float32")
    targets = {**batch.targets, "boxes": batch.targets["boxes"] * scale}
    return small.Batch(batch.images[:, rows][:, :, columns], targets)


# ---------------------------------------------------------------------- targets


def test_targets_lie_on_the_grid_of_the_batch_not_of_image_size(yolo):
    """An object's cell at 128x96 is not the one at 64x96; without images `image_size` counts."""
    tall = resized(small.four_images(), 128, 96)
    found = yolo.assign(tall.targets, tall.images)
    expected = region.assign_objects(
        tall.targets["boxes"], tall.targets["labels"], yolo.priors, (4, 3)
    )
    np.testing.assert_array_equal(numpy(found.slot), numpy(expected.slot))
    without = yolo.assign(small.four_images().targets)
    # (1, 60, 40, 73, 54): centre (66.5, 47), cell (1, 2) of 2x3; at 128 rows (66.5, 94), cell (2, 2) of 4x3.
    assert int(without.slot[2, 0]) // 3 == 1 * 3 + 2
    assert int(found.slot[2, 0]) // 3 == 2 * 3 + 2


# ---------------------------------------------------------------------- loss


def region_terms(raw, boxes, labels, *, anchors, seen):
    assigned = region.assign_objects(boxes, labels, anchors, (2, 3))
    return region.region_loss(raw, assigned, anchors, images_seen=seen)


def test_the_loss_is_the_region_layers_mean_over_the_images(yolo):
    images, targets = small.four_images()
    anchors = tuple(map(tuple, yolo.priors.tolist()))
    raw = numpy(yolo(images)["region"])
    expected = backend.call(
        region_terms, raw, targets["boxes"], targets["labels"], anchors=anchors, seen=0
    )
    yolo.compile("sgd")
    found = yolo.evaluate(images, targets, batch_size=4, verbose=0, return_dict=True)
    terms = {name: found[name] for name in yolo.loss_names}
    assert list(terms) == ["coordinates", "objectness", "no_object", "classes", "prior"]
    for name, value in terms.items():
        assert value == pytest.approx(numpy(getattr(expected, name)).sum() / 4, rel=1e-4)
        assert value > 0


def test_settings_of_the_loss_are_arguments():
    keras.utils.set_random_seed(1)
    plain, heavy = small.yolo_v2(), small.yolo_v2(loss={"no_object_scale": 3.0, "prior_scale": 0.0})
    heavy.set_weights(plain.get_weights())
    logs = []
    for model in (plain, heavy):
        model.compile("sgd")
        logs.append(model.evaluate(*small.four_images(), verbose=0, return_dict=True))
    one, other = logs
    assert other["no_object"] == pytest.approx(3 * one["no_object"])
    assert other["prior"] == 0
    assert other["coordinates"] == pytest.approx(one["coordinates"])


def test_images_are_counted_in_training_alone():
    yolo = small.yolo_v2()
    yolo.compile(keras.optimizers.SGD(0.0))
    batch = small.four_images()
    yolo.fit(*batch, batch_size=2, epochs=2, verbose=0)
    assert int(yolo.images_seen) == 2 * 4
    yolo.evaluate(*batch, batch_size=2, verbose=0)
    yolo.predict(batch.images, verbose=0)
    assert int(yolo.images_seen) == 8


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_step_that_finds_no_more_data_counts_nothing():
    """A set of unknown length ends in such a step; its batch size is known all the same."""
    import tensorflow as tf

    yolo = small.yolo_v2()
    yolo.compile(keras.optimizers.SGD(0.0))
    dataset = tf.data.Dataset.from_tensor_slices(tuple(small.four_images()))
    dataset = dataset.filter(lambda *_: True).batch(2, drop_remainder=True)
    yolo.fit(dataset, epochs=2, verbose=0)
    assert int(yolo.images_seen) == 2 * 4


def test_the_pull_to_the_priors_ends_with_the_warm_up(tmp_path):
    """The count travels with the weights, so a resumed training does not warm up again."""
    yolo = small.yolo_v2()
    yolo.compile(keras.optimizers.SGD(0.0))
    yolo.images_seen.assign(12_800 - 4 - 4)
    batch = small.four_images()
    prior = [yolo.train_on_batch(*batch, return_dict=True)["prior"] for _ in range(2)]
    yolo.save_weights(tmp_path / "w.weights.h5")
    revived = small.yolo_v2()
    revived.load_weights(tmp_path / "w.weights.h5")
    assert int(revived.images_seen) == 12_800
    assert prior[0] > 0
    revived.compile("sgd")
    assert revived.evaluate(*batch, verbose=0, return_dict=True)["prior"] == 0


# ---------------------------------------------------------------------- decode


def raw_outputs(rows):
    """One image of 2x3 cells that says nothing, but for {(row, column, prior): (x, y, w, h, to, logits)}."""
    raw = np.zeros((1, 2, 3, 3, 8), "float32")
    raw[..., 4] = -20
    for place, numbers in rows.items():
        raw[(0, *place)] = numbers
    return {"region": raw}


def decoded(yolo, rows, **options):
    found = yolo.decode(raw_outputs(rows), **options)
    count = int(found.count[0])
    return [numpy(value)[0][:count] for value in found[:3]]


ODDS_3 = math.log(3)  # sigmoid 0.75; and against two logits of 0 a softmax of 3/5


def test_decode_by_hand(yolo):
    """Cell (1, 2), prior of 32x32 pixels: score 0.75 * 3/5 for the third class, 0.75 / 5 else."""
    one = (0, -ODDS_3, 0, math.log(0.5), ODDS_3, 0, 0, ODDS_3)
    boxes, scores, labels = decoded(yolo, {(1, 2, 1): one}, score_threshold=0.2)
    x, y = (2 + 0.5) * 32, (1 + 0.25) * 32
    np.testing.assert_allclose(boxes, [[x - 16, y - 8, x + 16, y + 8]], rtol=1e-5)
    np.testing.assert_allclose(scores, [0.75 * 3 / 5], rtol=1e-5)
    assert labels.tolist() == [2]
    _, scores, labels = decoded(yolo, {(1, 2, 1): one})
    np.testing.assert_allclose(scores, [0.45, 0.15, 0.15], rtol=1e-5)
    assert labels.tolist() == [2, 0, 1]


def test_scores_from_the_releases_threshold_on_are_kept(yolo):
    """0.005: an objectness of 0.006 of a sure class counts, one of 0.004 does not."""
    rows = {
        (0, column, 0): (0, 0, 0, 0, math.log(p / (1 - p)), 30, 0, 0)
        for column, p in enumerate((0.006, 0.004))
    }
    _, scores, _ = decoded(yolo, rows)
    np.testing.assert_allclose(scores, [0.006], rtol=1e-4)


@pytest.mark.parametrize(("left", "right", "count"), [(0.875, 0.125, 1), (0.75, 0.25, 2)])
def test_boxes_that_overlap_by_more_than_0_45_are_one(yolo, left, right, count):
    """Boxes of 32x32 pixels, 8 pixels apart: IoU 24 / 40 = 0.6; 16 apart: 16 / 48 = 0.33."""
    rows = {
        (0, column, 1): (math.log(x / (1 - x)), 0, 0, 0, 3 + column, 30, 0, 0)
        for column, x in ((0, left), (1, right))
    }
    boxes, _, _ = decoded(yolo, rows)
    assert len(boxes) == count


def test_boxes_are_cut_at_the_networks_edges_after_suppression(yolo):
    boxes, _, _ = decoded(yolo, {(0, 0, 2): (0, 0, 3, 3, 5, 30, 0, 0)})
    assert boxes.tolist() == [[0, 0, 96, 64]]


# ---------------------------------------------------------------------- sizes


def test_one_network_detects_at_any_multiple_of_32(yolo):
    """Its boxes come back in the photo's pixels whatever the size the network sees."""
    photo = np.full((50, 70, 3), 90, "uint8")
    model = small.yolo_v2()
    model.set_weights(yolo.get_weights())
    raw = {}
    for size in ((64, 96), (96, 96), (64, 96)):
        model.image_size = size
        assert model.image_size == size
        assert model.default_boxes.shape == (size[0] // 32 * size[1] // 32 * 3, 4)
        raw[size] = model.detect(photo, score_threshold=0.01)[0]
    assert raw[64, 96].count
    assert raw[96, 96].count
    model.image_size = 96
    assert model.image_size == (96, 96)
    for found in raw.values():
        assert (found.boxes.max(axis=0) <= [70, 50, 70, 50]).all()


@pytest.mark.parametrize("build", [small.yolo_v2, small.yolo9000])
@pytest.mark.parametrize("use", ["call", "predict", "train_on_batch", "assign"])
def test_images_whose_sides_are_no_multiples_of_32_are_refused_in_one_sentence(build, use):
    """Their grid would be read as one of the next larger images."""
    model = build()
    model.compile("sgd")
    batch = resized(small.four_images(), 62, 96)
    uses = {
        "call": lambda: model(batch.images),
        "predict": lambda: model.predict(batch.images, verbose=0),
        "train_on_batch": lambda: model.train_on_batch(batch.images, batch.targets),
        "assign": lambda: model.assign(batch.targets, batch.images),
    }
    with pytest.raises(InputError) as raised:
        uses[use]()
    wanted = f"{model.name} wants images whose sides are multiples of 32, not 62x96."
    assert str(raised.value) == wanted


@pytest.mark.parametrize("size", [100, (64, 90), 0, (64, 96, 3), "large"])
def test_a_size_that_is_no_multiple_of_32_is_refused(yolo, size):
    with pytest.raises(InputError, match="image_size wants whole numbers, multiples of 32"):
        yolo.image_size = size
    assert yolo.image_size == (64, 96)


def test_a_size_that_comes_back_is_not_compiled_again():
    """TensorFlow's trace serves every size; JAX compiles each of them once."""
    import tensorflow as tf

    batch = small.four_images()
    sizes = [(64, 96), (96, 64), (64, 96), (128, 128), (96, 64), (64, 96)]
    batches = [resized(batch, *size) for size in sizes]

    def elements():
        yield from batches

    targets = {
        "boxes": tf.TensorSpec((4, 3, 4), tf.float32),
        "labels": tf.TensorSpec((4, 3), tf.int32),
        "image_id": tf.TensorSpec((4, 64), tf.uint8),
    }
    spec = (tf.TensorSpec((4, None, None, 3), tf.float32), targets)
    dataset = tf.data.Dataset.from_generator(elements, output_signature=spec)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(sizes)))

    traced = []

    class Counting(YOLOv2):
        def assign(self, targets, inputs=None):
            traced.append(inputs.shape)
            return super().assign(targets, inputs)

    yolo = Counting.from_config(small.yolo_v2().get_config())
    yolo.compile(keras.optimizers.Adam(1e-3))
    yolo.fit(dataset.take(1), verbose=0)
    traced.clear()
    history = yolo.fit(dataset, epochs=2, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert int(yolo.images_seen) == (1 + 2 * 6) * 4
    new = [] if keras.backend.backend() == "tensorflow" else [(96, 64), (128, 128)]
    assert [shape[1:3] for shape in traced] == new


# ---------------------------------------------------------------------- networks


def names_of_convolutions(model):
    layers_ = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    return {layer.name: tuple(layer.kernel.shape) for layer in layers_}


def test_the_head_on_a_model_counts_its_convolutions_from_one(yolo):
    """3x3 to 32; 1x1 to 16 on the finer map, folded to 64; both together 3x3 to 48; 3 * (5 + 3) out."""
    assert names_of_convolutions(yolo) == {
        "conv1": (3, 3, 4, 32),
        "conv2": (1, 1, 48, 16),
        "conv3": (3, 3, 64 + 32, 48),
        "conv4": (1, 1, 48, 24),
    }


def test_without_a_squeeze_the_whole_finer_map_is_folded():
    yolo = small.yolo_v2(passthrough_filters=None, passthrough="space_to_depth")
    assert names_of_convolutions(yolo)["conv2"] == (3, 3, 4 * 48 + 32, 48)
    assert yolo.get_layer("passthrough").order == "space_to_depth"


def test_without_a_passthrough_one_map_is_enough():
    yolo = small.yolo_v2(feature_layers=["unused"], passthrough=None, head_filters=None)
    assert names_of_convolutions(yolo) == {"conv1": (3, 3, 4, 4), "conv2": (1, 1, 4, 24)}
    assert "passthrough" not in {layer.name for layer in yolo.layers}


def test_normalised_convolutions_have_no_bias_but_the_output_has():
    yolo = small.yolo_v2(batch_norm=True)
    assert [yolo.get_layer(f"conv{n}").use_bias for n in (1, 2, 3, 4)] == [False] * 3 + [True]
    assert yolo.get_layer("conv3_norm").epsilon == 1e-5


def test_yolos_own_trunk_gets_anchors_for_its_boxes():
    """Row four of the paper's table 2: nine hand-picked priors, unbound centres, 13x13 cells."""
    yolo = YOLOv2(20, backbone="extraction", location="offset", passthrough=None)
    assert yolo.compute_output_shape((1, 416, 416, 3))["region"] == (1, 13, 13, 9, 25)
    assert 13 * 13 * 9 > 1000, "more than a thousand boxes (sec. 2)"
    assert list(names_of_convolutions(yolo).values())[-5:-1] == [(3, 3, 1024, 1024)] * 4
    np.testing.assert_allclose(yolo.priors[4], 13 * 256 / 600)
    ratios = yolo.priors[:, 0] / yolo.priors[:, 1]
    np.testing.assert_allclose(ratios, [0.5, 1, 2] * 3, rtol=1e-5)


def test_a_model_for_one_size_keeps_it():
    yolo = small.yolo_v2(backbone=small.backbone(), image_size=None)
    assert yolo.image_size == (64, 96)
    assert yolo.output["region"].shape == (None, 2, 3, 3, 8)
    with pytest.raises(InputError, match="64x96 alone"):
        yolo.image_size = 96


def test_pixels_are_scaled_to_0_1(yolo):
    image = np.full((1, 64, 96, 3), 255, "float32")
    np.testing.assert_allclose(numpy(yolo.get_layer("normalize")(image)), 1, rtol=1e-6)


def test_photos_are_letterboxed_unless_told_otherwise(yolo):
    assert yolo.resize == "letterbox_smooth"
    assert small.yolo_v2(resize="warp").resize == "warp"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"anchors": [(1, 2), (0, 3)]}, "anchors want pairs of a positive width and height"),
        (
            {"anchors": "imagenet"},
            "one of voc, coco, voc_2016, coco_2016, hand_picked, not 'imagenet'",
        ),
        ({"image_size": 100}, "multiples of 32, not 100"),
        ({"resize": "crop"}, "resize wants one of"),
        ({"passthrough": "reorg"}, "passthrough wants one of darknet, space_to_depth"),
        ({"passthrough": "darknet", "feature_layers": ["unused"]}, "wants a finer map"),
        ({"head_filters": 5}, "head_filters wants positive whole numbers, not 5"),
        ({"head_filters": (8, 0)}, r"head_filters wants .* not \(8, 0\)"),
        ({"passthrough_filters": -1}, "passthrough_filters wants .* or None, not -1"),
        ({"head_filters": ()}, "before the last of head_filters"),
        ({"location": "free"}, "location wants one of direct, offset, not 'free'"),
        ({"loss": 5}, "a dict of names and numbers, not 5"),
        ({"loss": {"object_scale": "x"}}, "a number from 0 on as object_scale, not 'x'"),
        ({"loss": {"object_scale": -1}}, "a number from 0 on as object_scale, not -1"),
        ({"loss": {"prior_scale": float("nan")}}, "as prior_scale, not nan"),
        ({"loss": {"rescore": 0.5}}, r"True or False as rescore, not 0\.5"),
        ({"loss": {"obj": 1}}, "loss wants names among object_scale.* not obj"),
        ({"feature_layers": ["coarse", "last"]}, r"unknown: \['last'\]"),
        ({"feature_layers": None}, "one or two names of layers"),
        ({"feature_layers": ["fine", "coarse"]}, "one cell to 32 pixels, but coarse .* is 20x20"),
        ({"feature_layers": ["fine", "unused"]}, "one cell to 16 pixels, but fine .* is 40x40"),
        ({"backbone": "resnet"}, "backbone wants one of darknet19, tiny, extraction or"),
        ({"backbone": "tiny"}, "feature_layers go with a Keras model"),
        ({"backbone": "tiny", "feature_layers": None}, "'tiny' has batch normalisation"),
        ({"class_names": None}, "wants num_classes or class_names"),
        ({"class_names": None, "num_classes": 2.5}, r"at least one class, not num_classes=2\.5"),
        ({"num_classes": 7}, "num_classes=7 does not fit the 3 class_names"),
    ],
)
def test_bad_arguments_are_one_clear_error(arguments, words):
    with pytest.raises(InputError, match=words):
        small.yolo_v2(**arguments)


# ---------------------------------------------------------------------- saving


def test_config_keeps_every_argument():
    changes = {
        "anchors": [(0.5, 0.75), (2.0, 1.0)],
        "image_size": (96, 128),
        "resize": "warp",
        "passthrough": "space_to_depth",
        "passthrough_filters": 7,
        "head_filters": (9, 11),
        "batch_norm": True,
        "location": "offset",
        "loss": {"rescore": False},
    }
    yolo = YOLOv2.from_config(small.yolo_v2(**changes).get_config())
    config = yolo.get_config()
    assert {name: config[name] for name in changes if name != "anchors"} == {
        name: value for name, value in changes.items() if name != "anchors"
    }
    assert yolo.priors.tolist() == [[0.5, 0.75], [2.0, 1.0]]
    assert yolo.image_size == (96, 128)
    assert yolo.get_layer("passthrough").order == "space_to_depth"
    assert names_of_convolutions(yolo)["conv2"] == (1, 1, 48, 7)


def test_the_size_set_last_is_saved(tmp_path):
    yolo = small.yolo_v2()
    yolo.image_size = (128, 64)
    yolo.images_seen.assign(77)
    yolo.save(tmp_path / "yolo.keras")
    revived = keras.saving.load_model(tmp_path / "yolo.keras")
    assert revived.image_size == (128, 64)
    assert int(revived.images_seen) == 77


def test_a_name_of_anchors_stays_a_name():
    yolo = small.yolo_v2(anchors="coco_2016")
    assert yolo.get_config()["anchors"] == "coco_2016"
    np.testing.assert_allclose(yolo.priors, ANCHORS["coco_2016"], rtol=1e-6)


def test_of_one_class_the_score_is_its_objectness(rng):
    model = small.yolo_v2(class_names=["cell"])
    raw = rng.normal(0, 2, (1, 2, 3, 3, 6)).astype("float32")
    found = model.decode({"region": raw}, iou_threshold=1.0)
    scores = np.sort(1 / (1 + np.exp(-raw[..., 4].ravel())))[::-1]
    np.testing.assert_allclose(ops.convert_to_numpy(found.scores)[0, :18], scores, rtol=1e-5)
