"""Tells what a weight file is by its first bytes, or its size; names and endings say nothing."""

import zipfile
from pathlib import Path
from typing import Literal

from kerasdet.errors import InputError
from kerasdet.weights.darknet_file import parse_header
from kerasdet.weights.overfeat_file import looks_raw, released
from kerasdet.weights.torch_file import LEGACY_MAGIC, ZIP_MAGIC

Format = Literal["torch", "caffe", "darknet", "hdf5", "keras", "overfeat"]

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# A NetParameter begins with its name (field 1), a layer (2 or 100) or an input (3).
_CAFFE_BEGINS = (b"\x0a", b"\x12", b"\xa2\x06", b"\x1a")

# Files that come where weights were wanted, and what to do about each.
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run git lfs pull"),
    (b"<", "a web page; the download needs a browser, or the address is wrong"),
    (b"\x1f\x8b", "a gzip archive; unpack it and give the weight file inside"),
    (b"name:", "a prototxt, which describes a network; give the .caffemodel beside it"),
    (b"layer", "a prototxt, which describes a network; give the .caffemodel beside it"),
)


def recognise(path: str | Path) -> Format:
    """The format of a weight file, by content.

    Returns:
        "torch": a .pth, of either of torch's formats; "caffe": a .caffemodel; "darknet": a
        .weights of darknet; "hdf5": a Keras .weights.h5 or an older Keras .h5; "keras": a
        whole model saved as .keras; "overfeat": floats without a header, which OverFeat's raw files
        are, of the released size or by what they begin with.

    Raises:
        InputError: if the file is not there or none of these; the sentence says what it
            looks like where that is known.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise InputError(f"Cannot read weight file {path}: {error.strerror or error}.") from error
    if start.startswith(ZIP_MAGIC):
        return "keras" if _is_keras(path) else "torch"
    if start.startswith(LEGACY_MAGIC):
        return "torch"
    if start.startswith(_HDF5_MAGIC):
        return "hdf5"
    if released(size):
        return "overfeat"
    if parse_header(start[:20]):  # its oldest header may begin with the byte of a caffemodel
        return "darknet"
    if looks_raw(start):  # a float, and so such a file, may begin with any byte
        return "overfeat"
    for begin, what in _OTHERS:
        if start.lstrip().lower().startswith(begin):
            raise InputError(f"{path} is {what}.")
    if start[257:262] == b"ustar":
        raise InputError(f"{path} is a tar archive; unpack it and give the weight file inside.")
    if start.startswith(_CAFFE_BEGINS):
        return "caffe"
    raise InputError(
        f"{path} is no weight file known here: wanted a torch .pth, a .caffemodel, a darknet "
        ".weights, OverFeat's raw floats, a Keras .weights.h5 or a .keras, and it begins with "
        f"{start[:8]!r}."
    )


def _is_keras(path):
    try:
        with zipfile.ZipFile(path) as archive:
            return {"config.json", "metadata.json"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # a damaged archive: torch's reader says what is wrong with it
