"""What the base class gives every detector: training, precision, saving and `detect` on any image."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from PIL import Image

from kerasdet import SSD, Detector
from kerasdet.errors import InputError, TrainingError
from kerasdet.suppression import Detections
from tests import small

ROOT = Path(__file__).resolve().parents[2]
TENSORFLOW = keras.backend.backend() == "tensorflow"


class FindsBright(Detector):
    """No network at all: its one detection is the frame around all pixels whose red is over half.

    So what `detect` does to an image and to its boxes can be seen.
    """

    def __init__(self, height=64, width=96, **options):
        images = keras.Input((height, width, 3))
        outputs = {"image": layers.Identity()(images)}
        super().__init__(images, outputs, class_names=["thing"], **options)

    def decode(self, outputs, *, score_threshold=None, iou_threshold=None, max_detections=None):
        bright = outputs["image"][..., 0] > 127.5  # (B, H, W)

        def ends(line):
            """First bright cell and the one after the last, (B,) each."""
            first = ops.argmax(line, axis=1)
            return first, line.shape[1] - ops.argmax(ops.flip(line, axis=1), axis=1)

        (top, bottom), (left, right) = ends(ops.any(bright, axis=2)), ends(ops.any(bright, axis=1))
        box = ops.cast(ops.stack([left, top, right, bottom], axis=1), "float32")
        found = ops.cast(ops.any(bright, axis=(1, 2)), "int32")
        return Detections(
            boxes=ops.expand_dims(box, 1),
            scores=ops.cast(ops.expand_dims(found, 1), "float32") * 0.75,
            labels=ops.expand_dims(found - 1, 1),
            count=found,
        )


@pytest.fixture(scope="module")
def finder():
    return FindsBright()


def photo(height, width, box, dtype="uint8"):
    """Black but for one white box."""
    image = np.zeros((height, width, 3), dtype)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return image


# ---------------------------------------------------------------------- detect

# Source sizes are the network's 64 x 96 times or over 2, so that the painted edges stay exact.
PHOTOS = [
    photo(64, 96, (10, 20, 31, 45)),
    photo(32, 192, (20, 5, 150, 18)),  # twice as wide, half as high
    photo(128, 48, (3, 40, 44, 126)),
    photo(64, 96, (0, 0, 0, 0)),  # nothing
]
BOXES = [[(10, 20, 31, 45)], [(20, 5, 150, 18)], [(3, 40, 44, 126)], []]


def boxes_of(found):
    return [list(map(tuple, each.boxes.tolist())) for each in found]


def test_boxes_come_back_in_each_images_own_pixels(finder):
    found = finder.detect(PHOTOS)
    assert boxes_of(found) == BOXES
    assert [each.count for each in found] == [1, 1, 1, 0]
    assert found[0].scores.tolist() == [0.75]
    assert [each.names for each in found] == [["thing"]] * 3 + [[]]
    assert found[3].boxes.shape == (0, 4)


def test_one_image_is_a_list_of_one(finder):
    for image in PHOTOS[:3]:
        assert boxes_of(finder.detect(image)) == boxes_of(finder.detect([image]))


def test_a_batch_is_a_list_of_its_images(finder):
    batch = np.stack([PHOTOS[0], PHOTOS[3]])
    assert boxes_of(finder.detect(batch)) == [BOXES[0], BOXES[3]]
    assert boxes_of(finder.detect(ops.convert_to_tensor(batch))) == [BOXES[0], BOXES[3]]


def test_more_images_than_go_through_together_keep_their_order(finder):
    order = [0, 1, 2, 3, 2, 1, 0, 0, 2, 3, 1]
    assert boxes_of(finder.detect([PHOTOS[i] for i in order])) == [BOXES[i] for i in order]


def test_no_images_give_no_detections(finder):
    assert finder.detect([]) == []
    assert finder.detect(np.zeros((0, 20, 30, 3), "uint8")) == []


def test_grey_rgba_and_float_images_are_read(finder):
    image = PHOTOS[1]
    transparent = np.concatenate([image, np.full((32, 192, 1), 255, "uint8")], axis=2)
    kinds = [image[..., 0], image[..., :1], transparent, image.astype("float32"), image.tolist()]
    for kind in kinds[:4]:
        assert boxes_of(finder.detect(kind)) == [BOXES[1]]
    assert boxes_of(finder.detect([np.array(kinds[4])])) == [BOXES[1]]


def test_files_and_pil_images_are_read(finder, tmp_path):
    picture = Image.fromarray(PHOTOS[2])
    picture.save(tmp_path / "rgb.png")
    picture.convert("L").save(tmp_path / "grey.png")
    picture.convert("P").save(tmp_path / "palette.png")
    files = [tmp_path / "rgb.png", str(tmp_path / "grey.png"), tmp_path / "palette.png"]
    assert boxes_of(finder.detect([*files, picture])) == [BOXES[2]] * 4
    assert boxes_of(finder.detect(files[0])) == [BOXES[2]]


def test_boxes_are_cut_at_the_photos_edges():
    class TooWide(FindsBright):
        def decode(self, outputs, **options):
            found = super().decode(outputs, **options)
            return found._replace(boxes=found.boxes + ops.convert_to_tensor([-50.0, -50, 50, 50]))

    assert boxes_of(TooWide().detect(PHOTOS[1])) == [[(0, 0, 192, 32)]]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((5, 7, 2), "uint8"), "the image.*(5, 7, 2)"),
        (np.zeros((7,), "uint8"), "(7,)"),
        (np.zeros((0, 7, 3), "uint8"), "(0, 7, 3)"),
        (np.zeros((5, 7, 3), "complex64"), "complex64"),
        (np.zeros((5, 7, 3), bool), "bool"),
        (np.full((5, 7, 3), 0.5, "float32"), "multiply an image in 0..1 by 255"),
        (np.full((5, 7, 3), np.nan, "float32"), "nan"),
        ([np.zeros((5, 7, 3), "uint8"), np.zeros((5, 7, 9), "uint8")], "image 1 of the list"),
        (np.zeros((2, 5, 7, 9), "uint8"), "image 0 of the batch"),
        ("nowhere.jpg", "the image, but nowhere.jpg"),
        (["nowhere.jpg"], "image 0 of the list, but nowhere.jpg"),
        (None, "the image"),
        (7, "the image"),
        ([None], "image 0 of the list"),
        ({"image": 3}, "the image"),
    ],
)
def test_what_is_not_an_image_is_refused_in_one_sentence(image, words, finder):
    with pytest.raises(InputError) as caught:
        finder.detect(image)
    message = str(caught.value)
    for word in words.split(".*"):
        assert word in message
    assert message.startswith("Wanted")
    assert message.endswith(".")
    assert "\n" not in message


def test_a_file_that_is_no_image_is_refused(finder, tmp_path):
    (tmp_path / "notes.jpg").write_text("not a picture")
    whole = tmp_path / "whole.png"
    Image.fromarray(PHOTOS[0]).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:90])
    for name in ("notes.jpg", "cut.png"):
        with pytest.raises(InputError, match=name):
            finder.detect(tmp_path / name)


def test_a_float_image_that_is_all_black_is_fine(finder):
    assert finder.detect(np.zeros((5, 7, 3), "float32"))[0].count == 0


@pytest.mark.skipif(not TENSORFLOW, reason="compares with tf.image.resize")
@pytest.mark.parametrize("size", [(41, 13), (7, 5), (64, 96), (300, 77)])
def test_warp_is_tensorflows_bilinear_resize(size, rng):
    import tensorflow as tf

    from kerasdet.images import warp

    image = rng.uniform(0, 255, (*size, 3)).astype("uint8")
    expected = tf.image.resize(image, (64, 96), method="bilinear").numpy()
    np.testing.assert_allclose(warp(image, (64, 96)), expected, atol=1e-3)


def test_letterboxed_boxes_come_back_in_each_images_own_pixels():
    """48 x 24 into 96 x 96 is twice as large, 24 rows of grey above; 32 x 128 high lies between
    36 grey columns. Corner-aligned resizing moves an edge by up to half a pixel of the photo."""
    finder = FindsBright(96, 96, resize="letterbox")
    photos = [photo(24, 48, (10, 4, 31, 20)), photo(128, 32, (6, 40, 25, 126))]
    found = finder.detect(photos)
    np.testing.assert_allclose(found[0].boxes, [(10, 4, 31, 20)], atol=0.51)
    np.testing.assert_allclose(found[1].boxes, [(6, 40, 25, 126)], atol=1.4)  # 4/3 pixel a cell
    # Warped they would come back too, but the network would see them stretched.
    stretched = FindsBright(96, 96).detect(photos[0])[0]
    np.testing.assert_allclose(stretched.boxes, [(10, 4, 31, 20)], atol=0.51)


def test_bright_bars_are_not_part_of_the_photo():
    """Detections on the bars are cut at the photo's edge."""

    class Everywhere(FindsBright):
        def decode(self, outputs, **options):
            found = super().decode(outputs, **options)
            return found._replace(boxes=found.boxes * 0 + ops.convert_to_tensor([0.0, 0, 96, 96]))

    finder = Everywhere(96, 96, resize="letterbox")
    assert boxes_of(finder.detect(photo(24, 48, (10, 4, 31, 20)))) == [[(0, 0, 48, 24)]]


