"""The numbers of the SSD paper and of its authors' release (arXiv:1512.02325; caffe-ssd)."""

import math

import numpy as np
import pytest

from kerasdet import SSD
from kerasdet.detectors.ssd import CAFFE_MEAN
from kerasdet.layers.default_boxes import RELEASED, DefaultBoxes, paper_sizes


def boxes(name):
    return DefaultBoxes.released(name).boxes


def sizes_of(default_boxes):
    """Widths and heights of every map's first cell, map by map."""
    cells = zip(default_boxes.grids, default_boxes.boxes_per_cell, strict=True)
    starts = np.cumsum([0] + [rows * columns * n for (rows, columns), n in cells])
    ends = starts[:-1] + default_boxes.boxes_per_cell
    first = [default_boxes.boxes[a:b] for a, b in zip(starts[:-1], ends, strict=True)]
    return [of_map[:, 2:] - of_map[:, :2] for of_map in first]


@pytest.mark.parametrize("name", [name for name in RELEASED if name.startswith("ssd300")])
def test_ssd300_has_8732_boxes(name):
    assert 8732 == 38**2 * 4 + 19**2 * 6 + 10**2 * 6 + 5**2 * 6 + 3**2 * 4 + 1**2 * 4
    assert boxes(name).shape == (8732, 4)


@pytest.mark.parametrize("name", ["ssd512_voc", "ssd512_coco"])
def test_ssd512_has_24564_boxes(name):
    assert 24564 == 64**2 * 4 + (32**2 + 16**2 + 8**2 + 4**2) * 6 + 2**2 * 4 + 1**2 * 4
    assert boxes(name).shape == (24564, 4)


@pytest.mark.parametrize(
    ("name", "totals"),
    [
        ("ssd300_voc", [5776, 2166, 600, 150, 36, 4]),
        ("ssd512_voc", [16384, 6144, 1536, 384, 96, 16, 4]),
    ],
)
def test_boxes_of_each_map(name, totals):
    table = DefaultBoxes.released(name)
    found = [r * c * n for (r, c), n in zip(table.grids, table.boxes_per_cell, strict=True)]
    assert found == totals


def test_the_first_cell_by_hand():
    square, between = 30 / 2, math.sqrt(30 * 60) / 2
    long, short = 30 * math.sqrt(2) / 2, 30 / math.sqrt(2) / 2
    expected = [
        [4 - w, 4 - h, 4 + w, 4 + h]
        for w, h in [(square, square), (between, between), (long, short), (short, long)]
    ]
    np.testing.assert_allclose(boxes("ssd300_voc")[:4], expected, rtol=1e-6)


def test_the_second_maps_first_cell_has_ratio_3_after_ratio_2():
    wide2, wide3 = 60 * math.sqrt(2), 60 * math.sqrt(3)
    expected = [
        (60, 60),
        (math.sqrt(60 * 111),) * 2,
        (wide2, wide2 / 2),
        (wide2 / 2, wide2),
        (wide3, wide3 / 3),
        (wide3 / 3, wide3),
    ]
    np.testing.assert_allclose(
        sizes_of(DefaultBoxes.released("ssd300_voc"))[1], expected, rtol=1e-5
    )


def test_cells_run_along_x_first():
    found = boxes("ssd300_voc")
    np.testing.assert_allclose(found[4] - found[0], [8, 0, 8, 0], atol=1e-5)
    np.testing.assert_allclose(found[38 * 4] - found[0], [0, 8, 0, 8], atol=1e-5)


def test_the_last_box_stands_in_the_middle_of_the_image():
    # ratio 1/2 of 264: narrow and tall, centre (150, 150).
    half_width, half_height = 264 / math.sqrt(2) / 2, 264 * math.sqrt(2) / 2
    expected = [150 - half_width, 150 - half_height, 150 + half_width, 150 + half_height]
    np.testing.assert_allclose(boxes("ssd300_voc")[-1], expected, rtol=1e-6)


# deploy.prototxt's min_size and the last max_size; SSD512's cut to whole numbers as the code reads them.
@pytest.mark.parametrize(
    ("name", "min_sizes", "last"),
    [
        ("ssd300_voc", [30, 60, 111, 162, 213, 264], 315),
        ("ssd300_coco", [21, 45, 99, 153, 207, 261], 315),
        ("ssd512_voc", [35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8], 537.6),
        ("ssd512_coco", [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8], 542.72),
    ],
)
def test_released_sizes(name, min_sizes, last):
    both = [*map(int, min_sizes), int(last)]
    cells = sizes_of(DefaultBoxes.released(name))
    for cell, min_size, max_size in zip(cells, both[:-1], both[1:], strict=True):
        np.testing.assert_allclose(cell[0], [min_size, min_size], rtol=1e-5)
        np.testing.assert_allclose(cell[1], [math.sqrt(min_size * max_size)] * 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "least", "first"), [("ssd300_voc", 20, 10), ("ssd300_coco", 15, 7)]
)
def test_released_sizes_are_the_papers_formula_in_whole_percents(name, least, first):
    """ssd_pascal.py: step = floor((90 - least) / (6 - 2)) percent."""
    step = (90 - least) // 4
    percents = [first, *(least + step * k for k in range(6))]
    np.testing.assert_allclose(RELEASED[name].sizes, [3 * percent for percent in percents])


