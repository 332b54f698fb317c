"""Objects cut out of a detection set: classification data from boxes."""

import numpy as np
import tensorflow as tf

from kerasdet.data import classification
from kerasdet.data import example as ex
from kerasdet.errors import InputError
from kerasdet.images import read_image


def object_crops(examples: tf.data.Dataset, *, context: float = 1.25) -> tf.data.Dataset:
    """Every object of a detection set as an image of its own with one label.

    What a crop shows is a square around the object's middle, moved into the image where that has
    room, and cut at its edges where it has not. Difficult objects and crowds are left out.

    Args:
        examples: what a reader of boxes from files, or `shapes`, gives.
        context: the square's side, in longer sides of the object.

    Returns:
        The data set (`kerasdet.data.classification`), by image and row; `image_id` is the image's,
        a `#` and the row from 0 on. Its `problems` begin with those of the detection set.

    Raises:
        InputError: if the examples have no records, as those of `from_tfds` have not, there is no
            object in them, or `context` is not positive.
    """
    if not context > 0:
        raise InputError(f"crops want a positive context, not {context!r}")
    records = getattr(examples, "records", None)
    if records is None:
        raise InputError("crops want data from voc, coco or yolo files, or shapes")
    found = [
        (number, row)
        for number, record in enumerate(records)
        for row in np.flatnonzero(~(record.difficult | record.crowd))
    ]
    if not found:
        raise InputError(f"{examples.name} has no object to cut out")
    crops = [
        classification.ImageRecord(
            f"{records[number].image_id}#{row}",
            records[number].path,
            int(records[number].labels[row]),
        )
        for number, row in found
    ]

    def pixels(index):
        number, row = found[int(index)]
        record = records[number]
        if examples.pixels is None:
            image = read_image(record.path, annotated=(record.height, record.width))
        else:
            image = examples.pixels(number)
        return np.ascontiguousarray(_cut(image, record.boxes[row], context))

    inspector = ex.Inspector()
    inspector.problems += examples.problems
    name = f"crops:{examples.name}"
    return classification.labelled_images(
        crops, examples.class_names, inspector, name, pixels=pixels
    )


def _cut(image, box, context):
    """The part of (H, W, 3) around a box, a square of `context` times its longer side at most."""
    sides = box[2:] - box[:2]
    length = max(round(float(context * sides.max())), 1)
    size = np.array(image.shape[1::-1])  # width, height
    extent = np.minimum(length, size)
    first = np.round((box[:2] + box[2:] - extent) / 2).astype(int)
    x, y = np.clip(first, 0, size - extent)
    return image[y : y + extent[1], x : x + extent[0]]
