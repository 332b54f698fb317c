"""Reads `.caffemodel` files without Caffe: layers by name, their blobs as NumPy arrays.

A caffemodel is one protobuf message, NetParameter. It is walked here field by field, every
length checked against the bytes that are left, and blobs are copied straight from the file
into arrays. protobuf's own parser is not used: it needs a generated schema, and would keep
27 million weights as Python floats on their way to NumPy.

Source: caffe.proto of weiliu89/caffe (branch ssd, 4817bf8b) and of BVLC/caffe (9b89154).
"""

import math
import mmap
import struct
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from kerasdet.errors import InputError

# V1LayerParameter.LayerType, of files before 2014: the numbers a trained network can have.
_V1_TYPES = {4: "Convolution", 14: "InnerProduct", 17: "Pooling", 18: "ReLU", 6: "Dropout"}

# A released network has some thousand fields; this bounds the time that a hostile file takes.
_MAX_FIELDS = 1_000_000
_MAX_DIMENSIONS = 32
_MAX_SIDE = 2**31 - 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class PriorBox(NamedTuple):
    """Default boxes of one feature map, as a PriorBox layer describes them (pixels).

    Attributes:
        min_sizes: sides of square boxes.
        max_sizes: with each, one more square, of the geometric mean; may be empty.
        ratios: extra width/height ratios, as written (`flip` adds their inverses).
        flip: whether each ratio is also used the other way.
        clip: whether boxes are cut at the image's edges.
        variances: of the centre-size code; one for all, or four.
        step: pixels from cell to cell; 0: image size / grid.
        offset: of a cell's centre, in cells.
    """

    min_sizes: tuple[float, ...] = ()
    max_sizes: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    flip: bool = True
    clip: bool = False
    variances: tuple[float, ...] = ()
    step: float = 0.0
    offset: float = 0.5


class CaffeModel(NamedTuple):
    """What a caffemodel holds.

    Attributes:
        name: the network's.
        layers: blobs of each layer that has any, by the layer's name; Caffe's axis order:
            (out, in, height, width) for convolutions, (out, in) for inner products.
        types: type of every layer, by name; "" where the file has none known.
        prior_boxes: by the name of the PriorBox layer, in file order.
    """

    name: str
    layers: dict[str, list[np.ndarray]]
    types: dict[str, str]
    prior_boxes: dict[str, PriorBox]


