import hashlib
import string
from pathlib import Path

import pytest

from kerasdet import zoo
from kerasdet.classes import COCO_IDS, COCO_NAMES, COCO_NAMES_BY_ID, VOC_NAMES
from kerasdet.errors import InputError
from kerasdet.zoo import pretrained


def test_every_model_has_one_default_set_and_no_name_twice():
    for model in {row.model for row in pretrained.SETS}:
        rows = [row for row in pretrained.SETS if row.model == model]
        assert sum(row.default for row in rows) == 1
        assert len({row.name for row in rows}) == len(rows)
        assert pretrained.find(model) == next(row for row in rows if row.default)
        for row in rows:
            assert pretrained.find(model, row.name) == row
            assert row.name.isidentifier()  # a word, so that it is not taken for a path


def test_every_row_says_where_the_file_is_and_under_which_licence():
    for row in pretrained.SETS:
        source = row.source
        assert source.licence
        assert source.page.startswith("https://")
        assert source.url is None or Path(source.url).suffix == Path(source.file).suffix
        assert (source.member is not None) == source.file.endswith((".tar.gz", ".tgz"))
        assert (row.metric is None) == (not row.protocol)
        if source.sha256 is not None:
            assert len(source.sha256) in (8, 64)
            assert set(source.sha256) <= set(string.hexdigits.lower())


def test_files_of_one_name_are_one_file():
    """They lie in one folder: of two, the second would be taken for the first."""
    sources = {
        *(row.source for row in pretrained.SETS),
        *pretrained.TREE,
        *pretrained.NODES.values(),
    }
    files = {source._replace(member=None) for source in sources}  # an archive may hold several
    assert len({source.file for source in files}) == len(files)
    assert len({source.member or source.file for source in sources}) == len(sources)


def test_fast_rcnns_archives_have_the_md5s_of_its_scripts():
    """fetch_fast_rcnn_models.sh and fetch_imagenet_models.sh of rbgirshick/fast-rcnn."""
    for model in ("fast_rcnn_vgg16", "fast_rcnn_vgg_m_1024", "fast_rcnn_caffenet"):
        released, start = (pretrained.find(model, name).source for name in ("voc", "imagenet"))
        assert (released.file, released.md5[:8]) == ("fast_rcnn_models.tgz", "5f7dde9f")
        assert (start.file, start.md5[:8]) == ("imagenet_models.tgz", "8b1d4b9d")
        assert released.member.endswith("_fast_rcnn_iter_40000.caffemodel")
        assert start.member.endswith(".v2.caffemodel")


def test_older_hashes_have_their_length():
    for row in pretrained.SETS:
        assert row.source.sha1 is None or len(row.source.sha1) == 40
        assert row.source.md5 is None or len(row.source.md5) == 32


def test_a_hash_in_a_file_name_is_the_hash_of_the_table():
    for name in ("coco", "coco_mmdetection"):  # torchvision and mmdetection name files by it
        source = pretrained.find("ssd300", name).source
        assert source.file.removesuffix(".pth").rpartition("-")[2] == source.sha256[:8]


def test_darknets_tree_and_lists_have_the_hashes_of_its_repository(shared_data):
    for source in (*pretrained.TREE, *pretrained.NODES.values()):
        data = (shared_data / "darknet" / "data" / source.file).read_bytes()
        assert hashlib.sha1(data).hexdigest() == source.sha1


@pytest.mark.parametrize(
    ("ask", "argument"),
    [
        (lambda: zoo.yolo9000(), "tree="),
        (lambda: pretrained.fetch_nodes("coco"), "nodes="),
        (lambda: zoo.yolo_v2(pretrained=True), "pretrained="),
    ],
    ids=["tree", "nodes", "weights"],
)
def test_a_file_that_cannot_be_had_is_asked_for_by_the_argument_that_takes_it(
    ask, argument, tmp_path, monkeypatch
):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.utils.get_file", offline)
    with pytest.raises(
        InputError, match=rf"\(no network\); .*, or give its path as {argument}, in"
    ):
        ask()


def test_of_other_data_there_are_no_nodes():
    with pytest.raises(InputError, match="of coco, imagenet_det, not of 'voc'"):
        pretrained.fetch_nodes("voc")


def test_an_unknown_set_is_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"ssd300 has no pretrained set 'kitti'; it has 'coco',"):
        pretrained.find("ssd300", "kitti")


def test_a_summary_has_plain_values():
    summary = pretrained.find("ssd512").summary()
    assert (summary["model"], summary["set"], summary["metric"]) == ("ssd512", "coco", 29.5)
    assert summary["sha256"] == "0a47a1ca"


def test_class_lists_have_the_releases_counts_and_places():
    assert len(VOC_NAMES) == len(set(VOC_NAMES)) == 20
    assert list(VOC_NAMES) == sorted(VOC_NAMES)
    assert len(COCO_NAMES) == len(set(COCO_NAMES)) == len(COCO_IDS) == 80
    assert len(COCO_NAMES_BY_ID) == len(set(COCO_NAMES_BY_ID)) == 90
    # Ids from instances_val2017.json: person 1, stop sign 13, toilet 70, toothbrush 90.
    for name, coco_id in (("person", 1), ("stop sign", 13), ("toilet", 70), ("toothbrush", 90)):
        assert COCO_NAMES_BY_ID[coco_id - 1] == name
        assert COCO_IDS[COCO_NAMES.index(name)] == coco_id
    assert COCO_NAMES_BY_ID[12 - 1] == "unused 12"
