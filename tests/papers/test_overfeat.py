"""OverFeat's numbers: parameters, file sizes, the table of six scales, the schedule."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kerasdet import classifier, runs
from kerasdet.backbones import overfeat
from kerasdet.backbones.overfeat import LAYOUTS, SCALES
from kerasdet.layers.offset_pooling import Interleave, OffsetMaxPooling
from kerasdet.weights import overfeat_file
from kerasdet.weights.maps import overfeat as weights_map

ZOO = Path(__file__).resolve().parents[2] / "zoo"

# Where weights and biases begin in the released files, in floats (overfeat-torch, ParamBank.lua).
FAST = {
    "conv1": (0, 34848),
    "conv2": (34944, 649344),
    "conv3": (649600, 1829248),
    "conv4": (1829760, 6548352),
    "conv5": (6549376, 15986560),
    "fc6": (15987584, 129233792),
    "fc7": (129236864, 141819776),
    "classes": (141823872, 145919872),
}
ACCURATE = {
    "conv1": (0, 14112),
    "conv2": (14208, 1218432),
    "conv3": (1218688, 2398336),
    "conv4": (2398848, 4758144),
    "conv5": (4758656, 9477248),
    "conv6": (9478272, 18915456),
    "fc7": (18916480, 123774080),
    "fc8": (123778176, 140555392),
    "classes": (140559488, 144655488),
}


def whole(build):
    """A network of full width, without numbers in its variables: they would take half a gigabyte."""
    with keras.StatelessScope(initialize_variables=False):
        model = build()
    keras.utils.clear_session()
    return model


@pytest.mark.parametrize(
    ("network", "parameters", "size", "places"),
    [
        ("fast", 145_920_872, 583_683_488, FAST),
        ("accurate", 144_656_488, 578_625_952, ACCURATE),
    ],
)
def test_networks_and_files_have_the_releases_numbers_layer_by_layer(
    network, parameters, size, places
):
    model = whole(getattr(classifier, f"overfeat_{network}"))
    assert model.count_params() == parameters
    assert weights_map.expected_floats(model) == parameters == size // 4
    assert overfeat_file.SIZES[network] == size
    found, start = {}, 0
    for name, shape in weights_map.shapes(model).items():
        found[name] = (start, start + int(np.prod(shape)))
        start = found[name][1] + shape[0]
    assert found == places
    assert model.image_size == (LAYOUTS[network].window,) * 2
    assert model.output_shape == (None, 1000)


def test_parameters_by_hand():
    """Table 3: kernel * kernel * in * out + out."""
    layers = [
        (7, 3, 96),
        (7, 96, 256),
        (3, 256, 512),
        (3, 512, 512),
        (3, 512, 1024),
        (3, 1024, 1024),
        (5, 1024, 4096),
        (1, 4096, 4096),
        (1, 4096, 1000),
    ]
    assert sum(k * k * a * b + b for k, a, b in layers) == 144_656_488


# Height and width: input; trunk's map; pooled at each offset; classifier's at each; interleaved.
TABLE_5 = [
    ((245, 245), (17, 17), (5, 5), (1, 1), (3, 3)),
    ((281, 317), (20, 23), (6, 7), (2, 3), (6, 9)),
    ((317, 389), (23, 29), (7, 9), (3, 5), (9, 15)),
    ((389, 461), (29, 35), (9, 11), (5, 7), (15, 21)),
    ((425, 497), (32, 38), (10, 12), (6, 8), (18, 24)),
    ((461, 569), (35, 44), (11, 14), (7, 10), (21, 30)),
]


def test_the_six_scales_have_the_papers_sizes_in_every_step():
    """From the layers themselves. Of scale 5 the paper prints 32x35 and 6x7, which its own 18x24 denies."""
    layout, options = LAYOUTS["accurate"], {"width": 1 / 96, "stddev": None}
    images = keras.Input((None, None, 3))
    maps = overfeat.trunk(overfeat.normalized(images), layout, **options)
    pooled = OffsetMaxPooling(3)(maps)
    outputs = overfeat.connected(pooled, layout, **options)
    fine = Interleave(3)(outputs, maps)
    model = keras.Model(images, [maps, pooled, outputs, fine])
    found = []
    for height, width in SCALES:
        steps = model(np.zeros((1, height, width, 3), "f4"))
        assert [len(step) for step in steps] == [1, 9, 9, 1]
        found.append(((height, width), *(tuple(step.shape[1:3]) for step in steps)))
        assert found[-1][1] == (layout.map_side(height), layout.map_side(width))
        assert found[-1][-1] == (layout.output_side(height), layout.output_side(width))
    assert found == TABLE_5


@pytest.mark.parametrize("network", ["fast", "accurate"])
def test_the_recipes_schedule_is_the_papers(network):
    """Section 3.1, in steps of 10 an epoch."""
    recipe = runs.read_recipe(ZOO / f"overfeat_{network}_imagenet" / "recipe.py")
    assert (recipe.batch_size, recipe.momentum, recipe.weight_decay) == (128, 0.6, 1e-5)
    assert (recipe.augment, recipe.crops, recipe.epochs) == ("overfeat", 5, 90)
    assert recipe.classifies
    rate = recipe.optimizer_settings(10)["optimizer"]._learning_rate
    halvings = {0: 0, 29.9: 0, 30: 1, 49.9: 1, 50: 2, 60: 3, 70: 4, 79.9: 4, 80: 5, 89: 5}
    for epoch, count in halvings.items():
        assert float(rate(round(10 * epoch))) == pytest.approx(0.05 / 2**count)
    model = whole(lambda: recipe.build(["a", "b", "c"]))
    assert (model.dropout, model.stddev, model.width) == (0.5, 0.01, 1.0)
    assert model.class_names == ["a", "b", "c"]
