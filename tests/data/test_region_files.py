"""Files of regions: the release's conventions to continuous edges, and what is no such file."""

import struct

import numpy as np
import pytest
from scipy.io import savemat

from kerasdet.data import read_region_sets, read_regions
from kerasdet.data.region_files import read_written, write_regions
from kerasdet.errors import InputError


def test_the_demo_files_hold_their_regions(shared_data):
    folder = shared_data / "photos" / "fast_rcnn_demo"
    for stem, count, size in (("000004", 2888, (406, 500)), ("001551", 2057, (375, 500))):
        regions = read_regions(folder / f"{stem}_boxes.mat")
        assert regions.shape == (count, 4)
        assert regions.dtype == np.float32
        # Numbered from 0 to width - 1 in the file; so the right-most edge is the image's.
        assert regions.min() == 0
        assert regions[:, 2].max() == size[1]
        assert regions[:, 3].max() <= size[0]


def test_pixel_numbers_become_edges(tmp_path):
    # Pixels 2..4 across and 1..1 down, counted from 0: edges 2, 1, 5, 2.
    savemat(tmp_path / "a.mat", {"boxes": np.array([[2, 1, 4, 1]], np.uint16)})
    assert read_regions(tmp_path / "a.mat").tolist() == [[2, 1, 5, 2]]
    assert read_regions(tmp_path / "a.mat", first_pixel=1).tolist() == [[1, 0, 4, 1]]


def cells(*items):
    array = np.empty((len(items), 1), object)
    array[:, 0] = items
    return array


def test_a_whole_set_comes_by_name_with_rows_and_columns_told_apart(tmp_path):
    first = np.array([[1, 2, 3, 7], [4, 1, 5, 1]], float)  # y1 x1 y2 x2, from 1
    names = cells("000005", "000007")
    boxes = cells(first, np.zeros((0, 4)))
    savemat(tmp_path / "voc_2007_trainval.mat", {"images": names, "boxes": boxes.T})
    found = read_region_sets(tmp_path / "voc_2007_trainval.mat")
    assert list(found) == ["000005", "000007"]
    assert found["000005"].tolist() == [[1, 0, 7, 3], [0, 3, 1, 5]]
    assert found["000007"].shape == (0, 4)
    with pytest.raises(InputError, match="2 images, not of one"):
        read_regions(tmp_path / "voc_2007_trainval.mat")


def test_npz_files_hold_one_image_or_many(tmp_path):
    rows = np.array([[0.5, 1, 7.25, 4]])
    np.savez(tmp_path / "one.npz", boxes=rows)
    assert read_regions(tmp_path / "one.npz").tolist() == rows.tolist()
    np.savez(tmp_path / "many.npz", **{"a-1": rows, "b": rows * 2})
    found = read_region_sets(tmp_path / "many.npz")
    assert {name: array.tolist() for name, array in found.items()} == {
        "a-1": rows.tolist(),
        "b": (rows * 2).tolist(),
    }
    with pytest.raises(InputError, match="it has a-1, b"):
        read_regions(tmp_path / "many.npz")


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path):
    rows = np.array([[0, 1, 7.5, 4], [2, 2, 3, 3]], np.float32)
    write_regions(tmp_path / "new" / "a.npz", rows, (5, 8))
    read, size = read_written(tmp_path / "new" / "a.npz")
    np.testing.assert_array_equal(read, rows)
    assert size == (5, 8)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.npz"]
    np.testing.assert_array_equal(read_regions(tmp_path / "new" / "a.npz"), rows)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(InputError, match=r"a\.npz cannot be written"):
        write_regions(tmp_path / "a.npz", np.zeros((1, 4)), (5, 8))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[0, 0, 4, np.nan]], "finite numbers; row 0 .*0, 0, 4, nan"),
        ([[0, 0, 4, 4], [0, 0, np.inf, 4]], "finite numbers; row 1"),
        ([[0, 0, 4, 4], [5, 0, 3, 4]], "x1 <= x2 .*row 1 .*5, 0, 3, 4"),
        ([[0.0, -1.0, 4.0, 4.0]], "pixels numbered from 0; row 0"),
        ([[0.1, 0.2, 0.5, 1.0]], "shares of the image"),
        ([[1, 2, 3]], r"\(R, 4\) are wanted"),
        (["none"], r"\(R, 4\) are wanted"),
    ],
)
def test_rows_that_are_no_regions_are_one_sentence(tmp_path, rows, words):
    path = tmp_path / "bad.mat"
    savemat(path, {"boxes": np.array(rows)})
    with pytest.raises(InputError, match=words):
        read_regions(path)


