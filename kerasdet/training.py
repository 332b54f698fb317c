"""Training from a recipe: one call that makes a run folder, and one that goes on with it."""

import contextlib
import dataclasses
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from kerasdet import data, runs
from kerasdet.classifier import Classifier
from kerasdet.data.example import UNREADABLE_IMAGE, without_warnings
from kerasdet.data.joining import first
from kerasdet.data.progress import track
from kerasdet.data.proposal_cache import METHODS, Method
from kerasdet.data.report import summary
from kerasdet.data.source import load as load_data
from kerasdet.data.source import load_images
from kerasdet.errors import InputError
from kerasdet.evaluation import MeanAveragePrecision, evaluate
from kerasdet.evaluation.tensorboard import DetectionImages
from kerasdet.recipe import Recipe, replaced

__all__ = ["Recipe", "replaced", "resume", "train", "with_proposals"]

# What an evaluation rule calls the number that chooses the best weights.
_MONITOR = {"voc07": "AP50", "voc10": "AP50", "coco": "AP"}


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
    detector: Any  # what is evaluated
    batches: Any
    val: Any
    val_batches: Any
    problems: dict[str, tuple[list, str]]  # of each data set by its name, and what lists them


def _prepare(recipe, data_dir, strict, first_epoch=0) -> _Job:
    keras.utils.set_random_seed(recipe.seed)
    if recipe.tree is not None:
        recipe = replaced(recipe, {"tree": _filled_in(recipe.tree, data_dir, "tree is")})
    load = load_images if recipe.classifies else load_data
    examples = _load(load, recipe.train, data_dir, strict)
    images = _load(load_images, recipe.classification_train, data_dir, strict)
    val = _load(load, recipe.val, data_dir, strict)
    if not recipe.classifies:
        _check_countable(val)
    problems = {
        name: (
            each.problems,
            "" if recipe.classifies or each is images else _words(specs, data_dir),
        )
        for name, each, specs in (
            ("train", examples, recipe.train),
            ("labelled images", images, recipe.classification_train),
            ("val", val, recipe.val),
        )
        if each is not None
    }
    keras.config.set_dtype_policy(recipe.precision)
    try:
        model = recipe.build(examples.class_names, images and images.class_names)
    finally:
        keras.config.set_dtype_policy("float32")
    if isinstance(model, Classifier) != recipe.classifies:
        raise InputError(
            f"task='{recipe.task}' does not go with {recipe.model_name}, a {type(model).__name__}."
        )
    if recipe.regions is not None and not getattr(model, "takes_regions", False):
        raise InputError(
            f"regions goes with a detector that looks at regions, not {recipe.model_name}."
        )
    examples, val = (_with_regions(recipe, each, data_dir) for each in (examples, val))
    if recipe.start_from is not None and not first_epoch:
        _start(model, recipe, data_dir)
    if recipe.train_from is not None:
        if not hasattr(model, "train_from"):
            raise InputError(
                f"train_from goes with a Fast R-CNN, whose first layers may be frozen, not "
                f"{recipe.model_name}."
            )
        model.train_from = recipe.train_from
    if recipe.image_size is not None:
        model.image_size = recipe.image_size
    if hasattr(model, "_memory"):
        sizes = [(side, side) for side in recipe.multi_scale or ()] or [model.image_size]
        model._memory.require(sizes, recipe.batch_size)
    batches = _batches(recipe, model, examples, images, data_dir, first_epoch)
    if batches.steps_per_epoch is None:
        raise InputError(f"How many training images {recipe.train} has is not known.")
    if recipe.adapt_targets and not first_epoch:
        _adapt_targets(recipe, model, examples)
    model.compile(**recipe.optimizer_settings(batches.steps_per_epoch))
    val_batches = _val_batches(recipe, model, val, data_dir)
    detector = _answering(recipe, model, val, data_dir)
    return _Job(recipe, model, detector, batches, val, val_batches, problems)


def _start(model, recipe, data_dir):
    """Weights of an earlier run, layer by layer; what starts afresh is said."""
    folder = _filled_in(recipe.start_from, data_dir, "start_from is")
    left = model.start_from(runs.open_run(folder))
    print(f"Started from {folder}; afresh: {', '.join(left) or 'nothing'}.")


