"""The maximum over any rectangle of a map, by looking up windows whose maxima are known.

A two-dimensional sparse table: the maxima of all windows of a few heights and widths are computed
once, each from two of the size before; a rectangle is then covered by windows that may overlap,
two a side, or one where every length is in the table. A maximum has no rounding, so the answer is
exact.

The maps lie as rows (B * H * W, C). A window's maximum stands in the row of its first cell, so that
a larger size is made by shifting all rows at once; windows that run over an edge of the map are
computed too, and never looked up.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kerasdet.layers.in_pieces import in_pieces

# Numbers in a large table, 256 MB: all sizes for VGG16's map of an 800x600 image take 245, and as
# much again while they are put together.
_LARGE_TABLE = 2**26


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


def choose_sizes(maps, tallest, widest, *, many=False) -> WindowSizes:
    """Windows to cover rectangles of up to that height and width; larger ones only take longer.

    Args:
        maps: (B, H, W, C).
        tallest: height in cells.
        widest: width in cells.
        many: spend memory on a larger table, so that each rectangle takes one look-up instead of
            four, or two.
    """
    few = WindowSizes(_fewest(tallest), _fewest(widest))
    if many and None not in maps.shape:
        heights, widths = tuple(range(1, tallest + 1)), tuple(range(1, widest + 1))
        for sizes in (WindowSizes(heights, widths), WindowSizes(few.heights, widths)):
            if math.prod((*maps.shape, len(sizes.heights), len(sizes.widths))) <= _LARGE_TABLE:
                return sizes
    return few


def _fewest(longest):
    """As few lengths as do if two of one length, overlapping, are to cover any up to the longest."""
    lengths = [longest if longest <= 2 else -(-longest // 2)]
    while lengths[0] > 1:
        lengths.insert(0, lengths[0] // 2)  # twice this is the next, or one less
    return tuple(lengths)


def maxima(maps, rectangles: Rectangles, sizes: WindowSizes):
    """Maxima of rectangles, 0 for an empty one.

    Args:
        maps: (B, H, W, C).
        rectangles: N grids of p x q.
        sizes: what the table holds; any choice gives the same answer.

    Returns:
        (N, p, q, C), of the maps' dtype.
    """
    values, _, starts = _table(maps, sizes)
    search = _Search(maps, rectangles, sizes, starts)
    return search.best(lambda rows: ops.take(values, rows, axis=0), ops.maximum)


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
    values, places, starts = _table(maps, sizes, with_places=True)
    nowhere = ops.size(maps)

    def look(rows, found):
        here = ops.take(values, rows, axis=0) == found
        return ops.where(here, ops.take(places, rows, axis=0), nowhere)

    return _Search(maps, rectangles, sizes, starts).best(look, ops.minimum, found)


def _table(maps, sizes, *, with_places=False):
    """Maxima of windows of all sizes, perhaps their places, and where each size begins.

    Row 0 is the empty rectangle's. Then all widths of the first height, of the second, ...

    Returns:
        (rows, C) twice, the second None without places, and the row at which each size begins, int32.
    """
    _, _, width, channels = ops.shape(maps)
    window, places = ops.reshape(maps, (-1, channels)), None
    nothing = ops.zeros((1, channels), window.dtype), None
    if with_places:
        count = ops.size(maps)
        places = ops.reshape(ops.arange(count, dtype="int32"), (-1, channels))
        nothing = nothing[0], ops.full((1, channels), count, "int32")
    across = [(window, places)]
    for size, larger in pairwise(sizes.widths):
        across.append(_grown(across[-1], size, larger))
    parts = [nothing, *across]
    for size, larger in pairwise(sizes.heights):
        across = [_grown(each, size, larger, step=width) for each in across]
        parts += across
    return *_stacked(parts), _ends(parts[:-1])


def _grown(windows, size, larger, step=1):
    """Windows of a larger size, at most twice the size and one; `step` rows from cell to cell."""
    distance = min(larger - size, size)
    windows = _joined(*windows, distance * step)
    return windows if size + distance == larger else _joined(*windows, step)


def _stacked(parts):
    """One array of all values, one of all places or None."""
    return tuple(
        None if each[0] is None else ops.concatenate(each) for each in zip(*parts, strict=True)
    )


def _ends(parts):
    """How many rows each part ends at, all being stacked."""
    lengths = [ops.convert_to_tensor(ops.shape(values)[0], "int32") for values, _ in parts]
    return ops.cumsum(ops.stack(lengths))


def _joined(values, places, distance):
    """Larger windows, each from the one that begins in the same cell and one `distance` rows on."""
    first, second = values[:-distance], values[distance:]
    if places is not None:
        # Of equals the first: it stands higher up or, in windows of one row, further left.
        places = ops.where(second > first, places[distance:], places[:-distance])
    return ops.maximum(first, second), places


class _Search:
    """Which rows of a table cover each rectangle; row 0 is the empty rectangle's."""

    def __init__(self, maps, rectangles, sizes, starts):
        height, width, self.channels = ops.shape(maps)[1:]
        self.width, self.sizes, self.starts = width, sizes, starts
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

            start = (ops.zeros_like(total), found)
            _, found = ops.while_loop(lambda i, _: i < total, further, start)
            return found

        if len(rows) == 1 and not beside:  # no intermediate results
            return search(*self.spans, *rows)
        numbers = self.channels * math.prod(rows[0].shape[1:])
        return in_pieces(search, (*self.spans, *rows, *beside), numbers=numbers)

    def rows(self, corner, vertical, horizontal, y, x):
        """Rows (n, p, q) of the windows number y from the top and number x from the left."""
        top, bottom, height, tall = ops.unstack(vertical[:, :, :, None], 4, axis=1)
        left, right, width, wide = ops.unstack(horizontal[:, :, None, :], 4, axis=1)
        row = ops.minimum(top + y * height, bottom - height)
        column = ops.minimum(left + x * width, right - width)
        start = ops.take(self.starts, tall * len(self.sizes.widths) + wide)
        rows = start + corner[:, :, None] + row * self.width + column
        return ops.where(ops.logical_and(top < bottom, left < right), rows, 0)


def _spans(start, end, lengths):
    """(N, 4, p): start, end, length of the largest window that fits, and its place in `lengths`."""
    fits = np.searchsorted(lengths, np.arange(lengths[-1] + 1), side="right") - 1
    which = ops.take(np.maximum(fits, 0).astype("int32"), ops.clip(end - start, 0, lengths[-1]))
    length = ops.take(np.array(lengths, "int32"), which)
    return ops.stack([start, end, length, which], axis=1)


def _usually(lengths):
    """Windows that cover any span that is usual: one of any length, or two of powers of two."""
    every = lengths == tuple(range(1, len(lengths) + 1)) and lengths != (1, 2)
    return 1 if every else 2


def _most(spans):
    """Windows that the longest of these spans (N, 4, p) takes."""
    start, end, length, _ = ops.unstack(spans, 4, axis=1)
    length = ops.maximum(length, 1)  # 0 where rows were added to fill a piece
    return ops.max((end - start + length - 1) // length, initial=0)
