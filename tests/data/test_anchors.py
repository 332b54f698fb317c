"""Dimension clusters, held against slow loops, sizes worked out by hand, and real data."""

import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from kerasdet.cli import main
from kerasdet.data import anchors, clusters, from_coco, from_voc
from kerasdet.data.example import Inspector, Row, make_record
from kerasdet.data.stream import to_dataset
from kerasdet.errors import InputError


def slow_iou(one, other):
    """IoU of two boxes about one centre, given as width and height."""
    (w, h), (v, g) = one, other
    shared = min(w, v) * min(h, g)
    return shared / (w * h + v * g - shared)


def slow_average(sizes, chosen):
    return sum(max(slow_iou(size, anchor) for anchor in chosen) for size in sizes) / len(sizes)


def record(number, height, width, boxes, crowd=()):
    rows = [Row(box, 0, crowd=k in crowd) for k, box in enumerate(boxes)]
    return make_record(str(number), "", height=height, width=width, rows=rows)


@pytest.fixture
def sizes(rng):
    """Two hundred boxes in three clumps of unequal number, with some of the same size."""
    middles = [(20, 60)] * 110 + [(80, 30)] * 60 + [(150, 170)] * 30
    return np.round(np.array(middles) * np.exp(rng.normal(0, 0.15, (200, 2))))


def test_average_iou_is_the_slow_loops(sizes, rng):
    chosen = rng.uniform(10, 200, (4, 2))
    assert anchors.average_iou(sizes, chosen) == pytest.approx(slow_average(sizes, chosen))


def test_iou_by_hand():
    # A wide 8x2 and a tall 4x4 share 4x2 = 8 of 16 + 16 - 8 = 24.
    assert anchors.average_iou(np.array([(8, 2)]), np.array([(4, 4), (100, 100)])) == pytest.approx(
        8 / 24
    )


