"""Whether an exported copy finds what the model finds, and by how much they differ."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kerasdet.errors import KerasdetError
from kerasdet.suppression import Detections

# Two boxes further apart than this, as a share of the image's longer side, are not the same one.
_SAME_OBJECT = 0.02


class Tolerance(NamedTuple):
    """How far an exported copy may be from the model.

    Attributes:
        pixels: of a box edge, in pixels of the image.
        score: of a score.
        unmatched: share of detections that only one of the two has. Rounding moves an overlap
            across the suppression threshold, or a score across the last row's, now and then.
    """

    pixels: float = 0.05
    score: float = 1e-4
    unmatched: float = 0.02


class Difference(NamedTuple):
    """How far a copy's detections are from the model's.

    Attributes:
        images: number of images compared.
        detections: number of detections of the model in them.
        pixels: largest difference of a box edge, in pixels of the image.
        score: largest difference of a score.
        unmatched: detections that only one of the two has.
    """

    images: int
    detections: int
    pixels: float
    score: float
    unmatched: int

    def __str__(self) -> str:
        return (
            f"boxes by at most {self.pixels:.2g} px, scores by {self.score:.2g}, "
            f"{self.unmatched} unmatched of {self.detections} detections in {self.images} images"
        )


def difference(
    expected: Sequence[Detections], found: Sequence[Detections], sizes: Sequence[tuple[int, int]]
) -> Difference:
    """Compares detections image by image, whatever the order of nearly equal scores.

    Args:
        expected: the model's.
        found: the copy's.
        sizes: (height, width) of each image, pixels.
    """
    pixels, score, unmatched = 0.0, 0.0, 0
    for ours, theirs, size in zip(expected, found, sizes, strict=True):
        free = np.ones(len(theirs.scores), bool)
        for box, value, label in zip(ours.boxes, ours.scores, ours.labels, strict=True):
            apart = np.abs(theirs.boxes - box).max(axis=1, initial=0.0)
            candidate = free & (theirs.labels == label) & (apart <= _SAME_OBJECT * max(size))
            if not candidate.any():
                unmatched += 1
                continue
            # Of several boxes in one place the one with the same score.
            distance = np.where(candidate, apart + np.abs(theirs.scores - value), np.inf)
            best = int(np.argmin(distance))
            free[best] = False
            pixels = max(pixels, float(apart[best]))
            score = max(score, float(np.abs(theirs.scores[best] - value)))
        unmatched += int(free.sum())
    total = sum(len(ours.scores) for ours in expected)
    return Difference(len(expected), total, pixels, score, unmatched)


def agrees(measured: Difference, tolerance: Tolerance) -> bool:
    """Whether a difference is no more than is allowed."""
    within = measured.pixels <= tolerance.pixels and measured.score <= tolerance.score
    return within and measured.unmatched <= tolerance.unmatched * measured.detections


def require_same(measured: Difference, tolerance: Tolerance, what: str) -> None:
    """Raises where a copy differs by more than rounding.

    Args:
        measured: the difference.
        tolerance: what is allowed.
        what: what was compared, for the sentence.

    Raises:
        KerasdetError: saying by how much.
    """
    if not agrees(measured, tolerance):
        raise KerasdetError(
            f"{what} does not find what the model finds and was removed; they differ: {measured}. "
            f"Allowed: {tolerance.pixels:g} px, {tolerance.score:g} of score, "
            f"{tolerance.unmatched:.0%} unmatched."
        )


def from_outputs(outputs, sizes) -> list[Detections]:
    """The four named outputs to what `Detector.detect` returns, without names.

    Args:
        outputs: dict of NumPy arrays, as `kerasdet.export.graph.named_outputs` describes.
        sizes: (height, width) of each image, pixels.
    """
    found = []
    for i, (height, width) in enumerate(sizes):
        count = int(outputs["num_detections"][i])
        boxes = outputs["detection_boxes"][i, :count][:, [1, 0, 3, 2]]
        boxes = boxes * np.array([width, height, width, height], "float32")
        labels = outputs["detection_classes"][i, :count].astype("int32") - 1
        found.append(Detections(boxes, outputs["detection_scores"][i, :count], labels, count))
    return found


def sample_images(image_size, count=2) -> list[np.ndarray]:
    """Pictures of coloured blobs of several sizes, none of the network's shape.

    Args:
        image_size: (height, width) of the network input.
        count: how many.

    Returns:
        uint8 (H, W, 3) arrays, each of its own size.
    """
    height, width = image_size
    random = np.random.default_rng(0)
    images = []
    for i in range(count):
        image = np.zeros((height * (3 + i) // 4, width * (5 + i) // 4, 3))
        for cell in (4, 16, 64):  # structure at every scale a network looks for
            rows, columns = -(-image.shape[0] // cell), -(-image.shape[1] // cell)
            blobs = np.kron(random.uniform(0, 85, (rows, columns, 3)), np.ones((cell, cell, 1)))
            image += blobs[: image.shape[0], : image.shape[1]]
        images.append(image.astype("uint8"))
    return images
