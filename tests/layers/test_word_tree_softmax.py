"""Probabilities in a tree against loops over its groups and paths, on the real tree and a small one."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.errors import InputError
from kerasdet.layers import WordTreeSoftmax
from kerasdet.layers.word_tree_softmax import descend, path_log_probability
from kerasdet.word_tree import WordTree
from tests import backend, small

TREE = small.animals_and_things()


@pytest.fixture(scope="module")
def real(shared_data):
    folder = shared_data / "darknet" / "data"
    return WordTree.from_darknet(folder / "9k.tree", folder / "9k.names")


def loop(logits, tree):
    """softmax_tree (darknet src/blas.c): group by group, in float64."""
    result = np.empty(logits.shape)
    for row in np.ndindex(logits.shape[:-1]):
        for offset, size in zip(tree.group_offsets, tree.group_sizes, strict=True):
            group = logits[row][offset : offset + size].astype("float64")
            odds = [math.exp(value - max(group)) for value in group]
            result[row][offset : offset + size] = np.array(odds) / sum(odds)
    return result


def run(logits, tree, **options):
    layer = WordTreeSoftmax(tree, **options)
    return ops.convert_to_numpy(backend.call(layer, logits))


def logits_of(tree, *shape, spread=3.0, seed=0):
    values = np.random.default_rng(seed).normal(0, spread, (*shape, len(tree)))
    return values.astype("float32")


def far_apart(tree):
    """The second half of the nodes lies 300 below the first, and the last group 3000."""
    logits = logits_of(tree, 2, 3)
    middle = tree.group_offsets[len(tree.group_offsets) // 2]
    logits[..., middle:] -= 300
    logits[0, ..., tree.group_offsets[-1] :] -= 3000
    return logits


def test_a_model_with_it_predicts_where_keras_would_compile_others_with_xla(monkeypatch):
    """As on a GPU with TensorFlow: XLA has no kernel for one of its operations."""
    if keras.backend.backend() == "tensorflow":
        machine = [SimpleNamespace(device_type="CPU"), SimpleNamespace(device_type="GPU")]
        monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda *kind: machine)
    inputs = keras.Input((5, len(TREE)))
    model = keras.Model(inputs, WordTreeSoftmax(TREE)(inputs))
    model.compile()
    logits = logits_of(TREE, 2, 5)
    np.testing.assert_allclose(model.predict(logits, verbose=0), loop(logits, TREE), atol=1e-6)


# ---------------------------------------------------------------------- given the parent


def test_by_hand():
    # Odds 1:3, 2:1:1, 1:4, 5:5 and a child alone.
    odds = [1, 3, 2, 1, 1, 1, 4, 5, 5, 7]
    expected = [1 / 4, 3 / 4, 2 / 4, 1 / 4, 1 / 4, 1 / 5, 4 / 5, 1 / 2, 1 / 2, 1]
    np.testing.assert_allclose(run(np.log([odds]).astype("float32"), TREE), [expected], rtol=1e-6)


def test_on_the_real_tree_each_of_the_1846_groups_sums_to_one(real):
    logits = logits_of(real, 1, 2, 1, 3)
    found = run(logits, real)
    sums = np.add.reduceat(found, real.group_offsets, axis=-1)
    assert sums.shape == (1, 2, 1, 3, 1846)
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    np.testing.assert_allclose(found, loop(logits, real), atol=1e-6)
    assert found.shape == logits.shape


@pytest.mark.parametrize("which", ["small", "real"])
def test_a_group_far_below_another_still_sums_to_one(which, request):
    tree = TREE if which == "small" else request.getfixturevalue("real")
    logits = far_apart(tree)
    found = run(logits, tree)
    np.testing.assert_allclose(np.add.reduceat(found, tree.group_offsets, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(found, loop(logits, tree), atol=1e-5)


def test_one_row_far_apart_leaves_the_others_right():
    logits = np.concatenate([logits_of(TREE, 4), far_apart(TREE)[0]])
    np.testing.assert_allclose(run(logits, TREE), loop(logits, TREE), atol=1e-5)


def test_logarithms_stay_finite_where_probabilities_vanish():
    logits = logits_of(TREE, 3)
    logits[:, 2] += 500  # dog; its siblings' probabilities are below any float32
    found = run(logits, TREE, log=True)
    for row, value in zip(logits.astype("float64"), found, strict=True):
        assert value[3] == pytest.approx(row[3] - row[2], rel=1e-6)
    assert run(logits, TREE)[0, 3] == 0


@pytest.mark.parametrize("case", ["near", "far"])
def test_logarithms_are_those_of_the_probabilities(case):
    logits = logits_of(TREE, 5) if case == "near" else far_apart(TREE)
    found = run(logits, TREE, log=True)
    np.testing.assert_allclose(found, np.log(loop(logits, TREE)), atol=1e-5)


def test_large_logits_keep_their_digits():
    logits = logits_of(TREE, 3) + 20_000
    np.testing.assert_allclose(np.exp(run(logits, TREE, log=True)), loop(logits, TREE), atol=1e-6)
    np.testing.assert_allclose(run(logits, TREE), loop(logits, TREE), atol=1e-6)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("case", ["near", "far"])
def test_gradients_equal_the_loops(case, log, rng):
    """d p[m] / d x[n] = p[m] * ([m is n] - p[n]) in a group, 0 between groups; of logarithms without p[m]."""
    logits = (logits_of(TREE, 3) if case == "near" else far_apart(TREE)[0]).astype("float32")
    weight = rng.normal(size=logits.shape).astype("float32")
    layer = WordTreeSoftmax(TREE, log=log)
    (found,) = backend.gradients(lambda x: ops.sum(layer(x) * weight), logits)
    p = loop(logits, TREE)
    expected = np.zeros(p.shape)
    for row, m, n in np.ndindex(len(p), 10, 10):
        if TREE.groups[m] == TREE.groups[n]:
            slope = float(m == n) - p[row, n]
            expected[row, n] += weight[row, m] * slope * (1 if log else p[row, m])
    np.testing.assert_allclose(found, expected, atol=1e-5)


# ---------------------------------------------------------------------- along the path


def test_absolute_probabilities_are_products_along_the_paths(real):
    logits = logits_of(real, 2)
    conditional = loop(logits, real)
    found, logs = run(logits, real, absolute=True), run(logits, real, absolute=True, log=True)
    rng = np.random.default_rng(1)
    for node in [0, 9417, *rng.integers(0, 9418, 200)]:
        for row in range(2):
            product = math.prod(conditional[row, above] for above in real.path(int(node)))
            assert found[row, node] == pytest.approx(product, rel=1e-4, abs=1e-30)
            assert logs[row, node] == pytest.approx(math.log(product), rel=1e-5, abs=1e-5)


def test_the_leaves_absolute_probabilities_sum_to_one(real):
    absolute = run(logits_of(real, 3), real, absolute=True)
    np.testing.assert_allclose(absolute[:, real.leaves].sum(axis=1), 1, atol=1e-4)


def test_absolute_probabilities_have_gradients():
    """Of the poodle's logarithm: its own groups get [is it] - p, all others 0."""
    logits = logits_of(TREE, 2)
    layer = WordTreeSoftmax(TREE, absolute=True, log=True)
    (found,) = backend.gradients(lambda x: ops.sum(layer(x)[:, 8]), logits)
    np.testing.assert_allclose(found, path_gradient(logits, [8, 8], TREE), atol=1e-6)


