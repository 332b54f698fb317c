import numpy as np
import pytest

from kerasdet.data import example as ex
from kerasdet.data import from_voc
from kerasdet.errors import InputError
from tests.data.annotation_files import elements, findings, paint, painted_box, voc_folder, voc_xml


def test_the_box_is_what_was_painted(tmp_path):
    folder = voc_folder(tmp_path / "d", {"a": voc_xml([("dog", 3, 2, 6, 4)])})
    # Pixels 3..6 and 2..4 counted from 1 are columns 2..5 and rows 1..3 counted from 0.
    paint(folder / "JPEGImages" / "a.png", (5, 7), [(2, 1, 6, 4)])
    (element,) = elements(from_voc(folder))
    assert element["boxes"].tolist() == [painted_box(element["image"])]
    assert element["image_id"] == b"a"
    assert element["path"].decode() == str(folder / "JPEGImages" / "a.png")


def test_the_schema_of_an_element(tmp_path):
    objects = [("cow", 1, 1, 3, 4, 1), ("ant", 2, 2, 7, 5)]
    (element,) = elements(from_voc(voc_folder(tmp_path / "d", {"a": voc_xml(objects)})))
    types = {key: (element[key].dtype.name, element[key].shape) for key in list(element)[:6]}
    assert types == {
        "image": ("uint8", (5, 7, 3)),
        "boxes": ("float32", (2, 4)),
        "labels": ("int32", (2,)),
        "difficult": ("bool", (2,)),
        "crowd": ("bool", (2,)),
        "area": ("float32", (2,)),
    }
    assert element["difficult"].tolist() == [True, False]
    assert element["labels"].tolist() == [1, 0]  # ant, cow
    assert element["area"].tolist() == [3 * 4, 6 * 4]


def test_names_are_vocs_twenty_when_all_belong_to_them(tmp_path):
    folder = voc_folder(tmp_path / "d", {"a": voc_xml([("dog", 1, 1, 3, 4)])})
    dataset = from_voc(folder)
    assert len(dataset.class_names) == 20
    assert dataset.records[0].labels.tolist() == [11]  # the twelfth of the alphabetical list


def test_names_come_from_the_whole_folder_so_that_splits_agree(tmp_path):
    files = {"a": voc_xml([("zebu", 1, 1, 3, 4)]), "b": voc_xml([("ant", 1, 1, 3, 4)])}
    folder = voc_folder(tmp_path / "d", files, {"train": ["a"], "val": ["b"]})
    train, val = from_voc(folder, "train"), from_voc(folder, "val")
    assert train.class_names == val.class_names == ["ant", "zebu"]
    assert [r.image_id for r in train.records] == ["a"]


def test_a_split_keeps_its_order_and_reads_lists_with_a_second_column(tmp_path):
    files = {stem: voc_xml([("dog", 1, 1, 3, 4)]) for stem in "abc"}
    folder = voc_folder(tmp_path / "d", files, {"mine": ["c  1", "a -1", "", "b  0"]})
    assert [r.image_id for r in from_voc(folder, "mine").records] == ["c", "a", "b"]


def test_bad_boxes_are_dropped_by_row_and_the_image_stays(tmp_path):
    objects = [
        ("dog", 504, 337, 504, 337),
        ("dog", 5, 1, 3, 4),
        ("dog", "x", 1, 3, 4),
        ("dog", 1, 1, 3, ""),
        ("", 1, 1, 3, 4),
        ("dog", 30, 1, 40, 4),
        ("dog", 2, 2, 3, 9),
        ("dog", 2, 2, 3, 4),
    ]
    dataset = from_voc(voc_folder(tmp_path / "d", {"a": voc_xml(objects)}))
    assert findings(dataset) == [
        ("a.xml", "object 1", ex.DEGENERATE),
        ("a.xml", "object 2", ex.INVERTED),
        ("a.xml", "object 3", ex.NOT_A_NUMBER),
        ("a.xml", "object 4", ex.MISSING_VALUE),
        ("a.xml", "object 5", ex.MISSING_VALUE),
        ("a.xml", "object 6", ex.OUTSIDE),
        ("a.xml", "object 7", ex.EXCEEDS),
    ]
    (element,) = elements(dataset)
    assert element["boxes"].tolist() == [[1, 1, 3, 5], [1, 1, 3, 4]]


