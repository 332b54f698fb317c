"""Every recipe in zoo/ reads, and its model builds; those on built-in data train some steps."""

import contextlib
import functools
import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerasdet import data, runs, training, zoo
from kerasdet.classes import COCO_NAMES, VOC_NAMES
from kerasdet.data import augment_classifier, batching, classification
from kerasdet.evaluation import evaluate
from kerasdet.weights.maps import darknet as darknet_weights
from kerasdet.word_tree import WordTree
from tests import small

ZOO = Path(__file__).resolve().parents[2] / "zoo"
RECIPES = sorted(ZOO.glob("*/recipe.py"))


def test_there_are_recipes():
    assert len(RECIPES) >= 4


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_a_recipe_says_its_command_and_what_to_expect(path):
    text = path.read_text()
    assert f"kerasdet train zoo/{path.parent.name}/recipe.py" in text
    assert "Expect:" in text or "Paper:" in text
    assert isinstance(runs.read_recipe(path), training.Recipe)


BY_NAME = [
    path
    for path in RECIPES
    if "kerasdet.zoo." in (text := path.read_text()) or re.search(r'model="', text)
]


@pytest.mark.parametrize("path", BY_NAME, ids=lambda path: path.parent.name)
def test_a_recipe_says_what_its_model_starts_from_and_a_run_takes_its_place(path, monkeypatch):
    """So that `--weights` and `--start-from` do for every one of them, and the latter fetches nothing."""
    asked = []

    def build(*_, pretrained=False, **__):
        asked.append(pretrained)

    for name in zoo._BUILDERS:
        monkeypatch.setattr(zoo, name, build)
        monkeypatch.setitem(zoo._BUILDERS, name, build)
    recipe = runs.read_recipe(path)
    for start_from in (None, "runs/first"):
        training.replaced(recipe, {"start_from": start_from}).build(["star", "cross"])
    assert asked == [recipe.pretrained, False]


def of_cfg(path):
    """The numbers of a cfg, the last of those that it has twice, over what darknet takes without."""
    found = {"hue": 0.0, "saturation": 1.0, "exposure": 1.0, "angle": 0.0, "aspect": 1.0}
    for line in path.read_text().splitlines():
        name, _, value = line.partition("=")
        with contextlib.suppress(ValueError):
            found[name.strip()] = float(value)
    width = found["width"]  # parser.c, parse_net_options
    found["crop"] = (found.get("min_crop", width) / width, found.get("max_crop", 2 * width) / width)
    return found


@pytest.mark.parametrize(
    ("name", "cfg"),
    [
        ("darknet19_448_imagenet", "cfg/darknet19_448.cfg"),
        ("extraction_448_imagenet", "cfg/extraction.cfg"),
        ("extraction_imagenet", "cfg/extraction.cfg"),
        ("yolo9000_coco_imagenet", "cfg/yolo9000.cfg"),
        ("yolo_v1_coco", "cfg_history/yolov1/yolo-coco.cfg"),
        ("yolo_v1_tiny_coco", "cfg_history/yolov1/tiny-coco.cfg"),
        ("yolo_v1_tiny_voc0712", "cfg/yolov1-tiny.cfg"),
        ("yolo_v1_voc0712", "cfg/yolov1.cfg"),
        ("yolo_v2_coco", "cfg/yolov2.cfg"),
        ("yolo_v2_tiny_coco", "cfg/yolov2-tiny.cfg"),
        ("yolo_v2_tiny_voc0712", "cfg/yolov2-tiny-voc.cfg"),
        ("yolo_v2_voc0712", "cfg/yolov2-voc.cfg"),
    ],
)
def test_a_recipe_changes_images_by_the_numbers_of_its_cfg(name, cfg, shared_data):
    wanted = of_cfg(shared_data / "darknet" / cfg)
    recipe = runs.read_recipe(ZOO / name / "recipe.py")
    if recipe.classifies:
        change = classification._seen_by(recipe.augment)
        names = ["angle", "aspect", "crop", "exposure", "hue", "saturation"]
    else:
        change = batching.transform_of(recipe.augment, None)
        names = ["exposure", "hue", "jitter", "saturation"]
    if change is augment_classifier.darknet_448:
        change = functools.partial(augment_classifier.darknet, crop=(1.0, 512 / 448))
    defaults = {name: one.default for name, one in inspect.signature(change).parameters.items()}
    assert {name: defaults[name] for name in names} == {name: wanted[name] for name in names}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_darknets_multi_scale_ends_in_200_batches_of_the_greatest_size(path):
    """examples/detector.c, train_detector: sizes of (10 to 19) * 32, and 608 at the end."""
    recipe = runs.read_recipe(path)
    if path.parent.name.startswith(("yolo_v2_", "yolo9000_")) and recipe.multi_scale:
        assert list(recipe.multi_scale) == [(10 + draw) * 32 for draw in range(10)]
        assert recipe.multi_scale_last == 200
    else:
        assert recipe.multi_scale_last == 0


