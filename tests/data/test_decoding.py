import io
import logging
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasdet.data import decoding
from kerasdet.data import example as ex
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError
from kerasdet.images import read_image
from tests.data.annotation_files import elements, paint


def encoded(pixels, mode=None, **options):
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, **options)
    return file.getvalue()


def gradient():
    ys, xs = np.mgrid[:35, :49]  # 7x5, seven times
    return np.stack([5 * xs, 7 * ys, 255 - 2 * xs - 2 * ys], axis=2).astype(np.uint8)


def test_a_jpeg_has_pillows_pixels_exactly():
    data = encoded(gradient(), format="JPEG", quality=80, subsampling=2)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image)
    np.testing.assert_array_equal(decoding.decode_image(tf.constant(data)), expected)


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP", "TIFF"])
def test_lossless_formats_give_the_pixels_that_were_saved(form):
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(gradient(), format=form, **options)
    np.testing.assert_array_equal(decoding.decode_image(tf.constant(data)), gradient())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_grey_becomes_three_equal_channels(form):
    grey = np.repeat(np.arange(35, dtype=np.uint8)[:, None] * 7, 49, axis=1)
    image = decoding.decode_image(tf.constant(encoded(grey, format=form, **{}))).numpy()
    assert image.shape == (35, 49, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    np.testing.assert_allclose(image[..., 1], grey, atol=2)  # JPEG rounds


def test_cmyk_jpeg_becomes_rgb():
    data = encoded(gradient(), "CMYK", format="JPEG", quality=95)
    # JPEG blurs the edges of the gradient's blocks by a few levels.
    image = decoding.decode_image(tf.constant(data)).numpy().astype(int)
    assert np.abs(image - gradient()).mean() < 3


def test_transparency_palette_and_16_bit_png_become_rgb():
    red = np.full((5, 7, 4), (200, 10, 30, 128), np.uint8)
    for data in (
        encoded(red, format="PNG"),
        encoded(np.ascontiguousarray(red[..., :3]), "P", format="PNG"),
    ):
        image = decoding.decode_image(tf.constant(data)).numpy()
        assert image.shape == (5, 7, 3)
        np.testing.assert_allclose(image[2, 3], (200, 10, 30), atol=30)  # web palette: steps of 51
    deep = encoded(np.full((5, 7), 0xC8FF, np.uint16), format="PNG")
    assert decoding.decode_image(tf.constant(deep)).numpy()[0, 0].tolist() == [0xC8] * 3


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (7, 5), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    image = decoding.decode_image(tf.constant(file.getvalue())).numpy()
    assert image.shape == (5, 7, 3)
    assert image[0, 0].tolist() == [255, 0, 0]


def test_a_small_file_that_claims_a_huge_image_is_refused():
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)  # 10.8 GB of RGB
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
        decoding.decode_image(tf.constant(bomb))


def test_why_a_file_is_no_image_is_said_without_a_python_object():
    assert decoding.fault_of(b"no image") == "cannot identify image file"


def test_header_size_is_height_then_width(tmp_path):
    paint(tmp_path / "a.png", (5, 7))
    assert decoding.header_size(tmp_path / "a.png") == (5, 7)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot identify"):
        decoding.header_size(tmp_path / "b.png")


def records(folder, count):
    made = []
    for number in range(count):
        path = folder / f"{number}.jpg"
        paint(path, (5 + number, 7))
        row = ex.Row((0, 0, 1 + number / 8, 2), number % 3)
        made.append(ex.make_record(str(number), str(path), height=5 + number, width=7, rows=[row]))
    return made


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])


@pytest.mark.parametrize("broken", [(), (0,), (2,), (5,), (1, 2, 3), (0, 4, 5)])
def test_broken_images_are_skipped_named_and_counted(tmp_path, caplog, broken):
    made = records(tmp_path, 6)
    for number in broken:
        truncate(tmp_path / f"{number}.jpg")
    dataset = to_dataset(made, "abc", ex.Inspector(), "six")
    assert dataset.problems == []  # nothing was decoded yet
    with caplog.at_level(logging.WARNING, "kerasdet.data"):
        found = elements(dataset)
    intact = [number for number in range(6) if number not in broken]
    assert [element["image_id"] for element in found] == [b"%d" % n for n in intact]
    for number, element in zip(intact, found, strict=True):
        assert element["image"].shape == (5 + number, 7, 3)
        np.testing.assert_array_equal(element["boxes"], [[0, 0, 1 + number / 8, 2]])
        assert element["labels"].tolist() == [number % 3]
    names = [str(tmp_path / f"{number}.jpg") for number in broken]
    assert [problem.file for problem in dataset.problems] == names
    assert all(problem.rule == ex.UNREADABLE_IMAGE for problem in dataset.problems)
    assert all("truncated" in problem.value.lower() for problem in dataset.problems)
    assert [message.split()[3] for message in caplog.messages] == names


