"""Region proposals of a whole data set: computed on several processes, kept by image content.

A folder holds one `.npz` for each image, named after the SHA-256 of the image's file (of its pixels,
where it is in no file) and the orientation that it is turned from, and `proposals.json`, which says how
they were made. What is there already is not computed again: so an interrupted run goes on, and two data
sets may share their images.

Worker processes import this module, so TensorFlow and Keras stay out of it.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasdet.data import proposals
from kerasdet.data.progress import track
from kerasdet.data.region_files import read_written, write_regions
from kerasdet.errors import InputError
from kerasdet.images import read_image
from kerasdet.orientation import turn_of_file

METHODS = ("selective_search", "edge_boxes", "sliding_windows")
SETTINGS_FILE = "proposals.json"
THRESHOLDS = (0.5, 0.7)


@dataclasses.dataclass(frozen=True)
class Method:
    """How regions are found in an image.

    Attributes:
        name: one of `METHODS`.
        quality: Selective Search's mode.
        max_regions: most regions of an image.
        max_side: of Selective Search, as `kerasdet.data.proposals.selective_search` takes it.
        model: EdgeBoxes' file.
    """

    name: str = METHODS[0]
    quality: bool = False
    max_regions: int = proposals.MAX_REGIONS
    max_side: int | None = proposals.MAX_SIDE
    model: str | None = None

    def __post_init__(self):
        if self.name not in METHODS:
            raise InputError(f"Regions are found by {', '.join(METHODS)}, not by {self.name!r}.")
        if self.quality and self.name != "selective_search":
            raise InputError(f"Selective Search alone has a quality mode, not {self.name}.")
        if self.max_regions < 1:
            raise InputError(f"max_regions wants 1 or more, not {self.max_regions}.")
        if self.max_side is not None and self.max_side < 1:
            raise InputError(f"max_side wants pixels, 1 or more, or None, not {self.max_side}.")

    def regions(self, image: np.ndarray) -> np.ndarray:
        """(R, 4) float32, xyxy pixels of an image (H, W, 3)."""
        if self.name == "sliding_windows":
            height, width = image.shape[:2]
            return proposals.sliding_windows(height, width, max_regions=self.max_regions)
        if self.name == "edge_boxes":
            return proposals.edge_boxes(image, self.model, max_regions=self.max_regions)
        return proposals.selective_search(
            image, quality=self.quality, max_regions=self.max_regions, max_side=self.max_side
        )

    def check(self) -> None:
        """Searches a black image, so that what is missing is missing here and now.

        Raises:
            InputError: if there is no OpenCV, or not the model's file.
        """
        self.regions(np.zeros((64, 64, 3), np.uint8))

    def settings(self) -> dict[str, Any]:
        """What the regions depend on."""
        kept: dict[str, Any] = {"method": self.name, "max_regions": self.max_regions}
        if self.name == "selective_search":
            kept |= {"quality": self.quality, "max_side": self.max_side}
        if self.name == "edge_boxes":
            kept["model"] = os.path.basename(self.model or "")
        return kept


@dataclasses.dataclass(frozen=True)
class Proposals:
    """What `propose` found.

    Attributes:
        folder: where the regions are.
        images: that have regions.
        computed: of these, now; the others had them before.
        regions: of all images.
        objects: that the recall counts: no crowds, no difficult ones.
        recall: share of the objects that some region overlaps by this IoU or more, by IoU.
        average_best_overlap: mean IoU of the objects with their best region.
        failures: (image, reason) of those that could not be searched.
        seconds: it took.
    """

    folder: Path
    images: int
    computed: int
    regions: int
    objects: int
    recall: dict[float, float]
    average_best_overlap: float
    failures: list[tuple[str, str]]
    seconds: float

    def __str__(self) -> str:
        mean = self.regions / max(self.images, 1)
        lines = [
            f"{self.images} images, {self.regions} regions, {mean:.0f} an image, in {self.folder}",
            f"computed now: {self.computed}; there before: {self.images - self.computed}; "
            f"{self.seconds:.1f} s",
        ]
        if self.objects:
            recall = ", ".join(f"{share:.3f} at IoU {iou}" for iou, share in self.recall.items())
            lines.append(
                f"recall of {self.objects} objects: {recall}; "
                f"average best overlap {self.average_best_overlap:.3f}"
            )
        lines += [f"not searched: {image}: {reason}" for image, reason in self.failures]
        return "\n".join(lines)


def propose(
    examples: Any,
    folder: str | os.PathLike,
    *,
    method: Method | str = METHODS[0],
    quality: bool = False,
    workers: int | None = None,
    limit: int | None = None,
) -> Proposals:
    """Finds the regions of every image, keeps them in a folder, and measures their recall.

    Args:
        examples: what a reader gives. Images in files are read by the workers, from the `records`.
        folder: for the regions; made if it is not there.
        method: a name of `METHODS`, or a `Method` with its settings.
        quality: Selective Search's quality mode.
        workers: processes; None: as many as there are cores for this one. 1: none but this one.
        limit: the first so many images alone.

    Returns:
        Counts and recall, over all these images, whether computed now or before.

    Raises:
        InputError: if the folder holds regions found in another way or cannot be written, OpenCV is
            missing, or an argument makes no sense. An image that cannot be read is no error: it is
            listed in the result.

    Called from a script with `workers` other than 1, the call belongs under
    `if __name__ == "__main__":`, since every worker imports the script.
    """
    if isinstance(method, str):
        method = Method(method, quality=quality)
    workers = _cores() if workers is None else workers
    for name, number in (("workers", workers), ("limit", limit)):
        if number is not None and number < 1:
            raise InputError(f"{name} wants 1 or more, not {number}.")
    method.check()
    if method.name == "sliding_windows":  # no work to share, and it needs Keras
        workers = 1
    begin = time.monotonic()
    folder = Path(folder)
    _agree(folder, method)
    tally = _Tally()
    total = _count(examples, limit)
    found = _results(_items(examples, limit), folder, method, workers)
    for item, result in track(found, "Searching regions", total=total):
        tally.add(item, result)
    return tally.report(folder, time.monotonic() - begin)


def best_overlaps(boxes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """IoU of each box with its best region: (G,) for boxes (G, 4) and regions (R, 4), both xyxy."""
    boxes, regions = np.asarray(boxes, np.float32), np.asarray(regions, np.float32)
    low = np.maximum(boxes[:, None, :2], regions[:, :2])  # (G, R, 2)
    high = np.minimum(boxes[:, None, 2:], regions[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = (np.prod(b[:, 2:] - b[:, :2], axis=-1) for b in (boxes, regions))
    union = next(areas)[:, None] + next(areas) - shared
    return (shared / np.maximum(union, 1e-9)).max(axis=1, initial=0.0)


def content_key(
    path: str | os.PathLike | None = None,
    pixels: np.ndarray | None = None,
    *,
    annotated: tuple[int, int] | None = None,
) -> str:
    """The name of an image's file of regions: SHA-256 of its file, or of its pixels.

    Of a photo that is turned upright, the orientation follows, as in "1f...-6": the same file may be
    used as stored, where its annotations say so.

    Args:
        path: of the image's file; None or "" where it is in none.
        pixels: uint8 (H, W, 3), which then is asked for.
        annotated: (height, width) that annotations of the file state, as for `read_image`.

    Raises:
        OSError: if the file cannot be read.
    """
    if not path:
        image = np.ascontiguousarray(pixels, np.uint8)
        return hashlib.sha256(f"pixels {image.shape} ".encode() + image.tobytes()).hexdigest()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    turn = turn_of_file(path, annotated)
    return digest if turn == 1 else f"{digest}-{turn}"


def regions_file(folder: str | os.PathLike, key: str) -> Path:
    """Where the regions of the image of this `content_key` are."""
    return Path(folder) / f"{key}.npz"


class _Item(NamedTuple):
    """An image on its way: in a file, or its pixels; its (height, width); and its objects (G, 4)."""

    name: str
    path: str
    pixels: np.ndarray | None
    size: tuple[int, int]
    boxes: np.ndarray


class _Result(NamedTuple):
    regions: np.ndarray | None
    computed: bool
    fault: str = ""


class _Tally:
    def __init__(self):
        self.images = self.computed = self.regions = 0
        self.best: list[np.ndarray] = [np.zeros(0)]
        self.failures: list[tuple[str, str]] = []

    def add(self, item: _Item, result: _Result) -> None:
        if result.regions is None:
            self.failures.append((item.path or item.name, result.fault))
            return
        self.images += 1
        self.computed += result.computed
        self.regions += len(result.regions)
        self.best.append(best_overlaps(item.boxes, result.regions))

    def report(self, folder: Path, seconds: float) -> Proposals:
        best = np.concatenate(self.best)
        shares = {t: float(np.mean(best >= t)) if len(best) else 0.0 for t in THRESHOLDS}
        return Proposals(
            folder,
            self.images,
            self.computed,
            self.regions,
            objects=len(best),
            recall=shares,
            average_best_overlap=float(np.mean(best)) if len(best) else 0.0,
            failures=self.failures,
            seconds=seconds,
        )


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _count(examples: Any, limit: int | None) -> int | None:
    records = getattr(examples, "records", None)
    size = len(records) if records is not None else int(examples.cardinality())
    if size < 0:
        return limit
    return size if limit is None else min(size, limit)


def _items(examples: Any, limit: int | None) -> Iterator[_Item]:
    records = getattr(examples, "records", None)
    if records is None:
        elements = examples if limit is None else examples.take(limit)
        for example in elements.as_numpy_iterator():
            name = example.get("image_id", b"").decode("utf-8", "replace")
            image = example["image"]
            yield _Item(name, "", image, image.shape[:2], _counted(example))
        return
    pixels = getattr(examples, "pixels", None)
    for number, record in enumerate(records[:limit]):
        image = None if pixels is None else np.asarray(pixels(number))
        fields = {name: getattr(record, name) for name in ("boxes", "crowd", "difficult")}
        path = record.path if image is None else ""
        size = record.height, record.width
        yield _Item(record.image_id, path, image, size, _counted(fields))


def _counted(fields: Any) -> np.ndarray:
    boxes = np.asarray(fields["boxes"], np.float32).reshape(-1, 4)
    flags = [np.asarray(fields[key], bool) for key in ("crowd", "difficult") if key in fields]
    return boxes[~np.any(flags, axis=0)] if flags else boxes


def _agree(folder: Path, method: Method) -> None:
    """Says in the folder how its regions are found; refuses one that says otherwise."""
    path, ours = folder / SETTINGS_FILE, method.settings()
    try:
        if path.exists():
            theirs = json.loads(path.read_text(encoding="utf-8"))
            if theirs != ours:
                raise InputError(
                    f"{folder} holds regions of {json.dumps(theirs)}, not of {json.dumps(ours)}: "
                    "name another folder."
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(ours, indent=1) + "\n", encoding="utf-8")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} says not how its regions were found: {error}.") from error
    except OSError as error:
        raise InputError(f"Regions cannot be kept in {folder}: {error.strerror}.") from error


def _results(
    items: Iterator[_Item], folder: Path, method: Method, workers: int
) -> Iterator[tuple[_Item, _Result]]:
    """The results in the items' order; a few are worked on while more are read."""
    if workers == 1:
        for item in items:
            yield item, _search(item.path, item.pixels, item.size, str(folder), method)
        return
    waiting: collections.deque = collections.deque()
    # Spawned: a fork of a process that runs TensorFlow hangs.
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )
    try:
        for item in items:
            with _interrupts_held():  # the first call starts the processes
                what = item.path, item.pixels, item.size
                future = pool.submit(_search, *what, str(folder), method)
            waiting.append((item._replace(pixels=None), future))
            if len(waiting) >= 4 * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "A process that searched regions ended: was there too little memory, or is a script's "
            "call not under if __name__ == '__main__':? Fewer workers=, or 1, may help."
        ) from error
    except BaseException:  # an interrupt among them: nobody waits for what is searched now
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches this process after the block, and no process that is started in it.

    The shell sends it to all of them, and one that it ends while it starts leaves the others waiting.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """A worker's start: Ctrl-C is left to the process that waits for it; OpenCV gets one thread."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _search(
    path: str, pixels: np.ndarray | None, size: tuple[int, int], folder: str, method: Method
) -> _Result:
    """The regions of one image, from the folder or else computed and put there."""
    try:
        kept = regions_file(folder, content_key(path, pixels, annotated=size))
        if kept.exists():
            try:
                return _Result(read_written(kept)[0], False)
            except InputError:
                pass  # it is damaged, and written anew
        image = read_image(path if pixels is None else pixels, annotated=size)
    except OSError as error:
        return _Result(None, False, error.strerror or str(error))
    except InputError as error:
        return _Result(None, False, str(error))
    regions = method.regions(image)
    write_regions(kept, regions, image.shape[:2])
    return _Result(regions, True)
