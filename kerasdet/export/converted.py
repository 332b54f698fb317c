"""ONNX and LiteRT files, written by Keras' own exporters and run before they count as written."""

import importlib.util
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from kerasdet.detectors.detector import Detector
from kerasdet.errors import InputError, KerasdetError
from kerasdet.export import check, ties
from kerasdet.export.graph import NamedDetections
from kerasdet.export.inputs import Options, exportable
from kerasdet.export.placing import new_file
from kerasdet.export.report import Report, sizes_below
from kerasdet.images import placement, resized

# Read by every ONNX Runtime from 1.12 (2022) on.
_OPSET = 17


def write_onnx(model, path, options: Options) -> Report:
    """See `kerasdet.export.onnx`."""
    _want("onnx", ("tf2onnx", "onnx", "onnxruntime"))

    def write(network, file):
        with warnings.catch_warnings():
            # Keras' patch of tf2onnx for NumPy 2 looks whether `np.object` is there.
            warnings.simplefilter("ignore", FutureWarning)
            network.export(str(file), format="onnx", verbose=False, opset_version=_OPSET)
        _add_class_names(file, model.class_names)

    return _write(model, path, ".onnx", write, _open_onnx, options)


def write_litert(model, path, options: Options, **converter) -> Report:
    """See `kerasdet.export.litert`."""

    def write(network, file):
        network.export(str(file), format="litert", verbose=False, **converter)

    return _write(model, path, ".tflite", write, _open_litert, options)


def _write(model, path, suffix, write, open_file, options) -> Report:
    exportable(model)
    path = Path(path)
    if path.suffix != suffix:
        raise InputError(f"Wanted a file name that ends in {suffix}, not {path}.")
    if path.is_dir() or (path.exists() and not options.overwrite):
        raise InputError(f"{path} exists; pass overwrite=True or another name.")
    network = _network(model, options.thresholds)
    network(np.zeros((1, *model.image_size, 3), "float32"))  # Keras exports what was called
    with new_file(path) as file:
        write(network, file)
        try:
            measured = _measured(model, network, open_file(file), options)
            if not check.agrees(measured, options.tolerance):
                measured = _measured_unmerged(model, write, open_file, options) or measured
        except InputError:
            raise
        except Exception as error:  # each runtime has exceptions of its own
            reason = " ".join(str(error).split())[:300]
            raise KerasdetError(f"The file for {path} does not run: {reason}") from error
        check.require_same(measured, options.tolerance, f"The file for {path}")
    height, width = model.image_size
    how = {
        "warp": "resized bilinearly with half-pixel centres",
        "letterbox": "letterboxed as darknet does (kerasdet.images.letterbox); boxes are shares "
        "of this input, grey bars included",
        "letterbox_smooth": "letterboxed without aliasing (kerasdet.images.letterbox, smooth); "
        "boxes are shares of this input, grey bars included",
    }[model.resize]
    use = (
        f"Input `images`: float32 (B, {height}, {width}, 3), RGB 0..255, {how}; suppression is "
        "inside, outputs as in the SavedModel."
    )
    if getattr(model, "scales", (model.image_size,)) != (model.image_size,):
        looks = ", ".join(f"{height}x{width}" for height, width in model.scales)
        use += f" It looks at this size alone, and the model at {looks}, as its SavedModel does."
    return Report(path, sizes_below(path), measured, use)


def _network(model, thresholds):
    """A functional model from resized images to the named outputs, all in float32."""
    raw = keras.Model(model.input, model.output, name=model.name)
    if not _float32(raw):
        # LiteRT runs half-precision layers through Flex alone; Keras' ONNX exporter wants float32.
        copy = keras.models.clone_model(raw, clone_function=_in_float32, recursive=True)
        copy.set_weights(raw.get_weights())
        raw = copy
    images, outputs = raw.input, raw.output
    if model.takes_any_size:  # the file is for one
        images = keras.Input((*model.image_size, 3), name="images")
        outputs = raw(images)
    return keras.Model(images, NamedDetections(model, thresholds)(outputs), name=model.name)


def _float32(model):
    return all(
        _float32(layer) if isinstance(layer, keras.Model) else layer.compute_dtype == "float32"
        for layer in model.layers
    )


def _in_float32(layer):
    return type(layer).from_config({**layer.get_config(), "dtype": "float32"})


def _measured(model, network, run: Callable, options):
    """One image alone and all together, as the batch is not fixed."""
    images = options.samples or check.sample_images(model.image_size)
    sizes = [image.shape[:2] for image in images]
    batch = np.stack([resized(image, model.image_size, model.resize) for image in images])
    if _float32(model):
        # At the one size that the file is for, whatever sizes the model's own `detect` looks at.
        expected = Detector.detect(model, images, **options.thresholds)
    else:  # its own half precision rounds differently; what counts is the float32 network
        outputs = network(batch, training=False)
        outputs = {key: keras.ops.convert_to_numpy(value) for key, value in outputs.items()}
        expected = _in_source(outputs, sizes, model)
    found = _in_source(run(batch), sizes, model)
    found += _in_source(run(batch[:1]), sizes[:1], model)
    return check.difference(expected + expected[:1], found, sizes + sizes[:1])


def _measured_unmerged(model, write, open_file, options):
    """The same of a file that merges nothing, where detections hang on rounding; else None."""
    images = options.samples or check.sample_images(model.image_size)
    if not ties.hang_on_rounding(model, [model.image_size], images, options):
        return None
    with ties.unmerged(model, options) as options, tempfile.TemporaryDirectory() as folder:
        network = _network(model, options.thresholds)
        network(np.zeros((1, *model.image_size, 3), "float32"))
        file = Path(folder) / "unmerged"
        write(network, file)
        return _measured(model, network, open_file(file), options)


def _in_source(outputs, sizes, model):
    """Outputs whose boxes are shares of the network's input, as detections in photos."""
    found = []
    inputs = check.from_outputs(outputs, [model.image_size] * len(sizes))
    for one, (height, width) in zip(inputs, sizes, strict=True):
        place = placement((height, width), model.image_size, model.resize)
        boxes = (one.boxes - np.array(place.offset)) / np.array(place.scale)
        found.append(one._replace(boxes=np.clip(boxes, 0, [width, height, width, height])))
    return found


def _want(extra, packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"Exporting to {extra} wants {', '.join(missing)}: pip install 'kerasdet[{extra}]'."
        )


# ---------------------------------------------------------------------- runtimes


def _open_onnx(file) -> Callable:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))


def _add_class_names(file, class_names):
    """Class names as metadata `names`, where ONNX tools look for them."""
    import onnx

    graph = onnx.load(str(file))
    onnx.helper.set_model_props(graph, {"names": json.dumps(dict(enumerate(class_names, 1)))})
    onnx.save(graph, str(file))


def _open_litert(file) -> Callable:
    runner = _interpreter(str(file)).get_signature_runner()
    return lambda images: runner(images=images)


def _interpreter(file):
    if importlib.util.find_spec("ai_edge_litert"):
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(file)
    import tensorflow as tf

    if not hasattr(tf.lite, "Interpreter"):
        raise InputError("Checking a LiteRT file wants ai_edge_litert: pip install ai-edge-litert.")
    with warnings.catch_warnings():  # it announces that it moves to ai_edge_litert
        warnings.simplefilter("ignore", UserWarning)
        return tf.lite.Interpreter(file)
