"""darknet's augmentation and letterbox, held against painted pixels, colorsys and TensorFlow's resize."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from kerasdet import images
from kerasdet.data import augment, augment_yolo
from kerasdet.errors import InputError

SOURCE = (50, 70)  # height, width
NETWORK = (96, 128)
SAME_COLOURS = {"hue": 0.0, "saturation": 1.0, "exposure": 1.0}
STILL = {**SAME_COLOURS, "jitter": 0.0, "flip_probability": 0.0}
FUNCTIONS = {"yolo_v1": augment_yolo.yolo_v1, "yolo_v2": augment_yolo.yolo_v2}


def example(image, boxes, labels):
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(np.reshape(boxes, (-1, 4)), tf.float32),
        "labels": tf.constant(labels, tf.int32),
    }


def painted(box, size=SOURCE):
    """A black image with the box (whole pixels) painted white, as an example."""
    x1, y1, x2, y2 = box
    image = np.zeros((*size, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    return example(image, [box], [2])


def noise(rng, size=SOURCE):
    return rng.integers(0, 256, (*size, 3), np.uint8)


def many(name, of, count, *, image_size=NETWORK, **options):
    """The results for seeds 0..count-1, made inside tf.data."""

    def one(number):
        seed = tf.stack([tf.constant(7, tf.int64), number])
        return FUNCTIONS[name](of, image_size, seed, **options)

    return list(tf.data.Dataset.range(count).map(one).as_numpy_iterator())


def extent_of_paint(image):
    """xyxy of the pixels brighter than the grey canvas."""
    ys, xs = np.nonzero(image[..., 0] > 128)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_box_follows_its_painted_pixels(name):
    seen = clipped = 0
    for image, boxes, labels in many(name, painted((31, 5, 66, 28)), 150, **SAME_COLOURS):
        if len(boxes):
            assert labels.tolist() == [2]
            # Half a pixel where the paint's own edge is, which is counted in whole ones.
            np.testing.assert_allclose(boxes, [extent_of_paint(image)], atol=0.51)
            clipped += bool((boxes[0, 2:] == NETWORK[::-1]).any() or (boxes[0, :2] == 0).any())
            seen += 1
    assert seen > 140
    assert clipped > 10


def test_yolo_is_the_resize_of_the_cut_or_grown_image(rng):
    of = example(noise(rng), [[20, 20, 40, 30]], [0])
    moved = set()
    for image, boxes, _ in many("yolo_v1", of, 60, **{**STILL, "jitter": 0.3}):
        scale = (boxes[0, 2:] - boxes[0, :2]) / [20, 10]  # x, y
        left, top = np.round(20 - boxes[0, :2] / scale).astype(int)
        width, height = np.round(NETWORK[::-1] / scale).astype(int)
        right, bottom = left + width, top + height
        assert max(abs(left), abs(70 - right)) <= 21  # 0.3 * 70
        assert max(abs(top), abs(50 - bottom)) <= 15
        grown = np.pad(of["image"], ((25, 25), (25, 25), (0, 0)), mode="edge")
        window = grown[top + 25 : bottom + 25, left + 25 : right + 25]
        np.testing.assert_allclose(image, tf.image.resize(window, NETWORK), atol=0.02)
        moved |= {left, 70 - right, top, 50 - bottom}
    assert min(moved) < -12
    assert max(moved) > 12


def test_yolo_without_jitter_is_the_warp(rng):
    of = example(noise(rng), [[7, 10, 35, 50], [0, 0, 70, 50]], [1, 2])
    ((image, boxes, labels),) = many("yolo_v1", of, 1, **STILL)
    straight = augment.warp(of, NETWORK)
    np.testing.assert_allclose(image, straight.image, atol=1e-3)
    np.testing.assert_allclose(boxes, straight.boxes, rtol=1e-6)
    assert labels.tolist() == [1, 2]


@pytest.mark.parametrize("scale", [0.25, 1.0, 2.0])
def test_yolo_v2_is_the_resized_image_somewhere_on_grey(rng, scale):
    of = example(noise(rng), [[0, 0, 70, 50]], [1])
    side = 112
    options = {**STILL, "scale": (scale, scale)}
    width = int(side * scale)
    height = int(np.float32(side * scale) / np.float32(70 / 50))  # 70/50 is wider than the canvas
    resized = np.asarray(tf.image.resize(of["image"], (height, width)))
    places = set()
    for image, boxes, _ in many("yolo_v2", of, 20, image_size=(side, side), **options):
        x1, y1, x2, y2 = np.round(boxes[0]).astype(int)
        np.testing.assert_allclose(boxes, [[x1, y1, x2, y2]], atol=1e-4)
        assert x2 - x1 == min(width, side)
        assert y2 - y1 == min(height, side)
        hidden = [
            (left, top)
            for left in range(width - (x2 - x1) + 1)
            for top in range(height - (y2 - y1) + 1)
            if np.allclose(image[y1 + 9, x1:x2], resized[top + 9, left : left + x2 - x1], atol=0.02)
        ]
        assert len(hidden) == 1
        left, top = hidden[0]
        shown = resized[top : top + y2 - y1, left : left + x2 - x1]
        np.testing.assert_allclose(image[y1:y2, x1:x2], shown, atol=0.02)
        around = np.ones((side, side), bool)
        around[y1:y2, x1:x2] = False
        assert (image[around] == 127.5).all()
        places.add((x1 - left, y1 - top))
    assert len(places) > 10


def test_aspect_of_yolo_v2_changes_by_the_jitter_of_both_sides():
    white = example(np.full((60, 60, 3), 255, np.uint8), [[0, 0, 60, 60]], [0])
    options = {**STILL, "jitter": 0.3, "scale": (1.0, 1.0)}
    sides = [boxes[0, 2:] - boxes[0, :2] for _, boxes, _ in many("yolo_v2", white, 200, **options)]
    # On a canvas of 128x96: the wider of the ratios fill the width, the others the height.
    aspects = np.array([width / height for width, height in sides])
    assert aspects.min() > 0.7 / 1.3 - 0.02
    assert aspects.max() < 1.3 / 0.7 + 0.03
    assert np.quantile(aspects, 0.05) < 0.75
    assert np.quantile(aspects, 0.95) > 1.33


@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_of_the_images_are_mirrored(name, rng):
    of = example(noise(rng), [[7, 10, 35, 50]], [1])
    options = {**SAME_COLOURS, "jitter": 0.1}
    straight = many(name, of, 120, flip_probability=0.0, **options)
    mirrored = 0
    for one, other in zip(straight, many(name, of, 120, **options), strict=True):
        if np.array_equal(one.image, other.image):
            np.testing.assert_array_equal(one.boxes, other.boxes)
        else:
            np.testing.assert_array_equal(one.image[:, ::-1], other.image)
            x1, y1, x2, y2 = one.boxes.T
            np.testing.assert_allclose(
                other.boxes, np.stack([128 - x2, y1, 128 - x1, y2], 1), atol=1e-4
            )
            mirrored += 1
    assert 38 < mirrored < 82  # 60, four standard deviations of 5.5


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_size_that_is_a_tensor_gives_the_same(name, rng):
    of = example(noise(rng), [[7, 10, 35, 50]], [1])
    for one, other in zip(
        many(name, of, 8), many(name, of, 8, image_size=tf.constant(NETWORK)), strict=True
    ):
        np.testing.assert_allclose(one.image, other.image, atol=1e-3)
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_slivers_are_dropped_by_each_networks_own_rule():
    # 0.3 source pixels are 0.55 of 128: above 0.001 of it (0.13), below 0.005 (0.64).
    of = example(np.zeros((*SOURCE, 3), np.uint8), [[10, 5, 10.3, 40], [3, 3, 9, 9]], [0, 1])
    ((_, _, labels),) = many("yolo_v1", of, 1, **STILL)
    assert labels.tolist() == [1]
    ((_, _, labels),) = many("yolo_v2", of, 1, scale=(1.0, 1.0), **STILL)
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_image_without_objects_stays_without(name):
    for image, boxes, labels in many(name, example(np.zeros((3, 1, 3), np.uint8), [], []), 10):
        assert image.shape == (*NETWORK, 3)
        assert np.isfinite(image).all()
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)


def test_jitter_beyond_the_image_is_refused():
    of = painted((31, 5, 66, 28))
    for name, jitter in (("yolo_v1", 0.5), ("yolo_v2", 1.0), ("yolo_v2", -0.1)):
        with pytest.raises(InputError, match="jitter lies from 0 to below"):
            FUNCTIONS[name](of, NETWORK, (0, 1), jitter=jitter)


def recoloured(pixel, hue, saturation, exposure):
    """darknet's distort_image on one pixel, 0..255."""
    h, s, v = colorsys.rgb_to_hsv(*(np.array(pixel) / 255.0))
    rgb = colorsys.hsv_to_rgb((h + hue) % 1.0, s * saturation, v * exposure)
    return np.clip(np.array(rgb) * 255.0, 0.0, 255.0)


