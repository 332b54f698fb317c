"""The batches that `fit` takes: what is in them, in which order, and that it comes again."""

import functools
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdet.data import augment
from kerasdet.data.batching import image_ids, pipeline
from kerasdet.data.example import Inspector, Row, make_record
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError

MODEL = SimpleNamespace(image_size=(30, 45), class_names=["cell", "dot", "ring"])
HEIGHT, WIDTH = 20, 30


def objects_of(number):
    """Image `number` has number % 4 objects; 1 + number objects would not be lopsided enough."""
    return [(2.0 * k, 1.0 * k, 2.0 * k + 10 + number % 5, 1.0 * k + 9) for k in range(number % 4)]


def pixels(index):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :, 0] = index
    image[:, :, 1] = np.arange(WIDTH)
    return image


def reader(count=11, rows=None, image_id=str):
    """What a reader gives: records, attributes, and `reordered`."""

    def rows_of(number):
        return [Row(box, k % 3) for k, box in enumerate(objects_of(number))]

    records = [
        make_record(image_id(n), "", height=HEIGHT, width=WIDTH, rows=(rows or rows_of)(n))
        for n in range(count)
    ]
    return to_dataset(records, MODEL.class_names, Inspector(), "made", pixels=pixels)


def bare(count=11):
    """The same elements without any attribute, as after a user's own map."""
    return reader(count).apply(tf.data.experimental.assert_cardinality(count))


def epoch(batches):
    """One iteration: a list of (images, boxes, labels, ids)."""
    return [
        (images, targets["boxes"], targets["labels"], image_ids(targets["image_id"]))
        for images, targets in batches.as_numpy_iterator()
    ]


def ids(batches):
    return [name for batch in batches for name in batch[3]]