def test_a_network_for_any_size_is_run_at_the_size_that_is_set():
    """One white pixel is four of the network's at 64 x 96, one at 32 x 48, and lost at 8 x 12."""
    finder = FindsBright(None, None, image_size=(32, 48))
    image = photo(32, 48, (7, 9, 8, 10))
    assert boxes_of(finder.detect(image)) == [[(7, 9, 8, 10)]]
    finder.image_size = 8, 12
    assert boxes_of(finder.detect(image)) == [[]]
    finder.image_size = 64
    assert finder.image_size == (64, 64)
    finder.image_size = (64, 96)
    assert boxes_of(finder.detect(image)) == [[(7, 9, 8, 10)]]


@pytest.mark.parametrize("size", [0, -32, 33, 3.5, "32", (32, 48, 3), (32, 47), None])
def test_an_image_size_that_cannot_be_is_refused(size):
    class Strided(FindsBright):
        image_stride = 16

    finder = Strided(None, None, image_size=(32, 48))
    with pytest.raises(InputError, match="multiples of 16"):
        finder.image_size = size
    assert finder.image_size == (32, 48)


def test_a_network_of_one_size_keeps_it(finder):
    with pytest.raises(InputError, match="64x96 alone"):
        finder.image_size = 128
    finder.image_size = (64, 96)
    with pytest.raises(InputError, match="resize wants"):
        FindsBright(resize="stretch")


