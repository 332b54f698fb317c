"""ONNX and LiteRT files, written by Keras' own exporters and run before they count as written."""

import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from kerasdet.detectors.detector import warp
from kerasdet.errors import InputError, KerasdetError
from kerasdet.export import check
from kerasdet.export.graph import NamedDetections
from kerasdet.export.inputs import Options, exportable
from kerasdet.export.placing import new_file
from kerasdet.export.report import Report, sizes_below

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
        except InputError:
            raise
        except Exception as error:  # each runtime has exceptions of its own
            reason = " ".join(str(error).split())[:300]
            raise KerasdetError(f"The file for {path} does not run: {reason}") from error
        check.require_same(measured, options.tolerance, f"The file for {path}")
    height, width = model.image_size
    use = (
        f"Input `images`: float32 (B, {height}, {width}, 3), RGB 0..255, resized bilinearly with "
        "half-pixel centres; suppression is inside, outputs as in the SavedModel."
    )
    return Report(path, sizes_below(path), measured, use)


def _network(model, thresholds):
    """A functional model from resized images to the named outputs, all in float32."""
    raw = keras.Model(model.input, model.output, name=model.name)
    if not _float32(raw):
        # LiteRT runs half-precision layers through Flex alone; Keras' ONNX exporter wants float32.
        copy = keras.models.clone_model(raw, clone_function=_in_float32, recursive=True)
        copy.set_weights(raw.get_weights())
        raw = copy
    return keras.Model(raw.input, NamedDetections(model, thresholds)(raw.output), name=model.name)


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
    batch = np.stack([warp(image, model.image_size) for image in images])
    if _float32(model):
        expected = model.detect(images, **options.thresholds)
    else:  # its own half precision rounds differently; what counts is the float32 network
        outputs = network(batch, training=False)
        outputs = {key: keras.ops.convert_to_numpy(value) for key, value in outputs.items()}
        expected = check.from_outputs(outputs, sizes)
    found = check.from_outputs(run(batch), sizes)
    found += check.from_outputs(run(batch[:1]), sizes[:1])
    return check.difference(expected + expected[:1], found, sizes + sizes[:1])


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
