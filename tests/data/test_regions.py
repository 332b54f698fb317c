"""Regions beside their images, and moved with them into batches: against painted pixels."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.io import savemat

from kerasdet.data import pipeline, propose, relabelled, shapes, sliding_windows, with_regions
from kerasdet.data.augment_corner import corner
from kerasdet.data.batching import image_ids
from kerasdet.data.example import Inspector, Row, make_record
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError
from kerasdet.evaluation import evaluate
from kerasdet.images import corner as corner_of_one
from tests import small
from tests.data.annotation_files import paint

pytestmark = pytest.mark.slow

NAMES = ["cell", "dot", "ring"]
HEIGHT, WIDTH = 20, 30
MODEL = SimpleNamespace(
    image_size=(40, 50),
    class_names=NAMES,
    resize="corner",
    short_side=24,
    mean=(1.0, 2.0, 3.0),
    takes_regions=True,
)


def pixels(index):
    """Its number in red, and green where image `index`'s region 0 is."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = index
    x1, y1, x2, y2 = map(int, regions_of(index)[0])
    image[y1:y2, x1:x2, 1] = 200
    return image


def regions_of(number):
    """Image `number` has 1 + number % 3 regions."""
    return np.array(
        [(3 + number + k, 4 + k, 14 + number, 15) for k in range(1 + number % 3)], float
    )


def reader(count=7, **options):
    records = [
        make_record(
            f"im{n}",
            "",
            height=HEIGHT,
            width=WIDTH,
            rows=[Row((1, 2, 9, 5 + k), k) for k in range(n % 3)],
        )
        for n in range(count)
    ]
    return to_dataset(records, NAMES, Inspector(), "made", **{"pixels": pixels, **options})


def table(count=7):
    return {f"im{n}": regions_of(n) for n in range(count)}


def by_id(dataset):
    return {e["image_id"].decode(): e["regions"] for e in dataset.as_numpy_iterator()}


# ------------------------------------------------------------------------ beside their images


def test_examples_have_their_own_regions_and_the_data_keeps_what_it_knew():
    examples = reader()
    given = with_regions(examples, table(), max_regions=2)
    for name, rows in by_id(given).items():
        np.testing.assert_array_equal(rows, regions_of(int(name[2:]))[:2])
        assert rows.dtype == np.float32
    assert given.element_spec["regions"] == tf.TensorSpec((None, 4), tf.float32)
    assert (given.class_names, given.name, given.max_regions) == (NAMES, "made", 2)
    assert given.records is examples.records
    assert given.problems is examples.problems
    order = tf.data.Dataset.from_tensor_slices(np.array([5, 2], np.int64))
    assert list(by_id(given.reordered(order))) == ["im5", "im2"]
    other = relabelled(given, [2, 1, 0], ["ring", "dot", "cell"])
    assert (other.max_regions, "regions" in other.element_spec) == (2, True)


def test_regions_come_from_a_folder_by_the_photos_names(tmp_path):
    records = []
    for n, stem in enumerate(("b", "a", "c")):
        path = tmp_path / "photos" / f"{stem}.png"
        paint(path, (HEIGHT, WIDTH))
        records.append(
            make_record(str(n), str(path), height=HEIGHT, width=WIDTH, rows=[Row((1, 2, 9, 5), 0)])
        )
    examples = to_dataset(records, NAMES, Inspector(), "files")
    folder = tmp_path / "regions"
    folder.mkdir()
    savemat(folder / "a_boxes.mat", {"boxes": np.array([[3, 4, 5, 6]], np.uint16)})
    savemat(folder / "b.mat", {"boxes": np.array([[1, 4, 5, 40]], np.uint16)})  # juts out below
    with pytest.raises(
        InputError, match=r"1 of 3 images have no regions in .*regions, the first .*c\.png"
    ):
        with_regions(examples, folder)
    np.savez(folder / "c.npz", boxes=[[0.5, 1, 2, 3]])
    found = by_id(with_regions(examples, folder))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "0": [[1, 4, 6, 20]],
        "1": [[3, 4, 6, 7]],
        "2": [[0.5, 1, 2, 3]],
    }
    counted_from_one = {"0": [[0, 3, 5, 20]], "1": [[2, 3, 5, 6]], "2": [[0.5, 1, 2, 3]]}
    found = by_id(with_regions(examples, folder, first_pixel=1))
    assert {name: rows.tolist() for name, rows in found.items()} == counted_from_one