# ---------------------------------------------------------------------- training


def test_targets_are_assigned_with_their_images_and_whatever_else_the_batch_carries():
    """Four images of 64 x 96, and one number more for each: 0, 1, 2, 3."""

    class Told(SSD):
        def assign(self, targets, inputs=None):
            assigned = super().assign(targets, inputs)
            height, width = ops.shape(inputs)[1:3]
            return {**assigned, "extra": targets["extra"], "height": height, "width": width}

        def loss_terms(self, outputs, assigned):
            extra = ops.cast(ops.sum(assigned["extra"]), "float32")
            terms = super().loss_terms(outputs, assigned)
            return {
                "localization": 0.0 * terms["localization"] + extra,
                "confidence": 0.0 * terms["confidence"]
                + ops.cast(assigned["height"] * 1000 + assigned["width"], "float32"),
            }

    like = small.plain_ssd()
    told = Told(**like._arguments())
    told.compile("sgd")
    images, targets = small.four_images()
    targets["extra"] = np.arange(4)
    for logs in (
        told.train_on_batch(images, targets, return_dict=True),
        told.test_on_batch(images, targets, return_dict=True),
    ):
        assert logs["localization"] == 0 + 1 + 2 + 3
        assert logs["confidence"] == 64096


def one_step(detector, optimizer, **options):
    """Weights by path before and after one step on the four painted images, and the logs."""
    detector.compile(optimizer, **options)
    before = {v.path: ops.convert_to_numpy(v) for v in detector.trainable_variables}
    logs = detector.train_on_batch(*small.four_images(), return_dict=True)
    after = {v.path: ops.convert_to_numpy(v) for v in detector.trainable_variables}
    return before, after, logs


