"""Augmentation, held against painted pixels and against slow loops written from the Caffe release."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from kerasdet.data import augment

SOURCE = (50, 70)  # height, width
NETWORK = (90, 120)
BLACK = (0.0, 0.0, 0.0)
STILL = {"expand_probability": 0.0, "min_ious": (), "flip_probability": 0.0}
PLAIN = {**STILL, "distort_probability": 0.0}


def painted(box, size=SOURCE):
    """A black image with the box (whole pixels) painted white, as an example."""
    x1, y1, x2, y2 = box
    image = np.zeros((*size, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    return example(image, [box], [2])


def example(image, boxes, labels):
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(np.reshape(boxes, (-1, 4)), tf.float32),
        "labels": tf.constant(labels, tf.int32),
    }


def seed_of(number):
    return tf.stack([tf.constant(7, tf.int64), tf.cast(number, tf.int64)])


def many(of, count, **options):
    """The results of `augment.ssd` for seeds 0..count-1, made inside tf.data."""

    def one(number):
        return augment.ssd(of, NETWORK, seed_of(number), fill=BLACK, **options)

    return list(tf.data.Dataset.range(count).map(one).as_numpy_iterator())


def extent_of_paint(image):
    """xyxy of the pixels brighter than half."""
    ys, xs = np.nonzero(image[..., 0] > 127.5)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"expand_probability": 1.0},
        {"min_ious": (0.1, 0.5, 0.0)},
        {"flip_probability": 1.0},
        {"expand_probability": 0.5, "min_ious": augment.MIN_IOUS, "flip_probability": 0.5},
    ],
    ids=["nothing", "expand", "crop", "flip", "all"],
)
def test_box_follows_its_painted_pixels(part):
    seen = 0
    for image, boxes, labels in many(painted((31, 5, 66, 28)), 150, **{**PLAIN, **part}):
        if len(boxes):  # half a pixel: the paint is counted in whole ones
            np.testing.assert_allclose(boxes, [extent_of_paint(image)], atol=0.51)
            assert labels.tolist() == [2]
            seen += 1
    assert seen > 110


def test_alone_and_inside_tf_data_the_same_comes_out():
    of = painted((3, 5, 40, 48))
    inside = many(of, 3)
    for number in range(3):
        alone = augment.ssd(of, NETWORK, seed_of(number), fill=BLACK)
        np.testing.assert_allclose(alone.image, inside[number].image, atol=1e-3)
        np.testing.assert_array_equal(alone.boxes, inside[number].boxes)


def test_each_seed_draws_its_own_numbers():
    boxes = [tuple(result.boxes.ravel()) for result in many(painted((3, 5, 40, 48)), 40)]
    assert len(set(boxes)) > 30


def test_distortion_moves_no_box(rng):
    of = example(rng.integers(0, 256, (*SOURCE, 3), np.uint8), [[3, 5, 40, 48]], [1])
    moved = 0
    for one, other in zip(many(of, 20), many(of, 20, distort_probability=0.0), strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        moved += np.abs(one.image - other.image).max() > 1
    assert moved > 12


def test_warp_is_tensorflows_bilinear_resize(rng):
    image = rng.integers(0, 256, (*SOURCE, 3), np.uint8)
    warped = augment.warp(example(image, [[7, 10, 35, 50]], [1]), NETWORK)
    np.testing.assert_array_equal(warped.image, tf.image.resize(image, NETWORK))
    x, y = 120 / 70, 90 / 50
    np.testing.assert_allclose(warped.boxes, [[7 * x, 10 * y, 35 * x, 50 * y]], rtol=1e-6)


def test_flip_is_the_mirrored_warp_half_of_the_time(rng):
    of = example(rng.integers(0, 256, (*SOURCE, 3), np.uint8), [[7, 10, 35, 50]], [1])
    straight = augment.warp(of, NETWORK)
    results = tf.data.Dataset.range(200).map(lambda n: augment.flip(of, NETWORK, seed_of(n)))
    mirrored = 0
    for image, boxes, _ in results.as_numpy_iterator():
        if np.array_equal(image, straight.image):
            np.testing.assert_array_equal(boxes, straight.boxes)
        else:
            np.testing.assert_array_equal(image, np.asarray(straight.image)[:, ::-1])
            np.testing.assert_allclose(boxes, [[120 - 60, 18, 120 - 12, 90]], rtol=1e-5)
            mirrored += 1
    assert 70 < mirrored < 130  # 100, four standard deviations of 7


def test_image_without_objects_is_never_cropped():
    white = example(np.full((*SOURCE, 3), 255, np.uint8), [], [])
    for image, boxes, labels in many(white, 20, **{**PLAIN, "min_ious": augment.MIN_IOUS}):
        assert image.min() == 255
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)


def test_canvas_by_hand():
    canvas = augment.expand(tf.constant(SOURCE), 2.5, tf.constant([0.5, 0.25]))
    assert canvas.size.numpy().tolist() == [125, 175]  # 50 * 2.5, 70 * 2.5
    # floor(0.5 * (125 - 50)) = 37 and floor(0.25 * (175 - 70)) = 26
    assert canvas.origin.numpy().tolist() == [-37, -26]


def test_half_of_the_images_are_expanded_up_to_four_times():
    white = example(np.full((*SOURCE, 3), 255, np.uint8), [], [])
    options = {**PLAIN, "expand_probability": 0.5}
    shares = np.array([(r.image[..., 0] > 0).mean() for r in many(white, 400, **options)])
    assert 160 < (shares < 1).sum() < 240  # 200, four standard deviations of 10
    assert shares.min() > 1 / 4**2 * 0.9
    assert np.median(shares[shares < 1]) == pytest.approx(1 / 2.5**2, rel=0.25)


def test_outside_the_image_is_fill_whatever_the_distortion():
    white = example(np.full((*SOURCE, 3), 255, np.uint8), [], [])
    fill = (1.0, 2.0, 3.0)
    window = augment.Window(tf.constant([-50, -70]), tf.constant([150, 280]))
    darker = augment.Distortion(-30.0, 0.8, 1.4, 9.0, True)
    image = augment.cut(
        white, NETWORK, window, distortion=tf.nest.map_structure(tf.constant, darker), fill=fill
    ).image.numpy()
    # One third of 90 rows and one quarter of 120 columns are image: 30..60 and 30..60.
    inside = np.zeros(NETWORK, bool)
    inside[30:60, 30:60] = True
    np.testing.assert_array_equal(image[~inside], np.broadcast_to(fill, ((~inside).sum(), 3)))
    np.testing.assert_allclose(image[inside], (255 - 30) * 0.8, rtol=1e-5)


@pytest.mark.parametrize("origin", [(-60, 0), (0, -90), (60, 80), (50, 0), (0, 70)])
def test_window_beside_the_image_shows_fill_only(origin):
    window = augment.Window(tf.constant(origin), tf.constant([40, 60]))
    image, boxes, labels = augment.cut(
        painted((0, 0, 70, 50)), NETWORK, window, fill=(1.0, 2.0, 3.0)
    )
    np.testing.assert_array_equal(image, np.broadcast_to([1.0, 2.0, 3.0], (*NETWORK, 3)))
    assert len(boxes) == len(labels) == 0


def test_window_one_pixel_wide_works():
    window = augment.Window(tf.constant([49, 69]), tf.constant([1, 1]))
    image, boxes, _ = augment.cut(painted((60, 40, 70, 50)), NETWORK, window)
    assert image.numpy().min() == 255
    assert len(boxes) == 0  # the centre, (65, 45), is not in it


def test_object_stays_when_its_centre_is_in_the_window(rng):
    corners = np.sort(rng.uniform(0, 1, (40, 2, 2)), axis=1) * [70, 50]
    boxes = corners.reshape(40, 4).astype(np.float32)
    image = np.zeros((*SOURCE, 3), np.uint8)
    for left, top, width, height in [(10, 5, 31, 40), (-20, 13, 60, 30), (0, 0, 70, 50)]:
        window = augment.Window(tf.constant([top, left]), tf.constant([height, width]))
        found = augment.cut(example(image, boxes, range(40)), (height * 2, width * 3), window)
        expected = []
        for label, (x1, y1, x2, y2) in enumerate(boxes):
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            if left <= x <= left + width and top <= y <= top + height:
                clipped = [
                    (min(max(x1, left), left + width) - left) * 3,
                    (min(max(y1, top), top + height) - top) * 2,
                    (min(max(x2, left), left + width) - left) * 3,
                    (min(max(y2, top), top + height) - top) * 2,
                ]
                expected.append([label, *clipped])
        assert 3 < len(expected)
        np.testing.assert_allclose(
            np.column_stack([found.labels, found.boxes]), expected, atol=1e-3
        )


def iou(one, other):
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return across * down / (sum(areas) - across * down)


def slow_crop(boxes, size, trials, pick, min_ious):
    """SSD's batch samplers as sampler.cpp has them, one trial at a time; yxyx in source pixels."""
    height, width = size
    candidates = [(0.0, 0.0, 1.0, 1.0)]
    for least, sampler in zip(min_ious, trials, strict=True):
        for at_scale, at_aspect, at_y, at_x in sampler:
            scale, aspect = 0.3 + 0.7 * at_scale, 0.5 + 1.5 * at_aspect
            aspect = min(max(aspect, scale**2), 1 / scale**2)
            w, h = scale * aspect**0.5, scale / aspect**0.5
            x, y = at_x * (1 - w), at_y * (1 - h)
            window = (x * width, y * height, (x + w) * width, (y + h) * height)
            if any(iou(window, box) >= least for box in boxes):
                candidates.append((x, y, x + w, y + h))
                break
    x1, y1, x2, y2 = candidates[int(pick * len(candidates))]
    return [y1 * height, x1 * width, (y2 - y1) * height, (x2 - x1) * width]


