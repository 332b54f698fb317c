import io
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import kerasdet.evaluation as evaluation_package
from kerasdet.classes import COCO_NAMES, VOC_NAMES
from kerasdet.data import shapes
from kerasdet.errors import InputError
from kerasdet.evaluation import evaluate
from kerasdet.evaluation.inputs import known_length, matched_classes
from kerasdet.word_tree import WordTree
from tests import small

NAMES = ["cat", "dog", "bird"]
HERE, THERE, FAR = [2, 2, 22, 22], [30, 5, 50, 25], [10, 25, 30, 38]


@pytest.fixture
def case(rote):
    """Five images: found, half found, without objects, without detections, of another size."""
    examples = [
        rote.example(0, boxes=[HERE], labels=[0]),
        rote.example(1, boxes=[HERE, THERE], labels=[1, 0]),
        rote.example(2),
        rote.example(3, boxes=[FAR], labels=[2]),
        rote.example(4, boxes=[[40, 30, 90, 70]], labels=[1], size=(80, 100)),
    ]
    answers = {
        0: [(HERE, 0.9, 0)],
        1: [(HERE, 0.8, 1), (FAR, 0.3, 0)],
        2: [(THERE, 0.95, 1)],
        4: [([40, 30, 90, 70], 0.7, 1)],
    }
    return rote.RoteModel(answers), examples


def test_counts_every_image_and_class_by_hand(case, rote):
    model, examples = case
    result = evaluate(model, rote.data_set(examples, class_names=NAMES), progress=False)
    # cat: 1 of 2 found, nothing wrong before it. dog: wrong, right, right. bird: not found.
    expected = [1 / 2, 1 / 2 * 2 / 3 + 1 / 2 * 2 / 3, 0]
    assert [one.metrics["AP50"] for one in result.classes] == pytest.approx(expected)
    assert result.metrics == {"AP50": pytest.approx(sum(expected) / 3)}
    assert [one.objects for one in result.classes] == [2, 2, 1]
    assert [one.detections for one in result.classes] == [2, 3, 0]
    assert [one.image_id for one in result.images] == [f"image-{i}" for i in range(5)]
    assert result.images[4].size == (80, 100)
    assert result.class_names == NAMES
    assert result.data == "rote"


def test_examples_may_be_any_iterable_of_dicts(case, rote):
    model, examples = case
    from_list = evaluate(model, examples, progress=False)
    from_data_set = evaluate(model, rote.data_set(examples), progress=False)
    assert from_list.metrics == from_data_set.metrics


@pytest.mark.parametrize("rule", ["voc07", "voc10", "coco"])
def test_perfect_detections_score_one_by_every_rule(rote, rule):
    examples = [rote.example(i, boxes=[HERE, THERE], labels=[i % 3, 0]) for i in range(6)]
    answers = {i: [(HERE, 0.9, i % 3), (THERE, 0.8, 0)] for i in range(6)}
    result = evaluate(rote.RoteModel(answers), examples, rule=rule, progress=False)
    assert result.metrics["AP50"] == pytest.approx(1)
    assert [one.metrics["AP50"] for one in result.classes] == pytest.approx([1, 1, 1])


def test_images_reach_detect_whole_in_groups_with_the_settings(case):
    model, examples = case
    evaluate(
        model, examples, batch_size=2, score_threshold=0.2, iou_threshold=0.6, max_detections=7,
        progress=False,
    )  # fmt: skip
    small, large = (40, 60, 3), (80, 100, 3)
    assert [shapes for shapes, _ in model.calls] == [[small, small], [small, small], [large]]
    expected = {"score_threshold": 0.2, "iou_threshold": 0.6, "max_detections": 7}
    assert all(settings == expected for _, settings in model.calls)


def test_stops_after_max_images_and_reads_no_more(case):
    model, examples = case

    def endless():
        yield from examples[:2]
        raise AssertionError("a third image was read")

    result = evaluate(model, endless(), max_images=2, progress=False)
    assert len(result.images) == 2


def test_images_are_not_kept(case):
    model, examples = case
    result = evaluate(model, examples, progress=False)
    held = [value for one in result.images for group in one[3:] for value in group]
    assert max(value.size for value in held) <= 8  # two boxes at most