def assert_same(some, others):
    assert len(some) == len(others) > 0
    for one, other in zip(some, others, strict=True):
        assert one[3] == other[3]
        for mine, theirs in zip(one[:3], other[:3], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_shapes_are_static_but_for_the_last_batch():
    images, targets = pipeline(reader(), MODEL, 4, augment="ssd").element_spec
    assert images == tf.TensorSpec((None, 30, 45, 3), tf.float32)
    assert targets == {
        "boxes": tf.TensorSpec((None, 8, 4), tf.float32),
        "labels": tf.TensorSpec((None, 8), tf.int32),
        "image_id": tf.TensorSpec((None, 64), tf.uint8),
    }
    full = pipeline(reader(), MODEL, 4, augment="flip", drop_remainder=True, max_boxes=5)
    assert full.element_spec[0].shape == (4, 30, 45, 3)
    assert full.element_spec[1]["boxes"].shape == (4, 5, 4)


def test_plain_batches_hold_every_image_resized_in_order():
    batches = epoch(pipeline(reader(), MODEL, 4))
    assert [len(batch[0]) for batch in batches] == [4, 4, 3]
    assert ids(batches) == [str(n) for n in range(11)]
    for images, boxes, labels, names in batches:
        for image, rows, classes, name in zip(images, boxes, labels, names, strict=True):
            number = int(name)
            np.testing.assert_array_equal(image, tf.image.resize(pixels(number), (30, 45)))
            objects, n = np.reshape(objects_of(number), (-1, 4)), number % 4
            np.testing.assert_allclose(rows[:n], objects * 1.5, rtol=1e-6)  # 45/30 and 30/20
            assert classes[:n].tolist() == [k % 3 for k in range(n)]
            assert (rows[n:] == 0).all()
            assert (classes[n:] == -1).all()


def test_boxes_follow_painted_pixels_through_the_whole_chain():
    def paint(index):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[4:17, 5 : 15 + int(index)] = 255
        return image

    records = [
        make_record(str(n), "", height=HEIGHT, width=WIDTH, rows=[Row((5, 4, 15 + n, 17), 1)])
        for n in range(12)
    ]
    examples = to_dataset(records, MODEL.class_names, Inspector(), "painted", pixels=paint)
    chain = functools.partial(augment.ssd, fill=(0.0, 0.0, 0.0), distort_probability=0.0)
    seen = 0
    batches = pipeline(examples, MODEL, 5, augment=chain, repeat=True).take(3 * 6)
    for images, targets in batches.as_numpy_iterator():
        for image, box, label in zip(images, targets["boxes"], targets["labels"], strict=True):
            if label[0] == 1:
                ys, xs = np.nonzero(image[..., 0] > 127.5)
                extent = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                np.testing.assert_allclose(box[0], extent, atol=0.51)
                seen += 1
    assert seen > 40


def test_crowd_is_left_out_and_difficult_where_asked():
    def rows(_):
        return [
            Row((0, 0, 10, 10), 0),
            Row((5, 5, 20, 20), 1, difficult=True),
            Row((0, 0, 30, 20), 2, crowd=True),
        ]

    examples = reader(2, rows)
    with_difficult = epoch(pipeline(examples, MODEL, 2, max_boxes=4))[0][2]
    assert with_difficult.tolist() == [[0, 1, -1, -1]] * 2
    without = epoch(pipeline(examples, MODEL, 2, max_boxes=4, use_difficult=False))[0][2]
    assert without.tolist() == [[0, -1, -1, -1]] * 2


def test_of_too_many_objects_the_largest_stay_and_one_warning_says_so(caplog):
    def rows(number):
        sizes = [3, 9, 5, 7][: 2 + 2 * number]
        return [Row((0, 0, size, size), k % 3) for k, size in enumerate(sizes)]

    run = pipeline(reader(2, rows), MODEL, 2, max_boxes=2)
    with caplog.at_level(logging.WARNING, "kerasdet.data"):
        batch = [epoch(run), epoch(run)][1][0]
    np.testing.assert_allclose(batch[1][1][:, 2], [9 * 1.5, 7 * 1.5], rtol=1e-6)
    assert batch[2].tolist() == [[0, 1], [1, 0]]
    assert [r.getMessage() for r in caplog.records] == [
        "an image has 4 objects and max_boxes is 2: there and on images like it the smallest are "
        "left out"
    ]


def test_rows_are_as_many_as_the_fullest_image_needs():
    def rows(number):
        return [Row((0, 0, 5, 5), 0)] * 9 + [Row((0, 0, 5, 5), 0, crowd=True)] * 20 * number

    assert pipeline(reader(2, rows), MODEL).max_boxes == 16  # 9, rounded up to eights
    assert pipeline(bare(), MODEL).max_boxes == 100


def test_image_ids_come_back_by_their_last_64_bytes():
    long = {0: "né", 1: "folder/" * 20 + "image.jpg"}
    batch = epoch(pipeline(reader(2, lambda n: [Row((0, 0, 5, 5), 0)], long.get), MODEL, 2))[0]
    assert batch[3] == ["né", long[1][-64:]]


SOURCES = {
    "reader": (reader, {}),
    "buffer": (bare, {"shuffle": 3}),
    "cached worker in order": (reader, {"cache": True, "shuffle": False, "shard": (1, 2)}),
}


@pytest.fixture(params=SOURCES)
def make(request):
    """The same pipeline over and over, from each kind of source."""
    source, options = SOURCES[request.param]
    return lambda **more: pipeline(source(), MODEL, 4, augment="flip", **{**options, **more})


@pytest.mark.slow
def test_an_epoch_is_the_same_wherever_the_run_began(make):
    run = make(seed=3)
    epochs = [epoch(run), epoch(run)]
    differ = [np.abs(a[0] - b[0]).max() > 1 for a, b in zip(*epochs, strict=True)]
    assert any(differ)
    assert_same(epoch(make(seed=3, first_epoch=1)), epochs[1])
    endless = make(seed=3, repeat=True)
    steps = endless.steps_per_epoch
    assert steps == len(epochs[1])
    assert_same(epoch(endless.take(2 * steps)), epochs[0] + epochs[1])


def sizes(batches):
    return [batch[0].shape[1:3] for batch in batches]


SCALES = {"multi_scale": (32, 40, 48, 56, 64, 72), "multi_scale_every": 3, "augment": "yolo_v2"}


def test_multi_scale_draws_a_new_size_every_few_batches():
    run = pipeline(reader(), MODEL, 1, **SCALES)
    images, targets = run.element_spec
    assert images.shape.as_list() == [None, None, None, 3]
    assert targets["boxes"].shape.as_list() == [None, 8, 4]
    seen = set()
    for _ in range(4):
        of_epoch = sizes(epoch(run))
        assert len(of_epoch) == 11
        for start in range(0, 11, 3):
            assert len(set(of_epoch[start : start + 3])) == 1
        seen |= {size[0] for size in of_epoch}
        assert all(height == width for height, width in of_epoch)
    assert len(seen) > 3
    assert seen <= set(SCALES["multi_scale"])


def with_the_last_at_the_greatest(drawn, steps, last):
    """darknet's loop (examples/detector.c, train_detector) over sizes drawn without its end.

    Its `count` goes on over all batches; here it begins anew in every epoch, of `steps` batches.
    """
    max_batches, count, found = len(drawn), 0, []
    for current_batch in range(max_batches):
        if current_batch % steps == 0:
            count = 0
        if count % SCALES["multi_scale_every"] == 0:
            dim = drawn[current_batch]
            if current_batch + last > max_batches:
                dim = (72, 72)
        count += 1
        found.append(dim)
    return found


@pytest.mark.parametrize(("epochs", "last"), [(1, 5), (1, 6), (2, 10), (2, 14), (2, 50)])
def test_the_last_batches_are_of_the_greatest_size_as_in_darknets_loop(epochs, last):
    def run(**more):
        batches = pipeline(reader(), MODEL, 1, seed=3, repeat=True, **SCALES, **more)
        return sizes(epoch(batches.take(epochs * batches.steps_per_epoch)))

    drawn, found = run(), run(multi_scale_last=last, epochs=epochs)
    assert found == with_the_last_at_the_greatest(drawn, 11, last)
    # An epoch of 11 batches has draws at 0, 3, 6 and 9.
    greatest = {(1, 5): 2, (1, 6): 5, (2, 10): 8, (2, 14): 13, (2, 50): 22}[epochs, last]
    assert found[-greatest:] == [(72, 72)] * greatest
    assert found != drawn


@pytest.mark.slow
def test_sizes_and_images_are_the_same_where_a_run_is_resumed():
    run = pipeline(reader(), MODEL, 2, seed=3, **SCALES)
    epochs = [epoch(run) for _ in range(3)]
    assert len({str(sizes(of_epoch)) for of_epoch in epochs}) > 1
    assert_same(epoch(pipeline(reader(), MODEL, 2, seed=3, first_epoch=2, **SCALES)), epochs[2])
    endless = pipeline(reader(), MODEL, 2, seed=3, repeat=True, **SCALES)
    assert_same(epoch(endless.take(18)), [batch for of_epoch in epochs for batch in of_epoch])


def test_workers_have_batches_of_the_same_sizes():
    shares = [epoch(pipeline(reader(), MODEL, 1, shard=(i, 2), **SCALES)) for i in range(2)]
    assert sizes(shares[0]) == sizes(shares[1])
    assert set(ids(shares[0])) != set(ids(shares[1]))


def test_boxes_are_in_pixels_of_the_drawn_size():
    options = {**SCALES, "augment": None, "shuffle": False}
    batches = epoch(pipeline(reader(), MODEL, 1, **options))
    assert len(set(sizes(batches))) > 1
    for images, boxes, labels, names in batches:
        side = images.shape[1]
        for rows, classes, name in zip(boxes, labels, names, strict=True):
            objects = np.reshape(objects_of(int(name)), (-1, 4))
            scale = [side / WIDTH, side / HEIGHT] * 2
            np.testing.assert_allclose(rows[classes >= 0], objects * scale, rtol=1e-5)


def test_whole_images_are_resized_as_the_model_does_it():
    model = SimpleNamespace(**vars(MODEL), resize="letterbox")
    images, boxes, _, _ = epoch(pipeline(reader(2), model, 2))[0]
    # 20x30 into 30x45: 45/30 = 30/20, so there is no bar; into 30x60 one of 7 pixels on each side.
    np.testing.assert_allclose(boxes[1, 0], [0, 0, 11 * 1.5, 9 * 1.5], rtol=1e-6)
    model.image_size = (30, 60)
    images, boxes, _, _ = epoch(pipeline(reader(2), model, 2))[0]
    assert (images[:, :, :7] == 127.5).all()
    assert (images[:, :, 7:52] != 127.5).any(axis=(0, 1, 3)).all()
    np.testing.assert_allclose(boxes[1, 0], [7, 0, 7 + 11 * 1.5, 9 * 1.5], rtol=1e-6)
    model.resize = "crop"
    with pytest.raises(InputError, match=r"resize of a model is warp or letterbox.* not 'crop'"):
        pipeline(reader(2), model, 2)


def test_seeds_give_different_batches():
    one, other = (epoch(pipeline(reader(), MODEL, shuffle=True, seed=s)) for s in (1, 2))
    assert ids(one) != ids(other)
    assert sorted(ids(one)) == sorted(ids(other))


def test_every_epoch_shuffles_anew_and_shows_every_image_once():
    run = pipeline(reader(), MODEL, 4, shuffle=True)
    orders = [ids(epoch(run)) for _ in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    for order in orders:
        assert sorted(order, key=int) == [str(n) for n in range(11)]


def test_shuffle_false_keeps_the_order():
    run = pipeline(reader(), MODEL, 4, augment="flip", shuffle=False)
    assert ids(epoch(run)) == [str(n) for n in range(11)]


@pytest.mark.parametrize(("source", "options"), [(reader, {"shuffle": True}), (bare, {})])
def test_workers_share_the_images(source, options):
    shares = [epoch(pipeline(source(), MODEL, 2, shard=(i, 3), **options)) for i in range(3)]
    seen = [set(ids(share)) for share in shares]
    assert set.union(*seen) == {str(n) for n in range(11)}
    assert sum(map(len, seen)) == 11  # disjoint
    # 11 = 4 + 4 + 3, and the last worker sees one image twice.
    assert [len(ids(share)) for share in shares] == [4, 4, 4]


def test_number_of_batches_is_known():
    assert int(pipeline(reader(), MODEL, 4, augment="flip").cardinality()) == 3
    assert int(pipeline(reader(), MODEL, 4).cardinality()) == 3
    assert int(pipeline(bare(), MODEL, 4, shuffle=True, drop_remainder=True).cardinality()) == 2
    endless = pipeline(reader(), MODEL, 4, repeat=True)
    assert int(endless.cardinality()) == tf.data.INFINITE_CARDINALITY
    assert endless.steps_per_epoch == 3
    filtered = bare().filter(lambda _: True)
    assert pipeline(filtered, MODEL, 4).steps_per_epoch is None
    filtered.size = 11
    assert int(pipeline(filtered, MODEL, 4).cardinality()) == 3


def test_where_no_image_can_be_read_there_is_an_error_and_no_endless_search(tmp_path):
    records = [
        make_record(
            str(n), str(tmp_path / f"{n}.png"), height=9, width=9, rows=[Row([1, 1, 5, 5], 0)]
        )
        for n in range(5)
    ]
    lost = to_dataset(records, MODEL.class_names, Inspector(), "lost")
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 3"):
        next(iter(pipeline(lost, MODEL, 2, shuffle=True, repeat=True)))


def test_an_image_that_cannot_be_read_does_not_shorten_an_epoch(tmp_path):
    for number in range(5):
        tf.io.write_file(str(tmp_path / f"{number}.png"), tf.io.encode_png(pixels(number)))
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    records = [
        make_record(
            str(n),
            str(tmp_path / f"{n}.png"),
            height=HEIGHT,
            width=WIDTH,
            rows=[Row((0, 0, 10, 10), 0)],
        )
        for n in range(5)
    ]
    examples = to_dataset(records, MODEL.class_names, Inspector(), "made")
    run = pipeline(examples, MODEL, 2, augment="flip")
    for _ in range(2):
        found = ids(epoch(run))
        assert len(found) == 5
        assert set(found) == {"0", "1", "2", "4"}
    assert ids(epoch(pipeline(examples, MODEL, 2))) == ["0", "1", "2", "4", "0"]


def test_cache_in_files_gives_the_same_epoch_twice(tmp_path):
    options = {"shuffle": True, "cache": str(tmp_path / "cached")}
    first = epoch(pipeline(reader(), MODEL, 4, **options))
    assert list(tmp_path.iterdir())
    assert_same(epoch(pipeline(reader(), MODEL, 4, **options)), first)


def test_own_function_augments():
    def darken(example, image_size, seed):
        image, boxes, labels = augment.warp(example, image_size)
        return image * 0.0, boxes + 1.0, labels + tf.cast(seed[0], tf.int32)

    images, boxes, labels, _ = epoch(
        pipeline(reader(2), MODEL, 2, augment=darken, seed=5, shuffle=False)
    )[0]
    assert images.max() == 0
    np.testing.assert_allclose(boxes[1, 0], [1, 1, 11 * 1.5 + 1, 9 * 1.5 + 1])
    assert labels[1, 0] == 5


def test_other_classes_are_an_error_that_prints_both_lists():
    model = SimpleNamespace(image_size=(30, 45), class_names=["dot", "cell", "ring"])
    with pytest.raises(InputError, match="data has cell, dot, ring; the model has dot, cell, ring"):
        pipeline(reader(), model)


def test_a_model_without_names_of_its_own_is_judged_by_their_number():
    for count, fits in ((3, True), (4, False)):
        names = [f"class {k}" for k in range(count)]
        model = SimpleNamespace(image_size=(30, 45), class_names=names)
        if fits:
            assert pipeline(reader(), model).class_names == names
        else:
            with pytest.raises(InputError, match="3 classes are not the model's 4"):
                pipeline(reader(), model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, not 0"),
        ({"augment": "sdd"}, "must be 'ssd', 'flip', 'yolo_v1', 'yolo_v2', a function or None"),
        ({"multi_scale": [64, 30.5]}, "multi_scale wants sizes in pixels, whole numbers above 0"),
        ({"multi_scale": []}, "multi_scale wants sizes in pixels"),
        ({"multi_scale": [64], "multi_scale_every": 0}, "multi_scale_every must be 1 or more"),
        ({"multi_scale": [64], "multi_scale_last": 5}, "multi_scale_last wants .* and None"),
        ({"multi_scale_last": 5, "epochs": 2}, "multi_scale_last wants .* 5, None and 2"),
        ({"multi_scale": [64], "multi_scale_last": -1, "epochs": 2}, "multi_scale_last wants 0"),
        ({"shard": (2, 2)}, "0 <= index < count"),
        ({"max_boxes": 0}, "max_boxes must be 1 or more"),
        ({"batch_size": 12, "drop_remainder": True}, "11 examples do not fill one batch of 12"),
    ],
)
def test_an_argument_without_sense_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        pipeline(reader(), MODEL, **options)


def test_a_network_says_which_sizes_it_takes():
    model = SimpleNamespace(**vars(MODEL), image_stride=32, takes_any_size=True)
    assert pipeline(reader(), model, multi_scale=range(320, 609, 32)).steps_per_epoch == 1
    with pytest.raises(InputError, match="multiples of 32, not \\[320, 400\\]"):
        pipeline(reader(), model, multi_scale=[320, 400])
    model.takes_any_size = False
    with pytest.raises(InputError, match="this one takes 30x45 alone"):
        pipeline(reader(), model, multi_scale=[320, 352])


def test_batches_instead_of_examples_are_refused():
    with pytest.raises(InputError, match="wants examples, dicts with image, boxes and labels"):
        pipeline(pipeline(reader(), MODEL), MODEL)


class Counting(keras.Model):
    """Reads every part of a batch."""

    def __init__(self):
        super().__init__()
        self.gain = self.add_weight(shape=(), initializer="zeros")

    def call(self, images):
        return self.gain * keras.ops.mean(images, axis=(1, 2, 3))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        used = [keras.ops.cast(y[key], "float32") for key in ("boxes", "labels", "image_id")]
        return sum(map(keras.ops.mean, used)) + keras.ops.mean(y_pred)


def test_keras_fits_on_it_and_knows_the_steps():
    model = Counting()
    model.compile("sgd")
    history = model.fit(
        pipeline(reader(), MODEL, 4, augment="flip"),
        validation_data=pipeline(reader(), MODEL, 4),
        epochs=2,
        verbose=0,
        shuffle=False,
    )
    assert history.params["steps"] == 3
    assert np.isfinite(history.history["loss"] + history.history["val_loss"]).all()


def test_jax_fits_on_it():
    script = (
        "from tests.data.test_batching import MODEL, Counting, keras, pipeline, reader\n"
        "assert keras.backend.backend() == 'jax'\n"
        "model = Counting()\n"
        "model.compile('sgd')\n"
        "batches = pipeline(reader(), MODEL, 4, augment='flip', drop_remainder=True)\n"
        "print(len(model.fit(batches, epochs=2, verbose=0, shuffle=False).history['loss']))\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["2"], done.stderr[-2000:]
