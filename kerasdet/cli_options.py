"""Options that several of the shell's commands take."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from kerasdet.data.forms import IMAGE_SPECS, SPECS

BACKENDS = ("tensorflow", "jax")

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help=f"Data: {SPECS}; of a classifier {IMAGE_SPECS}. See `kerasdet data --help`.",
        show_default=False,
    ),
]
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
Tree = Annotated[
    str | None,
    typer.Option(
        "--tree",
        metavar="FILE",
        help="For yolo9000 by name: its WordTree, a .tree (names in a .names of the same name beside "
        "it) or a .json of {child: parent}.",
    ),
]
ModelClasses = Annotated[
    Path | None,
    typer.Option(
        "--model-classes",
        metavar="FILE",
        help="Names of a model's labels, one a line, where its weights come without: OverFeat's.",
    ),
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
        metavar="FOLDER|FILE|METHOD",
        help="For Fast R-CNN: folder of `kerasdet data proposals`, or of a .mat or .npz an image; "
        "a file; or selective_search, edge_boxes or sliding_windows.",
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(
        "--scales",
        metavar="HxW,...",
        help="For OverFeat: the sizes at which photos are looked at: 263x263,327x389.",
    ),
]
Merge = Annotated[
    str | None,
    typer.Option("--merge", help="For OverFeat: how windows become detections, greedy or nms."),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Stop at the first bad annotation, or image cut off or broken: reads all first.",
    ),
]


def _backend(name: str | None):
    if name is None:
        return
    if name not in BACKENDS:
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


def numbers(text: str | None, option: str | None = None) -> list[float] | None:
    """Numbers separated by commas; None as it is.

    Raises:
        typer.BadParameter: naming the option.
    """
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise typer.BadParameter(
            f"wants numbers separated by commas, not {text!r}", param_hint=option
        ) from error
