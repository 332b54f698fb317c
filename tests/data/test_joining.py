"""Batches for joint training: which images they mix, how often, and that they come again."""

import functools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from kerasdet.data import joint, pipeline, relabelled, shape_images, shapes
from kerasdet.data.batching import image_ids
from kerasdet.data.classification import ImageRecord, classification_pipeline, labelled_images
from kerasdet.data.example import Inspector, Row, make_record
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError

NAMES = ["thing", "cell", "dot", "ring", "square"]
MODEL = SimpleNamespace(image_size=(32, 32), class_names=NAMES)


@functools.cache
def detection(count=3, *, folder=None):
    """Images of 20x30, red by number, with two objects each: a dot (2) and a ring (3)."""
    records = [
        make_record(
            f"d{n}",
            str(folder / f"{n}.png") if folder else "",
            height=20,
            width=30,
            rows=[Row((2, 4, 12, 14), 2), Row((10, 2, 25, 18), 3)],
        )
        for n in range(count)
    ]
    pixels = None if folder else lambda n: np.full((20, 30, 3), (int(n), 0, 0), np.uint8)
    return to_dataset(records, NAMES, Inspector(), "boxed", pixels=pixels)


@functools.cache
def classification(count=16):
    """Images of 24x18, green by number, of the classes 1 and 4 in turn."""
    records = [ImageRecord(f"c{n}", "", (1, 4)[n % 2]) for n in range(count)]
    return labelled_images(
        records,
        NAMES,
        Inspector(),
        "labelled",
        pixels=lambda n: np.full((24, 18, 3), (0, int(n), 0), np.uint8),
    )


def epoch(batches):
    return list(batches.as_numpy_iterator())


def ids(batches):
    return [name for _, targets in batches for name in image_ids(targets["image_id"])]


def assert_same(some, others):
    assert len(some) == len(others) > 0
    for (images, targets), (others_images, others_targets) in zip(some, others, strict=True):
        np.testing.assert_array_equal(images, others_images)
        for key, value in targets.items():
            np.testing.assert_array_equal(value, others_targets[key])


def test_each_kind_has_its_own_targets():
    batches = joint(detection(), classification(), MODEL, 5, augment=None)
    images, targets = batches.element_spec
    assert images.shape.as_list() == [None, 32, 32, 3]
    assert targets["image_label"] == tf.TensorSpec((None,), tf.int32)
    assert batches.class_names == NAMES
    assert batches.max_boxes == 8
    for images, targets in epoch(batches):
        columns = (targets[key] for key in ("boxes", "labels", "image_label"))
        names = image_ids(targets["image_id"])
        for image, name, boxes, labels, label in zip(images, names, *columns, strict=True):
            number = int(name[1:])
            if name[0] == "d":
                assert label == -1
                assert labels.tolist() == [2, 3] + [-1] * 6
                x, y = 32 / 30, 32 / 20
                np.testing.assert_allclose(boxes[0], [2 * x, 4 * y, 12 * x, 14 * y], rtol=1e-6)
                assert (image == (number, 0, 0)).all()
            else:
                assert label == (1, 4)[number % 2]
                assert (labels == -1).all()
                assert (boxes == 0).all()
                assert (image == (0, number, 0)).all()


def test_a_small_set_comes_again_until_it_is_a_fifth():
    run = joint(detection(3), classification(16), MODEL, 5, augment=None)
    # 16 images are four fifths of 20; the other 4 come from 3 images.
    assert run.steps_per_epoch == int(run.cardinality()) == 4
    for _ in range(2):
        batches = epoch(run)
        for _, targets in batches:
            assert (targets["image_label"] == -1).sum() == 1
        counts = Counter(ids(batches))
        assert all(counts[f"c{n}"] == 1 for n in range(16))
        assert sorted(counts[f"d{n}"] for n in range(3)) == [1, 1, 2]


def test_either_set_may_be_the_small_one():
    run = joint(detection(11), classification(4), MODEL, 4, detection_share=0.5, augment="flip")
    assert run.steps_per_epoch == 6  # 22 images
    counts = Counter(ids(epoch(run)))
    assert all(counts[f"d{n}"] == 1 for n in range(11))
    assert sorted(counts[f"c{n}"] for n in range(4)) == [2, 3, 3, 3]


@pytest.mark.parametrize("share", [0.3, 0.75])
def test_every_batch_has_the_share_up_to_rounding(share):
    batches = epoch(
        joint(detection(8), classification(8), MODEL, 7, detection_share=share, augment=None)
    )
    for _, targets in batches[:-1]:
        assert abs((targets["image_label"] == -1).sum() - 7 * share) < 1


def test_passes_over_a_set_have_orders_of_their_own():
    run = joint(detection(7), classification(4), MODEL, 30, detection_share=0.5, augment=None)
    orders = [[name for name in ids(epoch(run)) if name[0] == "d"] for _ in range(2)]
    assert orders[0] != orders[1]
    run = joint(detection(5), classification(40), MODEL, 60, detection_share=0.2, augment=None)
    (names,) = [[name for name in ids(epoch(run)) if name[0] == "d"]]
    assert len(names) == 10
    assert sorted(names[:5]) == sorted(names[5:])
    assert names[:5] != names[5:]


