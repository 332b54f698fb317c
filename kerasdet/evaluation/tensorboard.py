"""Drawn detections in TensorBoard, epoch by epoch."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasdet import visualize
from kerasdet.errors import InputError
from kerasdet.evaluation.inputs import numpy_examples, text


class DetectionImages(keras.callbacks.Callback):
    """Writes what the model finds in a few images, beside what is in them, at the end of epochs.

    The left half of each picture is the truth, the right half the detections. The images stay
    in memory. They appear under the tag `detections/<image id>`, at the epoch as step.

    Args:
        examples: unbatched examples; the first `count` are drawn.
        log_dir: TensorBoard's folder; the pictures go to its subfolder `detections`.
        count: how many images.
        every: epochs from one drawing to the next; the first and the last are always drawn.
        score_threshold: lowest score drawn.
        class_names: of the examples' labels. None: those the examples carry, or the model's.
        size: longest side of each half, pixels.

    Raises:
        InputError: at the start of `fit`, if TensorBoard is not installed or the examples are
            batched.
    """

    def __init__(
        self,
        examples: Any,
        log_dir: Any,
        *,
        count: int = 8,
        every: int = 1,
        score_threshold: float = 0.3,
        class_names: Sequence[str] | None = None,
        size: int = 480,
    ):
        super().__init__()
        if every < 1 or count < 1:
            raise InputError(f"`count` and `every` want at least 1: {count} and {every} came.")
        self.examples = examples
        self.log_dir = str(log_dir)
        self.count = count
        self.every = every
        self.score_threshold = score_threshold
        self.class_names = class_names or getattr(examples, "class_names", None)
        self.size = size
        self._shown: list[dict[str, Any]] = []
        self._writer: Any = None
        self._drawn = False

    def on_train_begin(self, logs=None):
        """Reads the images, once."""
        import tensorflow as tf

        if importlib.util.find_spec("tensorboard") is None:
            raise InputError(
                "Drawn detections want the package tensorboard, which is not installed: "
                "pip install tensorboard."
            )
        if not self._shown:
            self._shown = list(itertools.islice(numpy_examples(self.examples), self.count))
        self._writer = tf.summary.create_file_writer(f"{self.log_dir}/detections")
        self._drawn = False

    def on_epoch_end(self, epoch, logs=None):
        """Detects and draws."""
        import tensorflow as tf

        last = epoch + 1 == (self.params or {}).get("epochs")
        if self._drawn and not last and (epoch + 1) % self.every:
            return
        self._drawn = True
        detections = self.model.detect(
            [example["image"] for example in self._shown], score_threshold=self.score_threshold
        )
        with self._writer.as_default(step=epoch):
            for place, (example, found) in enumerate(zip(self._shown, detections, strict=True)):
                tag = text(example.get("image_id", "")) or str(place)
                picture = self._beside(example, found)
                tf.summary.image(f"detections/{tag}", picture[None])
        self._writer.flush()

    def on_train_end(self, logs=None):
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _beside(self, example: Mapping[str, Any], found: Any) -> np.ndarray:
        names = self.class_names or self.model.class_names
        truth = visualize.draw(
            example["image"], boxes=example["boxes"], labels=example["labels"], class_names=names
        )
        drawn = visualize.draw(example["image"], found, class_names=self.model.class_names)
        return visualize.gallery([truth, drawn], columns=2, tile=self.size, gap=4)
