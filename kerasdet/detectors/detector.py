"""What every detector is: a functional Keras model with one training step and `detect`."""

import copy
from numbers import Integral

import keras
import numpy as np
from keras import ops

from kerasdet import (
    arguments,
    labels,
    schedules,  # noqa: F401  (a compiled model's rate is read back with it)
)
from kerasdet.compiling import compiled
from kerasdet.errors import InputError
from kerasdet.images import RESIZES, each_image, placement, read_image, resized
from kerasdet.saving import kept_state, revived
from kerasdet.stopping import StopWhenNotFinite
from kerasdet.suppression import Detections
from kerasdet.weight_decay import penalty, replica_count, spare_others
from kerasdet.weights.assign import share

# Of a batch's targets: objects' and, in joint training, images'.
_LABELS = {"labels", "image_label"}

# Images `detect` sends through the network together.
_DETECT_BATCH = 8


class Detector(keras.Model):
    """A functional `keras.Model` from images to named raw outputs, with targets of its own.

    A detector's file adds three methods: `assign` (padded objects to what the outputs
    should be), `loss_terms` (named scalars) and `decode` (raw outputs to `Detections`).

    `keras.models.clone_model` makes a plain functional model of its network, without these and
    without `images_seen`; `type(model).from_config(model.get_config())` makes another detector.

    Args:
        inputs: (B, H, W, 3) Keras tensor: RGB, 0..255. H and W may be None: a network for
            images of any size that `image_stride` divides. Or a dict with it as "images".
        outputs: dict of named Keras tensors.
        class_names: names of the labels 0..K-1.
        image_size: (height, width), or the side of a square; only where H and W are None.
        resize: "warp" or "letterbox"; None for the class's own.
        **kwargs: what `keras.Model` takes.

    Attributes:
        class_names: list of K strings.
        num_classes: K.
        image_size: (height, width) of the network input, pixels; may be set where the
            network takes several.
        image_stride: what divides every side of the input.
        resize: how a photo comes to that size: "warp", its aspect given up, or "letterbox",
            kept between grey bars.
        precision: the dtype policy that its layers were made in.
        takes_regions: whether the network's input is {"images", "regions"}, and `detect` and
            `decode` take regions.
        augmentation: what a `Recipe` that names none trains with, as `kerasdet.data.pipeline`
            takes it.
        images_seen: integer variable, images trained on, in a detector whose loss depends on
            it and that asked for it with `_count_images`; else None.
        loss_names: names of the terms that `loss_terms` returns.
    """

    loss_names: tuple[str, ...] = ()
    resize = "warp"
    image_stride = 1
    images_seen = None
    takes_regions = False
    augmentation = "flip"

    def __init__(self, inputs, outputs, *, class_names, image_size=None, resize=None, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.class_names = list(class_names)
        self.num_classes = len(self.class_names)
        self.precision = keras.config.dtype_policy().name
        if resize is not None:
            self.resize = resize
        if self.resize not in RESIZES:
            raise InputError(f"resize wants one of {', '.join(RESIZES)}, not {self.resize!r}.")
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        self._input_size = tuple(images.shape[1:3])
        self._image_size = self._input_size
        if image_size is not None:
            self.image_size = image_size
        self.weight_decay = 0.0
        self._terms = {}  # name to running mean
        self._batch_ids = _BatchIds(name="batch_ids")
        self._detect_functions = _Untracked()

    # ------------------------------------------------------------------ for the detector's file

    def assign(self, targets, inputs=None):
        """Padded objects to training targets of static shape; no gradient flows through it.

        Args:
            targets: {"boxes": (B, G, 4) pixels of the network input, "labels": (B, G)}, and
                whatever else the batches carry.
            inputs: the batch's images; a network for images of several sizes learns from
                them which one this batch has.

        Returns:
            Whatever `loss_terms` reads.
        """
        raise TypeError(f"{type(self).__name__} does not say how objects become targets.")

    def sampled_inputs(self, inputs, assigned):
        """What the network sees of a batch's inputs: all of them, where `assign` draws no sample.

        Args:
            inputs: the batch's.
            assigned: what `assign` returned for it.
        """
        return inputs

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

    def _count_images(self):
        """Makes `images_seen`, a weight that training counts up."""
        # "int": 64 bits on TensorFlow, whose GPU kernels leave 32-bit counters to the CPU.
        self.images_seen = self.add_weight(
            name="images_seen",
            shape=(),
            dtype="int",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )

    # ------------------------------------------------------------------ the network's input

    @property
    def image_size(self):
        """(height, width) that photos are brought to."""
        return self._image_size

    @image_size.setter
    def image_size(self, size):
        self._image_size = self._checked_size(size)

    @property
    def takes_any_size(self) -> bool:
        """Whether `image_size` may be set."""
        return None in self._input_size

    def _checked_size(self, size):
        sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
        whole = len(sides) == 2 and all(isinstance(side, Integral) for side in sides)
        if not whole or any(side < 1 or side % self.image_stride for side in sides):
            multiples = f"multiples of {self.image_stride}" if self.image_stride > 1 else "positive"
            raise InputError(f"image_size wants whole numbers, {multiples}, not {size!r}.")
        fixed = self._input_size
        if any(own not in (None, side) for own, side in zip(fixed, sides, strict=True)):
            raise InputError(
                f"{self.name} was built for images of {fixed[0]}x{fixed[1]} alone, not {size!r}."
            )
        return tuple(int(side) for side in sides)

    def call(self, inputs, training=None, mask=None):
        """The named raw outputs.

        Raises:
            InputError: if `image_stride` does not divide a side of the images.
        """
        self._check_sides(inputs)
        return super().call(inputs, training=training, mask=mask)

    def _sides(self, inputs):
        """(height, width) of a batch's images; None: of `image_size`."""
        if inputs is None:
            return self.image_size
        self._check_sides(inputs)
        return ops.shape(inputs)[1:3]

    def _check_sides(self, inputs):
        """Refuses images whose sides, where they are known, `image_stride` does not divide."""
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        sides = tuple(images.shape[1:3])
        if any(side is not None and side % self.image_stride for side in sides):
            height, width = sides
            error = InputError(
                f"{self.name} wants images whose sides are multiples of {self.image_stride}, not "
                f"{height}x{width}."
            )
            error._keras_call_info_injected = True  # else Keras writes the image's numbers below it
            raise error

    # ------------------------------------------------------------------ saving

    def _arguments(self) -> dict:
        """The constructor's arguments; a detector's file says them."""
        raise TypeError(f"{type(self).__name__} does not say what it was built with.")

    def get_config(self):
        """Constructor arguments, what was set since, the precision, and which layers are frozen.

        A model as backbone travels whole.
        """
        config = {**self._arguments(), "name": self.name}
        if self.takes_any_size:
            config["image_size"] = self.image_size
        if isinstance(config.get("backbone"), keras.Model):
            config["backbone"] = keras.saving.serialize_keras_object(config["backbone"])
        return config | {"resize": self.resize} | kept_state(self)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds the same network in the same precision; weights are loaded apart."""
        config = dict(config)
        if isinstance(config.get("backbone"), dict):
            config["backbone"] = keras.saving.deserialize_keras_object(
                copy.deepcopy(config["backbone"]),  # Keras empties what it reads
                custom_objects=custom_objects,
            )
        return revived(config, cls)

    # ------------------------------------------------------------------ training

    def start_from(self, other) -> list[str]:
        """Takes the weights of every layer that another model has by the same name and shapes.

        Args:
            other: a detector of this kind for any classes, or a `kerasdet.Classifier` with the same
                backbone.

        Returns:
            Names of the layers that were left as they are: those the other has not, and those for
            classes or boxes of which it has another number.

        Raises:
            InputError: if the other is another network, by its first layer.
        """
        return share(self, other)

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
        spare_others(optimizer, self.trainable_variables)
        self.weight_decay = weight_decay
        for name in (*self.loss_names, *(["weight_decay"] if weight_decay else [])):
            if name not in self._terms:
                self._terms[name] = keras.metrics.Mean(name=name)
        super().compile(optimizer=optimizer, **kwargs)

    def compile_from_config(self, config):
        """Compiles as the saved model was; its weight decay is in its own config."""
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**{"weight_decay": self.weight_decay, **config})
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def train_step(self, *args):
        """One step on TensorFlow (data) or JAX (state, data): targets assigned, then Keras' own."""
        return super().train_step(*self._assigning(*args))

    def test_step(self, *args):
        """One evaluation step, with the same targets."""
        return super().test_step(*self._assigning(*args))

    def _assigning(self, *args):
        """(data) or JAX's (state, data), with targets; random states that `assign` moved as well."""
        if len(args) == 1:
            return (self._with_assigned(*args),)
        (trainable, rest, *others), data = args
        variables = self.non_trainable_variables
        with keras.StatelessScope(state_mapping=list(zip(variables, rest, strict=True))) as scope:
            data = self._with_assigned(data)
        rest = [scope.get_current_value(variable) for variable in variables]
        return (trainable, rest, *others), data

    def _with_assigned(self, data):
        inputs, targets, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is not None:
            raise InputError("A detector's losses take no sample weights; leave sample_weight out.")
        targets, unknown = dict(targets), 0.0
        for name in _LABELS.intersection(targets):
            own = ops.cast(targets[name], "int32")
            targets[name], nan = labels.told(own, self.num_classes, least=-1)
            unknown += nan
        assigned = keras.tree.map_structure(ops.stop_gradient, self.assign(targets, inputs))
        inputs = self.sampled_inputs(inputs, assigned)
        image_id = targets.get("image_id")
        return inputs, {"assigned": assigned, "image_id": image_id, "unknown_labels": unknown}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum of `loss_terms`, weight decay and Keras' own penalties; each is tracked by name."""
        terms = dict(self.loss_terms(y_pred, y["assigned"]))
        if self.weight_decay:
            terms["weight_decay"] = penalty(self.trainable_variables, self.weight_decay)
        count = _images_in(keras.tree.flatten(x)[0])  # Keras weighs its "loss" by it too
        for name, value in terms.items():
            self._terms[name].update_state(value, sample_weight=count)
        if training and self.images_seen is not None:
            here = ops.cast(count * replica_count(), self.images_seen.dtype)
            self.images_seen.assign_add(here)
        if y["image_id"] is not None:
            self._batch_ids.update_state(y["image_id"])
        total = sum(terms.values()) + sum(self.losses) + y["unknown_labels"]
        # Keras adds replicas' gradients up, and divides only its own losses.
        return total / replica_count()

    def get_metrics_result(self):
        """Keras' metrics without the record of image ids."""
        logs = super().get_metrics_result()
        logs.pop(self._batch_ids.name, None)
        return logs

    def fit(self, *args, callbacks=None, **kwargs):
        """Keras' `fit`, stopped with a plain sentence when a loss is not finite.

        Raises:
            InputError: if targets in memory have a label that is none of the detector's. One that
                comes in batches makes the loss NaN.
            TrainingError: naming the batch, the loss term and the images.
        """
        targets = args[1] if len(args) > 1 else kwargs.get("y")
        if isinstance(targets, dict):
            for name in _LABELS.intersection(targets):
                labels.check(targets[name], self.num_classes, least=-1)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            stop = StopWhenNotFinite(lambda model: model._batch_ids.read())
            callbacks = [stop, *keras.tree.flatten(callbacks or [])]
        if hasattr(args[0] if args else kwargs.get("x"), "element_spec"):
            kwargs.setdefault("shuffle", False)  # Keras warns that it does not shuffle tf.data
        return super().fit(*args, callbacks=callbacks, **kwargs)

    # ------------------------------------------------------------------ use

    def detect(
        self,
        images,
        *,
        score_threshold=None,
        iou_threshold=None,
        max_detections=None,
        regions=None,
    ) -> list[Detections]:
        """Finds objects in photos of any size.

        A photo, from a path or as a PIL image, is turned upright first, as its EXIF says; so it is in
        training and in an export. An array is looked at as it is.

        Args:
            images: one image, a batch (B, H, W, 3), or a list of images of any sizes. An
                image is an RGB array (H, W, 3) in 0..255, a PIL image, or a file's path.
            score_threshold: least score; None for the release's.
            iou_threshold: overlap that suppresses; None for the release's.
            max_detections: most detections an image; None for the release's.
            regions: None; for those that look at regions, see `FastRCNN.detect`.

        Returns:
            One `Detections` an image, best first: boxes (n, 4) in that image's own pixels,
            upright, cut at its edges, scores (n,), labels (n,), count n, and `names`.

        Raises:
            InputError: if something is not an image, a number makes no sense, or there are regions.
        """
        self._refuse(regions)
        images = [read_image(image, where) for where, image in each_image(images)]
        thresholds = arguments.thresholds(score_threshold, iou_threshold, max_detections)
        run = self._detect_function(**thresholds)
        found = []
        for start in range(0, len(images), _DETECT_BATCH):
            chunk = images[start : start + _DETECT_BATCH]
            batch = np.stack([resized(image, self.image_size, self.resize) for image in chunk])
            if len(images) > _DETECT_BATCH:  # one size, one compilation
                batch = np.pad(batch, [(0, _DETECT_BATCH - len(chunk)), (0, 0), (0, 0), (0, 0)])
            arrays = [ops.convert_to_numpy(array) for array in run(batch)]
            for i, image in enumerate(chunk):
                found.append(self._in_source(Detections(*(a[i] for a in arrays)), image.shape))
        return found

    def _refuse(self, regions):
        if regions is not None:
            raise InputError(f"{self.name} looks at whole images; leave regions out.")

    def _in_source(self, padded, shape):
        """Trims one image's rows and brings its boxes from the network input to the image."""
        count = int(padded.count)
        height, width = shape[:2]
        place = placement((height, width), self.image_size, self.resize)
        boxes = (padded.boxes[:count] - np.array(place.offset)) / np.array(place.scale)
        boxes = np.clip(boxes, 0, [width, height, width, height]).astype("float32")
        found = Detections(boxes, padded.scores[:count], padded.labels[:count], count)
        found.names = [self.class_names[label] for label in found.labels]
        return found

    def _detect_function(self, **thresholds):
        """Network and `decode` compiled together, once for each size and set of thresholds."""
        functions = self._detect_functions.by_use
        use = (self.image_size, *thresholds.values())
        if use not in functions:

            def read(outputs):
                return self.decode(outputs, **thresholds)

            functions[use] = compiled(self, read, (None, *self.image_size, 3))
        return functions[use]


def _images_in(images):
    """How many images a batch has, as a number that hangs on the data.

    A step that finds the data at their end must not count, and on TensorFlow a batch size known
    beforehand would.
    """
    first = images[:, 0, 0, 0]
    return ops.sum(ops.cast(ops.isfinite(first), "int32") * 0 + 1)


class _Untracked:
    """Holds compiled functions; Keras would track a bare dict and fail to save its keys."""

    def __init__(self):
        self.by_use = {}


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
