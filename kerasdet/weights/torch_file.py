"""Reads torch's `.pth` files without torch: tensors in, NumPy arrays out, nothing run.

Two formats: the zip archive that torch writes since 1.6 (a pickle, and one stored member a
storage), and the older one (five pickles, then the storages; the files of 2017 and 2018
are such). `kerasdet.weights.torch_records` reads the pickles as data.

Source: torch/serialization.py, `_save` and `_legacy_save`.
"""

import contextlib
import math
import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasdet.errors import InputError
from kerasdet.weights.torch_records import (
    MAX_PICKLE_BYTES,
    Inert,
    Storage,
    Tensor,
    read_pickle,
)

ZIP_MAGIC = b"PK\x03\x04"
# The first pickle of the older format: protocol 2, the number 0x1950a86a20f9469cfc6c.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PROTOCOL = 1001

# Keys under which training programs keep the state dict, in the order looked for.
_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")

_MAX_DIMENSIONS = 32


class TorchFile(NamedTuple):
    """What a `.pth` file holds.

    Attributes:
        arrays: the state dict, float16 and bfloat16 as float32.
        meta: what the file keeps under "meta" (mmdetection: "CLASSES", "config", ...).
    """

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The state dict of a `.pth` file.

    Args:
        path: a file of `torch.save(model.state_dict(), path)`, or of a training program
            that keeps one under "state_dict" or "model".

    Returns:
        Name to array; float16 and bfloat16 come as float32, "module." in front of every
        name is dropped.

    Raises:
        InputError: if the file is cut short or damaged, holds anything but data, or
            describes tensors that do not lie inside it.
    """
    return read_torch_file(path).arrays


def read_torch_file(path: str | Path) -> TorchFile:
    """As `read_torch`, with what the training program noted beside the weights."""
    path = Path(path)
    with _reading(path), path.open("rb") as file:
        start = file.read(len(LEGACY_MAGIC))
        size = file.seek(0, 2)
        file.seek(0)
        if start.startswith(ZIP_MAGIC):
            source: _Zip | _Legacy = _Zip(file, path, size)
        elif start == LEGACY_MAGIC:
            source = _Legacy(file, path, size)
        elif LEGACY_MAGIC.startswith(start) or ZIP_MAGIC.startswith(start):
            raise InputError(f"{path} ends after {size:,} bytes, inside its first record.")
        else:
            raise InputError(
                f"{path} is not a torch file: it begins with {start[:8]!r}, neither a zip "
                "archive nor torch's older format."
            )
        with contextlib.closing(source):
            records = _state_dict(source.value, path)
            _check_total(records, size, path)
            arrays = _arrays(records, source, path)
    value = source.value if isinstance(source.value, dict) else {}
    meta = value.get("meta")
    return TorchFile(arrays, meta if isinstance(meta, dict) else {})


def _arrays(records, source, path) -> dict[str, np.ndarray]:
    # Storage by storage, so that each is read once and only one is held, however many share it.
    arrays, held, raw = {}, None, b""
    for name in sorted(records, key=lambda name: records[name].storage.key):
        storage = records[name].storage
        if storage.key != held:
            held, raw = storage.key, source.read(storage)
        arrays[name] = _array(records[name], raw, source.byte_order, f"{path}: tensor {name!r}")
    return {name: arrays[name] for name in records}


@contextlib.contextmanager
def _reading(path):
    """Turns what zipfile and the operating system say about a bad file into one sentence."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    # What zipfile raises on damaged archives: its own errors, and those of its parsing.
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        ValueError,
        IndexError,
        KeyError,
        OverflowError,
        struct.error,
    ) as error:
        raise InputError(f"{path} is a damaged torch file: {error}.") from error


def _state_dict(value, path) -> dict[str, Tensor]:
    if isinstance(value, dict):
        inner = [value.get(key) for key in _STATE_DICT_KEYS]
        for candidate in [*inner, value]:
            records = _tensors(candidate)
            if records:
                if all(name.startswith("module.") for name in records):  # nn.DataParallel
                    records = {name[len("module.") :]: t for name, t in records.items()}
                return records
    what = value.name if isinstance(value, Inert) else type(value).__name__
    raise InputError(
        f"{path} holds no state dict (name to tensor) but a {what}; wanted a file of "
        "torch.save(model.state_dict(), path)."
    )