VOC0712, COCO = 16_551, 118_287  # images of VOC's two trainval sets, and of train2017


@pytest.mark.parametrize(
    ("name", "cfg", "images"),
    [
        ("yolo9000_coco_imagenet", "cfg/yolo9000.cfg", None),
        ("yolo_v1_coco", "cfg_history/yolov1/yolo-coco.cfg", COCO),
        ("yolo_v1_tiny_coco", "cfg_history/yolov1/tiny-coco.cfg", COCO),
        ("yolo_v1_tiny_voc0712", "cfg/yolov1-tiny.cfg", VOC0712),
        ("yolo_v2_coco", "cfg/yolov2.cfg", COCO),
        ("yolo_v2_tiny_coco", "cfg/yolov2-tiny.cfg", COCO),
        ("yolo_v2_tiny_voc0712", "cfg/yolov2-tiny-voc.cfg", VOC0712),
    ],
)
def test_a_recipe_trains_by_the_iterations_of_its_cfg(name, cfg, images, shared_data):
    path = shared_data / "darknet" / cfg
    wanted, (given, scales) = of_cfg(path), steps_of_cfg(path)
    recipe = runs.read_recipe(ZOO / name / "recipe.py")
    assert recipe.batch_size == 64
    steps = math.ceil((images or recipe.images_per_epoch) / 64)
    # As many epochs as come nearest, and the rate by parts of one.
    assert abs(recipe.epochs * steps - wanted["max_batches"]) < (steps if images else 1)
    tolerance = 0.005 if images else 1e-9
    np.testing.assert_allclose(
        [*recipe.milestones, recipe.warmup_epochs],
        np.array([*given, wanted.get("burn_in", 0)]) / steps,
        rtol=tolerance,
    )
    assert recipe.warmup_power == (4 if "burn_in" in wanted else 1)  # parser.c: power=4
    rate = wanted["learning_rate"] * scales[0]
    assert recipe.learning_rate == pytest.approx(rate)
    assert list(recipe.scales or [0.1] * len(given)) == scales[1:]


def steps_of_cfg(path):
    """Where the rate changes and by what, before them what holds from the start (steps=-1, or 1)."""
    text = path.read_text()
    steps, scales = (
        [float(number) for number in re.search(rf"^{name}=([-\d,.]+)", text, re.M)[1].split(",")]
        for name in ("steps", "scales")
    )
    return (steps[1:], scales) if steps[0] < 0 else (steps, [1.0, *scales])


def test_yolo_v2_of_voc_keeps_the_burn_in_of_its_cfg(shared_data):
    """The rest is the paper's."""
    wanted = of_cfg(shared_data / "darknet" / "cfg" / "yolov2-voc.cfg")["burn_in"]
    recipe = runs.read_recipe(ZOO / "yolo_v2_voc0712" / "recipe.py")
    assert round(recipe.warmup_epochs * math.ceil(VOC0712 / 64)) == wanted


