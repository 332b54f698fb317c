import numpy as np
import pytest
from PIL import Image

from kerasdet.errors import InputError
from kerasdet.evaluation import evaluate, find_mistakes, plot_mistakes, plot_precision_recall
from kerasdet.evaluation.plots import caption, crop
from tests.oriented_files import tiff

HERE, THERE = [5, 5, 25, 25], [30, 10, 50, 30]
GREEN, RED = (64, 224, 96), (255, 64, 64)


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def holds(picture, color):
    return bool((np.abs(picture.astype(int) - color).max(axis=-1) <= 2).any())


@pytest.fixture
def missed(rote):
    """One image whose only object is missed, one with a wrong class."""
    examples = [
        rote.example(0, boxes=[HERE], labels=[1]),
        rote.example(1, boxes=[HERE, THERE], labels=[0, 2]),
    ]
    model = rote.RoteModel({1: [(HERE, 0.8, 0), (THERE, 0.7, 1)]})
    return evaluate(model, examples, progress=False), examples


def test_curves_of_few_and_of_many_classes_are_drawn(rote, tmp_path):
    for count in (3, 14):
        names = [f"class {i}" for i in range(count)]
        examples = [rote.example(i, boxes=[HERE], labels=[i]) for i in range(count)]
        blind = rote.RoteModel({0: [(HERE, 0.9, 0)]}, names)
        result = evaluate(blind, examples, progress=False)
        half = pixels(plot_precision_recall(result, tmp_path / "new" / f"{count}.png"))
        seeing = rote.RoteModel({i: [(HERE, 0.9, i)] for i in range(count)}, names)
        result = evaluate(seeing, examples, progress=False)
        full = pixels(plot_precision_recall(result, tmp_path / f"{count}.png"))
        assert full.std() > 5  # not a blank sheet
        assert half.shape != full.shape or (half != full).any()


@pytest.mark.parametrize("count", [3, 14])
def test_names_that_look_like_formulas_are_drawn_as_they_are(rote, tmp_path, count):
    names = [rf"$\foo$ {i}" for i in range(count)]
    examples = [rote.example(i, boxes=[HERE], labels=[i]) for i in range(count)]
    model = rote.RoteModel({0: [(HERE, 0.9, 0)]}, names)
    result = evaluate(model, examples, class_names=names, progress=False)
    assert pixels(plot_precision_recall(result, tmp_path / "curves.png")).std() > 5


def test_curves_that_cannot_be_written_say_so(missed, tmp_path):
    with pytest.raises(InputError, match=r"curves\.xyz"):
        plot_precision_recall(missed[0], tmp_path / "curves.xyz")


def test_captions_say_what_is_wrong(missed):
    result, _ = missed
    told = [caption(result, one) for one in find_mistakes(result)]
    assert told == ["missed: dog", "wrong class: dog 0.70 on bird"]


def test_gallery_reads_the_pixels_in_a_second_pass(missed, tmp_path):
    result, examples = missed
    sheet = pixels(plot_mistakes(result, tmp_path / "m.png", examples=examples))
    assert holds(sheet, GREEN)  # truth
    assert holds(sheet, RED)  # detection
    assert holds(sheet, (200, 200, 200))  # the image's own grey


def test_gallery_reads_files_where_the_examples_named_them(rote, tmp_path):
    Image.new("RGB", (60, 40), (10, 90, 170)).save(tmp_path / "photo.png")
    examples = [rote.example(0, boxes=[HERE], labels=[1], path=tmp_path / "photo.png")]
    result = evaluate(rote.RoteModel({}), examples, progress=False)
    sheet = pixels(plot_mistakes(result, tmp_path / "m.png"))
    assert holds(sheet, (10, 90, 170))
    assert not holds(sheet, RED)


@pytest.mark.parametrize("size", [(40, 60), (60, 40)])
def test_gallery_reads_a_photo_as_it_was_evaluated_upright_or_as_stored(rote, tmp_path, size):
    photo = Image.new("RGB", (60, 40), (10, 90, 170))  # stored
    photo.save(tmp_path / "photo.png", exif=tiff(6))
    path = tmp_path / "photo.png"
    examples = [rote.example(0, boxes=[HERE], labels=[1], size=size, path=path)]
    result = evaluate(rote.RoteModel({}), examples, progress=False)
    assert holds(pixels(plot_mistakes(result, tmp_path / "m.png")), (10, 90, 170))


def test_file_of_another_size_is_not_the_image_evaluated(rote, tmp_path):
    Image.new("RGB", (50, 40), (10, 90, 170)).save(tmp_path / "photo.png")
    examples = [rote.example(0, boxes=[HERE], labels=[1], path=tmp_path / "photo.png")]
    result = evaluate(rote.RoteModel({}), examples, progress=False)
    with pytest.raises(InputError, match=r"pixels of image image-0.*photo\.png"):
        plot_mistakes(result, tmp_path / "m.png")
    sheet = pixels(plot_mistakes(result, tmp_path / "m.png", examples=examples))
    assert not holds(sheet, (10, 90, 170))


def test_examples_in_another_order_are_noticed(missed, tmp_path):
    result, examples = missed
    with pytest.raises(InputError, match="image 0 is now 'image-1'"):
        plot_mistakes(result, tmp_path / "m.png", examples=examples[::-1])


def test_few_mistakes_of_a_kind_come_from_different_images(rote, tmp_path):
    # Image 0 has three surer wrong detections than image 1, yet both are shown.
    examples = [rote.example(0, boxes=[HERE], labels=[0]), rote.example(1)]
    examples[1]["image"][20:30, 35:45] = (0, 0, 255)
    nothing = [([30, 5, 40, 15], 0.9, 1), ([45, 5, 55, 15], 0.8, 1), ([30, 25, 40, 35], 0.7, 1)]
    model = rote.RoteModel({0: [(HERE, 0.9, 0), *nothing], 1: [(THERE, 0.5, 1)]})
    result = evaluate(model, examples, progress=False)
    sheet = pixels(plot_mistakes(result, tmp_path / "m.png", examples=examples, per_kind=2))
    assert holds(sheet, (0, 0, 255))


def test_no_mistakes_make_a_picture_that_says_so(rote, tmp_path):
    examples = [rote.example(0, boxes=[HERE], labels=[1])]
    result = evaluate(rote.RoteModel({0: [(HERE, 0.9, 1)]}), examples, progress=False)
    assert pixels(plot_mistakes(result, tmp_path / "m.png")).std() > 0


@pytest.mark.parametrize(
    "box", [[100, 40, 130, 60], [0, 0, 9, 7], [170, 80, 220, 130], [0, 0, 200, 100]]
)
def test_crop_holds_the_box_where_it_says(box):
    image = np.zeros((100, 200, 3), np.uint8)
    x1, y1, x2, y2 = np.clip(box, 0, [200, 100, 200, 100])
    image[y1:y2, x1:x2] = 255
    part, (scale, left, top) = crop(image, np.array(box, float), side=320)
    assert max(part.shape) == 320
    rows, columns = np.nonzero(part[..., 0] > 127)
    painted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = (np.array([x1, y1, x2, y2]) - [left, top, left, top]) * scale
    np.testing.assert_allclose(painted, expected, atol=1.5)
