import pytest

from kerasdet.evaluation import count_mistakes, evaluate, find_mistakes

HERE, THERE = [0, 0, 20, 20], [30, 0, 50, 20]


def mistakes(rote, *, truth, found, score_threshold=0.3, **flags):
    boxes, labels = zip(*truth, strict=True) if truth else ((), ())
    examples = [
        rote.example(0, boxes=boxes, labels=labels, **flags),
        rote.example(1, boxes=[HERE], labels=[2]),  # found: there is something to evaluate
    ]
    model = rote.RoteModel({0: found, 1: [(HERE, 0.9, 2)]})
    result = evaluate(model, examples, progress=False)
    return find_mistakes(result, score_threshold=score_threshold)


@pytest.mark.parametrize(
    ("found", "kind", "iou"),
    [
        ((HERE, 0.8, 1), "class", 1.0),
        (([0, 0, 20, 6], 0.8, 0), "location", 6 / 20),
        (([0, 0, 20, 6], 0.8, 1), "both", 6 / 20),
        ((THERE, 0.8, 0), "background", 0.0),
        (([0, 0, 20, 1], 0.8, 0), "background", 0.0),  # IoU 0.05 is as good as nothing
    ],
)
def test_wrong_detection_is_told_by_where_it_is(rote, found, kind, iou):
    missed_or_not, *rest = mistakes(rote, truth=[(HERE, 0)], found=[found])
    wrong = rest[0] if rest else missed_or_not
    assert (wrong.kind, wrong.image, wrong.detection) == (kind, 0, 0)
    assert wrong.iou == pytest.approx(iou)
    assert wrong.truth == (-1 if kind == "background" else 0)


def test_object_that_a_class_or_location_error_explains_is_not_missed_too(rote):
    for found, missed in (
        ((HERE, 0.8, 1), 0), (([0, 0, 20, 6], 0.8, 0), 0), (([0, 0, 20, 6], 0.8, 1), 1),
        ((THERE, 0.8, 0), 1),
    ):  # fmt: skip
        assert count_mistakes(mistakes(rote, truth=[(HERE, 0)], found=[found]))["missed"] == missed


def test_second_detection_is_a_duplicate(rote):
    (one,) = mistakes(rote, truth=[(HERE, 0)], found=[(HERE, 0.5, 0), (HERE, 0.9, 0)])
    assert (one.kind, one.detection, one.score) == ("duplicate", 0, pytest.approx(0.5))


def test_exactly_on_one_object_and_touching_ones_own_class_is_a_class_error(rote):
    neighbour = [14, 0, 34, 20]
    found = mistakes(rote, truth=[(HERE, 0), (neighbour, 1)], found=[(HERE, 0.8, 1)])
    assert [one.kind for one in found] == ["missed", "class"]
    assert (found[0].truth, found[1].truth) == (1, 0)


def test_difficult_objects_are_neither_missed_nor_wrongly_found(rote):
    assert not mistakes(rote, truth=[(HERE, 0)], found=[], difficult=[True])
    assert not mistakes(rote, truth=[(HERE, 0)], found=[(HERE, 0.8, 0)], difficult=[True])


def test_detections_below_the_threshold_were_not_made(rote):
    rows = [(THERE, 0.25, 1), (HERE, 0.2, 0), (THERE, 0.7, 2)]
    found = mistakes(rote, truth=[(HERE, 0)], found=rows)
    assert [(one.kind, one.detection) for one in found] == [("missed", -1), ("background", 2)]
    found = mistakes(rote, truth=[(HERE, 0)], found=rows, score_threshold=0.1)
    assert [(one.kind, one.detection) for one in found] == [("background", 2), ("background", 0)]


def test_worst_come_first(rote):
    small = [40, 30, 44, 34]
    found = mistakes(
        rote,
        truth=[(small, 0), (HERE, 0)],
        found=[(THERE, 0.4, 0), ([50, 30, 60, 40], 0.8, 1)],
    )
    assert [(one.kind, one.truth) for one in found[:2]] == [("missed", 1), ("missed", 0)]
    assert [one.score for one in found[2:]] == pytest.approx([0.8, 0.4])
