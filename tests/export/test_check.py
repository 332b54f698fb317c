"""The comparison that an export has to pass."""

import numpy as np
import pytest

from kerasdet.errors import KerasdetError
from kerasdet.export.check import Difference, Tolerance, difference, from_outputs, require_same
from kerasdet.suppression import Detections

SIZE = (70, 50)  # 2 % of the longer side are 1.4 pixels


def detections(*rows):
    """Rows of (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, "float32").reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype("int32"), len(table))


MODEL = detections((1, 2, 11, 22, 0.9, 0), (30, 5, 45, 60, 0.8, 2), (1, 2, 11, 22, 0.3, 1))


def test_the_largest_differences_are_measured():
    copy = detections(
        (1, 2, 11.25, 22, 0.9, 0), (30, 5, 45, 59.5, 0.8125, 2), (1, 2, 11, 22, 0.3, 1)
    )
    measured = difference([MODEL], [copy], [SIZE])
    assert measured == Difference(1, 3, 0.5, pytest.approx(0.0125, rel=1e-5), 0)


def test_order_does_not_matter():
    swapped = Detections(*(array[::-1] for array in MODEL[:3]), MODEL.count)
    assert difference([MODEL], [swapped], [SIZE]) == Difference(1, 3, 0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("copy", "unmatched"),
    [
        (detections(*[(1, 2, 11, 22, 0.9, 0)]), 2),  # two are missing
        (detections(), 3),
        # The second has another class: one is missing and one is too many.
        (detections((1, 2, 11, 22, 0.9, 0), (30, 5, 45, 60, 0.8, 1), (1, 2, 11, 22, 0.3, 1)), 2),
        # The second lies two pixels off.
        (detections((1, 2, 11, 22, 0.9, 0), (30, 5, 47, 60, 0.8, 2), (1, 2, 11, 22, 0.3, 1)), 2),
    ],
)
def test_what_only_one_of_them_has_is_counted(copy, unmatched):
    assert difference([MODEL], [copy], [SIZE]).unmatched == unmatched
    assert difference([copy], [MODEL], [SIZE]).unmatched == unmatched


@pytest.mark.parametrize(
    "measured",
    [
        Difference(2, 100, 0.06, 0.0, 0),
        Difference(2, 100, 0.0, 2e-4, 0),
        Difference(2, 100, 0.0, 0.0, 3),
        Difference(2, 0, 0.0, 0.0, 1),
    ],
)
def test_each_measure_can_fail_alone(measured):
    with pytest.raises(
        KerasdetError, match=r"The copy does not find .* Allowed: 0\.05 px, 0\.0001"
    ):
        require_same(measured, Tolerance(), "The copy")


def test_rounding_passes():
    require_same(Difference(2, 100, 0.049, 9e-5, 2), Tolerance(), "The copy")


def test_named_outputs_are_read_back():
    outputs = {
        "detection_boxes": np.array([[[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0]]], "float32"),
        "detection_scores": np.array([[0.5, 0]], "float32"),
        "detection_classes": np.array([[3.0, 0.0]], "float32"),
        "num_detections": np.array([1.0], "float32"),
    }
    (found,) = from_outputs(outputs, [(40, 20)])
    # ymin, xmin, ymax, xmax = a quarter and three quarters of 40, a half and all of 20.
    assert found.boxes.tolist() == [[10.0, 10.0, 20.0, 30.0]]
    assert (found.scores.tolist(), found.labels.tolist(), found.count) == ([0.5], [2], 1)
