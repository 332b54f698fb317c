"""What an evaluation reads: examples one by one, and the classes they share with the model."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasdet.classes import about_names, are_generic, common_name, is_unused
from kerasdet.errors import InputError


@dataclass(frozen=True)
class MatchedClasses:
    """The classes an evaluation counts in.

    Attributes:
        names: by label.
        from_model: (model's K,) the label here of each label of the model; -1: not here.
        from_data: (data's K,) likewise of each label of the data.
        left_out: the data's classes that are not here.
    """

    names: list[str]
    from_model: np.ndarray
    from_data: np.ndarray
    left_out: list[str]


def answering(
    model: Any,
    examples: Any,
    *,
    class_names: Sequence[str] | None = None,
    match_names: bool = False,
) -> Any:
    """The model, or of one whose labels are nodes of a WordTree its form for the data's classes.

    With `match_names`, classes that no node or several have the name of are left out: YOLO9000's
    tree has three that are called "car".

    Raises:
        InputError: if a class is left out and `match_names` is not set, or all are.
    """
    names = class_names if class_names is not None else getattr(examples, "class_names", None)
    if names is None or not hasattr(model, "for_classes") or list(names) == model.class_names:
        return model
    if match_names:
        nodes = Counter(model.class_names)
        of_data, names = list(names), [name for name in names if nodes[name] == 1]
        if not names:
            raise InputError(
                f"The model's WordTree has no single node by the name of {_few(of_data)}: say which "
                "node each class is, by for_classes(names, nodes) or --nodes FILE."
            )
    return model.for_classes(list(names))


def matched_classes(
    model: Any,
    examples: Any,
    *,
    class_names: Sequence[str] | None = None,
    match_names: bool = False,
) -> MatchedClasses:
    """Compares the model's class list with the data's; see `evaluate`.

    Raises:
        InputError: if they differ and `match_names` is not set, or share no class; it shows
            both lists.
    """
    of_model = [str(name) for name in model.class_names]
    of_data = class_names if class_names is not None else getattr(examples, "class_names", None)
    of_data = of_model if of_data is None else [str(name) for name in of_data]
    if of_data == of_model or (are_generic(of_model) and len(of_data) == len(of_model)):
        return MatchedClasses(of_data, np.arange(len(of_model)), np.arange(len(of_data)), [])
    ours, theirs = [[common_name(name) for name in names] for names in (of_model, of_data)]
    in_use = [name for name in ours if not is_unused(name)]  # of COCO's 90 ids, 80
    shared = {name: own for name, own in zip(theirs, of_data, strict=True) if name in set(ours)}
    if shared and (match_names or theirs == in_use):
        place = {name: label for label, name in enumerate(shared)}
        from_model, from_data = (
            np.array([place.get(name, -1) for name in names]) for names in (ours, theirs)
        )
        left_out = [own for own, label in zip(of_data, from_data, strict=True) if label < 0]
        return MatchedClasses(list(shared.values()), from_model, from_data, left_out)
    unknown = [own for name, own in zip(theirs, of_data, strict=True) if name not in shared]
    hint = ""
    if unknown:
        hint = f"; the model does not know {_few(unknown)}"
    if about_names(of_model):
        hint += about_names(of_model)
    elif not shared:
        hint += (
            "; they share no name: give class_names= that call the data's labels by the model's "
            "words, or evaluate on data of the model's classes"
        )
    else:
        hint += f"; match_names=True evaluates by name on the {len(shared)} they share"
    raise InputError(
        f"The classes of the data are not the model's{hint}.\n{_side_by_side(of_data, of_model)}"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (" and others" if len(names) > 5 else "")


def numpy_examples(examples: Any) -> Iterator[dict[str, Any]]:
    """Examples as dicts of NumPy arrays.

    Raises:
        InputError: if an element is no single example, such as a batch made for training.
    """
    if hasattr(examples, "as_numpy_iterator"):
        # Reads and decodes the next images while the network looks at these.
        elements: Iterable[Any] = examples.prefetch(8).as_numpy_iterator()
    else:
        elements = examples
    for element in elements:
        if not isinstance(element, Mapping):
            raise InputError(
                "Evaluation wants unbatched examples (dicts with image, boxes and labels, as "
                f"kerasdet.data reads them), not the batches of a training pipeline; a "
                f"{type(element).__name__} came."
            )
        missing = [key for key in ("image", "boxes", "labels") if key not in element]
        if missing:
            raise InputError(
                f"An example wants image, boxes and labels; {' and '.join(missing)} missing, "
                f"{', '.join(element)} came."
            )
        image = np.asarray(element["image"])
        if image.ndim != 3:
            raise InputError(
                "Evaluation wants unbatched examples, each image (H, W, 3); an image of shape "
                f"{image.shape} came."
            )
        yield dict(element)


def known_length(examples: Any) -> int | None:
    """How many there are, images that cannot be read included, if it is known beforehand."""
    if (records := getattr(examples, "records", None)) is not None:
        return len(records)  # tf.data does not know, as a reader leaves broken images out
    if hasattr(examples, "cardinality"):
        count = int(getattr(examples, "size", examples.cardinality()))  # `size`: TFDS, likewise
        return count if count >= 0 else None  # tf.data's -1 is endless, -2 unknown
    return len(examples) if hasattr(examples, "__len__") else None


def text(value: Any) -> str:
    """A string out of what tf.data makes of one: bytes, or an array of them."""
    value = value.item() if isinstance(value, np.ndarray | np.generic) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _side_by_side(of_data: Sequence[str], of_model: Sequence[str]) -> str:
    width = max(len("data"), *(len(name) for name in of_data)) if of_data else len("data")
    lines = [f"{'label':>5}  {'data':<{width}}  model"]
    for label, (one, other) in enumerate(itertools.zip_longest(of_data, of_model, fillvalue="-")):
        mark = "" if one == other else "   <- differs"
        lines.append(f"{label:>5}  {one:<{width}}  {other}{mark}")
    return "\n".join(lines)