@pytest.mark.parametrize("kind", ["records", "stream", "cache"])
@pytest.mark.parametrize("shuffle", [True, False], ids=["shuffled", "as they are"])
def test_epochs_shorter_than_a_set_go_on_with_what_is_left_of_it(shuffle, kind):
    """Epochs of ten images: two of the 3 with boxes, eight of the 16 with labels, of five batches."""
    sets = detection(3), classification(16)
    if kind == "stream":  # of examples without an order of their own, as TFDS' are
        known = tf.data.experimental.assert_cardinality
        sets = [each.apply(known(count)) for each, count in zip(sets, (3, 16), strict=True)]
        for each in sets:
            each.class_names = NAMES
    run = joint(
        *(*sets, MODEL, 2),
        **{"augment": None, "shuffle": shuffle, "repeat": True, "images_per_epoch": 10},
        cache=kind == "cache",
    )
    assert run.steps_per_epoch == 5
    names = ids(run.take(30))
    seen = [names[first : first + 10] for first in range(0, 60, 10)]
    boxed = [[name for name in of_epoch if name[0] == "d"] for of_epoch in seen]
    assert [len(of_epoch) for of_epoch in boxed] == [2] * 6
    passes = np.reshape(boxed, (4, 3)).tolist()
    assert [sorted(one) for one in passes] == [["d0", "d1", "d2"]] * 4
    assert (len({tuple(one) for one in passes}) > 1) == shuffle
    for first in (0, 2, 4):
        counts = Counter(name for of_epoch in seen[first : first + 2] for name in of_epoch)
        assert all(counts[f"c{number}"] == 1 for number in range(16))


def test_epochs_longer_than_the_sets_show_every_image_of_both():
    run = joint(detection(3), classification(16), MODEL, 5, augment=None, images_per_epoch=35)
    assert run.steps_per_epoch == 7
    counts = Counter(ids(epoch(run)))
    assert sorted(counts[f"d{n}"] for n in range(3)) == [2, 2, 3]
    assert {counts[f"c{n}"] for n in range(16)} == {1, 2}


def test_workers_go_on_in_short_epochs_side_by_side():
    """Two workers, of 8 labelled images each, show 4 of theirs an epoch."""
    runs = [
        joint(
            *(detection(4), classification(16), MODEL, 5),
            **{"augment": None, "repeat": True, "images_per_epoch": 10, "shard": (index, 2)},
        )
        for index in range(2)
    ]
    assert [run.steps_per_epoch for run in runs] == [1, 1]
    counts = Counter(name for run in runs for name in ids(run.take(2)))
    assert all(counts[f"c{number}"] == 1 for number in range(16))


def options(**more):
    return {"augment": "flip", "multi_scale": (32, 48, 64), "multi_scale_every": 2, **more}


@pytest.mark.parametrize("cache", [False, True])
def test_an_epoch_is_the_same_wherever_the_run_began(cache):
    def run(**more):
        return joint(
            detection(), classification(9), MODEL, 2, seed=3, cache=cache, **options(**more)
        )

    live = run()
    epochs = [epoch(live) for _ in range(2)]
    assert ids(epochs[0]) != ids(epochs[1])
    assert len({images.shape for of_epoch in epochs for images, _ in of_epoch}) > 1
    assert_same(epoch(run(first_epoch=1)), epochs[1])
    endless = run(repeat=True)
    assert_same(epoch(endless.take(2 * endless.steps_per_epoch)), epochs[0] + epochs[1])


def test_the_last_batches_are_of_the_greatest_size():
    batches = joint(
        *(detection(), classification(9), MODEL, 2),
        **options(repeat=True, multi_scale_last=3, epochs=2, seed=3),
    )
    steps = batches.steps_per_epoch
    found = [images.shape[1] for images, _ in epoch(batches.take(2 * steps))]
    assert set(found[:steps]) != {64}
    assert found[-2:] == [64, 64]


def test_workers_share_both_sets():
    def run(index):
        return epoch(joint(detection(4), classification(16), MODEL, 5, **options(shard=(index, 2))))

    one, other = run(0), run(1)
    assert [images.shape for images, _ in one] == [images.shape for images, _ in other]
    assert not set(ids(one)) & set(ids(other))
    assert len(set(ids(one)) | set(ids(other))) == 20


def test_an_image_that_cannot_be_read_is_made_up_for(tmp_path):
    for number in range(4):
        image = np.full((20, 30, 3), (number, 0, 0), np.uint8)
        tf.io.write_file(str(tmp_path / f"{number}.png"), tf.io.encode_png(image))
    (tmp_path / "2.png").write_bytes(b"broken")
    run = joint(detection(4, folder=tmp_path), classification(16), MODEL, 5, augment=None)
    batches = epoch(run)
    assert [len(images) for images, _ in batches] == [5, 5, 5, 5]
    assert {name for name in ids(batches) if name[0] == "d"} == {"d0", "d1", "d3"}