def read_caffe(path: str | Path) -> CaffeModel:
    """Reads a caffemodel, of Caffe's current format or of the one before 2014 (V1).

    Args:
        path: a binary NetParameter; not a prototxt, not the HDF5 form.

    Returns:
        Blobs as float32 arrays.

    Raises:
        InputError: if the file is cut short, damaged, or another kind of file; the
            sentence says at which byte.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if not size:
                raise InputError(f"{path} is empty; wanted a caffemodel.")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    model = _Net(memoryview(mapped), path).read()
    if not model.types:
        raise InputError(f"{path} is not a caffemodel: it has no layers in its {size:,} bytes.")
    return model


class _Net:
    """One walk through a NetParameter; positions are bytes from the file's begin."""

    def __init__(self, data: memoryview, path):
        self._data = data
        self._path = path
        self._fields_left = _MAX_FIELDS

    def read(self) -> CaffeModel:
        model = CaffeModel("", {}, {}, {})
        for field, kind, value in self._fields(0, len(self._data)):
            if kind != _BYTES:
                continue
            if field == 1:
                model = model._replace(name=self._text(*value))
            elif field in (2, 100):  # V1LayerParameter, LayerParameter
                self._layer(model, *value, old=field == 2)
        return model

    def _layer(self, model, start, end, *, old):
        name, layer_type, blobs, prior = "", "", [], None
        name_field, type_field, blob_field = (4, 5, 6) if old else (1, 2, 7)
        for field, kind, value in self._fields(start, end):
            if field == name_field and kind == _BYTES:
                name = self._text(*value)
            elif field == type_field and kind == _BYTES:
                layer_type = self._text(*value)
            elif field == type_field and old and kind == _VARINT:
                layer_type = _V1_TYPES.get(value, "")
            elif field == blob_field and kind == _BYTES:
                blobs.append(self._blob(*value))
            elif field == 203 and kind == _BYTES and not old:
                prior = self._prior_box(*value)
        if blobs and name in model.layers:
            self._refuse(start, f"layer {name!r} has its weights twice")
        model.types[name] = layer_type
        if blobs:
            model.layers[name] = blobs
        if prior is not None:
            model.prior_boxes[name] = prior

    def _blob(self, start, end) -> np.ndarray:
        legacy: dict[int, int] = {}
        shape: tuple[int, ...] | None = None
        parts: list[np.ndarray] = []
        for field, kind, value in self._fields(start, end):
            if field in (1, 2, 3, 4) and kind == _VARINT:  # num, channels, height, width
                legacy[field] = value
            elif field == 7 and kind == _BYTES:
                shape = self._shape(*value)
            elif field in (5, 8):  # data, double_data
                parts.append(self._floats(value, kind, field == 8, start))
        data = np.concatenate(parts) if parts else np.zeros(0, "f4")
        if shape is None:
            shape = tuple(legacy.get(field, 0) for field in (1, 2, 3, 4))
        if max(shape, default=0) > _MAX_SIDE or math.prod(shape) != data.size:
            self._refuse(start, f"a blob of shape {shape} has {data.size:,} numbers")
        return data.reshape(shape)

    def _floats(self, value, kind, double, where) -> np.ndarray:
        dtype = np.dtype("<f8" if double else "<f4")
        if kind == _BYTES:
            start, end = value
            if (end - start) % dtype.itemsize:
                self._refuse(start, f"{end - start:,} bytes of numbers of {dtype.itemsize}")
            numbers = np.frombuffer(self._data[start:end], dtype)
        elif kind == (_FIXED64 if double else _FIXED32):
            numbers = np.frombuffer(value, dtype)
        else:
            self._refuse(where, "a blob's numbers are not floats")
        return numbers.astype("f4")  # a copy: the file is closed afterwards

    def _shape(self, start, end) -> tuple[int, ...]:
        sides: list[int] = []
        for field, kind, value in self._fields(start, end):
            if field != 1:
                continue
            if kind == _VARINT:
                sides.append(value)
            elif kind == _BYTES:  # packed
                position, stop = value
                while position < stop:
                    side, position = self._varint(position, stop)
                    sides.append(side)
            if len(sides) > _MAX_DIMENSIONS:
                self._refuse(start, f"a blob of more than {_MAX_DIMENSIONS} dimensions")
        return tuple(sides)

    def _prior_box(self, start, end) -> PriorBox:
        lists: dict[int, list[float]] = {1: [], 2: [], 3: [], 6: []}
        single: dict[int, float] = {}
        for field, kind, value in self._fields(start, end):
            if field in lists and kind == _FIXED32:
                lists[field] += np.frombuffer(value, "<f4").tolist()
            elif field in lists and kind == _BYTES:
                lists[field] += self._floats(value, kind, False, start).tolist()
            elif field in (10, 13) and kind == _FIXED32:
                single[field] = struct.unpack("<f", value[-4:])[0]
            elif field in (4, 5) and kind == _VARINT:
                single[field] = value
        return PriorBox(
            min_sizes=tuple(lists[1]),
            max_sizes=tuple(lists[2]),
            ratios=tuple(lists[3]),
            flip=bool(single.get(4, True)),
            clip=bool(single.get(5, False)),
            variances=tuple(lists[6]),
            step=single.get(10, 0.0),
            offset=single.get(13, 0.5),
        )

    # -------------------------------------------------------------------- the wire format

    def _fields(self, start, end):
        """Yields (field number, kind, value) of a message; a run of floats comes as one.

        The value is a number (varint), the bytes (fixed), or (first byte, end).
        """
        position = start
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                self._refuse(position, f"more than {_MAX_FIELDS:,} fields")
            tag_at = position
            tag, position = self._varint(position, end)
            field, kind = tag >> 3, tag & 7
            if field == 0:
                self._refuse(tag_at, "a field without number")
            if kind == _VARINT:
                value, position = self._varint(position, end)
            elif kind == _BYTES:
                length, position = self._varint(position, end)
                if length > end - position:
                    self._cut(tag_at, length, end - position)
                value = (position, position + length)
                position += length
            elif kind in (_FIXED32, _FIXED64):
                width = 4 if kind == _FIXED32 else 8
                if width > end - position:
                    self._cut(tag_at, width, end - position)
                value, position = self._run(tag_at, position, width, end)
            else:
                self._refuse(tag_at, f"wire type {kind}, which protobuf does not have")
            yield field, kind, value

    def _run(self, tag_at, position, width, end):
        """The fixed-width numbers from here on that have this same tag, joined."""
        tag = np.frombuffer(bytes(self._data[tag_at:position]), "u1")
        stride = tag.size + width
        parts, rows_at_once = [], 1
        while end - tag_at >= stride:
            count = min(rows_at_once, (end - tag_at) // stride)
            rows = np.frombuffer(self._data[tag_at : tag_at + count * stride], "u1")
            rows = rows.reshape(count, stride)
            same = (rows[:, : tag.size] == tag).all(axis=1)
            run = count if same.all() else int(same.argmin())
            parts.append(rows[:run, tag.size :].tobytes())
            tag_at += run * stride
            if run < count:
                break
            rows_at_once = min(4 * rows_at_once, 2**20)
        return b"".join(parts), tag_at

    def _varint(self, position, end):
        value = 0
        for i in range(10):
            if position + i >= end:
                self._cut(position, i + 1, end - position)
            byte = self._data[position + i]
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                return value, position + i + 1
        self._refuse(position, "a number of more than 64 bits")

    def _text(self, start, end):
        return bytes(self._data[start : min(end, start + 256)]).decode("utf-8", "replace")

    def _cut(self, position, wanted, left) -> NoReturn:
        raise InputError(
            f"{self._path} is cut short, damaged or not a caffemodel: at byte {position:,} a "
            f"field wants {wanted:,} bytes and {left:,} are left (file of {len(self._data):,})."
        )

    def _refuse(self, position, what) -> NoReturn:
        raise InputError(
            f"{self._path} is damaged or not a caffemodel: at byte {position:,}, {what}."
        )
