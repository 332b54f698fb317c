"""Several looks at one image, and their vote: at every place of several scales, or in ten views.

Sermanet et al., OverFeat, arXiv:1312.6229, sec. 3.3 (multi-scale); Krizhevsky et al., ImageNet
Classification with Deep Convolutional Neural Networks, NIPS 2012, sec. 4.1 (ten views).

A network is a function here:

    probabilities(images) -> (B, h, w, K)

from float32 images (B, H, W, 3), RGB 0..255, to the classes' probabilities at each of h x w
places, as an array of NumPy or a back end. All images of one call have one size, which the network
takes as it comes; one that looks at the whole image at once has h = w = 1.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kerasdet import arguments
from kerasdet.errors import InputError
from kerasdet.images import resized, warp

SHORT_SIDE = 256
"""Of the image that windows are cut from, pixels (arXiv:1312.6229, sec. 3.1)."""

WINDOWS = (221, 231)
"""Sides of the windows that are: the paper's and the released networks'."""


class Classification(NamedTuple):
    """What an image shows, most probable first.

    Attributes:
        names: of the classes.
        probabilities: (n,) float32; of a vote its scores, which need not add up to 1.
        labels: (n,) int32.
    """

    names: list[str]
    probabilities: np.ndarray
    labels: np.ndarray


def ranked(scores: np.ndarray, class_names: Sequence[str], top: int = 5) -> Classification:
    """The best `top` of the classes' scores (K,); of equals the first class.

    Raises:
        InputError: if `top` is no whole number from 1.
    """
    top = arguments.whole_number("top", top)
    labels = np.argsort(-scores, kind="stable")[:top].astype("int32")
    return Classification([class_names[label] for label in labels], scores[labels], labels)


def short_side(window: int) -> int:
    """The shorter side to which an image is brought before a window is cut from it.

    Args:
        window: its side: 256 for the released 221 and 231, for others in the proportion of 231.
    """
    if window in WINDOWS:
        return SHORT_SIDE
    return round(window * SHORT_SIDE / max(WINDOWS))


def vote_scales(
    probabilities: Callable[[np.ndarray], Any],
    image: np.ndarray,
    scales: Sequence[tuple[int, int]],
    *,
    flip: bool = True,
    resize: str = "warp",
) -> np.ndarray:
    """OverFeat's vote: the best place of each class at each scale and flip, then the mean over these.

    Args:
        probabilities: the network. It is called once a scale, with the image and its mirror
            image, (2, height, width, 3), or without `flip` with (1, height, width, 3).
        image: (H, W, 3) in 0..255, as `kerasdet.images.read_image` gives it.
        scales: (height, width) of what the network sees; swapped for an image that is higher
            than wide.
        flip: whether the mirror image votes as well.
        resize: how the image comes to that size, one of `kerasdet.images.RESIZES`.

    Returns:
        (K,) float32; the classes' places differ, so that the sum is not 1.

    Raises:
        InputError: without scales.

    Source: sec. 3.3, (i) the spatial maximum for each class at each scale and flip, (ii) the mean
        of these vectors.
    """
    if not scales:
        raise InputError("A vote over scales wants at least one (height, width).")
    upright = image.shape[0] > image.shape[1]
    votes = []
    for size in scales:
        seen = resized(image, tuple(size)[::-1] if upright else tuple(size), resize)
        views = [seen, seen[:, ::-1]] if flip else [seen]
        votes += list(np.max(_maps(probabilities, views), axis=(1, 2)))
    return np.mean(votes, axis=0, dtype="float32")


def vote_views(
    probabilities: Callable[[np.ndarray], Any],
    image: np.ndarray,
    window: int | tuple[int, int],
) -> np.ndarray:
    """The mean over ten views: four corners and the centre, and the mirror images of these.

    The square in the image's middle is brought to `short_side`, and the views are cut from it (for a
    window that is not square, from the part with the window's aspect).

    Args:
        probabilities: the network; called once, with (10, height, width, 3). Where it answers for
            several places, their mean counts.
        image: (H, W, 3) in 0..255.
        window: side of a view, or (height, width).

    Returns:
        (K,) float32.

    Source: the release's API/python/sample_multiview.py.
    """
    views = ten_views(image, window)
    maps = _maps(probabilities, views)
    return np.mean(maps, axis=(0, 1, 2), dtype="float32")


def ten_views(image: np.ndarray, window: int | tuple[int, int]) -> np.ndarray:
    """What `vote_views` shows the network: (10, height, width, 3) float32.

    In order: top left, top right, bottom left, bottom right, centre, and the mirror images of these.
    """
    height, width = (window, window) if isinstance(window, int) else window
    larger = short_side(min(height, width)) / min(height, width)
    outer = round(height * larger), round(width * larger)
    whole = warp(middle(image, outer), outer)
    down, across = outer[0] - height, outer[1] - width
    places = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
    views = [whole[top : top + height, left : left + width] for top, left in places]
    return np.stack([*views, *(view[:, ::-1] for view in views)])


def middle(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The largest part in the middle of (H, W, 3) with the aspect of `size` (height, width).

    Source: darknet src/image.c, center_crop_image.
    """
    (height, width), (target_height, target_width) = image.shape[:2], size
    inner_height = max(1, min(height, width * target_height // target_width))
    inner_width = max(1, min(width, height * target_width // target_height))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    return image[top : top + inner_height, left : left + inner_width]


def accuracy(
    vote: Callable[[np.ndarray], np.ndarray],
    examples: Iterable[dict[str, Any]],
    *,
    top: Sequence[int] = (1, 5),
    limit: int | None = None,
) -> dict[str, float]:
    """How often a vote is right: 1 less the top-1 and top-5 error.

    Args:
        vote: from an image (H, W, 3) to the classes' scores (K,).
        examples: dicts with "image" and "label", as the readers in
            `kerasdet.data.classification` give them.
        top: an image counts as right whose label is among so many of the best.
        limit: look at the first images alone.

    Returns:
        {"top1": share, "top5": share}, by the numbers in `top`.

    Raises:
        InputError: if there are no images.
    """
    ranks = []
    for example in examples:
        scores = np.asarray(vote(np.asarray(example["image"])))
        order = np.argsort(-scores, kind="stable")
        ranks.append(int(np.flatnonzero(order == int(example["label"]))[0]))
        if len(ranks) == limit:
            break
    if not ranks:
        raise InputError("There are no images to vote on.")
    return {f"top{count}": float(np.mean(np.array(ranks) < count)) for count in top}


def _maps(probabilities, views):
    """(B, h, w, K) of the network, checked to be that."""
    maps = np.asarray(probabilities(np.ascontiguousarray(np.stack(views), "float32")))
    if maps.ndim != 4 or len(maps) != len(views) or 0 in maps.shape:
        raise InputError(
            f"A vote over {len(views)} views wants probabilities ({len(views)}, h, w, K), "
            f"not an array of {maps.shape}."
        )
    return maps
