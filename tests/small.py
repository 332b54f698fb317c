"""Small detectors that train in seconds, and painted images for them; for contract and detector tests."""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from kerasdet import SSD

HEIGHT, WIDTH = 64, 96
CLASS_NAMES = ["red", "green", "blue"]


def backbone(regularizer=None):
    """Five convolutions: maps of 8x12 ("fine") and 4x6 ("coarse") cells; the last leads to no head.

    Leaky, so that no weight is without a gradient by chance.
    """
    x = inputs = keras.Input((HEIGHT, WIDTH, 3))
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
