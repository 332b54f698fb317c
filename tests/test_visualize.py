import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kerasdet import visualize
from kerasdet.errors import InputError
from kerasdet.visualize import class_color, draw, gallery, save_image

GREY = 128


def canvas(height=70, width=100):
    return np.full((height, width, 3), GREY, np.uint8)


def changed(picture, before=None):
    """Rows and columns of the pixels that were drawn on."""
    before = np.full_like(picture, GREY) if before is None else before
    return np.nonzero((picture != before).any(axis=-1))


def of_color(picture, color):
    return (picture == np.array(color)).all(axis=-1)


def test_frame_lies_on_the_boxes_outermost_pixels():
    # Continuous edges: x from 20 to 60 are the pixels 20 .. 59.
    picture = draw(canvas(), boxes=[[20, 10, 60, 50]], line_width=1)
    expected = np.zeros((70, 100), bool)
    expected[10:50, 20:60] = True
    expected[11:49, 21:59] = False
    np.testing.assert_array_equal(of_color(picture, class_color(0)), expected)
    rows, columns = changed(picture)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 49, 20, 59)


def test_wide_lines_grow_inwards():
    picture = draw(canvas(), boxes=[[20, 10, 60, 50]], line_width=3)
    drawn = of_color(picture, class_color(0))
    assert drawn[10:13, 20:60].all()
    assert drawn[47:50, 20:60].all()
    assert not drawn[13:47, 23:57].any()
    assert not drawn[:10].any()


def test_the_image_given_is_left_alone():
    image = canvas()
    draw(image, boxes=[[20, 10, 60, 50]], labels=[0], class_names=["dog"])
    assert (image == GREY).all()


def test_no_boxes_leave_the_picture_as_it_is():
    np.testing.assert_array_equal(draw(canvas(), boxes=[], labels=[], scores=[]), canvas())
    nothing = SimpleNamespace(boxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0, int))
    np.testing.assert_array_equal(draw(canvas(), nothing), canvas())


def test_boxes_beyond_the_picture_are_cut_off_at_its_edge():
    picture = draw(canvas(), boxes=[[-30, -10, 500, 400]], line_width=2)
    drawn = of_color(picture, class_color(0))
    assert drawn[0].all()
    assert drawn[-1].all()
    assert drawn[:, 0].all()
    assert drawn[:, -1].all()


@pytest.mark.parametrize(
    "box", [[5, 5, 5, 5], [99, 69, 100, 70], [200, 200, 300, 300], [-9, -9, -1, -1]]
)
def test_degenerate_and_outside_boxes_draw_something_or_nothing_but_do_not_fail(box):
    assert draw(canvas(), boxes=[box], labels=[0], class_names=["x"]).shape == (70, 100, 3)


@pytest.mark.parametrize("corner", list(itertools.product([0, 40, 98], [0, 30, 68])))
def test_name_plates_stay_whole_inside_the_picture(corner):
    x, y = corner
    captions = ["dog 0.87"]
    free = draw(canvas(200, 300), boxes=[[100, 100, 102, 102]], captions=captions, font_size=10)
    here = draw(canvas(), boxes=[[x, y, x + 2, y + 2]], captions=captions, font_size=10)
    # As many pixels of ink here as in the midst of a large picture: no letter is cut off.
    ink = [int((picture[..., 1] > 180).sum()) for picture in (free, here)]  # plates have 75
    assert ink[0] > 30
    assert ink[1] == ink[0]


def test_name_wider_than_the_picture_is_cut_and_says_so():
    assert visualize._shorten("a very long name 0.99", visualize._font(12), 60).endswith("...")
    assert visualize._shorten("dog", visualize._font(12), 60) == "dog"
    narrow = draw(canvas(60, 30), boxes=[[5, 20, 25, 50]], captions=["a very long name"])
    assert narrow.shape == (60, 30, 3)


