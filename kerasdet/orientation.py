"""Which way up a photo is: the orientation in its EXIF, read and followed in Python and in graphs.

A camera stores its sensor's rows as they are and writes beside them how the photo was held. Orientation
1 is upright; 2, 3 and 4 are mirrored or upside down; 5 to 8 lie on their side (EXIF 2.3, sec. 4.6.4 A,
tag 0x0112, SHORT, count 1; the eight cases are TIFF 6.0's, sec. 8). Python and graphs read the same
bytes by the same rule, so that a photo lies alike in both: an orientation in XMP alone, or of another
type, is none. Whatever is damaged is none either, and never an error.
"""

import os
from typing import Any, Literal

import numpy as np

_EXIF = b"Exif\0\0"
_ENTRY = 12  # bytes: tag, type, count, and a value, which stands at the left (TIFF 6.0, sec. 2)
_HEADERS: dict[Literal["little", "big"], bytes] = {"little": b"II*\0", "big": b"MM\0*"}
# The tag, SHORT, one of them: the first eight bytes of its entry in an image file directory.
_BEFORE_VALUE = {
    order: (0x0112).to_bytes(2, order) + (3).to_bytes(2, order) + (1).to_bytes(4, order)
    for order in _HEADERS
}

_ON_THEIR_SIDE = 5  # from this one on, rows are columns
# By orientation: the order of the axes (rows, columns, channels), then whether each is reversed.
_AXES = np.array([(0, 1, 2)] * _ON_THEIR_SIDE + [(1, 0, 2)] * 4)
_REVERSED = np.array([(n in (3, 4, 7, 8), n in (2, 3, 6, 7), False) for n in range(9)])

_MOST_BYTES = 2**16  # of EXIF: more do not go into a segment of a JPEG

PNG = b"\x89PNG\r\n\x1a\n"
"""What every PNG begins with."""


def exif_orientation(exif: bytes) -> int:
    """The orientation that EXIF data states, 1..8; 1 where it states none.

    Args:
        exif: a TIFF header and what follows; the six bytes "Exif", 0, 0 may stand before.
    """
    tiff = exif.removeprefix(_EXIF)
    for order, header in _HEADERS.items():
        if tiff[:4] == header:
            start = int.from_bytes(tiff[4:8], order)
            count = int.from_bytes(tiff[start : start + 2], order)
            entries = tiff[start + 2 : start + 2 + _ENTRY * count]
            place = entries.find(_BEFORE_VALUE[order])
            value = entries[place + 8 : place + 10]
            if place % _ENTRY == 0 and len(value) == 2 and 1 <= int.from_bytes(value, order) <= 8:
                return int.from_bytes(value, order)
    return 1


def turn_of(photo: Any, annotated: tuple[int, int] | None = None) -> int:
    """How a photo is turned to be used: by which orientation, 1..8, 1 for not at all.

    Args:
        photo: a PIL image. Pillow itself turns TIFF when it loads it, so that this is 1.
        annotated: (height, width) that annotations of it state. Where that is the size as stored and
            not the upright one, they were made on the pixels as stored, which then count.
    """
    exif = photo.info.get("exif")
    orientation = exif_orientation(exif) if isinstance(exif, bytes) else 1
    stored = (photo.height, photo.width)
    if orientation >= _ON_THEIR_SIDE and stored == annotated and stored[0] != stored[1]:
        return 1
    return orientation


def turn_of_file(path: str | os.PathLike, annotated: tuple[int, int] | None = None) -> int:
    """`turn_of` of the photo in a file; 1 if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as photo:
            return turn_of(photo, annotated)
    except Exception:  # Pillow's plug-ins raise many kinds; who wants its pixels says so
        return 1


def size_of(photo: Any, annotated: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) of a PIL image once it is turned by `turn_of`."""
    if turn_of(photo, annotated) >= _ON_THEIR_SIDE:
        return photo.width, photo.height
    return photo.height, photo.width


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """The upright image (H, W, ...) of one stored in this orientation."""
    if orientation == 1:
        return image
    sides = image.swapaxes(0, 1) if orientation >= _ON_THEIR_SIDE else image
    return np.ascontiguousarray(np.flip(sides, tuple(np.flatnonzero(_REVERSED[orientation]))))


