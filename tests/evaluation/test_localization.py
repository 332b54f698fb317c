"""ILSVRC's localisation error, on guesses judged by hand."""

import numpy as np
import pytest

from kerasdet.errors import InputError
from kerasdet.evaluation import evaluate_localization, localization_error
from kerasdet.evaluation.image_result import Found, Truth
from kerasdet.suppression import Detections


def guess(*rows):
    """Found from (label, x1, y1, x2, y2), the surest first."""
    rows = np.array(rows, "float64").reshape(-1, 5)
    return Found(rows[:, 1:], np.linspace(0.9, 0.1, len(rows)), rows[:, 0].astype(int))


def shown(label, *boxes):
    """Truth of one class."""
    boxes = np.array(boxes, "float64").reshape(-1, 4)
    no = np.zeros(len(boxes), bool)
    return Truth(boxes, np.full(len(boxes), label), no, no, np.zeros(len(boxes)))


OBJECT = (0, 0, 30, 20)


@pytest.mark.parametrize(
    ("guesses", "objects", "expected"),
    [
        ([(1, *OBJECT)], [OBJECT], (False, False)),
        ([(2, *OBJECT)], [OBJECT], (True, True)),  # the right box, the wrong class
        ([(1, 15, 0, 45, 20)], [OBJECT], (True, False)),  # 300 of 900 shared
        ([(1, 0, 0, 30, 10)], [OBJECT], (False, False)),  # 300 of 600: 0.5 is enough
        ([(1, 0, 0, 30, 9.9)], [OBJECT], (True, False)),
        ([(0, *OBJECT), (2, *OBJECT), (1, *OBJECT)], [OBJECT], (False, False)),  # the third
        ([(1, 50, 50, 60, 60), (1, *OBJECT)], [OBJECT], (False, False)),  # the class twice
        ([(1, *OBJECT)], [(50, 50, 60, 60), OBJECT], (False, False)),  # any object will do
        ([], [OBJECT], (True, True)),
        ([(1, 5, 5, 5, 5)], [OBJECT], (True, False)),
    ],
)
def test_an_image_is_right_if_one_guess_has_its_class_and_half_overlap(guesses, objects, expected):
    judged = localization_error([guess(*guesses)], [shown(1, *objects)])
    assert (judged.wrong[0], judged.wrong_class[0]) == expected


def test_only_the_first_guesses_count():
    six = guess(*[(0, *OBJECT)] * 5, (1, *OBJECT))
    for top, wrong in ((5, True), (6, False)):
        judged = localization_error([six], [shown(1, OBJECT)], top=top)
        assert judged.wrong.tolist() == judged.wrong_class.tolist() == [wrong]


def test_images_of_different_numbers_of_guesses_and_objects_are_judged_together():
    """The second image's class is another one's guess; the third has three objects."""
    guesses = [guess((1, *OBJECT)), guess((1, *OBJECT), (2, 0, 0, 3, 3)), guess((0, 9, 9, 19, 19))]
    truth = [shown(1, OBJECT), shown(2, OBJECT), shown(0, OBJECT, (8, 8, 20, 20), (9, 9, 40, 40))]
    judged = localization_error(guesses, truth)
    assert judged.wrong.tolist() == [False, True, False]  # 100 of 144
    assert judged.wrong_class.tolist() == [False, False, False]
    stricter = localization_error(guesses, truth, iou_threshold=0.7)
    assert stricter.wrong.tolist() == [False, True, True]


class Guesser:
    """Says what it was told to, image by image; an image's first pixel is its number."""

    class_names = ("cat", "dog", "cow")

    def __init__(self, guesses):
        self.guesses, self.seen = guesses, []

    def localise(self, images, *, top=5, scales=None):
        self.seen.append((len(images), top, scales))
        found = [self.guesses[int(image[0, 0, 0])] for image in images]
        return [Detections(one.boxes, one.scores, one.labels, len(one.labels)) for one in found]


def example(number, label, *boxes):
    boxes = np.array(boxes, "float32").reshape(-1, 4)
    labels = np.full(len(boxes), label, "int32")
    image = np.full((40, 50, 3), number, "uint8")
    return {"image": image, "boxes": boxes, "labels": labels, "image_id": f"photo {number}"}


def test_a_data_set_is_evaluated_in_batches_and_images_without_objects_are_left_out():
    examples = [
        example(0, 1, OBJECT),
        example(1, 0),
        example(2, 2, OBJECT),
        example(3, 0, (5, 5, 25, 35), OBJECT),
        example(4, 1, OBJECT),
    ]
    guesses = [
        guess((1, *OBJECT)),
        guess(),
        guess((2, 0, 0, 3, 3)),
        guess((0, 5, 5, 25, 35)),
        guess((0, *OBJECT)),
    ]
    model = Guesser(guesses)
    result = evaluate_localization(
        model, examples, batch_size=3, top=2, progress=False, scales=[(40, 50)]
    )
    assert (result.images, result.without_objects) == (4, 1)
    assert result.error == 2 / 4  # photos 2 and 4
    assert result.class_error == 1 / 4
    assert model.seen == [(2, 2, [(40, 50)]), (2, 2, [(40, 50)])]
    assert result.to_dict()["top"] == 2
    assert "Localisation error 50.0% of 4 images with 2 guesses each; class error 25.0%" in str(
        result
    )
    assert evaluate_localization(model, examples, max_images=1, progress=False).error == 0


def test_an_image_of_several_classes_is_named():
    mixed = example(7, 1, OBJECT, (5, 5, 9, 9))
    mixed["labels"][1] = 2
    with pytest.raises(InputError, match="objects of one class; image photo 7 has 2"):
        evaluate_localization(Guesser([guess()] * 8), [mixed], progress=False)


def test_data_without_objects_or_of_other_classes_are_refused():
    with pytest.raises(InputError, match="at least one image with an object"):
        evaluate_localization(Guesser([guess()]), [example(0, 0)], progress=False)
    with pytest.raises(InputError, match="classes of the data are not the model's"):
        evaluate_localization(
            Guesser([guess()]), [example(0, 0, OBJECT)], class_names=["a", "b"], progress=False
        )