def test_crop_is_what_the_slow_loop_picks(rng):
    crop = tf.function(augment.crop, reduce_retracing=True)
    seen = set()
    for _ in range(60):
        corners = np.sort(rng.uniform(0, 1, (rng.integers(0, 4), 2, 2)), axis=1) * [700, 500]
        boxes = corners.reshape(-1, 4).astype(np.float32)
        trials = rng.uniform(0, 1, (6, 50, 4)).astype(np.float32)
        pick = np.float32(rng.uniform())
        canvas = augment.Window(tf.constant([0, 0]), tf.constant([500, 700]))
        window = crop(tf.constant(boxes), canvas, tf.constant(trials), tf.constant(pick))
        expected = slow_crop(boxes, (500, 700), trials, pick, augment.MIN_IOUS)
        np.testing.assert_allclose(np.concatenate(window), expected, atol=1.01)  # whole pixels
        seen.add(tuple(np.concatenate(window)))
    assert len(seen) > 30


@pytest.mark.parametrize("least", [0.3, 0.7])
def test_crop_overlaps_an_object_by_what_its_sampler_asks(least):
    box, found = [100.0, 50.0, 600.0, 350.0], 0
    canvas = augment.Window(tf.constant([-80, -40]), tf.constant([500, 700]))

    def one(number):
        drawn = tf.random.stateless_uniform((201,), seed_of(number))
        trials = tf.reshape(drawn[1:], (1, 50, 4))
        return augment.crop(tf.constant([box]), canvas, trials, drawn[0], (least,))

    for (top, left), (height, width) in tf.data.Dataset.range(100).map(one).as_numpy_iterator():
        assert top >= -80
        assert left >= -40
        assert top + height <= 420
        assert left + width <= 660
        if (height, width) != (500, 700):
            found += 1
            assert iou([left, top, left + width, top + height], box) > least - 0.01
    assert 30 < found < 70  # half: the whole canvas is the other choice


