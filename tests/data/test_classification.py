"""Classification data: folders, TFDS and shapes; what a classifier sees; batches that come again."""

import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasdet import images as photos
from kerasdet import voting
from kerasdet.data import augment_classifier, classification, shape_images, shapes
from kerasdet.data import example as ex
from kerasdet.data.augment_yolo import draw_recolouring, recolour
from kerasdet.data.classification import (
    classification_pipeline,
    from_image_folders,
    from_tfds_classification,
)
from kerasdet.errors import InputError

COLOURS = {"cat": (250, 0, 0), "dog": (0, 250, 0), "eel": (0, 0, 250)}
COUNTS = {"cat": 4, "dog": 2, "eel": 5}
MODEL = SimpleNamespace(image_size=(16, 16), class_names=list(COLOURS))


@pytest.fixture
def folder(tmp_path):
    """DIR/train with 4 cats, 2 dogs and 5 eels, each painted in its class's colour; 20 to 24 wide."""
    for name, count in COUNTS.items():
        place = tmp_path / "train" / name
        place.mkdir(parents=True)
        for number in range(count):
            image = np.full((18, 20 + number, 3), COLOURS[name], np.uint8)
            Image.fromarray(image).save(place / f"{number}.png")
    return tmp_path


def epoch(batches):
    return list(batches.as_numpy_iterator())


def found(dataset):
    return [(problem.rule, problem.action) for problem in dataset.problems]


# ---------------------------------------------------------------------- readers


def test_folders_are_classes(folder):
    dataset = from_image_folders(folder, "train")
    assert dataset.class_names == ["cat", "dog", "eel"]
    assert dataset.problems == []
    seen = list(dataset.as_numpy_iterator())
    assert [e["image_id"].decode() for e in seen] == [
        f"{name}/{number}.png" for name, count in COUNTS.items() for number in range(count)
    ]
    for example, record in zip(seen, dataset.records, strict=True):
        name = dataset.class_names[example["label"]]
        assert (example["image"] == COLOURS[name]).all()
        assert example["path"].decode() == record.path
        assert record.label == example["label"]
    assert seen[10]["image"].shape == (18, 24, 3)


def test_names_give_the_label_order_and_leave_others_out(folder):
    dataset = from_image_folders(folder, "train", class_names=["eel", "fox", "cat"])
    assert [record.label for record in dataset.records] == [2] * 4 + [0] * 5
    assert found(dataset) == [
        (ex.UNKNOWN_CLASS, "its images left out"),
        (classification.NO_IMAGES, "class kept"),
    ]
    assert dataset.problems[0].file.endswith("dog")
    assert dataset.problems[1].file.endswith("fox")


def test_what_cannot_be_read_is_skipped_named_and_counted(folder, caplog):
    broken = folder / "train" / "dog" / "0.png"
    broken.write_bytes(broken.read_bytes()[:50])
    (folder / "train" / "stray.png").write_bytes(b"")
    (folder / "train" / "dog" / "notes.txt").write_text("no image")
    dataset = from_image_folders(folder, "train")
    assert found(dataset) == [(classification.NO_CLASS, "image left out")]
    with caplog.at_level(logging.WARNING, "kerasdet.data"):
        assert len(list(dataset)) == 10
        assert len(list(dataset)) == 10
    assert found(dataset)[1:] == [(ex.UNREADABLE_IMAGE, "image skipped")]
    assert [str(broken) in r.getMessage() for r in caplog.records] == [True]
    # An epoch is as long as before: another image comes twice.
    batches = epoch(classification_pipeline(dataset, MODEL, 4, shuffle=True))
    assert [len(labels) for _, labels in batches] == [4, 4, 3]


@pytest.mark.parametrize(
    ("file", "words"), [("stray.png", "stray.png: image in no"), ("cat/0.png", "0.png: unreadable")]
)
def test_strict_is_an_error(folder, file, words):
    (folder / "train" / file).write_bytes(b"nothing")
    with pytest.raises(InputError, match=words):
        from_image_folders(folder, "train", strict=True)


