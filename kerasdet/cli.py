"""The shell command: `kerasdet train | evaluate | detect | export | compress | bench | models | data`.

Exit codes: 0 done, 2 wrong use or bad input with one clear sentence, 1 a bug.
"""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasdet.cli_data import SPECS, Classes, data_app, import_quietly, load_examples
from kerasdet.errors import InputError, KerasdetError

app = typer.Typer(
    help="The detectors that founded object detection, in Keras 3.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")

_BACKENDS = ("tensorflow", "jax")
_INSTALL = {"jax": "'kerasdet[jax]'"}

Data = Annotated[str, typer.Option("--data", help=f"Data: {SPECS}.", show_default=False)]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run folder, a .keras file, an export's folder, or a name (with pretrained weights).",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", help="Weight file or pretrained set, for a model given by name."),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="SIDE|HxW",
        help="Size of the network's input, for one that takes several.",
    ),
]
Regions = Annotated[
    str | None,
    typer.Option(
        "--regions",
        help="For Fast R-CNN: folder of `kerasdet data proposals`, a file, or how they are found.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad annotation.")]


def _backend(name: str | None):
    if name is None:
        return
    if name not in _BACKENDS:
        raise typer.BadParameter(f"wants tensorflow or jax, not {name}")
    if "keras" in sys.modules and os.environ.get("KERAS_BACKEND") != name:
        raise typer.BadParameter("must be chosen before Keras is imported")
    os.environ["KERAS_BACKEND"] = name


Backend = Annotated[
    str | None,
    typer.Option(
        "--backend", help="Keras back end: tensorflow or jax.", callback=_backend, is_eager=True
    ),
]
Score = Annotated[float, typer.Option("--score", min=0, max=1, help="Least score shown.")]