def test_every_sampler_that_succeeded_is_as_likely_as_the_whole_image():
    # The object fills the image, so a crop's IoU is its own share of the area: 0.1 and 0 are met
    # at once, 2 never, and one result in three is the whole image.
    canvas = augment.Window(tf.constant([0, 0]), tf.constant([500, 700]))

    def whole(number):
        drawn = tf.random.stateless_uniform((601,), seed_of(number))
        trials = tf.reshape(drawn[1:], (3, 50, 4))
        everything = tf.constant([[0.0, 0.0, 700.0, 500.0]])
        window = augment.crop(everything, canvas, trials, drawn[0], (0.1, 0.0, 2.0))
        return tf.reduce_all(window.size == canvas.size)

    share = np.mean(list(tf.data.Dataset.range(900).map(whole).as_numpy_iterator()))
    assert share == pytest.approx(1 / 3, abs=4 * 0.0157)  # four standard deviations


def slow_distort(image, brightness, contrast, saturation, hue, contrast_last):
    """im_transforms.cpp one pixel at a time, without the rounding to bytes."""

    def byte(x):
        return min(max(x, 0.0), 255.0)

    def colour(pixel):
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in pixel))
        h = max(h * 180 + hue, 0.0) % 180  # a byte: not below 0; 180 is a full turn
        return [c * 255 for c in colorsys.hsv_to_rgb(h / 180, min(s * saturation, 1.0), v)]

    out = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        pixel = [byte(c + brightness) for c in image[place]]
        if not contrast_last:
            pixel = [byte(c * contrast) for c in pixel]
        pixel = colour(pixel)
        if contrast_last:
            pixel = [byte(c * contrast) for c in pixel]
        out[place] = pixel
    return out


