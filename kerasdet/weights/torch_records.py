"""The pickled part of a torch file, read as plain data.

A pickle is a program, and Python's unpickler runs it. Here it is only looked through: the
standard library's `pickletools.genops` splits it into operations, and a small machine with
no way to call anything keeps what they build: numbers, strings, lists, dicts and the
records of tensors. A name that is not a known part of a tensor file is an error that says
the name, so that a hostile file ends in one sentence before anything of it could run.
"""

import io
import pickletools
import struct
from typing import Any, NamedTuple

from kerasdet.errors import InputError

# A pickle names its tensors and holds a training log at most; these limits are some hundred
# times what SSD's files have and keep a hostile one from filling the memory.
MAX_PICKLE_BYTES = 64 * 2**20
_MAX_OPERATIONS = 2_000_000

# torch's storage classes and NumPy's dtypes; bfloat16 has none, and is read as its 16 bits.
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}

# What training programs keep beside their tensors (mmdetection's `meta`, mmengine's message
# hub, optimizer states). Each becomes an `Inert`: nothing is imported, called or looked up.
# getattr is how a pickle says "method of HistoryBuffer".
_INERT = frozenset(
    """
    torch.device torch.Generator
    torch.float64 torch.float32 torch.float16 torch.bfloat16
    torch.int64 torch.int32 torch.int16 torch.int8 torch.uint8 torch.bool
    _codecs.encode builtins.getattr __builtin__.getattr
    builtins.set __builtin__.set builtins.frozenset __builtin__.frozenset
    builtins.list __builtin__.list builtins.dict __builtin__.dict
    builtins.bytearray __builtin__.bytearray builtins.slice builtins.complex
    collections.defaultdict collections.Counter collections.deque
    datetime.datetime datetime.date datetime.time datetime.timedelta
    argparse.Namespace pathlib.Path pathlib.PosixPath pathlib.PurePosixPath pathlib.WindowsPath
    numpy.ndarray numpy.dtype
    numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct
    numpy.core.multiarray.scalar numpy._core.multiarray.scalar
    numpy.dtypes.Float64DType numpy.dtypes.Float32DType numpy.dtypes.Int64DType
    mmengine.logging.history_buffer.HistoryBuffer
    mmengine.config.config.ConfigDict mmcv.utils.config.ConfigDict
    """.split()  # noqa: SIM905
)


class Storage(NamedTuple):
    """A run of numbers that tensors are windows into.

    Attributes:
        key: its name in the file.
        dtype: a NumPy type code, or "bfloat16".
        numbers: how many it has.
        view: (key, first number, count) where it is a window into another storage.
    """

    key: str
    dtype: str
    numbers: int
    view: tuple[str, int, int] | None


class Tensor(NamedTuple):
    """Where a tensor's numbers lie: first number, shape and strides, in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Inert(NamedTuple):
    """Stands for an object that is not part of the weights; only its name is kept."""

    name: str


class _Known(NamedTuple):
    """A name that means something in a tensor file; the machine, not the file, acts on it."""

    name: str


class _Refused(Exception):
    """What is wrong with the pickle, without the file's name."""


class Pickled(NamedTuple):
    """What a pickle holds.

    Attributes:
        value: its object, with `Storage`, `Tensor` and `Inert` for torch's and others'.
        length: the bytes it took.
        storages: every storage it names, by key.
    """

    value: Any
    length: int
    storages: dict[str, Storage]


def read_pickle(data: bytes, where: str) -> Pickled:
    """Reads one pickle as data.

    Args:
        data: bytes that begin with the pickle; more may follow.
        where: the file, for the error's sentence.

    Raises:
        InputError: if it is damaged, ends early, or names anything but tensors.
    """
    machine = _Machine()
    stream = io.BytesIO(data[:MAX_PICKLE_BYTES])
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= _MAX_OPERATIONS:
                raise _Refused(f"has more than {_MAX_OPERATIONS:,} pickle operations")
            machine.step(operation.name, argument)
        return Pickled(machine.result(), stream.tell(), machine.storages)
    except _Refused as refused:
        raise InputError(f"{where} {refused}.") from None
    # Each of these is the machine or genops meeting bytes that no torch program wrote.
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        if stream.tell() >= len(data):
            raise InputError(
                f"{where} is cut short: it ends inside its list of tensors; get it again."
            ) from None
        raise InputError(
            f"{where} is a damaged torch file: its list of tensors stops making sense at byte "
            f"{stream.tell():,} ({error})."
        ) from None


