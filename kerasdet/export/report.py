"""What an export wrote and how it was checked."""

from pathlib import Path
from typing import NamedTuple

from kerasdet.export.check import Difference


class Report(NamedTuple):
    """An export that was written, and where a runtime is here, loaded back and found to agree.

    Attributes:
        path: the file, or the SavedModel's version folder.
        files: size in bytes of each file, by its path relative to `path` (its name for a file).
        difference: how far its detections are from the model's; None of darknet's files, which
            darknet alone runs.
        use: one line on how to use it.
    """

    path: Path
    files: dict[str, int]
    difference: Difference | None
    use: str

    def __str__(self) -> str:
        total = sum(self.files.values())
        lines = [
            f"Written: {self.path} ({len(self.files)} files, {total / 1e6:.1f} MB)",
            *(f"  {name}  {size / 1e6:.2f} MB" for name, size in self.files.items()),
        ]
        if self.difference is not None:
            lines.append(f"Loaded back, differs from the model: {self.difference}.")
        return "\n".join([*lines, self.use])


def sizes_below(path: Path) -> dict[str, int]:
    """Bytes of a file, or of each file below a folder, by name."""
    if path.is_file():
        return {path.name: path.stat().st_size}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
