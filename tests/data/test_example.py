import math

import numpy as np
import pytest

from kerasdet.data import example as ex
from kerasdet.errors import InputError


def box(raw, *, first=0, strict=False):
    """Box and rules for an image 7 wide and 5 high."""
    inspector = ex.Inspector(strict)
    kept = inspector.box("f", "row 1", raw=raw, height=5, width=7, first=first)
    return kept, [problem.rule for problem in inspector.problems]


def test_a_box_inside_stays_as_it_is():
    assert box((1, 2, 6.5, 4)) == ((1.0, 2.0, 6.5, 4.0), [])


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        ((1, 2, 1, 4), ex.DEGENERATE),
        ((1, 2, 3, 2), ex.DEGENERATE),
        ((1, 2, 1.001, 4), ex.DEGENERATE),
        ((3, 2, 1, 4), ex.INVERTED),
        ((1, 4, 3, 2), ex.INVERTED),
        ((7, 1, 9, 2), ex.OUTSIDE),
        ((1, 5, 2, 6), ex.OUTSIDE),  # below, though inside a 7x7 image
        ((-4, 1, 0, 2), ex.OUTSIDE),
        ((1, -4, 2, 0), ex.OUTSIDE),
        ((1, "x", 2, 3), ex.NOT_A_NUMBER),
        ((1, math.nan, 2, 3), ex.NOT_A_NUMBER),
        ((1, 1, "inf", 3), ex.NOT_A_NUMBER),
        ((1, 1, None, 3), ex.NOT_A_NUMBER),
        ((1, 1, 10**400, 3), ex.NOT_A_NUMBER),
    ],
)
def test_a_bad_box_is_dropped_by_its_rule(raw, rule):
    assert box(raw) == (None, [rule])


def test_a_box_that_sticks_out_is_clipped_and_reported():
    assert box((-2, 1, 9, 4)) == ((0.0, 1.0, 7.0, 4.0), [ex.EXCEEDS])
    assert box((1, 1, 2, 6.5)) == ((1.0, 1.0, 2.0, 5.0), [ex.EXCEEDS])


def test_one_pixel_over_the_border_is_clipped_without_a_word():
    assert box((-1, 0, 8, 6)) == ((0.0, 0.0, 7.0, 5.0), [])


def test_counted_from_one_both_corners_belong_to_the_box():
    assert box(("2", "3", "4", "5"), first=1) == ((1.0, 2.0, 4.0, 5.0), [])


def test_strict_raises_with_file_row_and_rule():
    with pytest.raises(InputError, match=r"f, row 1: inverted box \(3,2,1,4\)"):
        box((3, 2, 1, 4), strict=True)


def test_strict_lets_notes_pass():
    inspector = ex.Inspector(strict=True)
    inspector.report("f", "", rule=ex.NO_OBJECTS, value="", action="kept")
    assert [problem.rule for problem in inspector.problems] == [ex.NO_OBJECTS]


def test_a_record_of_no_objects_has_arrays_of_the_right_shape():
    record = ex.make_record("a", "a.png", height=5, width=7, rows=[])
    assert (record.boxes.shape, record.labels.shape, record.area.shape) == ((0, 4), (0,), (0,))


def test_area_is_the_files_own_where_it_has_one():
    rows = [ex.Row((1, 1, 3, 4), 0), ex.Row((1, 1, 3, 4), 0, area=2.5)]
    record = ex.make_record("a", "a.png", height=5, width=7, rows=rows)
    np.testing.assert_array_equal(record.area, np.float32([2 * 3, 2.5]))