def test_plates_of_one_place_do_not_cover_each_other():
    boxes = [[60, 60, 160, 140]] * 3
    font = visualize._font(12)
    corners = np.array(boxes, float)
    tint = {i: class_color(i) for i in range(3)}
    plates = visualize._plates(
        corners, ["dog 0.9", "cat 0.8", "cow 0.7"], tint, [2, 1, 0], font, (240, 200)
    )
    assert [plate.text for plate in plates] == ["cow 0.7", "cat 0.8", "dog 0.9"]
    for one, other in itertools.combinations([plate.place for plate in plates], 2):
        apart_x = one[0] + one[2] <= other[0] or other[0] + other[2] <= one[0]
        apart_y = one[1] + one[3] <= other[1] or other[1] + other[3] <= one[1]
        assert apart_x or apart_y
    assert plates[-1].place[1] + plates[-1].place[3] == 60  # the best stands right above its box


def test_best_detection_is_drawn_on_top_whatever_the_order():
    boxes = [[20, 10, 60, 50], [20, 10, 60, 50]]
    for scores, top in (([0.9, 0.3], 0), ([0.3, 0.9], 1)):
        picture = draw(
            canvas(), boxes=boxes, labels=[0, 1], scores=scores, captions=["", ""], line_width=2
        )
        assert (picture[10, 40] == class_color(top)).all()


def test_low_scores_and_padding_are_left_out():
    boxes = [[20, 10, 60, 50]] * 2
    picture = draw(canvas(), boxes=boxes, labels=[0, -1], scores=[0.2, 0.9], score_threshold=0.3)
    np.testing.assert_array_equal(picture, canvas())


def test_what_detect_returns_is_drawn_with_its_own_names():
    found = SimpleNamespace(
        boxes=np.array([[20, 30, 60, 60]]),
        scores=np.array([0.87]),
        labels=np.array([1]),
        names=["dog"],
    )
    by_names = draw(canvas(), found)
    by_list = draw(canvas(), found, class_names=["cat", "dog"])
    by_caption = draw(canvas(), boxes=found.boxes, labels=[1], captions=["dog 0.87"])
    np.testing.assert_array_equal(by_names, by_list)
    np.testing.assert_array_equal(by_names, by_caption)
    assert (draw(canvas(), found, class_names=["cat", "cow"]) != by_names).any()
    with pytest.raises(InputError, match="both came"):
        draw(canvas(), found, boxes=found.boxes)


def test_a_label_beyond_the_names_is_written_as_its_number():
    number = draw(canvas(), boxes=[[20, 30, 60, 60]], labels=[7], class_names=["cat"])
    said = draw(canvas(), boxes=[[20, 30, 60, 60]], labels=[7], captions=["7"])
    np.testing.assert_array_equal(number, said)