def with_proposals(examples, regions, *, limit=None):
    """The data with region proposals.

    Args:
        examples: what a reader gives.
        regions: a path, as `kerasdet.data.with_regions` takes it, or the name of a method in
            `kerasdet.data.proposal_cache.METHODS`, by which they are found as images come.
        limit: the first so many images alone; the others need no regions.

    Raises:
        InputError: as `kerasdet.data.with_regions`, or if a method wants what is not there.
    """
    if limit is not None:
        examples = first(examples, limit)
    if regions in METHODS:
        method = Method(regions)
        method.check()  # among images that come, an error could not be caught
        return data.with_regions(examples, method.regions)
    return data.with_regions(examples, regions)


def _with_regions(recipe, examples, data_dir):
    if recipe.regions is None or examples is None:
        return examples
    return with_proposals(examples, _filled_in(recipe.regions, data_dir, "regions are"))


def _adapt_targets(recipe, model, examples):
    """Measures the statistics of the training targets on every image as it is."""
    if not hasattr(model, "adapt_targets"):
        raise InputError(
            f"adapt_targets goes with a detector that learns from regions, not {recipe.model_name}."
        )
    batches = data.pipeline(examples, model, recipe.batch_size, max_boxes=recipe.max_boxes)
    model.adapt_targets(track(batches, "Measuring targets", total=batches.steps_per_epoch))


def _batches(recipe, model, examples, images, data_dir, first_epoch):
    """Of the training data, without end."""
    settings = {
        "augment": model.augmentation if recipe.augment == "default" else recipe.augment,
        "shuffle": True,
        "seed": recipe.seed,
        "cache": recipe.cache,
        "first_epoch": first_epoch,
        "repeat": True,  # one iterator for all epochs: TensorFlow takes a second to make one
        "multi_scale": recipe.multi_scale,
    }
    if recipe.classifies:
        settings["crops"] = recipe.crops
        return data.classification_pipeline(examples, model, recipe.batch_size, **settings)
    settings["max_boxes"] = recipe.max_boxes
    settings |= {"multi_scale_last": recipe.multi_scale_last, "epochs": recipe.epochs}
    examples = _in_labels_of(model, examples, _nodes(recipe, model, data_dir))
    if images is None:
        return data.pipeline(examples, model, recipe.batch_size, **settings)
    return data.joint(
        examples,
        _in_labels_of(model, images),
        model,
        recipe.batch_size,
        detection_share=recipe.detection_share,
        images_per_epoch=recipe.images_per_epoch,
        **settings,
    )


def _val_batches(recipe, model, val, data_dir):
    """Of the other data, for losses; None without, and where it has classes of its own."""
    if val is None or recipe.match_names:
        return None
    if recipe.classifies:
        return data.classification_pipeline(val, model, recipe.batch_size)
    val = _in_labels_of(model, val, _nodes(recipe, model, data_dir))
    return data.pipeline(val, model, recipe.batch_size, max_boxes=recipe.max_boxes)


def _in_labels_of(model, examples, nodes=None):
    """The data, its labels made nodes where the model's are; None: a class is that of its name."""
    if not hasattr(model, "for_classes"):
        return examples
    if nodes is None:
        nodes = model.tree.nodes(examples.class_names)
    return data.relabelled(examples, nodes, model.class_names)


def _nodes(recipe, model, data_dir):
    """Which node each class of the recipe's data is, if it says so."""
    if recipe.nodes is None:
        return None
    if not hasattr(model, "for_classes"):
        raise InputError(f"nodes goes with a model that has a WordTree, not {recipe.model_name}.")
    return model.tree.read_map(_filled_in(recipe.nodes, data_dir, "nodes are"))


def _answering(recipe, model, val, data_dir):
    """The model, or of one with a WordTree its form for the classes of the other data."""
    nodes = _nodes(recipe, model, data_dir)
    if val is None or nodes is None or recipe.match_names:
        return model
    return model.for_classes(val.class_names, nodes)


def _load(load, specs, data_dir, strict):
    """The data that the words say; None for none."""
    if not specs:
        return None
    loaded = [load(spec, strict=strict) for spec in _filled_in_all(specs, data_dir)]
    examples = loaded[0] if len(loaded) == 1 else data.join(*loaded)
    _check_readable(examples)
    return examples


def _check_readable(examples):
    """That one image can be read; of none at all the batches would be looked for without end."""
    with without_warnings():
        if any(True for _ in examples.take(1)):
            return
    lost = [problem for problem in examples.problems if problem.rule == UNREADABLE_IMAGE]
    first_lost = f", the first {lost[0].file}: {lost[0].value}" if lost else ""
    raise InputError(f"None of the images of {examples.name} can be read{first_lost}.")


