"""The three trunks of Fast R-CNN against the arithmetic of their prototxt files."""

import keras
import pytest

from kerasdet.backbones.caffenet import caffenet
from kerasdet.backbones.vgg16 import vgg16, vgg16_reduced
from kerasdet.backbones.vgg_m_1024 import vgg_m_1024

pytestmark = pytest.mark.slow

# Of models/*/test.prototxt, up to roi_pool5: name, outputs, kernel, stride, pad, groups.
VGG16 = [
    (f"conv{block}_{i}", outputs, 3, 1, 1, 1)
    for block, count, outputs in ((1, 2, 64), (2, 2, 128), (3, 3, 256), (4, 3, 512), (5, 3, 512))
    for i in range(1, count + 1)
]
VGG_M = [
    ("conv1", 96, 7, 2, 0, 1),
    ("conv2", 256, 5, 2, 1, 1),
    ("conv3", 512, 3, 1, 1, 1),
    ("conv4", 512, 3, 1, 1, 1),
    ("conv5", 512, 3, 1, 1, 1),
]
CAFFENET = [
    ("conv1", 96, 11, 4, 5, 1),
    ("conv2", 256, 5, 1, 2, 2),
    ("conv3", 384, 3, 1, 1, 1),
    ("conv4", 384, 3, 1, 1, 2),
    ("conv5", 256, 3, 1, 1, 2),
]
# Pools by the convolution before them: kernel, stride, pad.
POOLS = {
    "vgg16": {name: (2, 2, 0) for name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3")},
    "vgg_m_1024": {"conv1": (3, 2, 0), "conv2": (3, 2, 0)},
    "caffenet": {"conv1": (3, 2, 1), "conv2": (3, 2, 1)},
}
TRUNKS = [(vgg16, VGG16), (vgg_m_1024, VGG_M), (caffenet, CAFFENET)]


def sizes(rows, pools, side):
    """A side of every convolution's output: Caffe's convolutions round down, its pools up."""
    found = {}
    for name, _, kernel, stride, pad, _ in rows:
        side = found[name] = (side + 2 * pad - kernel) // stride + 1
        if name in pools:
            kernel, stride, pad = pools[name]
            side = -(-(side + 2 * pad - kernel) // stride) + 1
    return found


@pytest.mark.parametrize(("build", "rows"), TRUNKS)
@pytest.mark.parametrize(("height", "width"), [(600, 1000), (375, 501), (224, 227)])
def test_every_map_has_the_size_that_caffe_gives_it(build, rows, height, width):
    pools = POOLS[build.__name__]
    maps = build(keras.Input((height, width, 3)))
    tall, wide = (sizes(rows, pools, side) for side in (height, width))
    expected = {name: (None, tall[name], wide[name], outputs) for name, outputs, *_ in rows}
    assert {name: each.shape for name, each in maps.items()} == expected


@pytest.mark.parametrize(("build", "rows"), TRUNKS)
def test_weights_have_the_shapes_of_the_prototxt(build, rows):
    images = keras.Input((None, None, 3))
    model = keras.Model(images, list(build(images).values())[-1])
    channels, expected = 3, []
    for name, outputs, kernel, _, _, groups in rows:
        expected += [(name, (kernel, kernel, channels // groups, outputs)), (name, (outputs,))]
        channels = outputs
    found = [(weight.path.split("/")[0], weight.shape) for weight in model.weights]
    assert found == expected


@pytest.mark.parametrize(
    ("build", "count"), [(vgg16, 14_714_688), (vgg_m_1024, 6_528_640), (caffenet, 2_334_080)]
)
def test_parameters_of_the_whole_trunk(build, count):
    """7*7*3*96 + 96 + 5*5*96*256 + 256 + 3*3*256*512 + 512 + 2 * (3*3*512*512 + 512) for M."""
    images = keras.Input((None, None, 3))
    assert keras.Model(images, list(build(images).values())[-1]).count_params() == count


@pytest.mark.parametrize(
    ("build", "expected"),
    [(vgg_m_1024, "norm pool norm pool"), (caffenet, "pool norm pool norm")],
)
def test_norms_stand_where_the_prototxt_has_them(build, expected):
    images = keras.Input((100, 100, 3))
    names = [layer.name for layer in keras.Model(images, build(images)["conv5"]).layers]
    kinds = [name[:4] for name in names if name.startswith(("norm", "pool"))]
    assert " ".join(kinds) == expected


def test_norms_have_the_prototxts_numbers():
    images = keras.Input((100, 100, 3))
    for build, alpha, k in ((vgg_m_1024, 5e-4, 2.0), (caffenet, 1e-4, 1.0)):
        model = keras.Model(images, build(images)["conv5"])
        for name in ("norm1", "norm2"):
            norm = model.get_layer(name)
            assert (norm.size, norm.alpha, norm.beta, norm.k) == (5, alpha, 0.75, k)


def test_the_reduced_trunk_begins_with_the_plain_one():
    images = keras.Input((300, 300, 3))
    maps = vgg16_reduced(images)
    names = [layer.name for layer in keras.Model(images, maps["fc7"]).layers[1:]]
    plain = [layer.name for layer in keras.Model(images, vgg16(images)["conv5_3"]).layers[1:]]
    assert names == [*plain, "pool5", "fc6", "fc7"]
