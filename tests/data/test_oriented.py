"""Photos that were held upright: labels of every kind on the pixels that they were made on."""

import json

import numpy as np
import pytest
from rich.console import Console

from kerasdet import data
from kerasdet.data import decoding
from kerasdet.data import example as ex
from kerasdet.data.proposal_cache import Method, content_key, propose
from tests.data.annotation_files import elements, voc_xml
from tests.oriented_files import write_photo

HEIGHT, WIDTH = 64, 40  # upright
BOX = [8, 16, 24, 56]  # x1, y1, x2, y2 there


def red_box(pixels):
    """The edges of what is red."""
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 100)
    ys, xs = np.nonzero(red)
    return [int(edge) for edge in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]


def photo(path, orientation=6):
    """A JPEG on its side, with a red box; gives that box on the pixels as stored."""
    upright = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    upright[BOX[1] : BOX[3], BOX[0] : BOX[2]] = (250, 10, 10)
    return red_box(write_photo(path, upright, orientation))


def voc(folder, *, stored, orientation=6):
    (folder / "Annotations").mkdir(parents=True)
    x1, y1, x2, y2 = as_stored = photo(folder / "JPEGImages" / "a.jpg", orientation)
    if not stored:
        x1, y1, x2, y2 = BOX
    size = (WIDTH, HEIGHT) if stored and orientation >= 5 else (HEIGHT, WIDTH)
    text = voc_xml([("dog", x1 + 1, y1 + 1, x2, y2)], size)
    (folder / "Annotations" / "a.xml").write_text(text)
    return data.from_voc(folder), as_stored


def coco(folder, *, stored):
    as_stored = photo(folder / "images" / "a.jpg")
    x1, y1, x2, y2 = as_stored if stored else BOX
    height, width = (WIDTH, HEIGHT) if stored else (HEIGHT, WIDTH)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": height, "width": width}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        ],
        "categories": [{"id": 1, "name": "dog"}],
    }
    (folder / "ann.json").write_text(json.dumps(content))
    return data.from_coco(folder / "ann.json", folder / "images"), as_stored


@pytest.mark.parametrize("reader", [voc, coco])
@pytest.mark.parametrize("stored", [False, True])
def test_the_stated_size_says_which_pixels_the_boxes_are_of(tmp_path, reader, stored):
    dataset, as_stored = reader(tmp_path, stored=stored)
    (element,) = elements(dataset)
    assert element["image"].shape == ((WIDTH, HEIGHT, 3) if stored else (HEIGHT, WIDTH, 3))
    np.testing.assert_array_equal(element["boxes"], [as_stored if stored else BOX])
    np.testing.assert_array_equal(element["boxes"], [red_box(element["image"])])
    assert dataset.problems == []
    sizes = data.stats(dataset).image_sizes
    assert list(sizes) == [element["image"].shape[:2]]


def test_a_turn_that_keeps_the_size_is_made(tmp_path):
    dataset, as_stored = voc(tmp_path, stored=False, orientation=3)
    (element,) = elements(dataset)
    assert as_stored != BOX
    np.testing.assert_array_equal(element["boxes"], [red_box(element["image"])])


def test_yolo_labels_are_shares_of_the_upright_photo(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    x1, y1, x2, y2 = BOX
    shares = [(x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, 16 / WIDTH, 40 / HEIGHT]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(" ".join(map(str, [0, *shares])))
    dataset = data.from_yolo(tmp_path / "images", tmp_path / "labels", strict=True)
    (element,) = elements(dataset)
    np.testing.assert_allclose(element["boxes"], [red_box(element["image"])], atol=1e-4)
    assert element["image"].shape == (HEIGHT, WIDTH, 3)
    assert decoding.header_size(tmp_path / "images" / "a.jpg") == (HEIGHT, WIDTH)


def test_a_size_that_the_annotation_leaves_out_is_the_upright_one(tmp_path):
    photo(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "Annotations").mkdir()
    text = voc_xml([("dog", BOX[0] + 1, BOX[1] + 1, *BOX[2:])], None)
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    dataset = data.from_voc(tmp_path)
    (element,) = elements(dataset)
    np.testing.assert_array_equal(element["boxes"], [red_box(element["image"])])
    assert [problem.rule for problem in dataset.problems] == [ex.MISSING_SIZE]


@pytest.mark.parametrize("stored", [False, True])
def test_strict_finds_no_wrong_size(tmp_path, stored):
    voc(tmp_path, stored=stored)
    assert len(elements(data.from_voc(tmp_path, strict=True))) == 1


@pytest.mark.parametrize("stored", [False, True])
def test_a_crop_shows_the_object(tmp_path, stored):
    dataset, _ = voc(tmp_path, stored=stored)
    (crop,) = elements(data.object_crops(dataset, context=1.0))
    x1, y1, x2, y2 = red_box(crop["image"])
    assert {x2 - x1, y2 - y1} == {16, 40}


def test_photos_in_class_folders_are_upright(tmp_path):
    photo(tmp_path / "dogs" / "a.jpg")
    (element,) = elements(data.from_image_folders(tmp_path))
    assert red_box(element["image"]) == BOX


def test_check_counts_the_photos_and_those_used_as_stored(tmp_path):
    first, _ = voc(tmp_path / "first", stored=True)
    second, _ = coco(tmp_path / "second", stored=False)
    found = data.check(first), data.check(second)
    assert [(one.oriented, one.as_stored) for one in found] == [(1, 1), (1, 0)]
    console = Console(width=200)
    with console.capture() as printed:
        console.print(found[0])
    assert "1 image with an EXIF orientation: 1 used as stored" in printed.get()


def test_proposals_are_of_the_pixels_that_are_used(tmp_path):
    """Also where a folder holds those of the same file as it is stored, as older versions did."""
    stored, _ = voc(tmp_path / "stored", stored=True)
    upright, _ = voc(tmp_path / "upright", stored=False)
    (path,) = (record.path for record in stored.records)
    (other,) = (record.path for record in upright.records)
    assert content_key(path, annotated=(WIDTH, HEIGHT)) == content_key(other)[:-2]
    method = Method("sliding_windows", max_regions=1)  # the largest: the whole image
    for number, dataset in enumerate((stored, upright)):
        found = propose(dataset, tmp_path / "kept", method=method)
        assert (found.images, found.computed) == (1, 1)
        assert len(list((tmp_path / "kept").glob("*.npz"))) == number + 1
    for dataset in (stored, upright):
        (element,) = elements(data.with_regions(dataset, tmp_path / "kept"))
        height, width = element["image"].shape[:2]
        assert element["regions"].max(axis=0).tolist() == [0, 0, width, height]
