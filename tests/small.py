"""Small detectors that train in seconds, and painted images for them; for contract and detector tests."""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from kerasdet import SSD
from kerasdet.backbones.overfeat import Convolution, Layout
from kerasdet.detectors.fast_rcnn import FastRCNN
from kerasdet.detectors.overfeat import OverFeat
from kerasdet.detectors.yolo9000 import YOLO9000
from kerasdet.detectors.yolo_v1 import YOLOv1
from kerasdet.detectors.yolo_v2 import YOLOv2
from kerasdet.word_tree import WordTree

HEIGHT, WIDTH = 64, 96
CLASS_NAMES = ["red", "green", "blue"]


def backbone(regularizer=None, sides=(HEIGHT, WIDTH)):
    """Five convolutions: maps of 8x12 ("fine") and 4x6 ("coarse") cells; the last leads to no head.

    Leaky, so that no weight is without a gradient by chance.
    """
    x = inputs = keras.Input((*sides, 3))
    for name, filters in (("a", 8), ("b", 16), ("fine", 32), ("coarse", 48), ("unused", 4)):
        x = layers.Conv2D(
            filters,
            3,
            strides=2,
            padding="same",
            kernel_regularizer=regularizer,
            name=f"{name}_conv",
        )(x)
        x = layers.LeakyReLU(name=name)(x)
    return keras.Model(inputs, x, name="five_convolutions")


def ssd(**changes):
    """SSD on three maps, 8x12, 4x6 and an extra one of 2x3: 96 * 4 + 24 * 4 + 6 * 4 = 504 boxes."""
    arguments = {
        "class_names": CLASS_NAMES,
        "backbone": backbone(),
        "feature_layers": ["fine", "coarse"],
        "image_size": (HEIGHT, WIDTH),
        "box_sizes": (12, 24, 48, 80),
        **changes,
    }
    return SSD(**arguments)


def plain_ssd(**changes):
    """The same without the extra map, and so without batch normalisation."""
    return ssd(box_sizes=(12, 24, 48), **changes)


def yolo_v1(**changes):
    """YOLO v1 with darknet's released head on the 4x6 map: 24 cells of 16x16 pixels, 2 boxes each.

    Nothing is dropped: four images are to be learned by heart in seconds.
    """
    own = backbone()
    arguments = {
        "class_names": CLASS_NAMES,
        "backbone": keras.Model(own.input, own.get_layer("coarse").output),
        "head": "local",
        "local_filters": 16,
        "boxes_per_cell": 2,
        "dropout": 0.0,
        "grid": (4, 6),
        "image_size": (HEIGHT, WIDTH),
        **changes,
    }
    return YOLOv1(**arguments)


def yolo_v2(**changes):
    """YOLOv2 for images of any size, with passthrough: 2x3 cells of three priors at 64x96.

    Not normalised: batches of four take long to fill the running statistics.
    """
    arguments = {
        "class_names": CLASS_NAMES,
        "backbone": backbone(sides=(None, None)),
        "feature_layers": ["coarse", "unused"],
        "anchors": [(0.5, 0.5), (1.0, 1.0), (2.0, 1.5)],
        "image_size": (HEIGHT, WIDTH),
        "passthrough_filters": 16,
        "head_filters": (32, 48),
        "batch_norm": False,
        **changes,
    }
    return YOLOv2(**arguments)


def animals_and_things():
    """Ten nodes in five groups of 2, 3, 2, 2 and 1: two roots, three levels."""
    return WordTree.from_parents(
        {
            "animal": None,
            "thing": None,
            "terrier": "dog",
            "poodle": "dog",
            "dog": "animal",
            "cat": "animal",
            "bird": "animal",
            "car": "thing",
            "boat": "thing",
            "taxi": "car",
        }
    )


def yolo9000(**changes):
    """YOLO9000 for images of any size: 2x3 cells of three priors at 64x96; a tree of three roots."""
    own = backbone(sides=(None, None))
    x = layers.Conv2D(64, 3, strides=2, padding="same", name="last_conv")(
        own.get_layer("coarse").output
    )
    arguments = {
        "tree": WordTree(CLASS_NAMES, [-1, -1, -1]),
        "backbone": keras.Model(own.input, layers.LeakyReLU()(x), name="five_convolutions"),
        "anchors": [(0.5, 0.5), (1.0, 1.0), (2.0, 1.5)],
        "image_size": (HEIGHT, WIDTH),
        **changes,
    }
    return YOLO9000(**arguments)


