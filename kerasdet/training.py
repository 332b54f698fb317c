"""Training from a recipe: one call that makes a run folder, and one that goes on with it."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import ops

from kerasdet import data, runs, zoo
from kerasdet.data.source import load as load_data
from kerasdet.errors import InputError
from kerasdet.evaluation import MeanAveragePrecision, evaluate
from kerasdet.evaluation.tensorboard import DetectionImages

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
_OPTIMIZERS = ("sgd", "adam", "adamw")
_SCHEDULES = ("steps", "cosine")

# What an evaluation rule calls the number that chooses the best weights.
_MONITOR = {"voc07": "AP50", "voc10": "AP50", "coco": "AP"}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes.

    Data sets are written as the shell writes them ("voc:DIR:train", see `kerasdet.data.load`),
    one or several; `{data_dir}` in them is filled in by `train(..., data_dir=)`.

    Attributes:
        model: a name in `kerasdet.zoo`, or a function from class names to a detector.
        train: data to learn from.
        val: data to measure on after every epoch; the best weights are chosen by it.
        pretrained: as in `kerasdet.zoo`; only with a name as model.
        epochs: passes over `train`.
        batch_size: images a step.
        augment: "ssd", "flip", a function as `kerasdet.data.pipeline` takes it, or None.
        optimizer: "sgd" (with momentum), "adam" or "adamw".
        learning_rate: after warm-up.
        momentum: of SGD.
        schedule: "steps": times 0.1 at each of `milestones`; "cosine": down to 0 at the end.
        milestones: epochs at which "steps" steps; fractions of an epoch are fine.
        warmup_epochs: epochs over which the rate grows from 0.
        weight_decay: L2 on kernels, see `Detector.compile`; for "adamw" its own decay.
        clip_norm: gradients together are cut to this length; None: not.
        precision: "float32", "mixed_float16" or "mixed_bfloat16".
        rule: of evaluation: "voc07", "voc10" or "coco".
        evaluate_every: epochs between two evaluations on `val`.
        cache: keep the decoded training data in memory.
        max_boxes: objects an image that training looks at; None: as many as there are.
        seed: of weights, order and augmentation.
    """

    model: str | Callable[[list[str]], Any]
    train: str | Sequence[str]
    val: str | Sequence[str] | None = None
    pretrained: bool | str = False
    epochs: int = 100
    batch_size: int = 16
    augment: str | Callable[..., Any] | None = "ssd"
    optimizer: str = "sgd"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    schedule: str = "steps"
    milestones: Sequence[float] = ()
    warmup_epochs: float = 0.0
    weight_decay: float = 5e-4
    clip_norm: float | None = None
    precision: str = "float32"
    rule: str = "voc10"
    evaluate_every: int = 1
    cache: bool = False
    max_boxes: int | None = None
    seed: int = 0

    def __post_init__(self):
        for name, known in (
            ("optimizer", _OPTIMIZERS),
            ("schedule", _SCHEDULES),
            ("precision", PRECISIONS),
            ("rule", tuple(_MONITOR)),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"{name} wants one of {known}, not {getattr(self, name)!r}.")
        for name in ("epochs", "batch_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} wants at least 1, not {getattr(self, name)}.")
        if not self.learning_rate > 0 or not math.isfinite(self.learning_rate):
            raise InputError(f"learning_rate wants a positive number, not {self.learning_rate}.")
        if self.pretrained and not isinstance(self.model, str):
            raise InputError(
                "pretrained goes with a model's name; a recipe's function loads its own."
            )

    @property
    def model_name(self) -> str:
        """The model's name, for the run folder."""
        return self.model if isinstance(self.model, str) else self.model.__name__

    def build(self, class_names):
        """The detector for these classes."""
        if not isinstance(self.model, str):
            return self.model(list(class_names))
        return zoo.build(self.model, class_names=class_names, pretrained=self.pretrained)


