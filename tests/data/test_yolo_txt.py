import pytest

from kerasdet.data import example as ex
from kerasdet.data import from_yolo
from kerasdet.errors import InputError
from tests.data.annotation_files import elements, findings, paint, painted_box


def folders(root, labels, *, images=None, size=(5, 10)):
    """images/ and labels/ with these label texts by stem; 10 wide and 5 high."""
    for stem in images if images is not None else labels:
        paint(root / "images" / f"{stem}.png", size)
    (root / "labels").mkdir(parents=True, exist_ok=True)
    for stem, text in labels.items():
        (root / "labels" / f"{stem}.txt").write_text(text)
    return root / "images", root / "labels"


def test_the_box_is_what_was_painted(tmp_path):
    # Columns 2..5 of 10 and rows 1..3 of 5: centre 4/10, 2.5/5, size 4/10, 3/5.
    images, labels = folders(tmp_path, {"a": "1 0.4 0.5 0.4 0.6\n"})
    paint(images / "a.png", (5, 10), [(2, 1, 6, 4)])
    (element,) = elements(from_yolo(images, labels))
    assert element["boxes"][0].tolist() == pytest.approx(painted_box(element["image"]), abs=1e-5)
    assert element["labels"].tolist() == [1]


def test_lines_of_a_list_count_from_the_path_of_the_data_yaml(tmp_path):
    root = tmp_path / "my set"
    folders(root, {"a": "0 0.5 0.5 0.4 0.4"})
    (root / "train.txt").write_text("images/a.png\n")
    (tmp_path / "cfg").mkdir()
    file = tmp_path / "cfg" / "data.yaml"
    file.write_text('path: "../my set"\ntrain: train.txt\nnames: [cat]\n')
    (record,) = from_yolo(file).records
    assert record.path == str(tmp_path / "cfg" / ".." / "my set" / "images" / "a.png")
    assert record.labels.tolist() == [0]


def test_an_outline_gives_its_box(tmp_path):
    images, labels = folders(tmp_path, {"a": "0 0.2 0.4 0.5 0.2 0.8 0.4 0.5 1.0"})
    (record,) = from_yolo(images, labels).records
    assert record.boxes[0].tolist() == pytest.approx([0.2 * 10, 0.2 * 5, 0.8 * 10, 1.0 * 5])


def test_bad_rows_are_reported_by_line(tmp_path):
    rows = [
        "0 0.5 0.5 0.4 0.4",
        "",
        "0 0.5 0.5 0 0.4",
        "0 0.5 0.5 -0.1 0.4",
        "0 50 20 40 10",
        "0 0.5 x 0.4 0.4",
        "0 0.5 nan 0.4 0.4",
        "0 0.5 0.5 0.4",
        "-1 0.5 0.5 0.4 0.4",
        "1.5 0.5 0.5 0.4 0.4",
        "cat 0.5 0.5 0.4 0.4",
        "0 0.95 0.5 0.5 0.4",
        "2.0 0.5 0.5 0.4 0.4",
        "99999999999 0.5 0.5 0.4 0.4",
    ]
    images, labels = folders(tmp_path, {"a": "\n".join(rows)})
    dataset = from_yolo(images, labels)
    assert [(p.row, p.rule) for p in dataset.problems] == [
        ("line 3", ex.DEGENERATE),
        ("line 4", ex.INVERTED),
        ("line 5", ex.NOT_NORMALISED),
        ("line 6", ex.NOT_A_NUMBER),
        ("line 7", ex.NOT_A_NUMBER),
        ("line 8", ex.MISSING_VALUE),
        ("line 9", ex.UNKNOWN_CLASS),
        ("line 10", ex.UNKNOWN_CLASS),
        ("line 11", ex.UNKNOWN_CLASS),
        ("line 12", ex.EXCEEDS),  # 7 to 12 of 10
        ("line 14", ex.UNKNOWN_CLASS),
    ]
    assert dataset.records[0].labels.tolist() == [0, 0, 2]
    assert dataset.records[0].boxes[1].tolist() == pytest.approx([7, 1.5, 10, 3.5])


def test_labels_without_image_and_images_without_label_are_found(tmp_path):
    row = "0 0.5 0.5 0.4 0.4"
    images, labels = folders(tmp_path, {"a": row, "c": row, "classes": "cat"}, images=["a", "b"])
    dataset = from_yolo(images, labels)
    assert dataset.class_names == ["cat"]
    assert findings(dataset) == [
        ("c.txt", "", ex.LABEL_WITHOUT_IMAGE),
        ("b.png", "", ex.NO_OBJECTS),
    ]
    assert [(r.image_id, len(r.labels)) for r in dataset.records] == [("a", 1), ("b", 0)]


def test_ids_are_the_stems_and_numbers_lose_their_zeros(tmp_path):
    row = "0 0.5 0.5 0.4 0.4"
    images, labels = folders(tmp_path, {"0007": row, "0012a": row})
    assert [r.image_id for r in from_yolo(images, labels).records] == ["7", "0012a"]


def test_ids_stay_unique(tmp_path):
    row = "0 0.5 0.5 0.4 0.4"
    images, labels = folders(tmp_path / "numbers", {"7": row, "07": row})
    assert [r.image_id for r in from_yolo(images, labels).records] == ["07", "7"]
    paint(tmp_path / "tree" / "images" / "x" / "a.png", (5, 10))
    paint(tmp_path / "tree" / "images" / "y" / "a.png", (5, 10))
    label = tmp_path / "tree" / "labels" / "y" / "a.txt"
    label.parent.mkdir(parents=True)
    label.write_text(row)
    dataset = from_yolo(tmp_path / "tree" / "images")  # labels/ is found beside images/
    assert [(r.image_id, len(r.labels)) for r in dataset.records] == [("x/a", 0), ("y/a", 1)]


