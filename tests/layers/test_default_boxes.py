import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers import DefaultBoxes
from kerasdet.layers.default_boxes import paper_sizes


def lopsided(**changes):
    """A 20 high, 30 wide input; maps 2x3 and 1x2; 4 and 2 boxes a cell."""
    arguments = {
        "image_size": (20, 30),
        "grids": [(2, 3), (1, 2)],
        "sizes": [4, 9, 16],
        "ratios": [[2], []],
        **changes,
    }
    return DefaultBoxes(**arguments)


def around(x, y, width, height):
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def test_every_box_of_two_lopsided_maps_by_hand():
    expected = []
    for y in (5, 15):  # steps of 20 / 2
        for x in (5, 15, 25):  # and 30 / 3
            long, short = 4 * math.sqrt(2), 4 / math.sqrt(2)
            for width, height in [(4, 4), (6, 6), (long, short), (short, long)]:  # 6 = sqrt(4 * 9)
                expected.append(around(x, y, width, height))
    for x in (7.5, 22.5):  # 30 / 2; y in the middle of 20
        for side in (9, 12):  # 12 = sqrt(9 * 16)
            expected.append(around(x, 10, side, side))
    layer = lopsided()
    assert layer.boxes_per_cell == [4, 2]
    np.testing.assert_allclose(layer.boxes, expected, atol=1e-5)
    assert layer.boxes.dtype == np.float32


def test_steps_can_differ_from_the_images_share():
    boxes = lopsided(steps=[(7, 8), 30]).boxes
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(
        centres[[0, 4, 12, 24, 26]], [[4, 3.5], [12, 3.5], [4, 10.5], [15, 15], [45, 15]]
    )


def test_clamping_cuts_widths_and_heights_each_at_its_own_side():
    boxes = lopsided(sizes=[25, 36, 40], clamp_sizes=True).boxes
    sizes = boxes[:, 2:] - boxes[:, :2]
    # 25 square: high 20 at most. sqrt(25 * 36) = 30. 25 * sqrt 2 = 35.4, cut at 30; 25 / sqrt 2 = 17.7.
    expected = [(25, 20), (30, 20), (30, 25 / math.sqrt(2)), (25 / math.sqrt(2), 20)]
    np.testing.assert_allclose(sizes[:4], expected, rtol=1e-5)


def test_clamped_centres_are_moved_to_the_edge_with_their_boxes_sides_kept():
    """Steps of 12 over 30 wide: centres 6, 18 and 30; of 20 over 20 high: 10 and 30, cut at 20."""
    boxes = lopsided(steps=[(20, 12), 30], clamp_centres=True).boxes
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    expected = [[6, 10], [18, 10], [30, 10], [6, 20], [18, 20], [30, 20], [15, 15], [30, 15]]
    np.testing.assert_allclose(centres[[0, 4, 8, 12, 16, 20, 24, 26]], expected, atol=1e-5)
    np.testing.assert_allclose(sides, (lambda b: b[:, 2:] - b[:, :2])(lopsided().boxes), rtol=1e-5)


def test_amdegroots_ten_by_ten_map_ends_at_the_images_edge():
    """Its last centres are 9.5 * 32 = 304, of an image of 300; no other map reaches beyond."""
    plain, moved = (
        DefaultBoxes.released(name).boxes for name in ("ssd300_voc", "ssd300_amdegroot")
    )
    start, per_cell = 38 * 38 * 4 + 19 * 19 * 6, 6
    of_map = slice(start, start + 10 * 10 * per_cell)
    row = [16 + 32 * column for column in range(10)]
    for boxes, last in ((plain, 304), (moved, 300)):
        centres = ((boxes[of_map, :2] + boxes[of_map, 2:]) / 2).reshape(10, 10, per_cell, 2)
        line = [*row[:9], last]
        np.testing.assert_allclose(centres[3, :, 1, 0], line, atol=1e-3)  # x along a row
        np.testing.assert_allclose(centres[:, 7, 5, 1], line, atol=1e-3)  # y down a column
    others = np.concatenate([moved[:start], moved[of_map.stop :]])
    centres = (others[:, :2] + others[:, 2:]) / 2
    assert centres.max() == pytest.approx(37.5 * 8)  # 300, of the finest map


def test_boxes_are_not_clipped_to_the_image():
    assert lopsided(sizes=[25, 36, 40]).boxes.min() < 0


def test_the_papers_formula_by_hand():
    """Five maps, 0.2 to 0.9: steps of 0.7 / 4 = 0.175; and one more step for the last square."""
    expected = [300 * s for s in (0.2, 0.375, 0.55, 0.725, 0.9, 1.075)]
    np.testing.assert_allclose(paper_sizes(300, 5), expected)


def test_the_papers_own_networks_have_a_finer_first_map():
    expected = [100 * s for s in (0.1, 0.2, 0.55, 0.9, 1.25)]
    np.testing.assert_allclose(paper_sizes(100, 4, s_first=0.1), expected)


def test_one_map_alone_has_the_least_scale():
    np.testing.assert_allclose(paper_sizes(100, 1, s_min=0.3, s_max=0.5), [30, 50])


@pytest.mark.parametrize(
    "scales", [{"s_min": 0.9, "s_max": 0.2}, {"s_min": 0}, {"s_first": 0.3}, {"s_first": 0}]
)
def test_scales_that_do_not_grow_are_refused(scales):
    with pytest.raises(InputError, match="s_first < s_min < s_max"):
        paper_sizes(300, 6, **scales)


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": [4, 9]},
        {"ratios": [[2]]},
        {"steps": [(10, 10)]},
        {"sizes": [4, 0, 16]},
        {"ratios": [[2], [-3]]},
    ],
)
def test_tables_that_do_not_fit_are_refused(changes):
    with pytest.raises(InputError):
        lopsided(**changes)


def test_an_unknown_release_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"ssd300_voc.*'ssd300_imagenet'"):
        DefaultBoxes.released("ssd300_imagenet")


def test_config_keeps_every_argument():
    layer = lopsided(steps=[(7, 8), (9, 30)], clamp_sizes=True, clamp_centres=True, name="boxes")
    revived = DefaultBoxes.from_config(layer.get_config())
    assert revived.image_size == (20, 30)
    assert revived.grids == [(2, 3), (1, 2)]
    assert revived.sizes == [4, 9, 16]
    assert revived.ratios == [[2], []]
    assert revived.steps == [(7, 8), (9, 30)]
    assert revived.clamp_sizes is True
    assert revived.clamp_centres is True
    assert revived.name == "boxes"
    np.testing.assert_array_equal(revived.boxes, layer.boxes)


def test_in_a_functional_model_it_gives_its_boxes_and_survives_saving(tmp_path):
    inputs = keras.Input((20, 30, 1))
    maps = [keras.layers.AveragePooling2D(size)(inputs) for size in ((10, 10), (20, 15))]
    model = keras.Model(inputs, lopsided()(maps))
    model.save(tmp_path / "boxes.keras")
    revived = keras.saving.load_model(tmp_path / "boxes.keras")
    found = ops.convert_to_numpy(revived(np.zeros((2, 20, 30, 1), "float32")))
    np.testing.assert_array_equal(found, lopsided().boxes)


def test_maps_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\(2, 3\).*\(4, 3\)"):
        lopsided()([keras.Input((4, 3, 8)), keras.Input((1, 2, 8))])