@keras.saving.register_keras_serializable(package="kerasdet")
class WarmUpSteps(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up from 0, then times 0.1 at every milestone.

    Args:
        learning_rate: between warm-up and the first milestone.
        milestones: optimizer steps at which the rate falls to a tenth.
        warmup_steps: optimizer steps of warm-up.
    """

    def __init__(self, learning_rate, milestones=(), *, warmup_steps=0):
        self.learning_rate = learning_rate
        self.milestones = [int(step) for step in milestones]
        self.warmup_steps = int(warmup_steps)

    def __call__(self, step):
        """The rate of one optimizer step."""
        step = ops.cast(step, "float32")
        rate = self.learning_rate * ops.minimum(1.0, (step + 1) / max(self.warmup_steps, 1))
        passed = sum(ops.cast(step >= milestone, "float32") for milestone in self.milestones)
        return rate * ops.power(0.1, ops.convert_to_tensor(passed, "float32"))

    def get_config(self):
        """Constructor arguments."""
        return {
            "learning_rate": self.learning_rate,
            "milestones": self.milestones,
            "warmup_steps": self.warmup_steps,
        }


def replaced(recipe: Recipe, given: dict[str, Any]) -> Recipe:
    """The recipe with some of its settings given anew."""
    return dataclasses.replace(recipe, **given)


def train(recipe: Recipe, *, data_dir=None, output="runs", recipe_file=None, strict=False) -> Path:
    """Trains by a recipe into a new run folder.

    Args:
        recipe: what to do.
        data_dir: fills `{data_dir}` in the recipe's data sets.
        output: the folder in which the run folder is made.
        recipe_file: the file the recipe came from; copied into the run, which it lets resume.
        strict: stop at the first bad annotation instead of dropping the box.

    Returns:
        The run folder: config.json, model.json, env.json, metrics.csv,
        weights/{best,last}.weights.h5, plots/, tb/, backup/ and result.json.

    Raises:
        InputError: before anything is written, if data or model do not fit.
        TrainingError: if a loss is not finite; what was saved until then stays.
    """
    job = _prepare(recipe, data_dir, strict)
    run = runs.create(Path(output), recipe.model_name, job.model, recipe_file)
    # Functions stay in the recipe's file; everything else is written down.
    settings = {k: v for k, v in dataclasses.asdict(recipe).items() if not callable(v)}
    settings |= {"data_dir": data_dir and str(data_dir), "strict": strict}
    runs.write_json(run / "config.json", settings)
    return _fit(job, run, first_epoch=0)


def resume(run, *, epochs=None) -> Path:
    """Goes on with an interrupted run, to the same numbers as if it had not been interrupted.

    Args:
        run: the run folder.
        epochs: new number of epochs in all; None: the recipe's.

    Returns:
        The run folder.

    Raises:
        InputError: if the folder is no run, has no backup, or has nothing left to do.
    """
    run = Path(run)
    settings = runs.read_json(run / "config.json", "a run folder's settings")
    first_epoch = runs.epochs_done(run)
    recipe = _recipe_of(run, settings, epochs)
    if first_epoch >= recipe.epochs:
        raise InputError(
            f"{run} has all its {recipe.epochs} epochs; pass a larger --epochs to train on."
        )
    job = _prepare(recipe, settings["data_dir"], settings["strict"], first_epoch)
    if epochs is not None:
        runs.write_json(run / "config.json", settings | {"epochs": epochs})
    return _fit(job, run, first_epoch)


def _recipe_of(run, settings, epochs) -> Recipe:
    settings = {k: v for k, v in settings.items() if k not in ("data_dir", "strict")}
    if epochs is not None:
        settings["epochs"] = epochs
    functions = {"model", "augment"} - set(settings)
    if functions and not (run / "recipe.py").is_file():
        raise InputError(
            f"The {' and '.join(sorted(functions))} of {run} came as Python functions, which a "
            "folder cannot hold: resume runs that started from a recipe file or a model's name."
        )
    try:
        if functions:
            return replaced(runs.read_recipe(run / "recipe.py"), settings)
        return Recipe(**settings)
    except TypeError as error:
        raise InputError(f"{run / 'config.json'} holds no recipe's settings: {error}.") from error


@dataclass(frozen=True)
class _Job:
    """A recipe with its data read and its model built and compiled."""

    recipe: Recipe
    model: Any
    batches: Any
    val: Any
    val_batches: Any


def _prepare(recipe, data_dir, strict, first_epoch=0) -> _Job:
    keras.utils.set_random_seed(recipe.seed)
    examples = _load(recipe.train, data_dir, strict)
    val = _load(recipe.val, data_dir, strict) if recipe.val else None
    keras.config.set_dtype_policy(recipe.precision)
    try:
        model = recipe.build(examples.class_names)
    finally:
        keras.config.set_dtype_policy("float32")
    batches = data.pipeline(
        examples,
        model,
        recipe.batch_size,
        augment=recipe.augment,
        shuffle=True,
        seed=recipe.seed,
        cache=recipe.cache,
        max_boxes=recipe.max_boxes,
        first_epoch=first_epoch,
        repeat=True,  # one iterator for all epochs: TensorFlow takes a second to make one
    )
    val_batches = None
    if val is not None:
        val_batches = data.pipeline(val, model, recipe.batch_size, max_boxes=recipe.max_boxes)
    if batches.steps_per_epoch is None:
        raise InputError(f"How many training images {recipe.train} has is not known.")
    model.compile(**_optimizer(recipe, batches.steps_per_epoch))
    return _Job(recipe, model, batches, val, val_batches)


def _load(specs, data_dir, strict):
    specs = [specs] if isinstance(specs, str) else list(specs)
    if any("{data_dir}" in spec for spec in specs) and data_dir is None:
        raise InputError(f"This recipe's data is {specs}: say where it is with --data-dir.")
    loaded = [load_data(spec.replace("{data_dir}", str(data_dir)), strict=strict) for spec in specs]
    return loaded[0] if len(loaded) == 1 else data.join(*loaded)


def _optimizer(recipe, steps) -> dict:
    """What `Detector.compile` wants, the schedule counted in optimizer steps."""
    warmup = round(recipe.warmup_epochs * steps)
    rate: Any
    if recipe.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else recipe.learning_rate,
            max(recipe.epochs * steps - warmup, 1),
            warmup_target=recipe.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    else:
        milestones = [round(epoch * steps) for epoch in recipe.milestones]
        rate = WarmUpSteps(recipe.learning_rate, milestones, warmup_steps=warmup)
    if recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(
            rate, weight_decay=recipe.weight_decay, global_clipnorm=recipe.clip_norm
        )
        return {"optimizer": optimizer}
    if recipe.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, global_clipnorm=recipe.clip_norm)
    else:
        optimizer = keras.optimizers.SGD(
            rate, momentum=recipe.momentum, global_clipnorm=recipe.clip_norm
        )
    return {"optimizer": optimizer, "weight_decay": recipe.weight_decay}


def _fit(job, run, first_epoch) -> Path:
    recipe, model = job.recipe, job.model
    runs.cut_metrics(run, first_epoch)
    started = time.monotonic()
    model.fit(
        job.batches,
        validation_data=job.val_batches,
        epochs=recipe.epochs,
        steps_per_epoch=job.batches.steps_per_epoch,
        initial_epoch=first_epoch,
        callbacks=_callbacks(job, run),
    )
    runs.add_seconds(run, time.monotonic() - started)
    runs.plot_metrics(run)
    if job.val is not None:
        model.load_weights(run / "weights" / "best.weights.h5")
        result = evaluate(model, job.val, rule=recipe.rule)
        runs.write_result(run, result, seed=recipe.seed, epochs=recipe.epochs)
    return run


def _callbacks(job, run) -> list:
    """In order: what adds to the logs, what writes them, and last the backup that ends an epoch."""
    recipe, weights = job.recipe, run / "weights"
    callbacks: list = []
    if job.val is not None:
        monitor = f"val_{_MONITOR[recipe.rule]}"
        best = runs.best_so_far(run, monitor)
        callbacks += [
            MeanAveragePrecision(job.val, rule=recipe.rule, every=recipe.evaluate_every),
            DetectionImages(job.val, run / "tb", every=max(recipe.epochs // 10, 1)),
            keras.callbacks.ModelCheckpoint(
                weights / "best.weights.h5",
                monitor=monitor,
                mode="max",
                save_best_only=True,
                save_weights_only=True,
                initial_value_threshold=best,
            ),
        ]
    return [
        *callbacks,
        keras.callbacks.ModelCheckpoint(weights / "last.weights.h5", save_weights_only=True),
        keras.callbacks.CSVLogger(run / "metrics.csv", append=True),
        keras.callbacks.TensorBoard(run / "tb", write_graph=False),
        keras.callbacks.BackupAndRestore(
            run / "backup", double_checkpoint=True, delete_checkpoint=False
        ),
    ]
