import csv

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from kerasdet.data import check, from_coco, from_voc, gallery, shapes, show, stats
from kerasdet.data import example as ex
from kerasdet.data.report import summary
from kerasdet.errors import InputError
from tests.data.annotation_files import annotation, coco_files, paint, voc_folder, voc_xml


@pytest.fixture
def folder(tmp_path):
    files = {
        "a": voc_xml([("dog", 1, 1, 3, 4), ("dog", 5, 1, 3, 4)]),
        "b": voc_xml([]),
        "c": voc_xml([("cat", 1, 1, 3, 4, 1), ("dog", 2, 2, 7, 5)]),
        "d": voc_xml([("cat", 1, 1, 3, 4)]),
    }
    folder = voc_folder(tmp_path / "d", files)
    broken = folder / "JPEGImages" / "d.png"
    broken.write_bytes(broken.read_bytes()[:50])
    return folder


def printed(renderable, width=200):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    console.file.close()
    return console.export_text()


def test_check_finds_bad_boxes_broken_images_and_empty_ones(folder):
    found = check(from_voc(folder))
    assert [(p.file.rsplit("/", 1)[1], p.row, p.rule) for p in found.problems] == [
        ("a.xml", "object 2", ex.INVERTED),
        ("d.png", "", ex.UNREADABLE_IMAGE),
        ("b.png", "", ex.NO_OBJECTS),
    ]
    assert (found.images, found.objects) == (3, 3)
    assert [p.rule for p in found.faults] == [ex.INVERTED, ex.UNREADABLE_IMAGE]
    assert found.counts == {ex.INVERTED: 1, ex.UNREADABLE_IMAGE: 1, ex.NO_OBJECTS: 1}


def test_check_twice_says_the_same(folder):
    dataset = from_voc(folder)
    assert check(dataset) == check(dataset)


def truncated(tmp_path, stems, *, of):
    """A folder of images with a dog each, those of the stems cut off after 50 bytes."""
    files = {stem: voc_xml([("dog", 1, 1, 3, 4)]) for stem in of}
    folder = voc_folder(tmp_path / "d", files)
    for stem in stems:
        image = folder / "JPEGImages" / f"{stem}.png"
        image.write_bytes(image.read_bytes()[:50])
    return folder


def test_broken_images_are_found_where_nothing_else_is_wrong(tmp_path):
    found = check(from_voc(truncated(tmp_path, "b", of="abc")), csv=tmp_path / "out.csv")
    assert [(p.file[-5:], p.rule) for p in found.faults] == [("b.png", ex.UNREADABLE_IMAGE)]
    assert (found.images, found.objects) == (2, 2)
    assert "1 problem: 1 unreadable image" in printed(found)
    assert (tmp_path / "out.csv").read_text().count(ex.UNREADABLE_IMAGE) == 1


def test_an_image_of_another_size_is_found_where_nothing_else_is_wrong(tmp_path):
    folder = truncated(tmp_path, "", of="ab")
    paint(folder / "JPEGImages" / "a.png", (6, 9))
    assert [p.rule for p in check(from_voc(folder)).faults] == [ex.WRONG_SIZE]


def test_that_no_image_can_be_used_is_a_problem_of_its_own(tmp_path):
    found = check(from_voc(truncated(tmp_path, "ab", of="ab")))
    assert found.counts == {ex.UNREADABLE_IMAGE: 2, ex.NONE_USABLE: 1}
    assert found.faults[-1].value == "0 of 2"
    assert "0 images and 0 objects can be used: there is nothing to train on" in printed(found)
    assert [p.rule for p in check(shapes(2, image_size=32).take(0)).faults] == [ex.NONE_USABLE]


def test_the_csv_has_a_line_a_problem(folder, tmp_path):
    check(from_voc(folder), csv=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "row", "rule", "value", "action"]
    assert rows[1][1:] == ["object 2", "inverted box", "5,1,3,4", "box dropped"]
    assert len(rows) == 1 + 3
    with pytest.raises(InputError, match=r"cannot write .*No such file"):
        check(from_voc(folder), csv=tmp_path / "none" / "out.csv")


