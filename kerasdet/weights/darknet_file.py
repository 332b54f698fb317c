"""Reads and writes darknet's `.weights`: a short header, then floats without names or shapes.

| header           | fields                                               | written                 |
| ---------------- | ---------------------------------------------------- | ----------------------- |
| 0.2 and later    | int32 major, minor, revision; uint64 images seen     | since 2016-09           |
| 0.1              | int32 major, minor, revision; int32 images seen      | 2015-12 to 2016-09      |
| without version  | float learning rate, momentum, decay; int32 seen     | before 2015-12          |

All of it is little-endian. A reader that takes the oldest header for a version finds a
number over 1000, by which darknet knows that connected layers' matrices are transposed.

Sources: darknet src/parser.c, save_weights_upto and load_weights_upto, at HEAD (f6afaabc) and
before and after db0397cf (2015-12-14), which began the versions.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerasdet.errors import InputError

# What `write_darknet` writes, as darknet does at HEAD.
_VERSION = (0, 2, 0)

# major and minor that were ever written; AlexeyAB's fork writes 0.2.5.
_MINORS = (1, 2)
_MOST_REVISION = 9

_LONGEST_HEADER = 20


class Header(NamedTuple):
    """The first bytes of a file.

    Attributes:
        version: (major, minor, revision); (0, 0, 0) for files from before there were versions.
        seen: images that the network was trained on.
        transposed: whether connected layers' matrices are (in, out), not (out, in).
        size: bytes of the header.
    """

    version: tuple[int, int, int]
    seen: int
    transposed: bool
    size: int


class DarknetFile(NamedTuple):
    """A file's content.

    Attributes:
        version: as in `Header`.
        seen: as in `Header`.
        transposed: as in `Header`.
        numbers: (n,) float32, all that follows the header; read from the disk when used.
    """

    version: tuple[int, int, int]
    seen: int
    transposed: bool
    numbers: np.ndarray


def parse_header(start: bytes) -> Header | None:
    """The header that a file's first bytes are, or None if they are none of darknet's.

    Args:
        start: the file's first 20 bytes, or all where it has fewer.
    """
    if len(start) < 16:
        return None
    major, minor, revision, seen = struct.unpack_from("<4i", start)
    if major == 0 and minor in _MINORS and 0 <= revision <= _MOST_REVISION:
        version = (major, minor, revision)
        if minor == 1:
            return Header(version, seen, False, 16) if seen >= 0 else None
        if len(start) < _LONGEST_HEADER:
            return None
        return Header(version, struct.unpack_from("<Q", start, 12)[0], False, _LONGEST_HEADER)
    # Any file has some floats here. Every cfg of that time has a momentum of 0.9.
    rate, momentum, decay = struct.unpack_from("<3f", start)
    usual = 1e-8 <= rate <= 1 and momentum == np.float32(0.9) and 0 <= decay <= 0.1
    return Header((0, 0, 0), seen, True, 16) if usual and seen >= 0 else None


def read_darknet(path: str | Path) -> DarknetFile:
    """Opens a `.weights` file; its numbers stay on the disk until they are used.

    Raises:
        InputError: if the file is not there, has another header, or ends inside a number.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_LONGEST_HEADER)
    except OSError as error:
        raise InputError(f"Cannot read weight file {path}: {error.strerror or error}.") from error
    header = parse_header(start)
    if header is None:
        raise InputError(
            f"{path} is no darknet weight file: wanted a version 0.1 or 0.2 in its first bytes, "
            f"and it begins with {start[:12]!r}."
        )
    count, rest = divmod(size - header.size, 4)
    if rest:
        raise InputError(
            f"{path} is cut or damaged: the {size - header.size:,} bytes behind its header of "
            f"{header.size} are no whole number of 4-byte floats."
        )
    numbers = np.empty(0, "<f4")
    if count:  # an empty map is an error
        numbers = np.memmap(path, "<f4", "r", offset=header.size, shape=(count,))
    return DarknetFile(header.version, header.seen, header.transposed, numbers)


def write_darknet(path: str | Path, arrays: Iterable[np.ndarray], *, seen=0) -> None:
    """Writes a file with header 0.2.0, which darknet at HEAD reads and writes.

    A file of that name is replaced only when the new one is whole.

    Args:
        path: of the file.
        arrays: in the order of the file; their own shapes do not matter.
        seen: images that the network was trained on.

    Raises:
        InputError: if the file cannot be written.
    """
    path = Path(path)
    half = path.with_name(f"{path.name}.part")
    try:
        with half.open("wb") as file:
            file.write(struct.pack("<3iQ", *_VERSION, seen))
            for array in arrays:
                file.write(np.ascontiguousarray(array, "<f4").data)
        os.replace(half, path)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise InputError(f"Cannot write weight file {path}: {error.strerror or error}.") from error
