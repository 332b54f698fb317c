"""The shell's `kerasdet data check | stats | show | anchors | proposals`, and how the shell opens data."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from kerasdet.data.forms import FORMS, IMAGE_FORMS, SPECS
from kerasdet.errors import InputError

EVERY_FORM = f"""\
\b
Data with boxes:
{FORMS}
\b
Images with one label each, for classifiers:
{IMAGE_FORMS}"""
"""The words for data, for the end of a help text; Click leaves lines after a \\b as they are."""

data_app = typer.Typer(
    help=f"Look at data sets before training on them.\n\n{EVERY_FORM}", no_args_is_help=True
)

Spec = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help=f"{SPECS}. ?names=coco and other options follow; a + joins data.",
        show_default=False,
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option("--classes", help="File with one class name a line, for data that names none."),
]


@data_app.command("check")
def data_check(
    data: Spec,
    csv: Annotated[Path | None, typer.Option(help="Write the problems to this file.")] = None,
    classes: Classes = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 2 if anything is wrong, images cut off or broken included."
        ),
    ] = False,
):
    """Report bad annotations with file, row and rule, and count photos to be turned; reads every image."""
    from rich.console import Console

    from kerasdet.data import check

    report = check(load_examples(data, classes=classes), csv=csv)
    Console().print(report)
    if strict and report.faults:
        raise typer.Exit(2)


@data_app.command("stats")
def data_stats(
    data: Spec,
    model: Annotated[
        str, typer.Option(help="A model whose default boxes the objects are held against.")
    ] = "ssd300",
    classes: Classes = None,
):
    """Count classes and sizes, and the objects that no default box of a model matches."""
    import_quietly()
    from rich.console import Console

    from kerasdet.data import stats
    from kerasdet.opening import default_boxes_of

    boxes, image_size = default_boxes_of(model)
    Console().print(
        stats(load_examples(data, classes=classes), default_boxes=boxes, image_size=image_size)
    )


@data_app.command("show")
def data_show(
    data: Spec,
    output: Annotated[Path, typer.Option(help="Picture to write.")] = Path("samples.png"),
    count: Annotated[int, typer.Option(min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Which samples.")] = 0,
    classes: Classes = None,
):
    """Draw samples with their boxes and names as one picture."""
    from kerasdet.data import show

    print(f"Wrote {show(load_examples(data, classes=classes), output, count=count, seed=seed)}")


@data_app.command("anchors")
def data_anchors(
    data: Spec,
    clusters: Annotated[int, typer.Option(min=1, help="How many anchors.")] = 5,
    image_size: Annotated[
        str,
        typer.Option(
            "--image-size", metavar="SIDE|HxW", help="Size of the network's input, pixels."
        ),
    ] = "416",
    max_clusters: Annotated[
        int, typer.Option(min=1, help="Average IoU is measured up to this many.")
    ] = 9,
    resize: Annotated[
        str, typer.Option(help="How photos come to that size: letterbox or warp.")
    ] = "letterbox",
    seed: Annotated[int, typer.Option(help="Of the clustering's starts.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Picture to write.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file.")] = None,
    classes: Classes = None,
):
    """Find anchors that fit a data set's boxes (dimension clusters), and compare with released ones."""
    import_quietly(data=True)
    from rich.console import Console

    from kerasdet import runs
    from kerasdet.data import clusters as cluster
    from kerasdet.detectors import yolo9000, yolo_v2
    from kerasdet.opening import sides

    released = {f"YOLOv2 {name}": anchors for name, anchors in yolo_v2.ANCHORS.items()}
    found = cluster(
        load_examples(data, classes=classes),
        clusters,
        image_size=sides(image_size),
        resize=resize,
        max_clusters=max_clusters,
        others=released | {"YOLO9000": yolo9000.ANCHORS},
        seed=seed,
    )
    Console().print(found)
    print("Anchors in cells:", ", ".join(f"{w:.5g},{h:.5g}" for w, h in found.cells))
    if plot is not None:
        print(f"Wrote {found.plot(plot)}")
    if json is not None:
        try:
            json.parent.mkdir(parents=True, exist_ok=True)
            runs.write_json(json, found.to_dict())
        except OSError as error:
            raise InputError(
                f"The numbers cannot be written to {json}: {error.strerror}."
            ) from error
        print(f"Wrote {json}")


@data_app.command("proposals")
def data_proposals(
    data: Spec,
    output: Annotated[
        Path, typer.Option(help="Folder for one file an image; what is there is not made again.")
    ] = Path("proposals"),
    method: Annotated[
        str, typer.Option(help="selective_search, edge_boxes or sliding_windows.")
    ] = "selective_search",
    quality: Annotated[
        bool, typer.Option("--quality", help="Selective Search's quality mode: slower, more.")
    ] = False,
    max_regions: Annotated[
        int, typer.Option("--max-regions", min=1, help="Most regions of an image.")
    ] = 2000,
    edge_model: Annotated[
        Path | None, typer.Option("--edge-model", help="OpenCV's model.yml.gz, for edge_boxes.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. [default: one a core]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many images.")] = None,
    classes: Classes = None,
):
    """Find regions that may hold objects, for Fast R-CNN, and measure their recall."""
    from kerasdet.data.proposal_cache import Method, propose

    how = Method(
        method,
        quality=quality,
        max_regions=max_regions,
        model=None if edge_model is None else str(edge_model),
    )
    examples = load_examples(data, classes=classes)
    try:
        print(propose(examples, output, method=how, workers=workers, limit=limit))
    except KeyboardInterrupt as error:
        print(f"kerasdet: stopped; a second call goes on from {output}.", file=sys.stderr)
        raise typer.Exit(130) from error


def load_examples(spec, *, strict=False, classes=None):
    """The data set that a word names; a back end is imported without its greetings first."""
    import_quietly(data=True)
    from kerasdet.data import load

    return load(spec, strict=strict, class_names=classes)


def import_quietly(*, data=False):
    """Imports the back end without TensorFlow's greetings, which no log level silences."""
    if "keras" in sys.modules:
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras

        keras.ops.zeros(1)  # finds the devices, which TensorFlow also reports
        if data:
            import tensorflow  # noqa: F401  (tf.data, under JAX too)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
