"""A SavedModel in a numbered version folder, and back."""

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdet import __version__, arguments
from kerasdet.errors import InputError
from kerasdet.export import check, ties
from kerasdet.export.graph import ServedDetector
from kerasdet.export.inputs import Options, exportable
from kerasdet.export.placing import new_folder
from kerasdet.export.region_graph import ServedRegionDetector
from kerasdet.export.report import Report, sizes_below
from kerasdet.export.scales_graph import ServedScalesDetector
from kerasdet.export.served_model import ServedModel, detect_with
from kerasdet.export.serving_files import write_serving_files
from kerasdet.region_proposals import sliding_windows


def write_saved_model(model, path, options: Options, *, version=None, serving=True) -> Report:
    """See `kerasdet.export.saved_model`."""
    exportable(model, with_regions=True)
    base = Path(path)
    number = _version_number(base, version, options.overwrite)
    settings = {
        "name": model.name,
        "class_names": model.class_names,
        "image_size": list(model.image_size),
        "resize": model.resize,
        "takes_regions": model.takes_regions,
        "scales": [list(size) for size in getattr(model, "scales", ())],
        "thresholds": options.thresholds,
        "kerasdet": __version__,
    }
    with new_folder(base, str(number)) as folder:
        with _assets(settings) as assets, _quiet():
            served_as(model)(model, assets, options.thresholds).save(folder)
        with _quiet():
            signatures = tf.saved_model.load(str(folder)).signatures
        measured = _measured(model, signatures, options)
        images = options.samples or check.sample_images(model.image_size)
        if not check.agrees(measured, options.tolerance) and ties.hang_on_rounding(
            model, getattr(model, "scales", ()), images, options
        ):
            measured = _measured_unmerged(model, settings, options)
        check.require_same(measured, options.tolerance, f"The SavedModel for {base / str(number)}")
        if serving:
            rows = signatures["serving_default"].structured_outputs["detection_boxes"].shape[1]
            write_serving_files(folder, base / str(number), settings, rows, measured)
    written = base / str(number)
    use = f"Serve it: point TensorFlow Serving at {base.resolve()}"
    use += "; curl and Python lines are in its README.md." if serving else "."
    return Report(written, sizes_below(written), measured, use)


def served_as(model):
    """The class of the graph that a detector is served as."""
    if model.takes_regions:
        return ServedRegionDetector
    return ServedScalesDetector if hasattr(model, "scales") else ServedDetector


def load_saved_model(path) -> ServedModel:
    """See `kerasdet.export.load`."""
    path = Path(path)
    numbers = _numbers_in(path)
    folder = path / str(numbers[-1]) if numbers else path
    if not (folder / "saved_model.pb").is_file():
        raise InputError(f"Wanted a SavedModel's folder or one of its versions; {path} has none.")
    try:
        with _quiet():
            return ServedModel(tf.saved_model.load(str(folder)), folder)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"The SavedModel in {folder} cannot be read: {reason}") from error


# ---------------------------------------------------------------------- numbers


def _numbers_in(base):
    if not base.is_dir():
        return []
    return sorted(int(p.name) for p in base.iterdir() if p.name.isdecimal() and p.is_dir())


def _version_number(base, version, overwrite):
    """The number to write, checked against what is there."""
    if base.exists() and not base.is_dir():
        raise InputError(f"Wanted a folder for the SavedModel's versions, but {base} is a file.")
    if set(str(base)) & set("[]*?"):
        raise InputError(
            f"TensorFlow takes [ ] * ? in a path as a pattern; name another folder than {base}."
        )
    if (base / "saved_model.pb").exists():
        raise InputError(f"{base} is itself a SavedModel; name the folder that holds its versions.")
    if version is None:
        return max(_numbers_in(base), default=0) + 1
    version = arguments.whole_number("version", version)
    if (base / str(version)).exists() and not overwrite:
        raise InputError(f"{base / str(version)} exists; pass overwrite=True or another version.")
    return version


# ---------------------------------------------------------------------- files


@contextlib.contextmanager
def _assets(settings) -> Iterator[dict[str, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder, "class_names.txt")
        lines = [" ".join(name.splitlines()) for name in settings["class_names"]]
        names.write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="\n")
        detector = Path(folder, "detector.json")
        detector.write_text(json.dumps(settings, ensure_ascii=False, indent=1), "utf-8")
        yield {"class_names": names, "detector": detector}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TensorFlow's line about assets in a folder that is renamed a moment later."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


# ---------------------------------------------------------------------- check


def _measured(model, signatures, options):
    """Both signatures of the copy on disk against `detect`."""
    images = options.samples or check.sample_images(model.image_size)
    sizes = [image.shape[:2] for image in images]
    if model.takes_regions:
        return _measured_with_regions(model, signatures, options, images, sizes)
    expected = model.detect(images, **options.thresholds)
    # One size a batch through the one, all sizes together through the other.
    one = [detect_with(signatures["serving_default"], [image])[0] for image in images]
    together = detect_with(signatures["serving_bytes"], images)
    return check.difference(expected + expected, one + together, sizes + sizes)


def _measured_unmerged(model, settings, options):
    """The same of a copy that merges nothing, written for this alone."""
    with ties.unmerged(model, options) as options, tempfile.TemporaryDirectory() as folder:
        with _assets(settings) as assets, _quiet():
            served_as(model)(model, assets, options.thresholds).save(folder)
            signatures = tf.saved_model.load(folder).signatures
        return _measured(model, signatures, options)


def _measured_with_regions(model, signatures, options, images, sizes):
    """All three: with regions at random, and with the windows that the other two make."""
    windows = [np.asarray(sliding_windows(*size)) for size in sizes]
    random = np.random.default_rng(0)
    regions = [random.permutation(of_image)[:200] for of_image in windows]
    expected = [
        *model.detect(images, regions, **options.thresholds),
        *model.detect(images, windows, **options.thresholds) * 2,
    ]
    given = [
        detect_with(signatures["serving_default"], [image], rows[None])[0]
        for image, rows in zip(images, regions, strict=True)
    ]
    alone = [detect_with(signatures["serving_windows"], [image])[0] for image in images]
    together = detect_with(signatures["serving_bytes"], images)
    return check.difference(expected, given + alone + together, sizes * 3)
