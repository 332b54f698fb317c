"""The WordTree: reading, groups, paths, maps, descent; and what is wrong with a bad one."""

import json

import numpy as np
import pytest

from kerasdet.errors import InputError
from kerasdet.word_tree import WordTree
from tests import small

TREE = small.animals_and_things()
NAMES = ["animal", "thing", "dog", "cat", "bird", "car", "boat", "terrier", "poodle", "taxi"]


@pytest.fixture(scope="module")
def real(shared_data):
    folder = shared_data / "darknet" / "data"
    return WordTree.from_darknet(folder / "9k.tree", folder / "9k.names")


# ---------------------------------------------------------------------- groups and paths


def test_nodes_stand_level_by_level_and_siblings_together():
    assert TREE.names == NAMES
    assert TREE.parents.tolist() == [-1, -1, 0, 0, 0, 1, 1, 2, 2, 5]
    assert TREE.groups.tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 4]
    assert TREE.group_offsets.tolist() == [0, 2, 5, 7, 9]
    assert TREE.group_sizes.tolist() == [2, 3, 2, 2, 1]
    assert TREE.group_parents.tolist() == [-1, 0, 1, 2, 5]
    assert TREE.child_groups.tolist() == [1, 2, 3, -1, -1, 4, -1, -1, -1, -1]
    assert TREE.depths.tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    assert [TREE[leaf] for leaf in TREE.leaves] == [
        "cat",
        "bird",
        "boat",
        "terrier",
        "poodle",
        "taxi",
    ]
    assert TREE.paths[[8, 3]].tolist() == [[0, 2, 8], [0, 3, -1]]


def test_path_children_and_the_lowest_common_node():
    assert TREE.path("poodle") == [0, 2, 8]
    assert TREE.path_names(9) == ["thing", "car", "taxi"]
    assert TREE.path(0) == [0]
    assert [TREE[node] for node in TREE.children("dog")] == ["terrier", "poodle"]
    assert TREE.children("cat") == []
    assert TREE.lowest_common("terrier", "poodle") == 2
    assert TREE.lowest_common("poodle", "dog") == 2
    assert TREE.lowest_common("poodle", "bird") == 0
    assert TREE.lowest_common("poodle", "taxi") is None


def test_the_real_tree_has_the_release_s_numbers(real):
    """cfg/yolo9000.cfg: classes=9418; the rest counted in the file by hand."""
    assert len(real) == 9418
    assert len(real.group_sizes) == 1846
    assert [real[node] for node in range(4)] == [
        "thing",
        "matter",
        "object",
        "atmospheric phenomenon",
    ]
    assert (real.parents == -1).sum() == real.group_sizes[0] == 4
    assert len(real.leaves) == 7573
    assert (real.group_sizes == 1).sum() == 46
    assert real.group_sizes.max() == 149
    assert real[real.group_parents[np.argmax(real.group_sizes)]] == "herb"
    assert real.depths.max() == 16
    assert real.path_names("Norfolk terrier")[-4:] == [
        "dog",
        "hunting dog",
        "terrier",
        "Norfolk terrier",
    ]
    assert real.wnids[0] == "n00002452"


def test_the_maps_lead_from_coco_and_imagenet_to_nodes(real, shared_data):
    folder = shared_data / "darknet" / "data"
    coco = real.read_map(folder / "coco9k.map")
    labels = (folder / "coco.names").read_text().split("\n")
    assert len(coco) == 80
    assert real[coco[0]] == "person"
    assert real[coco[labels.index("dog")]] == "dog"
    assert coco[9] == 2645  # traffic light
    imagenet = real.read_map(folder / "inet9k.map")
    assert len(imagenet) == 200
    assert imagenet[:3].tolist() == [2687, 4107, 8407]


# ---------------------------------------------------------------------- making one


def test_roots_may_be_left_out_or_written_as_none():
    short = WordTree.from_parents({"terrier": "dog", "dog": "animal", "cat": "animal"})
    assert short.names == ["animal", "dog", "cat", "terrier"]
    assert short == WordTree.from_parents(
        {"animal": None, "terrier": "dog", "dog": "animal", "cat": "animal"}
    )


def test_a_parent_that_is_not_written_is_an_error_where_roots_are():
    with pytest.raises(InputError, match="'dgo' of 'terrier' is not in the tree"):
        WordTree.from_parents({"animal": None, "dog": "animal", "terrier": "dgo"})