@app.command()
def train(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL|RECIPE.py", help="A model's name or a recipe file.", show_default=False
        ),
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help=f"Training data: {SPECS}.")] = None,
    val: Annotated[
        str | None, typer.Option("--val", help="Data measured on after every epoch.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Fills {data_dir} in a recipe's data.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Start from: a pretrained set's name, 'default', or a weight file."),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="Run folder whose weights layers of the same name and shapes start from."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw.")] = None,
    schedule: Annotated[str | None, typer.Option(help="steps, cosine or poly.")] = None,
    milestones: Annotated[
        str | None, typer.Option(help="Epochs at which the rate changes: 80,100.")
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Its factor at each; 0.1 if not said: 2,0.1.")
    ] = None,
    warmup_epochs: Annotated[float | None, typer.Option(min=0)] = None,
    warmup_power: Annotated[
        float | None, typer.Option(min=0, help="1: a line; 4: as darknet's burn_in.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0)] = None,
    augment: Annotated[
        str | None, typer.Option(help="ssd, yolo_v1, yolo_v2, flip, default (the model's) or none.")
    ] = None,
    image_size: ImageSize = None,
    multi_scale: Annotated[
        str | None,
        typer.Option(
            help="Sizes drawn from while training: 320,416,608, or 320-608 by the stride."
        ),
    ] = None,
    classification_data: Annotated[
        str | None, typer.Option(help="Images with labels alone, for joint training.")
    ] = None,
    regions: Regions = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, mixed_float16 or mixed_bfloat16.")
    ] = None,
    rule: Annotated[str | None, typer.Option(help="voc07, voc10 or coco.")] = None,
    cache: Annotated[bool | None, typer.Option(help="Keep decoded images in memory.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    output: Annotated[Path, typer.Option(help="Folder for run folders.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="Go on with this run folder.")] = None,
    strict: Strict = False,
    backend: Backend = None,
):
    """Train by a recipe file, or a model by name on any data; or --resume a run."""
    import_quietly(data=True)
    from kerasdet import runs, training
    from kerasdet.opening import sides

    if resume is not None:
        if target is not None or data is not None:
            raise typer.BadParameter("--resume takes everything but --epochs from the run folder")
        _finished(training.resume(resume, epochs=epochs))
        return
    given: dict[str, Any] = {
        "train": data,
        "val": val,
        "pretrained": True if weights == "default" else weights,
        "start_from": start_from,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "schedule": schedule,
        "milestones": _numbers(milestones),
        "scales": _numbers(scales),
        "warmup_epochs": warmup_epochs,
        "warmup_power": warmup_power,
        "image_size": sides(image_size) if image_size else None,
        "multi_scale": _sizes(multi_scale),
        "classification_train": classification_data,
        "regions": regions,
        "weight_decay": weight_decay,
        "precision": precision,
        "rule": rule,
        "cache": cache,
        "seed": seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if augment is not None:
        given["augment"] = None if augment == "none" else augment
    if target is None:
        raise typer.BadParameter("say a model's name or a recipe file, or --resume RUN")
    recipe_file = Path(target) if target.endswith(".py") else None
    if recipe_file is not None:
        recipe = training.replaced(runs.read_recipe(recipe_file), given)
    elif data is None:
        raise typer.BadParameter(f"training {target} wants --data: {SPECS}")
    else:
        recipe = training.Recipe(model=target, **given)
    run = training.train(
        recipe, data_dir=data_dir, output=output, recipe_file=recipe_file, strict=strict
    )
    _finished(run)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise typer.BadParameter(f"wants numbers separated by commas, not {text!r}") from error


def _sizes(text: str | None) -> list[int] | None:
    """320,416,608 as it stands; 320-608 by 32, the stride of every network here with several."""
    if text is None:
        return None
    if match := re.fullmatch(r"(\d+)-(\d+)", text.strip()):
        return list(range(int(match[1]), int(match[2]) + 1, 32))
    return [int(size) for size in _numbers(text) or []]


def _finished(run: Path):
    from kerasdet import runs

    print(f"\nRun folder: {run}")
    for name in (
        "weights/best.weights.h5",
        "weights/last.weights.h5",
        "metrics.csv",
        "plots/metrics.png",
    ):
        if (run / name).exists():
            print(f"  {run / name}")
    if (run / "result.json").exists():
        metrics = runs.read_json(run / "result.json", "a result")["evaluation"]["metrics"]
        print(
            "Best weights: "
            + ", ".join(
                f"{name} {value:.3f}" for name, value in metrics.items() if value is not None
            )
        )
    print(f"TensorBoard: tensorboard --logdir {run / 'tb'}")


@app.command()
def evaluate(
    model: Model,
    data: Data,
    rule: Annotated[str, typer.Option(help="voc07, voc10 or coco.")] = "voc10",
    weights: Weights = None,
    image_size: ImageSize = None,
    classes: Classes = None,
    match_names: Annotated[
        bool,
        typer.Option(help="Match classes by name; count those that data and model share."),
    ] = False,
    nodes: Annotated[
        Path | None,
        typer.Option(help="For a WordTree: file of the nodes that the data's classes are."),
    ] = None,
    regions: Regions = None,
    views: Annotated[
        str,
        typer.Option(
            help="Of a classifier: centre; ten (corners, centre, mirrored); scales (all windows)."
        ),
    ] = "centre",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for curves and the worst mistakes.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file.")] = None,
    strict: Strict = False,
    backend: Backend = None,
):
    """Measure average precision on a data set, or how often a classifier is right."""
    import_quietly(data=True)
    from rich.console import Console

    from kerasdet import evaluation
    from kerasdet.opening import open_model

    detector = open_model(model, weights=weights, image_size=image_size, classifiers=True)
    if not hasattr(detector, "detect"):
        numbers = _evaluate_classifier(detector, data, strict, limit, views)
        if json is not None:
            _write_numbers(json, model, numbers)
            print(f"Wrote {json}")
        return
    if views != "centre":
        raise typer.BadParameter("--views goes with a classifier")
    examples = load_examples(data, strict=strict, classes=classes)
    if nodes is not None:
        if not hasattr(detector, "for_classes"):
            raise typer.BadParameter("--nodes goes with a model that has a WordTree")
        detector = detector.for_classes(examples.class_names, detector.tree.read_map(nodes))
    if regions is not None:
        from kerasdet.training import with_proposals

        examples = with_proposals(examples, regions)
    result = evaluation.evaluate(
        detector, examples, rule=rule, match_names=match_names, max_images=limit
    )
    Console().print(result.table())
    made = []
    if plots is not None:
        made.append(evaluation.plot_precision_recall(result, plots / "precision_recall.png"))
        made.append(
            evaluation.plot_mistakes(result, plots / "worst_mistakes.png", examples=examples)
        )
    if json is not None:
        _write_numbers(json, model, result.to_dict())
        made.append(json)
    for path in made:
        print(f"Wrote {path}")


def _write_numbers(path, model, numbers):
    """What was measured, where and by which command; and, of a run, how it was trained."""
    from kerasdet import runs

    content = {"evaluation": numbers | {"environment": runs.environment()}}
    trained = Path(model) / "env.json"
    if trained.is_file():
        content["training"] = runs.read_json(trained, "a run's environment")
    runs.write_json(path, content)


def _evaluate_classifier(classifier, spec, strict, limit, views) -> dict[str, Any]:
    from kerasdet import data, voting
    from kerasdet.classifier import VIEWS
    from kerasdet.data.epochs import size_of
    from kerasdet.data.source import load_images

    if views not in VIEWS:
        raise typer.BadParameter(f"--views wants one of {', '.join(VIEWS)}, not {views}")
    examples = load_images(spec, strict=strict)
    name, names = examples.name, examples.class_names
    if limit is not None:
        whole = size_of(examples)
        examples = examples.take(limit)
        examples.size = min(limit, whole or limit)  # which `take` hides, and the names
        examples.class_names = names
    batches = data.classification_pipeline(examples, classifier, 32)  # checks the classes, too
    if views == "centre":
        classifier.compile()
        metrics = classifier.evaluate(batches, verbose=0, return_dict=True)
    else:
        metrics = voting.accuracy(
            lambda image: classifier.vote(image, views), examples.as_numpy_iterator()
        )
    print(", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return {"data": name, "views": views, "metrics": metrics}


@app.command()
def detect(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(help="Photos, or folders of them.", show_default=False)
    ],
    output: Annotated[Path, typer.Option(help="Folder for the drawn photos.")] = Path("detections"),
    score: Score = 0.4,
    weights: Weights = None,
    image_size: ImageSize = None,
    backend: Backend = None,
):
    """Find objects in photos, print them and draw them."""
    import_quietly()
    from rich.progress import track

    from kerasdet import visualize
    from kerasdet.images import read_image
    from kerasdet.opening import open_model, photos

    paths = photos(images)
    detector = open_model(model, weights=weights, image_size=image_size)
    output.mkdir(parents=True, exist_ok=True)
    lines = []
    for path in track(paths, "Detecting", transient=True, disable=len(paths) < 3):
        image = read_image(path)
        (found,) = detector.detect(image, score_threshold=score)
        drawn = visualize.save_image(
            output / f"{path.stem}.png",
            visualize.draw(image, found, class_names=detector.class_names),
        )
        lines.append(f"{path}: {found.count} found, drawn in {drawn}")
        for box, value, name in zip(found.boxes, found.scores, found.names, strict=True):
            lines.append(f"  {name:<16} {value:.2f}  [{', '.join(f'{edge:.0f}' for edge in box)}]")
    print("\n".join(lines))


@app.command()
def export(
    model: Model,
    output: Annotated[
        Path, typer.Argument(help="Folder (SavedModel) or file to write.", show_default=False)
    ],
    format: Annotated[
        str, typer.Option("--format", help="saved_model, onnx or litert.")
    ] = "saved_model",
    score: Annotated[float | None, typer.Option(help="Least score given out.")] = None,
    iou: Annotated[float | None, typer.Option(help="Overlap that suppresses.")] = None,
    max_detections: Annotated[
        int | None, typer.Option(min=1, help="Rows of the outputs; the model's own if not said.")
    ] = None,
    weights: Weights = None,
    image_size: ImageSize = None,
    backend: Backend = None,
):
    """Write a model for serving, and check that the copy finds what the model finds."""
    import_quietly()
    from kerasdet import export as exporting
    from kerasdet.opening import open_model

    detector = open_model(model, weights=weights, image_size=image_size)
    report = exporting.export(
        detector,
        output,
        format,
        score_threshold=score,
        iou_threshold=iou,
        max_detections=max_detections,
    )
    print(report)


@app.command()
def compress(
    model: Model,
    output: Annotated[Path, typer.Argument(help="The .keras file to write.", show_default=False)],
    fc6: Annotated[int, typer.Option(min=0, help="Rank of fc6; 0 leaves it whole.")] = 1024,
    fc7: Annotated[int, typer.Option(min=0, help="Rank of fc7; 0 leaves it whole.")] = 256,
    weights: Weights = None,
    backend: Backend = None,
):
    """Make a Fast R-CNN smaller and faster: each large layer becomes two, by truncated SVD."""
    import_quietly()
    from kerasdet.opening import open_model

    if output.suffix != ".keras":
        raise typer.BadParameter(f"wants a file that ends in .keras, not {output}")
    detector = open_model(model, weights=weights)
    if not hasattr(detector, "compress"):
        raise InputError(f"Wanted a Fast R-CNN to compress, but {model} is a {detector.name}.")
    smaller = detector.compress(fc6=fc6 or None, fc7=fc7 or None)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"{output.stem}.partial.keras")  # never half a file by its name
    smaller.save(partial)
    partial.replace(output)
    print(f"{detector.count_params():,} weights became {smaller.count_params():,}. Wrote {output}")


@app.command()
def bench(
    model: Model,
    batch_sizes: Annotated[str, typer.Option(help="Comma-separated.")] = "1,8",
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 5,
    weights: Weights = None,
    image_size: ImageSize = None,
    backend: Backend = None,
):
    """Time `detect` from image to boxes on this machine."""
    import_quietly()
    import time

    import numpy as np

    from kerasdet.opening import open_model

    detector = open_model(model, weights=weights, image_size=image_size)
    height, width = detector.image_size
    print(f"{detector.name}, input {height}x{width}, median of {runs} runs")
    for size in [int(number) for number in _numbers(batch_sizes) or []]:
        images = np.random.default_rng(0).integers(0, 256, (size, height, width, 3)).astype("uint8")
        detector.detect(images)
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            detector.detect(images)
            seconds.append(time.perf_counter() - start)
        median = float(np.median(seconds))
        print(f"  batch {size}: {1000 * median:.1f} ms, {size / median:.1f} images a second")


@app.command()
def models():
    """List the models, their pretrained sets, metrics and licences."""
    from rich.console import Console
    from rich.table import Table

    from kerasdet import zoo

    table = Table(title="kerasdet.zoo", title_justify="left")
    for column in ("model", "set"):
        table.add_column(column, no_wrap=True)
    table.add_column("trained on", overflow="fold")
    table.add_column("metric", overflow="fold")
    table.add_column("licence", min_width=12, overflow="fold")
    for row in zoo.models():
        figure = "" if row.get("metric") is None else f"{row['metric']} {row['protocol']}"
        name = row.get("set", "") + (" *" if row.get("default") else "")
        licence = re.split(r" \(|;", row.get("licence", ""))[0]
        table.add_row(row["model"], name, row.get("trained_on"), figure, licence)
    Console().print(table)
    print("* is what pretrained=True loads. A licence is the repository's that publishes the file.")
    print("A metric is its publisher's. Files, where the publisher names an address:")
    for row in zoo.models():
        if row.get("from"):
            print(f"  {row['model']} {row['set']}: {row['from']} ({row['licence']})")


def main(arguments: list[str] | None = None) -> Any:
    """Runs the command; what the user can put right ends in one sentence and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app(args=arguments)
    except KerasdetError as error:
        print(f"kerasdet: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _BACKENDS:
            raise
        print(
            f"kerasdet: this wants {missing}, which is not installed: "
            f"pip install {_INSTALL.get(missing, missing)}",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("kerasdet: stopped; a run folder's --resume goes on.", file=sys.stderr)
        sys.exit(130)
