"""The shell command: `kerasdet train | evaluate | detect | export | compress | bench | models | data`.

Exit codes: 0 done, 2 wrong use or bad input with one clear sentence, 1 a bug.
"""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasdet.classes import about_names, listed
from kerasdet.cli_data import Classes, data_app, import_quietly, load_examples
from kerasdet.cli_options import (
    BACKENDS,
    Backend,
    Data,
    ImageSize,
    Merge,
    Model,
    ModelClasses,
    Regions,
    Scales,
    Strict,
    Tree,
    Weights,
    numbers,
)
from kerasdet.cli_train import train
from kerasdet.errors import InputError, KerasdetError

app = typer.Typer(
    help="The detectors that founded object detection, in Keras 3.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.add_typer(data_app, name="data")

_INSTALL = {"jax": "'kerasdet[jax]'"}

_LOCALISATION = "localisation"
_RULES_HELP = f"voc07, voc10 or coco; or {_LOCALISATION}, ILSVRC's error, of an OverFeat."

Score = Annotated[float, typer.Option("--score", min=0, max=1, help="Least score shown.")]


@app.command()
def evaluate(
    model: Model,
    data: Data,
    rule: Annotated[str, typer.Option(help=_RULES_HELP)] = "voc10",
    weights: Weights = None,
    tree: Tree = None,
    model_classes: ModelClasses = None,
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
            help="Of a classifier or OverFeat, on images with labels: centre; ten (corners, centre, "
            "mirrored); scales (all windows)."
        ),
    ] = "centre",
    scales: Scales = None,
    merge: Merge = None,
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

    from kerasdet import evaluation, runs
    from kerasdet.data.source import LABELS_ALONE
    from kerasdet.evaluation.evaluation import RULES
    from kerasdet.opening import open_model, set_looks

    if rule not in (*RULES, _LOCALISATION):
        rules = ", ".join((*RULES, _LOCALISATION))
        raise typer.BadParameter(f"--rule wants {rules}, not {rule}")
    if rule == _LOCALISATION and (plots or match_names or views != "centre"):
        raise typer.BadParameter("--plots, --views and --match-names go with the other rules")
    for path in filter(None, (json, plots and plots / "precision_recall.png")):
        runs.check_writable(path)
    detector = open_model(
        model,
        weights=weights,
        tree=tree,
        class_names=model_classes,
        image_size=image_size,
        classifiers=True,
    )
    _check_takes_regions(detector, regions)
    set_looks(detector, scales=scales, merge=merge)
    if rule == _LOCALISATION and not hasattr(detector, "localise"):
        raise InputError(f"--rule {rule} goes with an OverFeat, not with {detector.name}.")
    if not hasattr(detector, "detect") or (views != "centre" and hasattr(detector, "vote")):
        numbers = _evaluate_classifier(detector, data, strict, limit, views, match_names)
        if json is not None:
            _write_numbers(json, model, numbers)
            print(f"Wrote {json}")
        return
    if views != "centre":
        raise typer.BadParameter("--views goes with a classifier, or an OverFeat")
    if hasattr(detector, "vote") and rule != _LOCALISATION and data.startswith(LABELS_ALONE):
        raise InputError(
            f"{data} has a label for each image, and no boxes: say how {detector.name} is to vote on "
            "them, --views ten or --views scales."
        )
    examples = load_examples(data, strict=strict, classes=classes)
    if rule == _LOCALISATION:
        error = evaluation.evaluate_localization(detector, examples, max_images=limit)
        print(error)
        if json is not None:
            _write_numbers(json, model, error.to_dict())
            print(f"Wrote {json}")
        return
    if nodes is not None:
        if not hasattr(detector, "for_classes"):
            raise typer.BadParameter("--nodes goes with a model that has a WordTree")
        detector = detector.for_classes(examples.class_names, detector.tree.read_map(nodes))
    if regions is not None:
        from kerasdet.training import with_proposals

        examples = with_proposals(examples, regions, limit=limit)
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


