"""What every detector is: a functional Keras model with one training step and `detect`."""

import math
from pathlib import Path

import keras
import numpy as np
from keras import ops

from kerasdet.errors import InputError, TrainingError
from kerasdet.suppression import Detections

# Variables that weight decay moves; biases, normalisation's scales and gains are left alone.
_DECAYED = ("kernel", "depthwise_kernel", "pointwise_kernel")

# Images `detect` sends through the network together.
_DETECT_BATCH = 8


class Detector(keras.Model):
    """A functional `keras.Model` from images to named raw outputs, with targets of its own.

    A detector's file adds three methods: `assign` (padded objects to what the outputs
    should be), `loss_terms` (named scalars) and `decode` (raw outputs to `Detections`).

    Args:
        inputs: (B, H, W, 3) Keras tensor: RGB, 0..255.
        outputs: dict of named Keras tensors.
        class_names: names of the labels 0..K-1.
        **kwargs: what `keras.Model` takes.

    Attributes:
        class_names: list of K strings.
        num_classes: K.
        image_size: (height, width) of the network input, pixels.
        loss_names: names of the terms that `loss_terms` returns.
    """

    loss_names: tuple[str, ...] = ()

    def __init__(self, inputs, outputs, *, class_names, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.class_names = list(class_names)
        self.num_classes = len(self.class_names)
        self.image_size = tuple(inputs.shape[1:3])
        self.weight_decay = 0.0
        self._terms = {}  # name to running mean
        self._batch_ids = _BatchIds(name="batch_ids")
        self._detect_functions = _Untracked()

    # ------------------------------------------------------------------ for the detector's file

    def assign(self, targets):
        """Padded objects to training targets of static shape; no gradient flows through it.

        Args:
            targets: {"boxes": (B, G, 4) pixels of the network input, "labels": (B, G)}.

        Returns:
            Whatever `loss_terms` reads.
        """
        raise TypeError(f"{type(self).__name__} does not say how objects become targets.")

    def loss_terms(self, outputs, assigned) -> dict:
        """Named scalar losses whose sum is trained on, in float32.

        Args:
            outputs: the model's raw outputs.
            assigned: what `assign` returned.
        """
        raise TypeError(f"{type(self).__name__} does not say what its loss is.")

    def decode(
        self, outputs, *, score_threshold=None, iou_threshold=None, max_detections=None
    ) -> Detections:
        """Raw outputs to batched, padded detections in pixels of the network input.

        Args:
            outputs: the model's raw outputs.
            score_threshold: least score; None for the release's.
            iou_threshold: overlap that suppresses; None for the release's.
            max_detections: rows of the result; None for the release's.
        """
        raise TypeError(f"{type(self).__name__} does not say how its outputs are read.")

    # ------------------------------------------------------------------ training

    def compile(self, optimizer="sgd", *, weight_decay=0.0, **kwargs):
        """Keras' `compile`; the losses are the detector's own, so none is passed.

        Args:
            optimizer: a Keras optimizer or its name. A decay of the optimizer's own (as
                AdamW has) is kept from biases, scales and gains.
            weight_decay: lambda of the L2 term lambda / 2 * sum(w**2) over convolution and
                dense kernels alone, the way Caffe's and darknet's SGD decays weights.
            **kwargs: as in `keras.Model.compile`.
        """
        optimizer = keras.optimizers.get(optimizer)
        decaying = getattr(optimizer, "inner_optimizer", optimizer)  # within a LossScaleOptimizer
        if getattr(decaying, "weight_decay", None) and not decaying.built:
            spared = [v for v in self.trainable_variables if not _decays(v)]
            decaying.exclude_from_weight_decay(var_list=spared)
        self.weight_decay = weight_decay
        for name in (*self.loss_names, *(["weight_decay"] if weight_decay else [])):
            if name not in self._terms:
                self._terms[name] = keras.metrics.Mean(name=name)
        super().compile(optimizer=optimizer, **kwargs)

    def get_compile_config(self):
        """Adds the weight decay to Keras' own, so that a loaded model trains on as it did."""
        config = super().get_compile_config()
        return config and {**config, "weight_decay": self.weight_decay}

    def compile_from_config(self, config):
        """Compiles as the saved model was."""
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def train_step(self, *args):
        """One step on TensorFlow (data) or JAX (state, data): targets assigned, then Keras' own."""
        *state, data = args
        return super().train_step(*state, self._with_assigned(data))

    def test_step(self, *args):
        """One evaluation step, with the same targets."""
        *state, data = args
        return super().test_step(*state, self._with_assigned(data))

    def _with_assigned(self, data):
        inputs, targets, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is not None:
            raise InputError("A detector's losses take no sample weights; leave sample_weight out.")
        assigned = keras.tree.map_structure(ops.stop_gradient, self.assign(targets))
        return inputs, {"assigned": assigned, "image_id": targets.get("image_id")}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum of `loss_terms`, weight decay and Keras' own penalties; each is tracked by name."""
        terms = dict(self.loss_terms(y_pred, y["assigned"]))
        if self.weight_decay:
            decayed = [v for v in self.trainable_variables if _decays(v)]
            squares = [ops.sum(ops.square(ops.cast(v, "float32"))) for v in decayed]
            terms["weight_decay"] = self.weight_decay / 2 * sum(squares)
        batch_size = ops.shape(keras.tree.flatten(x)[0])[0]  # Keras weighs its "loss" by it too
        for name, value in terms.items():
            self._terms[name].update_state(value, sample_weight=batch_size)
        if y["image_id"] is not None:
            self._batch_ids.update_state(y["image_id"])
        total = sum(terms.values()) + sum(self.losses)
        # Keras adds replicas' gradients up, and divides only its own losses.
        return total / _replica_count()

    def get_metrics_result(self):
        """Keras' metrics without the record of image ids."""
        logs = super().get_metrics_result()
        logs.pop(self._batch_ids.name, None)
        return logs

    def fit(self, *args, callbacks=None, **kwargs):
        """Keras' `fit`, stopped with a plain sentence when a loss is not finite.

        Raises:
            TrainingError: naming the batch, the loss term and the images.
        """
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [_StopWhenNotFinite(), *keras.tree.flatten(callbacks or [])]
        if hasattr(args[0] if args else kwargs.get("x"), "element_spec"):
            kwargs.setdefault("shuffle", False)  # Keras warns that it does not shuffle tf.data
        return super().fit(*args, callbacks=callbacks, **kwargs)

    # ------------------------------------------------------------------ use

    def detect(
        self, images, *, score_threshold=None, iou_threshold=None, max_detections=None
    ) -> list[Detections]:
        """Finds objects in photos of any size.

        Args:
            images: one image, a batch (B, H, W, 3), or a list of images of any sizes. An
                image is an RGB array (H, W, 3) in 0..255, a PIL image, or a file's path.
            score_threshold: least score; None for the release's.
            iou_threshold: overlap that suppresses; None for the release's.
            max_detections: most detections an image; None for the release's.

        Returns:
            One `Detections` an image, best first: boxes (n, 4) in that image's own pixels,
            cut at its edges, scores (n,), labels (n,), count n, and `names`.

        Raises:
            InputError: if something is not an image.
        """
        images = [read_image(image, where) for where, image in _each(images)]
        run = self._detect_function(score_threshold, iou_threshold, max_detections)
        found = []
        for start in range(0, len(images), _DETECT_BATCH):
            chunk = images[start : start + _DETECT_BATCH]
            batch = np.stack([warp(image, self.image_size) for image in chunk])
            if len(images) > _DETECT_BATCH:  # one size, one compilation
                batch = np.pad(batch, [(0, _DETECT_BATCH - len(chunk)), (0, 0), (0, 0), (0, 0)])
            arrays = [ops.convert_to_numpy(array) for array in run(batch)]
            for i, image in enumerate(chunk):
                found.append(self._in_source(Detections(*(a[i] for a in arrays)), image.shape))
        return found

    def _in_source(self, padded, shape):
        """Trims one image's rows and scales its boxes from the network input to the image."""
        count = int(padded.count)
        height, width = shape[:2]
        scale = (
            np.array([width, height, width, height]) / np.array(self.image_size * 2)[[1, 0, 1, 0]]
        )
        boxes = padded.boxes[:count] * scale.astype("float32")
        boxes = np.clip(boxes, 0, np.array([width, height, width, height], "float32"))
        found = Detections(boxes, padded.scores[:count], padded.labels[:count], count)
        found.names = [self.class_names[label] for label in found.labels]
        return found

    def _detect_function(self, *thresholds):
        """Network and `decode` compiled together, once for each set of thresholds."""
        functions = self._detect_functions.by_thresholds
        if thresholds not in functions:
            score_threshold, iou_threshold, max_detections = thresholds

            def read(outputs):
                return self.decode(
                    outputs,
                    score_threshold=score_threshold,
                    iou_threshold=iou_threshold,
                    max_detections=max_detections,
                )

            functions[thresholds] = _compiled(self, read)
        return functions[thresholds]


class _Untracked:
    """Holds compiled functions; Keras would track a bare dict and fail to save its keys."""

    def __init__(self):
        self.by_thresholds = {}


def _compiled(model, read):
    """A function from a NumPy batch to `read(model(batch))`, compiled by the back end."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        height, width = model.image_size
        batch = tf.TensorSpec((None, height, width, 3), tf.float32)
        return tf.function(
            lambda images: read(model(images, training=False)), [batch], autograph=False
        )
    if keras.backend.backend() == "jax":
        import jax

        @jax.jit
        def forward(trainable, rest, images):
            return read(model.stateless_call(trainable, rest, images, training=False)[0])

        return lambda images: forward(
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
            images,
        )
    return lambda images: read(model(images, training=False))


def _decays(variable) -> bool:
    return variable.path.rsplit("/", 1)[-1] in _DECAYED


def _replica_count() -> int:
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


# ---------------------------------------------------------------------- images


def _each(images):
    """(where it stands in the call, image) for one image, a batch or a list."""
    if hasattr(images, "__array__") and hasattr(images, "ndim"):  # NumPy's or a back end's
        images = np.asarray(images)
        if images.ndim == 4:
            return [(f"image {i} of the batch", image) for i, image in enumerate(images)]
        return [("the image", images)]
    if isinstance(images, list | tuple):
        return [(f"image {i} of the list", image) for i, image in enumerate(images)]
    return [("the image", images)]


def read_image(image, where="the image") -> np.ndarray:
    """An image as an RGB array (H, W, 3) in 0..255, from an array, a PIL image or a path.

    Args:
        image: array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4, the last channel ignored) in
            0..255, a PIL image, or a path.
        where: what to call it in an error.

    Raises:
        InputError: if it cannot be read as an image.
    """
    if isinstance(image, str | Path):
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(image) as opened:
                return np.asarray(opened.convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise InputError(f"Wanted an image file for {where}, but {image}: {error}.") from error
    if hasattr(image, "convert"):
        image = image.convert("RGB")
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"Wanted an RGB array (H, W, 3) for {where}, not one of {array.shape}.")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    if array.dtype.kind not in "uif":
        raise InputError(f"Wanted numbers 0..255 for {where}, not {array.dtype}.")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(f"Wanted numbers 0..255 for {where}, but it holds {low} and {high}.")
        if 0 < high <= 1.0:
            raise InputError(
                f"Wanted numbers 0..255 for {where}, but its largest is {high:g}: "
                "multiply an image in 0..1 by 255."
            )
    elif array.dtype.itemsize > 1 and not 0 <= int(array.min()) <= int(array.max()) <= 255:
        raise InputError(
            f"Wanted numbers 0..255 for {where}, not {array.min()}..{array.max()}: "
            "scale an image of more than 8 bits down first."
        )
    return array[..., :3]


def warp(image, size) -> np.ndarray:
    """Resizes one image to (height, width), bilinear, half-pixel centres, aspect not kept.

    The same numbers as `tf.image.resize` and torch's `interpolate(align_corners=False)`, in
    NumPy: no back end compiles it anew for every photo's size.

    Args:
        image: (H, W, 3).
        size: (height, width).

    Returns:
        (height, width, 3) float32.
    """
    (top, bottom, down), (left, right, across) = (
        _taps(source, target) for source, target in zip(image.shape, size, strict=False)
    )
    rows = _between(image[top], image[bottom], down[:, None, None])  # (height, W, 3)
    return _between(rows[:, left], rows[:, right], across[:, None])


def _taps(source, target):
    """For each target pixel its two source pixels and how far between them it lies."""
    place = (np.arange(target, dtype="float32") + 0.5) * (source / target) - 0.5
    place = np.clip(place, 0, source - 1)
    first = np.floor(place).astype("int64")
    return first, np.minimum(first + 1, source - 1), (place - first).astype("float32")


def _between(first, second, share):
    first = first.astype("float32")
    return first + (second - first) * share


# ---------------------------------------------------------------------- a loss that is not finite


class _BatchIds(keras.metrics.Metric):
    """Remembers the image ids of the last batch, so that a bad one can be named."""

    _ROWS, _BYTES = 256, 64

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.ids = self.add_variable(
            (self._ROWS, self._BYTES), "zeros", dtype="uint8", aggregation="only_first_replica"
        )

    def update_state(self, ids):
        ids = ids[: self._ROWS]
        missing = self._ROWS - ops.shape(ids)[0]
        self.ids.assign(ops.pad(ops.cast(ids, "uint8"), ((0, missing), (0, 0))))

    def result(self):
        return ops.convert_to_tensor(0.0)

    def read(self) -> list[str]:
        rows = ops.convert_to_numpy(self.ids)
        names = (bytes(row).rstrip(b"\0").decode("utf-8", "replace") for row in rows)
        return [name for name in names if name]


class _StopWhenNotFinite(keras.callbacks.Callback):
    """Ends training at the first batch whose loss is NaN or infinite."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        bad = {name: float(value) for name, value in (logs or {}).items() if name != "loss"}
        bad = {name: value for name, value in bad.items() if not math.isfinite(value)}
        if not bad and math.isfinite(float((logs or {}).get("loss", 0.0))):
            return
        terms = (
            ", ".join(f"{name} is {value}" for name, value in bad.items()) or "loss is not finite"
        )
        images = ", ".join(self.model._batch_ids.read()) or "not known"
        raise TrainingError(
            f"Training stopped at epoch {self.epoch + 1}, batch {batch + 1}: {terms}; the images "
            f"of that batch: {images}. Lower the learning rate or check their annotations."
        )