def test_names_without_a_list_are_numbers_up_to_the_greatest(tmp_path):
    images, labels = folders(tmp_path, {"a": "2 0.5 0.5 0.4 0.4"})
    assert from_yolo(images, labels).class_names == ["class 0", "class 1", "class 2"]


def test_given_names_name_the_numbers_and_greater_ones_are_reported(tmp_path):
    images, labels = folders(tmp_path, {"a": "1 0.5 0.5 0.4 0.4\n2 0.5 0.5 0.4 0.4"})
    dataset = from_yolo(images, labels, class_names=["ant", "bee"])
    assert dataset.records[0].labels.tolist() == [1]
    assert [(p.row, p.rule, p.value) for p in dataset.problems] == [
        ("line 2", ex.UNKNOWN_CLASS, "2")
    ]


def yaml_folder(root, text):
    row = "1 0.5 0.5 0.4 0.4"
    for part, stem in (("train", "a"), ("val", "b")):
        paint(root / "images" / part / f"{stem}.png", (5, 10))
        (root / "labels" / part).mkdir(parents=True)
        (root / "labels" / part / f"{stem}.txt").write_text(row)
    (root / "lists.txt").write_text("images/val/b.png\n./images/train/a.png\n\nimages/gone.png\n")
    (root / "data.yaml").write_text(text)
    return root / "data.yaml"


@pytest.mark.parametrize(
    ("text", "split", "ids"),
    [
        ("train: images/train\nval: images/val\nnames: [ant, bee]", "train", ["a"]),
        ("train: images/train\nval: images/val\nnames: {1: bee, 0: ant}", "val", ["b"]),
        ("path: .\ntrain: [images/val, images/train]\nnames: [ant, bee]", "train", ["a", "b"]),
        ("path: /nowhere\ntrain: ../images/train\nnames: [ant, bee]\nnc: 2", "train", ["a"]),
    ],
)
def test_data_yaml_in_its_many_forms(tmp_path, text, split, ids):
    dataset = from_yolo(yaml_folder(tmp_path, text), split=split)
    assert dataset.class_names == ["ant", "bee"]
    assert [r.image_id for r in dataset.records] == ids
    assert {r.labels.tolist()[0] for r in dataset.records} == {1}
    assert dataset.problems == []


def test_data_yaml_with_a_list_of_images(tmp_path):
    file = yaml_folder(tmp_path, "test: lists.txt\nnames: [ant, bee]")
    dataset = from_yolo(file, split="test")
    assert [r.image_id for r in dataset.records] == ["a", "b"]
    assert findings(dataset) == [("gone.png", "", ex.MISSING_IMAGE)]


def test_given_names_select_and_order_those_of_data_yaml(tmp_path):
    file = yaml_folder(tmp_path, "train: images/train\nnames: [ant, bee]")
    dataset = from_yolo(file, class_names=["bee", "cat"])
    assert dataset.records[0].labels.tolist() == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a", "is not YAML"),
        ("- 1", "it has no keys"),
        ("train: images/train", "`names` must be"),
        ("train: images/train\nnames: {1: a}", "`names` must be"),
        ("train: images/train\nnames: [a, b]\nnc: 3", "`nc` is 3, but `names` has 2"),
        ("val: images/val\nnames: [a, b]", "no split 'train'; there: val"),
        ("train: nothing\nnames: [a, b]", "names 'nothing', which is neither in"),
        ("train: data.yaml\nnames: [a, b]", "none of 2 images has a label file"),
        (  # 10**9 names, were the aliases written out
            "".join(
                f"l{n}: &l{n} [{', '.join([f'*l{n - 1}' if n else 'x'] * 10)}]\n" for n in range(9)
            )
            + "train: images/train\nnames: *l8\nnc: *l8",
            "`names` must be",
        ),
        ("train: !!python/object/apply:os.system ['false']\nnames: [a]", "is not YAML"),
    ],
)
def test_a_wrong_data_yaml_is_one_sentence(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        from_yolo(yaml_folder(tmp_path, text))


def test_wrong_folders_are_one_sentence(tmp_path):
    images, labels = folders(tmp_path, {"a": "0 0.5 0.5 0.4 0.4"})
    with pytest.raises(InputError, match="no folder of labels"):
        from_yolo(images, tmp_path / "none")
    with pytest.raises(InputError, match="no folder of images"):
        from_yolo(tmp_path / "none", labels)
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        from_yolo(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="there is no image"):
        from_yolo(labels, labels)
    with pytest.raises(InputError, match="none of 1 images has a label file"):
        from_yolo(images, images)


def test_a_label_file_that_is_no_text_takes_its_image_with_it(tmp_path):
    row = "0 0.5 0.5 0.4 0.4"
    images, labels = folders(tmp_path, {"a": row, "b": row})
    (labels / "a.txt").write_bytes(b"\xff\xfe\x00\xd8")
    dataset = from_yolo(images, labels)
    assert findings(dataset) == [("a.txt", "", ex.UNREADABLE_ANNOTATION)]
    assert [r.image_id for r in dataset.records] == ["b"]


def test_strict_names_file_line_and_rule_and_lets_background_images_pass(tmp_path):
    images, labels = folders(tmp_path, {"a": "0 0.5 0.5 0.4 0.4"}, images=["a", "b"])
    assert len(from_yolo(images, labels, strict=True).records) == 2
    (labels / "a.txt").write_text("0 0.5 0.5 0.4 0.4\n0 5 5 4 4")
    with pytest.raises(InputError, match=r"a\.txt, line 2: value outside 0\.\.1"):
        from_yolo(images, labels, strict=True)
