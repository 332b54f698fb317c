"""The images below a folder, listed once, so that no file has to be looked for by itself."""

import os
from pathlib import Path

from kerasdet.data.decoding import SUFFIXES


class ImageFolder:
    """Every image file below a folder, by its path relative to it.

    Attributes:
        folder: the folder.
        paths: relative path with forward slashes to path, sorted.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths: dict[str, Path] = {}
        for parent, _, files in os.walk(folder, followlinks=False):
            for file in files:
                if os.path.splitext(file)[1].lower() in SUFFIXES:
                    path = Path(parent, file)
                    self.paths[path.relative_to(folder).as_posix()] = path
        self.paths = dict(sorted(self.paths.items()))
        self._by_name: dict[str, Path | None] = {}
        for path in self.paths.values():
            # A name that several subfolders share does not tell which is meant.
            self._by_name[path.name] = None if path.name in self._by_name else path

    def find(self, name: str) -> Path | None:
        """The image that a file calls by this name; never one outside the folder.

        Tools write the path relative to the folder, or to another one, or an absolute path of the
        machine they ran on; where the path is of no use, its last part has to be unique.
        """
        name = name.replace("\\", "/")
        return self.paths.get(name.removeprefix("./")) or self._by_name.get(name.split("/")[-1])