def path_gradient(logits, nodes, tree):
    """Label and every ancestor: one-hot minus p in its group (region_layer.c, delta_region_class)."""
    p = loop(logits, tree)
    gradient = np.zeros(p.shape)
    for row, node in enumerate(nodes):
        while node >= 0:
            group = tree.groups[node]
            start, size = tree.group_offsets[group], tree.group_sizes[group]
            for i in range(start, start + size):
                gradient[row, i] = float(i == node) - p[row, i]
            node = tree.parents[node]
    return gradient


@pytest.mark.parametrize("which", ["small", "real"])
def test_the_log_probability_of_one_path_and_its_gradient_equal_the_loop(which, request):
    tree = TREE if which == "small" else request.getfixturevalue("real")
    nodes = np.array([0, 8, 3, 9] if which == "small" else [2, 9417, 5177, 140], "int32")
    logits = logits_of(tree, 4)

    def value(x):
        return path_log_probability(x, nodes, tree)

    found = ops.convert_to_numpy(backend.call(value, logits))
    conditional = loop(logits, tree)
    for row, node in enumerate(nodes):
        logs = [math.log(conditional[row, above]) for above in tree.path(int(node))]
        assert found[row] == pytest.approx(sum(logs), rel=1e-5)
    (gradient,) = backend.gradients(lambda x: ops.sum(value(x)), logits)
    np.testing.assert_allclose(gradient, path_gradient(logits, nodes, tree), atol=1e-5)