def test_the_table_shows_row_rule_value_and_action(folder):
    text = printed(check(from_voc(folder)))
    for word in ("a.xml", "object 2", "inverted box", "5,1,3,4", "box dropped", "3 images"):
        assert word in text
    found = ex.Problem("f", "r", "rule", "[red]v", "a")
    many = check(shapes(2, image_size=32))
    many.problems[:] = [found] * 60
    assert "... and 10 more" in printed(many)
    assert "[red]v" in printed(many)  # a file's text is no markup


def test_check_works_from_the_elements_alone(folder):
    def spoil(element):
        return element | {"boxes": element["boxes"] + [[20.0, 0, 20, 0]]}

    found = check(from_voc(folder).map(spoil))
    assert [(p.file.rsplit("/", 1)[1], p.row, p.rule) for p in found.problems] == [
        ("a.png", "object 1", ex.OUTSIDE),
        ("c.png", "object 1", ex.OUTSIDE),
        ("c.png", "object 2", ex.OUTSIDE),
    ]


def test_the_summary_counts_what_became_of_problems_and_names_unreadable_images():
    found = [("a.xml", ex.INVERTED, ex.DROPPED_BOX), ("b.xml", ex.MISSING_IMAGE, ex.DROPPED_IMAGE)]
    found += [("c.txt", ex.LABEL_WITHOUT_IMAGE, "label ignored")] * 2
    found += [(f"d/{n}.jpg", ex.UNREADABLE_IMAGE, ex.SKIPPED_IMAGE) for n in range(3)]
    found += [("e.jpg", ex.NO_OBJECTS, "image kept")]  # a note
    problems = [ex.Problem(file, "", rule, "", action) for file, rule, action in found]
    assert summary(problems) == (
        "1 annotation left out, 1 image left out, "
        "3 images that cannot be read (0.jpg, 1.jpg, 2.jpg), 2 other problems"
    )
    assert summary(problems[4:], most=2) == (
        "3 images that cannot be read (0.jpg, 1.jpg and others)"
    )
    assert summary(problems[-1:]) == ""


def test_stats_count_images_objects_and_classes(folder):
    found = stats(from_voc(folder, class_names=["dog", "eel", "cat"]))
    assert (found.images, found.empty_images, found.objects, found.difficult) == (4, 1, 4, 1)
    assert found.class_counts == {"dog": 2, "eel": 0, "cat": 2}
    assert found.image_sizes == {(5, 7): 4}
    assert found.widths.tolist() == [3, 3, 6, 3]
    assert found.heights.tolist() == [4, 4, 4, 4]
    np.testing.assert_allclose(found.relative_sizes[2], np.sqrt(6 * 4 / (5 * 7)))
    assert (found.best_iou, found.unmatched) == (None, None)


def test_stats_from_the_elements_alone_agree_with_the_records(folder):
    (folder / "Annotations" / "d.xml").unlink()
    dataset = from_voc(folder, class_names=["cat", "dog"])
    ours, theirs = stats(dataset), stats(dataset.take(9))
    assert theirs.class_counts == {"class 0": 1, "class 1": 2}
    assert list(theirs.class_counts.values()) == list(ours.class_counts.values())
    np.testing.assert_array_equal(ours.widths, theirs.widths)
    assert (ours.difficult, ours.image_sizes) == (theirs.difficult, theirs.image_sizes)


def test_crowds_are_counted_apart(tmp_path):
    boxes = [annotation(1, 3, 5, [0, 0, 2, 2], iscrowd=1), annotation(2, 3, 5, [0, 0, 3, 2])]
    found = stats(from_coco(*coco_files(tmp_path, boxes)))
    assert (found.objects, found.crowds, found.widths.tolist()) == (1, 1, [3])
    assert found.class_counts == {"ant": 0, "bee": 1, "cat": 0}


