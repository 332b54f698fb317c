"""What stands beside the graph for TensorFlow Serving."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from kerasdet.export import serving_files
from kerasdet.export.check import Difference
from tests.export.models import NAMES

SETTINGS = {
    "name": "ssd",
    "class_names": NAMES,
    "resize": "warp",
    "takes_regions": False,
    "image_size": [40, 60],
    "thresholds": {"score_threshold": 0.25, "iou_threshold": None, "max_detections": 9},
    "kerasdet": "1.2.3",
}


@pytest.fixture
def folder(tmp_path):
    """Where the files are; the model's final place is named "my ssd/3"."""
    (tmp_path / "writing").mkdir()
    serving_files.write_serving_files(
        tmp_path / "writing", tmp_path / "my_ssd" / "3", SETTINGS, 9, Difference(4, 36, 0.01, 0, 0)
    )
    return tmp_path / "writing"


@pytest.fixture(scope="module")
def prediction_log():
    """The message class, from the fields that tensorflow_serving/apis declares."""
    label = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package="s", syntax="proto3")

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for field, number, kind in fields:
            made.field.add(
                name=field,
                number=number,
                label=label.LABEL_OPTIONAL,
                type={"string": label.TYPE_STRING, "bytes": label.TYPE_BYTES}.get(
                    kind, label.TYPE_MESSAGE
                ),
                type_name=None if kind in ("string", "bytes") else f".s.{kind}",
            )
        return made

    message("ModelSpec", ("name", 1, "string"), ("signature_name", 3, "string"))
    request = message("PredictRequest", ("model_spec", 1, "ModelSpec"))
    entry = request.nested_type.add(name="InputsEntry")  # map<string, TensorProto> inputs = 2
    entry.options.map_entry = True
    for name, number, kind in (("key", 1, label.TYPE_STRING), ("value", 2, label.TYPE_BYTES)):
        entry.field.add(name=name, number=number, label=label.LABEL_OPTIONAL, type=kind)
    request.field.add(
        name="inputs",
        number=2,
        label=label.LABEL_REPEATED,
        type=label.TYPE_MESSAGE,
        type_name=".s.PredictRequest.InputsEntry",
    )
    message("PredictLog", ("request", 1, "PredictRequest"))
    message("PredictionLog", ("predict_log", 6, "PredictLog"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("s.PredictionLog"))


def records(path):
    """Payloads of a TFRecord file: length, its checksum, bytes, their checksum."""
    data, payloads = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        payloads.append(data[12 : 12 + length])
        data = data[16 + length :]
    return payloads


def test_warm_up_requests_name_both_signatures_and_their_inputs(folder, prediction_log):
    requests = [
        prediction_log.FromString(record).predict_log.request
        for record in records(folder / "assets.extra" / "tf_serving_warmup_requests")
    ]
    assert [request.model_spec.name for request in requests] == ["my_ssd", "my_ssd"]
    assert [request.model_spec.signature_name for request in requests] == [
        "serving_bytes",
        "serving_default",
    ]
    tensor_proto = type(tf.make_tensor_proto(0))
    tensors = [
        {key: tf.make_ndarray(tensor_proto.FromString(value)) for key, value in r.inputs.items()}
        for r in requests
    ]
    image = tensors[1]["images"]
    assert (image.shape, image.dtype) == ((1, 30, 75, 3), np.uint8)  # 40 * 3 / 4, 60 * 5 / 4
    (file,) = tensors[0]["image_bytes"]
    pixels = tf.io.decode_jpeg(file).numpy()
    assert pixels.shape == (30, 75, 3)
    assert np.abs(pixels.astype(int) - image[0]).mean() < 20  # the same picture, as JPEG keeps it


@pytest.mark.parametrize("length", [0, 1, 127, 128, 300, 16384, 70000])
def test_lengths_are_written_in_base_128(length):
    field = serving_files._field(2, bytes(length))
    value = descriptor_pb2.FileDescriptorProto.FromString(serving_files._field(1, b"a" * length))
    assert len(value.name) == length  # field 1 of that message is a string
    assert field[0] == 2 << 3 | 2


def test_the_readme_says_what_was_built_in_and_where_to_point_the_server(folder):
    text = (folder / "README.md").read_text("utf-8")
    base = folder.parent.resolve() / "my_ssd"
    assert f"-v {base}:/models/my_ssd -e MODEL_NAME=my_ssd" in text
    assert "http://localhost:8501/v1/models/my_ssd:predict" in text
    assert f'tf.saved_model.load("{base}/3")' in text
    assert "Least score 0.25, overlap model's own" in " ".join(text.split())
    assert "(B, 9, 4)" in text
    assert "boxes by at most 0.01 px" in text


def test_batching_hints_are_a_text_message(folder):
    lines = (folder / "batching_params.pbtxt").read_text().splitlines()
    fields = dict(line.split(" { value: ") for line in lines if not line.startswith("#"))
    assert {key: int(value.rstrip(" }")) for key, value in fields.items()} == {
        "max_batch_size": 8,
        "batch_timeout_micros": 5000,
        "max_enqueued_batches": 64,
        "num_batch_threads": 2,
    }