@pytest.mark.parametrize("cache", [False, True])
def test_an_epoch_is_whole_where_one_image_of_twelve_can_be_read(cache, tmp_path):
    image = tf.io.encode_png(np.full((20, 30, 3), 7, np.uint8))
    tf.io.write_file(str(tmp_path / "7.png"), image)
    boxed = detection(12, folder=tmp_path)
    run = joint(boxed, classification(16), MODEL, 4, augment=None, detection_share=0.5, cache=cache)
    batches = epoch(run)
    assert [len(images) for images, _ in batches] == [4] * run.steps_per_epoch == [4] * 8
    assert Counter(name[0] for name in ids(batches)) == {"d": 16, "c": 16}
    assert {name for name in ids(batches) if name[0] == "d"} == {"d7"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"detection_share": 1.0}, "detection_share lies between 0 and 1, not at 1.0"),
        ({"detection_share": 0}, "detection_share lies between 0 and 1"),
        ({"images_per_epoch": 0}, "images_per_epoch must be 1 or more, not 0"),
        ({"max_boxes": 0}, "max_boxes must be 1 or more"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"shard": (0, 4)}, "detection data with an image for each of 4 workers at least, not 3"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        joint(detection(), classification(), MODEL, **changes)


def test_wrong_data_is_refused():
    with pytest.raises(InputError, match=r"wants detection data.*boxes, labels missing"):
        joint(classification(), classification(), MODEL)
    with pytest.raises(InputError, match=r"wants classification data.*label missing"):
        joint(detection(), detection(), MODEL)
    endless = detection().repeat()
    with pytest.raises(InputError, match="not of unknown size"):
        joint(endless, classification(), MODEL)
    other = SimpleNamespace(image_size=(32, 32), class_names=NAMES[:3])
    with pytest.raises(InputError, match="5 classes are not the model's 3"):
        joint(detection(), classification(), other)


# ---------------------------------------------------------------------- other labels


def test_labels_become_nodes_everywhere():
    examples = shapes(6, image_size=64, classes=("star", "cross"), max_objects=3)
    nodes = relabelled(examples, [4, 1], NAMES)
    assert nodes.class_names == NAMES
    assert nodes.problems is examples.problems
    assert examples.class_names == ["star", "cross"]
    for one, other in zip(examples.records, nodes.records, strict=True):
        np.testing.assert_array_equal(other.labels, np.array([4, 1])[one.labels])
        np.testing.assert_array_equal(other.boxes, one.boxes)
    for one, other in zip(examples, nodes, strict=True):
        np.testing.assert_array_equal(other["labels"], np.array([4, 1])[one["labels"]])
        np.testing.assert_array_equal(other["image"], one["image"])
    shuffled = pipeline(nodes, MODEL, 6, shuffle=True)
    ((_, targets),) = epoch(shuffled)
    assert set(targets["labels"].ravel()) == {-1, 1, 4}


def test_labels_of_images_become_nodes_too():
    images = shape_images(8, image_size=64, classes=("star", "cross"))
    nodes = relabelled(images, np.array([3, 3]), NAMES)
    assert {record.label for record in nodes.records} == {3}
    ((_, labels),) = epoch(classification_pipeline(nodes, MODEL, 8, shuffle=True))
    assert labels.tolist() == [3] * 8


def test_joint_training_on_shapes_teaches_boxes_of_some_and_labels_of_all():
    kinds = ("star", "cross", "ellipse")
    model = SimpleNamespace(image_size=(64, 64), class_names=["shape", *kinds])
    boxed = shapes(6, image_size=64, classes=kinds[:2], max_objects=2)
    labelled = shape_images(12, image_size=64, classes=kinds)
    batches = joint(
        relabelled(boxed, [1, 2], model.class_names),
        relabelled(labelled, [1, 2, 3], model.class_names),
        model,
        6,
        detection_share=1 / 3,
    )
    seen = epoch(batches)
    labels = np.concatenate([targets["labels"].ravel() for _, targets in seen])
    of_images = np.concatenate([targets["image_label"] for _, targets in seen])
    assert set(labels) == {-1, 1, 2}
    assert set(of_images) == {-1, 1, 2, 3}
    assert (of_images == -1).sum() == 6


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([1], "the data has 2 classes, and there are 1 nodes"),
        ([1, 5], r"the node of cross is 5, no label of 0\.\.4"),
        ([-1, 2], "the node of star is -1"),
        ([1.0, 2.0], "whole numbers, one for each class"),
    ],
)
def test_wrong_nodes_are_one_sentence(nodes, words):
    examples = shapes(2, image_size=64, classes=("star", "cross"))
    with pytest.raises(InputError, match=words):
        relabelled(examples, nodes, NAMES)
