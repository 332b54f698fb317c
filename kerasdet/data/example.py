"""The one schema of examples, the records they are made of, and the checks on their boxes.

An example is a dict:

    image       uint8 (H, W, 3), RGB, upright; as stored where the annotations' size says so
    boxes       float32 (N, 4), xyxy in pixels of the image, continuous edges
    labels      int32 (N,), 0..K-1
    difficult   bool (N,), VOC's flag
    crowd       bool (N,), COCO's iscrowd
    area        float32 (N,), COCO's own area (of the mask), else the box's
    image_id    string
    path        string, "" if the image is in no file

A bad annotation is reported with file, row and rule. Its box is dropped, or clipped where only a
part lies outside; the image stays, with the boxes that are right.
"""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kerasdet.errors import InputError

_log = logging.getLogger(__name__)

# The rules, as they stand in the column `rule` of every report.
NOT_A_NUMBER = "not a number"
MISSING_VALUE = "missing value"
DEGENERATE = "degenerate box"
INVERTED = "inverted box"
OUTSIDE = "box outside the image"
EXCEEDS = "box exceeds the image"
NOT_NORMALISED = "value outside 0..1"
UNKNOWN_CLASS = "unknown class"
UNKNOWN_IMAGE = "unknown image id"
DUPLICATE = "duplicate id"
MISSING_SIZE = "missing image size"
WRONG_SIZE = "wrong image size"
MISSING_IMAGE = "missing image file"
MISSING_ANNOTATION = "missing annotation file"
UNREADABLE_ANNOTATION = "unreadable annotation"
UNREADABLE_IMAGE = "unreadable image"
LABEL_WITHOUT_IMAGE = "label without image"
NO_OBJECTS = "image without objects"
NONE_USABLE = "no usable image"

NOTES = frozenset({NO_OBJECTS})
"""Rules that say something worth knowing and no fault: `strict` lets them pass."""

DROPPED_BOX = "box dropped"
DROPPED_IMAGE = "image dropped"
SKIPPED_IMAGE = "image skipped"

# A box may stick out by as much without a word: third-party files in VOC's layout count from 0
# where VOC counts from 1, and files of normalised numbers are rounded. It is clipped all the same.
_SLACK = 1.0  # pixels

# A thinner box has no pixel, and float32 might not tell its edges apart.
_LEAST_SIDE = 0.01  # pixels


class Problem(NamedTuple):
    """One finding: where, against which rule, what stood there, and what was done about it."""

    file: str
    row: str  # "object 3", "annotation 1774", "line 2"; "" for the whole file
    rule: str
    value: str
    action: str


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One image's annotations, checked, without its pixels; arrays as in an example.

    Height and width are those that the annotations state, else the upright image's. They tell on
    which pixels the boxes were made (`kerasdet.orientation.turn_of`).
    """

    image_id: str
    path: str
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    area: np.ndarray


class Row(NamedTuple):
    """One checked object on its way into a `Record`."""

    box: tuple[float, float, float, float]
    label: int
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


def make_record(
    image_id: str, path: str, *, height: int, width: int, rows: Sequence[Row]
) -> Record:
    """The record of one image, from its checked objects."""
    boxes = np.array([row.box for row in rows], np.float32).reshape(-1, 4)
    sizes = boxes[:, 2:] - boxes[:, :2]
    own = np.array([math.nan if row.area is None else row.area for row in rows], np.float32)
    return Record(
        image_id,
        path,
        height,
        width,
        boxes=boxes,
        labels=np.array([row.label for row in rows], np.int32),
        difficult=np.array([row.difficult for row in rows], bool),
        crowd=np.array([row.crowd for row in rows], bool),
        area=np.where(np.isnan(own), sizes[:, 0] * sizes[:, 1], own).astype(np.float32),
    )


class Inspector:
    """Checks annotations one by one and keeps the list of what it found.

    Args:
        strict: the first fault is an `InputError` instead of an entry.

    Attributes:
        problems: list of `Problem`; it grows.
    """

    def __init__(self, strict: bool = False):
        self.strict = strict
        self.problems: list[Problem] = []

    def report(self, file: Any, row: str, *, rule: str, value: Any, action: str) -> None:
        """Adds a finding.

        Raises:
            InputError: if strict, unless the rule is one of `NOTES`.
        """
        value = " ".join(str(value).split())
        value = value if len(value) <= 120 else value[:117] + "..."
        if self.strict and rule not in NOTES:
            where = f"{file}, {row}" if row else f"{file}"
            raise InputError(f"{where}: {rule}" + (f" ({value})" if value else ""))
        self.problems.append(Problem(str(file), row, rule, value, action))

    def box(
        self, file: Any, row: str, *, raw: Sequence[Any], height: int, width: int, first: float = 0
    ) -> tuple[float, float, float, float] | None:
        """Checks one box and clips it to its image; None where it has to go.

        Args:
            file: where it stands, for the report.
            row: the same.
            raw: x1, y1, x2, y2 as the file has them: numbers or strings.
            height: of the image, pixels.
            width: of the image, pixels.
            first: number of the first pixel in the file. With 1, as in VOC, both corners are pixels
                that belong to the box: it spans x1 - 1 to x2.
        """

        def dropped(rule):
            value = ",".join("" if v is None else str(v) for v in raw)
            self.report(file, row, rule=rule, value=value, action=DROPPED_BOX)

        try:
            x1, y1, x2, y2 = (float(value) for value in raw)
        except (TypeError, ValueError, OverflowError):
            return dropped(NOT_A_NUMBER)
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            return dropped(NOT_A_NUMBER)
        if x2 < x1 or y2 < y1:
            return dropped(INVERTED)
        if min(x2 - x1, y2 - y1) < _LEAST_SIDE:
            return dropped(DEGENERATE)
        x1, y1 = x1 - first, y1 - first
        if min(x2, width - x1, y2, height - y1) < _LEAST_SIDE:
            return dropped(OUTSIDE)
        excess = max(-x1, -y1, x2 - width, y2 - height)
        if excess > _SLACK:
            value = ",".join(f"{v:g}" for v in (x1, y1, x2, y2)) + f" in {width}x{height}"
            self.report(file, row, rule=EXCEEDS, value=value, action="box clipped")
        return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))

    def unreadable(self, path: Any, reason: str) -> None:
        """Adds an image that cannot be decoded, and warns, once a file."""
        known = any(p.rule == UNREADABLE_IMAGE and p.file == str(path) for p in self.problems)
        if not known:
            # Also where strict: it is met while the data streams, where nothing could catch an
            # error.
            self.problems.append(Problem(str(path), "", UNREADABLE_IMAGE, reason, SKIPPED_IMAGE))
            _log.warning("unreadable image skipped: %s (%s)", path, reason)


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Inside, unreadable images are added to `problems` alone: a line each would break a progress bar."""
    level = _log.level
    _log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _log.setLevel(level)
