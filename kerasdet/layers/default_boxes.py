"""SSD's default boxes: the fixed set of boxes that the network's outputs are offsets from."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kerasdet.errors import InputError


class BoxTable(NamedTuple):
    """The default boxes of one released network, map by map.

    Attributes:
        image_size: side of the square input, pixels.
        grids: side of each square feature map, cells.
        steps: pixels from one cell to the next.
        sizes: side of each map's square box, pixels, and one more: the map's second
            square has the geometric mean of its own size and the next.
        ratios: extra width/height ratios of each map, each used both ways.
        clamp_sizes: whether widths and heights are cut at the image's.
        clamp_centres: whether centres beyond the image are moved to its edge.
    """

    image_size: int
    grids: tuple[int, ...]
    steps: tuple[float, ...]
    sizes: tuple[float, ...]
    ratios: tuple[tuple[float, ...], ...]
    clamp_sizes: bool = False
    clamp_centres: bool = False


def _table300(sizes, *, clamp_sizes=False, clamp_centres=False):
    grids, steps = (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300)
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    return BoxTable(300, grids, steps, sizes, ratios, clamp_sizes, clamp_centres)


def _table512(sizes):
    grids, steps = (64, 32, 16, 8, 4, 2, 1), (8, 16, 32, 64, 128, 256, 512)
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,))
    return BoxTable(512, grids, steps, sizes, ratios)


_VOC300 = (30, 60, 111, 162, 213, 264, 315)
_COCO300 = (21, 45, 99, 153, 207, 261, 315)

# Sizes from the deploy.prototxt of each release. SSD512's are printed with decimals there, but
# prior_box_layer.cpp reads them into integers since 2016-06-03, so these are what really ran.
RELEASED: dict[str, BoxTable] = {
    "ssd300_voc": _table300(_VOC300),
    "ssd300_coco": _table300(_COCO300),
    "ssd512_voc": _table512((35, 76, 153, 230, 307, 384, 460, 537)),
    "ssd512_coco": _table512((20, 51, 133, 215, 296, 378, 460, 542)),
    # torchvision/models/detection/ssd.py: COCO's sizes, and anchor_utils.py cuts w and h at 1.
    "ssd300_torchvision": _table300(_COCO300, clamp_sizes=True),
    # amdegroot/ssd.pytorch, prior_box.py: VOC's sizes; clamps (cx, cy, w, h) to 0..1, and the last
    # cells of the 10x10 map stand at 9.5 * 32 = 304 pixels.
    "ssd300_amdegroot": _table300(_VOC300, clamp_sizes=True, clamp_centres=True),
}


def paper_sizes(image_size, map_count, *, s_min=0.2, s_max=0.9, s_first=None) -> tuple[float, ...]:
    """Box sizes by the paper's formula: scales evenly spaced from `s_min` to `s_max`.

        s_k = s_min + (s_max - s_min) / (m - 1) * (k - 1),  k = 1..m

    Args:
        image_size: side of the input, pixels.
        map_count: m, feature maps.
        s_min: scale of the first map, share of the side.
        s_max: scale of the last map.
        s_first: scale of an additional, finest map put before the others, which then
            number m - 1; the paper's own networks give conv4_3 0.1 this way (sec. 3.1).

    Returns:
        m + 1 sizes in pixels: one a map, and the next step for the last map's second square.

    Raises:
        InputError: if the scales do not grow.

    Source: Liu et al., SSD, arXiv:1512.02325, sec. 2.2, eq. 4.
    """
    if not 0 < s_min < s_max or (s_first is not None and not 0 < s_first < s_min):
        raise InputError(
            f"Default boxes want 0 < s_first < s_min < s_max, not {s_first}, {s_min}, {s_max}."
        )
    even = map_count if s_first is None else map_count - 1
    step = (s_max - s_min) / max(even - 1, 1)
    scales = [s_min + step * k for k in range(even + 1)]
    if s_first is not None:
        scales = [s_first, *scales]
    return tuple(image_size * scale for scale in scales)


@keras.saving.register_keras_serializable(package="kerasdet")
class DefaultBoxes(keras.layers.Layer):
    """The default boxes of a set of feature maps, a constant made once.

    Order, that of Caffe's PriorBox and of every released weight file: map by map, row by
    row, cell by cell; in a cell the square of this size, the square of the geometric mean
    of this size and the next, then for each ratio the wide box and the tall one.

    Args:
        image_size: (height, width) of the network input in pixels, or one number.
        grids: for each map its (height, width) in cells, or one number.
        sizes: for each map the side of its square box in pixels, and one more.
        ratios: for each map its extra width/height ratios.
        steps: for each map the pixels from cell to cell; None: image size / grid.
        clamp_sizes: cut widths and heights at the image's, as torchvision does.
        clamp_centres: move centres beyond the image to its edge, as amdegroot/ssd.pytorch does.
        **kwargs: what every Keras layer takes.

    Attributes:
        boxes: (A, 4) float32 NumPy array, xyxy pixels of the network input, not clipped.
        boxes_per_cell: for each map, how many boxes a cell has.

    Call:
        maps: the feature maps, (B, h, w, C) each, in order; only their shapes are read.
        returns: (A, 4), `boxes` as a tensor.

    Raises:
        InputError: if the lists' lengths differ, a size or ratio is not positive, or the
            maps' shapes are not `grids`.

    Source: SSD sec. 2.2; prior_box_layer.cpp of the release.
    """

    def __init__(
        self,
        image_size,
        grids,
        sizes,
        ratios,
        *,
        steps=None,
        clamp_sizes=False,
        clamp_centres=False,
        **kwargs,
    ):
        super().__init__(**{"trainable": False, "dtype": "float32", **kwargs})
        self.image_size = _pair(image_size)
        self.grids = [_pair(grid) for grid in grids]
        self.sizes = [float(size) for size in sizes]
        self.ratios = [[float(ratio) for ratio in of_map] for of_map in ratios]
        if steps is None:
            height, width = self.image_size
            steps = [(height / rows, width / columns) for rows, columns in self.grids]
        self.steps = [_pair(step) for step in steps]
        self.clamp_sizes = clamp_sizes
        self.clamp_centres = clamp_centres
        self._check()
        self.boxes_per_cell = [2 + 2 * len(of_map) for of_map in self.ratios]
        self.boxes = np.concatenate([self._map_boxes(k) for k in range(len(self.grids))])

    @classmethod
    def released(cls, name: str, **kwargs) -> "DefaultBoxes":
        """The boxes of a released network: one of `RELEASED`'s names, such as "ssd300_voc"."""
        if name not in RELEASED:
            raise InputError(f"Wanted default boxes of one of {sorted(RELEASED)}, not {name!r}.")
        return cls(**RELEASED[name]._asdict(), **kwargs)

    def _check(self):
        count = len(self.grids)
        if not (len(self.ratios) == len(self.steps) == count and len(self.sizes) == count + 1):
            raise InputError(
                f"{count} feature maps want {count} lists of ratios, {count} steps and "
                f"{count + 1} sizes, not {len(self.ratios)}, {len(self.steps)} and "
                f"{len(self.sizes)}."
            )
        if min(self.sizes) <= 0 or any(r <= 0 for of_map in self.ratios for r in of_map):
            raise InputError(
                f"Sizes and ratios of default boxes must be positive: {self.sizes}, {self.ratios}."
            )

    def _map_boxes(self, k):
        """(cells * boxes_per_cell, 4) float32."""
        size, between = self.sizes[k], np.sqrt(self.sizes[k] * self.sizes[k + 1])
        shapes = [(size, size), (between, between)]
        for ratio in self.ratios[k]:
            long, short = size * np.sqrt(ratio), size / np.sqrt(ratio)
            shapes += [(long, short), (short, long)]
        half = np.array(shapes) / 2  # (n, 2) width, height
        if self.clamp_sizes:
            half = np.minimum(half, np.array(self.image_size[::-1]) / 2)
        rows, columns = self.grids[k]
        step_y, step_x = self.steps[k]
        y, x = np.meshgrid(
            (np.arange(rows) + 0.5) * step_y, (np.arange(columns) + 0.5) * step_x, indexing="ij"
        )
        centre = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
        if self.clamp_centres:
            centre = np.minimum(centre, np.array(self.image_size[::-1]))
        corners = np.concatenate([centre - half, centre + half], axis=-1)  # (cells, n, 4)
        return corners.reshape(-1, 4).astype("float32")

    def build(self, input_shape):
        """Checks that the maps are the ones the boxes were made for."""
        shapes = input_shape if isinstance(input_shape[0], list | tuple) else [input_shape]
        grids = [tuple(shape[1:3]) for shape in shapes]
        if grids != self.grids:
            raise InputError(f"Default boxes were made for maps of {self.grids}, not {grids}.")

    def call(self, maps):
        """All default boxes, (A, 4)."""
        return ops.convert_to_tensor(self.boxes)

    def compute_output_shape(self, input_shape):
        """(A, 4)."""
        return self.boxes.shape

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "grids": self.grids,
            "sizes": self.sizes,
            "ratios": self.ratios,
            "steps": self.steps,
            "clamp_sizes": self.clamp_sizes,
            "clamp_centres": self.clamp_centres,
        }


def _pair(value):
    """One number for both sides, or (height, width)."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value)
