import numpy as np
import pytest

from kerasdet.data import shapes, synthetic
from kerasdet.errors import InputError
from tests.data.annotation_files import elements


def test_a_box_spans_what_the_whole_shape_paints():
    rng = np.random.default_rng(3)
    for _ in range(60):
        shape = synthetic._place(rng, 60, 90)
        canvas = np.zeros((60, 90), np.uint8)
        height, width = shape.cover.shape
        canvas[shape.top : shape.top + height, shape.left : shape.left + width] = shape.cover
        ys, xs = np.nonzero(canvas >= 128)
        assert shape.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_every_class_is_painted_inside_its_box_and_nowhere_else(monkeypatch):
    monkeypatch.setattr(
        synthetic, "_background", lambda _, base, *size: np.int16(base) * np.ones((*size, 3), "i2")
    )
    seen = set()
    for index in range(40):
        shape = synthetic._place(np.random.default_rng(index), 60, 90)
        image = synthetic._render(np.random.default_rng(index + 1), [shape], 60, 90).astype(int)
        x1, y1, x2, y2 = map(int, shape.box)
        # A colour differs by 80 / sqrt(3) = 46 in some channel, its texture by 25, the noise by 8.
        changed = np.abs(image - np.median(image, axis=(0, 1))).max(axis=2) > 11
        grown = np.zeros((60, 90), bool)
        grown[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1] = True  # edges covered by less
        assert not (changed & ~grown).any()
        assert changed[y1:y2, x1:x2].mean() > 0.2  # a turned star covers a quarter of its box
        seen.add(shape.label)
    assert seen == {0, 1, 2, 3, 4}


def test_every_object_can_be_seen_by_two_fifths():
    for index in range(40):
        placed = synthetic._layout(np.random.default_rng(index), 80, 100, 8)
        owner = np.full((80, 100), -1)
        for number, shape in enumerate(placed):
            height, width = shape.cover.shape
            rows = slice(shape.top, shape.top + height)
            owner[rows, shape.left : shape.left + width][shape.cover >= 128] = number
        for number, shape in enumerate(placed):
            assert (owner == number).sum() >= 0.4 * (shape.cover >= 128).sum()


def test_objects_overlap_somewhere():
    def overlap(a, b):
        return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])

    records = shapes(40, image_size=96).records
    pairs = [(a, b) for r in records for i, a in enumerate(r.boxes) for b in r.boxes[:i]]
    assert sum(overlap(a, b) for a, b in pairs) > 10


def test_elements_carry_the_records_and_the_size_is_height_then_width():
    dataset = shapes(6, image_size=(40, 64), max_objects=2)
    for record, element in zip(dataset.records, elements(dataset), strict=True):
        assert element["image"].shape == (40, 64, 3)
        np.testing.assert_array_equal(element["boxes"], record.boxes)
        np.testing.assert_array_equal(element["labels"], record.labels)
        assert element["image_id"].decode() == record.image_id
    assert dataset.class_names == ["ellipse", "rectangle", "triangle", "star", "cross"]


def pictures(**options):
    return {e["image"].tobytes() for e in elements(shapes(4, image_size=32, **options))}


def test_the_same_word_gives_the_same_images_and_another_none_of_them():
    train = pictures(split="train", seed=1)
    assert len(train) == 4
    assert pictures(split="train", seed=1) == train
    assert not pictures(split="val", seed=1) & train
    assert not pictures(split="train", seed=2) & train


def test_an_image_does_not_depend_on_how_many_there_are():
    few, many = shapes(2, image_size=48), shapes(5, image_size=48)
    np.testing.assert_array_equal(few.pixels(1), many.pixels(1))
    np.testing.assert_array_equal(few.records[1].boxes, many.records[1].boxes)


def test_sizes_run_from_a_tenth_to_six_tenths_and_shapes_are_not_all_square():
    boxes = np.concatenate([r.boxes for r in shapes(60, image_size=128).records])
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.max(axis=1)
    assert 0.1 * 128 - 2 <= longer.min() < 20
    assert 64 < longer.max() <= 0.6 * 128
    assert np.mean(longer / sides.min(axis=1) > 1.3) > 0.2
    assert 0.02 < np.mean([not len(r.labels) for r in shapes(300, image_size=32).records]) < 0.1


def test_sizes_are_the_callers():
    records = shapes(60, image_size=(100, 140), max_objects=1, sides=(0.5, 1.0)).records
    boxes = np.concatenate([r.boxes for r in records])
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert 48 <= longer.min() < 60
    assert 90 < longer.max() <= 100
    assert (boxes >= 0).all()
    assert (boxes <= [140, 100, 140, 100]).all()
    usual = shapes(3, image_size=64)
    assert "sides" not in usual.name  # the images that the word always gave
    assert shapes(3, image_size=64, sides=(0.2, 0.3)).name.endswith("&sides=0.2,0.3")


@pytest.mark.parametrize("sides", [(0.0, 0.5), (0.6, 0.5), (0.5, 1.1), (0.02, 0.5)])
def test_wrong_sides_are_errors(sides):
    with pytest.raises(InputError, match="two parts of the image's"):
        shapes(2, image_size=100, sides=sides)


def test_wrong_sizes_and_counts_are_errors():
    with pytest.raises(InputError, match="between 32 and 4096, not 8"):
        shapes(2, image_size=8)
    with pytest.raises(InputError, match="at least one image and object: count=0"):
        shapes(0)
