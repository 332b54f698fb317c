import struct
import zipfile

import caffe_writer
import h5py
import numpy as np
import pytest
import torch_writer

from kerasdet.errors import InputError
from kerasdet.weights import recognise


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_torch_files_are_known_by_content(tmp_path, kind):
    path = torch_writer.write(tmp_path / "weights.bin", {"a": np.zeros(2, "f4")}, kind)
    assert recognise(path) == "torch"


def test_caffemodels_are_known_with_a_name_and_without(tmp_path):
    message = caffe_writer.net({"a": ("Convolution", [np.zeros(2, "f4")])})
    (tmp_path / "a").write_bytes(message.SerializeToString())
    message.ClearField("name")
    (tmp_path / "b").write_bytes(message.SerializeToString())
    assert recognise(tmp_path / "a") == recognise(tmp_path / "b") == "caffe"


def test_keras_files_are_known(tmp_path):
    with h5py.File(tmp_path / "a", "w") as file:
        file["x"] = np.zeros(2)
    assert recognise(tmp_path / "a") == "hdf5"
    with zipfile.ZipFile(tmp_path / "b", "w") as archive:
        for member in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(member, "{}")
    assert recognise(tmp_path / "b") == "keras"


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<4i", 0, 1, 0, 64),
        struct.pack("<3iQ", 0, 2, 0, 2**40),
        # 0.01 begins with the byte 0x0a, as a caffemodel with a name does.
        struct.pack("<3fi", 0.01, 0.9, 0.0005, 64),
    ],
    ids=["0.1", "0.2", "before versions"],
)
def test_darknet_files_are_known_by_their_header(tmp_path, header):
    (tmp_path / "yolo.caffemodel").write_bytes(header + np.ones(9, "f4").tobytes())
    assert recognise(tmp_path / "yolo.caffemodel") == "darknet"


def test_a_caffemodel_is_not_taken_for_darknets_whatever_its_name(tmp_path, rng):
    for length in range(1, 40):
        for _ in range(20):
            name = "".join(rng.choice(list("0123456789;=?_VGvg"), length))
            message = caffe_writer.net({"a": ("Convolution", [np.zeros(2, "f4")])}, name=name)
            (tmp_path / "a").write_bytes(message.SerializeToString())
            assert recognise(tmp_path / "a") == "caffe"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html><html>Google Drive can't scan", "a web page"),
        (b"\n\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b'name: "VGG"\nlayer {', "a prototxt"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"\0" * 257 + b"ustar" + b"\0" * 250, "a tar archive"),
        (b"\x89PNG\r\n\x1a\n", "no weight file known here"),
        (b"", "no weight file known here"),
        (b"<html><body>" + b"Sign in to download this file. " * 40, "a web page"),
        (struct.pack("<4i", 0, 0, 1, 0), "no weight file known here"),
        (struct.pack("<4i", 0, 1, 0, 0)[:12], "no weight file known here"),
    ],
)
def test_other_files_are_refused_by_what_they_look_like(tmp_path, data, message):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(InputError, match=message):
        recognise(tmp_path / "file")


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match="Cannot read weight file"):
            recognise(path)
