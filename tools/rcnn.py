"""R-CNN, the yardstick of Fast R-CNN: every region goes through the whole network by itself.

Girshick et al., Rich feature hierarchies for accurate object detection and semantic segmentation,
CVPR 2014, arXiv:1311.2524: a region with some of what is around it is warped to the network's size,
whatever its shape. Here the network is a Fast R-CNN's own, so that both do the same on a region but
for where the convolutions happen; R-CNN's support vector machines and the features on disk that they
are trained from, which take more of its time, are left out.
"""

import math

import numpy as np

from kerasdet.images import warp

SIDE = 224
"""What VGG-16 was trained on; 14x14 cells of conv5_3, and seven bins of 2x2, as its own pool5."""

CONTEXT = 16  # pixels around a region after warping (sec. 2.1)


def crop(image, region, mean, *, side=SIDE, context=CONTEXT) -> np.ndarray:
    """A region and what is around it, warped to a square.

    Args:
        image: (H, W, 3).
        region: xyxy pixels of the image, inside it.
        mean: RGB that stands where the image has ended.
        side: of the square.
        context: pixels of the square, on each side, that are around the region.

    Returns:
        (side, side, 3) float32.
    """
    (x1, y1, x2, y2), grown = region, context / (side - 2 * context)
    across = _placed(x1 - grown * (x2 - x1), x2 + grown * (x2 - x1), image.shape[1], side)
    down = _placed(y1 - grown * (y2 - y1), y2 + grown * (y2 - y1), image.shape[0], side)
    canvas = np.empty((side, side, 3), "float32")
    canvas[:] = mean
    seen = image[slice(*down[0]), slice(*across[0])]
    (top, bottom), (left, right) = down[1], across[1]
    canvas[top:bottom, left:right] = warp(seen, (bottom - top, right - left))
    return canvas


def _placed(first, last, length, side):
    """Of one axis: (first, last) pixels of the image that are seen, and where they are put."""
    seen = max(0, math.floor(first + 0.5)), min(length, math.floor(last + 0.5))
    seen = min(seen[0], length - 1), max(seen[1], seen[0] + 1)
    start, end = (round((edge - first) / (last - first) * side) for edge in seen)
    start = min(max(start, 0), side - 1)
    return seen, (start, min(max(end, start + 1), side))


def inputs_of(crops, stride=16) -> dict[str, np.ndarray]:
    """What a Fast R-CNN is called with for squares (N, side, side, 3) of one region each.

    A region that ends a cell before the square does, since both ends' cells belong to it.
    """
    end = crops.shape[1] - stride
    region = np.array([[0, 0, end, end]], "float32")
    return {"images": crops, "regions": np.tile(region, (len(crops), 1, 1))}


def rcnn(network, image, regions, mean, *, side=SIDE, batch=16) -> dict[str, np.ndarray]:
    """R-CNN's outputs for the regions of one image.

    Args:
        network: what gives a Fast R-CNN's raw outputs for its inputs, with 16 pixels a cell.
        image: (H, W, 3) RGB.
        regions: (R, 4) xyxy pixels of it.
        mean: of the network.
        side: of the squares that regions are warped to.
        batch: squares that go through the network together.

    Returns:
        {"classes": (R, K+1), "boxes": (R, K, 4)}, for `FastRCNN.decode` with these regions.
    """
    parts = []
    for start in range(0, len(regions), batch):
        some = regions[start : start + batch]
        crops = np.stack([crop(image, region, mean, side=side) for region in some])
        outputs = network(inputs_of(crops))
        parts.append({name: np.asarray(value)[:, 0] for name, value in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
