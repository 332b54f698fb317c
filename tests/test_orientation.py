"""Which way up photos are read: against Pillow, in Python and in graphs, whole and damaged."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from kerasdet.images import decoded_in_graph, read_image
from kerasdet.orientation import exif_orientation, size_of, turn_of, turned, upright_in_graph
from tests.oriented_files import HEADERS, jpeg, segment, tiff

tf = pytest.importorskip("tensorflow", reason="decoding in graphs wants TensorFlow")


@pytest.fixture(scope="module")
def pixels():
    """7 pixels wide and 5 high, no two of its sides, corners or colours alike."""
    return np.random.default_rng(3).integers(0, 256, (5, 7, 3)).astype("uint8")


@pytest.fixture(scope="module")
def in_graph():
    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def decode(data):
        return decoded_in_graph(data)

    return lambda data: decode(tf.constant(data)).numpy()


def opened(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", HEADERS)
@pytest.mark.parametrize("before", [b"", b"\xe0", b"\xe0\xed\xe2"])
def test_a_photo_lies_as_pillow_turns_it(pixels, in_graph, orientation, order, before):
    data = jpeg(pixels, tiff(orientation, order), before=before)
    expected = np.asarray(ImageOps.exif_transpose(opened(data)))
    assert expected.shape == ((5, 7, 3) if orientation < 5 else (7, 5, 3))
    np.testing.assert_array_equal(read_image(opened(data)), expected)
    np.testing.assert_array_equal(in_graph(data), expected)
    assert size_of(opened(data)) == expected.shape[:2]


DAMAGED = {
    "no orientation": [tiff(0), tiff(9), tiff(0x0600), tiff(0, "big"), tiff(9, "big")],
    "another type or count": [tiff(6, kind=4), tiff(6, kind=1), tiff(6, count=0), tiff(6, count=2)],
    "cut off": [tiff(6, order)[:end] for order in HEADERS for end in (0, 2, 4, 7, 9, 11, 30, 31)],
    "a far offset": [
        HEADERS[order] + far.to_bytes(4, order) + tiff(6, order)[8:]
        for order in HEADERS
        for far in (2**32 - 1, 2**31, 2**31 - 1, 46, 40, 0)
    ],
    "no entries": [tiff(6)[:8] + b"\0\0" + tiff(6)[10:], tiff(6)[:8] + b"\1\0" + tiff(6)[10:]],
    "another header": [b"XX*\0" + tiff(6)[4:], b"II\0*" + tiff(6)[4:], b"MM\0*" + tiff(6)[4:]],
}


@pytest.mark.filterwarnings("ignore:.*(orrupt EXIF data|larger than file)")  # Pillow's own
@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_exif_is_none_and_no_error(pixels, in_graph, kind):
    expected = in_graph(jpeg(pixels))
    np.testing.assert_array_equal(read_image(opened(jpeg(pixels))), expected)
    for exif in DAMAGED[kind]:
        data = jpeg(pixels, exif)
        np.testing.assert_array_equal(in_graph(data), expected, err_msg=str(exif))
        assert turn_of(opened(data)) == 1, exif


@pytest.mark.filterwarnings("ignore:.*orrupt EXIF data")
def test_more_entries_than_there_are_bytes_is_read_as_far_as_it_goes(pixels, in_graph):
    exif = tiff(6)[:8] + b"\xff\xff" + tiff(6)[10:]
    assert turn_of(opened(jpeg(pixels, exif))) == 6
    assert in_graph(jpeg(pixels, exif)).shape == (7, 5, 3)


def test_python_and_the_graph_read_spoilt_bytes_alike(rng):
    image = np.arange(2 * 3 * 3).reshape(2, 3, 3)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def upright(data):
        return upright_in_graph(tf.constant(image), data, tf.constant(False))

    seen = set()
    for number in range(600):
        exif = bytearray(tiff(int(rng.integers(1, 9)), ("little", "big")[number % 2]))
        for place in rng.integers(0, len(exif), rng.integers(0, 3)):
            exif[place] = rng.choice([0, 1, 2, 8, 255])
        exif = bytes(exif[: rng.integers(8, 2 * len(exif))])
        orientation = exif_orientation(exif)
        data = b"\xff\xd8" + segment(0xE1, b"Exif\0\0" + exif) + b"\xff\xdb"
        found = upright(tf.constant(data))
        np.testing.assert_array_equal(found, turned(image, orientation), err_msg=exif.hex())
        seen.add(orientation)
    assert seen == set(range(1, 9))


def test_the_exif_of_another_image_behind_the_pixels_is_not_the_photos(pixels, in_graph):
    data = jpeg(pixels) + jpeg(pixels, tiff(6), before=b"")
    np.testing.assert_array_equal(in_graph(data), in_graph(jpeg(pixels)))
    np.testing.assert_array_equal(read_image(opened(data)), in_graph(data))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_other_formats_have_exif_too(pixels, in_graph, form):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, lossless=True, exif=b"Exif\0\0" + tiff(6))
    expected = np.rot90(pixels, -1)  # clockwise
    np.testing.assert_array_equal(read_image(opened(file.getvalue())), expected)
    if form == "PNG":
        np.testing.assert_array_equal(in_graph(file.getvalue()), expected)


def test_a_pngs_exif_behind_its_pixels_counts_nowhere(pixels, in_graph):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=tiff(6))
    data = file.getvalue()
    begin, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    moved = data[:begin] + data[end:-12] + data[begin:end] + data[-12:]
    np.testing.assert_array_equal(read_image(opened(moved)), pixels)
    np.testing.assert_array_equal(in_graph(moved), pixels)


def test_grey_of_sixteen_bits_is_turned(tmp_path, rng):
    grey = rng.integers(0, 256, (5, 7)).astype("uint16")
    Image.fromarray(grey * 256).save(tmp_path / "grey.png", exif=tiff(8))
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[..., 1], np.rot90(grey))


def test_what_pillow_has_turned_is_not_turned_again(pixels):
    once = ImageOps.exif_transpose(opened(jpeg(pixels, tiff(6))))
    np.testing.assert_array_equal(read_image(once), np.asarray(once))


def test_an_array_is_as_it_is(pixels):
    np.testing.assert_array_equal(read_image(pixels, annotated=(7, 5)), pixels)


@pytest.mark.parametrize(
    ("orientation", "annotated", "turn"),
    [
        (6, (5, 7), 1),  # made on the pixels as stored
        (6, (7, 5), 6),
        (6, (50, 70), 6),  # of neither size
        (6, None, 6),
        (3, (5, 7), 3),  # which keeps the size
        (1, (5, 7), 1),
    ],
)
def test_the_annotated_size_tells_on_which_pixels(pixels, orientation, annotated, turn):
    data = jpeg(pixels, tiff(orientation))
    assert turn_of(opened(data), annotated) == turn
    expected = read_image(opened(jpeg(pixels, tiff(turn))))
    np.testing.assert_array_equal(read_image(opened(data), annotated=annotated), expected)
    given = tf.constant(annotated or (0, 0))
    np.testing.assert_array_equal(decoded_in_graph(tf.constant(data), given), expected)


def test_a_square_photo_is_turned_whatever_is_annotated(pixels):
    data = jpeg(pixels[:, :5], tiff(6))
    expected = np.rot90(read_image(opened(jpeg(pixels[:, :5]))), -1)
    np.testing.assert_array_equal(read_image(opened(data), annotated=(5, 5)), expected)
    given = tf.constant((5, 5))
    np.testing.assert_array_equal(decoded_in_graph(tf.constant(data), given), expected)