def same_twice(build=small.ssd):
    """Two detectors with equal weights, none of them 0 (a zero bias would hide its decay)."""
    one, other = build(), build()
    for a, b in zip(one.trainable_variables, other.trainable_variables, strict=True):
        value = ops.convert_to_numpy(a)
        value = value + 0.1 * (value == 0)
        a.assign(value)
        b.assign(value)
    return one, other


def is_kernel(path):
    return path.endswith("/kernel")


def test_weight_decay_adds_half_lambda_times_the_squares_of_kernels_alone():
    """0.1 / 2 * sum(w**2) in the loss; 0.1 * w in a kernel's gradient, nothing in others'."""
    plain, decayed = same_twice()
    before, without, logs = one_step(plain, keras.optimizers.SGD(1.0))
    _, with_decay, decay_logs = one_step(decayed, keras.optimizers.SGD(1.0), weight_decay=0.1)
    assert "weight_decay" not in logs
    squares = sum(np.sum(np.square(w, dtype="float64")) for p, w in before.items() if is_kernel(p))
    assert decay_logs["weight_decay"] == pytest.approx(0.1 / 2 * squares, rel=1e-4)
    assert decay_logs["loss"] == pytest.approx(logs["loss"] + 0.1 / 2 * squares, rel=1e-4)
    kinds = set()
    for path, weight in before.items():
        expected = without[path] - (0.1 * weight if is_kernel(path) else 0)
        np.testing.assert_allclose(with_decay[path], expected, atol=2e-5, err_msg=path)
        kinds.add(path.rsplit("/", 1)[-1])
    assert kinds == {"kernel", "bias", "gamma", "beta"}


def test_weight_decay_leaves_ssds_gain_alone():
    from kerasdet.layers import L2Normalization
    from kerasdet.weight_decay import decays

    layer = L2Normalization()
    layer.build((None, 2, 3, 4))
    assert not decays(layer.gain)


def test_an_optimizers_own_decay_is_kept_from_biases_and_scales():
    """AdamW's decay multiplies by 1 - 1e-4 * 500 = 0.95; its first step is 1e-4 at most."""
    before, after, _ = one_step(same_twice()[0], keras.optimizers.AdamW(1e-4, weight_decay=500.0))
    for path, weight in before.items():
        expected = weight * (0.95 if is_kernel(path) else 1)
        np.testing.assert_allclose(after[path], expected, rtol=0, atol=1.01e-4, err_msg=path)
        assert np.abs(0.05 * weight).max() > 3e-4, "a decay would show"


def test_decay_is_kept_from_biases_inside_a_loss_scale_optimizer_too():
    detector = small.plain_ssd()
    decaying = keras.optimizers.AdamW(weight_decay=0.1)
    detector.compile(keras.optimizers.LossScaleOptimizer(decaying))
    moved = {v.path for v in detector.trainable_variables if decaying._use_weight_decay(v)}
    assert moved == {v.path for v in detector.trainable_variables if is_kernel(v.path)}


