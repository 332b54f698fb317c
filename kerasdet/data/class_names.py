"""The one way in which every reader takes a list of class names."""

import os
from collections.abc import Sequence
from pathlib import Path

from kerasdet.classes import COCO_NAMES, VOC_NAMES
from kerasdet.errors import InputError


def resolve(class_names: Sequence[str] | str | os.PathLike | None) -> list[str] | None:
    """The list that a reader's `class_names` argument means.

    Args:
        class_names: names in label order; or `"voc"` or `"coco"`; or the path of a text file with
            one name a line; or None.

    Raises:
        InputError: for what is none of these, an empty list, a name that comes twice, or a file that is
            not there.
    """
    if class_names is None:
        return None
    if isinstance(class_names, os.PathLike):
        names = _from_file(Path(class_names))
    elif isinstance(class_names, str):
        standard = {"voc": VOC_NAMES, "coco": COCO_NAMES}.get(class_names.lower())
        names = list(standard) if standard else _from_file(Path(class_names))
    elif isinstance(class_names, Sequence):
        names = [str(name) for name in class_names]
    else:
        raise InputError(
            f"class_names must be a list, 'voc', 'coco' or a text file of names, not {class_names!r}"
        )
    if not names:
        file = isinstance(class_names, str | os.PathLike)
        what = f"{class_names} as class_names" if file else "class_names"
        raise InputError(f"{what} is empty; give at least one name")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"class_names holds {twice[0]!r} more than once: tell them apart, or give wnids"
        )
    return names


def _from_file(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"class_names must be a list, 'voc', 'coco' or a text file with a name on each line; "
            f"{str(path)!r} is none of these"
        ) from error
    return [line.strip() for line in lines if line.strip()]
