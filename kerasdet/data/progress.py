"""A progress bar for work on many files, shown only where it helps."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

_Item = TypeVar("_Item")

_PATIENCE = 1.0  # seconds of silence before a bar appears


def track(items: Iterable[_Item], description: str, *, total: int | None = None) -> Iterator[_Item]:
    """Yields the items; after a second of it a bar appears on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    begin = time.monotonic()
    bar: Any = None
    task: Any = None
    try:
        for done, item in enumerate(items):
            if bar is not None:
                bar.update(task, completed=done)
            elif time.monotonic() - begin > _PATIENCE:
                from rich.console import Console
                from rich.progress import Progress

                bar = Progress(console=Console(stderr=True), transient=True)
                bar.start()
                task = bar.add_task(description, total=total, completed=done)
            yield item
    finally:
        if bar is not None:
            bar.stop()