def fast_rcnn(**changes):
    """Fast R-CNN for images of any size, regions pooled from 8x12 cells of 8 pixels at 64x96.

    Nothing is dropped, and all that is no object counts as background: four images are to be
    learned by heart from few regions.
    """
    arguments = {
        "class_names": CLASS_NAMES,
        "backbone": backbone(sides=(None, None)),
        "feature_layer": "fine",
        "pool_size": 3,
        "hidden": (64, 48),
        "dropout": 0.0,
        "image_size": (HEIGHT, WIDTH),
        "sampling": {"background_iou": (0.0, 0.5)},
        **changes,
    }
    return FastRCNN(**arguments)


# 12x12 cells of 4 pixels a window.
OVERFEAT = Layout(
    (Convolution(16, 4, stride=4), Convolution(32, 3)),
    last_pool=2,
    kernel=6,
    hidden=(64, 48),
    window=48,
)


def overfeat(**changes):
    """OverFeat with windows of 48 pixels every 4: 5x13 of them at 64x96.

    So large that half of every object of `four_images` fits inside, and so small that a window is
    about objects of 14 pixels. Nothing is dropped, and merging leaves nothing out.
    """
    arguments = {
        "class_names": CLASS_NAMES,
        "network": OVERFEAT,
        "box_hidden": (64, 48),
        "image_size": (HEIGHT, WIDTH),
        "smallest": 0.2,
        "candidate_score": 0.0,
        "dropout": 0.0,
        "stddev": None,
        **changes,
    }
    return OverFeat(**arguments)


def proposals(shape):
    """80 regions for an image of any size (height, width), the same for all images but for scale.

    Four for each object in `four_images`, moved by up to four pixels an edge, the others at random.
    """
    rng = np.random.default_rng(2)
    _, targets = four_images()
    objects = targets["boxes"][targets["labels"] >= 0]
    moved = [objects + rng.uniform(-4, 4, objects.shape) for _ in range(4)]
    corners = np.sort(rng.uniform(0, 1, (200, 2, 2)), axis=1) * [WIDTH, HEIGHT]
    corners = corners[(corners[:, 1] - corners[:, 0] > 4).all(axis=1)]
    boxes = np.concatenate([*moved, corners.reshape(-1, 4)])[:80].clip(0, [WIDTH, HEIGHT] * 2)
    height, width = shape
    return (boxes * np.tile([width / WIDTH, height / HEIGHT], 2)).astype("float32")


class Batch(NamedTuple):
    """What `fit` takes: images (B, H, W, 3) and their targets."""

    images: np.ndarray
    targets: dict


def image_ids(names):
    """(B, 64) uint8, as the pipeline writes them."""
    rows = [np.frombuffer(name.encode().ljust(64, b"\0"), "uint8") for name in names]
    return np.stack(rows)


def painted(objects, *, seed=0):
    """Images of noise with a filled rectangle of the class's own colour for each object.

    Args:
        objects: for each image a list of (label, x1, y1, x2, y2), whole pixels.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    images = rng.uniform(60, 120, (len(objects), HEIGHT, WIDTH, 3)).astype("float32")
    most = max(map(len, objects))
    boxes = np.zeros((len(objects), most, 4), "float32")
    labels = np.full((len(objects), most), -1, "int32")
    for image, of_image in enumerate(objects):
        for row, (label, x1, y1, x2, y2) in enumerate(of_image):
            images[image, y1:y2, x1:x2] = np.eye(3)[label] * 255
            boxes[image, row], labels[image, row] = (x1, y1, x2, y2), label
    ids = image_ids([f"painted/{image}.jpg" for image in range(len(objects))])
    return Batch(images, {"boxes": boxes, "labels": labels, "image_id": ids})


def four_images():
    """Two, one, three and one objects of three classes and of sizes from 12 to 80 pixels."""
    return painted(
        [
            [(0, 4, 6, 18, 17), (1, 40, 20, 90, 62)],
            [(2, 8, 4, 88, 60)],
            [(1, 60, 40, 73, 54), (0, 30, 2, 60, 26), (2, 6, 34, 24, 60)],
            [(0, 50, 30, 80, 48)],
        ]
    )


def no_objects():
    """Four images of noise."""
    batch = painted([[(0, 0, 0, 1, 1)]] * 4)
    batch.targets["boxes"][:], batch.targets["labels"][:] = 0, -1
    return batch