def places(boxes):
    """Where the centroid of a cluster may be: at the boxes' mean or median (of two the lower)."""
    middle = np.sort(boxes, axis=0)[(len(boxes) - 1) // 2]
    return [np.mean(boxes, axis=0), middle]


def test_the_best_two_of_few_boxes_are_found():
    sizes = np.array([(10, 10), (12, 10), (11, 12), (40, 20), (44, 22), (90, 80)])
    found = anchors.k_means(sizes, 2)
    assert found.average_iou == pytest.approx(slow_average(sizes, found.anchors))
    # Every way to split six boxes in two, each part by its mean or median.
    best = 0.0
    for count in range(1, 6):
        for part in map(list, itertools.combinations(range(6), count)):
            rest = [n for n in range(6) if n not in part]
            for chosen in itertools.product(places(sizes[part]), places(sizes[rest])):
                best = max(best, slow_average(sizes, chosen))
    assert found.average_iou >= best - 1e-9


def test_three_clumps_are_three_clusters(sizes):
    found = anchors.k_means(sizes, 3)
    np.testing.assert_allclose(found.anchors, [(20, 60), (80, 30), (150, 170)], rtol=0.1)
    nearest = np.array([np.argmax([slow_iou(size, a) for a in found.anchors]) for size in sizes])
    assert np.bincount(nearest).tolist() == [110, 60, 30]
    # Neither mean nor median of a cluster's boxes would overlap them more.
    for number, anchor in enumerate(found.anchors):
        boxes = sizes[nearest == number]
        for place in places(boxes):
            assert slow_average(boxes, [place]) <= slow_average(boxes, [anchor]) + 1e-9


def test_few_large_boxes_do_not_draw_an_anchor_off():
    sizes = np.array([(10, 10), (11, 10), (10, 11), (200, 200)])
    assert anchors.k_means(sizes, 1).anchors.max() < 12  # their mean is 58


def test_boxes_of_one_size_count_as_often_as_there_are():
    often = np.array([(10, 10)] * 7 + [(30, 30)] * 2 + [(14, 14)])
    assert anchors.k_means(often, 1).anchors.tolist() == [[10, 10]]
    seldom = np.array([(10, 10)] * 2 + [(30, 30)] * 7 + [(14, 14)])
    assert anchors.k_means(seldom, 1).anchors.tolist() == [[30, 30]]


def test_as_many_clusters_as_sizes_fit_exactly():
    sizes = np.array([(3, 5), (3, 5), (9, 4), (20, 20)])
    found = anchors.k_means(sizes, 3)
    assert found.anchors.tolist() == [[3, 5], [9, 4], [20, 20]]
    assert found.average_iou == 1.0


def test_the_seed_decides_and_more_starts_never_fit_worse(sizes):
    one, same = (anchors.k_means(sizes, 6, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.anchors, same.anchors)
    single = [anchors.k_means(sizes, 6, seed=seed, starts=1).average_iou for seed in range(8)]
    best = [anchors.k_means(sizes, 6, seed=seed, starts=9).average_iou for seed in range(8)]
    assert len(set(single)) > 1
    assert (np.array(best) >= np.array(single)).all()


def test_a_cluster_that_loses_its_boxes_gets_others():
    sizes = np.array([(10.0, 10.0), (11, 11), (12, 12), (100, 10)])
    weights = np.ones(4)
    lost = np.array([(11.0, 11.0), (1e6, 1e6)])  # no box is nearer to the second one
    found = anchors._iterated(sizes, weights, lost)
    assert sorted(map(tuple, found.anchors)) == [(11, 11), (100, 10)]


def test_sizes_that_differ_by_rounding_alone_are_clustered():
    sizes = np.array([(10.0, 10.0), (np.nextafter(10.0, 11), 10.0), (10.0, np.nextafter(10, 11))])
    assert anchors.k_means(sizes, 3).average_iou == pytest.approx(1.0)


def test_a_large_set_is_started_on_a_sample_and_measured_whole(sizes, rng, monkeypatch):
    sizes = sizes + rng.uniform(0, 1, sizes.shape)
    whole = anchors.k_means(sizes, 3)
    monkeypatch.setattr(anchors, "_SAMPLE", 120)
    monkeypatch.setattr(anchors, "_CHUNK", 50)
    found = anchors.k_means(sizes, 3)
    assert found.average_iou == pytest.approx(slow_average(sizes, found.anchors))
    np.testing.assert_allclose(found.anchors, whole.anchors, rtol=0.05)


def test_sizes_are_those_the_network_sees():
    records = [
        record(0, 100, 200, [(0, 0, 50, 20), (10, 10, 20, 90)]),
        record(1, 300, 150, [(0, 0, 30, 60), (0, 0, 150, 300)], crowd=(1,)),
        record(2, 50, 50, []),
    ]
    # 200x100 letterboxed into 416x416 is 416x208: 2.08 both ways; 150x300 becomes 208x416.
    boxed = anchors.box_sizes(records, image_size=(416, 416))
    np.testing.assert_allclose(
        boxed, [(50 * 2.08, 20 * 2.08), (10 * 2.08, 80 * 2.08), (30 * 208 / 150, 60 * 416 / 300)]
    )
    warped = anchors.box_sizes(records, image_size=(416, 608), resize="warp")
    np.testing.assert_allclose(
        warped,
        [(50 * 3.04, 20 * 4.16), (10 * 3.04, 80 * 4.16), (30 * 608 / 150, 60 * 416 / 300)],
    )


def test_a_stream_without_records_gives_the_same_sizes():
    records = [record(n, 40, 60, [(0, 0, 7 + n, 20), (1, 2, 30, 9)], crowd=(n,)) for n in range(3)]
    examples = to_dataset(
        records, ["cell"], Inspector(), "made", pixels=lambda _: np.zeros((40, 60, 3), np.uint8)
    )
    bare = examples.map(lambda example: example)
    np.testing.assert_allclose(
        anchors.box_sizes(bare, image_size=(64, 96)),
        anchors.box_sizes(examples, image_size=(64, 96)),
    )


def test_curve_table_and_cells_agree(sizes):
    boxes = [record(n, 416, 416, [(0, 0, *size)]) for n, size in enumerate(sizes)]
    found = clusters(boxes, 2, max_clusters=4, others={"mine": [(1, 2), (3, 4), (5, 5)]})
    np.testing.assert_allclose(found.cells * 32, found.pixels)
    assert list(found.curve) == [1, 2, 3, 4]
    assert found.curve[2] == found.average_iou == anchors.average_iou(sizes, found.pixels)
    assert list(found.curve.values()) == sorted(found.curve.values())
    mine = slow_average(sizes, [(32, 64), (96, 128), (160, 160)])
    assert found.others == {"mine": (3, pytest.approx(mine))}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(found)
    text = console.export_text()
    for words in (f"{found.curve[4]:.3f}", f"{mine:.3f}", f"{found.cells[1, 0]:.5g}", "200 boxes"):
        assert words in text


def test_the_curve_ends_where_sizes_run_out():
    boxes = [record(n, 416, 416, [(0, 0, 10 + 5 * (n % 3), 20)]) for n in range(12)]
    assert list(clusters(boxes, 2).curve) == [1, 2, 3]


def test_plot_shows_the_curve(sizes, tmp_path):
    boxes = [record(n, 416, 416, [(0, 0, *size)]) for n, size in enumerate(sizes)]
    found = clusters(boxes, 3, max_clusters=4, others={"mine": [(1, 2)]})
    with Image.open(found.plot(tmp_path / "new" / "clusters.png")) as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    with pytest.raises(InputError, match="cannot be written to"):
        found.plot(tmp_path / "clusters.doc")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": 4}, "4 clusters want 4 boxes of different sizes, and data has 3"),
        ({"k": 0}, "whole numbers above 0"),
        ({"resize": "crop"}, "letterbox or warp, not 'crop'"),
        ({"image_size": 0}, "image_size wants whole numbers above 0"),
        ({"others": {"odd": [(1, 2), (0, 3)]}}, "anchors 'odd' want pairs"),
        ({"others": {"odd": [1, 2]}}, "anchors 'odd' want pairs"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words):
    boxes = [record(n, 416, 416, [(0, 0, 10 + 5 * (n % 3), 20)]) for n in range(12)]
    with pytest.raises(InputError, match=words):
        clusters(boxes, **{"k": 2, **arguments})


def test_no_boxes_and_no_detection_data_are_refused():
    with pytest.raises(InputError, match="has no boxes"):
        clusters([record(0, 40, 60, [])])
    with pytest.raises(InputError, match="not classification data"):
        clusters([("image", "path", 3)])


def test_bccd_and_coco_fit_their_own_clusters_best(shared_data):
    released = {"voc": [(1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892),
                        (9.47112, 4.84053), (11.2364, 10.0071)]}  # fmt: skip
    cells = clusters(from_voc(shared_data / "bccd" / "BCCD", "train"), 5, others=released)
    # 205 photos of 640x480: 0.65 of their size. RBC are near 103x101 pixels, platelets near 40x40.
    assert len(cells.sizes) == 2804
    assert cells.average_iou > 0.84
    assert cells.others["voc"][1] < 0.6
    np.testing.assert_allclose(cells.pixels[0], [0.65 * 40, 0.65 * 40], rtol=0.1)

    folder = shared_data / "coco128"
    coco = clusters(
        from_coco(
            folder / "annotations" / "instances_train2017.json", folder / "images" / "train2017"
        ),
        5,
        others=released,
    )
    # Everyday photos hold boxes of all sizes; on VOC the paper has 0.61 (table 1).
    assert len(coco.sizes) == 929
    assert 0.54 < coco.average_iou < 0.6
    assert coco.average_iou > coco.others["voc"][1] + 0.05
    assert coco.curve[9] > coco.curve[5] + 0.04


def test_the_shell_prints_plots_and_writes(capsys, tmp_path):
    json_path, plot = tmp_path / "new" / "a.json", tmp_path / "a.png"
    spec = "shapes:train?count=40&size=96x128"
    arguments = ["data", "anchors", spec, "--clusters", "3", "--max-clusters", "4"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--plot", str(plot), "--json", str(json_path), "--image-size", "320"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    written = json.loads(json_path.read_text())
    assert written["image_size"] == [320, 320]
    assert len(written["anchors_cells"]) == 3
    assert f"{written['average_iou_by_clusters']['4']:.3f}" in out
    assert f"{written['others']['YOLOv2 voc']['average_iou']:.3f}" in out
    assert plot.stat().st_size > 10_000
    with pytest.raises(SystemExit) as ended:
        main(["data", "anchors", "shapes:train?count=2&objects=1", "--clusters", "9"])
    assert ended.value.code == 2
    assert "9 clusters want 9 boxes of different sizes" in capsys.readouterr().err