def test_how_many_images_a_reader_has_is_known_for_the_bar(rote):
    assert known_length(shapes(3, image_size=32)) == 3
    assert known_length(rote.data_set([rote.example(0)])) is None
    assert known_length([rote.example(0)] * 2) == 2


def test_other_names_are_an_error_that_shows_both_lists(case, rote):
    model, examples = case
    data = rote.data_set(examples, class_names=["cat", "Dog", "bird"])
    with pytest.raises(InputError) as caught:
        evaluate(model, data, progress=False)
    lines = str(caught.value).splitlines()
    assert "'Dog'" in lines[0]
    assert lines[1].split() == ["label", "data", "model"]
    assert lines[2].split() == ["0", "cat", "cat"]
    assert lines[3].split() == ["1", "Dog", "dog", "<-", "differs"]
    assert not model.calls


def test_lists_of_unequal_length_are_shown_to_their_end(case, rote):
    model, examples = case
    with pytest.raises(InputError, match="match_names=True") as caught:
        evaluate(model, rote.data_set(examples, class_names=["cat", "dog"]), progress=False)
    assert str(caught.value).splitlines()[-1].split() == ["2", "-", "bird", "<-", "differs"]


def test_match_names_evaluates_a_permuted_subset_in_its_own_labels(rote):
    # The data knows only bird (its 0) and cat (its 1).
    examples = [
        rote.example(0, boxes=[HERE, THERE], labels=[0, 1]),
        rote.example(1, boxes=[FAR], labels=[1]),
    ]
    answers = {0: [(HERE, 0.9, 2), (THERE, 0.8, 0), (FAR, 0.99, 1)], 1: [(HERE, 0.95, 1)]}
    data = rote.data_set(examples, class_names=["bird", "cat"])
    model = rote.RoteModel(answers)
    with pytest.raises(InputError):
        evaluate(model, data, progress=False)
    result = evaluate(model, data, match_names=True, progress=False)
    assert result.class_names == ["bird", "cat"]
    assert [one.metrics["AP50"] for one in result.classes] == pytest.approx([1, 1 / 2])
    assert [one.detections for one in result.classes] == [1, 1]  # those of dog are left out


def test_match_names_leaves_out_what_only_the_data_has(rote):
    """The data: bird, fish, cat; the model: cat, dog, bird. Fish are nobody's to find."""
    examples = [
        rote.example(0, boxes=[HERE, THERE, FAR], labels=[1, 2, 0]),
        rote.example(1, boxes=[FAR], labels=[1]),
    ]
    answers = {
        0: [(THERE, 0.9, 0), (FAR, 0.8, 2), (HERE, 0.7, 1)],
        1: [(FAR, 0.95, 0), (FAR, 0.5, 2)],  # a fish taken for a cat, and for a bird
    }
    data = rote.data_set(examples, class_names=["bird", "fish", "cat"])
    model = rote.RoteModel(answers)
    with pytest.raises(InputError, match=r"does not know 'fish'; match_names=True .* the 2 they"):
        evaluate(model, data, progress=False)
    result = evaluate(model, data, match_names=True, progress=False)
    assert result.class_names == ["bird", "cat"]
    assert [one.objects for one in result.classes] == [1, 1]
    assert [one.detections for one in result.classes] == [2, 2]
    assert [one.metrics["AP50"] for one in result.classes] == pytest.approx([1, 1 / 2])
    assert [one.truth.labels.tolist() for one in result.images] == [[1, 0], []]
    assert result.left_out == ["fish"]
    assert result.to_dict()["left_out"] == ["fish"]
    assert "1 of the data's classes left out (fish)" in result.summary()


def test_a_model_of_a_word_tree_answers_in_the_datas_classes(rote):
    """Asked for a flat list, it gives one; by match_names, for those that its tree has."""

    class Tree(rote.RoteModel):
        def for_classes(self, names):
            asked.append(names)
            return rote.RoteModel(self.answers, names)

    asked = []
    model = Tree({0: [(HERE, 0.9, 0)]}, class_names=["animal", "cat", "dog"])
    data = rote.data_set([rote.example(0, boxes=[HERE], labels=[1])], class_names=["fish", "cat"])
    result = evaluate(model, data, match_names=True, progress=False)
    assert asked == [["cat"]]
    assert result.class_names == ["cat"]
    assert result.metrics["AP50"] == pytest.approx(1)
    data.class_names = ["dog", "cat"]
    assert evaluate(model, data, progress=False).class_names == ["dog", "cat"]
    assert asked[1:] == [["dog", "cat"]]


