"""Photos at the network's size: darknet's letterbox, where a box goes, and the same inside graphs."""

import keras
import numpy as np
import pytest
from PIL import Image

from kerasdet.images import GREY, RESIZES, letterbox, placement, resized, resized_in_graph

TENSORFLOW = keras.backend.backend() == "tensorflow"


def darknets_letterbox(image, size):
    """letterbox_image and resize_image of darknet's src/image.c, loop by loop; width first."""
    (source_h, source_w), (h, w) = image.shape[:2], size
    if w / source_w < h / source_h:
        new_w, new_h = w, (source_h * w) // source_w
    else:
        new_w, new_h = (source_w * h) // source_h, h
    part = np.zeros((source_h, new_w, 3))
    for r in range(source_h):
        for c in range(new_w):
            if c == new_w - 1 or source_w == 1:
                part[r, c] = image[r, source_w - 1]
                continue
            sx = c * (source_w - 1) / (new_w - 1)
            part[r, c] = (1 - (sx - int(sx))) * image[r, int(sx)] + (sx - int(sx)) * image[
                r, int(sx) + 1
            ]
    resized = np.zeros((new_h, new_w, 3))
    for r in range(new_h):
        sy = r * (source_h - 1) / (new_h - 1)
        resized[r] = (1 - (sy - int(sy))) * part[int(sy)]
        if r < new_h - 1 and source_h > 1:
            resized[r] += (sy - int(sy)) * part[int(sy) + 1]
    boxed = np.full((h, w, 3), 0.5 * 255)
    boxed[(h - new_h) // 2 :, (w - new_w) // 2 :][:new_h, :new_w] = resized
    return boxed


SHAPES = [(5, 7), (41, 13), (20, 30), (64, 96), (1, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(20, 30), (33, 16)])
def test_letterbox_is_darknets_loop(shape, size, rng):
    image = rng.integers(0, 256, (*shape, 3)).astype("uint8")
    np.testing.assert_allclose(letterbox(image, size), darknets_letterbox(image, size), atol=2e-3)


def test_a_wide_photo_by_hand():
    """7 pixels wide, 5 high, into 10x14: twice as large, 14 wide and 10 high, no bars. Into
    20x14: 5 * 14 // 7 = 10 high, (20 - 10) // 2 = 5 rows of grey above."""
    assert placement((5, 7), (10, 14), "letterbox")[:4] == (0, 0, 10, 14)
    place = placement((5, 7), (20, 14), "letterbox")
    assert place == (5, 0, 10, 14, 5, 7)
    assert place.scale == (2, 2, 2, 2)
    assert place.offset == (0, 5, 0, 5)
    image = np.full((5, 7, 3), 200.0)
    found = letterbox(image, (20, 14))
    assert (found[:5] == GREY).all()
    assert (found[15:] == GREY).all()
    np.testing.assert_allclose(found[5:15], 200)


def test_sides_are_cut_to_whole_pixels_and_never_none():
    """480x640 into 416: 480 * 416 // 640 = 312. 375x500: 312. 333x500: 277 (277.06).
    1000 wide and 1 high into 416: 0.416 pixels high, and so 1."""
    assert placement((480, 640), (416, 416), "letterbox")[:4] == (52, 0, 312, 416)
    assert placement((333, 500), (416, 416), "letterbox")[:4] == (69, 0, 277, 416)
    assert placement((1, 1000), (416, 416), "letterbox")[:4] == (207, 0, 1, 416)
    assert letterbox(np.full((1, 1000, 3), 7.0), (32, 32))[15, 3].tolist() == [7, 7, 7]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_smooth_letterbox_is_pillows_bilinear(shape, rng):
    """Pillow rounds to whole numbers after each of its two passes."""
    image = rng.integers(0, 256, (*shape, 3)).astype("uint8")
    place = placement(shape, (33, 16), "letterbox_smooth")
    small = Image.fromarray(image).resize((place.width, place.height), Image.Resampling.BILINEAR)
    expected = np.full((33, 16, 3), GREY)
    expected[place.top :, place.left :][: place.height, : place.width] = np.asarray(small)
    np.testing.assert_allclose(letterbox(image, (33, 16), smooth=True), expected, atol=1.01)


def test_the_smooth_letterboxs_place_has_one_rounded_scale():
    # 773 * (416 / 773) is 415.99999999999994.
    assert placement((512, 773), (416, 416), "letterbox_smooth")[:4] == (70, 0, 275, 415)
    assert placement((512, 773), (416, 416), "letterbox")[:4] == (70, 0, 275, 416)


def test_a_smooth_letterbox_by_hand():
    """4 pixels to 2: triangles of 2 pixels about 1 and 3, weights .25 .75 .75 .25; at the edges
    the first has nothing to its left: (.75 a + .75 b + .25 c) / 1.75."""
    image = np.repeat(np.array([[[8.0], [24], [56], [120]]] * 4), 3, axis=2)
    found = letterbox(image, (2, 2), smooth=True)[0, :, 0]
    expected = [
        (0.75 * 8 + 0.75 * 24 + 0.25 * 56) / 1.75,
        (0.25 * 24 + 0.75 * 56 + 0.75 * 120) / 1.75,
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(letterbox(image, (2, 2))[0, :, 0], [8, 120])  # darknet: the corners


def test_a_warped_photo_fills_the_input():
    place = placement((5, 7), (20, 14))
    assert place == (0, 0, 20, 14, 5, 7)
    assert place.scale == (2, 4, 2, 4)
    assert place.offset == (0, 0, 0, 0)


@pytest.mark.skipif(not TENSORFLOW, reason="TensorFlow's graphs")
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_graph_gives_the_same_pixels(resize, shape, rng):
    import tensorflow as tf

    images = rng.integers(0, 256, (2, *shape, 3)).astype("uint8")
    signature = [tf.TensorSpec((None, None, None, 3), tf.uint8)]
    graph = tf.function(
        lambda batch: resized_in_graph(batch, (33, 16), resize), signature, autograph=False
    )
    found = graph(images).numpy()
    for image, of_graph in zip(images, found, strict=True):
        np.testing.assert_allclose(of_graph, resized(image, (33, 16), resize), atol=2e-3)
    one = resized_in_graph(images[0], (33, 16), resize)
    np.testing.assert_allclose(one, found[0], atol=1e-3)


def test_a_box_goes_to_the_input_and_back():
    """A box painted on a letterboxed photo lies where scale and offset say."""
    image = np.zeros((30, 60, 3), "uint8")
    image[10:20, 20:50] = 255
    place = placement((30, 60), (96, 96), "letterbox")
    box = np.array([20, 10, 50, 20]) * np.array(place.scale) + np.array(place.offset)
    assert box.tolist() == [32, 40, 80, 56]  # 96 / 60 = 1.6; (96 - 48) / 2 = 24
    inside = letterbox(image, (96, 96))[..., 0] > 128
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(edges, box, atol=1)
    back = (box - np.array(place.offset)) / np.array(place.scale)
    np.testing.assert_allclose(back, [20, 10, 50, 20])