def test_keras_own_penalties_are_added_to_the_loss():
    detector = small.plain_ssd(backbone=small.backbone(regularizer=keras.regularizers.L2(0.3)))
    before, _, logs = one_step(detector, "sgd")
    convolutions = [w for path, w in before.items() if path.endswith("_conv/kernel")]
    penalty = 0.3 * sum(np.sum(np.square(w)) for w in convolutions)
    assert len(convolutions) == 4
    assert logs["loss"] == pytest.approx(
        logs["localization"] + logs["confidence"] + penalty, rel=1e-4
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_gives_float32_outputs_and_finite_steps(policy):
    keras.config.set_dtype_policy(policy)
    try:
        detector = small.ssd()
    finally:
        keras.config.set_dtype_policy("float32")
    assert detector.get_layer("backbone").get_layer("fine_conv").compute_dtype == policy[6:]
    images, targets = small.four_images()
    assert {str(v.dtype) for v in detector.output.values()} == {"float32"}
    outputs = detector(images)
    assert {keras.backend.standardize_dtype(v.dtype) for v in outputs.values()} == {"float32"}
    detector.compile(keras.optimizers.SGD(1e-3, momentum=0.9), weight_decay=1e-4)
    first = ops.convert_to_numpy(detector.trainable_variables[0])
    # Float16 starts with a loss scale of 32 768 and halves it until gradients are finite.
    history = detector.fit(images, targets, batch_size=4, epochs=5, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]
    assert not np.array_equal(ops.convert_to_numpy(detector.trainable_variables[0]), first)
    assert {str(v.dtype) for v in detector.trainable_variables} == {"float32"}
    assert detector.detect(images[0])[0].boxes.dtype == np.float32


def test_a_model_made_in_half_precision_loads_as_one(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        made = small.plain_ssd()
    finally:
        keras.config.set_dtype_policy("float32")
    made.save(tmp_path / "half.keras")
    revived = keras.saving.load_model(tmp_path / "half.keras")
    assert keras.config.dtype_policy().name == "float32"
    for detector in (made, revived):
        assert detector.precision == "mixed_bfloat16"
        assert detector.get_layer("fine_mbox_loc").compute_dtype == "bfloat16"
        assert {str(v.dtype) for v in detector.trainable_variables} == {"float32"}
    image = small.four_images().images[:1]
    for name, expected in made(image).items():
        np.testing.assert_array_equal(
            ops.convert_to_numpy(revived(image)[name]), ops.convert_to_numpy(expected)
        )


def test_a_model_made_in_float32_stays_it_in_a_half_precision_process():
    config = small.plain_ssd().get_config()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        revived = SSD.from_config(config)
        unsaid = SSD.from_config({k: v for k, v in config.items() if k != "precision"})
    finally:
        keras.config.set_dtype_policy("float32")
    assert revived.get_layer("fine_mbox_loc").compute_dtype == "float32"
    assert unsaid.get_layer("fine_mbox_loc").compute_dtype == "bfloat16", "as saved before"


def test_how_photos_are_resized_travels_with_the_config():
    made = small.plain_ssd(resize="letterbox")
    assert SSD.from_config(made.get_config()).resize == "letterbox"
    made.resize = "warp"
    assert SSD.from_config(made.get_config()).resize == "warp"


def test_a_loss_that_is_not_finite_stops_training_with_batch_term_and_images():
    """Three batches of two images; the NaN is in the second."""
    detector = small.plain_ssd()
    detector.compile("sgd")
    images, targets = (
        np.concatenate([a, a[:2]])
        if isinstance(a, np.ndarray)
        else {k: np.concatenate([v, v[:2]]) for k, v in a.items()}
        for a in small.four_images()
    )
    targets["image_id"] = small.image_ids(["a.jpg", "b.jpg", "c.jpg", "ü/d.jpg", "e.jpg", "f.jpg"])
    images[3, 5, 7, 0] = np.nan
    seen = []
    counting = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    with pytest.raises(TrainingError) as caught:
        detector.fit(images, targets, batch_size=2, shuffle=False, verbose=0, callbacks=counting)
    message = str(caught.value)
    assert "epoch 1, batch 2" in message
    assert "confidence is nan" in message
    assert "c.jpg, ü/d.jpg" in message
    for other in ("a.jpg", "b.jpg", "e.jpg", "f.jpg"):
        assert other not in message
    assert "\n" not in message
    assert seen == [0]


def test_targets_without_image_ids_train_too_and_say_so_when_stopped():
    detector = small.plain_ssd()
    detector.compile("sgd")
    images, targets = small.four_images()
    del targets["image_id"]
    assert np.isfinite(detector.train_on_batch(images, targets, return_dict=True)["loss"])
    images[:] = np.inf
    with pytest.raises(TrainingError, match="images of that batch: not known"):
        detector.fit(images, targets, verbose=0)


def test_evaluate_returns_every_term_and_their_sum_whatever_the_last_batch_holds():
    """Four images in batches of three: 3 and 1."""
    detector = small.plain_ssd()
    detector.compile("sgd", weight_decay=0.01)
    logs = detector.evaluate(*small.four_images(), batch_size=3, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "localization", "confidence", "weight_decay"}
    total = logs["localization"] + logs["confidence"] + logs["weight_decay"]
    assert logs["loss"] == pytest.approx(total, rel=1e-5)
    parts = [
        detector.evaluate(
            small.four_images().images[rows],
            {name: value[rows] for name, value in small.four_images().targets.items()},
            verbose=0,
            return_dict=True,
        )
        for rows in (slice(0, 3), slice(3, 4))
    ]
    assert logs["confidence"] == pytest.approx(
        (3 * parts[0]["confidence"] + parts[1]["confidence"]) / 4, rel=1e-4
    )


def test_compiled_it_loads_back_and_trains_on_with_the_same_decay(tmp_path):
    """SGD with momentum: the third step needs what the optimizer remembers of the first two."""
    images, targets = small.four_images()
    detector = small.ssd()
    detector.compile(keras.optimizers.SGD(1e-3, momentum=0.9), weight_decay=0.02)
    for _ in range(2):
        detector.train_on_batch(images, targets)
    detector.save(tmp_path / "compiled.keras")
    revived = keras.saving.load_model(tmp_path / "compiled.keras")
    assert revived.weight_decay == 0.02
    logs = [each.train_on_batch(images, targets, return_dict=True) for each in (detector, revived)]
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)
    for one, other in zip(detector.variables, revived.variables, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-6, err_msg=one.path
        )


@pytest.mark.skipif(not TENSORFLOW, reason="JAX always compiles its step with XLA")
def test_an_xla_compiled_step_equals_an_uncompiled_one():
    results = []
    for xla in (False, True):
        keras.utils.set_random_seed(2)
        _, after, logs = one_step(small.plain_ssd(), keras.optimizers.SGD(0.01), jit_compile=xla)
        results.append((after, logs))
    (one, one_logs), (other, other_logs) = results
    assert other_logs == pytest.approx(one_logs, rel=1e-4)
    for path, weight in one.items():
        np.testing.assert_allclose(other[path], weight, atol=1e-4, err_msg=path)


MIRRORED = """
import json, os, sys
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests import small

def trained(strategy):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        detector = small.plain_ssd(backbone=small.backbone(regularizer=keras.regularizers.L2(0.3)))
        detector.compile(keras.optimizers.SGD(0.01), weight_decay=0.1)
    images, targets = small.four_images()
    # The two halves hold the same objects, so that both have as many matched boxes.
    images[2:], targets = images[:2] * 0.9, {k: np.concatenate([v[:2], v[:2]]) for k, v in targets.items()}
    logs = detector.fit(images, targets, batch_size=4, epochs=1, shuffle=False, verbose=0).history
    return logs, [v.numpy().ravel() for v in detector.trainable_variables]

one_logs, one = trained(tf.distribute.get_strategy())
two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert two.num_replicas_in_sync == 2
two_logs, other = trained(two)
print(json.dumps({"logs": [one_logs, two_logs],
                  "apart": max(float(abs(a - b).max()) for a, b in zip(one, other)),
                  "moved": float(abs(one[0]).max())}))
"""


@pytest.mark.skipif(not TENSORFLOW, reason="MirroredStrategy is TensorFlow's")
def test_two_replicas_take_the_step_that_one_takes():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    one, two = result["logs"]
    assert two == {name: pytest.approx(value, rel=1e-4) for name, value in one.items()}
    assert set(one) == {"loss", "localization", "confidence", "weight_decay"}
    assert result["apart"] < 1e-5


def test_sample_weights_are_refused_rather_than_ignored():
    detector, batch = small.plain_ssd(), small.four_images()
    detector.compile("sgd")
    with pytest.raises(InputError, match="sample_weight"):
        detector.fit(*batch, sample_weight=np.ones(4), verbose=0)


@pytest.mark.skipif(not TENSORFLOW, reason="the warning is TensorFlow's")
def test_many_thresholds_one_after_another_bring_no_warning(finder, monkeypatch):
    import tensorflow as tf

    said = []
    monkeypatch.setattr(tf.get_logger(), "handle", lambda record: said.append(record.getMessage()))
    for percent in range(10, 90, 10):
        finder.detect(photo(64, 96, (8, 8, 40, 40)), score_threshold=percent / 100)
    assert said == []


def test_an_image_of_sixteen_bits_is_refused_with_its_range():
    with pytest.raises(InputError, match=r"0\.\.40000"):
        small.plain_ssd().detect(np.array([[[0, 9, 40000]]], "uint16"))