def test_the_tiny_yolo_of_coco_has_the_outputs_of_its_cfg(shared_data):
    text = (shared_data / "darknet" / "cfg_history" / "yolov1" / "tiny-coco.cfg").read_text()
    model = runs.read_recipe(ZOO / "yolo_v1_tiny_coco" / "recipe.py").build(COCO_NAMES)
    assert "output= 4655" in text
    assert model.get_layer("connected1").units == 4655 == 49 * (80 + 3 * 5)
    assert darknet_weights.expected_floats(model) == 67_055_775


def test_yolos_first_two_rows_are_plain_with_dropout_and_normalised_without():
    """YOLO9000, table 2 and sec. 2; of the plain one all but the plain classifier's trunk is new."""
    folder = ZOO / "yolo_v1_voc0712"
    plain = runs.read_recipe(folder / "plain.py").build(VOC_NAMES)
    assert darknet_weights.expected_floats(plain) == 271_703_550  # cfg/yolo.cfg of 2015
    assert plain.get_layer("dropout").rate == 0.5
    classifier = runs.read_recipe(ZOO / "extraction_imagenet" / "plain.py").build(["a", "b"])
    afresh = [f"conv{number}" for number in (21, 22, 23, 24)] + ["connected1", "connected2"]
    assert plain.start_from(classifier) == afresh
    recipe = runs.read_recipe(folder / "recipe.py")
    assert recipe.pretrained == "imagenet"
    normalised = training.replaced(recipe, {"pretrained": False}).build(VOC_NAMES)
    # A gain, a shift, a mean and a variance for each of 24 convolutions' filters, and no bias.
    filters = sum(plain.get_layer(f"conv{number}").filters for number in range(1, 25))
    assert normalised.count_params() == 271_743_102 == plain.count_params() + 3 * filters
    assert not any("dropout" in layer.name for layer in normalised.layers)


