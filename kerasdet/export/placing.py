"""Files and folders that appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kerasdet.errors import InputError


@contextlib.contextmanager
def new_folder(base: Path, name: str) -> Iterator[Path]:
    """A folder that becomes base/name, replacing what is there, when the block ends well.

    Otherwise nothing is left of it, nor of parents made for it. A server that watches `base`
    looks at numbers only, so it never sees the work in progress.

    Raises:
        InputError: if nothing can be written there.
    """
    with _hidden_beside(base) as hidden:
        (hidden / name).mkdir()
        yield hidden / name
        if (base / name).exists():
            (base / name).rename(hidden / "replaced")
        os.replace(hidden / name, base / name)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file that becomes `path`, as `new_folder`; its name is the same while it is written."""
    with _hidden_beside(path.parent) as hidden:
        yield hidden / path.name
        os.replace(hidden / path.name, path)


@contextlib.contextmanager
def new_files(folder: Path) -> Iterator[Path]:
    """A folder whose files come to stand in `folder` together, as `new_folder`."""
    with _hidden_beside(folder) as hidden:
        yield hidden
        for file in sorted(hidden.iterdir()):
            os.replace(file, folder / file.name)


@contextlib.contextmanager
def _hidden_beside(folder):
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    except OSError as error:
        raise InputError(f"Cannot write in {folder}: {error.strerror}.") from error
    try:
        yield hidden
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody put something there meanwhile
            for parent in made:
                parent.rmdir()
        raise
    shutil.rmtree(hidden, ignore_errors=True)
