"""A detector that answers by rote, and examples for it, one an image."""

from types import SimpleNamespace

import numpy as np
import pytest


def boxes_of(rows) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def example(index, *, boxes=(), labels=(), size=(40, 60), difficult=None, crowd=None, path=""):
    """An example whose top left pixel is its index, by which `RoteModel` knows it."""
    image = np.full((*size, 3), 200, dtype=np.uint8)
    image[0, 0, 0] = index
    boxes = boxes_of(boxes)
    sides = boxes[:, 2:] - boxes[:, :2]
    none = np.zeros(len(boxes), dtype=bool)
    return {
        "image": image,
        "boxes": boxes,
        "labels": np.array(labels, dtype=np.int32).reshape(-1),
        "difficult": none if difficult is None else np.array(difficult, dtype=bool),
        "crowd": none if crowd is None else np.array(crowd, dtype=bool),
        "area": np.prod(sides, axis=1),
        "image_id": f"image-{index}".encode(),
        "path": str(path).encode(),
    }


def data_set(examples, *, class_names=None, name="rote"):
    """The examples as the readers give them: a tf.data.Dataset that knows its names."""
    import tensorflow as tf

    signature = {
        "image": tf.TensorSpec((None, None, 3), tf.uint8),
        "boxes": tf.TensorSpec((None, 4), tf.float32),
        "labels": tf.TensorSpec((None,), tf.int32),
        "difficult": tf.TensorSpec((None,), tf.bool),
        "crowd": tf.TensorSpec((None,), tf.bool),
        "area": tf.TensorSpec((None,), tf.float32),
        "image_id": tf.TensorSpec((), tf.string),
        "path": tf.TensorSpec((), tf.string),
    }
    made = tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature)
    if class_names is not None:
        made.class_names = list(class_names)
        made.name = name
    return made


class RoteModel:
    """Answers `detect` with the detections it was given for each image."""

    def __init__(self, answers, class_names=("cat", "dog", "bird")):
        self.answers = answers
        self.class_names = list(class_names)
        self.calls = []

    def detect(self, images, **settings):
        self.calls.append(([image.shape for image in images], settings))
        return [detections(*self.answers.get(int(image[0, 0, 0]), ())) for image in images]


def detections(*rows):
    """Rows of (box, score, label) as `detect` returns them."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return SimpleNamespace(
        boxes=boxes_of(boxes),
        scores=np.array(scores, dtype=np.float32),
        labels=np.array(labels, dtype=np.int32),
        count=len(rows),
    )


@pytest.fixture
def rote():
    """The helpers above, for tests that cannot import a conftest."""
    return SimpleNamespace(
        example=example, data_set=data_set, RoteModel=RoteModel, detections=detections
    )