def _check_countable(val):
    """That the other data has an object to find, before an epoch is trained, as far as is known."""
    records = getattr(val, "records", None)
    if records is None or any((~(r.difficult | r.crowd)).any() for r in records):
        return
    raise InputError(
        f"No image of {val.name} has an object to find, difficult ones and crowds aside: nothing "
        "could be measured on it."
    )


def _words(specs, data_dir) -> str:
    """The data as the shell takes it."""
    return shlex.quote("+".join(_filled_in_all(specs, data_dir)))


def _filled_in_all(specs, data_dir) -> list[str]:
    specs = [specs] if isinstance(specs, str) else list(specs)
    return [_filled_in(spec, data_dir, "data is") for spec in specs]


def _filled_in(text, data_dir, what):
    """The recipe's word with the folder of the data in it."""
    if "{data_dir}" in text and data_dir is None:
        raise InputError(f"This recipe's {what} {text}: say where it is with --data-dir.")
    return text.replace("{data_dir}", str(data_dir))


def _fit(job, run, first_epoch) -> Path:
    recipe, model = job.recipe, job.model
    runs.cut_metrics(run, first_epoch)
    started = time.monotonic()
    with _problems_told(job), _told_how_to_go_on(run):
        model.fit(
            job.batches,
            validation_data=job.val_batches,
            epochs=recipe.epochs,
            steps_per_epoch=job.batches.steps_per_epoch,
            initial_epoch=first_epoch,
            callbacks=_callbacks(job, run),
            shuffle=False,  # the batches are; Keras warns that it cannot
        )
    runs.add_seconds(run, time.monotonic() - started)
    runs.plot_metrics(run)
    if job.val is not None:
        runs.load_best(model, run)
        runs.write_result(run, _evaluated(job), seed=recipe.seed, epochs=recipe.epochs)
    return run


@contextlib.contextmanager
def _problems_told(job):
    """Says what is wrong with the data: now, and in the end what came up as images were read."""
    told = dict.fromkeys(job.problems, 0)

    def tell():
        for name, (problems, words) in job.problems.items():
            if found := summary(problems[told[name] :]):
                where = f"; `kerasdet data check {words}` lists them" if words else ""
                print(f"{name}: {found}{where}")
            told[name] = len(problems)

    tell()
    try:
        with without_warnings():
            yield
    finally:  # of a training that was stopped as well
        tell()


@contextlib.contextmanager
def _told_how_to_go_on(run):
    """Says when training is stopped by hand how it goes on, where an epoch was backed up."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(InputError):
            epoch = runs.epochs_done(run) + 1
            print(f"\nStopped; `kerasdet train --resume {run}` goes on with epoch {epoch}.")
        raise


def _evaluated(job) -> dict[str, Any]:
    """The numbers of the model on the other data, as `result.json` has them."""
    recipe = job.recipe
    if not recipe.classifies:
        result = evaluate(job.detector, job.val, rule=recipe.rule, match_names=recipe.match_names)
        return result.to_dict()
    metrics = job.model.evaluate(job.val_batches, verbose=0, return_dict=True)
    return {"data": getattr(job.val, "name", ""), "metrics": metrics}


def _callbacks(job, run) -> list:
    """In order: what adds to the logs, what writes them, and last the backup that ends an epoch."""
    recipe, weights = job.recipe, run / "weights"
    callbacks: list = []
    if job.val is not None:
        monitor = "val_top1"
        if not recipe.classifies:
            monitor = f"val_{_MONITOR[recipe.rule]}"
            callbacks += [
                MeanAveragePrecision(
                    job.val,
                    rule=recipe.rule,
                    every=recipe.evaluate_every,
                    match_names=recipe.match_names,
                    detector=job.detector,
                ),
                DetectionImages(job.val, run / "tb", every=max(recipe.epochs // 10, 1)),
            ]
        callbacks.append(
            keras.callbacks.ModelCheckpoint(
                weights / "best.weights.h5",
                monitor=monitor,
                mode="max",
                save_best_only=True,
                save_weights_only=True,
                initial_value_threshold=runs.best_so_far(run, monitor),
            )
        )
    return [
        *callbacks,
        keras.callbacks.ModelCheckpoint(weights / "last.weights.h5", save_weights_only=True),
        keras.callbacks.CSVLogger(run / "metrics.csv", append=True),
        keras.callbacks.TensorBoard(run / "tb", write_graph=False),
        keras.callbacks.BackupAndRestore(
            run / "backup", double_checkpoint=True, delete_checkpoint=False
        ),
    ]
