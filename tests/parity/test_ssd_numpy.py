"""All of SSD300 on one image against a second network, written in NumPy from the release's layer table.

The weights follow a formula, so that nothing has to be downloaded; the release's rounding up
in pooling, holes in fc6, unit lengths after conv4_3 and the order of the outputs are written
out here once more.
"""

import numpy as np
import pytest
from keras import ops

from kerasdet import SSD

CLASSES = 20

# (name, kernel, stride, padding, holes, channels); a number alone is a pooling: kernel, stride, padding.
TRUNK = [
    *[("conv1_1", 3, 1, 1, 1, 64), ("conv1_2", 3, 1, 1, 1, 64), (2, 2, 0)],
    *[("conv2_1", 3, 1, 1, 1, 128), ("conv2_2", 3, 1, 1, 1, 128), (2, 2, 0)],
    *[(f"conv3_{i}", 3, 1, 1, 1, 256) for i in (1, 2, 3)],
    (2, 2, 0),
    *[(f"conv4_{i}", 3, 1, 1, 1, 512) for i in (1, 2, 3)],
    (2, 2, 0),
    *[(f"conv5_{i}", 3, 1, 1, 1, 512) for i in (1, 2, 3)],
    (3, 1, 1),
    *[("fc6", 3, 1, 6, 6, 1024), ("fc7", 1, 1, 0, 1, 1024)],
    *[("conv6_1", 1, 1, 0, 1, 256), ("conv6_2", 3, 2, 1, 1, 512)],
    *[("conv7_1", 1, 1, 0, 1, 128), ("conv7_2", 3, 2, 1, 1, 256)],
    *[("conv8_1", 1, 1, 0, 1, 128), ("conv8_2", 3, 1, 0, 1, 256)],
    *[("conv9_1", 1, 1, 0, 1, 128), ("conv9_2", 3, 1, 0, 1, 256)],
]
BOXES_PER_CELL = {"conv4_3": 4, "fc7": 6, "conv6_2": 6, "conv7_2": 6, "conv8_2": 4, "conv9_2": 4}


def scattered(count, start):
    """`count` numbers between -1 and 1 without visible order, by a formula of their index."""
    place = np.arange(start, start + count, dtype="float64")
    return (np.modf(np.sin(place * 12.9898) * 43758.5453)[0]).astype("float32")


class Formula:
    """Kernels that keep activations in range, and small biases, a different stretch for each."""

    def __init__(self):
        self.made = {}
        self.used = 0

    def weights(self, name, shape):
        if name not in self.made:
            count, fan_in = int(np.prod(shape)), int(np.prod(shape[:3]))
            # A uniform number in -1..1 has variance 1/3; a layer with ReLU wants 2 / fan-in.
            kernel = scattered(count, self.used).reshape(shape) * np.float32(np.sqrt(6 / fan_in))
            bias = scattered(shape[3], self.used + count) * np.float32(0.1)
            self.used += count + shape[3]
            self.made[name] = kernel, bias
        return self.made[name]