def test_regions_come_from_one_file_of_the_release(tmp_path):
    names, boxes = np.empty((2, 1), object), np.empty((1, 2), object)
    names[:, 0] = ["im1", "im0"]
    boxes[0] = [np.array([[1, 2, 3, 7]]), np.array([[4, 1, 5, 1]])]  # y1 x1 y2 x2, from 1
    savemat(tmp_path / "set.mat", {"images": names, "boxes": boxes})
    found = by_id(with_regions(reader(2), tmp_path / "set.mat"))
    assert found["im0"].tolist() == [[0, 3, 1, 5]]
    assert found["im1"].tolist() == [[1, 0, 7, 3]]


def test_regions_that_were_proposed_come_by_the_images_content(tmp_path):
    examples = shapes(3, image_size=(40, 56), max_objects=2)
    proposed = propose(examples, tmp_path, workers=1)
    found = by_id(with_regions(examples, tmp_path))
    assert sum(len(rows) for rows in found.values()) == proposed.regions
    bare = examples.map(lambda example: example)  # no records: looked up when they come
    for name, rows in by_id(with_regions(bare, tmp_path)).items():
        np.testing.assert_array_equal(rows, found[name])
    with pytest.raises(InputError, match="1 of 4 images have no regions in"):
        with_regions(shapes(4, image_size=(40, 56), max_objects=2), tmp_path)


def test_an_image_that_the_stream_leaves_out_needs_no_regions(tmp_path):
    good, broken = tmp_path / "good.png", tmp_path / "broken.png"
    paint(good, (HEIGHT, WIDTH))
    broken.write_bytes(b"no image")
    records = [
        make_record(p.stem, str(p), height=HEIGHT, width=WIDTH, rows=[Row((1, 2, 9, 5), 0)])
        for p in (broken, good)
    ]
    examples = to_dataset(records, NAMES, Inspector(), "files")
    propose(examples, tmp_path / "kept", workers=1)
    assert list(by_id(with_regions(examples, tmp_path / "kept"))) == ["good"]


def test_a_function_computes_them():
    found = by_id(
        with_regions(reader(2), lambda image: sliding_windows(*image.shape[:2]), max_regions=5)
    )
    np.testing.assert_allclose(found["im1"], sliding_windows(HEIGHT, WIDTH)[:5])


def test_an_image_without_a_region_has_none():
    found = by_id(with_regions(reader(2), {**table(2), "im0": np.zeros((0, 4))}))
    assert found["im0"].shape == (0, 4)
    assert len(found["im1"]) == 2


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[5, 4, 3, 9]], "x1 < x2"),
        ([[1, 2, np.nan, 9]], "finite"),
        ([[0.1, 0.2, 0.5, 1.0]], "shares of the image"),
        ([[40, 4, 50, 9]], "lie on the image of 30x20"),
        ([[1, 2, 3]], r"\(R, 4\)"),
    ],
)
def test_what_is_no_region_of_its_image_is_one_sentence(rows, words):
    with pytest.raises(InputError, match=words):
        with_regions(reader(2), {**table(2), "im1": np.array(rows)})


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        ({}, "7 of 7 images have no regions in the regions given, the first im0"),
        ("nowhere", "no such folder or file"),
        (5, "not a int"),
    ],
)
def test_where_there_are_no_regions_is_one_sentence(regions, words):
    with pytest.raises(InputError, match=words):
        with_regions(reader(), regions)


def test_no_region_at_most_is_refused():
    with pytest.raises(InputError, match="max_regions"):
        with_regions(reader(), table(), max_regions=0)


# ------------------------------------------------------------------------ in batches


