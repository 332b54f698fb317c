"""Regions from an image alone: painted rectangles are found, each time the same, best first."""

import sys

import cv2
import numpy as np
import pytest

from kerasdet.data import edge_boxes, selective_search, sliding_windows
from kerasdet.data import proposals as module
from kerasdet.data.proposal_cache import best_overlaps
from kerasdet.errors import InputError

SIZE = (80, 100)
RECTANGLE = (30, 20, 75, 60)


def painted(size=SIZE, box=RECTANGLE):
    image = np.full((*size, 3), 90, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = (250, 10, 10)
    return image


def noisy(size=SIZE):
    """Coarse blocks of any colour: many segments."""
    height, width = size
    blocks = np.random.default_rng(3).integers(0, 256, (height // 10, width // 10, 3))
    return blocks.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)


@pytest.mark.parametrize("quality", [False, True])
def test_a_painted_rectangle_is_among_the_regions(quality):
    found = selective_search(painted(), quality=quality)
    assert found.dtype == np.float32
    assert best_overlaps([RECTANGLE], found)[0] > 0.9
    assert best_overlaps([(0, 0, 100, 80)], found)[0] == 1  # all segments merged


def test_regions_are_distinct_and_inside_the_image():
    found = selective_search(noisy())
    assert len(found) > 20
    assert len(np.unique(found, axis=0)) == len(found)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= (100, 80)).all()
    assert (found[:, 2:] > found[:, :2]).all()


def test_the_same_image_gives_the_same_regions_whatever_was_searched_before():
    first = selective_search(noisy())
    selective_search(painted())  # OpenCV's own order goes on with C's random numbers
    np.testing.assert_array_equal(first, selective_search(noisy()))


def test_most_regions_are_the_first_of_all():
    every = selective_search(noisy(), max_regions=None)
    np.testing.assert_array_equal(selective_search(noisy(), max_regions=7), every[:7])
    assert len(every) > 7


def test_the_order_is_rank_by_size_times_chance(rng):
    corners = rng.integers(0, 40, (50, 2))
    boxes = np.hstack([corners, corners + 1 + rng.permutation(50)[:, None] * [1, 2]]).astype(float)
    chance = np.random.default_rng(0).uniform(size=50)
    by_size = sorted(boxes.tolist(), key=lambda b: -(b[2] - b[0]) * (b[3] - b[1]))
    expected = sorted(enumerate(by_size, start=1), key=lambda pair: pair[0] * chance[pair[0] - 1])
    ordered = module._large_ones_first(np.concatenate([boxes, boxes[:5]]))  # five come twice
    np.testing.assert_array_equal(ordered, [box for _, box in expected])


def test_a_large_photo_is_searched_smaller_and_its_regions_are_in_its_own_pixels():
    box = (300, 80, 900, 500)
    image = painted((600, 1200), box)
    found = selective_search(image, max_side=150)  # 75 rows of 150 pixels, 8 of the photo's each
    assert best_overlaps([box], found)[0] > 0.9
    np.testing.assert_array_equal(found % 8, 0)
    small = selective_search(image[::8, ::8])
    assert best_overlaps(small * 8, found).mean() > 0.9


def test_colours_come_as_rgb():
    """Red and blue squares on grey: told apart by any order; OpenCV's segments differ with it."""
    image = noisy()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    search.switchToSelectiveSearchFast()
    rows = search.process()
    expected = {(x, y, x + w, y + h) for x, y, w, h in rows.tolist()}
    assert {tuple(map(int, row)) for row in selective_search(image)} == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (2, 3), (9, 8)])
def test_tiny_and_plain_images_are_one_region(size):
    found = selective_search(np.full((*size, 3), 7, np.uint8))
    assert found.tolist() == [[0, 0, size[1], size[0]]]


