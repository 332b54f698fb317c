"""The graph that is served: raw or encoded images in, named detections out.

The four outputs are named and coded as TensorFlow's object detection API has them
(tensorflow/models, research/object_detection/exporter_lib_v2.py): all float32, boxes
normalised and ymin first, class ids from 1 as in its label maps. Padded rows are class 0, which
a label map keeps for the background; that API pads with 1, which is also a class.
"""

import keras
import tensorflow as tf
from keras import ops

from kerasdet.export.empty import for_any_number
from kerasdet.images import (
    Placement,
    decoded_in_graph,
    placement,
    placement_in_graph,
    resized_in_graph,
)


def named_outputs(found, place: Placement) -> dict:
    """Detections in network pixels to the four outputs.

    Args:
        found: batched `Detections`, padded with label -1.
        place: where in the network's input the images lie that the boxes are shares of; its
            numbers are for the whole batch, or (B,) tensors.

    Returns:
        detection_boxes (B, D, 4) ymin, xmin, ymax, xmax in 0..1; detection_scores (B, D);
        detection_classes (B, D), 1 + label, 0 in padded rows; num_detections (B,). All float32.
    """
    boxes = ops.cast(found.boxes, "float32")
    down, across = ((place.top, place.height), (place.left, place.width))
    shares = []
    for side, (start, length) in ((1, down), (0, across), (3, down), (2, across)):
        start, length = (ops.cast(number, "float32") for number in (start, length))
        if len(length.shape):
            start, length = ops.expand_dims(start, -1), ops.expand_dims(length, -1)  # (B, 1)
        shares.append((boxes[..., side] - start) / length)
    boxes = ops.stack(shares, axis=-1)
    return {
        "detection_boxes": ops.clip(boxes, 0.0, 1.0),
        "detection_scores": ops.cast(found.scores, "float32"),
        "detection_classes": ops.cast(found.labels, "float32") + 1.0,
        "num_detections": ops.cast(found.count, "float32"),
    }


class ServedDetector(tf.Module):
    """A detector as two TensorFlow functions with everything around the network inside.

    Args:
        model: the detector.
        assets: files that travel inside the SavedModel, by attribute name.
        thresholds: keyword arguments of `Detector.decode`.

    Attributes:
        from_images: `images` uint8 (B, H, W, 3) of any size to `named_outputs`.
        from_bytes: `image_bytes` (B,) JPEG or PNG files of any sizes to the same and
            `image_size` (B, 2) int32, height and width, of photos turned upright as their EXIF
            says. A file that cannot be decoded has size 0, 0 and no detections, so that it spoils
            no other request of its batch.
    """

    def __init__(self, model, assets, thresholds):
        super().__init__(name="detector")
        for name, path in assets.items():
            setattr(self, name, tf.saved_model.Asset(str(path)))
        # The variables alone: a Keras model drags its training state and caches along.
        self.weights = [variable.value for variable in model.variables]
        size, resize = model.image_size, model.resize

        @for_any_number
        def detect(resized):
            return model.decode(model(resized, training=False), **thresholds)

        resized = tf.TensorSpec((None, *size, 3), tf.float32)
        detect = tf.function(detect, input_signature=[resized], autograph=False)  # traced once

        def place(source):
            return placement_in_graph(source, size, resize)

        def from_images(images):
            found = detect(resized_in_graph(images, size, resize))
            return named_outputs(found, place(tf.unstack(tf.shape(images)[1:3])))

        def from_bytes(image_bytes):
            images, image_size = _decoded_and_resized(image_bytes, size, resize)
            sides = tf.unstack(tf.maximum(image_size, 1), axis=1)  # 0 where unreadable
            outputs = named_outputs(detect(images), place(sides))
            unread = image_size[:, 0] == 0  # (B,)
            for name, value in outputs.items():
                mask = tf.reshape(unread, [-1, *[1] * (value.shape.rank - 1)])
                outputs[name] = tf.where(mask, 0.0, value)
            return {**outputs, "image_size": image_size}

        images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
        image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")
        self.from_images = tf.function(from_images, input_signature=[images], autograph=False)
        self.from_bytes = tf.function(from_bytes, input_signature=[image_bytes], autograph=False)

    def save(self, folder) -> None:
        """Writes the SavedModel; its signatures are serving_default and serving_bytes."""
        signatures = {
            "serving_default": self.from_images.get_concrete_function(),
            "serving_bytes": self.from_bytes.get_concrete_function(),
        }
        tf.saved_model.save(self, str(folder), signatures=signatures)


def _decoded_and_resized(image_bytes, size, resize):
    """(B,) files to (B, height, width, 3) float32 and source sizes (B, 2), 0 where unreadable."""

    def load(data):
        image = decoded_in_graph(data)
        return resized_in_graph(image, size, resize), tf.shape(image)[:2]

    blank = (tf.zeros((*size, 3)), tf.zeros((2,), tf.int32))

    def load_or_blank(data):
        # A graph catches an operation's error only inside a data set.
        one = tf.data.Dataset.from_tensors(data).map(load).ignore_errors()
        return one.concatenate(tf.data.Dataset.from_tensors(blank)).take(1).get_single_element()

    signature = (tf.TensorSpec((*size, 3), tf.float32), tf.TensorSpec((2,), tf.int32))
    with tf.device("cpu:0"):
        return tf.map_fn(load_or_blank, image_bytes, fn_output_signature=signature)


def decoded_or_blank(data):
    """One file to uint8 (H, W, 3) and its height and width; one black pixel and 0, 0 where unreadable."""

    def load(data):
        image = decoded_in_graph(data)
        return image, tf.shape(image)[:2]

    blank = tf.data.Dataset.from_tensors((tf.zeros((1, 1, 3), tf.uint8), tf.zeros((2,), tf.int32)))
    # A graph catches an operation's error only inside a data set.
    one = tf.data.Dataset.from_tensors(data).map(load).ignore_errors()
    image, size = one.concatenate(blank).take(1).get_single_element()
    return tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(size, (2,))


def one_by_one(image_bytes, from_images, outputs):
    """What is found in files of any sizes, one after the other.

    Args:
        image_bytes: (B,) JPEG or PNG files.
        from_images: from uint8 images (1, H, W, 3) to `named_outputs`.
        outputs: its outputs, for their shapes.

    Returns:
        The same for all files, and `image_size` (B, 2) int32. A file that cannot be decoded has
        size 0, 0 and no detections.
    """
    signature = {name: tf.TensorSpec(v.shape[1:], v.dtype) for name, v in outputs.items()}
    signature["image_size"] = tf.TensorSpec((2,), tf.int32)

    def one(data):
        image, size = decoded_or_blank(data)
        found = {name: value[0] for name, value in from_images(image[None]).items()}
        unread = size[0] == 0
        found = {name: tf.where(unread, 0.0, value) for name, value in found.items()}
        return {**found, "image_size": size}

    return tf.map_fn(one, image_bytes, fn_output_signature=signature)


class NamedDetections(keras.layers.Layer):
    """A detector's `decode` and `named_outputs` as the last layer of a Keras graph.

    Args:
        model: the detector whose raw outputs it gets.
        thresholds: keyword arguments of `Detector.decode`.
    """

    def __init__(self, model, thresholds):
        super().__init__(dtype="float32", name="detections")
        self._decode = model.decode  # the bound method: Keras would track the model itself
        self._place = placement(model.image_size, model.image_size)
        self._thresholds = dict(thresholds)

    def call(self, outputs):
        """Raw outputs to the four named ones, boxes as shares of the network's input."""
        return named_outputs(self._decode(outputs, **self._thresholds), self._place)