def green(image):
    """The edges x1, y1, x2, y2 of what is green, to half a level."""
    ys, xs = np.nonzero(image[..., 1] > 100)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_batches_hold_images_and_padded_regions_of_static_shape():
    batches = pipeline(with_regions(reader(), table(), max_regions=5), MODEL, 3)
    inputs, targets = batches.element_spec
    assert inputs == {
        "images": tf.TensorSpec((None, 40, 50, 3), tf.float32),
        "regions": tf.TensorSpec((None, 5, 4), tf.float32),
    }
    assert set(targets) == {"boxes", "labels", "image_id"}
    seen = 0
    # 20x30 to a shorter side of 24: 24x36, 1.2 times as large.
    for inputs, targets in batches.as_numpy_iterator():
        for number, name in enumerate(image_ids(targets["image_id"])):
            n = int(name[2:])
            expected = np.full((5, 4), -1.0)
            expected[: 1 + n % 3] = regions_of(n) * 1.2
            np.testing.assert_allclose(inputs["regions"][number], expected, rtol=1e-6)
            boxes = [(1, 2, 9, 5 + k) for k in range(n % 3)]
            count = len(boxes)
            np.testing.assert_allclose(
                targets["boxes"][number][:count], np.reshape(boxes, (-1, 4)) * 1.2, rtol=1e-6
            )
            assert targets["labels"][number].tolist()[:count] == list(range(count))
            assert (targets["labels"][number][count:] == -1).all()
            expected = corner_of_one(pixels(n), (40, 50), short_side=24, fill=MODEL.mean)
            np.testing.assert_allclose(inputs["images"][number], expected, atol=1e-3)
            seen += 1
    assert seen == 7


def test_regions_follow_flips_and_sizes_of_painted_pixels():
    examples = with_regions(reader(), table(), max_regions=5)
    batches = pipeline(examples, MODEL, 4, augment="flip", multi_scale=[48, 72], seed=3)
    mirrored, sizes = set(), set()
    for _ in range(6):
        for inputs, targets in batches.as_numpy_iterator():
            side = inputs["images"].shape[1]
            sizes.add(side)
            # Short sides of 48 and 72 pixels, 0.6 of the canvas, whatever the model's own are.
            scale = 0.6 * side / 20
            for image, rows, name in zip(
                inputs["images"], inputs["regions"], image_ids(targets["image_id"]), strict=True
            ):
                n = int(name[2:])
                np.testing.assert_allclose(green(image), rows[0], atol=0.51)
                straight = regions_of(n) * scale
                flipped = np.isclose(rows[0, 0], scale * WIDTH - straight[0, 2])
                if flipped:
                    straight = straight[:, [2, 1, 0, 3]]
                    straight[:, [0, 2]] = scale * WIDTH - straight[:, [0, 2]]
                mirrored.add(bool(flipped))
                np.testing.assert_allclose(rows[: len(straight)], straight, rtol=1e-5)
                assert (rows[len(straight) :] == -1).all()
    assert (mirrored, sizes) == ({False, True}, {80, 120})


