"""Every recipe in zoo/ reads, and its model builds; those on built-in data train some steps."""

from pathlib import Path

import numpy as np
import pytest

from kerasdet import data, runs, training

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


def three_steps(recipe, examples):
    model = recipe.build(examples.class_names)
    batches = data.pipeline(examples, model, 2, augment=recipe.augment)
    model.compile(**recipe.optimizer_settings(3))
    before = [np.array(v) for v in model.trainable_variables]
    logs = model.fit(batches.take(3), epochs=1, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    moved = [
        np.abs(np.array(v) - b).max() > 0
        for v, b in zip(model.trainable_variables, before, strict=True)
    ]
    assert sum(moved) > 0.9 * len(moved)


def test_the_shapes_recipe_trains():
    recipe = runs.read_recipe(ZOO / "ssd_shapes" / "recipe.py")
    three_steps(recipe, data.shapes(6, image_size=128))


def test_the_cells_recipe_trains_on_the_cells(shared_data):
    recipe = runs.read_recipe(ZOO / "ssd_small_bccd" / "recipe.py")
    three_steps(recipe, data.load(f"voc:{shared_data}/bccd/BCCD:val"))


def test_ssd300_of_the_voc_recipe_trains_on_photos_in_either_format(shared_data):
    recipe = training.replaced(
        runs.read_recipe(ZOO / "ssd300_voc0712" / "recipe.py"), {"pretrained": False}
    )
    folder = shared_data / "coco128"
    coco = data.load(
        f"coco:{folder}/annotations/instances_train2017.json,{folder}/images/train2017"
    )
    three_steps(recipe, coco)
