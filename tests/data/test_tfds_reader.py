import sys
from pathlib import Path

import numpy as np
import pytest

from kerasdet.data import example as ex
from kerasdet.data import from_tfds, tfds_reader
from kerasdet.errors import InputError
from tests.data.annotation_files import elements, paint, painted_box
from tests.oriented_files import write_photo

tfds = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")

NAMES = ["cat", "dog", "eel"]


class TinyVoc(tfds.core.GeneratorBasedBuilder):
    """Three images in VOC's features; the second holds two bad boxes and the third none."""

    VERSION = tfds.core.Version("1.0.0")
    images = ()  # paths, set by the fixture

    def _info(self):
        objects = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=NAMES),
            "is_difficult": np.bool_,
        }
        features = {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(objects),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        # yxyx in parts of 5 rows and 10 columns
        boxes = [
            [((1 / 5, 2 / 10, 4 / 5, 6 / 10), 1, True), ((0.0, 0.0, 1.0, 1.0), 2, False)],
            [
                ((0.2, 0.2, 0.2, 0.4), 0, False),
                ((0.2, 0.2, 0.6, 0.4), 0, False),
                ((0.0, 0.5, 1.0, 0.5), 0, False),
            ],
            [],
        ]
        for number, (path, rows) in enumerate(zip(self.images, boxes, strict=True)):
            objects = [
                {"bbox": tfds.features.BBox(*box), "label": label, "is_difficult": difficult}
                for box, label, difficult in rows
            ]
            yield (
                number,
                {"image": str(path), "image/filename": f"{number}.png", "objects": objects},
            )


class NoBoxes(TinyVoc):
    def _info(self):
        features = {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=NAMES),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _generate_examples(self):
        yield 0, {"image": str(self.images[0]), "label": 1}


class OnItsSide(TinyVoc):
    def _generate_examples(self):
        box = tfds.features.BBox(1 / 5, 2 / 10, 4 / 5, 6 / 10)
        objects = [{"bbox": box, "label": 1, "is_difficult": False}]
        path = str(self.images[0]).replace(".png", ".jpg")
        yield 0, {"image": path, "image/filename": "0.jpg", "objects": objects}


class NoNetwork(TinyVoc):
    def _split_generators(self, dl_manager):
        dl_manager.download("http://127.0.0.1:9/images.zip")  # the port of "discard": no server


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    paths = [folder / f"{number}.png" for number in range(3)]
    for path, boxes in zip(paths, ([(2, 1, 6, 4)], (), ()), strict=True):
        paint(path, (5, 10), boxes)
    paths[2].write_bytes(paths[2].read_bytes()[:40])  # TFDS stores bytes as they are
    TinyVoc.images = paths
    made = TinyVoc(data_dir=folder / "data")
    made.download_and_prepare()
    return made


@pytest.fixture
def dataset(builder):
    return from_tfds(builder)


def by_id(dataset):
    return {element["image_id"].decode(): element for element in elements(dataset)}


def test_the_box_is_what_was_painted(dataset):
    element = by_id(dataset)["0.png"]
    expected = painted_box(element["image"])
    np.testing.assert_allclose(element["boxes"], [expected, [0, 0, 10, 5]], atol=1e-5)
    assert element["labels"].tolist() == [1, 2]
    assert element["difficult"].tolist() == [True, False]
    assert element["crowd"].tolist() == [False, False]
    np.testing.assert_allclose(element["area"], [4 * 3, 10 * 5], rtol=1e-5)
    assert (dataset.class_names, dataset.records) == (NAMES, None)


def test_a_photo_is_upright_and_boxes_are_shares_of_that(builder, tmp_path):
    upright = np.full((50, 100, 3), 90, np.uint8)
    upright[10:40, 20:60] = (250, 10, 10)
    write_photo(Path(str(builder.images[0]).replace(".png", ".jpg")), upright, 8)
    made = OnItsSide(data_dir=tmp_path)
    made.download_and_prepare()
    (element,) = elements(from_tfds(made))
    np.testing.assert_allclose(element["boxes"], [[20, 10, 60, 40]], atol=1e-4)
    assert np.abs(element["image"].astype(int) - upright).max() < 40


def test_bad_boxes_are_dropped_and_reported_by_object(dataset):
    element = by_id(dataset)["1.png"]
    np.testing.assert_allclose(element["boxes"], [[2, 1, 4, 3]], atol=1e-5)
    found = [p for p in dataset.problems if p.rule == ex.DEGENERATE]
    assert [(p.file, p.row) for p in found] == [("1.png", "object 1"), ("1.png", "object 3")]


def test_a_broken_image_is_skipped_and_counted(dataset):
    assert sorted(by_id(dataset)) == ["0.png", "1.png"]
    assert [p.rule for p in dataset.problems].count(ex.UNREADABLE_IMAGE) == 1


def test_the_same_elements_as_from_the_folder_on_disk(builder, dataset):
    again = from_tfds(tfds.builder_from_directory(builder.data_dir), "train[:100%]")
    for ours, theirs in zip(elements(dataset), elements(again), strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        np.testing.assert_array_equal(ours["boxes"], theirs["boxes"])


def test_by_name_from_a_folder_of_prepared_data(builder):
    dataset = from_tfds("tiny_voc", data_dir=str(builder.data_path.parents[1]))
    assert len(elements(dataset)) == 2


def test_given_names_order_the_labels_and_other_objects_are_dropped(builder):
    dataset = from_tfds(builder, class_names=["eel", "cat"])
    assert [(p.rule, p.value) for p in dataset.problems] == [(ex.UNKNOWN_CLASS, "dog")]
    assert by_id(dataset)["0.png"]["labels"].tolist() == [0]


def test_an_unknown_split_or_name_is_one_sentence(builder, tmp_path):
    with pytest.raises(InputError, match="no split 'test'; there: train"):
        from_tfds(builder, "test")
    with pytest.raises(InputError, match=r"cannot build 'no_such_data': Dataset \w+ not found$"):
        from_tfds("no_such_data", data_dir=str(tmp_path))
    with pytest.raises(InputError, match=r"cannot build 'voc/x': BuilderConfig x not found.*None$"):
        from_tfds("voc/x", data_dir=str(tmp_path))


def test_without_a_network_the_host_is_named_soon_and_nothing_is_left(
    tmp_path, monkeypatch, caplog
):
    from tensorflow_datasets.core.download import downloader

    monkeypatch.setattr(tfds_reader, "_RETRIES", 2)
    with pytest.raises(InputError, match=r"not be prepared there: 127\.0\.0\.1 cannot be reached$"):
        from_tfds("no_network", data_dir=str(tmp_path))
    assert not [r for r in caplog.records if r.name.startswith("urllib3")]
    assert (tmp_path / "downloads").is_dir()
    assert not list(tmp_path.rglob("*.tmp.*"))
    assert downloader.MAX_RETRIES == 10, "for others as it was"


def test_a_part_of_a_file_is_not_removed_but_named(tmp_path):
    for folder in ("a.zip.tmp.1", "b.zip.tmp.2"):
        (tmp_path / folder).mkdir()
    (tmp_path / "b.zip.tmp.2" / "b.zip").write_bytes(b"half")
    left = tfds_reader._swept({tmp_path / "a.zip.tmp.1", tmp_path / "b.zip.tmp.2"})
    assert left == str(tmp_path / "b.zip.tmp.2")
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip.tmp.2"]


def test_a_builder_without_boxes_is_no_detection_data(builder, tmp_path):
    made = NoBoxes(data_dir=tmp_path)
    with pytest.raises(InputError, match="no split 'train'; there: none"):
        from_tfds(made)
    made.download_and_prepare()
    with pytest.raises(InputError, match=r"no detection data: .* but image, label$"):
        from_tfds(made)


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match="pip install tensorflow-datasets"):
        from_tfds("voc/2007")