def _tensors(value) -> dict[str, Tensor]:
    if not isinstance(value, dict):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _check_total(records, size, path):
    # A number takes at least a byte, so more numbers than bytes means that the tensors share
    # storages over and over, which is how a small file would ask for a lot of memory.
    for name, tensor in records.items():
        if len(tensor.shape) > _MAX_DIMENSIONS or any(n < 0 for n in tensor.shape):
            raise InputError(f"{path}: tensor {name!r} has the impossible shape {tensor.shape}.")
    total = sum(math.prod(tensor.shape) for tensor in records.values())
    if total > size:
        raise InputError(
            f"{path} describes tensors of {total:,} numbers, more than its {size:,} bytes hold."
        )


def _array(tensor: Tensor, raw, byte_order, what) -> np.ndarray:
    storage, shape = tensor.storage, tensor.shape
    if 0 in shape:
        if math.prod(n for n in shape if n) > 2**40:
            raise InputError(f"{what} has the impossible shape {shape}.")
        return np.zeros(shape, "f4")
    first, count = 0, storage.numbers
    if storage.view is not None:
        _, first, count = storage.view
        if first < 0 or count < 0 or first + count > storage.numbers:
            raise InputError(
                f"{what} wants numbers {first:,} to {first + count:,} of a storage of "
                f"{storage.numbers:,}."
            )
    # Size-1 sides may have any stride; it is never walked.
    strides = tuple(s if n > 1 else 0 for n, s in zip(shape, tensor.strides, strict=True))
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if tensor.offset < 0 or min(strides, default=0) < 0 or last >= count:
        raise InputError(
            f"{what} (shape {shape}, strides {tensor.strides}, first number "
            f"{tensor.offset:,}) does not lie inside its storage of {count:,} numbers."
        )
    if math.prod(shape) > count:
        raise InputError(f"{what} has {math.prod(shape):,} numbers, its storage {count:,}.")
    numbers = _numbers(raw, storage, byte_order, what)[first + tensor.offset :]
    steps = tuple(s * numbers.itemsize for s in strides)
    window = np.lib.stride_tricks.as_strided(numbers, shape, steps, writeable=False)
    return _plain(window, storage.dtype)


def _numbers(raw, storage: Storage, byte_order, what) -> np.ndarray:
    code = "u2" if storage.dtype == "bfloat16" else storage.dtype
    dtype = np.dtype(byte_order + code)
    if len(raw) != storage.numbers * dtype.itemsize:
        raise InputError(
            f"{what} lies in storage {storage.key!r}, which should have {storage.numbers:,} "
            f"numbers of {dtype.itemsize} bytes and has {len(raw):,} bytes."
        )
    return np.frombuffer(raw, dtype)


def _plain(window, dtype) -> np.ndarray:
    """A contiguous copy in this machine's byte order, half precision widened."""
    if dtype == "bfloat16":
        return (window.astype("u4") << 16).view("f4")  # the upper half of a float32
    if dtype == "f2":
        return window.astype("f4")
    return np.array(window, window.dtype.newbyteorder("="), order="C")


def _item_size(storage: Storage) -> int:
    return 2 if storage.dtype == "bfloat16" else np.dtype(storage.dtype).itemsize