def test_the_plain_classifier_sees_a_crop_of_224_out_of_256_pixels():
    """A ramp of one grey value every two of 512 pixels: one a pixel where they are 256."""
    recipe = runs.read_recipe(ZOO / "extraction_imagenet" / "plain.py")
    ramp = np.broadcast_to((np.arange(512) // 2)[None, :, None], (512, 512, 3)).astype(np.uint8)
    seen = np.asarray(recipe.augment(tf.constant(ramp), (224, 224), tf.constant([3, 4])), float)
    slope = np.abs(np.diff(seen[:, 8:-8, 0], axis=1)).mean()
    assert slope == pytest.approx(1.0, abs=0.005)
    assert abs(recipe.epochs * math.ceil(1_281_167 / recipe.batch_size) - 500_000) < 10_010


def three_steps(recipe, examples):
    model = recipe.build(examples.class_names)
    if recipe.regions is not None:
        examples = training.with_proposals(examples, recipe.regions)
    batches = data.pipeline(
        examples, model, 2, augment=recipe.augment, multi_scale=recipe.multi_scale
    )
    train_on(model, recipe, batches)


def train_on(model, recipe, batches):
    model.compile(**recipe.optimizer_settings(3))
    before = [np.array(v) for v in model.trainable_variables]
    logs = model.fit(batches.take(3), epochs=1, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    moved = [
        np.abs(np.array(v) - b).max() > 0
        for v, b in zip(model.trainable_variables, before, strict=True)
    ]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize(
    "name",
    [
        "ssd_shapes",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("fast_rcnn_shapes", "overfeat_shapes", "yolo_v1_shapes", "yolo_v2_shapes")
        ),
    ],
)
def test_the_shapes_recipes_train(name):
    recipe = runs.read_recipe(ZOO / name / "recipe.py")
    three_steps(recipe, data.shapes(6, image_size=128))


def test_the_joint_recipe_trains_on_boxes_and_labels():
    recipe = runs.read_recipe(ZOO / "yolo9000_shapes" / "recipe.py")
    boxes = data.shapes(6, image_size=128, classes=("ellipse", "rectangle", "star"))
    labels = data.load_images("shapes:train?count=6&size=128")
    model = recipe.build(boxes.class_names)
    first = runs.read_recipe(ZOO / "yolo9000_shapes" / "boxes.py")
    assert (first.nodes, first.train) == (recipe.nodes, recipe.train)
    assert model.start_from(first.build(boxes.class_names)) == []
    coarse = model.tree.read_map(recipe.nodes)
    assert [model.class_names[node] for node in coarse] == ["smooth", "angular", "angular"]
    boxes = data.relabelled(boxes, coarse, model.class_names)
    labels = data.relabelled(labels, model.tree.nodes(labels.class_names), model.class_names)
    batches = data.joint(
        boxes, labels, model, 4, detection_share=recipe.detection_share, augment=recipe.augment
    )
    train_on(model, recipe, batches)


def test_the_joint_recipe_of_coco_is_evaluated_by_the_nodes_of_darknets_map(shared_data):
    """By name it could not be: 9k.tree has "car" three times."""
    recipe = runs.read_recipe(ZOO / "yolo9000_coco_imagenet" / "recipe.py")
    darknet, photos = shared_data / "darknet" / "data", shared_data / "coco128"
    coco = data.load(
        f"coco:{photos}/annotations/instances_train2017.json,{photos}/images/train2017"
    )
    model = small.yolo9000(tree=WordTree.from_darknet(darknet / "9k.tree", darknet / "9k.names"))
    detector = training._answering(recipe, model, coco, darknet)
    assert detector.nodes[coco.class_names.index("car")] == 3802  # line 3 of coco9k.map
    result = evaluate(
        detector, coco, rule=recipe.rule, match_names=recipe.match_names, max_images=1
    )
    assert {one.name for one in result.classes} == set(coco.class_names)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssd_small_bccd", "yolo_v2_small_bccd"])
def test_the_cells_recipes_train_on_the_cells(name, shared_data):
    recipe = runs.read_recipe(ZOO / name / "recipe.py")
    three_steps(recipe, data.load(f"voc:{shared_data}/bccd/BCCD:val"))


@pytest.mark.slow
def test_the_cells_recipe_of_fast_rcnn_trains_on_regions_from_a_folder(shared_data, tmp_path):
    """As `kerasdet data proposals` fills it; the recipe says where in the folder of the data."""
    recipe = runs.read_recipe(ZOO / "fast_rcnn_small_bccd" / "recipe.py")
    assert recipe.regions == "{data_dir}/proposals"
    cells = data.load(f"voc:{shared_data}/bccd/BCCD:val")
    data.propose(cells, tmp_path / "proposals", method="sliding_windows", workers=1)
    recipe = training.replaced(recipe, {"regions": str(tmp_path / "proposals")})
    three_steps(recipe, cells)


@pytest.mark.slow
def test_the_voc_recipe_of_yolo_v2_trains_at_changing_sizes(shared_data):
    recipe = training.replaced(
        runs.read_recipe(ZOO / "yolo_v2_tiny_voc0712" / "recipe.py"),
        {"multi_scale": (64, 96), "learning_rate": 1e-3},
    )
    three_steps(recipe, data.load(f"voc:{shared_data}/bccd/BCCD:val"))


@pytest.mark.slow
def test_ssd300_of_the_voc_recipe_trains_on_photos_in_either_format(shared_data):
    recipe = training.replaced(
        runs.read_recipe(ZOO / "ssd300_voc0712" / "recipe.py"), {"pretrained": False}
    )
    folder = shared_data / "coco128"
    coco = data.load(
        f"coco:{folder}/annotations/instances_train2017.json,{folder}/images/train2017"
    )
    three_steps(recipe, coco)