def test_grey_and_float_images_are_taken():
    expected = selective_search(painted())
    np.testing.assert_array_equal(selective_search(painted().astype(np.float32)), expected)
    grey = selective_search(painted()[..., 0])
    assert best_overlaps([RECTANGLE], grey)[0] > 0.9


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"max_regions": 0}, "max_regions"),
        ({"max_side": 0}, "max_side"),
        ({"image": np.zeros((5, 5, 2))}, "RGB"),
        ({"image": "nowhere.jpg"}, "nowhere.jpg"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(arguments, word):
    with pytest.raises(InputError, match=word):
        selective_search(**{"image": painted(), **arguments})


def test_without_opencv_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # importing it fails
    with pytest.raises(InputError, match=r"kerasdet\[proposals\]"):
        selective_search(painted())
    monkeypatch.setitem(sys.modules, "cv2", type("Plain", (), {"__version__": "9.9"}))
    with pytest.raises(InputError, match=r"9\.9 here is without them.*kerasdet\[proposals\]"):
        selective_search(painted())


# ------------------------------------------------------------------------ EdgeBoxes


def forest_file(folder):
    """One tree of OpenCV's format: a strong gradient in a patch's middle is an edge there.

    Feature 3 * 256 + 8 * 16 + 8: of channel 3, the gradient's strength, the middle of 16x16 cells.
    """
    options = {
        "numberOfTrees": 1,
        "numberOfTreesToEvaluate": 1,
        "selfsimilarityGridSize": 5,
        "stride": 2,
        "shrinkNumber": 2,
        "patchSize": 32,
        "patchInnerSize": 16,
        "numberOfGradientOrientations": 4,
        "gradientSmoothingRadius": 0,
        "regFeatureSmoothingRadius": 2,
        "ssFeatureSmoothingRadius": 8,
        "gradientNormalizationRadius": 4,
    }
    # Each mark adds 2 * stride ** 2 / patchInnerSize ** 2 = 1 / 32 to its pixel.
    middle = [x * 16 + y for x in (7, 8) for y in (7, 8)] * 32
    path = folder / "model.yml"
    file = cv2.FileStorage(str(path), cv2.FileStorage_WRITE)
    file.startWriteStruct("options", cv2.FileNode_MAP)
    for name, value in options.items():
        file.write(name, value)
    file.endWriteStruct()
    for name, values in (
        ("childs", [2, 0, 0]),
        ("featureIds", [3 * 256 + 8 * 16 + 8, 0, 0]),
        ("thresholds", [0.5, 0.0, 0.0]),
        ("edgeBoundaries", [0, 0, 0, len(middle)]),
        ("edgeBins", middle),
    ):
        file.startWriteStruct(name, cv2.FileNode_SEQ)
        file.startWriteStruct("", cv2.FileNode_SEQ | cv2.FileNode_FLOW)
        for value in values:
            file.write("", value)
        file.endWriteStruct()
        file.endWriteStruct()
    file.release()
    return path


def test_edge_boxes_find_a_painted_rectangle_with_a_forest_of_one_tree(tmp_path):
    box = (40, 30, 150, 100)
    image = painted((140, 200), box)
    found = edge_boxes(image, forest_file(tmp_path))
    assert found.dtype == np.float32
    assert best_overlaps([box], found[:3])[0] > 0.75
    assert (found[:, 2:] <= (200, 140)).all()
    np.testing.assert_array_equal(
        edge_boxes(image, forest_file(tmp_path), max_regions=2), found[:2]
    )


def test_edge_boxes_say_which_file_they_want(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"model\.yml\.gz of github.*no file .*model\.yml\.gz"):
        edge_boxes(painted())
    other = tmp_path / "other.yml"
    other.write_text("%YAML:1.0\n---\na: 1\n")  # well-formed; OpenCV would divide by no trees
    with pytest.raises(InputError, match="no structured forest"):
        edge_boxes(painted(), other)
    other.write_bytes(b"\0\1\2 no YAML")
    with pytest.raises(InputError, match="no structured forest"):
        edge_boxes(painted(), other)


# ------------------------------------------------------------------------ sliding windows


def test_windows_cover_the_image_in_steps():
    found = sliding_windows(60, 90, sides=(1.0, 0.5), ratios=(1.0,), step=0.5)
    # One window of 90x60, then 45x30 every 22.5 pixels across and 15 down: 3 by 3.
    expected = [(0, 0, 90, 60)] + [
        (x, y, x + 45, y + 30) for y in (0, 15, 30) for x in (0, 22.5, 45)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(sliding_windows(60, 90, max_regions=3)) == 3
    with pytest.raises(InputError, match="0x5"):
        sliding_windows(5, 0)