def test_a_name_that_several_nodes_have_is_left_out_by_match_names(rote):
    tree = WordTree(["vehicle", "lift", "car", "truck", "car"], [-1, -1, 0, 0, 1])
    model = small.yolo9000(tree=tree)
    examples = [rote.example(0, boxes=[HERE, FAR], labels=[0, 2])]
    data = rote.data_set(examples, class_names=["car", "fish", "truck"])
    with pytest.raises(InputError, match="'car' 2 times"):
        evaluate(model, data, progress=False)
    result = evaluate(model, data, match_names=True, progress=False)
    assert result.class_names == ["truck"]
    assert result.classes[0].objects == 1
    assert result.left_out == ["car", "fish"]
    assert "2 of the data's classes left out (car, fish)" in result.summary()
    data.class_names = ["car", "fish", "ship"]
    with pytest.raises(
        InputError, match=r"no single node by the name of 'car', 'fish', 'ship': say"
    ):
        evaluate(model, data, match_names=True, progress=False)


def test_lists_that_share_nothing_cannot_be_matched(case, rote):
    model, examples = case
    data = rote.data_set(examples, class_names=["fish", "newt", "worm"])
    with pytest.raises(InputError, match="does not know 'fish', 'newt', 'worm'") as caught:
        evaluate(model, data, match_names=True, progress=False)
    assert "match_names" not in str(caught.value)
    assert "they share no name: give class_names=" in str(caught.value).splitlines()[0]
    renamed = evaluate(model, data, class_names=NAMES, progress=False)
    assert renamed.class_names == NAMES


def test_voc_and_coco_share_twenty_classes_whatever_their_words():
    """COCO's labels of VOC's twenty things, looked up in its list."""
    voc, coco = SimpleNamespace(class_names=VOC_NAMES), SimpleNamespace(class_names=COCO_NAMES)
    matched = matched_classes(voc, coco, match_names=True)
    assert len(matched.names) == 20
    assert len(matched.left_out) == 60
    pairs = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch"}
    pairs |= {"pottedplant": "potted plant", "diningtable": "dining table", "tvmonitor": "tv"}
    pairs |= {"person": "person", "train": "train"}
    for of_voc, of_coco in pairs.items():
        label = matched.names.index(of_coco)
        assert matched.from_model[VOC_NAMES.index(of_voc)] == label
        assert matched.from_data[COCO_NAMES.index(of_coco)] == label
    assert sorted(matched.from_model) == list(range(20))
    assert matched.from_data[COCO_NAMES.index("truck")] == -1
    back = matched_classes(coco, voc, match_names=True)
    assert back.names == list(VOC_NAMES)
    assert back.left_out == []


def test_names_can_be_given_where_a_map_lost_them(case, rote):
    model, examples = case
    plain = rote.data_set(examples, class_names=["x", "y", "z"]).map(lambda one: one)
    with pytest.raises(InputError, match="fish"):
        evaluate(model, plain, class_names=["cat", "dog", "fish"], progress=False)
    named = evaluate(model, plain, class_names=NAMES, progress=False)
    assert named.metrics == evaluate(model, plain, progress=False).metrics


def test_a_training_pipeline_is_refused_in_one_sentence(case):
    model, examples = case
    batch = (np.zeros((2, 8, 8, 3)), {"boxes": np.zeros((2, 1, 4)), "labels": np.zeros((2, 1))})
    with pytest.raises(InputError, match=r"unbatched examples .* a tuple came"):
        evaluate(model, [batch], progress=False)
    with pytest.raises(InputError, match=r"unbatched examples, .* \(1, 40, 60, 3\)"):
        evaluate(model, [{k: np.asarray(v)[None] for k, v in examples[0].items()}], progress=False)
    with pytest.raises(InputError, match="boxes and labels missing, image came"):
        evaluate(model, [{"image": examples[0]["image"]}], progress=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((HERE, math.nan, 0), "image image-0 has the score nan"),
        (([0, 0, math.inf, 5], 0.5, 0), "image image-0 has a box edge at inf"),
        ((HERE, 0.5, 3), "label 3; with 3 classes labels are 0 to 2"),
        ((HERE, 0.5, -1), "label -1"),
    ],
)
def test_odd_detections_are_an_error_that_names_the_image(rote, row, message):
    model = rote.RoteModel({0: [row]})
    with pytest.raises(InputError, match=message):
        evaluate(model, [rote.example(0, boxes=[HERE], labels=[0])], progress=False)


