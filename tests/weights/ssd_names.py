"""SSD300's and SSD512's tensors under four programs' names, written out by hand.

Each row of `CONVOLUTIONS`: this package's layer, out, in, kernel; then what stands before
".weight" in torchvision, amdegroot, and mmdetection since 2.14 and before.
"""

import functools
import zlib

import numpy as np

F, E, N = "backbone.features", "backbone.extra", "neck.extra_layers"
# fmt: off
CONVOLUTIONS = [
    ("conv1_1", 64, 3, 3, f"{F}.0", "vgg.0", f"{F}.0", f"{F}.0"),
    ("conv1_2", 64, 64, 3, f"{F}.2", "vgg.2", f"{F}.2", f"{F}.2"),
    ("conv2_1", 128, 64, 3, f"{F}.5", "vgg.5", f"{F}.5", f"{F}.5"),
    ("conv2_2", 128, 128, 3, f"{F}.7", "vgg.7", f"{F}.7", f"{F}.7"),
    ("conv3_1", 256, 128, 3, f"{F}.10", "vgg.10", f"{F}.10", f"{F}.10"),
    ("conv3_2", 256, 256, 3, f"{F}.12", "vgg.12", f"{F}.12", f"{F}.12"),
    ("conv3_3", 256, 256, 3, f"{F}.14", "vgg.14", f"{F}.14", f"{F}.14"),
    ("conv4_1", 512, 256, 3, f"{F}.17", "vgg.17", f"{F}.17", f"{F}.17"),
    ("conv4_2", 512, 512, 3, f"{F}.19", "vgg.19", f"{F}.19", f"{F}.19"),
    ("conv4_3", 512, 512, 3, f"{F}.21", "vgg.21", f"{F}.21", f"{F}.21"),
    ("conv5_1", 512, 512, 3, f"{E}.0.1", "vgg.24", f"{F}.24", f"{F}.24"),
    ("conv5_2", 512, 512, 3, f"{E}.0.3", "vgg.26", f"{F}.26", f"{F}.26"),
    ("conv5_3", 512, 512, 3, f"{E}.0.5", "vgg.28", f"{F}.28", f"{F}.28"),
    ("fc6", 1024, 512, 3, f"{E}.0.7.1", "vgg.31", f"{F}.31", f"{F}.31"),
    ("fc7", 1024, 1024, 1, f"{E}.0.7.3", "vgg.33", f"{F}.33", f"{F}.33"),
    ("conv6_1", 256, 1024, 1, f"{E}.1.0", "extras.0", f"{N}.0.0.conv", f"{E}.0"),
    ("conv6_2", 512, 256, 3, f"{E}.1.2", "extras.1", f"{N}.0.1.conv", f"{E}.1"),
    ("conv7_1", 128, 512, 1, f"{E}.2.0", "extras.2", f"{N}.1.0.conv", f"{E}.2"),
    ("conv7_2", 256, 128, 3, f"{E}.2.2", "extras.3", f"{N}.1.1.conv", f"{E}.3"),
    ("conv8_1", 128, 256, 1, f"{E}.3.0", "extras.4", f"{N}.2.0.conv", f"{E}.4"),
    ("conv8_2", 256, 128, 3, f"{E}.3.2", "extras.5", f"{N}.2.1.conv", f"{E}.5"),
    ("conv9_1", 128, 256, 1, f"{E}.4.0", "extras.6", f"{N}.3.0.conv", f"{E}.6"),
    ("conv9_2", 256, 128, 3, f"{E}.4.2", "extras.7", f"{N}.3.1.conv", f"{E}.7"),
    ("conv10_1", 128, 256, 1, None, None, f"{N}.4.0.conv", f"{E}.8"),  # SSD512's
    ("conv10_2", 256, 128, 4, None, None, f"{N}.4.1.conv", f"{E}.9"),
]
# fmt: on
PROGRAMS = ("torchvision", "amdegroot", "mmdetection", "mmdetection before 2.14")
GAIN = dict(
    zip(
        PROGRAMS,
        (
            "backbone.scale_weight",
            "L2Norm.weight",
            "neck.l2_norm.weight",
            "backbone.l2_norm.weight",
        ),
        strict=True,
    )
)
HEADS = dict(
    zip(
        PROGRAMS,
        (
            ("head.regression_head.module_list.{}", "head.classification_head.module_list.{}"),
            ("loc.{}", "conf.{}"),
            ("bbox_head.reg_convs.{}.0", "bbox_head.cls_convs.{}.0"),
            ("bbox_head.reg_convs.{}", "bbox_head.cls_convs.{}"),
        ),
        strict=True,
    )
)
# The maps with heads: layer, channels, boxes a cell at 300 pixels and at 512.
SOURCES = [
    ("conv4_3_norm", 512, 4, 4),
    ("fc7", 1024, 6, 6),
    ("conv6_2", 512, 6, 6),
    ("conv7_2", 256, 6, 6),
    ("conv8_2", 256, 4, 6),
    ("conv9_2", 256, 4, 4),
    ("conv10_2", 256, 0, 4),
]


@functools.cache  # the trunk's 20 million numbers are the same in every test
def filled(name, shape):
    """Numbers that only this name and shape give, of a size that keeps activations near 1."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
    numbers = rng.standard_normal(shape, "f4") * np.float32(spread)
    numbers.setflags(write=False)
    return numbers


def tensors(logits, *, size=300):
    """Every tensor of the network: this package's layer to (weight (out, in, h, w), bias)."""
    found = {}
    for layer, out, into, kernel, *_ in CONVOLUTIONS:
        if size == 512 or not layer.startswith("conv10"):
            shape = (out, into, kernel, kernel)
            found[layer] = filled(layer, shape), filled(f"{layer} bias", (out,))
    for layer, channels, at_300, at_512 in SOURCES:
        boxes = at_300 if size == 300 else at_512
        for head, numbers in (("loc", 4), ("conf", logits)) if boxes else ():
            name = f"{layer}_mbox_{head}"
            shape = (boxes * numbers, channels, 3, 3)
            found[name] = filled(name, shape), filled(f"{name} bias", shape[:1])
    return found


def gain():
    return np.abs(filled("gain", (512,))) + 1


def state_dict(program, logits, *, size=300):
    """The network's tensors under a torch program's names."""
    column = 4 + PROGRAMS.index(program)
    names = {row[0]: row[column] for row in CONVOLUTIONS}
    for i, (layer, *_) in enumerate(SOURCES):
        for head, pattern in zip(("loc", "conf"), HEADS[program], strict=True):
            names[f"{layer}_mbox_{head}"] = pattern.format(i)
    state = {GAIN[program]: gain()}
    for layer, (weight, bias) in tensors(logits, size=size).items():
        state[f"{names[layer]}.weight"], state[f"{names[layer]}.bias"] = weight, bias
    return state