@pytest.mark.parametrize(
    "change", [(0.0, 1.0, 1.0), (0.08, 1.4, 0.8), (-0.1, 0.7, 1.5), (0.5, 1.5, 1.5), (-0.02, 1, 1)]
)
def test_colours_change_as_colorsys_says(rng, change):
    image = rng.integers(0, 256, (9, 13, 3)).astype(np.float32)
    image[0, :3] = [[0, 0, 0], [255, 255, 255], [80, 80, 80]]
    expected = [[recoloured(pixel, *change) for pixel in row] for row in image]
    result = augment_yolo.recolour(tf.constant(image), augment_yolo.Recolouring(*change))
    np.testing.assert_allclose(result, expected, atol=0.02)


def test_factors_are_drawn_up_to_the_greatest_and_its_inverse():
    for greatest in (1.5, 0.75):  # darknet writes it both ways
        chances = np.random.default_rng(0).uniform(size=(400, 5)).astype(np.float32)
        drawn = np.array(
            [augment_yolo.draw_recolouring(chance, 0.1, greatest, 1.0) for chance in chances]
        )
        ends = sorted((greatest, 1 / greatest))
        assert ends[0] <= drawn[:, 1].min() < ends[0] + 0.02
        assert ends[1] - 0.02 < drawn[:, 1].max() <= ends[1]
        assert 160 < (drawn[:, 1] > 1).sum() < 240  # 200, four standard deviations of 10
        assert (drawn[:, 2] == 1).all()
        assert np.abs(drawn[:, 0]).max() == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize(
    ("source", "network"),
    [((50, 70), (96, 96)), ((70, 50), (96, 96)), ((33, 47), (64, 96)), ((48, 48), (96, 96))],
)
def test_letterbox_is_darknets(rng, source, network):
    image = noise(rng, source)
    of = example(image, [[7, 10, 35, 33]], [1])
    for size in (network, tf.constant(network)):
        result = augment_yolo.letterbox(of, size)
        np.testing.assert_allclose(result.image, images.letterbox(image, network), atol=0.01)
    assert result.labels.numpy().tolist() == [1]


def test_letterbox_by_hand():
    # 96/70 < 96/50, so 96 wide and 50 * 96 // 70 = 68 high, from row (96 - 68) // 2 = 14 on.
    image, boxes, _ = augment_yolo.letterbox(painted((0, 0, 70, 50)), (96, 96))
    assert (image[14:82].numpy() == 255).all()
    assert (image[:14].numpy() == 127.5).all()
    assert (image[82:].numpy() == 127.5).all()
    np.testing.assert_allclose(boxes, [[0, 14, 96, 82]], rtol=1e-6)


def test_box_in_the_letterbox_is_where_its_paint_is():
    image, boxes, _ = augment_yolo.letterbox(painted((31, 5, 66, 28)), NETWORK)
    # darknet's sampling spreads the corner pixels' centres: up to 0.9 pixel from the areas here.
    np.testing.assert_allclose(boxes, [extent_of_paint(image)], atol=1.0)
