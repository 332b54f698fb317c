import json

import pytest

from kerasdet.data import example as ex
from kerasdet.data import from_coco
from kerasdet.errors import InputError
from tests.data.annotation_files import (
    annotation,
    coco_files,
    elements,
    findings,
    paint,
    painted_box,
)


def test_the_box_is_what_was_painted(tmp_path):
    file, images = coco_files(tmp_path, [annotation(1, 3, 5, [2, 1, 4, 3])])
    paint(images / "b.png", (5, 7), [(2, 1, 2 + 4, 1 + 3)])
    without, element = elements(from_coco(file, images))
    assert element["boxes"].tolist() == [painted_box(element["image"])]
    assert without["boxes"].shape == (0, 4)


def test_labels_follow_the_category_ids_and_images_the_file_names(tmp_path):
    boxes = [annotation(1, 3, 7, [0, 0, 2, 2]), annotation(2, 11, 2, [1, 1, 2, 2])]
    dataset = from_coco(*coco_files(tmp_path, boxes))
    assert dataset.class_names == ["ant", "bee", "cat"]  # ids 2, 5, 7
    assert [(r.image_id, r.labels.tolist()) for r in dataset.records] == [("11", [0]), ("3", [2])]


def test_categories_of_one_name_are_one_class(tmp_path):
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    boxes = [annotation(n, 3, n, [0, 0, 2, 2]) for n in (2, 1, 0)]
    dataset = from_coco(*coco_files(tmp_path, boxes, categories=categories))
    assert dataset.class_names == ["cat", "dog"]
    assert dataset.records[1].labels.tolist() == [0, 1, 0]


def test_crowd_and_area_are_the_files_own(tmp_path):
    boxes = [
        annotation(1, 3, 5, [0, 0, 4, 3], iscrowd=1, area=7.5),
        annotation(2, 3, 5, [0, 0, 4, 3], iscrowd=0),
    ]
    _, record = from_coco(*coco_files(tmp_path, boxes)).records
    assert record.crowd.tolist() == [True, False]
    assert record.area.tolist() == [7.5, 4 * 3]


def test_bad_annotations_are_reported_by_their_id(tmp_path):
    boxes = [
        annotation(90, 3, 5, [1, 1, 2, 2]),
        annotation(91, 999, 5, [1, 1, 2, 2]),
        annotation(92, 3, 99, [1, 1, 2, 2]),
        annotation(93, 3, 5, [1, 1, 0, 2]),
        annotation(94, 3, 5, [1, 1, 2, -2]),
        annotation(95, 3, 5, [1, 1, "a", 2]),
        annotation(96, 3, 5, [1, 1, 2]),
        annotation(97, 3, 5, [30, 1, 2, 2]),
        annotation(98, 3, 5, [5, 1, 9, 2]),
        annotation(99, 3, 5, [1, 1, float("nan"), 2]),
        annotation(100, [3], {}, None),
        "not an annotation",
    ]
    dataset = from_coco(*coco_files(tmp_path, boxes))
    assert [(p.row, p.rule) for p in dataset.problems] == [
        ("annotation 91", ex.UNKNOWN_IMAGE),
        ("annotation 92", ex.UNKNOWN_CLASS),
        ("annotation 93", ex.DEGENERATE),
        ("annotation 94", ex.INVERTED),
        ("annotation 95", ex.NOT_A_NUMBER),
        ("annotation 96", ex.MISSING_VALUE),
        ("annotation 97", ex.OUTSIDE),
        ("annotation 98", ex.EXCEEDS),
        ("annotation 99", ex.NOT_A_NUMBER),
        ("annotation 100", ex.UNKNOWN_IMAGE),
        ("annotations[11]", ex.MISSING_VALUE),
    ]
    assert dataset.records[1].boxes.tolist() == [[1, 1, 3, 3], [5, 1, 7, 3]]