def test_best_iou_is_measured_on_the_warped_image(tmp_path):
    # 10x20 pixels warped to a network 100 high and 40 wide: x by 2, y by 10.
    boxes = [annotation(1, 3, 5, [1, 2, 4, 3]), annotation(2, 11, 5, [0, 0, 20, 10])]
    dataset = from_coco(*coco_files(tmp_path, boxes, size=(10, 20)))
    defaults = np.float32([[2, 20, 10, 50], [0, 0, 40, 40], [30, 60, 40, 100]])
    found = stats(dataset, default_boxes=defaults, image_size=(100, 40))
    # a.png first: all of 40x100 against its best, 40x40; b.png's box is the first default box.
    np.testing.assert_allclose(found.best_iou, [40 * 40 / (40 * 100), 1], rtol=1e-6)
    assert found.unmatched == 0.5
    assert found.iou_histogram.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    text = printed(found)
    assert "50.0% of the objects match no default box" in text
    assert "40x100 network" in text


def test_best_iou_agrees_with_a_slow_loop(rng):
    dataset = shapes(30, image_size=64)
    corner = rng.uniform(0, 48, (50, 2))
    defaults = np.concatenate([corner, corner + rng.uniform(4, 30, (50, 2))], axis=1)
    found = stats(dataset, default_boxes=defaults, image_size=64)

    def iou(a, b):
        w, h = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
        shared = max(w, 0) * max(h, 0)
        return shared / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared)

    boxes = [box for record in dataset.records for box in record.boxes.tolist()]
    expected = [max(iou(box, default) for default in defaults.tolist()) for box in boxes]
    np.testing.assert_allclose(found.best_iou, expected, atol=1e-5)


def test_stats_wants_default_boxes_with_their_image_size():
    dataset = shapes(2, image_size=32)
    with pytest.raises(InputError, match="together"):
        stats(dataset, default_boxes=np.zeros((1, 4)))
    with pytest.raises(InputError, match=r"\(A, 4\), not \(3,\)"):
        stats(dataset, default_boxes=np.zeros(3), image_size=32)


def test_show_draws_the_box_where_it_is(tmp_path):
    file, images = coco_files(tmp_path, [annotation(1, 11, 2, [16, 8, 24, 16])], size=(32, 64))
    paint(images / "a.png", (32, 64))
    path = show(from_coco(file, images), tmp_path / "made" / "show.png", count=1)
    with Image.open(path) as image:
        picture = np.asarray(image).astype(int)
    scale = gallery._TILE / 64  # the sample is enlarged until its longer side fills a tile
    coloured = (picture == gallery._COLOURS[0]).all(axis=2)
    lower = coloured[int(12 * scale) :]  # below the name, which is drawn over the upper edge
    ys, xs = np.nonzero(lower)
    assert [xs.min(), xs.max() + 1] == [16 * scale, 40 * scale]
    assert ys.max() + 1 + int(12 * scale) == 24 * scale
    inside = coloured[int(17 * scale) : int(22 * scale), int(20 * scale) : int(38 * scale)]
    assert not inside.any()


def test_show_draws_as_many_as_asked_for_in_a_grid(tmp_path):
    dataset = shapes(7, image_size=(32, 64))
    with Image.open(show(dataset, tmp_path / "a.png", count=5, columns=3, seed=1)) as picture:
        side, gap = gallery._TILE, gallery._GAP
        assert picture.size == (3 * (side + gap), 2 * (side // 2 + gap))
    assert show(dataset, tmp_path / "b.png", seed=2).read_bytes() != (
        show(dataset, tmp_path / "c.png", seed=3).read_bytes()
    )


def test_show_works_from_the_elements_alone_and_refuses_strange_endings(tmp_path):
    dataset = shapes(2, image_size=32)
    plain = dataset.map(lambda e: {key: e[key] for key in ("image", "boxes", "labels")})
    assert show(plain, tmp_path / "a.png", seed=1).is_file()
    with pytest.raises(InputError, match="cannot write the picture"):
        show(dataset, tmp_path / "a.nothing")
    with pytest.raises(InputError, match="no image to draw"):
        show(dataset.take(0), tmp_path / "a.png")