def test_lines_and_letters_grow_with_the_picture():
    small, large = canvas(300, 400), canvas(1200, 1600)
    box = np.array([100, 100, 200, 200])
    drawn = [
        of_color(draw(small, boxes=[box]), class_color(0)),
        of_color(draw(large, boxes=[box * 4]), class_color(0)),
    ]
    widths = [int(one[:, one.shape[1] // 3].sum()) // 2 for one in drawn]
    assert widths == [2, 6]  # 346 / 220 rounds to 2, 1386 / 220 to 6


def test_eighty_classes_have_eighty_colours_fixed_for_ever():
    colors = np.array([class_color(label) for label in range(80)])
    apart = np.abs(colors[:, None] - colors[None]).sum(axis=-1) + 1000 * np.eye(80)
    assert apart.min() > 20
    assert apart[:20, :20].min() > 60  # VOC's twenty can be told apart at a glance
    assert class_color(0) == (255, 75, 75)
    assert colors.min() >= 0
    assert colors.max() <= 255


@pytest.mark.parametrize("shape", [(70, 100), (70, 100, 1), (70, 100, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_grey_and_float_images_become_rgb_bytes(shape, dtype):
    picture = draw(np.full(shape, GREY, dtype), boxes=[])
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, canvas())


def test_float_values_are_rounded_and_held_to_the_range():
    image = np.array([[[-5.0, 127.6, 300.0]]])
    np.testing.assert_array_equal(draw(image, boxes=[]), [[[0, 128, 255]]])


@pytest.mark.parametrize(
    ("image", "arguments", "message"),
    [
        (np.zeros((2, 70, 100, 3)), {"boxes": []}, r"\(2, 70, 100, 3\)"),
        (np.zeros((70, 100, 4)), {"boxes": []}, r"\(70, 100, 4\)"),
        (np.zeros((0, 100, 3)), {"boxes": []}, r"\(0, 100, 3\)"),
        (canvas(), {"boxes": [[1, 2, 3]]}, r"\(N, 4\)"),
        (canvas(), {"boxes": [[1, 2, 3, np.nan]]}, "finite"),
        (canvas(), {"boxes": [[1, 2, 3, 4]], "labels": [0, 1]}, "`labels` a box: 2 for 1"),
        (canvas(), {"boxes": [[1, 2, 3, 4]], "scores": []}, "`scores` a box: 0 for 1"),
        (canvas(), {"boxes": [[1, 2, 3, 4]], "captions": []}, "`captions` a box: 0 for 1"),
    ],
)
def test_what_cannot_be_drawn_is_said(image, arguments, message):
    with pytest.raises(InputError, match=message):
        draw(image, **arguments)


def test_gallery_places_pictures_of_different_sizes_in_rows():
    red, green, blue = (
        np.full((h, w, 3), c, np.uint8)
        for h, w, c in ((20, 30, (255, 0, 0)), (10, 10, (0, 255, 0)), (16, 24, (0, 0, 255)))
    )
    sheet = gallery([red, green, blue], columns=2, gap=4)
    # Cells are 30 wide; rows are as high as their highest picture, 20 and 16.
    assert sheet.shape == (4 + 20 + 4 + 16 + 4, 4 + 30 + 4 + 30 + 4, 3)
    assert of_color(sheet, (255, 0, 0))[4:24, 4:34].all()
    assert of_color(sheet, (0, 255, 0))[9:19, 48:58].all()  # centred in its cell
    assert of_color(sheet, (0, 0, 255))[28:44, 7:31].all()
    assert of_color(sheet, (255, 255, 255)).sum() == sheet[..., 0].size - 600 - 100 - 384


def test_gallery_shrinks_large_pictures_only():
    sheet = gallery([canvas(100, 200), canvas(30, 20)], columns=1, tile=50, gap=2)
    assert sheet.shape == (2 + 25 + 2 + 30 + 2, 2 + 50 + 2, 3)


def test_gallery_writes_captions_and_a_title():
    plain = gallery([canvas()], gap=4)
    noted = gallery(
        [canvas()], gap=4, captions=["dog"], caption_colors=[(255, 0, 0)], title="found"
    )
    assert noted.shape[0] > plain.shape[0]
    below = noted[-(noted.shape[0] - plain.shape[0]) // 2 :]
    assert of_color(below, (255, 0, 0)).any()
    assert (below.max(axis=-1) < 60).any()  # ink
    assert (noted[:20].max(axis=-1) < 60).any()


def test_gallery_refuses_nothing_and_odd_captions():
    with pytest.raises(InputError, match="at least one picture"):
        gallery([])
    with pytest.raises(InputError, match="2 for 1"):
        gallery([canvas()], captions=["a", "b"])


@pytest.mark.parametrize("name", ["a.png", "deep/er/b.jpg"])
def test_saved_pictures_read_back(tmp_path, name):
    picture = draw(canvas(), boxes=[[20, 10, 60, 50]])
    path = save_image(tmp_path / name, picture)
    with Image.open(path) as file:
        read = np.asarray(file.convert("RGB")).astype(int)
    assert np.abs(read - picture).mean() < (0.01 if name.endswith("png") else 3)


def test_a_file_that_is_no_picture_or_has_no_place_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.txt"):
        save_image(tmp_path / "a.txt", canvas())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"a\.png cannot be written"):
        save_image(tmp_path / "file" / "a.png", canvas())
