"""A network's forward pass straight from a file's numbers, in the loops of darknet's C.

conv1 3x3 to 4, normalised, leaky; 2x2 pool; conv2 3x3 stride 2 to 3, normalised, leaky; conv3 1x1
to 2, linear; local1 3x3 to 2, leaky; connected1 to 5, leaky; connected2 to the classes. Everything
lies as in darknet: channels, rows, columns.
"""

import math

import numpy as np

HEIGHT, WIDTH = 12, 8  # maps of 6x4 behind the pool and 3x2 behind conv2


class Floats:
    """Reads on through a file, as fread does."""

    def __init__(self, numbers):
        self.numbers, self.at = list(map(float, numbers)), 0

    def take(self, count):
        self.at += count
        return self.numbers[self.at - count : self.at]


def count(classes):
    """Numbers in the file."""
    conv1, conv2, conv3 = 4 * 4 + 4 * 3 * 9, 4 * 3 + 3 * 4 * 9, 2 + 2 * 3
    local1 = 2 * 6 + 6 * 2 * 2 * 9  # 3x2 places
    return conv1 + conv2 + conv3 + local1 + 5 + 5 * 12 + classes + classes * 5


def forward(image, numbers, classes, *, transposed=False):
    """Logits of an image (12, 8, 3) in 0..255.

    Args:
        image: RGB.
        numbers: the file's.
        classes: outputs.
        transposed: as darknet does with the oldest files.
    """
    floats = Floats(numbers)
    x = (np.asarray(image, float) / 255).transpose(2, 0, 1)
    x = leaky(convolution(x, floats, 4, 3, 1, norm=True))
    x = pool(x)
    x = leaky(convolution(x, floats, 3, 3, 2, norm=True))
    x = convolution(x, floats, 2, 1, 1, norm=False)
    x = leaky(local(x, floats, 2, 3))
    x = leaky(connected(x.reshape(-1), floats, 5, transposed))
    x = connected(x, floats, classes, transposed)
    assert floats.at == len(floats.numbers)
    return x


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def pixel(x, channel, row, column):
    """im2col_get_pixel: zero outside."""
    _, height, width = x.shape
    inside = 0 <= row < height and 0 <= column < width
    return x[channel, row, column] if inside else 0.0


def convolution(x, floats, filters, size, stride, *, norm):
    channels, height, width = x.shape
    pad = size // 2
    out_h, out_w = ((side + 2 * pad - size) // stride + 1 for side in (height, width))
    biases = floats.take(filters)
    scales, means, variances = (floats.take(filters) if norm else None for _ in range(3))
    weights = floats.take(filters * channels * size * size)
    out = np.zeros((filters, out_h, out_w))
    for f in range(filters):
        for row in range(out_h):
            for column in range(out_w):
                total = 0.0
                for c in range(channels):
                    for u in range(size):
                        for v in range(size):
                            weight = weights[((f * channels + c) * size + u) * size + v]
                            there = pixel(x, c, row * stride - pad + u, column * stride - pad + v)
                            total += weight * there
                if norm:
                    total = (total - means[f]) / math.sqrt(variances[f] + 1e-5) * scales[f]
                out[f, row, column] = total + biases[f]
    return out


def local(x, floats, filters, size):
    channels, height, width = x.shape
    places = height * width  # pad 1, stride 1: as many as before
    biases = floats.take(filters * places)
    weights = floats.take(places * filters * channels * size * size)
    out = np.zeros((filters, height, width))
    for place in range(places):
        row, column = divmod(place, width)
        for f in range(filters):
            total = biases[f * places + place]
            for c in range(channels):
                for u in range(size):
                    for v in range(size):
                        at = (((place * filters + f) * channels + c) * size + u) * size + v
                        total += weights[at] * pixel(x, c, row - 1 + u, column - 1 + v)
            out[f, row, column] = total
    return out


def connected(x, floats, outputs, transposed):
    biases = floats.take(outputs)
    weights = floats.take(outputs * len(x))
    out = np.zeros(outputs)
    for o in range(outputs):
        out[o] = biases[o]
        for i, value in enumerate(x):
            out[o] += value * weights[i * outputs + o if transposed else o * len(x) + i]
    return out


def pool(x):
    channels, height, width = x.shape
    out = np.zeros((channels, height // 2, width // 2))
    for c, row, column in np.ndindex(out.shape):
        out[c, row, column] = x[c, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].max()
    return out
