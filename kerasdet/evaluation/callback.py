"""Average precision during `fit`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from kerasdet.errors import InputError
from kerasdet.evaluation.evaluation import RULES, Evaluation, evaluate
from kerasdet.evaluation.inputs import answering, matched_classes

_LOGGED = {"voc07": ("AP50",), "voc10": ("AP50",), "coco": ("AP", "AP50", "AP75")}


class MeanAveragePrecision(keras.callbacks.Callback):
    """Evaluates at the end of epochs and puts the result into the epoch's logs.

    Callbacks after it in the list (`ModelCheckpoint(monitor="val_AP50", mode="max")`,
    `EarlyStopping`, `CSVLogger`, `TensorBoard`) see the numbers as they see Keras' own, and
    so do the progress bar and the history.

    The first epoch and the last are always evaluated. On an epoch that is left out the
    numbers are NaN: the column is there from the first row on, no checkpoint is taken for a
    number its weights never had, and a chart has a gap instead of a plateau. `EarlyStopping`
    counts such an epoch as one without progress, so its patience wants to be longer than `every`.

    Args:
        examples: unbatched examples; see `kerasdet.evaluation.evaluate`.
        rule: "voc10" and "voc07" log `val_AP50`, "coco" logs `val_AP`, `val_AP50`, `val_AP75`.
        every: epochs from one evaluation to the next.
        max_images: evaluate the first so many only. None: all.
        prefix: of the names in the logs.
        batch_size: images detected at once.
        score_threshold, iou_threshold, max_detections: for `model.detect`; see `evaluate`.
        class_names, match_names: see `evaluate`.
        detector: what is evaluated, where it is not the model that `fit` trains but shares its
            weights, as `YOLO9000.for_classes` does.
        progress: show a bar of its own beside Keras'.

    Attributes:
        evaluation: the latest `Evaluation`, None before the first.

    Raises:
        InputError: at the start of `fit`, if the class lists differ.
    """

    def __init__(
        self,
        examples: Any,
        *,
        rule: str = "voc10",
        every: int = 1,
        max_images: int | None = None,
        prefix: str = "val_",
        batch_size: int = 8,
        score_threshold: float | None = 0.01,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
        class_names: Sequence[str] | None = None,
        match_names: bool = False,
        detector: Any = None,
        progress: bool = False,
    ):
        super().__init__()
        if rule not in RULES:
            raise InputError(f"The rule wants to be one of {', '.join(RULES)}: {rule!r}.")
        if every < 1:
            raise InputError(f"`every` wants a number of epochs, at least 1: {every}.")
        self.examples = examples
        self.rule = rule
        self.every = every
        self.prefix = prefix
        self.evaluation: Evaluation | None = None
        self._detector = lambda: detector
        self._names = {"class_names": class_names, "match_names": match_names}
        self._settings = {
            "batch_size": batch_size,
            "score_threshold": score_threshold,
            "iou_threshold": iou_threshold,
            "max_detections": max_detections,
            "max_images": max_images,
            "progress": progress,
        }

    def on_train_begin(self, logs=None):
        """Fails now rather than after an epoch, if the classes do not fit."""
        self.evaluation = None
        detector = self._detector() or self.model
        self._answering = answering(detector, self.examples, **self._names)
        matched_classes(self._answering, self.examples, **self._names)

    def on_epoch_end(self, epoch, logs=None):
        """Adds the numbers to `logs`."""
        last = epoch + 1 == (self.params or {}).get("epochs")
        # The first always: EarlyStopping that starts from a NaN never sees progress again.
        if self.evaluation is None or last or (epoch + 1) % self.every == 0:
            self.evaluation = evaluate(
                self._answering, self.examples, rule=self.rule, **self._names, **self._settings
            )
            metrics = self.evaluation.metrics
        else:
            metrics = {}
        if logs is not None:
            for name in _LOGGED[self.rule]:
                logs[self.prefix + name] = metrics.get(name, math.nan)