def test_several_sizes_are_short_sides_and_no_photo_is_cut():
    """Sec. 5.2: 480 to 1200 pixels, of which the longest side is at most 2000. Photos of 3:2 and 4:1."""

    def painted(number):
        return np.full(((400, 600, 3), (100, 400, 3))[number], 200, np.uint8)

    records = [
        make_record(str(n), "", height=h, width=w, rows=[Row((0, 0, w, h), 0)])
        for n, (h, w) in enumerate([(400, 600), (100, 400)])
    ]
    examples = to_dataset(records, NAMES, Inspector(), "painted", pixels=painted)
    model = SimpleNamespace(**{**vars(MODEL), "takes_regions": False, "image_size": (1000, 1000)})
    for side, canvas in ((480, 800), (688, 1147), (1200, 2000)):
        for images, targets in pipeline(examples, model, 2, multi_scale=[side]).as_numpy_iterator():
            assert images.shape == (2, canvas, canvas, 3)
            for image, box, size in zip(
                images,
                targets["boxes"][:, 0],
                [(side, side * 3 // 2), (round(canvas / 4), canvas)],
                strict=True,
            ):
                there = (image > 100).all(axis=-1)
                assert (there.any(axis=1).sum(), there.any(axis=0).sum()) == size
                np.testing.assert_allclose(box, [0, 0, size[1], size[0]], rtol=1e-5)


def test_a_function_as_augmentation_gets_regions_among_the_boxes():
    def without_the_first(example, image_size, seed):
        moved = corner(example, image_size)
        last = tf.reduce_max(tf.where(moved.labels == -1))
        kept = tf.range(tf.size(moved.labels)) < tf.cast(last, tf.int32)  # all but the last region
        return moved.image, moved.boxes[kept], moved.labels[kept]

    examples = with_regions(reader(3), table())
    (batch,) = pipeline(examples, MODEL, 3, augment=without_the_first, shuffle=False)
    inputs, targets = batch
    assert (inputs["regions"][..., 2] >= 0).numpy().sum(axis=1).tolist() == [0, 1, 2]
    assert (targets["labels"] >= 0).numpy().sum(axis=1).tolist() == [0, 1, 2]
    assert inputs["regions"].shape == (3, 2000, 4)


def test_workers_and_caches_and_repeats_see_each_images_own_regions(tmp_path):
    examples = with_regions(reader(), table(), max_regions=3)
    first = pipeline(examples, MODEL, 2, augment="flip", shard=(0, 2), cache=True, repeat=True)
    for inputs, targets in first.take(9).as_numpy_iterator():
        for image, rows, name in zip(
            inputs["images"], inputs["regions"], image_ids(targets["image_id"]), strict=True
        ):
            assert (rows[:, 2] >= 0).sum() == 1 + int(name[2:]) % 3
            np.testing.assert_allclose(green(image), rows[0], atol=0.8)


@pytest.mark.parametrize("size", [(40, 50), (25, 25), (13, 60)])
@pytest.mark.parametrize("source", [(20, 30), (31, 7), (60, 60)])
def test_the_corner_is_that_of_detecting(size, source, rng):
    image = rng.integers(0, 256, (*source, 3)).astype(np.uint8)
    example = {"image": image, "boxes": np.zeros((0, 4)), "labels": np.zeros(0, np.int32)}
    found = corner(example, size, short_share=12 / min(size), fill=(9.0, 8.0, 7.0))
    expected = corner_of_one(image, size, short_side=12, fill=(9.0, 8.0, 7.0))
    np.testing.assert_allclose(found.image, expected, atol=2e-3)


def test_a_model_that_takes_regions_is_refused_data_without():
    with pytest.raises(InputError, match="with_regions"):
        pipeline(reader(), MODEL, 2)
    with pytest.raises(InputError, match="'flip', a function or None, not 'ssd'"):
        pipeline(with_regions(reader(), table()), MODEL, 2, augment="ssd")


def test_another_model_takes_the_same_data_without_its_regions():
    plain = SimpleNamespace(image_size=(30, 45), class_names=NAMES)
    images, _ = next(iter(pipeline(with_regions(reader(), table()), plain, 2)))
    assert images.shape == (2, 30, 45, 3)


# ------------------------------------------------------------------------ in a detector


def painted_examples():
    """The four images of `tests.small`, each object with regions around it."""
    batch = small.four_images()
    records = []
    for n, (boxes, labels) in enumerate(
        zip(batch.targets["boxes"], batch.targets["labels"], strict=True)
    ):
        rows = [
            Row(tuple(map(float, box)), int(label))
            for box, label in zip(boxes, labels, strict=True)
            if label >= 0
        ]
        records.append(make_record(str(n), "", height=small.HEIGHT, width=small.WIDTH, rows=rows))
    images = batch.images.astype(np.uint8)
    examples = to_dataset(
        records, small.CLASS_NAMES, Inspector(), "four", pixels=lambda index: images[index]
    )
    regions = {str(n): small.proposals((small.HEIGHT, small.WIDTH)) for n in range(4)}
    return with_regions(examples, regions, max_regions=80)


def test_fast_rcnn_trains_and_is_evaluated_on_them(monkeypatch):
    detector = small.fast_rcnn()
    assert detector.takes_regions
    detector.compile(keras.optimizers.SGD(1e-3))
    batches = pipeline(painted_examples(), detector, 2, augment="flip")
    history = detector.fit(batches, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()

    def nothing(image):
        raise AssertionError("the examples bring their regions")

    monkeypatch.setattr(detector, "propose", nothing)
    result = evaluate(detector, painted_examples(), progress=False)
    assert len(result.images) == 4
