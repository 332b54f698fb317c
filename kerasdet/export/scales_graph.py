"""The graph that is served of a detector that looks at a photo at several scales."""

import tensorflow as tf

from kerasdet import boxes as box_ops
from kerasdet.export.empty import for_any_number
from kerasdet.export.graph import named_outputs, one_by_one
from kerasdet.images import Placement
from kerasdet.windows import Candidates, sizes_for


class ServedScalesDetector(tf.Module):
    """A detector of several scales as two TensorFlow functions with all scales and their merge inside.

    Args:
        model: the detector; its `scales` and `merge` are as set now.
        assets: files that travel inside the SavedModel, by attribute name.
        thresholds: keyword arguments of `Detector.decode`.

    Attributes:
        from_images: `images` uint8 (B, H, W, 3) of any size to `named_outputs`.
        from_bytes: `image_bytes` (B,) JPEG or PNG files of any sizes to the same, one after the
            other; and `image_size` (B, 2) int32. A file that cannot be decoded has size 0, 0 and
            no detections.
    """

    def __init__(self, model, assets, thresholds):
        super().__init__(name="detector")
        for name, path in assets.items():
            setattr(self, name, tf.saved_model.Asset(str(path)))
        # The variables alone: a Keras model drags its training state and caches along.
        self.weights = [variable.value for variable in model.variables]
        images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
        image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")

        @tf.function(input_signature=[images], autograph=False)  # traced once
        @for_any_number
        def detect(images):
            return _found(model, images, thresholds)

        def from_bytes(image_bytes):
            outputs = detect.get_concrete_function().structured_outputs
            return one_by_one(image_bytes, lambda images: detect(images), outputs)

        self.from_images = tf.function(
            lambda images: detect(images), input_signature=[images], autograph=False
        )
        self.from_bytes = tf.function(from_bytes, input_signature=[image_bytes], autograph=False)

    def save(self, folder) -> None:
        """Writes the SavedModel; its signatures are serving_default and serving_bytes."""
        signatures = {
            "serving_default": self.from_images.get_concrete_function(),
            "serving_bytes": self.from_bytes.get_concrete_function(),
        }
        tf.saved_model.save(self, str(folder), signatures=signatures)


def _found(model, images, thresholds):
    """The four outputs for images of one size."""
    height, width = tf.unstack(tf.shape(images)[1:3])
    images = tf.cast(images, tf.float32)
    sides = tf.cast(tf.stack([width, height, width, height]), tf.float32)

    def at(sizes):
        parts = [_candidates(model, images, size, sides) for size in sizes]
        return [tf.concat(arrays, axis=1) for arrays in zip(*parts, strict=True)]

    square, lying, upright = (sizes_for(model.scales, *sides) for sides in ((1, 1), (1, 2), (2, 1)))
    if lying == upright:
        candidates = at(square)
    else:  # of the same number of windows either way
        kind = tf.cast(width > height, tf.int32) + 2 * tf.cast(height > width, tf.int32)
        branches = [lambda sizes=sizes: at(sizes) for sizes in (square, lying, upright)]
        candidates = tf.switch_case(kind, branches)
    found = model.combined(Candidates(*candidates), **thresholds)
    found = found._replace(boxes=box_ops.clip(found.boxes, sides[3], sides[2]))
    return named_outputs(found, Placement(0, 0, height, width, height, width))


def _candidates(model, images, size, sides):
    """Of one scale, boxes in the photos' pixels."""
    outputs = model(tf.image.resize(images, size, antialias=False), training=False)
    found = model.candidates(outputs)
    height, width = size
    return found._replace(boxes=found.boxes * (sides / [width, height, width, height]))