def test_an_object_beyond_the_models_classes_is_an_error(rote):
    with pytest.raises(InputError, match="object in image image-0 has the label 3"):
        evaluate(rote.RoteModel({}), [rote.example(0, boxes=[HERE], labels=[3])], progress=False)


def test_padded_rows_of_truth_are_no_objects(rote):
    padded = rote.example(0, boxes=[HERE, [0, 0, 0, 0]], labels=[0, -1])
    result = evaluate(rote.RoteModel({0: [(HERE, 0.9, 0)]}), [padded], progress=False)
    assert result.metrics == {"AP50": 1.0}
    assert result.classes[0].objects == 1


def test_nothing_to_evaluate_is_an_error_and_not_a_zero(rote):
    model = rote.RoteModel({})
    with pytest.raises(InputError, match="at least one image"):
        evaluate(model, [], progress=False)
    only_difficult = rote.example(0, boxes=[HERE], labels=[0], difficult=[True])
    with pytest.raises(InputError, match="at least one object to find; the 2 images"):
        evaluate(model, [rote.example(1), only_difficult], progress=False)
    with pytest.raises(InputError, match="voc10, voc07, coco"):
        evaluate(model, [rote.example(0)], rule="voc12", progress=False)


def test_json_is_strict_and_holds_the_numbers(rote):
    examples = [rote.example(0, boxes=[HERE, THERE], labels=[0, 1])]
    model = rote.RoteModel({0: [(HERE, 0.9, 0)]})
    result = evaluate(model, examples, rule="coco", progress=False)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    told = json.loads(result.to_json(), parse_constant=refuse)
    assert told["rule"] == "coco"
    assert (told["images"], told["objects"], told["detections"]) == (1, 2, 1)
    assert told["metrics"]["AP50"] == pytest.approx(1 / 2)
    assert told["metrics"]["AP_large"] is None  # no large object
    assert told["classes"][2] == {
        "name": "bird", "objects": 0, "detections": 0, "AP": None, "AP50": None, "AP75": None,
    }  # fmt: skip
    assert told["settings"]["score_threshold"] == 0.01


def test_prints_as_a_table_with_a_row_a_class(case):
    from rich.console import Console

    model, examples = case
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(evaluate(model, examples, progress=False))
    told = " ".join(console.export_text().split())
    assert "dog" in told
    assert "66.7" in told  # its AP50
    assert "VOC 2010" in told
    assert "5 images, 5 objects" in told


def test_names_that_look_like_markup_are_printed_as_they_are(rote):
    from rich.console import Console

    names = ["[/b]", "car [parked]", "[red]"]
    examples = [rote.example(0, boxes=[HERE], labels=[0])]
    model = rote.RoteModel({0: [(HERE, 0.9, 0)]}, names)
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(evaluate(model, examples, class_names=names, progress=False))
    told = console.export_text()
    assert all(name in told for name in names)


def test_progress_goes_to_stderr_and_only_if_wanted(case, capsys):
    model, examples = case
    evaluate(model, examples)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "5/5 images" in shown.err
    evaluate(model, examples, progress=False)
    assert capsys.readouterr() == ("", "")


def test_every_public_name_is_there():
    for name in evaluation_package.__all__:
        assert callable(getattr(evaluation_package, name)), name
    with pytest.raises(AttributeError, match="no attribute 'mean'"):
        evaluation_package.mean  # noqa: B018


def test_evaluating_needs_no_tensorflow():
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, kerasdet.evaluation as e\n"
            "light = set(sys.modules)\n"
            "e.evaluate, e.plot_mistakes, e.find_mistakes\n"
            "print('keras' in light, 'matplotlib' in light, 'tensorflow' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["False", "False", "False"]