def convolve(x, kernel, bias, *, stride=1, padding=0, holes=1):
    """(h, w, in) to (h', w', out), tap by tap."""
    x = np.pad(x, [(padding, padding), (padding, padding), (0, 0)])
    size = kernel.shape[0]
    rows, columns = ((side - holes * (size - 1) - 1) // stride + 1 for side in x.shape[:2])
    total = np.zeros((rows * columns, kernel.shape[3]), "float32")
    for i in range(size):
        for j in range(size):
            y, z = i * holes, j * holes
            tap = x[y : y + stride * rows : stride, z : z + stride * columns : stride]
            total += tap[:rows, :columns].reshape(rows * columns, -1) @ kernel[i, j]
    return (total + bias).reshape(rows, columns, -1)


def pool(x, size, stride, padding):
    """Caffe's max pooling: sizes rounded up (pooling_layer.cpp)."""
    out = [-(-(side + 2 * padding - size) // stride) + 1 for side in x.shape[:2]]
    room = [
        stride * (n - 1) + size - side - padding for n, side in zip(out, x.shape[:2], strict=True)
    ]
    x = np.pad(x, [(padding, room[0]), (padding, room[1]), (0, 0)], constant_values=-np.inf)
    taps = [
        x[i : i + stride * (out[0] - 1) + 1 : stride, j : j + stride * (out[1] - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return np.max(taps, axis=0)


def forward(image, formula, gain):
    """(300, 300, 3) RGB to offsets (8732, 4) and logits (8732, 21)."""
    x = image.astype("float32") - np.array([123, 117, 104], "float32")
    maps = {}
    for layer in TRUNK:
        if len(layer) == 3:
            x = pool(x, *layer)
            continue
        name, size, stride, padding, holes, channels = layer
        kernel, bias = formula.weights(name, (size, size, x.shape[2], channels))
        x = convolve(x, kernel, bias, stride=stride, padding=padding, holes=holes)
        x = np.maximum(x, 0)
        if name in BOXES_PER_CELL:
            maps[name] = x
    length = np.sqrt((maps["conv4_3"].astype("float64") ** 2).sum(axis=2, keepdims=True) + 1e-10)
    maps["conv4_3"] = (maps["conv4_3"] / length * gain).astype("float32")
    outputs = {}
    for kind, numbers in (("loc", 4), ("conf", CLASSES + 1)):
        rows = []
        for source, per_cell in BOXES_PER_CELL.items():
            name = f"{source}_norm" if source == "conv4_3" else source
            shape = (3, 3, maps[source].shape[2], per_cell * numbers)
            head = convolve(maps[source], *formula.weights(f"{name}_mbox_{kind}", shape), padding=1)
            rows.append(head.reshape(-1, numbers))  # cells row by row, a cell's boxes together
        outputs[kind] = np.concatenate(rows)
    return outputs["loc"], outputs["conf"]


@pytest.fixture(scope="module")
def both():
    """The NumPy network's outputs and kerasdet's, on one image."""
    rows, columns = np.mgrid[:300, :300]
    image = np.stack(
        [
            (rows * 3 + columns) % 256,
            (rows * columns // 7) % 256,
            255 * ((rows // 40 + columns // 23) % 2),
        ],
        axis=-1,
    ).astype("uint8")
    formula, gain = Formula(), 20 + 5 * scattered(512, 10**8)
    expected = forward(image, formula, gain)
    model = SSD(CLASSES)
    for name, weights in formula.made.items():
        model.get_layer(name).set_weights(weights)
    model.get_layer("conv4_3_norm").set_weights([gain])
    assert sum(k.size + b.size for k, b in formula.made.values()) + 512 == model.count_params()
    outputs = model(image[None].astype("float32"), training=False)
    return expected, [ops.convert_to_numpy(outputs[name])[0] for name in ("boxes", "classes")]


@pytest.mark.parametrize("which", [0, 1], ids=["offsets", "logits"])
def test_every_output_agrees_to_2e_3_of_their_spread(which, both):
    expected, found = both[0][which], both[1][which]
    assert found.shape == expected.shape
    start = 0
    for cells, per_cell in zip((38, 19, 10, 5, 3, 1), BOXES_PER_CELL.values(), strict=True):
        rows = slice(start, start + cells**2 * per_cell)
        spread = expected[rows].std()
        assert spread > 0.1, "outputs that hardly differ would hide a swap"
        np.testing.assert_allclose(found[rows], expected[rows], atol=2e-3 * spread, rtol=0)
        start = rows.stop


def test_the_outputs_tell_swapped_rows_columns_and_boxes_apart(both):
    """The oracle would notice: its own first map, transposed or rotated in the cell, differs widely."""
    first = both[0][0][: 38 * 38 * 4].reshape(38, 38, 4, 4)
    for other in (
        first.transpose(1, 0, 2, 3),
        np.roll(first, 1, axis=2),
        np.roll(first, 1, axis=0),
    ):
        assert np.abs(first - other).mean() > 0.1 * first.std()
