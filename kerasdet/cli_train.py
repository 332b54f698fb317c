"""The shell's `kerasdet train`."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasdet.cli_data import SPECS, import_quietly
from kerasdet.cli_options import Backend, ImageSize, Regions, Strict, numbers


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
        "milestones": numbers(milestones),
        "scales": numbers(scales),
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


def _sizes(text: str | None) -> list[int] | None:
    """320,416,608 as it stands; 320-608 by 32, the stride of every network here with several."""
    if text is None:
        return None
    if match := re.fullmatch(r"(\d+)-(\d+)", text.strip()):
        return list(range(int(match[1]), int(match[2]) + 1, 32))
    return [int(size) for size in numbers(text) or []]


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
