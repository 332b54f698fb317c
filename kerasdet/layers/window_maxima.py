"""The maximum over any rectangle of a map, by looking up windows whose maxima are known.

A two-dimensional sparse table: the maxima of all windows of a few heights and widths are computed
once, each from two of the size before; a rectangle is then covered by windows that may overlap,
two a side where lengths are powers of two, one where every length is in the table. A maximum has
no rounding, so the answer is exact.

The maps lie as rows (B * H * W, C). A window's maximum stands in the row of its first cell, so that
a larger size is made by shifting all rows at once; windows that run over an edge of the map are
computed too, and never looked up.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kerasdet.layers.in_pieces import in_pieces

# Side in cells of a map whose size is not known before it comes; a longer one is right too.
_UNKNOWN_SIDE = 64


class Rectangles(NamedTuple):
    """N grids of p x q rectangles: int32 cells, clipped to the map, the ends exclusive.

    `image` is (N,), `top` and `bottom` are (N, p), `left` and `right` (N, q). Where an end is not
    past its start the rectangle is empty.
    """

    image: Any
    top: Any
    bottom: Any
    left: Any
    right: Any


class WindowSizes(NamedTuple):
    """Heights and widths of the windows in a table, each ascending from 1."""

    heights: tuple[int, ...]
    widths: tuple[int, ...]


def choose_sizes(height, width, parts, *, every_width=False) -> WindowSizes:
    """Windows that cover a part of a side where at most the whole side is cut into `parts`.

    Args:
        height: of the map in cells, or None where it is not known yet.
        width: likewise.
        parts: how many, along each side.
        every_width: all widths instead of powers of two: a larger table, half the look-ups.
    """
    # Caffe's bins begin at a floor and end at a ceiling.
    tallest, widest = (
        min(side, -(-side // parts) + 1)
        for side in (height or _UNKNOWN_SIDE, width or _UNKNOWN_SIDE)
    )
    heights, widths = (
        tuple(2**k for k in range(longest.bit_length())) for longest in (tallest, widest)
    )
    return WindowSizes(heights, tuple(range(1, widest + 1)) if every_width else widths)


def maxima(maps, rectangles: Rectangles, sizes: WindowSizes):
    """Maxima of rectangles, 0 for an empty one.

    Args:
        maps: (B, H, W, C).
        rectangles: N grids of p x q.
        sizes: what the table holds; any choice gives the same answer.

    Returns:
        (N, p, q, C), of the maps' dtype.
    """
    windows = [values for values, _ in _windows(maps, sizes)]
    table = ops.concatenate([ops.zeros_like(windows[0][:1]), *windows])
    search = _Search(maps, rectangles, sizes, windows)
    return search.best(lambda rows: ops.take(table, rows, axis=0), ops.maximum)


def places_of_maxima(maps, rectangles: Rectangles, sizes: WindowSizes, found):
    """Where the maxima stand, of equal ones the first, row by row.

    Args:
        maps: (B, H, W, C).
        rectangles: N grids of p x q.
        sizes: what the table holds; any choice gives the same answer.
        found: (N, p, q, C), what `maxima` returned.

    Returns:
        int32 (N, p, q, C), indices into all numbers of `maps`; B * H * W * C for an empty rectangle.
    """
    windows, places = zip(*_windows(maps, sizes, with_places=True), strict=True)
    nowhere = ops.size(maps)
    values = ops.concatenate([ops.zeros_like(windows[0][:1]), *windows])
    places = ops.concatenate([ops.full_like(places[0][:1], nowhere), *places])

    def look(rows, found):
        here = ops.take(values, rows, axis=0) == found
        return ops.where(here, ops.take(places, rows, axis=0), nowhere)

    return _Search(maps, rectangles, sizes, windows).best(look, ops.minimum, found)


def _windows(maps, sizes, *, with_places=False):
    """All sizes' maxima, and perhaps the maxima's places: rows (B * H * W, C) and somewhat fewer.

    Heights of the first width come first.
    """
    _, _, width, channels = ops.shape(maps)
    values, places = ops.reshape(maps, (-1, channels)), None
    if with_places:
        places = ops.reshape(ops.arange(ops.size(maps), dtype="int32"), (-1, channels))
    for i, columns in enumerate(sizes.widths):
        if i:
            values, places = _joined(values, places, columns - sizes.widths[i - 1])
        taller = values, places
        for j, rows in enumerate(sizes.heights):
            if j:
                taller = _joined(*taller, (rows - sizes.heights[j - 1]) * width)
            yield taller


def _joined(values, places, distance):
    """Larger windows, each from the one that begins in the same cell and one `distance` rows on."""
    first, second = values[:-distance], values[distance:]
    if places is not None:
        # Of equals the first: it stands higher up or, in windows of one row, further left.
        places = ops.where(second > first, places[distance:], places[:-distance])
    return ops.maximum(first, second), places


class _Search:
    """Which rows of a table cover each rectangle; row 0 is the empty rectangle's."""

    def __init__(self, maps, rectangles, sizes, windows):
        height, width, self.channels = ops.shape(maps)[1:]
        self.width, self.sizes = width, sizes
        lengths = [1, *(ops.shape(each)[0] for each in windows[:-1])]
        self.starts = ops.cumsum(ops.stack([ops.convert_to_tensor(n, "int32") for n in lengths]))
        self.spans = (
            ops.cast(rectangles.image * (height * width), "int32")[:, None],  # (N, 1)
            _spans(rectangles.top, rectangles.bottom, sizes.heights),
            _spans(rectangles.left, rectangles.right, sizes.widths),
        )

    def best(self, look, better, *beside):
        """The best of what `look(rows, *beside)` finds in all windows of a rectangle."""
        down, across = (_usually(lengths) for lengths in self.sizes)
        rows = [self.rows(*self.spans, y, x) for y in range(down) for x in range(across)]

        def search(corner, vertical, horizontal, *given):
            rows, beside = given[: down * across], given[down * across :]
            found = look(rows[0], *beside)
            for others in rows[1:]:
                found = better(found, look(others, *beside))
            # A part of a region that juts out of the map can be longer than the sizes allow for.
            tall, wide = _most(vertical), _most(horizontal)
            total = ops.where(ops.logical_or(tall > down, wide > across), tall * wide, 0)

            def further(i, found):
                others = self.rows(corner, vertical, horizontal, i // wide, i % wide)
                return i + 1, better(found, look(others, *beside))

            return ops.while_loop(
                lambda i, _: i < total, further, (ops.zeros_like(total), found)
            )[1]

        numbers = self.channels * math.prod(rows[0].shape[1:])
        return in_pieces(search, (*self.spans, *rows, *beside), numbers=numbers)

    def rows(self, corner, vertical, horizontal, y, x):
        """Rows (n, p, q) of the windows number y from the top and number x from the left."""
        top, bottom, height, tall = ops.unstack(vertical[:, :, :, None], 4, axis=1)
        left, right, width, wide = ops.unstack(horizontal[:, :, None, :], 4, axis=1)
        row = ops.minimum(top + y * height, bottom - height)
        column = ops.minimum(left + x * width, right - width)
        start = ops.take(self.starts, wide * len(self.sizes.heights) + tall)
        rows = start + corner[:, :, None] + row * self.width + column
        return ops.where(ops.logical_and(top < bottom, left < right), rows, 0)


def _spans(start, end, lengths):
    """(N, 4, p): start, end, length of the largest window that fits, and its place in `lengths`."""
    fits = np.searchsorted(lengths, np.arange(lengths[-1] + 1), side="right") - 1
    which = ops.take(np.maximum(fits, 0).astype("int32"), ops.clip(end - start, 0, lengths[-1]))
    length = ops.take(np.array(lengths, "int32"), which)
    return ops.stack([start, end, length, which], axis=1)


def _usually(lengths):
    """Windows that cover any span up to twice the longest, or up to it where all lengths are there."""
    return 1 if lengths == tuple(range(1, len(lengths) + 1)) else 2


def _most(spans):
    """Windows that the longest of these spans (N, 4, p) takes."""
    start, end, length, _ = ops.unstack(spans, 4, axis=1)
    length = ops.maximum(length, 1)  # 0 where rows were added to fill a piece
    return ops.max((end - start + length - 1) // length)