def test_two_lists_join_in_one_tree():
    tree = WordTree.joined(
        ["dog", "cat", "kite"], ["terrier", "cat", "tabby"],
        parents={"terrier": "dog", "tabby": "cat", "dog": "animal", "cat": "animal"},
    )  # fmt: skip
    assert tree.names == ["kite", "animal", "dog", "cat", "terrier", "tabby"]
    assert tree.nodes(["dog", "cat", "kite"]).tolist() == [2, 3, 0]
    assert tree.path_names("tabby") == ["animal", "cat", "tabby"]
    assert WordTree.joined(["a", "b"], ["b", "c"]).parents.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("detection", "parents", "message"),
    [
        (["dog", "dog"], {}, "'dog' twice"),
        (["dog"], {"terier": "dog"}, "'terier' has the parent 'dog', but it is in neither list"),
        (["dog"], {"dog": "animal", "animal": "dog"}, "circle: animal -> dog -> animal"),
    ],
)
def test_lists_that_do_not_join_are_refused(detection, parents, message):
    with pytest.raises(InputError, match=message):
        WordTree.joined(detection, ["terrier"], parents=parents)


def test_json_of_parents_is_read(tmp_path):
    path = tmp_path / "tree.json"
    path.write_text(json.dumps({"dog": "animal", "animal": None, "terrier": "dog"}))
    assert WordTree.from_json(path).path_names("terrier") == ["animal", "dog", "terrier"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Wanted JSON of parents in .*bad.json"),
        ("[" * 100_000, "Wanted JSON of parents in .*bad.json"),
        ('["dog"]', "not list"),
        ('{"dog": null, "dog": null}', "bad.json: 'dog' stands there twice"),
        ('{"dog": 3}', "names, not 'dog' below 3"),
        ('{"dog": "cat", "cat": "dog"}', "bad.json: The tree goes in a circle: cat -> dog -> cat"),
        ('{"a": null, "b": "c"}', "parent 'c' of 'b'"),
        ("{}", "at least one node"),
    ],
)
def test_bad_json_is_one_sentence(text, message, tmp_path):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InputError, match=message):
        WordTree.from_json(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("a -1\nb 2\nc 1\n", "Node 1 stands above itself: 1 -> 2 -> 1"),
        ("a 0\n", "Node 0 stands above itself: 0 -> 0"),
        ("a -1\nb 2\nc 0\n", "Node 1 stands before its parent 2"),
        ("a -1\nb 0\nc -1\n", "the roots stand apart"),
        ("a -1\nb -1\nc 0\nd 1\ne 0\n", "the children of node 0 \\(a\\) stand apart"),
        ("a -1\nb 7\n", "Node 1 has the parent 7, but the tree's nodes are 0 to 1"),
        ("a -1\nb -2\n", "Node 1 has the parent -2"),
        ("a -1\nb\n", "not 'b': .*bad.tree, line 2"),
        ("a -1\nb x\n", "not 'b x': .*bad.tree, line 2"),
        ("a -1\nb " + "9" * 5000, "line 2"),
        ("", "not '': .*bad.tree, line 1"),
    ],
)
def test_a_bad_tree_file_is_one_sentence(tree, message, tmp_path):
    (tmp_path / "bad.tree").write_text(tree)
    with pytest.raises(InputError, match=message):
        WordTree.from_darknet(tmp_path / "bad.tree")


def test_names_of_another_length_are_refused(tmp_path):
    (tmp_path / "t.tree").write_text("n1 -1\nn2 0\n")
    (tmp_path / "t.names").write_text("animal\ndog\ncat\n")
    with pytest.raises(InputError, match=r"t.names has 3 and .*t.tree has 2"):
        WordTree.from_darknet(tmp_path / "t.tree", tmp_path / "t.names")


def test_files_that_are_no_text_or_not_there_are_refused(tmp_path):
    (tmp_path / "t.tree").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="UTF-8"):
        WordTree.from_darknet(tmp_path / "t.tree")
    with pytest.raises(InputError, match=r"Cannot read .*none\.tree"):
        WordTree.from_darknet(tmp_path / "none.tree")


@pytest.mark.parametrize(
    ("names", "parents", "wnids", "message"),
    [
        (["a", "b"], [-1], None, "as many names as parents, not 2 and 1"),
        (["a"], [-1], ["n1", "n2"], "as many wnids as names, not 2 and 1"),
        ([], [], None, "at least one node"),
    ],
)
def test_lists_of_different_lengths_are_refused(names, parents, wnids, message):
    with pytest.raises(InputError, match=message):
        WordTree(names, parents, wnids=wnids)


# ---------------------------------------------------------------------- finding nodes


def test_nodes_are_found_by_number_wnid_and_name(tmp_path):
    (tmp_path / "t.tree").write_text("n1 -1\nn2 -1\nn3 0\nn4 1\n")
    (tmp_path / "t.names").write_text("bird\nmachine\ncrane\ncrane\n")
    tree = WordTree.from_darknet(tmp_path / "t.tree", tmp_path / "t.names")
    assert tree.nodes([2, "n4", "machine", np.int64(0)]).tolist() == [2, 3, 1, 0]
    with pytest.raises(InputError, match="'crane' 2 times, at nodes 2, 3"):
        tree.node("crane")
    with pytest.raises(InputError, match="no node 'owl'"):
        tree.node("owl")
    for out in (4, -1):
        with pytest.raises(InputError, match=f"from 0 to 3, not {out}"):
            tree.node(out)


