"""The shell's `kerasdet train`."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasdet.cli_data import EVERY_FORM, import_quietly
from kerasdet.cli_options import Backend, ImageSize, Regions, Strict, Tree, numbers
from kerasdet.data.forms import SPECS


def train(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL|RECIPE.py", help="A model's name or a recipe file.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Training data, in one of the forms above.")
    ] = None,
    val: Annotated[
        str | None, typer.Option("--val", help="Data measured on after every epoch, likewise.")
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
    train_from: Annotated[
        str | None,
        typer.Option(
            help="Of Fast R-CNN, first layer that is trained: conv3_1; fc6 for the heads alone; paper."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training data.", show_default="100")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images of a step.", show_default="16")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", "--lr", help="The rate after warming up.", show_default="0.001"
        ),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adam or adamw.", show_default="sgd")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="steps, cosine or poly.", show_default="steps")
    ] = None,
    milestones: Annotated[
        str | None, typer.Option(help="Epochs at which the rate changes: 80,100.")
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Its factor at each; 0.1 if not said: 2,0.1.")
    ] = None,
    warmup_epochs: Annotated[
        float | None,
        typer.Option(min=0, help="Epochs over which the rate grows at first.", show_default="0"),
    ] = None,
    warmup_power: Annotated[
        float | None,
        typer.Option(
            min=0, help="It grows: 1 along a line, 4 as darknet's burn_in.", show_default="1"
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(min=0, help="L2 on kernels; AdamW's own.", show_default="0.0005"),
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="ssd, yolo_v1, yolo_v2, flip, default (the model's) or none.")
    ] = None,
    crops: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of a classifier with --augment overfeat: windows of an image in an epoch, each "
            "mirrored as well; the paper has 5.",
        ),
    ] = None,
    image_size: ImageSize = None,
    multi_scale: Annotated[
        str | None,
        typer.Option(
            help="Sizes drawn from while training: 320,416,608, or 320-608 by the stride; of Fast "
            "R-CNN photos' short sides: 480,576,688,864,1200."
        ),
    ] = None,
    multi_scale_last: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Batches at the end that are all of the greatest size; darknet has 200.",
            show_default="0",
        ),
    ] = None,
    classification_data: Annotated[
        str | None, typer.Option(help="Images with labels alone, for joint training.")
    ] = None,
    images_per_epoch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of joint training, in all; as many as show every image if not said."
        ),
    ] = None,
    tree: Tree = None,
    nodes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="For a WordTree: file of the nodes that the data's classes are; those of their names "
            "if not said.",
        ),
    ] = None,
    regions: Regions = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, mixed_float16 or mixed_bfloat16.", show_default="float32"),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="By which --val is measured: voc07, voc10 or coco.", show_default="voc10"
        ),
    ] = None,
    cache: Annotated[
        bool | None, typer.Option(help="Keep decoded images in memory.", show_default="no-cache")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order and augmentation.", show_default="0")
    ] = None,
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
        words = {name for name in context.params if _was_given(context, name)}
        if more := sorted(words - {"resume", "epochs", "backend"}):
            raise typer.BadParameter(
                "--resume takes everything but --epochs from the run folder, "
                f"{', '.join(name.replace('_', '-') for name in more)} too"
            )
        _finished(training.resume(resume, epochs=epochs))
        return
    given: dict[str, Any] = {
        "train": data,
        "val": val,
        "pretrained": True if weights == "default" else weights,
        "start_from": start_from,
        "train_from": train_from,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "schedule": schedule,
        "milestones": numbers(milestones, "--milestones"),
        "scales": numbers(scales, "--scales"),
        "warmup_epochs": warmup_epochs,
        "warmup_power": warmup_power,
        "crops": crops,
        "image_size": sides(image_size) if image_size else None,
        "multi_scale": _sizes(multi_scale),
        "multi_scale_last": multi_scale_last,
        "classification_train": classification_data,
        "images_per_epoch": images_per_epoch,
        "tree": tree,
        "nodes": nodes,
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


train.__doc__ = f"""{train.__doc__}

A recipe file's own settings take the place of the defaults below.

{EVERY_FORM}"""


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _sizes(text: str | None) -> list[int] | None:
    """320,416,608 as it stands; 320-608 by 32, the stride of every network here with several."""
    if text is None:
        return None
    if match := re.fullmatch(r"(\d+)-(\d+)", text.strip()):
        sizes = list(map(float, range(int(match[1]), int(match[2]) + 1, 32)))
    else:
        sizes = numbers(text, "--multi-scale") or []
    if not sizes or any(size % 1 for size in sizes):
        raise typer.BadParameter(
            f"wants whole numbers separated by commas, or 320-608, not {text!r}",
            param_hint="--multi-scale",
        )
    return [int(size) for size in sizes]


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
