"""Photos whose EXIF says how they were held, byte by byte."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

HEADERS = {"little": b"II*\0", "big": b"MM\0*"}
SHORT = 3


def tiff(orientation: int, order="little", *, kind=SHORT, count=1, start=8) -> bytes:
    """EXIF data with a maker's entry before the orientation's and a resolution's behind."""
    entries = [(0x010F, SHORT, 1, 3), (0x0112, kind, count, orientation), (0x011A, SHORT, 1, 6)]
    data = HEADERS[order] + start.to_bytes(4, order) + bytes(start - 8)
    data += len(entries).to_bytes(2, order)
    for entry in entries:
        data += b"".join(
            n.to_bytes(size, order) for n, size in zip(entry, (2, 2, 4, 2), strict=True)
        )
        data += bytes(2)
    return data + bytes(4)  # no directory follows


def jpeg(pixels: np.ndarray, exif: bytes | None = None, *, before=b"\xe0") -> bytes:
    """A JPEG file with this EXIF; `before`: the segments that come ahead of it, by their markers.

    0xE0 is JFIF's own segment, which Pillow writes; any other holds 300 bytes that look like EXIF.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    data = file.getvalue()
    if exif is None:
        return data
    start, jfif, rest = data[:2], data[2:20], data[20:]
    other = (b"\xff\xe1Exif II*\0" * 40)[:300]
    segments = [jfif if marker == 0xE0 else segment(marker, other) for marker in before]
    return start + b"".join(segments) + segment(0xE1, b"Exif\0\0" + exif) + rest


def segment(marker: int, body: bytes) -> bytes:
    """A JPEG's segment; its length counts its own two bytes."""
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def write_photo(path: Path, upright: np.ndarray, orientation: int) -> np.ndarray:
    """Saves a JPEG that shows this picture once it is turned by 3, 6 or 8; gives what it stores."""
    quarters = {3: 2, 6: 1, 8: -1}[orientation]  # counterclockwise
    stored = np.rot90(upright, quarters)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(np.ascontiguousarray(stored), tiff(orientation)))
    return stored
