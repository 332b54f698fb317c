"""The graph that is served of a detector of regions: given with the images, or sliding windows."""

import tensorflow as tf

from kerasdet.errors import InputError
from kerasdet.export.empty import for_any_number
from kerasdet.export.graph import named_outputs, one_by_one
from kerasdet.images import Placement, placement_in_graph, resized_in_graph
from kerasdet.region_proposals import sliding_windows


class ServedRegionDetector(tf.Module):
    """A detector of regions as three TensorFlow functions with everything around the network inside.

    Args:
        model: the detector.
        assets: files that travel inside the SavedModel, by attribute name.
        thresholds: keyword arguments of `Detector.decode`.

    Raises:
        InputError: if the model looks at photos in several sizes.

    Attributes:
        from_regions: `images` uint8 (B, H, W, 3) of any size and `regions` float32 (B, R, 4), xyxy
            in their pixels, to `named_outputs`. What `detect` refuses, a region reversed, empty or
            outside, or all of an image in shares of it, is left out like padding: a server has
            several clients' images in a batch.
        from_images: `images` alone, with sliding windows for regions.
        from_bytes: `image_bytes` (B,) JPEG or PNG files of any sizes, likewise, one after the
            other; and `image_size` (B, 2) int32. A file that cannot be decoded has size 0, 0 and
            no detections.
    """

    def __init__(self, model, assets, thresholds):
        super().__init__(name="detector")
        if model.short_sides is not None:
            raise InputError(
                f"An export looks at photos in one size, and {model.name} in {model.short_sides}: set "
                "its short_sides to None."
            )
        for name, path in assets.items():
            setattr(self, name, tf.saved_model.Asset(str(path)))
        # The variables alone: a Keras model drags its training state and caches along.
        self.weights = [variable.value for variable in model.variables]
        images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
        regions = tf.TensorSpec((None, None, 4), tf.float32, name="regions")
        image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")

        @tf.function(input_signature=[images, regions], autograph=False)  # traced once
        @for_any_number
        def detect(images, regions):
            return _found(model, images, regions, thresholds)

        def from_images(images):
            windows = sliding_windows(*tf.unstack(tf.shape(images)[1:3]))
            rows = tf.ones([tf.shape(images)[0], 1, 1])
            return detect(images, windows[None] * rows)

        def from_bytes(image_bytes):
            outputs = detect.get_concrete_function().structured_outputs
            return one_by_one(image_bytes, from_images, outputs)

        self.from_regions = tf.function(
            lambda images, regions: detect(images, regions),
            input_signature=[images, regions],
            autograph=False,
        )
        self.from_images = tf.function(from_images, input_signature=[images], autograph=False)
        self.from_bytes = tf.function(from_bytes, input_signature=[image_bytes], autograph=False)

    def save(self, folder) -> None:
        """Writes the SavedModel with the signatures serving_default, _windows and _bytes."""
        signatures = {
            "serving_default": self.from_regions.get_concrete_function(),
            "serving_windows": self.from_images.get_concrete_function(),
            "serving_bytes": self.from_bytes.get_concrete_function(),
        }
        tf.saved_model.save(self, str(folder), signatures=signatures)


def _found(model, images, regions, thresholds):
    """The four outputs for images of one size and regions in their pixels."""
    source = tf.unstack(tf.shape(images)[1:3])
    height, width = (tf.cast(side, tf.float32) for side in source)
    place = placement_in_graph(source, model.image_size, "corner", short_side=model.short_side)
    if model.takes_any_size:
        sized = tf.image.resize(tf.cast(images, tf.float32), (place.height, place.width))
    else:
        sized = resized_in_graph(
            images, model.image_size, "corner", short_side=model.short_side, fill=model.mean
        )
    regions = tf.pad(regions, [[0, 0], [0, 1], [0, 0]], constant_values=-1.0)  # one at the least
    regions = _usable(regions, height, width)
    scale = tf.cast(tf.stack(place.scale), tf.float32)
    regions = _first_of_equal(regions, scale, 1 / model.stride)
    there = regions[..., 2:3] > 0
    rows = tf.where(there, regions * scale, -1.0)
    outputs = model({"images": sized, "regions": rows}, training=False)
    found = model.decode(outputs, regions=regions, image_size=(height, width), **thresholds)
    return named_outputs(found, Placement(0, 0, height, width, height, width))


def _usable(regions, height, width):
    """(B, R, 4) cut at the image's edges; rows that are no regions become -1.

    So do all rows of an image where no coordinate is above 1: shares of the image, not pixels.
    """
    sides = tf.stack([width, height, width, height])
    finite = tf.reduce_all(tf.math.is_finite(regions), axis=-1, keepdims=True)
    cut = tf.clip_by_value(tf.where(finite, regions, -1.0), 0.0, sides)
    area = tf.reduce_all(cut[..., 2:] > cut[..., :2], axis=-1, keepdims=True)
    largest = tf.reduce_max(tf.where(finite, regions, -1.0), axis=(1, 2), keepdims=True)
    pixels = (largest > 1) | (tf.maximum(width, height) <= 1)
    return tf.where(finite & area & pixels, cut, -1.0)


def _first_of_equal(regions, scale, cells):
    """The regions with -1 in those that fall on the cells of one before, as `detect` leaves them out."""
    place = tf.floor(regions * scale * cells + 0.5)  # (B, R, 4)
    same = tf.reduce_all(place[:, :, None] == place[:, None], axis=-1)  # (B, R, R)
    first = tf.argmax(tf.cast(same, tf.uint8), axis=-1, output_type=tf.int32)
    own = tf.range(tf.shape(regions)[1])
    return tf.where((first == own)[..., None], regions, -1.0)
