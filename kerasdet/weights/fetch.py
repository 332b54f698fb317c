"""Downloads published weight files into Keras' cache, and checks what came."""

import hashlib
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras

from kerasdet.errors import InputError

# Where Keras keeps a download: <cache>/models/kerasdet/.
_SUBFOLDER = "models/kerasdet"

# Limits on an archive from the network; SSD's have ten members of 100 MB in all.
_MAX_MEMBERS = 1_000
_MAX_UNPACKED = 2 * 2**30

# Hashes that publishers print; the older two tell a damaged file, not a forged one.
_TITLES = {"sha256": "SHA-256", "sha1": "SHA-1", "md5": "MD5"}


class Source(NamedTuple):
    """Where a weight file is published.

    Attributes:
        file: its name.
        url: its address; None where only a page in a browser gives it.
        page: the page that publishes it.
        licence: the licence of the repository it comes from.
        size: bytes, or None where not published.
        sha256: the hash, or its published first digits; None where none is published.
        sha1: as `sha256`, where only this is published.
        md5: as `sha256`, where only this is published.
        member: the weight file's name inside, where `file` is a tar archive.
        argument: what a path of one's own is given as.
    """

    file: str
    url: str | None
    page: str
    licence: str
    size: int | None = None
    sha256: str | None = None
    sha1: str | None = None
    md5: str | None = None
    member: str | None = None
    argument: str = "pretrained"


def cache_folder() -> Path:
    """Where downloads are kept: in Keras' folder, which the variable KERAS_HOME moves."""
    return _keras_home() / _SUBFOLDER


def _keras_home() -> Path:
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()


def fetch(source: Source, *, echo: Callable[[str], object] = print) -> Path:
    """The file on this machine, downloaded if it is not there yet.

    Args:
        source: which file.
        echo: told the licence before a download.

    Returns:
        Path of the weight file, checked against every published figure.

    Raises:
        InputError: without a network, an address or the right bytes; the sentence says
            which file to get, from where, with which size and hash, and where to put it.
    """
    weights = cache_folder() / (source.member or source.file)
    if source.member and weights.is_file():
        return weights
    file = cache_folder() / source.file
    if not file.is_file():
        if source.url is None:
            raise InputError(f"{source.file} has no direct address; {_by_hand(source)}")
        echo(f"Downloading {source.file} from {source.url}; licence: {source.licence}.")
        try:
            _keras_home().mkdir(parents=True, exist_ok=True)  # else get_file takes /tmp
            kept = {"cache_dir": str(_keras_home()), "cache_subdir": _SUBFOLDER}
            file = Path(keras.utils.get_file(source.file, source.url, **kept))
        except Exception as error:  # get_file raises plain Exception when the network fails
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(
                f"Cannot download {source.file} ({reason}); {_by_hand(source)}"
            ) from error
    _check(file, source)
    return _unpack(file, source.member, weights) if source.member else file


def _digests(source: Source) -> dict[str, str]:
    digests = {name: getattr(source, name) for name in _TITLES}
    return {name: digest for name, digest in digests.items() if digest}


def _by_hand(source: Source) -> str:
    facts = []
    if source.size:
        facts.append(f"{source.size:,} bytes")
    for name, digest in _digests(source).items():
        whole = len(digest) == hashlib.new(name).digest_size * 2
        facts.append(f"{_TITLES[name]} {'' if whole else 'beginning '}{digest}")
    about = f" ({', '.join(facts)})" if facts else ""
    option = "weights" if source.argument == "pretrained" else source.argument
    return (
        f"get it from {source.url or source.page}{about} and put it at "
        f"{cache_folder() / source.file}, or give its path as {source.argument}=, in the shell "
        f"--{option}."
    )


def _check(file: Path, source: Source):
    size = file.stat().st_size
    if source.size is not None and size != source.size:
        file.unlink()
        raise InputError(
            f"{source.file} should have {source.size:,} bytes and came with {size:,}, and was "
            f"removed; {_by_hand(source)}"
        )
    for name, digest in _digests(source).items():
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, name).hexdigest()
        if not found.startswith(digest):
            file.unlink()
            raise InputError(
                f"{source.file} came with {_TITLES[name]} {found}, and was removed; "
                f"{_by_hand(source)}"
            )


def _unpack(archive: Path, member: str, to: Path) -> Path:
    """Writes the one member whose file name is `member`; no path in the archive is used."""
    part = to.with_name(f"{to.name}.part")
    unpacked = 0
    try:
        with tarfile.open(archive) as tar:
            for number, info in enumerate(tar):
                unpacked += info.size
                if number >= _MAX_MEMBERS or unpacked > _MAX_UNPACKED:
                    raise InputError(f"{archive} unpacks to more than any weight archive.")
                if info.isreg() and info.name.rpartition("/")[2] == member:
                    reader = tar.extractfile(info)
                    assert reader is not None  # a regular file has one
                    with reader, part.open("wb") as writer:
                        while block := reader.read(2**20):
                            writer.write(block)
                    return part.replace(to)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        part.unlink(missing_ok=True)
        raise InputError(f"{archive} is a damaged archive: {error}; remove it.") from error
    raise InputError(f"{archive} has no member {member}.")