class _Zip:
    """The archive of torch 1.6 and later: <name>/data.pkl, <name>/data/<key>, <name>/byteorder."""

    def __init__(self, file, path, size):
        self._path = path
        try:
            self._archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile:
            raise InputError(_why_cut(file, path, size)) from None
        members = self._archive.infolist()
        if any("/code/" in member.filename for member in members):
            raise InputError(
                f"{path} is a TorchScript program, not weights; save the model's weights with "
                "torch.save(model.state_dict(), path)."
            )
        # Overlapping or compressed members are how a small archive unpacks into a large one.
        if any(m.compress_type != zipfile.ZIP_STORED for m in members):
            raise InputError(f"{path} is a compressed archive, which torch never writes.")
        if sum(m.file_size for m in members) > size or any(
            m.file_size != m.compress_size for m in members
        ):
            raise InputError(f"{path} is an archive whose members are larger than the file.")
        self._members = {member.filename: member for member in members}
        self._folder = self._find_folder()
        self.byte_order = "<"
        if f"{self._folder}byteorder" in self._members:
            order = self._read_member("byteorder", 16)
            self.byte_order = {b"little": "<", b"big": ">"}[order]
        self.value = read_pickle(self._read_member("data.pkl", MAX_PICKLE_BYTES), str(path)).value

    def _find_folder(self):
        found = [name for name in self._members if name.rpartition("/")[2] == "data.pkl"]
        if len(found) != 1:
            raise InputError(f"{self._path} is a zip archive without torch's data.pkl.")
        return found[0][: -len("data.pkl")]

    def _read_member(self, name, limit):
        member = self._members[f"{self._folder}{name}"]
        if member.file_size > limit:
            raise InputError(
                f"{self._path}: its {name} has {member.file_size:,} bytes, more than {limit:,}."
            )
        return self._archive.read(member)

    def read(self, storage: Storage) -> bytes:
        name = f"{self._folder}data/{storage.key}"
        if name not in self._members:
            raise InputError(f"{self._path} has no storage {storage.key!r}, which a tensor needs.")
        return self._archive.read(self._members[name])

    def close(self):
        self._archive.close()


def _why_cut(file, path, size) -> str:
    """The sentence for an archive without an index at its end.

    The pickle comes first in the file, so that what should follow can be counted.
    """
    file.seek(0)
    header = file.read(30)
    expected = 0
    with contextlib.suppress(InputError, struct.error):
        name_length, extra_length = struct.unpack_from("<HH", header, 26)
        name = file.read(name_length)
        file.seek(extra_length, 1)
        if name.endswith(b"data.pkl"):
            storages = read_pickle(file.read(min(size, MAX_PICKLE_BYTES)), str(path)).storages
            expected = sum(s.numbers * _item_size(s) for s in storages.values())
    if expected > size:
        return (
            f"{path} is cut short: its tensors take {expected:,} bytes and the whole file has "
            f"{size:,}; get it again."
        )
    return f"{path} is cut short or damaged: no archive index in its {size:,} bytes; get it again."


class _Legacy:
    """The format before 1.6: magic, protocol, machine, object, storage keys, storages."""

    def __init__(self, file, path, size):
        self._path = path
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._read_all(size)
        except BaseException:
            self.close()
            raise

    def _read_all(self, size):
        position = len(LEGACY_MAGIC)
        pickles = []
        for _ in range(4):  # protocol, machine, object, keys
            window = self._map[position : position + MAX_PICKLE_BYTES]
            pickles.append(read_pickle(window, str(self._path)))
            position += pickles[-1].length
        protocol, machine, content, keys = pickles
        if protocol.value != _LEGACY_PROTOCOL:
            raise InputError(f"{self._path} has torch's unknown protocol {protocol.value!r}.")
        little = not isinstance(machine.value, dict) or machine.value.get("little_endian", True)
        self.byte_order = "<" if little else ">"
        self.value = content.value
        if not isinstance(keys.value, list):
            raise InputError(f"{self._path} is damaged: its list of storages is none.")
        self._find_storages(keys.value, content.storages, position, size)

    def _find_storages(self, keys, storages, position, size):
        """Where each storage's bytes lie: an int64 count, then the numbers, key after key."""
        for key in keys:
            if not isinstance(key, str) or key not in storages:
                raise InputError(f"{self._path} is damaged: no tensor uses its storage {key!r}.")
        rest = sum(8 + storages[key].numbers * _item_size(storages[key]) for key in keys)
        if position + rest > size:
            raise InputError(
                f"{self._path} is cut short: it should have {position + rest:,} bytes and has "
                f"{size:,}; get it again."
            )
        self._spans = {}
        for key in keys:
            (count,) = struct.unpack_from(self.byte_order + "q", self._map, position)
            if count != storages[key].numbers:
                raise InputError(
                    f"{self._path}: storage {key!r} should have {storages[key].numbers:,} numbers "
                    f"and says it has {count:,}."
                )
            length = count * _item_size(storages[key])
            self._spans[key] = (position + 8, length)
            position += 8 + length

    def read(self, storage: Storage) -> bytes:
        if storage.key not in self._spans:
            raise InputError(f"{self._path} has no storage {storage.key!r}, which a tensor needs.")
        start, length = self._spans[storage.key]
        return self._map[start : start + length]

    def close(self):
        self._map.close()