@pytest.mark.parametrize(
    "change",
    [
        (20.0, 1.0, 1.0, 0.0, False),
        (-32.0, 1.5, 1.0, 0.0, True),
        (0.0, 0.5, 1.0, 0.0, False),
        (0.0, 1.0, 1.5, 0.0, False),
        (0.0, 1.0, 0.5, 0.0, True),
        (0.0, 1.0, 1.0, 18.0, False),
        (0.0, 1.0, 1.0, -18.0, False),
        (32.0, 1.5, 1.4, 11.0, False),
        (32.0, 1.5, 1.4, -7.0, True),
        (-25.0, 0.6, 0.7, 3.0, True),
    ],
)
def test_distortion_is_the_slow_loops(change, rng):
    image = rng.uniform(0, 255, (7, 5, 3)).astype(np.float32)
    image[0, 0], image[0, 1], image[0, 2] = 0, 255, 90  # grey has no hue
    image[1, 0], image[1, 1], image[1, 2] = (200, 40, 40), (40, 200, 200), (200, 40, 41)
    distortion = augment.Distortion(*(tf.constant(number) for number in change))
    distorted = augment.distort(tf.constant(image), distortion)
    np.testing.assert_allclose(distorted, slow_distort(image, *change), atol=0.01)


def test_no_change_changes_nothing(rng):
    image = rng.uniform(0, 255, (7, 5, 3)).astype(np.float32)
    nothing = augment.Distortion(*(tf.constant(n) for n in (0.0, 1.0, 1.0, 0.0, True)))
    np.testing.assert_array_equal(augment.distort(tf.constant(image), nothing), image)


def test_distortion_is_drawn_in_the_released_ranges():
    fires, rests = [0.49] * 4, [0.51] * 4
    low = augment.draw_distortion(tf.constant(fires + [0.0] * 4), 0.4)
    assert [float(n) for n in low] == [-32, 0.5, 0.5, -18, True]
    high = augment.draw_distortion(tf.constant(fires + [1.0] * 4), 0.6)
    assert [float(n) for n in high] == [32, 1.5, 1.5, 18, False]
    none = augment.draw_distortion(tf.constant(rests + [1.0] * 4), 0.6)
    assert [float(n) for n in none] == [0, 1, 1, 0, False]
