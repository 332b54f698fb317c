"""The shell's --regions: which regions the model is asked about, and who is refused."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from kerasdet.data import from_voc, load, propose, sliding_windows
from kerasdet.data.region_files import write_regions
from kerasdet.detectors.fast_rcnn import FastRCNN
from kerasdet.training import with_proposals
from tests import small
from tests.data.annotation_files import voc_folder, voc_xml
from tests.test_cli import run

pytestmark = pytest.mark.slow

SIZE = (50, 70)
ROWS = np.array([[3, 4, 40, 30], [10, 20, 55, 50]], "float32")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "regions.keras"
    names = ["ellipse", "rectangle", "triangle", "star", "cross"]
    small.fast_rcnn(class_names=names).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate("ab"):
        Image.fromarray(np.full((*SIZE, 3), 90 + number, "uint8")).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def asked(monkeypatch):
    """The regions of every image that `detect` was asked about."""
    seen = []
    real = FastRCNN.detect

    def detect(self, images, regions=None, **settings):
        seen.extend(regions)
        return real(self, images, regions, **settings)

    monkeypatch.setattr(FastRCNN, "detect", detect)
    return seen


def test_detect_looks_at_one_photos_regions_in_a_file(capsys, tmp_path, model, photos, asked):
    savemat(tmp_path / "demo.mat", {"boxes": ROWS - [0, 0, 1, 1]})  # last pixels, from 0
    words = ["detect", model, photos / "a.png", "--output", tmp_path / "drawn"]
    code, out, _ = run(capsys, *words, "--regions", tmp_path / "demo.mat")
    assert (code, "a.png" in out) == (0, True)
    np.testing.assert_array_equal(asked, [ROWS])


def test_detect_finds_each_photos_regions_in_a_folder_and_tells_of_those_without(
    capsys, tmp_path, model, photos, asked
):
    write_regions(tmp_path / "files" / "b.npz", ROWS, SIZE)
    words = ["detect", model, photos, "--output", tmp_path / "drawn"]
    code, out, err = run(capsys, *words, "--regions", tmp_path / "files")
    assert (code, "b.png: " in out) == (2, True)
    assert f"{photos / 'a.png'} has no regions in {tmp_path / 'files'}" in err
    np.testing.assert_array_equal(asked, [ROWS])


def test_detect_searches_by_the_method_named(capsys, tmp_path, model, photos, asked):
    words = ["detect", model, photos, "--output", tmp_path / "drawn"]
    assert run(capsys, *words, "--regions", "sliding_windows")[0] == 0
    np.testing.assert_array_equal(asked, [sliding_windows(*SIZE)[:2000]] * 2)
    code, _, err = run(capsys, *words, "--regions", "guessing")
    assert (code, "guessing, and there is no such folder or file" in err) == (2, True)


@pytest.mark.parametrize(
    "words", [["detect", "PHOTOS"], ["evaluate", "--data", "shapes:test?count=2"]]
)
def test_a_model_of_whole_images_takes_no_regions(capsys, tmp_path, photos, words):
    small.ssd(name="whole").save(tmp_path / "ssd.keras")
    words = [photos if word == "PHOTOS" else word for word in words]
    code, _, err = run(
        capsys, words[0], tmp_path / "ssd.keras", *words[1:], "--regions", "sliding_windows"
    )
    assert code == 2
    assert "--regions goes with a model that looks at regions" in " ".join(err.split())


def test_a_limited_evaluation_wants_the_regions_of_those_images_alone(
    capsys, tmp_path, model, asked
):
    data = "shapes:test?count=5&size=64&objects=2"
    propose(load(data), tmp_path / "kept", method="sliding_windows", workers=1, limit=2)
    words = ["evaluate", model, "--data", data, "--regions", tmp_path / "kept"]
    assert run(capsys, *words, "--limit", 2)[0] == 0
    assert len(asked) == 2
    code, _, err = run(capsys, *words, "--limit", 3)
    assert (code, "1 of 3 images have no regions" in err) == (2, True)


def test_images_that_cannot_be_read_do_not_count_for_the_limit(tmp_path):
    xml = voc_xml([("cat", 11, 16, 40, 45)], size=SIZE)
    examples = from_voc(voc_folder(tmp_path / "voc", {name: xml for name in "abcd"}, size=SIZE))
    next((tmp_path / "voc" / "JPEGImages").glob("b.*")).write_bytes(b"no image")
    for name in "ac":
        write_regions(tmp_path / "files" / f"{name}.npz", ROWS, SIZE)
    two = with_proposals(examples, tmp_path / "files", limit=2)
    names = [example["image_id"].decode() for example in two.as_numpy_iterator()]
    assert names == ["a", "c"]
    assert two.class_names == examples.class_names
