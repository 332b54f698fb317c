"""How the benches time: two functions in turn, medians, one table."""

import time

import numpy as np
from rich.table import Table


def timed(function, clock=time.perf_counter) -> float:
    """Seconds of one call."""
    start = clock()
    function()
    return clock() - start


def in_turn(ours, theirs, runs):
    """Median seconds of both, and the median over the pairs' ratios."""
    for warm in (ours, theirs):
        if warm:
            warm()
            warm()
    pairs = [(timed(ours), timed(theirs) if theirs else float("nan")) for _ in range(runs)]
    mine, other = np.median(np.array(pairs), axis=0)
    ratio = np.median([a / b for a, b in pairs])
    return float(mine), float(other), float(ratio)


class Rows:
    """The table, and the numbers behind it."""

    def __init__(self):
        self.rows = []

    def add(self, what, ours, theirs=None, ratio=None, target="", unit="ms"):
        """One line, printed at once: figures of both, and what the ratio is to be."""
        self.rows.append((what, ours, theirs, ratio, target, unit))
        print(
            f"  {what}: {ours:.1f} {unit}" + (f", ratio {ratio:.2f}" if ratio else ""), flush=True
        )

    def table(self, title):
        """All lines as a Rich table."""
        table = Table(title=title, title_justify="left")
        for column in ("what", "kerasdet", "beside", "ratio", "target"):
            table.add_column(column)
        for what, ours, theirs, ratio, target, unit in self.rows:
            table.add_row(
                what,
                f"{ours:.1f} {unit}",
                "" if theirs is None or theirs != theirs else f"{theirs:.1f} {unit}",
                "" if ratio is None or ratio != ratio else f"{ratio:.2f}",
                target,
            )
        return table
