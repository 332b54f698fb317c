"""Region proposals from an image alone: Selective Search, EdgeBoxes, sliding windows.

Nothing here needs TensorFlow or Keras, so that many processes can search at once. OpenCV, its
contrib modules among them, is asked for where it is first needed.
"""

import functools
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from kerasdet.errors import InputError
from kerasdet.images import read_image

MAX_REGIONS = 2000
"""Regions an image, as Fast R-CNN takes them (paper sec. 4; pascal_voc.py, top_k)."""

MAX_SIDE = 640
"""Longest side of photos as they are searched: COCO's, which the paper searches as they are."""

_MODEL_SOURCE = "testdata/cv/ximgproc/model.yml.gz of github.com/opencv/opencv_extra"


def selective_search(
    image, *, quality=False, max_regions=MAX_REGIONS, max_side=MAX_SIDE
) -> np.ndarray:
    """Regions that look like objects: neighbouring segments, merged step by step.

    Uijlings et al.: Selective Search for Object Recognition, IJCV 2013, as OpenCV has it. Merging
    starts from graph segmentations (sigma 0.8, no segment below 100 pixels): of HSV and Lab with
    k = 150, 300, 450 and two sets of similarities in the fast mode; of HSV, Lab, grey, hue and RG+grey
    with k = 150, 300, ... 750 and four sets in the quality mode. Boxes that several found come once.

    The order is the paper's (sec. 3.3): the n-th of the boxes, the largest first, is given n times
    a random number in [0, 1), and small products come first. The same image gives the same regions in
    the same order; OpenCV's own order is another in every call, and begins with the smallest.

    Differs from R-CNN's selective_search_boxes.m, whose regions are the release's:
        * Its fast mode starts from k = 50 and 100, its quality mode from 50, 100, 150 and 300, and
          k is the least size of a segment too.
        * It leaves out regions below 20 pixels a side; none is left out here, nor in the release's
          demo.
        * It searches VOC's photos as they are, up to 500 pixels wide, and ILSVRC's at a width of
          500. Here photos larger than `max_side` are made smaller.

    Args:
        image: RGB (H, W, 3), 0..255, or what `kerasdet.images.read_image` takes.
        quality: some four times as many regions, in three to five times the time.
        max_regions: most regions; None for all.
        max_side: pixels of the longer side from which on the image is searched at that size; None:
            at any size. Time grows with the area, and least sizes are in pixels.

    Returns:
        (R, 4) float32, xyxy pixels of the image.

    Raises:
        InputError: if there is no OpenCV with contrib modules, or that is no image.
    """
    cv2 = _opencv()
    pixels, scale = _searched(cv2, _bytes(image), max_side)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(pixels[..., ::-1]))  # BGR
    if quality:
        search.switchToSelectiveSearchQuality()
    else:
        search.switchToSelectiveSearchFast()
    return _pixels(_large_ones_first(_corners(search.process())) * scale, max_regions)


def edge_boxes(image, model=None, *, max_regions=MAX_REGIONS) -> np.ndarray:
    """Regions whose edges lie wholly inside them, the best score first.

    Zitnick and Dollar: Edge Boxes, ECCV 2014, as OpenCV has it, with its defaults: alpha 0.65, beta
    0.75, no box below 1000 pixels or longer than 3:1.

    Args:
        image: RGB (H, W, 3), 0..255, or what `kerasdet.images.read_image` takes.
        model: file of the structured forest that finds the edges, in OpenCV's format; None:
            models/kerasdet/model.yml.gz in Keras' folder, where downloaded weights are. OpenCV
            follows the numbers in it unchecked: take no file from strangers.
        max_regions: most regions.

    Returns:
        (R, 4) float32, xyxy pixels of the image.

    Raises:
        InputError: without the model's file, or without OpenCV and its contrib modules; if that
            file is no such model, or the image none.
    """
    cv2 = _opencv()
    path = _edge_model() if model is None else Path(model)
    if not path.is_file():
        raise InputError(
            f"EdgeBoxes wants OpenCV's structured forest ({_MODEL_SOURCE}) as model=, and there "
            f"is no file {path}."
        )
    forest = _forest(str(path), path.stat().st_mtime_ns)
    pixels = _bytes(image)
    edges = forest.detectEdges(pixels.astype(np.float32) / 255.0)
    directions = forest.computeOrientation(edges)
    boxes = cv2.ximgproc.createEdgeBoxes()
    boxes.setMaxBoxes(max_regions)
    found = boxes.getBoundingBoxes(forest.edgesNms(edges, directions), directions)
    rows = found[0] if isinstance(found, tuple) else found
    return _pixels(_inside(_corners(rows), pixels.shape), max_regions)