# ---------------------------------------------------------------------- descent


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("which", ["small", "real"])
def test_descent_of_many_rows_equals_one_row_at_a_time(which, threshold, request):
    tree = TREE if which == "small" else request.getfixturevalue("real")
    logits = logits_of(tree, 2, 30, spread=2.0 if which == "small" else 7.0)
    nodes, probabilities = backend.call(lambda x: descend(x, tree, threshold=threshold), logits)
    nodes, probabilities = ops.convert_to_numpy(nodes), ops.convert_to_numpy(probabilities)
    conditional = loop(logits, tree)
    for place in np.ndindex(2, 30):
        node, probability = tree.descend(conditional[place], threshold=threshold)
        assert nodes[place] == node
        assert probabilities[place] == pytest.approx(probability, rel=1e-4)
    assert len(set(tree.depths[nodes.ravel()].tolist())) > 1


# ---------------------------------------------------------------------- the layer


def test_half_precision_is_computed_in_float32():
    logits = logits_of(TREE, 2).astype("float16")
    found = run(logits, TREE)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, loop(logits, TREE), atol=1e-6)


def test_config_keeps_every_argument():
    layer = WordTreeSoftmax(TREE, absolute=True, log=True, name="tree", dtype="float64")
    revived = WordTreeSoftmax.from_config(layer.get_config())
    assert (revived.tree, revived.absolute, revived.log) == (TREE, True, True)
    assert (revived.name, revived.dtype) == ("tree", "float64")


def test_a_saved_model_carries_its_tree(tmp_path):
    inputs = keras.Input((None, 10))
    model = keras.Model(inputs, WordTreeSoftmax(TREE)(inputs))
    model.save(tmp_path / "tree.keras")
    revived = keras.saving.load_model(tmp_path / "tree.keras")
    logits = logits_of(TREE, 1, 4)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(revived(logits)), ops.convert_to_numpy(model(logits))
    )
    assert revived.layers[1].tree.path_names("poodle") == ["animal", "dog", "poodle"]


def test_another_number_of_logits_is_refused():
    with pytest.raises(InputError, match="wants 10 logits, one a node, not 9"):
        WordTreeSoftmax(TREE)(np.zeros((2, 9), "float32"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function is TensorFlow's")
@pytest.mark.parametrize("rows", [0, 3, 50, 203])
def test_blocks_of_rows_in_a_graph_give_what_all_rows_give(rows):
    """Of few rows some blocks are empty; one block is far apart."""
    import tensorflow as tf

    logits = logits_of(TREE, rows)
    logits[-2:, 5:] -= 300
    graph = tf.function(WordTreeSoftmax(TREE), [tf.TensorSpec((None, 10))], autograph=False)
    np.testing.assert_allclose(graph(logits).numpy(), loop(logits, TREE), atol=1e-5)
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(graph(x)[:, 2])
    p = loop(logits, TREE)
    expected = np.zeros_like(p)
    expected[:, 2:5] = p[:, 2:3] * (np.eye(3)[:1] - p[:, 2:5])
    np.testing.assert_allclose(tape.gradient(value, x), expected, atol=1e-5)
