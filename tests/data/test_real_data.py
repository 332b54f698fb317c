"""The readers on the real files: BCCD (Pascal VOC layout) and coco128 in both of its formats."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from kerasdet.data import check, from_coco, from_voc, from_yolo, pipeline
from kerasdet.data import example as ex
from kerasdet.data.batching import image_ids
from tests.data.annotation_files import elements, findings


def coco128(shared_data):
    folder = shared_data / "coco128"
    images = folder / "images" / "train2017"
    return (
        folder / "annotations" / "instances_train2017.json",
        images,
        (folder / "labels" / "train2017"),
    )


def test_bccd_has_its_counts_and_both_degenerate_boxes(shared_data):
    dataset = from_voc(shared_data / "bccd" / "BCCD")
    assert dataset.class_names == ["Platelets", "RBC", "WBC"]
    counts = np.bincount(np.concatenate([r.labels for r in dataset.records]))
    assert counts.tolist() == [361, 4155 - 2, 372]
    assert [
        (rule, p.value) for p, (_, _, rule) in zip(dataset.problems, findings(dataset), strict=True)
    ] == [
        (ex.DEGENERATE, "504,337,504,337"),
        (ex.DEGENERATE, "181,329,181,329"),
    ]


@pytest.mark.parametrize(("split", "count"), [("train", 205), ("val", 87), ("test", 72)])
def test_bccd_splits(shared_data, split, count):
    assert len(from_voc(shared_data / "bccd" / "BCCD", split).records) == count


def test_both_formats_of_coco128_give_the_same_examples(shared_data):
    annotations, images, labels = coco128(shared_data)
    coco = from_coco(annotations, images)
    yolo = from_yolo(images, labels, class_names="coco")
    assert coco.class_names == yolo.class_names
    crowds = 0
    for ours, theirs in zip(elements(coco), elements(yolo), strict=True):
        single = ~ours["crowd"]  # the text files have left the crowds out
        crowds += int(ours["crowd"].sum())
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        np.testing.assert_array_equal(ours["labels"][single], theirs["labels"])
        # Six decimals of 640 pixels: half of 1e-6 for the centre and a quarter for the size.
        np.testing.assert_allclose(ours["boxes"][single], theirs["boxes"], atol=1e-3)
        assert (ours["image_id"], ours["path"]) == (theirs["image_id"], theirs["path"])
    assert crowds == 10


@pytest.mark.parametrize("augment", [None, "ssd"])
def test_both_formats_of_coco128_give_the_same_batches(shared_data, augment):
    """Crowds, which only the JSON has, are in no batch and do not move the augmentation either."""
    annotations, images, labels = coco128(shared_data)
    coco = from_coco(annotations, images)
    yolo = from_yolo(images, labels, class_names="coco")
    model = SimpleNamespace(image_size=(96, 128), class_names=coco.class_names)
    ours, theirs = (
        pipeline(each, model, 16, augment=augment, shuffle=True, seed=3) for each in (coco, yolo)
    )
    crowds = {r.image_id for r in coco.records if r.crowd.any()}
    seen = set()
    for (image, target), (other_image, other) in zip(
        ours.take(3).as_numpy_iterator(), theirs.take(3).as_numpy_iterator(), strict=True
    ):
        np.testing.assert_array_equal(image, other_image)
        np.testing.assert_array_equal(target["labels"], other["labels"])
        # Six decimals of 640 pixels, of which SSD's crops may leave a tenth of each side.
        np.testing.assert_allclose(target["boxes"], other["boxes"], atol=1e-3)
        np.testing.assert_array_equal(target["image_id"], other["image_id"])
        seen |= set(image_ids(target["image_id"]))
        assert (target["labels"] >= 0).any()
    assert len(seen) == 3 * 16
    assert seen & crowds
    assert ours.max_boxes == theirs.max_boxes


def test_coco128_has_two_stray_labels_and_two_images_without_objects(shared_data):
    annotations, images, labels = coco128(shared_data)
    text = check(from_yolo(images, labels))
    assert [(p.file.rsplit("/", 1)[1], p.rule) for p in text.problems] == [
        ("000000000656.txt", ex.LABEL_WITHOUT_IMAGE),
        ("000000000659.txt", ex.LABEL_WITHOUT_IMAGE),
        ("000000000250.jpg", ex.NO_OBJECTS),
        ("000000000508.jpg", ex.NO_OBJECTS),
    ]
    assert (text.images, text.objects) == (128, 939 - 10)
    found = check(from_coco(annotations, images))
    assert [(p.file.rsplit("/", 1)[1], p.rule) for p in found.problems] == [
        ("000000000250.jpg", ex.NO_OBJECTS),
        ("000000000508.jpg", ex.NO_OBJECTS),
    ]


def test_half_a_photo_is_skipped_and_named(shared_data, tmp_path):
    source = shared_data / "bccd" / "BCCD"
    for part in ("Annotations", "JPEGImages"):
        (tmp_path / part).mkdir()
        for number in range(3):
            (file,) = (source / part).glob(f"BloodImage_0000{number}.*")
            shutil.copy(file, tmp_path / part)
    photo = tmp_path / "JPEGImages" / "BloodImage_00001.jpg"
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    dataset = from_voc(tmp_path)
    names = [e["image_id"].decode() for e in elements(dataset)]
    assert names == ["BloodImage_00000", "BloodImage_00002"]
    assert [(p.file, p.rule) for p in dataset.problems] == [(str(photo), ex.UNREADABLE_IMAGE)]
    assert "truncated" in dataset.problems[0].value