def sliding_windows(height, width, *, max_regions=None, **windows) -> np.ndarray:
    """Windows of several sizes and shapes all over an image, the largest first.

    Args:
        height: of the image, pixels.
        width: likewise.
        max_regions: most windows; None for all.
        **windows: `sides`, `ratios` and `step`, as `kerasdet.region_proposals.window_shares`
            takes them.

    Returns:
        (R, 4) float32, xyxy pixels.

    Raises:
        InputError: if the image has no area.
    """
    from kerasdet.region_proposals import window_shares

    if height < 1 or width < 1:
        raise InputError(f"Sliding windows want an image of a pixel or more, not {width}x{height}.")
    shares = window_shares(**windows)
    return _pixels(shares * np.array([width, height, width, height], np.float32), max_regions)


def _edge_model() -> Path:
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    return home / "models" / "kerasdet" / "model.yml.gz"


def _opencv() -> Any:
    """OpenCV with its contrib modules."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        cv2 = None
    if not hasattr(getattr(cv2, "ximgproc", None), "segmentation"):
        which = "There is none" if cv2 is None else f"OpenCV {cv2.__version__} here is without them"
        raise InputError(
            f"Region proposals want OpenCV with its contrib modules. {which}: "
            "pip install 'kerasdet[proposals]'."
        )
    return cv2


def _bytes(image) -> np.ndarray:
    """The image as uint8 (H, W, 3), its memory in one piece."""
    array = read_image(image)
    if array.dtype != np.uint8:
        array = np.clip(np.round(array), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(array)


def _searched(cv2, image, max_side):
    """The image as it is searched, and the photo's pixels for one of its, x y x y."""
    height, width = image.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return image, np.ones(4)
    if max_side < 1:
        raise InputError(f"max_side wants pixels, 1 or more, or None: {max_side}.")
    ratio = max_side / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return smaller, np.array([width / size[0], height / size[1]] * 2)


def _corners(rectangles) -> np.ndarray:
    """OpenCV's (x, y, width, height) as (R, 4) float64 xyxy; its pixels are areas, as ours."""
    boxes = np.asarray(rectangles, np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _large_ones_first(boxes) -> np.ndarray:
    """Selective Search's order, as `selective_search` says; equal boxes come once."""
    boxes = np.unique(boxes, axis=0)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    boxes = boxes[np.argsort(-area, kind="stable")]
    drawn = np.random.default_rng(0).uniform(size=len(boxes)) * np.arange(1, len(boxes) + 1)
    return boxes[np.argsort(drawn, kind="stable")]


def _inside(boxes, shape) -> np.ndarray:
    """The boxes cut at the image's edges; what is left of none is left out."""
    height, width = shape[:2]
    boxes = np.clip(boxes, 0, [width, height, width, height])
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def _pixels(boxes, max_regions) -> np.ndarray:
    if max_regions is not None and max_regions < 1:
        raise InputError(f"max_regions wants 1 or more, or None: {max_regions}.")
    return np.ascontiguousarray(boxes[:max_regions], np.float32)


@functools.lru_cache(maxsize=1)
def _forest(path, _changed):
    """OpenCV's structured forest from a file; it is some 10 MB and takes a second to read."""
    cv2 = _opencv()
    # A file without these numbers would end the process, not raise.
    wanted = ("stride", "shrinkNumber", "patchSize", "patchInnerSize", "numberOfTrees")
    try:
        file = cv2.FileStorage(path, cv2.FileStorage_READ)
        options = file.getNode("options")
        numbers = [0 if options.empty() else int(options.getNode(n).real()) for n in wanted]
        trees = [file.getNode(name).size() for name in ("childs", "featureIds", "thresholds")]
        file.release()
        if min(numbers) < 1 or trees != [numbers[-1]] * 3:
            raise InputError(f"{path} is no structured forest of OpenCV's ({_MODEL_SOURCE}).")
        return cv2.ximgproc.createStructuredEdgeDetection(path)
    except (cv2.error, SystemError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} is no structured forest of OpenCV's: {reason}.") from error
