"""Max pooling of regions into grids of fixed size, as Fast R-CNN's release does it."""

import keras
import numpy as np
from keras import ops

from kerasdet.layers.region_inputs import (
    both,
    check_pooling,
    given_regions,
    image_of_each,
    pooled_shape,
)
from kerasdet.layers.window_maxima import Rectangles, choose_sizes, maxima, places_of_maxima

# Regions an image from which a larger table of windows is repaid by fewer look-ups.
_MANY_REGIONS = 600
# Cells up to which a region's bins are looked up; a map this long comes from a 16 384-pixel image.
_LONGEST = 1024
# Side in cells taken for a map whose size is not known before it comes: 1000 pixels' at 1/16. On a
# longer one long bins take more look-ups.
_UNKNOWN_SIDE = 63
# Cells from the map's corner past which a coordinate may be moved without any effect.
_FARTHEST = 2.0**20


@keras.saving.register_keras_serializable(package="kerasdet")
class ROIPooling(keras.layers.Layer):
    """Divides every region of a map into equal bins and takes each bin's maximum.

    Corners are rounded to cells, halves away from zero; both corners' cells belong to the region:

        start, end = round(x1 * scale), round(x2 * scale);  size = max(end - start + 1, 1)
        bin i = cells start + floor(i * size / p) to start + ceil((i + 1) * size / p), exclusive,
                clipped to the map

    likewise for y, in the release's float32. So a region that is reversed is one cell wide, at its
    first corner; a bin wholly outside the map is 0 and passes no gradient. The gradient of a bin
    goes to the cell its maximum stands in, of equal ones the first, row by row; over regions that
    overlap it adds up. It can be taken once: there is no second derivative.

    Args:
        pool_size: p, bins along each side.
        spatial_scale: cells of the map for one pixel of the image, 1/16 for VGG16's conv5_3.
        **kwargs: what every Keras layer takes.

    Call:
        maps: float (B, H, W, C); C must be known when the layer is built.
        regions: float (B, R, 4) xyxy in pixels of the image that the maps were made from, padded
            with -1. A row of four -1, or one with a NaN, gives zeros.
        returns: (B, R, p, p, C), in the layer's dtype. The pair may come as one tuple.

    Raises:
        InputError: for another pool_size or scale, or inputs of another shape.

    Source: Girshick, Fast R-CNN, arXiv:1504.08083, sec. 2.1; roi_pooling_layer.cpp of the release.
    """

    def __init__(self, pool_size, spatial_scale, **kwargs):
        # Pixels do not fit into half precision: the layer casts the maps alone.
        super().__init__(**{"autocast": False, **kwargs})
        check_pooling(type(self).__name__, pool_size, spatial_scale)
        self.pool_size = pool_size
        self.spatial_scale = spatial_scale

    def call(self, maps, regions=None):
        """Pools the regions of each image's map."""
        maps, regions = both(maps, regions)
        pooled_shape(type(self).__name__, maps.shape, regions.shape, self.pool_size)
        maps, regions = ops.cast(maps, self.compute_dtype), ops.cast(regions, "float32")
        pooled = self._pool(maps, regions)
        return ops.reshape(pooled, (*ops.shape(regions)[:2], *pooled.shape[1:]))

    def _pool(self, maps, regions):
        """(B * R, p, p, C), with the gradient described above."""
        many = (regions.shape[1] or 0) >= _MANY_REGIONS
        longest = [_longest_bin(side, self.pool_size) for side in maps.shape[1:3]]

        @ops.custom_gradient
        def pool(maps, regions):
            bins = self._bins(maps, regions)
            pooled = maxima(maps, bins, choose_sizes(maps, *longest, many=many))

            def gradient(*upstream):
                places = places_of_maxima(maps, bins, choose_sizes(maps, *longest), pooled)
                return _summed(upstream[0], places, maps), ops.zeros_like(regions)

            return pooled, gradient

        return pool(maps, regions)

    def _bins(self, maps, regions):
        """Bins of all regions (B, R, 4) of all images, B * R grids."""
        height, width = ops.shape(maps)[1:3]
        image = image_of_each(regions)
        regions = ops.reshape(regions, (-1, 4))
        given = given_regions(regions)
        cells = _rounded(ops.where(given[:, None], regions, 0) * self.spatial_scale)
        left, top, right, bottom = ops.unstack(cells, 4, axis=-1)
        down = self._edges(top, bottom, height)
        across = self._edges(left, right, width)
        ends = [ops.where(given[:, None], end, 0) for end in (down[1], across[1])]
        return Rectangles(image, down[0], ends[0], across[0], ends[1])

    def _edges(self, first, last, side):
        """Starts and ends (N, p) of the bins between two cells (N,), clipped to the side."""
        lower, upper = _bin_edges(self.pool_size)
        size = ops.maximum(last - first + 1, 1)
        found = ops.minimum(size, _LONGEST)
        part = np.arange(self.pool_size, dtype="int32")
        long, size = (size > _LONGEST)[:, None], size[:, None]
        start = ops.where(long, part * size // self.pool_size, ops.take(lower, found, axis=0))
        end = -(-(part + 1) * size // self.pool_size)
        end = ops.where(long, end, ops.take(upper, found, axis=0))
        return [ops.clip(first[:, None] + edge, 0, side) for edge in (start, end)]

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
        }


def _rounded(x):
    """C's round: to whole numbers, halves away from zero; int32."""
    size = ops.abs(x)
    whole = ops.floor(size)
    # Compared, not subtracted: compilers may join a subtraction with the multiplication before it.
    whole = ops.where(size >= whole + 0.5, whole + 1, whole)
    return ops.cast(ops.sign(x) * ops.minimum(whole, _FARTHEST), "int32")


def _bin_edges(pool_size):
    """First cells and exclusive ends of the bins of 0 to `_LONGEST` cells, two int32 (sizes, p).

    Computed here, in float32 as the release does it: 57 cells in 7 bins are 8.142858 a bin, 7 of
    which make 57.000004, so that the last bin ends one cell past the region. XLA turns the division
    by a constant into a multiplication and would give other bins.
    """
    size = np.arange(_LONGEST + 1, dtype="float32")[:, None] / np.float32(pool_size)
    part = np.arange(pool_size, dtype="float32")
    return np.floor(part * size).astype("int32"), np.ceil((part + 1) * size).astype("int32")


def _longest_bin(side, pool_size) -> int:
    """Cells of the longest bin of a region that lies inside the image of a map with that side.

    Such a region has up to one cell more than the map, as pixel 799 of 800 is rounded to cell 50.
    """
    side = side or _UNKNOWN_SIDE
    lower, upper = _bin_edges(pool_size)
    return min(int((upper - lower)[1 : side + 2].max()), side)


def _summed(values, places, maps):
    """The values added up where `places` says, in the shape and dtype of the maps."""
    dtype = "float64" if maps.dtype == "float64" else "float32"
    values, places = ops.cast(ops.reshape(values, (-1,)), dtype), ops.reshape(places, (-1,))
    shape = ops.shape(maps)
    count = shape[0] * shape[1] * shape[2] * shape[3]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Many times faster than a sum of segments, which TensorFlow makes for long rows.
        found = tf.raw_ops.DenseBincount(
            input=places, size=count, weights=values, binary_output=False
        )
    else:
        found = ops.segment_sum(values, places, num_segments=count + 1)[:-1]
    return ops.cast(ops.reshape(found, shape), maps.dtype)