def _evaluate_classifier(classifier, spec, strict, limit, views, match_names) -> dict[str, Any]:
    from kerasdet import data, voting
    from kerasdet.classifier import VIEWS
    from kerasdet.data.epochs import size_of
    from kerasdet.data.progress import track
    from kerasdet.data.source import load_images

    if views not in VIEWS:
        raise typer.BadParameter(f"--views wants one of {', '.join(VIEWS)}, not {views}")
    examples = load_images(spec, strict=strict)
    name = examples.name
    if match_names:
        examples = _in_labels_of(classifier, examples)
    names = examples.class_names
    if limit is not None:
        whole = size_of(examples)
        examples = examples.take(limit)
        examples.size = min(limit, whole or limit)  # which `take` hides, and the names
        examples.class_names = names
    batches = data.classification_pipeline(examples, classifier, 32)  # checks the classes, too
    if views == "centre":
        classifier._memory.require([classifier.image_size], 32)
        classifier.compile()
        metrics = classifier.evaluate(batches, verbose=0, return_dict=True)
    else:
        images = track(examples.as_numpy_iterator(), "Voting", total=size_of(examples))
        metrics = voting.accuracy(lambda image: classifier.vote(image, views), images)
    print(", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return {"data": name, "views": views, "metrics": metrics}


def _in_labels_of(classifier, examples):
    """The images, each label that of the classifier's class of the same name."""
    from kerasdet import data

    labels = {name: label for label, name in enumerate(classifier.class_names)}
    unknown = [name for name in examples.class_names if name not in labels]
    if unknown:
        raise InputError(
            f"{classifier.name} has no class by the name of {listed(unknown)}"
            f"{about_names(classifier.class_names)}."
        )
    own = [labels[name] for name in examples.class_names]
    return data.relabelled(examples, own, classifier.class_names)


@app.command()
def detect(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(help="Photos, or folders of them.", show_default=False)
    ],
    output: Annotated[Path, typer.Option(help="Folder for the drawn photos.")] = Path("detections"),
    score: Score = 0.4,
    weights: Weights = None,
    tree: Tree = None,
    tree_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Of a model with a WordTree: how sure of a kind it is to name it, and not the one above.",
        ),
    ] = None,
    model_classes: ModelClasses = None,
    image_size: ImageSize = None,
    regions: Regions = None,
    scales: Scales = None,
    merge: Merge = None,
    backend: Backend = None,
):
    """Find objects in photos, print them and draw them."""
    import_quietly(data=regions is not None)
    from rich.progress import track

    from kerasdet import runs, visualize
    from kerasdet.images import read_image
    from kerasdet.opening import open_model, photos, set_looks

    paths = photos(images)
    pictures = _pictures(output, paths)
    runs.check_writable(next(iter(pictures.values())))
    detector = open_model(
        model, weights=weights, tree=tree, class_names=model_classes, image_size=image_size
    )
    if tree_threshold is not None:
        if not hasattr(detector, "tree_threshold"):
            raise typer.BadParameter(f"--tree-threshold: {detector.name} has no WordTree")
        detector.tree_threshold = tree_threshold
    regions_of = _regions_of_photos(detector, regions, paths)
    set_looks(detector, scales=scales, merge=merge)
    unread = []
    for path in track(paths, "Detecting", transient=True, disable=len(paths) < 3):
        try:
            image = read_image(path)
            given = {"regions": [regions_of(path, image)]} if regions_of else {}
        except InputError as error:
            unread.append(str(error))
            continue
        (found,) = detector.detect([image], **given, score_threshold=score)
        drawn = visualize.draw(image, found, class_names=detector.class_names)
        visualize.save_image(pictures[path], drawn)
        print(f"{path}: {found.count} found, drawn in {pictures[path]}")
        names = _paths_of(detector, found)
        for box, value, name in zip(found.boxes, found.scores, names, strict=True):
            print(f"  {name:<16} {value:.2f}  [{', '.join(f'{edge:.0f}' for edge in box)}]")
    if unread:
        raise InputError(f"{len(unread)} of {len(paths)} photos left out: {' '.join(unread)}")


