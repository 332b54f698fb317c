"""OverFeat's two networks, convolutions throughout: up to the last pooling, and after it.

Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun: OverFeat: Integrated Recognition, Localization and
Detection using Convolutional Networks, ICLR 2014, arXiv:1312.6229, tables 1 and 3; layers as in
the release (README; net_weight_0 and net_weight_1).
"""

import math
from typing import NamedTuple

from keras import initializers, layers

from kerasdet import arguments
from kerasdet.errors import InputError
from kerasdet.layers.connected_conv import ConnectedConv2D

# What the release's ReLU lets pass (its sources: x > 1e-6).
_THRESHOLD = 1e-6

# Of all channels alike; the input is RGB, 0..255 (the release's sources).
_MEAN = 118.380948
_DEVIATION = 61.896913


class Convolution(NamedTuple):
    """Attributes: filters; kernel's side; stride; max pooling after it, side and step, 1 for none.

    3x3 convolutions keep the size, larger ones take no padding.
    """

    filters: int
    kernel: int
    stride: int = 1
    pool: int = 1


class Layout(NamedTuple):
    """A network, as the release has it.

    Attributes:
        convolutions: of the trunk; the pooling after the last is not among theirs.
        last_pool: its side and step.
        kernel: side of the classifier's first convolution, in pooled cells.
        hidden: channels of the classifier's hidden layers.
        window: side of what the network is trained on, pixels.
    """

    convolutions: tuple[Convolution, ...]
    last_pool: int
    kernel: int
    hidden: tuple[int, int]
    window: int

    @property
    def stride(self) -> int:
        """Pixels from one cell of the trunk's map to the next: the network's finest stride."""
        return math.prod(layer.stride * layer.pool for layer in self.convolutions)

    @property
    def shrinkage(self) -> int:
        """Cells that a side loses from the trunk's map to the finest map of outputs."""
        return self.kernel * self.last_pool - 1

    def map_side(self, side: int) -> int:
        """Cells of the trunk's map for a side of the image; 0 if it has no room for one."""
        for layer in self.convolutions:
            if layer.kernel > 3:
                side = (side - layer.kernel) // layer.stride + 1
            side = max(side, 0) // layer.pool
        return side

    def output_side(self, side: int, *, fine: bool = True) -> int:
        """Windows along a side of the image; 0 if it has no room for one."""
        cells = self.map_side(side)
        if fine:
            return max(cells - self.shrinkage, 0)
        return max(cells // self.last_pool - self.kernel + 1, 0)


LAYOUTS = {
    "fast": Layout(  # net_weight_0
        (
            Convolution(96, 11, stride=4, pool=2),
            Convolution(256, 5, pool=2),
            Convolution(512, 3),
            Convolution(1024, 3),
            Convolution(1024, 3),
        ),
        last_pool=2,
        kernel=6,
        hidden=(3072, 4096),
        window=231,
    ),
    "accurate": Layout(  # net_weight_1
        (
            Convolution(96, 7, stride=2, pool=3),
            Convolution(256, 7, pool=2),
            Convolution(512, 3),
            Convolution(512, 3),
            Convolution(1024, 3),
            Convolution(1024, 3),
        ),
        last_pool=3,
        kernel=5,
        hidden=(4096, 4096),
        window=221,
    ),
}

SCALES = ((245, 245), (281, 317), (317, 389), (389, 461), (425, 497), (461, 569))
"""(height, width) of the six scales that the paper tests at (table 5)."""


def normalized(images):
    """Photos (B, H, W, 3), RGB 0..255, as the trunk takes them."""
    return layers.Rescaling(1 / _DEVIATION, -_MEAN / _DEVIATION, name="normalize")(images)


def trunk(x, layout, *, width=1.0, stddev=0.01):
    """Builds conv1 to the last convolution, whose pooling is left to who reads the map.

    Args:
        x: (B, H, W, 3), normalised.
        layout: a `Layout`.
        width: what the channels are multiplied by.
        stddev: of the first weights (sec. 3.1); None: He's, for networks trained in hours.

    Returns:
        (B, h, w, C) Keras tensor; h is `layout.map_side(H)`.
    """
    for number, layer in enumerate(layout.convolutions, start=1):
        padding = "same" if layer.kernel == 3 else "valid"
        filters = scaled(layer.filters, width)
        x = convolution(
            x, filters, layer.kernel, f"conv{number}", layer.stride, padding, stddev=stddev
        )
        if layer.pool > 1:
            x = layers.MaxPooling2D(layer.pool, name=f"pool{number}")(x)
    return x


def connected(x, layout, *, width=1.0, dropout=0.5, stddev=0.01):
    """Builds the classifier's two hidden layers, fc6 and fc7 (fast) or fc7 and fc8 (accurate).

    Args:
        x: (B, h, w, C), the trunk's map after its last pooling.
        layout: a `Layout`.
        width: what the channels are multiplied by.
        dropout: share of each layer's outputs that training drops.
        stddev: of the first weights; None: He's.

    Returns:
        (B, h - kernel + 1, w - kernel + 1, C) Keras tensor.
    """
    arguments.number("dropout", dropout, below=1)
    first = len(layout.convolutions) + 1
    for number, filters, kernel in zip(
        (first, first + 1), layout.hidden, (layout.kernel, 1), strict=True
    ):
        x = convolution(
            x, scaled(filters, width), kernel, f"fc{number}", stddev=stddev, layer=ConnectedConv2D
        )
        if dropout:
            x = layers.Dropout(dropout, name=f"fc{number}_dropout")(x)
    return x


def convolution(
    x,
    filters,
    kernel,
    name,
    stride=1,
    padding="valid",
    *,
    relu=True,
    stddev=0.01,
    layer=layers.Conv2D,
    **kwargs,
):
    """A convolution of OverFeat's with its thresholded ReLU.

    Args:
        x: (B, H, W, C) Keras tensor.
        filters: channels out.
        kernel: side of the kernel.
        name: of the layer.
        stride: pixels from one window to the next.
        padding: "valid" or "same".
        relu: False: none.
        stddev: of the first weights; None: He's.
        layer: `Conv2D`, or a class of its kind.
        **kwargs: what `Conv2D` takes besides.
    """
    if stddev is not None:
        normal = initializers.RandomNormal(stddev=arguments.positive("stddev", stddev))
        kwargs.setdefault("kernel_initializer", normal)
    kwargs.setdefault("kernel_initializer", "he_normal")
    x = layer(filters, kernel, stride, padding, name=name, **kwargs)(x)
    return layers.ReLU(threshold=_THRESHOLD, name=f"{name}_relu")(x) if relu else x


def scaled(filters, width):
    """Channels of a network whose width is multiplied.

    Raises:
        InputError: if the width is no positive number.
    """
    return max(1, round(filters * arguments.positive("width", width)))


def layout_of(network):
    """The layout of a name; a `Layout`, or what saving made of one, is passed on.

    Raises:
        InputError: if there is none of that name.
    """
    if isinstance(network, list | tuple):
        try:
            convolutions, last_pool, kernel, hidden, window = network
            layers_of = tuple(Convolution(*layer) for layer in convolutions)
            return Layout(layers_of, last_pool, kernel, tuple(hidden), window)
        except (TypeError, ValueError) as error:
            raise InputError(f"OverFeat wants a Layout as network, not {network!r}.") from error
    if network not in tuple(LAYOUTS):
        raise InputError(f"OverFeat wants a network of {', '.join(LAYOUTS)}, not {network!r}.")
    return LAYOUTS[network]