def test_a_count_from_one_is_noticed_when_pixel_0_comes(tmp_path):
    savemat(tmp_path / "a.mat", {"boxes": np.array([[0, 1, 4, 4]])})
    with pytest.raises(InputError, match="numbered from 1; row 0"):
        read_regions(tmp_path / "a.mat", first_pixel=1)


def test_continuous_edges_want_an_area(tmp_path):
    np.savez(tmp_path / "a.npz", regions=np.array([[3.0, 1, 3, 4]]))
    with pytest.raises(InputError, match="x1 < x2"):
        read_regions(tmp_path / "a.npz")


def test_other_keys_are_named(tmp_path):
    savemat(tmp_path / "a.mat", {"windows": np.ones((1, 4)), "score": np.ones(1)})
    with pytest.raises(InputError, match="key boxes, and it has score, windows"):
        read_regions(tmp_path / "a.mat")
    savemat(tmp_path / "a.mat", {"boxes": np.ones((1, 4))})
    with pytest.raises(InputError, match="keys boxes and images, and it has boxes"):
        read_region_sets(tmp_path / "a.mat")
    np.savez(tmp_path / "a.npz", windows=np.ones((1, 4)))
    with pytest.raises(InputError, match="regions or boxes, and it has windows"):
        read_regions(tmp_path / "a.npz")


def test_boxes_that_are_no_cells_are_no_set(tmp_path):
    savemat(tmp_path / "a.mat", {"boxes": np.ones((2, 4)), "images": cells("a", "b")})
    with pytest.raises(InputError, match="Cells of regions"):
        read_region_sets(tmp_path / "a.mat")
    savemat(tmp_path / "a.mat", {"boxes": cells(np.ones((2, 4))), "images": cells(np.ones(3))})
    with pytest.raises(InputError, match="Names of images"):
        read_region_sets(tmp_path / "a.mat")


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def claiming(kind, shape, body):
    """A MATLAB file with one variable, boxes, of this class and shape, and few bytes behind it."""
    head = b"MATLAB 5.0 MAT-file".ljust(124, b"\0") + struct.pack("<H", 0x100) + b"IM"
    flags = element(6, struct.pack("<II", kind, 0))
    sides = element(5, struct.pack("<2i", *shape))
    return head + element(14, flags + sides + element(1, b"boxes") + body)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no MATLAB file",
        claiming(1, (1, 2**30), b""),  # cells: Python would take 8 GB for their places
        claiming(6, (2**20, 4), struct.pack("<II", 9, 2**31)),  # doubles
    ],
)
def test_broken_and_boasting_matlab_files_are_one_sentence(tmp_path, content):
    path = tmp_path / "bad.mat"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.mat cannot be read as a MATLAB file"):
        read_regions(path)


def test_a_file_cut_anywhere_is_one_sentence(tmp_path):
    whole, path = tmp_path / "whole.mat", tmp_path / "cut.mat"
    savemat(
        whole,
        {"boxes": np.arange(40.0).reshape(10, 4) + np.array([0, 0, 9, 9])},
        do_compression=True,
    )
    content = whole.read_bytes()
    for length in range(0, len(content), 17):
        path.write_bytes(content[:length])
        with pytest.raises(InputError):
            read_regions(path)


def test_a_newer_matlab_format_says_what_to_do(tmp_path):
    head = b"MATLAB 7.3 MAT-file".ljust(124, b"\0") + struct.pack("<H", 0x200) + b"IM"
    (tmp_path / "a.mat").write_bytes(head + b"\0" * 64)
    with pytest.raises(InputError, match=r"version 7\.3: save it as -v7"):
        read_regions(tmp_path / "a.mat")


def test_npz_files_never_run_code_and_never_crash(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, boxes=np.array([{"an": "object"}], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npz cannot be read"):
        read_regions(path)
    np.savez(path, boxes=np.ones((9, 4)))
    content = path.read_bytes()
    for part in (b"", b"PK\3\4", content[: len(content) // 2], content[:-1]):
        path.write_bytes(part)
        with pytest.raises(InputError, match=r"a\.npz cannot be read"):
            read_regions(path)
    with pytest.raises(InputError, match=r"nowhere\.npz cannot be read"):
        read_regions(tmp_path / "nowhere.npz")
