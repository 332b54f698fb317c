"""ILSVRC's localisation error: five guesses of a class and a box for what an image shows.

A guess is right if its class is the image's and its box overlaps any object of that class with an
IoU of 0.5 or more. An image with no right guess is an error.

Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, arXiv:1409.0575, sec.
    4.2 (single-object localization). Boxes have continuous edges, without the `+ 1` of its kit.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from kerasdet.errors import InputError
from kerasdet.evaluation.average_precision import pairwise_iou
from kerasdet.evaluation.evaluation import progress_bar
from kerasdet.evaluation.image_result import Found, Truth, found_from, truth_from
from kerasdet.evaluation.inputs import known_length, matched_classes, numpy_examples, text


class LocalizationError(NamedTuple):
    """Which images were wrong.

    Attributes:
        wrong: (N,) bool, no guess of the right class has the right box.
        wrong_class: (N,) bool, no guess has the right class.
    """

    wrong: np.ndarray
    wrong_class: np.ndarray


@dataclass(frozen=True)
class Localization:
    """What an evaluation found.

    Attributes:
        error: share of images without a right guess, 0..1.
        class_error: share of images without a guess of the right class, whatever its box.
        images: how many were looked at.
        without_objects: how many were left out, as they show nothing.
        top: guesses for each image.
        iou_threshold: at which a box is right.
        data: name of the data set, "" if it has none.
        seconds: the whole run.
    """

    error: float
    class_error: float
    images: int
    without_objects: int
    top: int
    iou_threshold: float
    data: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Its attributes, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"Localisation error {100 * self.error:.1f}% of {self.images} images with {self.top} "
            f"guesses each; class error {100 * self.class_error:.1f}%, {self.seconds:.1f} s"
        )


def localization_error(
    guesses: Sequence[Found],
    truth: Sequence[Truth],
    *,
    top: int = 5,
    iou_threshold: float = 0.5,
) -> LocalizationError:
    """Judges the guesses of all images at once.

    Args:
        guesses: one an image, the surest first; of each the first `top` count.
        truth: the objects, one an image in the same order; those of an image are of one class.
        top: guesses that count.
        iou_threshold: IoU at which a box is right.

    Raises:
        InputError: if the objects of an image are of several classes, or there are none.
    """
    count = len(truth)
    classes = np.array([_class_of(objects, image) for image, objects in enumerate(truth)])
    most = max((len(objects.labels) for objects in truth), default=0)
    boxes, labels = np.zeros((count, top, 4)), np.full((count, top), -1)
    objects = np.zeros((count, most, 4))  # a row without area overlaps nothing
    for image, (guess, there) in enumerate(zip(guesses, truth, strict=True)):
        own = guess.labels[:top]
        boxes[image, : len(own)], labels[image, : len(own)] = guess.boxes[:top], own
        objects[image, : len(there.labels)] = there.boxes
    right_class = labels == classes[:, None]  # (N, top)
    overlap = pairwise_iou(boxes[:, :, None], objects[:, None]).max(axis=2, initial=0.0)
    right = right_class & (overlap >= iou_threshold)
    return LocalizationError(~right.any(axis=1), ~right_class.any(axis=1))


def evaluate_localization(
    model: Any,
    examples: Any,
    *,
    top: int = 5,
    iou_threshold: float = 0.5,
    batch_size: int = 8,
    max_images: int | None = None,
    class_names: Sequence[str] | None = None,
    progress: bool = True,
    **settings: Any,
) -> Localization:
    """Localises in every example and judges the guesses.

    Args:
        model: anything with `localise` and `class_names`, as `kerasdet.OverFeat`.
        examples: unbatched examples, as for `evaluate`, whose objects are of one class in each
            image; images without objects are left out.
        top: guesses for each image.
        iou_threshold: IoU at which a box is right.
        batch_size: images handed to `model.localise` at once.
        max_images: stop after so many. None: all.
        class_names: of the examples' labels, as for `evaluate`.
        progress: show a bar.
        **settings: what `model.localise` takes besides, such as `scales`.

    Raises:
        InputError: if the class lists differ, an image shows several classes, or none shows any.
    """
    began = time.perf_counter()
    matched = matched_classes(model, examples, class_names=class_names)
    total = known_length(examples)
    if max_images is not None:
        total = max_images if total is None else min(total, max_images)
    elements = itertools.islice(numpy_examples(examples), max_images)
    guesses: list[Found] = []
    truth: list[Truth] = []
    empty = 0
    with progress_bar(progress, total) as advance:
        while group := list(itertools.islice(elements, max(1, batch_size))):
            advance(len(group))
            where = [_name(example, len(guesses) + i) for i, example in enumerate(group)]
            objects = [
                truth_from(example, num_classes=len(matched.from_data), where=name)
                for example, name in zip(group, where, strict=True)
            ]
            shown = [i for i, one in enumerate(objects) if len(one.labels)]
            empty += len(group) - len(shown)
            if not shown:
                continue
            found = model.localise([group[i]["image"] for i in shown], top=top, **settings)
            for i, one in zip(shown, found, strict=True):
                guess = found_from(one, num_classes=len(matched.from_model), where=where[i])
                guesses.append(guess._replace(labels=matched.from_model[guess.labels]))
                truth.append(objects[i]._replace(labels=matched.from_data[objects[i].labels]))
                _class_of(truth[-1], where[i])
    if not truth:
        raise InputError("Localisation wants at least one image with an object; there is none.")
    judged = localization_error(guesses, truth, top=top, iou_threshold=iou_threshold)
    return Localization(
        error=float(judged.wrong.mean()),
        class_error=float(judged.wrong_class.mean()),
        images=len(truth),
        without_objects=empty,
        top=top,
        iou_threshold=iou_threshold,
        data=str(getattr(examples, "name", "")),
        seconds=round(time.perf_counter() - began, 3),
    )


def _class_of(objects: Truth, where) -> int:
    """The one class of an image's objects."""
    classes = np.unique(objects.labels)
    if len(classes) != 1:
        name = f"image {where}" if isinstance(where, int) else where
        raise InputError(
            f"Localisation wants images that show objects of one class; {name} has {len(classes)}."
        )
    return int(classes[0])


def _name(example: dict[str, Any], place: int) -> str:
    return f"image {text(example.get('image_id', '')) or text(example.get('path', '')) or place}"