def test_wrong_folders_are_one_sentence(folder, tmp_path):
    with pytest.raises(InputError, match=r"there is no .*none"):
        from_image_folders(folder / "none")
    with pytest.raises(InputError, match="holds the splits train: say which"):
        from_image_folders(folder)
    with pytest.raises(InputError, match=r"one folder a class; .*cat has none"):
        from_image_folders(folder / "train" / "cat")
    (tmp_path / "bare" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no images in the class folders of .*bare"):
        from_image_folders(tmp_path / "bare")


def test_tfds_images_with_labels(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")

    class TinyNet(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(),
                "label": tfds.features.ClassLabel(names=list(COLOURS)),
                "file_name": tfds.features.Text(),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, label in enumerate([2, 0, -1, 1, -1]):
                image = np.full((5, 7 + number, 3), 40 * number, np.uint8)
                yield number, {"image": image, "label": label, "file_name": f"{number}.JPEG"}

    builder = TinyNet(data_dir=tmp_path)
    builder.download_and_prepare()
    dataset = from_tfds_classification(builder, "train")
    assert dataset.class_names == list(COLOURS)
    assert dataset.size == 5
    seen = {e["image_id"].decode(): e for e in dataset.as_numpy_iterator()}
    assert {name: int(e["label"]) for name, e in seen.items()} == {
        "0.JPEG": 2,
        "1.JPEG": 0,
        "3.JPEG": 1,
    }
    assert seen["3.JPEG"]["image"].shape == (5, 10, 3)
    assert (seen["3.JPEG"]["image"] == 120).all()
    list(dataset)
    assert found(dataset) == [(classification.NO_LABEL, "it and all like it left out")]
    assert from_tfds_classification(builder, class_names="abc").class_names == ["a", "b", "c"]
    with pytest.raises(InputError, match="has 3 classes, and class_names 2"):
        from_tfds_classification(builder, class_names="ab")
    with pytest.raises(InputError, match="no split 'test'"):
        from_tfds_classification(builder, "test")


def test_every_image_of_shapes_has_one_of_the_kinds():
    dataset = shape_images(60, image_size=(40, 48), split="val", classes=("star", "ellipse"))
    assert dataset.class_names == ["star", "ellipse"]
    seen = list(dataset.as_numpy_iterator())
    assert len(seen) == len(dataset.records) == 60
    labels = np.array([e["label"] for e in seen])
    assert 15 < labels.sum() < 45  # 30, four standard deviations of 4
    assert len({e["image"].tobytes() for e in seen}) == 60
    assert all(e["image"].shape == (40, 48, 3) for e in seen)
    assert all(e["image"].std() > 5 for e in seen)
    again = shape_images(20, image_size=(40, 48), split="val", classes=("star", "ellipse"))
    for one, other in zip(seen, again.as_numpy_iterator(), strict=False):
        np.testing.assert_array_equal(one["image"], other["image"])
        assert one["label"] == other["label"]


def test_shapes_of_some_kinds_alone_show_no_other():
    some = shapes(30, image_size=64, classes=("cross", "triangle"))
    assert some.class_names == ["cross", "triangle"]
    labels = np.concatenate([record.labels for record in some.records])
    assert set(labels) == {0, 1}
    # All kinds by name are the data set without the argument.
    whole = shapes(3, image_size=64, classes=shapes(1).class_names)
    for one, other in zip(whole, shapes(3, image_size=64), strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["labels"], other["labels"])
    with pytest.raises(InputError, match=r"some of ellipse, .*each once, not"):
        shapes(3, classes=("cross", "cross"))
    with pytest.raises(InputError, match="some of ellipse"):
        shapes(3, classes=("circle",))


# ---------------------------------------------------------------------- what a classifier sees


def slow_crop(image, size, *, turn, scale, stretch, dx, dy):
    """rotate_crop_image of image.c, from the centres of pixels to the centres of pixels."""
    height, width = image.shape[:2]
    crop = np.zeros((*size, 3))

    def pixel(x, y):
        return image[y, x].astype(float) if 0 <= x < width and 0 <= y < height else np.zeros(3)

    for y in range(size[0]):
        for x in range(size[1]):
            across = (x + 0.5 - size[1] / 2 + dx) / scale * stretch
            down = (y + 0.5 - size[0] / 2 + dy) / scale
            rx = math.cos(turn) * across - math.sin(turn) * down + width / 2 - 0.5
            ry = math.sin(turn) * across + math.cos(turn) * down + height / 2 - 0.5
            ix, iy = math.floor(rx), math.floor(ry)
            fx, fy = rx - ix, ry - iy
            crop[y, x] = (
                (1 - fy) * (1 - fx) * pixel(ix, iy)
                + fy * (1 - fx) * pixel(ix, iy + 1)
                + (1 - fy) * fx * pixel(ix + 1, iy)
                + fy * fx * pixel(ix + 1, iy + 1)
            )
    return crop


@pytest.mark.parametrize("source", [(31, 47), (60, 24)])
def test_crop_is_darknets(rng, source):
    image = rng.integers(0, 256, (*source, 3), np.uint8)
    size = (20, 20)
    black = 0
    for number in range(8):
        seed = (5, number)
        drawn = np.asarray(tf.random.stateless_uniform((12,), seed), np.float64)
        # random_augment_args of image.c, with the numbers in the order they are drawn here
        stretch = 1 + drawn[0] * (0.75 - 1)
        stretch = stretch if drawn[1] < 0.5 else 1 / stretch
        shorter = 10 + int(drawn[2] * (35 - 10 + 1))
        least = int(source[0] if source[0] < source[1] * stretch else source[1] * stretch)
        scale = shorter / least
        room = ((source[1] * scale / stretch - 20) / 2, (source[0] * scale - 20) / 2)
        dy, dx = (2 * drawn[4] - 1) * room[1], (2 * drawn[5] - 1) * room[0]
        turn = (2 * drawn[3] - 1) * 7 * 2 * math.pi / 360
        expected = slow_crop(image, size, turn=turn, scale=scale, stretch=stretch, dx=dx, dy=dy)
        black += (expected == 0).all(axis=2).any()
        expected = expected[:, ::-1] if drawn[6] < 0.5 else expected
        change = draw_recolouring(drawn[7:], 0.1, 0.75, 0.75)
        expected = recolour(tf.constant(expected, tf.float32), change)
        for given in (size, tf.constant(size)):
            seen = augment_classifier.darknet(image, given, seed)
            # float32 and float64 part where a place is an edge of the image
            assert np.quantile(np.abs(seen - expected), 0.98) < 0.5
            assert np.abs(seen - expected).mean() < 0.5
    assert black > 0


def test_without_change_the_crop_is_the_image(rng):
    image = rng.integers(0, 256, (24, 24, 3), np.uint8)
    still = {"angle": 0.0, "aspect": 1.0, "hue": 0.0, "saturation": 1.0, "exposure": 1.0}
    seen = augment_classifier.darknet(
        image, (24, 24), (0, 1), crop=(1.0, 1.0), flip_probability=0.0, **still
    )
    np.testing.assert_allclose(seen, image, atol=0.01)


def test_crops_at_448_show_most_of_the_image():
    white = tf.fill((30, 30, 3), tf.constant(255, tf.uint8))
    shares = []
    for function in (augment_classifier.darknet, augment_classifier.darknet_448):
        crops = tf.data.Dataset.range(60).map(
            lambda number, of=function: of(
                white, (32, 32), tf.stack([1, tf.cast(number, tf.int32)])
            )
        )
        shares.append([(crop.max(axis=2) > 0).mean() for crop in crops.as_numpy_iterator()])
    assert np.min(shares[0]) < 0.4  # a shorter side of half the input's fills a quarter
    assert np.min(shares[1]) > 0.6


@pytest.mark.parametrize(
    ("source", "size", "whole"),
    [
        ((50, 80), (46, 46), (51, 82)),  # 46 * 256 / 231 = 50.98
        ((171, 90), (46, 46), (97, 51)),
        ((60, 61), (231, 231), (256, 260)),
        ((300, 256), (221, 221), (300, 256)),
        ((50, 60), (46, 92), (85, 102)),  # 51 by 102 at least
    ],
)
def test_overfeats_crop_is_a_window_of_the_image_at_its_short_side(rng, source, size, whole):
    image = rng.integers(0, 256, (*source, 3), np.uint8)
    resized = photos.warp(image, whole)
    outer = voting.short_side(min(size)) / min(size) * np.array(size)
    assert np.max(outer / source) * np.array(source) == pytest.approx(whole, abs=0.5)
    tops, lefts, mirrored = set(), set(), 0
    for number in range(60):
        seen = augment_classifier.overfeat(
            image, size if number % 2 else tf.constant(size), (7, number)
        )
        drawn = tf.random.stateless_uniform((3,), (7, number)).numpy()
        top, left = (
            int(chance * (w - s + 1)) for chance, w, s in zip(drawn, whole, size, strict=False)
        )
        expected = resized[top : top + size[0], left : left + size[1]]
        expected = expected[:, ::-1] if drawn[2] < 0.5 else expected
        np.testing.assert_allclose(seen, expected, atol=0.02)
        tops.add(top), lefts.add(left)
        mirrored += drawn[2] < 0.5
    for places, room in zip((tops, lefts), np.subtract(whole, size), strict=True):
        assert places <= set(range(room + 1))
        assert len(places) > min(room + 1, 20) * 0.7
    assert 15 < mirrored < 45


def test_passes_over_an_image_see_five_different_crops(folder):
    data = from_image_folders(folder, "train", class_names=["cat"]).take(1)
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    data = data.map(lambda example: {**example, "image": noise})
    model = SimpleNamespace(image_size=(30, 30), class_names=["cat"])
    data.class_names = ["cat"]
    batches = classification_pipeline(data, model, 1, augment="overfeat", seed=2)
    crops = [epoch(batches)[0][0] for _ in range(5)]
    for i, one in enumerate(crops):
        for other in crops[:i]:
            assert np.abs(one - other).max() > 10


@pytest.mark.parametrize(
    ("source", "size", "part"),
    [
        ((50, 70), (48, 48), (slice(0, 50), slice(10, 60))),
        ((71, 50), (48, 48), (slice(10, 60), slice(0, 50))),
        ((50, 70), (24, 48), (slice(7, 42), slice(0, 70))),
    ],
)
def test_the_middle_is_the_largest_part_of_the_inputs_aspect(rng, source, size, part):
    image = rng.integers(0, 256, (*source, 3), np.uint8)
    for given in (size, tf.constant(size)):
        seen = augment_classifier.middle(image, given)
        np.testing.assert_allclose(seen, photos.warp(image[part], size), atol=0.01)


# ---------------------------------------------------------------------- batches


def test_plain_batches_hold_every_image_with_its_label(folder):
    batches = classification_pipeline(from_image_folders(folder, "train"), MODEL, 4)
    images, labels = batches.element_spec
    assert images == tf.TensorSpec((None, 16, 16, 3), tf.float32)
    assert labels == tf.TensorSpec((None,), tf.int32)
    assert batches.steps_per_epoch == 3
    assert batches.class_names == MODEL.class_names
    seen = epoch(batches)
    assert np.concatenate([labels for _, labels in seen]).tolist() == [0] * 4 + [1] * 2 + [2] * 5
    for images, labels in seen:
        for image, label in zip(images, labels, strict=True):
            colour = COLOURS[MODEL.class_names[label]]
            np.testing.assert_allclose(image, np.broadcast_to(colour, (16, 16, 3)), atol=0.01)


def test_augmented_batches_come_again_from_any_epoch(folder):
    def run(**more):
        data = from_image_folders(folder, "train")
        return classification_pipeline(data, MODEL, 4, augment="darknet", seed=3, **more)

    epochs = [epoch(run(first_epoch=number)) for number in range(2)]
    live = run()
    for of_epoch in epochs:
        for one, other in zip(epoch(live), of_epoch, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
    labels = [np.concatenate([batch[1] for batch in of_epoch]) for of_epoch in epochs]
    assert labels[0].tolist() != labels[1].tolist()
    assert np.bincount(labels[0]).tolist() == np.bincount(labels[1]).tolist() == [4, 2, 5]


def test_workers_share_the_images_and_scales(folder):
    def run(index):
        data = from_image_folders(folder, "train")
        options = {"multi_scale": (16, 24, 32), "multi_scale_every": 1, "seed": 1}
        options["shard"] = (index, 2)
        return epoch(classification_pipeline(data, MODEL, 2, augment="darknet_448", **options))

    one, other = run(0), run(1)
    sizes = [images.shape[1] for images, _ in one]
    assert sizes == [images.shape[1] for images, _ in other]
    assert len(set(sizes)) > 1
    labels = np.concatenate([labels for batch in (one, other) for _, labels in batch])
    assert len(labels) == 12  # 11, and one twice
    assert (np.bincount(labels) >= [4, 2, 5]).all()


def test_own_function_augments(folder):
    def darken(image, image_size, seed):
        return augment_classifier.middle(image, image_size) * 0.0 + tf.cast(seed[0], tf.float32)

    data = from_image_folders(folder, "train")
    (images, _), *_ = epoch(classification_pipeline(data, MODEL, 4, augment=darken, seed=5))
    assert (images == 5).all()


def test_what_makes_no_sense_is_refused(folder):
    data = from_image_folders(folder, "train")
    with pytest.raises(
        InputError, match="'darknet', 'darknet_448', 'overfeat', a function or None, not 'ssd'"
    ):
        classification_pipeline(data, MODEL, augment="ssd")
    other = SimpleNamespace(image_size=(16, 16), class_names=["cat", "dog"])
    with pytest.raises(InputError, match="data has cat, dog, eel; the model has cat, dog"):
        classification_pipeline(data, other)
    with pytest.raises(InputError, match="wants dicts with image and label; label missing"):
        classification_pipeline(shapes(2, image_size=64), MODEL)
    with pytest.raises(InputError, match="batch_size must be 1 or more"):
        classification_pipeline(data, MODEL, 0)


# ---------------------------------------------------------------------- five crops and their mirror images

SIDE, ROWS, COLUMNS = 16, 18, 22  # 16 * 256 / 231 = 17.7: the images come at their size


def painted(count):
    """Image i says at each pixel where it is, (10 * y, 10 * x, i), and is of class i % 3."""
    y, x = np.mgrid[:ROWS, :COLUMNS].astype("uint8") * 10
    records = [classification.ImageRecord(f"{i}", "", i % 3) for i in range(count)]
    return classification.labelled_images(
        records,
        MODEL.class_names,
        ex.Inspector(),
        "painted",
        pixels=lambda i: np.stack([y, x, np.full_like(y, i)], axis=-1),
    )


def read(view):
    """(image, top, left, whether mirrored) of a view of a painted image; all its pixels are there."""
    view = np.asarray(view, "float64")
    mirrored = view[0, 0, 1] > view[0, -1, 1]
    upright = view[:, ::-1] if mirrored else view
    top, left, number = upright[0, 0] / (10, 10, 1)
    y, x = 10 * (np.mgrid[:SIDE, :SIDE] + np.array([top, left])[:, None, None])
    np.testing.assert_allclose(upright, np.stack([y, x, np.full_like(y, number)], -1), atol=1e-3)
    return round(number), round(top), round(left), bool(mirrored)


def views_of(batches):
    """(label, *read) of every example, batch by batch."""
    return [
        [(int(label), *read(image)) for image, label in zip(*batch, strict=True)]
        for batch in epoch(batches)
    ]


def ten_views(count, batch_size=8, **options):
    options = {"augment": "overfeat", "crops": 5, "seed": 3, **options}
    return classification_pipeline(painted(count), MODEL, batch_size, **options)


def test_ten_views_of_an_image_are_five_crops_and_the_mirror_image_of_each():
    (batch,) = views_of(ten_views(1, 10, shuffle=False))
    seed = tf.stack([tf.constant(3, tf.int64), 0])  # of epoch 0, image 0
    drawn = np.asarray(tf.random.stateless_uniform((5, 2), seed))
    places = [(int(y * (ROWS - SIDE + 1)), int(x * (COLUMNS - SIDE + 1))) for y, x in drawn]
    assert len(set(places)) > 2
    assert batch == [(0, 0, *place, mirror) for mirror in (False, True) for place in places]


def test_an_epoch_shows_every_image_in_its_ten_views_among_those_of_others():
    batches = ten_views(11)
    assert batches.element_spec[0] == tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32)
    assert batches.steps_per_epoch == int(batches.cardinality()) == math.ceil(110 / 8) == 14
    found = views_of(batches)
    assert [len(batch) for batch in found] == [8] * 13 + [6]
    every = [view for batch in found for view in batch]
    assert all(label == number % 3 for label, number, *_ in every)
    for image in range(11):
        mine = [view[2:] for view in every if view[1] == image]
        plain = sorted(place[:2] for place in mine if not place[2])
        assert len(plain) == 5
        assert plain == sorted(place[:2] for place in mine if place[2])
    assert np.mean([len({view[1] for view in batch}) for batch in found]) > 4
    dropped = ten_views(11, drop_remainder=True)
    assert dropped.steps_per_epoch == len(epoch(dropped)) == 13


def test_ten_views_come_again_from_any_epoch():
    live = ten_views(5)
    epochs = [views_of(ten_views(5, first_epoch=number)) for number in range(2)]
    assert [views_of(live), views_of(live)] == epochs
    one, other = (sorted(view for batch in batches for view in batch) for batches in epochs)
    assert one != other
    endless = ten_views(5, repeat=True).take(14)
    assert views_of(endless) == epochs[0] + epochs[1]
    assert views_of(ten_views(5, seed=4)) != epochs[0]


def test_workers_share_the_images_of_ten_views():
    found = [
        [view for batch in views_of(ten_views(6, shard=(index, 2))) for view in batch]
        for index in range(2)
    ]
    assert [len(of_worker) for of_worker in found] == [30, 30]
    one, other = ({view[1] for view in of_worker} for of_worker in found)
    assert one | other == set(range(6))
    assert not one & other


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crops": 0}, "crops wants a whole number from 1 on, or None, not 0"),
        ({"crops": 2.5}, "or None, not 2.5"),
        ({"augment": "darknet"}, "crops goes with augment='overfeat' and one size"),
        ({"augment": None}, "crops goes with"),
        ({"multi_scale": (16, 24)}, "one size, without multi_scale"),
    ],
)
def test_crops_that_make_no_sense_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        ten_views(2, **options)
