"""Two thin matrices in place of a large one."""

from typing import NamedTuple

import numpy as np

# Rows that are squared in float64 at a time, so that a large kernel is never held twice.
_ROWS = 1024


class Factors(NamedTuple):
    """`first` (in, rank) and `second` (rank, out), float32."""

    first: np.ndarray
    second: np.ndarray


def factors(kernel, rank) -> Factors:
    """The two matrices whose product is nearest to a kernel, among those of this rank.

    The product is the truncated singular value decomposition: what it leaves out of `x @ kernel` is
    at most as long as the first singular value left out times the length of x.

    Args:
        kernel: (in, out) array.
        rank: of the product.

    Source: Girshick, Fast R-CNN, arXiv:1504.08083, sec. 3.1; tools/compress_net.py of the release.
        Differs from it: by the eigenvectors of the smaller square in float64, of VGG16's fc6 (25088,
        4096) a fraction of the work; where the kernel is wider than tall, the singular values go
        into the second matrix.
    """
    tall = kernel.shape[0] >= kernel.shape[1]
    side = min(kernel.shape)
    square = np.zeros((side, side))
    for start in range(0, max(kernel.shape), _ROWS):
        rows = kernel[start : start + _ROWS] if tall else kernel[:, start : start + _ROWS].T
        rows = rows.astype("float64")
        square += rows.T @ rows
    _, vectors = np.linalg.eigh(square)  # ascending
    vectors = vectors[:, ::-1][:, :rank].astype("float32")  # (side, rank)
    if tall:
        return Factors(kernel @ vectors, vectors.T)
    return Factors(vectors, vectors.T @ kernel)