class _Machine:
    """Builds plain values from pickle operations; it has no operation that calls code."""

    def __init__(self):
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._result: list[Any] = []
        self.storages: dict[str, Storage] = {}

    def step(self, name, argument):
        if name in _PUSH_ARGUMENT:
            self._stack.append(argument)
        elif name in _PUSH:
            self._stack.append(_PUSH[name]())
        elif name in _NOTHING:
            pass
        else:
            method = getattr(self, f"_{name.lower()}", None) if name in _METHODS else None
            if method is None:
                raise _Refused(f"uses the pickle operation {name}, which no tensor file needs")
            method(argument)

    def result(self):
        (value,) = self._result
        return value

    def _mark(self, _):
        self._marks.append(len(self._stack))

    def _to_mark(self):
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _stop(self, _):
        self._result.append(self._stack.pop())

    def _pop(self, _):
        self._stack.pop()

    def _pop_mark(self, _):
        self._to_mark()

    def _dup(self, _):
        self._stack.append(self._stack[-1])

    def _get(self, index):
        self._stack.append(self._memo[int(index)])

    _binget = _long_binget = _get

    def _put(self, index):
        self._memo[int(index)] = self._stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _):
        self._memo[len(self._memo)] = self._stack[-1]

    def _tuple(self, _):
        self._stack.append(tuple(self._to_mark()))

    def _take(self, count):
        if count > len(self._stack):
            raise IndexError("a value is missing")
        values = tuple(self._stack[-count:])
        del self._stack[-count:]
        return values

    def _tuple1(self, _):
        self._stack.append(self._take(1))

    def _tuple2(self, _):
        self._stack.append(self._take(2))

    def _tuple3(self, _):
        self._stack.append(self._take(3))

    def _list(self, _):
        self._stack.append(self._to_mark())

    _frozenset = _list  # a set's members would have to be hashed; nothing here needs one

    def _append(self, _):
        (value,) = self._take(1)
        self._extend([value])

    def _appends(self, _):
        self._extend(self._to_mark())

    _additems = _appends

    def _extend(self, values):
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Inert):
            raise TypeError("an item for what is no list")

    def _dict(self, _):
        values = self._to_mark()
        self._stack.append({})
        self._update(values)

    def _setitem(self, _):
        self._update(self._take(2))

    def _setitems(self, _):
        self._update(self._to_mark())

    def _update(self, values):
        target = self._stack[-1]
        if isinstance(target, Inert):
            return
        if not isinstance(target, dict):
            raise TypeError("an item for what is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    def _global(self, argument):
        module, _, name = argument.partition(" ")
        self._stack.append(_resolve(f"{module}.{name}"))

    def _stack_global(self, _):
        module, name = self._take(2)
        self._stack.append(_resolve(f"{module}.{name}"))

    def _reduce(self, _):
        function, arguments = self._take(2)
        self._stack.append(_built(function, arguments))

    def _newobj(self, _):
        self._reduce(None)

    def _newobj_ex(self, _):
        function, arguments, _keywords = self._take(3)
        self._stack.append(_built(function, arguments))

    def _build(self, _):
        self._take(1)  # attributes, such as a state dict's `_metadata`: no weights in them

    def _binpersid(self, _):
        (identity,) = self._take(1)
        storage = _storage(identity)
        self.storages.setdefault(storage.key, storage)
        self._stack.append(storage)


_PUSH_ARGUMENT = frozenset(
    """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    """.split()  # noqa: SIM905
)
_PUSH = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_NOTHING = frozenset(["PROTO", "FRAME"])
_METHODS = frozenset(
    """
    MARK STOP POP POP_MARK DUP GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    TUPLE TUPLE1 TUPLE2 TUPLE3 LIST FROZENSET APPEND APPENDS ADDITEMS DICT SETITEM SETITEMS
    GLOBAL STACK_GLOBAL REDUCE NEWOBJ NEWOBJ_EX BUILD BINPERSID
    """.split()  # noqa: SIM905
)


def _resolve(name):
    if name in _BUILDERS or name.removeprefix("torch.cuda.") in _STORAGES:
        return _Known(name)
    if name.startswith("torch.") and name.rpartition(".")[2] in _STORAGES:
        return _Known(name)
    if name in _INERT:
        return Inert(name)
    if name.startswith("torch.nn.") or name.startswith("torchvision.models."):
        raise _Refused(
            f"holds a whole pickled model (it names {name}), which only its own program can "
            "rebuild; wanted the weights alone, as torch.save(model.state_dict(), path) writes"
        )
    raise _Refused(
        f"wants to run {name!r}, which is no part of a weight file; nothing was run, and the "
        "file should not be trusted"
    )


def _built(function, arguments):
    if isinstance(function, Inert):
        return function
    if not isinstance(function, _Known) or function.name not in _BUILDERS:
        raise TypeError("a call of what is no function")
    return _BUILDERS[function.name](*arguments)


def _key(key):
    # Hashing nested tuples can take for ever; no torch program makes such keys.
    if not isinstance(key, str | int | float | bytes | None):
        raise TypeError(f"a dict key that is a {type(key).__name__}")
    return key


def _ordered_dict(items=()):
    # Python 2 wrote the items as an argument, Python 3 sets them afterwards.
    return {_key(key): value for key, value in items}


def _tensor(storage, offset, shape, strides, *_requires_grad_and_hooks):
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without storage")
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and type(offset) is int):
        raise TypeError("a tensor without shape, strides or offset")
    if len(shape) != len(strides) or any(type(n) is not int for n in shape + strides):
        raise TypeError("a shape or stride that is no whole number")
    return Tensor(storage, offset, shape, strides)


def _parameter(data, *_requires_grad_and_hooks):
    return data


def _size(sides=()):
    return tuple(sides)


_BUILDERS = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
}


def _storage(identity):
    """A storage from its persistent id: ("storage", class, key, device, count[, view])."""
    if not isinstance(identity, tuple) or not identity:
        raise TypeError("an unknown kind of record")
    if identity[0] == "module":
        raise _Refused("holds a whole pickled model with its program; wanted a state dict")
    kind, storage_class, key, _device, count, *view = identity
    if kind != "storage" or not isinstance(storage_class, _Known):
        raise TypeError("an unknown kind of record")
    dtype = _STORAGES[storage_class.name.rpartition(".")[2]]
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise TypeError("a storage without key or count")
    window = view[0] if view else None
    if window is not None:
        view_key, first, view_count = window
        if not isinstance(view_key, str) or type(first) is not int or type(view_count) is not int:
            raise TypeError("a view without key, first number or count")
        window = (view_key, first, view_count)
    return Storage(key, dtype, count, window)