def test_images_that_are_wrong_are_reported_once_and_not_for_every_box(tmp_path):
    images = [
        {"id": 1, "file_name": "a.png", "height": 5, "width": 7},
        {"id": 2, "file_name": "gone.png", "height": 5, "width": 7},
        {"id": 1, "file_name": "b.png", "height": 5, "width": 7},
        {"file_name": "b.png"},
        {"id": 4, "file_name": None},
        {"id": 5, "file_name": "b.png", "height": 0, "width": "7"},
    ]
    boxes = [annotation(n, 1 + n % 2, 5, [1, 1, 2, 2]) for n in range(4)]
    dataset = from_coco(*coco_files(tmp_path, boxes, images=images))
    assert findings(dataset) == [
        ("ann.json", "image 2", ex.MISSING_IMAGE),
        ("ann.json", "image 1", ex.DUPLICATE),
        ("ann.json", "images[3]", ex.MISSING_VALUE),
        ("ann.json", "image 4", ex.MISSING_IMAGE),
        ("ann.json", "image 5", ex.MISSING_SIZE),
    ]
    assert [(r.image_id, r.height, r.width, len(r.labels)) for r in dataset.records] == [
        ("1", 5, 7, 2),
        ("5", 5, 7, 0),
    ]


def test_a_file_name_finds_the_image_below_the_folder_and_never_outside(tmp_path):
    paint(tmp_path / "secret.png", (5, 7))
    names = ["/home/me/images/a.png", "..\\x\\b.png", "../secret.png", str(tmp_path / "secret.png")]
    images = [{"id": n, "file_name": name, "height": 5, "width": 7} for n, name in enumerate(names)]
    dataset = from_coco(*coco_files(tmp_path, [annotation(1, 0, 5, [1, 1, 2, 2])], images=images))
    assert [r.path.rsplit("/", 2)[1:] for r in dataset.records] == [
        ["images", "a.png"],
        ["images", "b.png"],
    ]
    assert [p.row for p in dataset.problems] == ["image 2", "image 3"]


def test_given_names_order_the_labels_and_others_are_reported(tmp_path):
    boxes = [annotation(1, 3, 7, [0, 0, 2, 2]), annotation(2, 3, 5, [0, 0, 2, 2])]
    dataset = from_coco(*coco_files(tmp_path, boxes), class_names=["dog", "cat"])
    assert dataset.class_names == ["dog", "cat"]
    assert dataset.records[1].labels.tolist() == [1]
    assert [(p.row, p.value) for p in dataset.problems] == [("annotation 2", "bee")]


def test_strict_names_file_annotation_and_rule(tmp_path):
    files = coco_files(tmp_path, [annotation(17, 999, 5, [1, 1, 2, 2])])
    with pytest.raises(InputError, match=r"ann\.json, annotation 17: unknown image id \(999\)"):
        from_coco(*files, strict=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "no list 'images'"),
        ('{"images": [], "annotations": 3, "categories": []}', "no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": [3]}', "needs an id and a name"),
        ('{"images": [], "annotations": [], "categories": [{"name": "a"}]}', "no id of its own"),
        ('{"images": [], "annotations": [], "categories": [{"name": "a", "id": 1}]}', "no valid"),
        ('{"images": [], "annotations": [], "categories": []}', "ann.json has no categories"),
    ],
)
def test_a_file_that_is_no_coco_json_is_one_sentence(tmp_path, text, message):
    file, images = coco_files(tmp_path, [])
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        from_coco(file, images)


def test_missing_file_and_folder_are_one_sentence(tmp_path):
    file, images = coco_files(tmp_path, [])
    with pytest.raises(InputError, match="no folder of images"):
        from_coco(file, tmp_path / "none")
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        from_coco(tmp_path / "none.json", images)


def test_ids_of_text_work_as_well(tmp_path):
    images = [{"id": "x", "file_name": "a.png", "height": 5, "width": 7}]
    boxes = [annotation("n1", "x", "c", [1, 1, 2, 2])]
    files = coco_files(tmp_path, boxes, images=images, categories=[{"id": "c", "name": "cat"}])
    assert json.loads(files[0].read_text())["images"][0]["id"] == "x"
    (record,) = from_coco(*files).records
    assert (record.image_id, record.labels.tolist()) == ("x", [0])