def test_the_papers_own_formula_for_ssd300():
    # s_k = 0.2 + 0.7 / 4 * (k - 1) for five maps, conv4_3 0.1 (sec. 3.1).
    expected = [300 * s for s in (0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.075)]
    np.testing.assert_allclose(paper_sizes(300, 6, s_first=0.1), expected)


def test_torchvision_cuts_long_sides_at_the_image():
    """Scale 0.87 with ratio 2: 0.87 * sqrt 2 = 1.23 becomes 1; Caffe's release keeps 1.23."""
    kept = sizes_of(DefaultBoxes.released("ssd300_coco"))[-1]
    cut = sizes_of(DefaultBoxes.released("ssd300_torchvision"))[-1]
    long, short = 0.87 * math.sqrt(2) * 300, 0.87 / math.sqrt(2) * 300
    np.testing.assert_allclose(kept[2:], [(long, short), (short, long)], rtol=1e-5)
    np.testing.assert_allclose(cut[2:], [(300, short), (short, 300)], rtol=1e-5)
    np.testing.assert_allclose(cut[:2], kept[:2])


@pytest.fixture(scope="module")
def networks():
    """Built by size and classes; kept while this file's tests run."""
    made = {}

    def network(classes, image_size):
        if (classes, image_size) not in made:
            made[classes, image_size] = SSD(classes, image_size=image_size)
        return made[classes, image_size]

    return network


@pytest.mark.parametrize(
    ("classes", "image_size", "weights"),
    [
        (20, 300, 26_285_486),
        (90, 300, 35_641_826),  # 91 logits, torchvision's own published count
        (20, 512, 27_188_676),
    ],
)
def test_parameter_counts(classes, image_size, weights, networks):
    network = networks(classes, image_size)
    assert network.count_params() == weights
    assert sum(math.prod(v.shape) for v in network.trainable_variables) == weights


# Channels and side of each map with heads (model_libs.py).
@pytest.mark.parametrize(
    ("image_size", "maps"),
    [
        (
            300,
            {
                "conv4_3_norm": (38, 512),
                "fc7": (19, 1024),
                "conv6_2": (10, 512),
                "conv7_2": (5, 256),
                "conv8_2": (3, 256),
                "conv9_2": (1, 256),
            },
        ),
        (
            512,
            {
                "conv4_3_norm": (64, 512),
                "fc7": (32, 1024),
                "conv6_2": (16, 512),
                "conv7_2": (8, 256),
                "conv8_2": (4, 256),
                "conv9_2": (2, 256),
                "conv10_2": (1, 256),
            },
        ),
    ],
)
def test_maps_with_heads_have_the_releases_sides_and_channels(image_size, maps, networks):
    network = networks(20, image_size)
    per_cell = DefaultBoxes.released(f"ssd{image_size}_voc").boxes_per_cell
    for (name, (side, channels)), count in zip(maps.items(), per_cell, strict=True):
        assert network.get_layer(name).output.shape == (None, side, side, channels)
        for head, numbers in (("loc", 4), ("conf", 21)):
            kernel = network.get_layer(f"{name}_mbox_{head}").kernel
            assert kernel.shape == (3, 3, channels, count * numbers)


def test_every_convolution_has_the_releases_kernel_stride_padding_and_holes(networks):
    network = networks(20, 512)

    def read(name):
        layer = network.get_layer(name)
        return layer.kernel_size[0], layer.strides[0], layer.padding, layer.dilation_rate[0]

    assert read("fc6") == (3, 1, "same", 6)
    assert read("fc7") == (1, 1, "same", 1)
    assert read("conv6_2") == (3, 2, "valid", 1)
    assert network.get_layer("conv6_2_pad").padding == ((1, 1), (1, 1))
    assert read("conv10_2") == (4, 1, "valid", 1)
    assert network.get_layer("conv10_2_pad").padding == ((1, 1), (1, 1))
    pool = network.get_layer("pool5")
    assert (pool.pool_size, pool.strides, pool.padding) == ((3, 3), (1, 1), "same")


def test_the_mean_is_the_releases_in_rgb_order():
    assert CAFFE_MEAN == (123.0, 117.0, 104.0)  # mean_value 104, 117, 123 in BGR


def test_the_default_boxes_of_the_network_are_the_voc_releases(networks):
    np.testing.assert_array_equal(networks(20, 300).default_boxes, boxes("ssd300_voc"))
    np.testing.assert_array_equal(networks(20, 512).default_boxes, boxes("ssd512_voc"))
