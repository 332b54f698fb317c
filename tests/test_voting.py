"""Votes over scales and views, against loops, with networks whose answers can be worked out."""

import numpy as np
import pytest

from kerasdet import voting
from kerasdet.errors import InputError
from kerasdet.images import warp


def patches(images):
    """A network of two classes: of each 4x4 patch the mean red, and 1 less that of green, over 255."""
    b, height, width, _ = images.shape
    cells = images[:, : height // 4 * 4, : width // 4 * 4] / 255
    cells = cells.reshape(b, height // 4, 4, width // 4, 4, 3).mean(axis=(2, 4))
    return np.stack([cells[..., 0], 1 - cells[..., 1]], axis=-1)


def test_a_vote_over_scales_is_the_mean_of_the_best_places(rng):
    image = rng.integers(0, 256, (20, 33, 3)).astype("uint8")
    scales = [(8, 12), (13, 22)]
    votes = []
    for size in scales:
        seen = warp(image, size)
        for view in (seen, np.fliplr(seen)):
            answers = patches(view[None])[0]
            votes.append([max(answers[..., k].ravel()) for k in range(2)])
    assert len(votes) == 4
    found = voting.vote_scales(patches, image, scales)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.mean(votes, axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        voting.vote_scales(patches, image, scales, flip=False),
        np.mean(votes[::2], axis=0),
        rtol=1e-5,
    )


def test_the_best_place_of_each_class_counts_not_the_mean():
    """13 columns: the last is seen by no patch, in the mirror image the first is not."""
    image = np.full((4, 13, 3), 255, "uint8")
    image[:, :, 0] = 0
    image[:, 0, 0] = 255  # red in the first column: a patch there has a mean of 1/4
    found = voting.vote_scales(patches, image, [(4, 13)])
    np.testing.assert_allclose(found, [(1 / 4 + 0) / 2, 0], atol=1e-6)


def test_an_upright_image_is_seen_in_upright_sizes_and_a_square_one_is_not(rng):
    sizes = []

    def network(images):
        sizes.append(images.shape)
        return patches(images)

    for shape in [(30, 20), (20, 30), (25, 25)]:
        voting.vote_scales(network, rng.integers(0, 256, (*shape, 3)), [(8, 12), (8, 8)])
    assert sizes == [
        *((2, 12, 8, 3), (2, 8, 8, 3)),
        *((2, 8, 12, 3), (2, 8, 8, 3)),
        *((2, 8, 12, 3), (2, 8, 8, 3)),
    ]


def test_the_ten_views_are_corners_centre_and_their_mirror_images():
    """A window of 231 from 256x256, which this image is: nothing is resized."""
    image = np.zeros((256, 256, 3), "float32")
    image[..., 0] = np.arange(256)[:, None]
    image[..., 1] = np.arange(256)
    views = voting.ten_views(image, 231)
    assert views.shape == (10, 231, 231, 3)
    corners = [tuple(view[0, 0, :2]) for view in views[:5]]
    assert corners == [(0, 0), (0, 25), (25, 0), (25, 25), (12, 12)]
    np.testing.assert_array_equal(views[5:], views[:5, :, ::-1])
    for view, (top, left) in zip(views, corners, strict=False):
        np.testing.assert_array_equal(view[-1, -1, :2], [top + 230, left + 230])


def test_a_photo_is_cut_to_its_middle_square_first(rng):
    image = rng.integers(0, 256, (100, 161, 3)).astype("uint8")
    whole = warp(image[:, 30:130], (256, 256))
    np.testing.assert_allclose(voting.ten_views(image, 221)[3], whole[35:, 35:], atol=1e-4)


def test_a_window_that_is_not_square_has_as_much_room_on_both_sides(rng):
    """short_side(60) = round(60 * 256 / 231) = 66, so 66 x 110 for 60 x 100."""
    image = rng.integers(0, 256, (66, 110, 3)).astype("uint8")
    views = voting.ten_views(image, (60, 100))
    np.testing.assert_allclose(views[0], image[:60, :100], atol=1e-4)
    np.testing.assert_allclose(views[3], image[6:, 10:], atol=1e-4)


def test_a_vote_over_views_is_the_mean_over_views_and_places(rng):
    image = rng.integers(0, 256, (40, 50, 3)).astype("uint8")
    expected = np.mean([patches(v[None])[0] for v in voting.ten_views(image, 24)], axis=(0, 1, 2))
    np.testing.assert_allclose(voting.vote_views(patches, image, 24), expected, rtol=1e-5)


@pytest.mark.parametrize(("window", "side"), [(231, 256), (221, 256), (64, 71), (462, 512)])
def test_windows_are_cut_from_256_or_in_proportion(window, side):
    assert voting.short_side(window) == side


def test_accuracy_counts_labels_among_the_best():
    """Ranks of the labels: 0, 1, 4, 6; of equal scores the first class comes first."""
    scores = [[9, 1, 2, 3, 4, 5, 6], [9, 8, 1, 2, 3, 4, 5], [7, 6, 5, 4, 4, 2, 1], [1] * 7]
    labels = [0, 1, 4, 6]
    examples = [
        {"image": np.full((1, 1, 3), row), "label": np.int32(label)}
        for row, label in enumerate(labels)
    ]
    rows = {i: np.array(row, "f4") for i, row in enumerate(scores)}

    def vote(image):
        return rows[int(image[0, 0, 0])]

    assert voting.accuracy(vote, examples) == {"top1": 1 / 4, "top5": 3 / 4}
    assert voting.accuracy(vote, examples, top=(2,), limit=2) == {"top2": 1.0}
    with pytest.raises(InputError, match="no images"):
        voting.accuracy(vote, [])


def test_the_best_are_named_first_and_of_equals_the_first_class():
    found = voting.ranked(np.array([0.1, 0.4, 0.4, 0.2], "f4"), ["a", "b", "c", "d"], 3)
    assert found.names == ["b", "c", "d"]
    assert found.labels.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(found.probabilities, np.array([0.4, 0.4, 0.2], "f4"))


def test_what_is_no_map_is_one_clear_error():
    image = np.zeros((8, 8, 3), "uint8")
    with pytest.raises(InputError, match=r"wants probabilities \(2, h, w, K\), not .* \(2, 5\)"):
        voting.vote_scales(lambda images: np.zeros((2, 5)), image, [(8, 8)])
    with pytest.raises(InputError, match=r"\(10, h, w, K\), not an array of \(2, 1, 1, 3\)"):
        voting.vote_views(lambda images: np.zeros((2, 1, 1, 3)), image, 8)
    with pytest.raises(InputError, match="at least one"):
        voting.vote_scales(patches, image, [])
