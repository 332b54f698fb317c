"""Proposals of a data set: nothing is computed twice, damage is made good, recall is counted."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from kerasdet import cli
from kerasdet.data import from_coco, from_voc, propose, read_regions, selective_search, shapes
from kerasdet.data import proposal_cache as cache
from kerasdet.data.example import Inspector, Row, make_record
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError
from kerasdet.images import read_image
from tests.data.annotation_files import voc_folder, voc_xml

pytestmark = pytest.mark.slow

SIZE = (60, 90)


def photos(folder, count=3):
    """A VOC folder with a painted rectangle in each photo, 10 pixels further right in the next."""
    objects = {f"{n:03d}": (11 + 10 * n, 16, 40 + 10 * n, 45) for n in range(count)}
    annotations = {s: voc_xml([("cat", *box)], size=SIZE) for s, box in objects.items()}
    voc_folder(folder, annotations, size=SIZE)
    for stem, (x1, y1, x2, y2) in objects.items():
        path = folder / "JPEGImages" / f"{stem}.png"
        pixels = np.asarray(Image.open(path)).copy()
        pixels[y1 - 1 : y2, x1 - 1 : x2] = (250, 10, 10)  # VOC counts from 1, both ends inside
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def searched(monkeypatch):
    """The images that were searched in this process."""
    seen = []
    real = cache.Method.regions

    def regions(method, image):
        if image.any():  # not the trial that every run begins with
            seen.append(image)
        return real(method, image)

    monkeypatch.setattr(cache.Method, "regions", regions)
    return seen


def test_regions_are_kept_under_the_hash_of_the_files_bytes(tmp_path):
    examples = from_voc(photos(tmp_path / "voc"))
    found = propose(examples, tmp_path / "kept", workers=1)
    for record in examples.records:
        with open(record.path, "rb") as file:
            name = hashlib.sha256(file.read()).hexdigest()
        kept = read_regions(tmp_path / "kept" / f"{name}.npz")
        np.testing.assert_array_equal(kept, selective_search(record.path))
    assert (found.images, found.computed, found.objects) == (3, 3, 3)
    assert found.recall == {0.5: 1.0, 0.7: 1.0}
    assert found.average_best_overlap > 0.9
    assert len(list((tmp_path / "kept").iterdir())) == 3 + 1


def test_a_second_run_computes_nothing_and_says_the_same(tmp_path, searched):
    examples = from_voc(photos(tmp_path / "voc"))
    first = propose(examples, tmp_path / "kept", workers=1)
    assert len(searched) == 3
    second = propose(examples, tmp_path / "kept", workers=1)
    assert len(searched) == 3
    assert (second.images, second.computed) == (3, 0)
    assert (second.regions, second.recall) == (first.regions, first.recall)


def test_a_run_goes_on_where_another_stopped(tmp_path, searched):
    examples = from_voc(photos(tmp_path / "voc"))
    stopped = propose(examples, tmp_path / "kept", workers=1, limit=2)
    assert (stopped.images, stopped.computed) == (2, 2)
    assert (propose(examples, tmp_path / "kept", workers=1).computed, len(searched)) == (1, 3)


def test_the_same_photo_elsewhere_is_known_and_a_changed_one_is_not(tmp_path, searched):
    propose(from_voc(photos(tmp_path / "voc")), tmp_path / "kept", workers=1)
    shutil.move(tmp_path / "voc", tmp_path / "moved")
    assert propose(from_voc(tmp_path / "moved"), tmp_path / "kept", workers=1).computed == 0
    path = tmp_path / "moved" / "JPEGImages" / "001.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] = 0
    Image.fromarray(pixels).save(path)
    assert propose(from_voc(tmp_path / "moved"), tmp_path / "kept", workers=1).computed == 1
    assert len(searched) == 4


def test_a_damaged_file_is_computed_anew(tmp_path):
    examples = from_voc(photos(tmp_path / "voc"))
    first = propose(examples, tmp_path / "kept", workers=1)
    files = sorted((tmp_path / "kept").glob("*.npz"))
    files[0].write_bytes(files[0].read_bytes()[:-40])
    files[1].write_bytes(b"")
    second = propose(examples, tmp_path / "kept", workers=1)
    assert (second.computed, second.regions) == (2, first.regions)


def test_several_processes_find_what_one_finds(tmp_path):
    examples = from_voc(photos(tmp_path / "voc"))
    one = propose(examples, tmp_path / "one", workers=1)
    two = propose(examples, tmp_path / "two", workers=2)
    assert (two.computed, two.regions, two.recall) == (3, one.regions, one.recall)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names[:-1]:
        np.testing.assert_array_equal(
            read_regions(tmp_path / "one" / name), read_regions(tmp_path / "two" / name)
        )


@pytest.mark.skipif(os.name != "posix", reason="sends Ctrl-C to a process group")
def test_ctrl_c_while_workers_start_ends_all_of_them_and_says_how_to_go_on(tmp_path):
    words = ["data", "proposals", "shapes:train?count=400&size=200", "--workers", "2"]
    command = [sys.executable, "-m", "kerasdet", *words, "--output", str(tmp_path / "kept")]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            for _ in range(600):
                if (tmp_path / "kept" / cache.SETTINGS_FILE).exists() or process.poll() is not None:
                    break
                time.sleep(0.1)
            time.sleep(0.3)  # a worker takes longer to import what it needs
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=30)  # which waits for the workers' ends, too
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 130
    assert f"stopped; a second call goes on from {tmp_path / 'kept'}." in said.decode()
    assert "Traceback" not in said.decode()


def test_images_in_no_file_go_by_their_pixels(tmp_path, searched):
    examples = shapes(2, image_size=(40, 56), max_objects=2)
    assert propose(examples, tmp_path / "kept", workers=1).computed == 2
    bare = examples.map(lambda example: example)  # without records, as any data set
    again = propose(bare, tmp_path / "kept", workers=1, limit=1)
    assert (again.images, again.computed, len(searched)) == (1, 0, 2)


def test_a_photo_that_cannot_be_read_is_listed_and_the_others_are_searched(tmp_path):
    examples = from_voc(photos(tmp_path / "voc"))
    broken, gone = (tmp_path / "voc" / "JPEGImages" / name for name in ("000.png", "002.png"))
    broken.write_bytes(b"no image")
    gone.unlink()
    found = propose(examples, tmp_path / "kept", workers=1)
    assert (found.images, found.computed) == (1, 1)
    assert [path for path, _ in found.failures] == [str(broken), str(gone)]
    assert f"not searched: {gone}: No such file" in str(found)


def test_recall_leaves_out_crowds_and_difficult_objects(tmp_path):
    def pixels(_):
        image = np.full((*SIZE, 3), 90, np.uint8)
        image[10:40, 20:60] = 250
        return image

    rows = [
        Row((20, 10, 60, 40), 0),
        Row((0, 40, 10, 50), 0),  # nothing is there
        Row((70, 0, 80, 10), 0, difficult=True),
        Row((70, 20, 80, 30), 0, crowd=True),
    ]
    records = [make_record("a", "", height=60, width=90, rows=rows)]
    examples = to_dataset(records, ["thing"], Inspector(), "made", pixels=pixels)
    found = propose(examples, tmp_path, workers=1)
    assert found.objects == 2
    assert found.recall == {0.5: 0.5, 0.7: 0.5}


def test_best_overlaps_are_those_of_a_slow_loop(rng):
    boxes, regions = (
        np.sort(rng.integers(0, 30, (n, 2, 2)), axis=1).reshape(-1, 4) + np.array([0, 0, 1, 1])
        for n in (5, 40)
    )

    def iou(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return shared / (sum(areas) - shared)

    expected = [max(iou(box, region) for region in regions) for box in boxes.tolist()]
    np.testing.assert_allclose(cache.best_overlaps(boxes, regions), expected, rtol=1e-6)
    assert cache.best_overlaps(boxes, regions[:0]).tolist() == [0] * 5
    assert cache.best_overlaps(boxes[:0], regions).shape == (0,)


def test_one_folder_holds_regions_found_in_one_way(tmp_path):
    examples = from_voc(photos(tmp_path / "voc", 1))
    propose(examples, tmp_path / "kept", workers=1)
    with pytest.raises(InputError, match=r'holds regions of .*"quality": false.*another folder'):
        propose(examples, tmp_path / "kept", workers=1, quality=True)
    (tmp_path / "kept" / cache.SETTINGS_FILE).write_text("{")
    with pytest.raises(InputError, match="says not how"):
        propose(examples, tmp_path / "kept", workers=1)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"method": "guessing"}, "guessing"),
        ({"method": "sliding_windows", "quality": True}, "quality"),
        ({"workers": 0}, "workers"),
        ({"limit": 0}, "limit"),
        ({"method": cache.Method("edge_boxes", model="nowhere.yml")}, r"nowhere\.yml"),
    ],
)
def test_arguments_that_make_no_sense_are_one_sentence(tmp_path, arguments, word):
    examples = from_voc(photos(tmp_path / "voc", 1))
    with pytest.raises(InputError, match=word):
        propose(examples, tmp_path / "kept", **{"workers": 1, **arguments})
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    examples = from_voc(photos(tmp_path / "voc", 1))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be kept in"):
        propose(examples, tmp_path / "file" / "kept", workers=1)


def test_the_shell_reports_regions_and_recall(tmp_path, capsys):
    photos(tmp_path / "voc")
    words = ["data", "proposals", f"voc:{tmp_path / 'voc'}", "--output", str(tmp_path / "kept")]
    outputs = []
    for _ in range(2):
        with pytest.raises(SystemExit) as left:
            cli.main([*words, "--limit", "2", "--workers", "1", "--max-regions", "4"])
        assert not left.value.code
        outputs.append(capsys.readouterr().out)
    assert "2 images, 8 regions, 4 an image" in outputs[0]
    assert "computed now: 2; there before: 0" in outputs[0]
    assert "recall of 2 objects: " in outputs[0]
    assert "computed now: 0; there before: 2" in outputs[1]
    settings = json.loads((tmp_path / "kept" / "proposals.json").read_text())
    assert settings["max_regions"] == 4
    with pytest.raises(SystemExit) as left:
        cli.main([*words, "--quality"])
    assert left.value.code == 2
    assert "another folder" in capsys.readouterr().err


def test_selective_search_finds_the_regions_of_the_releases_demo(shared_data):
    """Share of the released regions that one of our 2000 overlaps by 0.5 and 0.7, a little rounded down."""
    folder = shared_data / "photos" / "fast_rcnn_demo"
    least = {"000004": (0.80, 0.56), "001551": (0.84, 0.60)}
    for stem, (at_half, at_seven) in least.items():
        theirs = read_regions(folder / f"{stem}_boxes.mat")
        ours = selective_search(read_image(folder / f"{stem}.jpg"))
        best = cache.best_overlaps(theirs, ours)
        assert (best >= 0.5).mean() > at_half
        assert (best >= 0.7).mean() > at_seven


def test_photos_of_coco_have_their_recall(tmp_path, shared_data):
    folder = shared_data / "coco128"
    examples = from_coco(
        folder / "annotations" / "instances_train2017.json", folder / "images" / "train2017"
    )
    found = propose(examples, tmp_path, workers=2, limit=3)
    assert found.images == 3
    assert found.recall[0.5] > 0.5