def test_a_map_may_hold_numbers_or_names_and_its_faults_have_lines(tmp_path):
    path = tmp_path / "set.map"
    path.write_text("3\npoodle\n 0\n")
    assert TREE.read_map(path).tolist() == [3, 8, 0]
    path.write_text("3\n10\n")
    with pytest.raises(InputError, match=r"set\.map, line 2: Wanted a node from 0 to 9, not 10"):
        TREE.read_map(path)


# ---------------------------------------------------------------------- probabilities


def test_absolute_probability_is_the_product_along_the_path(rng):
    conditional = rng.uniform(size=(2, 10))
    absolute = TREE.absolute(conditional)
    for row in range(2):
        for node in range(10):
            expected = np.prod([conditional[row, above] for above in TREE.path(node)])
            assert absolute[row, node] == pytest.approx(expected)


#                     animal thing  dog   cat    bird   car boat terrier poodle taxi
CONDITIONAL = np.array([0.75, 0.25, 0.75, 0.125, 0.125, 0.3, 0.7, 0.75, 0.25, 1.0])


@pytest.mark.parametrize(
    ("threshold", "name", "probability"),
    [
        (0.8, "animal", 0.75),  # not even sure of a root: the likeliest
        (0.7, "animal", 0.75),
        (0.5625, "animal", 0.75),  # 0.75 * 0.75 is not above
        (0.5, "dog", 0.75**2),
        (0.4, "terrier", 0.75**3),
        (0.0, "terrier", 0.75**3),
    ],
)
def test_descent_ends_at_the_deepest_sure_node(threshold, name, probability):
    node, found = TREE.descend(CONDITIONAL, threshold=threshold)
    assert (TREE[node], found) == (name, pytest.approx(probability))


def test_from_one_half_on_descent_finds_the_deepest_of_all_sure_nodes(real, rng):
    """No two siblings are both above one half, so the sure nodes make one path."""
    depths = []
    for _ in range(40):
        logits = rng.normal(0, 8, len(real))
        odds = np.exp(logits - logits.max())
        conditional = odds / np.bincount(real.groups, odds)[real.groups]
        sure = np.flatnonzero(real.absolute(conditional) > 0.5)
        node, _ = real.descend(conditional)
        if len(sure):
            assert node == sure[np.argmax(real.depths[sure])]
            depths.append(real.depths[node])
    assert len(set(depths)) > 3


def test_a_config_makes_the_same_tree():
    config = json.loads(json.dumps(TREE.get_config()))
    assert WordTree.from_config(config) == TREE
    assert WordTree.from_config(config) != WordTree.from_parents({"dog": "animal"})


def test_a_tree_is_written_as_darknet_reads_it(tmp_path):
    tree = WordTree.from_parents({"dog": "animal", "cat": "animal", "Norfolk  terrier": "dog"})
    assert tree.darknet_text() == "animal -1\ndog 0\ncat 0\nNorfolk_terrier 1\n"
    wnids = WordTree(["a", "b b"], [-1, 0], wnids=["n1", "n2"])
    assert wnids.darknet_text() == "n1 -1\nn2 0\n"
    long = WordTree(["x" * 300, ""], [-1, -1])
    assert long.darknet_text() == f"{'x' * 255} -1\n_ -1\n"


def test_the_released_tree_is_written_as_it_was_read(shared_data):
    file = shared_data / "darknet" / "data" / "9k.tree"
    text = WordTree.from_darknet(file).darknet_text()
    assert text.split() == file.read_text().split()


def test_a_file_of_names_that_are_numbers_is_of_names(tmp_path):
    tree = WordTree.from_parents({"digit": None, "letter": None, "0": "digit", "1": "digit"})
    file = tmp_path / "nodes.txt"
    file.write_text("0\n1\n")
    assert tree.read_map(file).tolist() == [2, 3]
    file.write_text("0\n3\n")  # no node is called 3
    assert tree.read_map(file).tolist() == [0, 3]


def test_a_word_is_no_list_of_names_to_join():
    with pytest.raises(InputError, match="two lists of names, not 'dog'"):
        WordTree.joined("dog", ["cat"])


def test_a_mark_in_front_of_a_file_is_no_part_of_it(tmp_path):
    file = tmp_path / "tree.json"
    file.write_text('{"dog": null}', encoding="utf-8-sig")
    assert WordTree.from_json(file).names == ["dog"]
