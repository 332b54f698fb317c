"""Bilinear samples of regions, averaged in grids of fixed size."""

import keras
import numpy as np
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers.in_pieces import in_pieces
from kerasdet.layers.region_inputs import (
    both,
    check_pooling,
    given_regions,
    image_of_each,
    pooled_shape,
)


@keras.saving.register_keras_serializable(package="kerasdet")
class ROIAlign(keras.layers.Layer):
    """Divides every region of a map into equal bins and takes the mean of samples in each.

    Nothing is rounded to cells: sample i of s in bin j along x lies at

        x1 * scale - offset + (j + (i + 0.5) / s) * size / p,   size = (x2 - x1) * scale

    where cells' centres are whole numbers; its value is interpolated between the four centres around
    it. Samples up to a cell outside take the border's value, others are 0. The gradient goes to the
    map and not to the regions.

    Args:
        pool_size: p, bins along each side.
        spatial_scale: cells of the map for one pixel of the image.
        sampling_ratio: s, samples along each side of a bin. The authors' rule of one for each cell
            of the bin, rounded up, has another count for every region, and is not offered.
        aligned: offset is half a cell, so that pixels and cells cover the same area; False: as Mask
            R-CNN had it first, with offset 0 and regions of at least one cell.
        **kwargs: what every Keras layer takes.

    Call:
        maps: float (B, H, W, C); C must be known when the layer is built.
        regions: float (B, R, 4) xyxy in pixels of the image that the maps were made from, padded
            with -1. A row of four -1, or one with a NaN, gives zeros.
        returns: (B, R, p, p, C), in the layer's dtype. The pair may come as one tuple.

    Raises:
        InputError: for another pool_size, scale or sampling_ratio, or inputs of another shape.

    Source: He et al., Mask R-CNN, arXiv:1703.06870, sec. 3; torchvision's roi_align_kernel.cpp.
    """

    def __init__(self, pool_size, spatial_scale, *, sampling_ratio=2, aligned=True, **kwargs):
        # Pixels do not fit into half precision: the layer casts the maps alone.
        super().__init__(**{"autocast": False, **kwargs})
        check_pooling(type(self).__name__, pool_size, spatial_scale)
        if not isinstance(sampling_ratio, int) or sampling_ratio < 1:
            raise InputError(f"ROIAlign wants a sampling_ratio from 1 on, not {sampling_ratio!r}.")
        self.pool_size = pool_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def call(self, maps, regions=None):
        """Pools the regions of each image's map."""
        maps, regions = both(maps, regions)
        pooled_shape(type(self).__name__, maps.shape, regions.shape, self.pool_size)
        maps = ops.cast(maps, self.compute_dtype)
        _, height, width, channels = ops.shape(maps)
        shape = (*ops.shape(regions)[:2], self.pool_size, self.pool_size, channels)
        image = image_of_each(regions)
        cells = ops.reshape(maps, (-1, channels))
        regions = ops.reshape(ops.stop_gradient(ops.cast(regions, "float32")), (-1, 4))
        given = given_regions(regions)
        left, top, right, bottom = ops.unstack(ops.where(given[:, None], regions, 0), 4, axis=-1)
        first = ops.cast(image * (height * width), "int32")[:, None]

        def sample(first, given, y, y_weight, x, x_weight):
            total = 0
            for i in range(y.shape[1]):  # samples of a bin, two cells each
                for j in range(x.shape[1]):
                    rows = first[:, :, None] + (y[:, i] * width)[:, :, None] + x[:, j][:, None, :]
                    weight = y_weight[:, i][:, :, None] * x_weight[:, j][:, None, :]
                    weight = ops.where(given[:, :, None], weight, 0)[..., None]
                    total += ops.cast(weight, cells.dtype) * ops.take(cells, rows, axis=0)
            return total

        down, across = self._samples(top, bottom, height), self._samples(left, right, width)
        numbers = channels * self.pool_size**2
        pooled = in_pieces(sample, (first, given[:, None], *down, *across), numbers=numbers)
        return ops.reshape(pooled, shape)

    def _samples(self, start, end, side):
        """Cells and weights, each (N, 2 s, p), for samples along one side."""
        offset = 0.5 if self.aligned else 0.0
        size = (end - start) * self.spatial_scale
        if not self.aligned:
            size = ops.maximum(size, 1.0)
        within = (np.arange(self.sampling_ratio)[:, None] + 0.5) / self.sampling_ratio
        part = ((np.arange(self.pool_size) + within) / self.pool_size).astype("float32")  # (s, p)
        at = (start * self.spatial_scale - offset)[:, None, None] + size[:, None, None] * part
        last = ops.cast(side - 1, "float32")
        inside = ops.logical_and(at >= -1.0, at <= last + 1.0)
        at = ops.clip(at, 0.0, last)
        low = ops.floor(at)
        high = ops.minimum(low + 1, last)
        share = at - low
        mean = 1 / self.sampling_ratio
        weights = ops.where(inside, mean * ops.stack([1 - share, share]), 0.0)
        cells = ops.cast(ops.stack([low, high]), "int32")
        shape = (-1, 2 * self.sampling_ratio, self.pool_size)
        return [ops.reshape(ops.moveaxis(each, 0, 1), shape) for each in (cells, weights)]

    def compute_output_shape(self, maps_shape, regions_shape=None):
        """(B, R, p, p, C)."""
        maps_shape, regions_shape = both(maps_shape, regions_shape)
        return pooled_shape(type(self).__name__, maps_shape, regions_shape, self.pool_size)

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "spatial_scale": self.spatial_scale,
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
        }