def test_a_broken_image_is_counted_once_however_often_it_is_met(tmp_path):
    made = records(tmp_path, 3)
    truncate(tmp_path / "1.jpg")
    dataset = to_dataset(made, "abc", ex.Inspector(), "three")
    assert [len(elements(dataset.repeat(2))), len(elements(dataset))] == [4, 2]
    assert len(dataset.problems) == 1


def test_a_file_that_vanished_is_skipped_and_named(tmp_path):
    made = records(tmp_path, 3)
    dataset = to_dataset(made, "abc", ex.Inspector(), "three")
    (tmp_path / "1.jpg").unlink()
    assert [element["image_id"] for element in elements(dataset)] == [b"0", b"2"]
    assert [(p.file, p.value) for p in dataset.problems] == [
        (str(tmp_path / "1.jpg"), "No such file or directory")
    ]


def test_reordered_gives_the_records_asked_for_and_names_the_broken_one(tmp_path):
    made = records(tmp_path, 5)
    truncate(tmp_path / "3.jpg")
    dataset = to_dataset(made, "abc", ex.Inspector(), "five")
    order = tf.data.Dataset.from_tensor_slices(np.int64([4, 0, 3, 0, 1]))
    found = elements(dataset.reordered(order))
    assert [element["image_id"] for element in found] == [b"4", b"0", b"0", b"1"]
    assert [problem.file for problem in dataset.problems] == [str(tmp_path / "3.jpg")]


def test_an_image_of_another_size_is_reported_and_its_boxes_clipped(tmp_path):
    path = tmp_path / "a.png"
    paint(path, (5, 7))
    rows = [ex.Row((1, 1, 9, 4), 0), ex.Row((8, 8, 10, 10), 1), ex.Row((0, 0, 2, 2), 2)]
    record = ex.make_record("a", str(path), height=10, width=14, rows=rows)
    dataset = to_dataset([record], "abc", ex.Inspector(), "one")
    (element,) = elements(dataset)
    np.testing.assert_array_equal(element["boxes"], [[1, 1, 7, 4], [0, 0, 2, 2]])
    assert element["labels"].tolist() == [0, 2]
    assert [(p.rule, p.value) for p in dataset.problems] == [
        (ex.WRONG_SIZE, "annotated 14x10, is 7x5")
    ]


def test_strict_refuses_a_truncated_image_at_once(tmp_path):
    made = records(tmp_path, 2)
    truncate(tmp_path / "1.jpg")
    with pytest.raises(InputError, match=r"1\.jpg: unreadable image \(.*[Tt]runcated"):
        to_dataset(made, "abc", ex.Inspector(strict=True), "two")


def test_no_object_at_all_is_an_error_that_names_the_first_problem(tmp_path):
    paint(tmp_path / "a.png", (5, 7))
    record = ex.make_record("a", str(tmp_path / "a.png"), height=5, width=7, rows=[])
    inspector = ex.Inspector()
    with pytest.raises(InputError, match=r"one: no valid object in 1 images$"):
        to_dataset([record], "abc", inspector, "one")
    inspector.box("a.xml", "object 1", raw=(3, 1, 2, 2), height=5, width=7)
    with pytest.raises(InputError, match=r"1 problems, the first in a\.xml, object 1: inverted"):
        to_dataset([record], "abc", inspector, "one")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_sixteen_bits_is_read_by_its_high_byte_everywhere(tmp_path, rng, suffix):
    grey = rng.integers(0, 2**16, (7, 5)).astype("uint16")
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray(grey).save(path)
    expected = np.repeat((grey >> 8).astype("uint8")[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(read_image(Image.open(path)), expected)
    np.testing.assert_array_equal(decoding.decode_image(tf.constant(path.read_bytes())), expected)


def test_an_image_of_numbers_in_0_to_1_says_so(tmp_path, rng):
    path = tmp_path / "grey.tif"
    Image.fromarray(rng.uniform(0, 1, (7, 5)).astype("float32")).save(path)
    with pytest.raises(InputError, match=r"multiply an image in 0\.\.1 by 255"):
        read_image(path)
    assert "multiply an image in 0..1 by 255" in decoding.fault_of(path.read_bytes())
