"""Objects cut out of detection data: which pixels, which label, and what is left out."""

import numpy as np
import pytest
from PIL import Image

from kerasdet import data
from kerasdet.data import example as ex
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError


def painted(rows, *, height=30, width=50):
    """One image whose pixel (y, x) is (y, x, 0), with these rows."""
    ys, xs = np.mgrid[:height, :width]
    image = np.stack([ys, xs, 0 * xs], axis=-1).astype("uint8")
    record = ex.make_record("photo", "", height=height, width=width, rows=rows)
    return to_dataset([record], ["cup", "hat"], ex.Inspector(), "painted", pixels=lambda _: image)


def crops(examples, **kwargs):
    return list(data.object_crops(examples, **kwargs).as_numpy_iterator())


def extent(crop):
    """(first row, first column, rows, columns) of what a crop shows."""
    image = crop["image"]
    return int(image[0, 0, 0]), int(image[0, 0, 1]), *image.shape[:2]


def test_a_crop_is_the_square_around_the_objects_middle():
    (crop,) = crops(painted([ex.Row((20, 10, 28, 14), 1)]), context=1.5)
    # 1.5 times 8 pixels around (24, 12).
    assert extent(crop) == (6, 18, 12, 12)
    assert crop["label"] == 1
    assert crop["image_id"] == b"photo#0"


def test_a_crop_at_the_edge_moves_inside_and_a_large_one_is_cut():
    at_corner, tall = crops(
        painted([ex.Row((44, 0, 50, 6), 0), ex.Row((0, 0, 8, 30), 1)]), context=2
    )
    assert extent(at_corner) == (0, 38, 12, 12)  # 41..53 moved to 38..50, -3..9 to 0..12
    assert extent(tall) == (0, 0, 30, 50)  # 60 pixels are more than either side


def test_difficult_objects_and_crowds_are_left_out():
    rows = [
        ex.Row((1, 1, 9, 9), 0, difficult=True),
        ex.Row((2, 2, 8, 8), 1),
        ex.Row((3, 3, 9, 9), 0, crowd=True),
    ]
    assert [crop["image_id"] for crop in crops(painted(rows))] == [b"photo#1"]


def test_crops_of_files_are_their_pixels(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), "uint8")
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")  # 16..24, 6..14
    words = f"yolo:{tmp_path / 'images'},{tmp_path / 'labels'}"
    (crop,) = crops(data.load(words), context=1)
    np.testing.assert_array_equal(crop["image"], pixels[6:14, 16:24])
    with (tmp_path / "labels" / "a.txt").open("a") as file:
        file.write("0 0.5 0.5 -0.2 0.4\n")
    assert [problem.row for problem in data.load_images(f"crops:{words}").problems] == ["line 2"]


def test_the_shell_names_crops_by_a_word_before_the_datas():
    whole = data.load("shapes:train?count=7&size=64&objects=3")
    found = data.load_images("crops:shapes:train?count=7&size=64&objects=3")
    assert len(found.records) == sum(len(record.labels) for record in whole.records)
    assert found.class_names == whole.class_names
    labels = [label for record in whole.records for label in record.labels]
    assert [crop["label"] for crop in found.as_numpy_iterator()] == labels


def test_what_cannot_be_cut_is_one_sentence():
    examples = painted([ex.Row((20, 10, 28, 14), 1)])
    with pytest.raises(InputError, match="positive context, not 0"):
        data.object_crops(examples, context=0)
    with pytest.raises(InputError, match="voc, coco or yolo files, or shapes"):
        data.object_crops(examples.map(lambda example: example))
    with pytest.raises(InputError, match="painted has no object to cut out"):
        data.object_crops(painted([ex.Row((1, 1, 9, 9), 0, difficult=True)]))
