"""What the shell may call a model, and at what size it runs."""

from pathlib import Path

import pytest

from kerasdet import opening, zoo
from kerasdet.errors import InputError
from tests.export.models import letterboxing, small_ssd


@pytest.fixture
def asked(monkeypatch):
    """What the zoo is asked to build; it builds something small."""
    calls = []

    def build(name, **arguments):
        calls.append((name, arguments))
        return small_ssd() if name == "ssd300" else letterboxing()

    monkeypatch.setattr(zoo, "build", build)
    return calls


def test_a_name_takes_its_default_set_or_the_weights_that_are_named(asked):
    opening.open_model("yolo_v2")
    opening.open_model("yolo_v2", weights="voc")
    opening.open_model("yolo_v2", weights="folder/tiny.weights")
    assert asked == [
        ("yolo_v2", {"pretrained": True}),
        ("yolo_v2", {"pretrained": "voc"}),
        ("yolo_v2", {"pretrained": "folder/tiny.weights"}),
    ]


def test_names_of_a_weight_files_labels_come_from_a_file(asked, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("kit fox\n\ntench\nhen\n")
    opened = opening.open_model("yolo_v2", weights="raw", class_names=names)
    assert asked == [("yolo_v2", {"pretrained": "raw"})]
    assert opened.class_names == ["kit fox", "tench", "hen"]
    names.write_text("kit fox\n\ntench\n")  # a line was lost
    with pytest.raises(InputError, match=r"yolo_v2 are of 3 classes, and .*names\.txt has 2 names"):
        opening.open_model("yolo_v2", weights="raw", class_names=names)
    with pytest.raises(InputError, match="a text file with a name on each line"):
        opening.open_model("yolo_v2", class_names=tmp_path / "absent")
    with pytest.raises(InputError, match="go with a model by name and its weights"):
        opening.open_model(str(tmp_path), class_names=names)


def test_a_network_for_several_sizes_is_opened_at_the_one_that_is_said(asked):
    assert opening.open_model("yolo_v2").image_size == (32, 48)
    assert opening.open_model("yolo_v2", image_size="64").image_size == (64, 64)
    assert opening.open_model("yolo_v2", image_size="40x24").image_size == (40, 24)


def test_a_tree_goes_to_yolo9000_by_its_name_alone(asked, tmp_path):
    opening.open_model("yolo9000", weights="a.weights", tree="9k.tree")
    assert asked == [("yolo9000", {"pretrained": "a.weights", "tree": "9k.tree"})]
    for other in ("yolo_v2", str(tmp_path)):
        with pytest.raises(
            InputError, match=f"tree goes with yolo9000 by its name, not with {other}"
        ):
            opening.open_model(other, tree="9k.tree")


@pytest.mark.parametrize("size", ["", "big", "40x", "x40", "40x24x3", "-40", "4.5", "41"])
def test_what_is_no_size_is_refused(asked, size):
    with pytest.raises(InputError, match=r"HEIGHTxWIDTH|multiples of 8"):
        opening.open_model("yolo_v2", image_size=size)


def test_a_network_of_one_size_says_which(asked):
    with pytest.raises(InputError, match="ssd300 works on images of 32x48 alone"):
        opening.open_model("ssd300", image_size="416")


def test_a_file_of_weights_alone_wants_the_models_name(tmp_path):
    path = tmp_path / "tiny.weights"
    path.write_bytes(b"\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0" + bytes(400))  # darknet's 0.1.0
    with pytest.raises(InputError, match=r"weights alone \(darknet\): name the model"):
        opening.open_model(str(path))


def test_photos_of_folders_come_in_order_of_name(tmp_path):
    for name in ("b.png", "a.jpg", "notes.txt", "c.JPEG"):
        Path(tmp_path, name).write_bytes(b"")
    names = [path.name for path in opening.photos([tmp_path, tmp_path / "b.png"])]
    assert names == ["a.jpg", "b.png", "c.JPEG", "b.png"]