def _paths_of(detector, found) -> list[str]:
    """Names of what was found; of a WordTree's nodes with those above them: animal > dog > terrier."""
    if not hasattr(detector, "tree"):
        return found.names
    return [" > ".join(detector.tree.path_names(label)) for label in found.labels]


def _check_takes_regions(detector, regions):
    if regions is not None and not getattr(detector, "takes_regions", False):
        raise typer.BadParameter(
            f"--regions goes with a model that looks at regions, and {detector.name} does not"
        )


def _regions_of_photos(detector, regions, paths):
    """From a photo's path and pixels to its regions; None where the model proposes its own."""
    _check_takes_regions(detector, regions)
    if regions is None:
        return None
    from kerasdet.data.regions import regions_of_photos

    return regions_of_photos(regions, single=len(paths) == 1)


def _pictures(folder, paths) -> dict[Path, Path]:
    """Where each photo is drawn: its name, with a number where another's is the same."""
    pictures: dict[Path, Path] = {}
    for path in paths:
        drawn, number = folder / f"{path.stem}.png", 1
        while drawn in pictures.values() and path not in pictures:
            number += 1
            drawn = folder / f"{path.stem}-{number}.png"
        pictures.setdefault(path, drawn)
    return pictures


@app.command()
def export(
    model: Model,
    output: Annotated[
        Path, typer.Argument(help="Folder (SavedModel) or file to write.", show_default=False)
    ],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="saved_model, onnx, litert or darknet: FILE.weights, with cfg and names beside it.",
        ),
    ] = "saved_model",
    score: Annotated[float | None, typer.Option(help="Least score given out.")] = None,
    iou: Annotated[float | None, typer.Option(help="Overlap that suppresses.")] = None,
    max_detections: Annotated[
        int | None, typer.Option(min=1, help="Rows of the outputs; the model's own if not said.")
    ] = None,
    weights: Weights = None,
    tree: Tree = None,
    model_classes: ModelClasses = None,
    image_size: ImageSize = None,
    backend: Backend = None,
):
    """Write a model for serving, and check that the copy finds what the model finds; or for darknet."""
    import_quietly()
    from kerasdet import export as exporting
    from kerasdet.opening import open_model

    detector = open_model(
        model,
        weights=weights,
        tree=tree,
        class_names=model_classes,
        image_size=image_size,
        classifiers=format == "darknet",
    )
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
    from rich.console import Console

    from kerasdet import runs
    from kerasdet.opening import open_model

    if output.suffix != ".keras":
        raise typer.BadParameter(f"wants a file that ends in .keras, not {output}")
    runs.check_writable(output)
    detector = open_model(model, weights=weights)
    if not hasattr(detector, "compress"):
        raise InputError(f"Wanted a Fast R-CNN to compress, but {model} is a {detector.name}.")
    with Console(stderr=True).status("Decomposing the large layers..."):
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
    tree: Tree = None,
    image_size: ImageSize = None,
    backend: Backend = None,
):
    """Time `detect` from image to boxes on this machine."""
    import_quietly()
    import time

    import numpy as np

    from kerasdet.opening import open_model

    sizes = numbers(batch_sizes, "--batch-sizes") or []
    if not sizes or any(size < 1 or size % 1 for size in sizes):
        raise typer.BadParameter(f"--batch-sizes wants whole numbers from 1 on, not {batch_sizes}")
    detector = open_model(model, weights=weights, tree=tree, image_size=image_size)
    height, width = detector.image_size
    print(f"{detector.name}, input {height}x{width}, median of {runs} runs")
    for size in map(int, sizes):
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
    backend = os.environ.get("KERAS_BACKEND", BACKENDS[0])
    try:
        if backend not in BACKENDS:
            raise InputError(f"KERAS_BACKEND wants {' or '.join(BACKENDS)}, not {backend}.")
        app(args=arguments)
    except KerasdetError as error:
        print(f"kerasdet: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in BACKENDS:
            raise
        print(
            f"kerasdet: this wants {missing}, which is not installed: "
            f"pip install {_INSTALL.get(missing, missing)}",
            file=sys.stderr,
        )
        sys.exit(2)
