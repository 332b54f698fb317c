"""Trained detectors for serving: TensorFlow SavedModel, ONNX and LiteRT; and files for darknet.

Every export is loaded back and run on pictures, and counts as written only where it finds
what the model finds; otherwise nothing is left of it. Darknet's files darknet alone runs.

    kerasdet.export.saved_model(model, "export/ssd300")   # export/ssd300/1 for TF Serving
    kerasdet.export.load("export/ssd300").detect([image])
"""

from pathlib import Path
from typing import Any

from kerasdet import arguments
from kerasdet.errors import InputError
from kerasdet.export.check import Tolerance
from kerasdet.export.converted import write_litert, write_onnx
from kerasdet.export.darknet import write_darknet
from kerasdet.export.inputs import Options, checked_samples
from kerasdet.export.report import Report
from kerasdet.export.served_model import ServedModel
from kerasdet.export.versions import load_saved_model, write_saved_model

__all__ = [
    "FORMATS",
    "Report",
    "ServedModel",
    "Tolerance",
    "export",
    "litert",
    "load",
    "onnx",
    "saved_model",
]

FORMATS = ("saved_model", "onnx", "litert", "darknet")
"""What `export` writes."""


def export(
    model,
    path,
    format="saved_model",
    *,
    score_threshold=None,
    iou_threshold=None,
    max_detections=None,
    overwrite=False,
    sample=None,
    tolerance=None,
    **kwargs: Any,
) -> Report:
    """Writes a detector in one of `FORMATS` and says what was written.

    "darknet" is for YOLO v1, YOLOv2 and YOLO9000 on their own trunks, and the classifiers that they
    start from: beside mine.weights stand mine.cfg, mine.names, mine.data and, of a WordTree,
    mine.tree, for darknet to run in their folder. It brings photos to the network's size in its
    own way, and takes thresholds when it runs.

    Args:
        model: a detector.
        path: folder of the SavedModel's versions, or a file ending in .onnx, .tflite or .weights.
        format: one of `FORMATS`; see the functions of these names, and above.
        score_threshold: least score given out; None for the model's own.
        iou_threshold: overlap that suppresses; None for the model's own.
        max_detections: D, rows of the outputs; None for the model's own.
        overwrite: replace a version or file that exists.
        sample: one image or several, as for `Detector.detect`, on which the copy is compared
            with the model; None: pictures of coloured blobs. Not of darknet's files.
        tolerance: how far the copy may be from the model; None for `Tolerance()`.
        **kwargs: `version` and `serving` of `saved_model`; converter options of `litert`.

    Returns:
        A report; printed, it tells what was written and how far it is from the model.

    Raises:
        InputError: if something asked for cannot be had.
        KerasdetError: if the copy does not find what the model finds; it is removed.
    """
    options = Options(
        arguments.thresholds(score_threshold, iou_threshold, max_detections),
        overwrite,
        checked_samples(sample),
        tolerance or Tolerance(),
    )
    if format == "saved_model":
        return write_saved_model(model, path, options, **kwargs)
    if format == "onnx":
        return write_onnx(model, path, options, **kwargs)
    if format == "litert":
        return write_litert(model, path, options, **kwargs)
    if format == "darknet":
        return write_darknet(model, path, options)
    raise InputError(f"format wants one of {', '.join(FORMATS)}, not {format!r}.")


def saved_model(
    model,
    path,
    *,
    version=None,
    score_threshold=None,
    iou_threshold=None,
    max_detections=None,
    serving=True,
    overwrite=False,
    sample=None,
    tolerance=None,
) -> Path:
    """Writes a SavedModel into a numbered folder, as TensorFlow Serving wants it.

    One graph from photos to detections: decoding, resizing, the network, suppression. Signatures:

    - `serving_default`: `images` uint8 (B, H, W, 3), RGB, any size, one size a batch.
    - `serving_bytes`: `image_bytes` (B,) JPEG or PNG files, of different sizes.

    A detector of regions has three:

    - `serving_default`: `images` as above, and `regions` float32 (B, R, 4), xyxy in their pixels,
      padded with -1.
    - `serving_windows`: `images` alone; it looks at sliding windows.
    - `serving_bytes`: `image_bytes`, likewise.

    A detector that looks at several scales does so inside the graph, at those that are set when it
    is written, and the sizes' sides swapped for photos higher than wide.

    Outputs, as TensorFlow's object detection API defines them, float32:

    - `detection_boxes` (B, D, 4): ymin, xmin, ymax, xmax in 0..1.
    - `detection_scores` (B, D), best first.
    - `detection_classes` (B, D): label + 1, the line in the asset `class_names.txt`.
    - `num_detections` (B,): rows in use. The others are box 0, score 0, class 0.
    - `image_size` (B, 2) int32, of `serving_bytes` alone: height and width of each photo, which
      is turned upright first, as its EXIF says.

    A file that cannot be decoded gives no detections and `image_size` 0, 0; the other
    images of its batch are answered, as a server may have put several clients' images together.

    Args:
        model: a detector.
        path: folder of the versions.
        version: number of the folder to write; None: one more than the highest there.
        score_threshold: least score given out; None for the model's own.
        iou_threshold: overlap that suppresses; None for the model's own.
        max_detections: D; None for the model's own.
        serving: also write warm-up requests, batching hints and a README.
        overwrite: replace `version` if it exists.
        sample: as for `export`.
        tolerance: as for `export`.

    Returns:
        The version's folder.

    Raises:
        InputError: if something asked for cannot be had.
        KerasdetError: if the copy does not find what the model finds; it is removed.

    Source: tensorflow/models, research/object_detection/exporter_lib_v2.py. Differs from it: its
        padded rows have class 1.
    """
    return export(
        model,
        path,
        "saved_model",
        version=version,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
        serving=serving,
        overwrite=overwrite,
        sample=sample,
        tolerance=tolerance,
    ).path


def onnx(model, path, **kwargs: Any) -> Path:
    """Writes an ONNX file: the network from resized images to detections, suppression inside.

    Input `images`: float32 (B, height, width, 3) of the network's size, RGB 0..255. Outputs as
    of `saved_model`, without `image_size`. The metadata `names` has the class names as JSON.
    Of a detector that looks at several scales it has `image_size` alone.

    Args:
        model: a detector in float32.
        path: file ending in .onnx.
        **kwargs: as for `export`.

    Returns:
        The file.

    Raises:
        InputError: if something asked for cannot be had, a package among them.
        KerasdetError: if the copy does not find what the model finds; it is removed.
    """
    return export(model, path, "onnx", **kwargs).path


def litert(model, path, **kwargs: Any) -> Path:
    """Writes a LiteRT (TensorFlow Lite) file: as `onnx`, for phones and small boards.

    Only built-in operations are in it, so that no Flex delegate is needed.

    Args:
        model: a detector in float32.
        path: file ending in .tflite.
        **kwargs: as for `export`; others are set on TensorFlow's converter, such as
            `optimizations=[tf.lite.Optimize.DEFAULT]`. A quantised copy needs a wider `tolerance`.

    Returns:
        The file.

    Raises:
        InputError: if something asked for cannot be had.
        KerasdetError: if the copy does not find what the model finds; it is removed.
    """
    return export(model, path, "litert", **kwargs).path


def load(path) -> ServedModel:
    """Opens an exported SavedModel as something with `detect`.

    A SavedModel is a program: open only those whose maker you trust.

    Args:
        path: the folder of versions, of which the highest is taken, or one version.

    Raises:
        InputError: if there is none, or kerasdet did not write it.
    """
    return load_saved_model(path)
