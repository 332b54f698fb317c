"""Writes torch's two file formats byte by byte, from the pickle protocol's definition.

Independent of the reader: no module of kerasdet, no torch, no `pickle`.
"""

import struct
import zipfile

import numpy as np

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

STORAGE_OF = {
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "f2": "HalfStorage",
    "i8": "LongStorage",
    "u1": "ByteStorage",
    "b1": "BoolStorage",
}


def pickled(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


def name(module, attribute):
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw  # LONG1


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def numbers(values):
    return tuple_of(*(number(value) for value in values))


def call(function, *arguments):
    return function + tuple_of(*arguments) + b"R"


def dict_of(items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def ordered(items):
    empty = name("collections", "OrderedDict") + b")R"
    return empty + b"(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(key, kind, count, *, view=None, legacy=False):
    parts = [text("storage"), name("torch", kind), text(key), text("cpu"), number(count)]
    if legacy:
        parts.append(b"N" if view is None else tuple_of(text(view[0]), *map(number, view[1:])))
    return tuple_of(*parts) + b"Q"


def tensor(stored, offset, shape, strides):
    hooks = name("collections", "OrderedDict") + b")R"
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        stored,
        number(offset),
        numbers(shape),
        numbers(strides),
        b"\x89",  # requires_grad: False
        hooks,
    )


def contiguous(shape):
    strides, step = [], 1
    for side in reversed(shape):
        strides.insert(0, step)
        step *= side
    return strides


def whole(key, array, *, legacy=False):
    """The record of a tensor that is its whole storage."""
    kind = STORAGE_OF[array.dtype.str[1:]]
    stored = storage(key, kind, array.size, legacy=legacy)
    return tensor(stored, 0, array.shape, contiguous(array.shape))


def write_zip(path, data, storages, *, byte_order="little", compression=zipfile.ZIP_STORED):
    """`data`: the pickle's bytes; `storages`: key to array or bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", byte_order)
        for key, array in storages.items():
            raw = array if isinstance(array, bytes) else array.tobytes()
            archive.writestr(f"archive/data/{key}", raw)
        archive.writestr("archive/version", "3\n")
    return path


def write_legacy(path, data, storages, *, little=True):
    """`storages`: key to array; written in the order given, each behind its count."""
    order = "<" if little else ">"
    machine = b"}" + text("little_endian") + (b"\x88" if little else b"\x89") + b"s"
    keys = b"](" + b"".join(text(key) for key in storages) + b"e"
    parts = [MAGIC, pickled(number(1001)), pickled(machine), data, pickled(keys)]
    for array in storages.values():
        array = np.asarray(array)
        parts.append(struct.pack(order + "q", array.size))
        parts.append(array.astype(array.dtype.newbyteorder(order)).tobytes())
    path.write_bytes(b"".join(parts))
    return path


def write(path, arrays, kind):
    """A state dict of these arrays in either format."""
    legacy = kind == "legacy"
    keys = {key: str(i) for i, key in enumerate(arrays)}
    data = pickled(ordered({k: whole(keys[k], a, legacy=legacy) for k, a in arrays.items()}))
    storages = {keys[k]: a for k, a in arrays.items()}
    return (write_legacy if legacy else write_zip)(path, data, storages)
