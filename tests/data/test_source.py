import pytest

from kerasdet.data import load, source
from kerasdet.data.source import load_images
from kerasdet.errors import InputError
from tests.data.annotation_files import (
    annotation,
    coco_files,
    elements,
    paint,
    voc_folder,
    voc_xml,
)


@pytest.fixture
def voc(tmp_path):
    files = {"a": voc_xml([("dog", 1, 1, 3, 4)]), "b": voc_xml([("cat", 1, 1, 3, 4)])}
    return voc_folder(tmp_path / "voc", files, {"train": ["b"]})


def ids(dataset):
    return [record.image_id for record in dataset.records]


def test_voc_with_and_without_a_split(voc):
    assert ids(load(f"voc:{voc}")) == ["a", "b"]
    train = load(f"voc:{voc}:train")
    assert (ids(train), train.name) == (["b"], f"voc:{voc}:train")


def test_coco_takes_the_file_and_the_folder(tmp_path):
    file, images = coco_files(tmp_path, [annotation(1, 3, 5, [0, 0, 2, 2])])
    assert ids(load(f"coco:{file},{images}/")) == ["11", "3"]


def test_yolo_takes_two_folders_or_a_yaml_with_a_split(tmp_path):
    paint(tmp_path / "images" / "a.png", (5, 7))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text("val: images\nnames: [cat]")
    assert ids(load(f"yolo:{tmp_path}/images,{tmp_path}/labels")) == ["a"]
    assert ids(load(f"yolo:{tmp_path}/data.yaml:val")) == ["a"]


def test_shapes_with_options():
    dataset = load("shapes:val?count=3&size=40x64&objects=2&seed=7&sides=0.3,0.5")
    assert [r.image_id for r in dataset.records] == ["val-000000", "val-000001", "val-000002"]
    assert {e["image"].shape for e in elements(dataset)} == {(40, 64, 3)}
    assert load("shapes?count=2&size=32").records[0].width == 32
    again = load(dataset.name)  # the name says all
    assert again.records[2].boxes.tolist() == dataset.records[2].boxes.tolist()


def test_names_as_an_option_and_as_an_argument(voc, tmp_path):
    (tmp_path / "mine.names").write_text("dog\n\ncat\n")
    assert load(f"voc:{voc}?names={tmp_path}/mine.names").class_names == ["dog", "cat"]
    assert load(f"voc:{voc}?names=coco").class_names[:2] == ["person", "bicycle"]
    assert load(f"voc:{voc}?names=coco", class_names=["dog"]).class_names == ["dog"]


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "is empty"), (["a", "b", "a"], "'a' more than once"), ("none.txt", "'none.txt' is none")],
)
def test_wrong_names_are_one_sentence(voc, names, message):
    with pytest.raises(InputError, match=message):
        load(f"voc:{voc}", class_names=names)


def test_an_empty_file_of_names_is_named(voc, tmp_path):
    (tmp_path / "none.names").write_text("\n")
    with pytest.raises(InputError, match=r"none\.names as class_names is empty"):
        load(f"voc:{voc}?names={tmp_path}/none.names")


def test_strict_is_passed_on(tmp_path):
    folder = voc_folder(tmp_path / "d", {"a": voc_xml([("dog", 3, 1, 1, 4), ("dog", 1, 1, 3, 4)])})
    assert len(load(f"voc:{folder}").problems) == 1
    with pytest.raises(InputError, match="inverted"):
        load(f"voc:{folder}", strict=True)


def test_a_plus_joins_files(voc, tmp_path):
    other = voc_folder(tmp_path / "other", {"c": voc_xml([("cow", 1, 1, 3, 4)])})
    joined = load(f"voc:{voc}:train+voc:{other}")
    assert ids(joined) == ["b", "c"]
    assert [e["image_id"] for e in elements(joined)] == [b"b", b"c"]
    assert joined.name == f"voc:{voc}:train+voc:{other}"


def test_only_what_fits_together_is_joined(voc, tmp_path):
    with pytest.raises(InputError, match="image id 'b' comes twice"):
        load(f"voc:{voc}+voc:{voc}:train")
    other = voc_folder(tmp_path / "other", {"c": voc_xml([("zebu", 1, 1, 3, 4)])})
    with pytest.raises(InputError, match=r"other has the classes zebu, but .*aeroplane"):
        load(f"voc:{voc}+voc:{other}")
    with pytest.raises(InputError, match="only data sets from voc, coco and yolo"):
        load(f"voc:{voc}+shapes:val?count=2")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("nonsense", "it does not begin with voc:, coco:, yolo:, tfds: or shapes"),
        ("voc:", "nothing follows voc:"),
        ("coco:ann.json", "the folder of images is missing"),
        ("ann.json", "did you mean coco:ann.json,IMAGES/?"),
        ("folders:some/dir", "its images have a label each, and no boxes"),
        ("some/data.yaml", "did you mean yolo:some/data.yaml?"),
        ("shapes:val?count=many", "whole numbers"),
        ("shapes:val?size=1x2x3", "size is one number"),
        ("shapes:val?sides=0.3", "sides is two parts"),
        ("shapes:val?sides=small,large", "sides is two parts"),
        ("shapes:val?colour=red", "shapes has no option 'colour', but classes, count, objects, "),
    ],
)
def test_a_wrong_word_says_why_and_lists_the_forms(spec, why):
    with pytest.raises(InputError) as caught:
        load(spec)
    assert why in str(caught.value)
    assert source.FORMS in str(caught.value)


def test_a_bare_voc_folder_is_recognised(voc):
    with pytest.raises(InputError, match=f"did you mean voc:{voc}?"):
        load(str(voc))


# ---------------------------------------------------------------------- labelled images


def test_folders_of_labelled_images_with_and_without_a_split(tmp_path):
    for place in ("train/cat/a.png", "train/dog/b.png", "train/dog/c.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        paint(tmp_path / place, (5, 7))
    for spec in (f"folders:{tmp_path}:train", f"folders:{tmp_path}/train"):
        examples = load_images(spec)
        assert examples.class_names == ["cat", "dog"]
        assert [int(one["label"]) for one in examples] == [0, 1, 1]
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    turned = load_images(f"folders:{tmp_path}:train?names={tmp_path}/names.txt")
    assert [int(one["label"]) for one in turned] == [1, 0, 0]


def test_shapes_of_labelled_images_take_their_options():
    examples = load_images("shapes:val?count=3&size=40x56&classes=star,cross&seed=2")
    assert examples.class_names == ["star", "cross"]
    assert [one["image"].shape for one in examples] == [(40, 56, 3)] * 3


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("voc:somewhere", "one of:"),
        ("folders:", "one of:"),
        ("nowhere", "one of:"),
        ("shapes?objects=3", "no option 'objects', but classes, count, seed, sides, size"),
        ("folders:x?seed=3", "no option 'seed', but names"),
        ("shapes?count=many", "whole numbers"),
        ("folders:nowhere/at/all", "nowhere/at/all"),
    ],
)
def test_a_wrong_word_for_labelled_images_says_why(spec, why):
    with pytest.raises(InputError) as caught:
        load_images(spec)
    assert why in str(caught.value)
