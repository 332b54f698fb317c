"""Training that ends with a plain sentence where its loss is not a number any more."""

import math

import keras

from kerasdet.errors import TrainingError


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends training at the first batch whose loss is NaN or infinite.

    Args:
        image_ids: function of the model to the ids of the last batch's images; None: they are not
            known.
    """

    def __init__(self, image_ids=None):
        super().__init__()
        self._image_ids = image_ids

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers which it is."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the batch's losses.

        Raises:
            TrainingError: naming epoch, batch, terms and images.
        """
        bad = {name: float(value) for name, value in (logs or {}).items() if name != "loss"}
        bad = {name: value for name, value in bad.items() if not math.isfinite(value)}
        if not bad and math.isfinite(float((logs or {}).get("loss", 0.0))):
            return
        terms = (
            ", ".join(f"{name} is {value}" for name, value in bad.items()) or "loss is not finite"
        )
        # On JAX asking for `self.model` is what brings its state up to date.
        images = ", ".join(self._image_ids(self.model) if self._image_ids else []) or "not known"
        raise TrainingError(
            f"Training stopped at epoch {self.epoch + 1}, batch {batch + 1}: {terms}; the images "
            f"of that batch: {images}. Lower the learning rate or check their annotations (labels "
            f"are 0..{self.model.num_classes - 1})."
        )