# ---------------------------------------------------------------------- in TensorFlow's graphs


def upright_in_graph(image: Any, data: Any, is_png: Any, annotated: Any = None) -> Any:
    """An image as it is used: `turned` from the orientation that its file states.

    A JPEG has its EXIF in a segment APP1, first or after others (EXIF 2.3, sec. 4.5.4 and 4.7.2), a PNG
    in a chunk eXIf, which counts where it comes before the pixels.

    Args:
        image: (H, W, 3) tensor of any type, as stored; H and W need not be known.
        data: scalar string, the whole file that it was decoded from, a JPEG or a PNG.
        is_png: bool scalar.
        annotated: int32 (2,), as for `turn_of`; zeros or None where nothing is stated.
    """
    import tensorflow as tf

    # One search, after which most files are done: next to the pixels of a small photo all else counts.
    split = _split(data, tf.where(is_png, b"eXIf", _EXIF))

    def with_exif():
        tiff = tf.strings.substr(split[1], 0, _MOST_BYTES)
        stated = tf.where(_in_place(split[0], is_png), _orientation_of_tiff(tiff), 1)
        turn = stated > 1
        if annotated is not None:
            as_stored = tf.reduce_all(tf.shape(image)[:2] == annotated)
            as_stored &= (stated >= _ON_THEIR_SIDE) & (annotated[0] != annotated[1])
            turn &= ~as_stored
        return tf.cond(turn, lambda: upright(stated), lambda: image)

    def upright(stated):
        sides = tf.transpose(image, tf.gather(_AXES, stated))
        return tf.raw_ops.Reverse(tensor=sides, dims=tf.gather(_REVERSED, stated))

    return tf.cond(tf.size(split) > 1, with_exif, lambda: image)


def _split(data, word):
    """What is before and what after the first such word in a string, (2,), or the string alone, (1,)."""
    import tensorflow as tf

    return tf.raw_ops.StringSplitV2(input=data[None], sep=word, maxsplit=1).values


def _in_place(before, is_png):
    """Whether a file's EXIF is its own, by all that stands before its word.

    In a JPEG that is a marker 0xFFE1 and a length (ITU T.81, sec. B.1.1). Behind its pixels others may
    follow, a second view for one. Their EXIF comes first in them, after 0xFFD8.
    """
    import tensorflow as tf

    ahead = tf.strings.substr(tf.strings.join([b"\0" * 6, before]), -6, 4)
    of_another = tf.equal(ahead, b"\xff\xd8\xff\xe1") & (tf.strings.length(before) > 6)
    in_jpeg = tf.equal(tf.strings.substr(ahead, 2, 2), b"\xff\xe1") & ~of_another
    return tf.where(is_png, tf.size(_split(before, b"IDAT")) < 2, in_jpeg)


def _orientation_of_tiff(tiff):
    """As `exif_orientation`, of a scalar string from the TIFF header on; the file may go on behind."""
    import tensorflow as tf

    def number(data, place, dtype):
        raw = tf.strings.substr(data, place, dtype.size)
        values = (tf.io.decode_raw(raw, dtype, little_endian=order) for order in (True, False))
        return tf.cast(tf.where(little, *values)[0], tf.int32)

    # A number in the file says where to look, never how much to hold; past the end no byte is right.
    end = tf.strings.length(tiff)
    tiff = tf.strings.join([tiff, b"\xff" * 8])
    header = tf.strings.substr(tiff, 0, 4)
    little, big = (tf.equal(header, wanted) for wanted in _HEADERS.values())
    start = number(tiff, 4, tf.int32)
    start = tf.where((start >= 0) & (start < end), start, end)
    entries = tf.strings.substr(tiff, start + 2, _ENTRY * number(tiff, start, tf.uint16))
    parts = _split(entries, tf.where(little, *_BEFORE_VALUE.values()))
    aligned = tf.strings.length(parts[0]) % _ENTRY == 0
    value = number(tf.strings.join([parts[-1], b"\xff" * 2]), 0, tf.uint16)
    found = (little | big) & (tf.size(parts) > 1) & aligned & (value >= 1) & (value <= 8)
    return tf.where(found, value, 1)