def test_boxes_counted_from_zero_are_clipped_without_a_word(tmp_path):
    dataset = from_voc(voc_folder(tmp_path / "d", {"a": voc_xml([("dog", 0, 0, 6, 4)])}))
    assert dataset.records[0].boxes.tolist() == [[0, 0, 6, 4]]
    assert dataset.problems == []


def test_without_a_size_the_images_own_is_taken_and_reported(tmp_path):
    files = {"a": voc_xml([("dog", 1, 1, 7, 5)], None), "b": voc_xml([("dog", 1, 1, 7, 5)], (0, 0))}
    dataset = from_voc(voc_folder(tmp_path / "d", files))
    assert findings(dataset) == [("a.xml", "", ex.MISSING_SIZE), ("b.xml", "", ex.MISSING_SIZE)]
    assert [(r.height, r.width) for r in dataset.records] == [(5, 7), (5, 7)]


def test_an_image_without_objects_is_kept(tmp_path):
    files = {"a": voc_xml([("dog", 1, 1, 3, 4)]), "b": voc_xml([])}
    shapes = [e["boxes"].shape for e in elements(from_voc(voc_folder(tmp_path / "d", files)))]
    assert shapes == [(1, 4), (0, 4)]


ENTITY = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"<annotation><object>", "no element found"),
        (b"", "no element found"),
        (b"\xff\xd8\xff", "not well-formed"),
        (b"<html/>", "not <annotation>"),
        ((ENTITY + "<annotation>&c;</annotation>").encode(), "document type"),
        ((ENTITY + "<annotation>&c;</annotation>").encode("utf-16"), "document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "encoding"),
    ],
)
def test_an_annotation_that_cannot_be_read_takes_its_image_with_it(tmp_path, text, reason):
    good = voc_xml([("dog", 1, 1, 3, 4)])
    folder = voc_folder(tmp_path / "d", {"a": good, "b": good})
    (folder / "Annotations" / "b.xml").write_bytes(text)
    dataset = from_voc(folder)
    assert [r.image_id for r in dataset.records] == ["a"]
    assert findings(dataset) == [("b.xml", "", ex.UNREADABLE_ANNOTATION)]
    assert reason in dataset.problems[0].value


def test_what_the_split_names_and_the_folder_lacks_is_reported(tmp_path):
    good = voc_xml([("dog", 1, 1, 3, 4)])
    folder = voc_folder(tmp_path / "d", {"a": good, "b": good}, {"train": ["a", "b", "c"]})
    (folder / "JPEGImages" / "b.png").unlink()
    dataset = from_voc(folder, "train")
    assert findings(dataset) == [
        ("b.xml", "", ex.MISSING_IMAGE),
        ("c.xml", "", ex.MISSING_ANNOTATION),
    ]
    assert [r.image_id for r in dataset.records] == ["a"]


def test_given_names_order_the_labels_and_others_are_reported(tmp_path):
    objects = [("dog", 1, 1, 3, 4), ("cat", 2, 2, 4, 5), ("eel", 1, 1, 3, 4)]
    folder = voc_folder(tmp_path / "d", {"a": voc_xml(objects)})
    dataset = from_voc(folder, class_names=["eel", "dog"])
    assert dataset.records[0].labels.tolist() == [1, 0]
    assert findings(dataset) == [("a.xml", "object 2", ex.UNKNOWN_CLASS)]


def test_strict_names_file_row_and_rule(tmp_path):
    folder = voc_folder(tmp_path / "d", {"a": voc_xml([("dog", 1, 1, 3, 4), ("dog", 5, 1, 3, 4)])})
    with pytest.raises(InputError, match=r"a\.xml, object 2: inverted box \(5,1,3,4\)"):
        from_voc(folder, strict=True)


def test_wrong_folders_and_splits_say_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*Annotations"):
        from_voc(tmp_path / "nowhere")
    good = voc_xml([("dog", 1, 1, 3, 4)])
    folder = voc_folder(tmp_path / "d", {"a": good}, {"train": ["a"], "val": ["a"]})
    for split in ("tset", "../../a"):
        with pytest.raises(InputError, match=r"no split .*; there: train, val"):
            from_voc(folder, split)


def test_coordinates_with_fractions_are_kept(tmp_path):
    folder = voc_folder(tmp_path / "d", {"a": voc_xml([("dog", 1.5, 1.25, 3.5, 4)])})
    np.testing.assert_array_equal(from_voc(folder).records[0].boxes, [[0.5, 0.25, 3.5, 4]])
