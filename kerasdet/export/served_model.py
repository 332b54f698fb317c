"""An exported SavedModel with the face of a detector, so that it can be tried and measured."""

import itertools
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdet import arguments
from kerasdet.errors import InputError
from kerasdet.export.check import from_outputs
from kerasdet.images import read_image
from kerasdet.region_proposals import checked_regions, of_each_image
from kerasdet.suppression import Detections

_BATCH = 8


class ServedModel:
    """What `kerasdet.export.load` returns: an export that runs by TensorFlow alone.

    Args:
        loaded: what `tf.saved_model.load` returned.
        folder: where it was, for messages.

    Attributes:
        name: the exported model's.
        class_names: list of K strings.
        num_classes: K.
        image_size: (height, width) of the network input, pixels.
        takes_regions: whether it looks at regions.
        thresholds: those that are built in; None stands for the model's own.
    """

    def __init__(self, loaded, folder: Path):
        if "serving_bytes" not in loaded.signatures or not hasattr(loaded, "detector"):
            raise InputError(f"The SavedModel in {folder} was not written by kerasdet.")
        settings = json.loads(Path(loaded.detector.asset_path.numpy().decode()).read_text("utf-8"))
        self.name = settings["name"]
        self.class_names = settings["class_names"]
        self.num_classes = len(self.class_names)
        self.image_size = tuple(settings["image_size"])
        self.takes_regions = settings.get("takes_regions", False)
        self.thresholds = settings["thresholds"]
        self._loaded = loaded

    def detect(
        self,
        images,
        regions=None,
        *,
        score_threshold=None,
        iou_threshold=None,
        max_detections=None,
    ) -> list[Detections]:
        """As `Detector.detect`, within what was built in.

        Args:
            images: as for `Detector.detect`.
            regions: for a detector of regions, as for its `detect`; None: sliding windows.
            score_threshold: leaves out detections that do not exceed it.
            iou_threshold: None or the one built in.
            max_detections: most detections an image.

        Raises:
            InputError: if something is not an image or no region, a number makes no sense, or for
                another `iou_threshold`.
        """
        asked = arguments.thresholds(score_threshold, iou_threshold, max_detections)
        built_in = self.thresholds["iou_threshold"]
        if iou_threshold not in (None, built_in):
            raise InputError(
                f"The export suppresses at an overlap of {built_in or 'its own'}, not at "
                f"{iou_threshold}; export the model anew for that."
            )
        several = isinstance(images, list | tuple) or getattr(images, "ndim", 3) == 4
        arrays = [
            _as_uint8(read_image(image, f"image {i}"), i)
            for i, image in enumerate(images if several else [images])
        ]
        if regions is None:
            of_each = self._found(arrays)
        else:
            of_each = self._found_in(arrays, regions)
        found = []
        for one in of_each:
            keep = one.scores > (asked["score_threshold"] or 0.0)
            keep &= np.cumsum(keep) <= (asked["max_detections"] or len(keep))
            kept = Detections(one.boxes[keep], one.scores[keep], one.labels[keep], int(keep.sum()))
            kept.names = [self.class_names[label] for label in kept.labels]
            found.append(kept)
        return found

    def _found(self, images):
        """Images of one size that follow each other go through the network together."""
        name = "serving_windows" if self.takes_regions else "serving_default"
        signature = self._loaded.signatures[name]
        for _, alike in itertools.groupby(images, lambda image: image.shape):
            alike = list(alike)
            for start in range(0, len(alike), _BATCH):
                yield from detect_with(signature, alike[start : start + _BATCH])

    def _found_in(self, images, regions):
        """One image after the other, with its regions."""
        if not self.takes_regions:
            raise InputError(f"{self.name} takes images alone, no regions.")
        signature = self._loaded.signatures["serving_default"]
        for i, (image, rows) in enumerate(
            zip(images, of_each_image(regions, len(images)), strict=True)
        ):
            if rows is None:
                yield from self._found([image])
                continue
            rows = checked_regions(rows, image.shape[:2], f"the regions of image {i}")
            yield from detect_with(signature, [image], rows[None])


def detect_with(signature, images, regions=None) -> list[Detections]:
    """Runs one of the signatures on uint8 images and reads its outputs.

    Args:
        signature: of a loaded SavedModel.
        images: uint8 (H, W, 3) arrays, of one size but for serving_bytes.
        regions: (B, R, 4), where the signature takes them.
    """
    specs = signature.structured_input_signature[1]
    inputs = specs.get("images") or specs["image_bytes"]
    if inputs.dtype == tf.string:
        batch = tf.stack([tf.io.encode_png(image, compression=1) for image in images])
    else:
        batch = tf.constant(np.stack(images))
    given = {inputs.name: batch}
    if regions is not None:
        given["regions"] = tf.constant(regions, tf.float32)
    outputs = {key: value.numpy() for key, value in signature(**given).items()}
    return from_outputs(outputs, [image.shape[:2] for image in images])


def _as_uint8(image, number):
    if image.dtype == np.uint8:
        return image
    if image.min() < 0 or image.max() > 255:
        raise InputError(f"Wanted numbers 0..255 for image {number}; they run to {image.max():g}.")
    return np.rint(image).astype(np.uint8)
