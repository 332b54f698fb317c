"""darknet's files appear together or not at all, and hold what the model holds."""

import numpy as np
import pytest

import kerasdet
from kerasdet import zoo
from kerasdet.errors import InputError
from kerasdet.word_tree import WordTree

NAMES = ["bus stop", "Zebra größer", "猫"]


def detector(**changes):
    return zoo.yolo_v2_tiny(class_names=NAMES, head_filters=(8,), image_size=64, **changes)


def test_a_detector_is_written_with_cfg_names_and_data(tmp_path, rng):
    model = detector(resize="letterbox")
    report = kerasdet.export.export(model, tmp_path / "new" / "mine.weights", "darknet")
    folder = tmp_path / "new"
    assert sorted(p.name for p in folder.iterdir()) == sorted(report.files)
    assert set(report.files) == {"mine.weights", "mine.cfg", "mine.names", "mine.data"}
    assert report.files["mine.cfg"] == (folder / "mine.cfg").stat().st_size
    assert (folder / "mine.names").read_text(encoding="utf-8").splitlines() == NAMES
    assert (folder / "mine.data").read_text() == "classes=3\nnames=mine.names\n"
    assert "darknet detector test mine.data mine.cfg mine.weights PHOTO" in str(report)
    assert "Loaded back" not in str(report)
    revived = zoo.yolo_v2_tiny(
        class_names=NAMES,
        head_filters=(8,),
        image_size=64,
        resize="letterbox",
        pretrained=folder / "mine.weights",
    )
    images = rng.uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    np.testing.assert_array_equal(model(images)["region"], revived(images)["region"])


def test_a_classifier_is_written(tmp_path):
    model = zoo.tiny_darknet(class_names=NAMES)
    report = kerasdet.export.export(model, tmp_path / "t.weights", "darknet")
    assert (tmp_path / "t.data").read_text() == "classes=3\nnames=t.names\ntop=3\n"
    assert "classifier predict t.data" in report.use


def test_a_yolo9000_has_its_tree_beside_it(tmp_path):
    tree = WordTree.from_parents({"dog": "animal", "old terrier": "dog"})
    model = zoo.yolo9000(tree=tree, anchors=[(1, 2)])
    report = kerasdet.export.export(model, tmp_path / "mine.weights", "darknet")
    assert "mine.tree" in report.files
    read = WordTree.from_darknet(tmp_path / "mine.tree", tmp_path / "mine.names")
    assert read.names == tree.names
    assert read.parents.tolist() == tree.parents.tolist()
    assert "tree=mine.tree" in (tmp_path / "mine.cfg").read_text()


def test_nothing_is_replaced_unless_asked(tmp_path):
    (tmp_path / "a.names").write_text("mine")
    with pytest.raises(InputError, match=r"a\.names exists"):
        kerasdet.export.export(detector(), tmp_path / "a.weights", "darknet")
    assert [p.name for p in tmp_path.iterdir()] == ["a.names"]
    kerasdet.export.export(detector(), tmp_path / "a.weights", "darknet", overwrite=True)
    assert (tmp_path / "a.names").read_text(encoding="utf-8").startswith("bus stop\n")


@pytest.mark.parametrize(
    ("name", "build", "given", "message"),
    [
        ("a.cfg", detector, {}, "ends in .weights"),
        ("a b.weights", detector, {}, "a name without them"),
        ("a.weights", detector, {"score_threshold": 0.3}, "files have no thresholds"),
        (
            "a.weights",
            lambda: zoo.yolo_v2_tiny(class_names=["a\nb"], head_filters=(8,)),
            {},
            "A .names file has a class a line",
        ),
        (
            "a.weights",
            lambda: zoo.yolo_v2(2, passthrough="space_to_depth", head_filters=(8,)),
            {},
            "'space_to_depth'",
        ),
        ("a.weights", lambda: zoo.yolo_v2_small(2, width=2), {}, "no place for the model"),
    ],
)
def test_what_darknet_has_not_is_refused_before_anything_is_written(
    tmp_path, name, build, given, message
):
    with pytest.raises(InputError, match=message):
        kerasdet.export.export(build(), tmp_path / "new" / name, "darknet", **given)
    assert not list(tmp_path.iterdir())
