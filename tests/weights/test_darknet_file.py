import struct

import numpy as np
import pytest

from kerasdet.errors import InputError
from kerasdet.weights import read_darknet, write_darknet
from kerasdet.weights.darknet_file import parse_header

NUMBERS = np.array([1.5, -2.25, 3e-8, 7e7, 0.0], "f4")
OLD = struct.pack("<3fi", 0.01, 0.9, 0.0005, 77)  # rate, momentum, decay, seen


BODY = NUMBERS.tobytes()


def write(path, header, body=BODY):
    path.write_bytes(header + body)
    return path


@pytest.mark.parametrize(
    ("header", "version", "seen", "transposed"),
    [
        (struct.pack("<4i", 0, 1, 0, 3200), (0, 1, 0), 3200, False),
        (struct.pack("<3iQ", 0, 2, 0, 2**32 + 5), (0, 2, 0), 2**32 + 5, False),
        (struct.pack("<3iQ", 0, 2, 5, 64), (0, 2, 5), 64, False),
        (OLD, (0, 0, 0), 77, True),
    ],
    ids=["0.1", "0.2", "0.2.5 of a fork", "before versions"],
)
def test_each_header_gives_version_seen_and_the_numbers_behind_it(
    tmp_path, header, version, seen, transposed
):
    file = read_darknet(write(tmp_path / "a", header))
    assert (file.version, file.seen, file.transposed) == (version, seen, transposed)
    assert file.numbers.dtype == np.float32
    np.testing.assert_array_equal(file.numbers, NUMBERS)


def test_the_oldest_header_is_what_darknet_takes_for_a_version_over_1000():
    major, minor = struct.unpack_from("<2i", OLD)
    assert major > 1000
    assert minor > 1000


def test_numbers_stay_on_the_disk(tmp_path):
    file = read_darknet(write(tmp_path / "a", struct.pack("<4i", 0, 1, 0, 0)))
    assert isinstance(file.numbers, np.memmap)
    assert not file.numbers.flags.writeable


def test_a_file_without_numbers_has_none(tmp_path):
    file = read_darknet(write(tmp_path / "a", struct.pack("<3iQ", 0, 2, 0, 9), b""))
    assert file.seen == 9
    assert file.numbers.shape == (0,)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_file_that_ends_inside_a_number_is_refused(tmp_path, cut):
    path = write(tmp_path / "a", struct.pack("<4i", 0, 1, 0, 0), BODY[:-cut])
    with pytest.raises(InputError, match=rf"the {20 - cut} bytes behind its header of 16 are no"):
        read_darknet(path)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\0" * 15,
        b"\0" * 64,
        struct.pack("<4i", 0, 0, 0, 0),
        struct.pack("<4i", 0, 3, 0, 0),
        struct.pack("<4i", 1, 0, 0, 0),
        struct.pack("<4i", 0, 1, 10, 0),
        struct.pack("<4i", 0, 1, 0, -1),
        struct.pack("<4i", 0, 2, 0, 0),  # ends inside the header
        struct.pack(">4i", 0, 1, 0, 0),  # big-endian
        struct.pack("<3fi", 0.01, 9.0, 0.0005, 77),
        struct.pack("<3fi", -0.01, 0.9, 0.0005, 77),
        struct.pack("<3fi", float("nan"), 0.9, 0.0005, 77),
        struct.pack("<3fi", 0.01, 0.9, 0.0005, -3),
        b"\x0a\x09VGG_VOC0712_SSD_300x300",
        b"PK\x03\x04" + b"\0" * 30,
    ],
    ids=repr,
)
def test_other_beginnings_are_refused(tmp_path, start):
    assert parse_header(start) is None
    with pytest.raises(InputError, match="is no darknet weight file"):
        read_darknet(write(tmp_path / "a", start, b""))


def test_random_bytes_are_no_header(rng):
    starts = rng.integers(0, 256, (20_000, 20), dtype="uint8")
    assert not any(parse_header(start.tobytes()) for start in starts)


def test_an_absent_file_and_a_folder_are_input_errors(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match="Cannot read weight file"):
            read_darknet(path)


def test_what_is_written_is_darknets_header_and_the_arrays_in_order(tmp_path):
    write_darknet(tmp_path / "a", [NUMBERS[:2], NUMBERS[2:].reshape(3, 1)], seen=2**33)
    expected = struct.pack("<3i", 0, 2, 0) + struct.pack("<Q", 2**33) + BODY
    assert (tmp_path / "a").read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_other_types_and_orders_in_memory_are_written_as_float32_rows(tmp_path):
    array = np.asfortranarray([[1, 2, 3], [4, 5, 6]], "f8")
    write_darknet(tmp_path / "a", [array])
    np.testing.assert_array_equal(read_darknet(tmp_path / "a").numbers, [1, 2, 3, 4, 5, 6])


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"before")

    def arrays():
        yield NUMBERS
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"Cannot write weight file .*No space left"):
        write_darknet(tmp_path / "a", arrays())
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"
    with pytest.raises(InputError, match="Cannot write weight file"):
        write_darknet(tmp_path / "absent" / "a", [NUMBERS])


def test_a_real_file_of_version_1_has_the_floats_that_its_size_says(shared_data):
    path = shared_data / "weights" / "tiny-darknet" / "tiny.weights"
    file = read_darknet(path)
    assert file.version == (0, 1, 0)
    assert file.numbers.size == (4_185_968 - 16) // 4 == 1_046_488
    # Behind conv1's 16 biases, scales and means come its variances, all of them positive.
    assert (file.numbers[48:64] > 0).all()
    assert (file.numbers[:16] < 0).any()


def test_a_real_file_of_version_2_written_again_has_identical_bytes(shared_data, tmp_path):
    folder = shared_data / "weights" / "yolov2-tiny-voc_k5iogura"
    path = folder / "yolov2-tiny-voc_352_288_final.weights"
    file = read_darknet(path)
    assert (file.version, file.seen) == ((0, 2, 0), 5_145_600)
    assert file.numbers.size == (63_471_560 - 20) // 4 == 15_867_885
    write_darknet(tmp_path / "a", [file.numbers], seen=file.seen)
    assert (tmp_path / "a").read_bytes() == path.read_bytes()
