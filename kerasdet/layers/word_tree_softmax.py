"""Probabilities in a WordTree: one softmax for each group of siblings, and products along the paths.

No loop over the groups. With the nodes last a gather or a reduction by group handles single
numbers; with the nodes first whole rows, which on TensorFlow's CPU takes half the time or less
for 9418 nodes in 1846 groups, the transposition included.
"""

from itertools import pairwise

import keras
import numpy as np
from keras import ops

from kerasdet.errors import InputError
from kerasdet.word_tree import WordTree

# A group whose share of the flat softmax is smaller has too few digits left: exp(-46).
_LEAST_SHARE = 1e-20

# 507 rows of 9418 nodes take a fifth less time in 8 to 12 blocks than at once; in 4 or 16 less is gained.
_ROW_BLOCKS = 10


@keras.saving.register_keras_serializable(package="kerasdet")
class WordTreeSoftmax(keras.layers.Layer):
    """Logits of a tree's nodes to probabilities, each sibling group's summing to one.

        p[n] = exp(x[n]) / sum of exp(x[m]) over the siblings m of n, n itself among them

    Args:
        tree: a `WordTree` of N nodes, or the config of one.
        absolute: give the probability of a node itself, the product of p along its path,
            instead of p, which holds if its parent is right.
        log: give natural logarithms, which stay finite where a probability would be 0.
        **kwargs: what every Keras layer takes.

    Call:
        logits: (..., N), at least one dimension before the nodes.
        returns: (..., N) in the layer's dtype, computed in float32.

    Raises:
        InputError: if the last dimension is not N.

    Source: Redmon and Farhadi, YOLO9000, arXiv:1612.08242, sec. 4; darknet src/tree.c
        (hierarchy_predictions) and softmax_tree in src/blas.c.
    """

    def __init__(self, tree, *, absolute=False, log=False, **kwargs):
        kwargs.setdefault("dtype", "float32")  # half precision does not sum to one
        super().__init__(**kwargs)
        # XLA has no kernel for TensorFlow's SegmentSum: on a GPU Keras is not to compile by itself.
        self.supports_jit = keras.backend.backend() != "tensorflow"
        self.tree = tree if isinstance(tree, WordTree) else WordTree.from_config(tree)
        self.absolute = absolute
        self.log = log

    def build(self, input_shape):
        """Checks that there is a logit for every node."""
        if input_shape[-1] != len(self.tree):
            raise InputError(
                f"WordTreeSoftmax wants {len(self.tree)} logits, one a node, not {input_shape[-1]}."
            )

    def call(self, logits):
        """(..., N) to (..., N)."""
        result = (log_softmax if self.log else softmax)(logits, self.tree)
        if self.absolute:
            result = along_paths(result, self.tree, log=self.log)
        return ops.cast(result, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """Same as the input's."""
        return input_shape

    def get_config(self):
        """Constructor arguments; the tree as its names and parents."""
        return {
            **super().get_config(),
            "tree": self.tree.get_config(),
            "absolute": self.absolute,
            "log": self.log,
        }


# ---------------------------------------------------------------------- every node


def softmax(logits, tree):
    """Probabilities given the parent: (..., N) to (..., N) float32.

    On TensorFlow the flat softmax of all nodes, divided by each group's share of it: that reads
    and writes all numbers least often. XLA is slow in a condition's large branches, and goes
    through the logarithms, where they are small.
    """

    def divided(x):
        flat = ops.transpose(ops.softmax(x, axis=-1))  # (N, R)
        shares = _by_group(ops.segment_sum, flat, tree)  # (M, R)
        p = ops.transpose(flat / ops.take(shares, tree.groups, axis=0))
        return p, ops.min(shares, keepdims=True)

    def through_logarithms(x):
        return ops.exp(_log_softmax_of_rows(x, tree))

    def of_rows(x):
        if keras.backend.backend() != "tensorflow":
            return through_logarithms(x)
        p, least = _in_blocks(divided, x)
        # Asked once, behind the blocks: a condition in each of them costs more than it saves.
        return ops.cond(ops.min(least) > _LEAST_SHARE, lambda: p, lambda: through_logarithms(x))

    def slope(p, upstream):
        pull = p * upstream
        return pull - p * _spread(_sums(pull, tree), tree)

    return _by_rows(_with_gradient(of_rows, slope), logits)


def log_softmax(logits, tree):
    """Logarithms of the probabilities given the parent: (..., N) to (..., N) float32."""

    def slope(log_p, upstream):
        return upstream - ops.exp(log_p) * _spread(_sums(upstream, tree), tree)

    def of_rows(x):
        return _in_blocks(lambda block: _log_softmax_of_rows(block, tree), x)

    return _by_rows(_with_gradient(of_rows, slope), logits)


def along_paths(values, tree, *, log=False):
    """Probabilities given the parent to absolute ones: each times all above it, level by level.

    Args:
        values: (..., N) probabilities, or their logarithms, which are added.
        tree: the `WordTree`.
        log: whether they are logarithms.

    Returns:
        (..., N).
    """
    order = np.argsort(tree.depths, kind="stable")  # node of each place, level after level
    place = np.argsort(order)

    def of_rows(x):
        rows = ops.take(ops.transpose(x), order.astype("int32"), axis=0)  # (N, R)
        ends = np.cumsum(np.bincount(tree.depths))
        levels = [rows[: ends[0]]]
        for start, end in pairwise(ends):
            above = place[tree.parents[order[start:end]]] - (start - levels[-1].shape[0])
            parents = ops.take(levels[-1], above.astype("int32"), axis=0)
            own = rows[start:end]
            levels.append(own + parents if log else own * parents)
        absolute = ops.concatenate(levels, axis=0)
        return ops.transpose(ops.take(absolute, place.astype("int32"), axis=0))

    return _by_rows(of_rows, values)


def _with_gradient(function, slope):
    """`function` of rows (R, N), whose gradient is `slope` of its result and what comes from above."""

    @ops.custom_gradient
    def of_rows(x):
        result = function(x)

        def gradient(*args, upstream=None):
            return _in_blocks(slope, result, args[0] if upstream is None else upstream)

        return result, gradient

    return of_rows


def _in_blocks(function, *arrays):
    """`function` of a few rows at a time, one block after another, as long as they fit a cache.

    On TensorFlow alone, where each operation walks through all rows anew; XLA joins them. What the
    blocks give, one array each or several, is joined along the first axis.
    """
    rows = arrays[0].shape[0]
    small = rows is not None and rows < 16 * _ROW_BLOCKS
    if small or keras.backend.backend() != "tensorflow" or _is_eager():
        return function(*arrays)
    rows, width = ops.shape(arrays[0])
    # TensorFlow copies no part of a row of numbers that begins and ends where a cache line does.
    bounds = [rows * i // _ROW_BLOCKS // 16 * 16 for i in range(_ROW_BLOCKS)] + [rows]
    flat = [ops.reshape(array, (-1,)) for array in arrays]
    blocks = [[f[start * width : end * width] for f in flat] for start, end in pairwise(bounds)]
    parts = [function(*(ops.reshape(b, (-1, width)) for b in block)) for block in blocks]
    return keras.tree.map_structure(lambda *blocks: ops.concatenate(blocks), *parts)


def _is_eager() -> bool:
    """Whether each operation runs by itself, and many small ones cost more than they gain."""
    import tensorflow as tf

    return tf.executing_eagerly()


def _by_rows(function, values):
    """`function` of (R, N) float32, applied to (..., N)."""
    shape = ops.shape(values)
    rows = ops.reshape(ops.cast(values, "float32"), (-1, shape[-1]))
    return ops.reshape(function(rows), shape)


def _sums(rows, tree):
    """(R, N) to (M, R): each group's sum."""
    return _by_group(ops.segment_sum, ops.transpose(rows), tree)


def _by_group(reduce, columns, tree):
    """(N, R) to (M, R) with a segment operation."""
    # TensorFlow counts sorted groups itself and forbids telling it; the others want to be told.
    count = None if keras.backend.backend() == "tensorflow" else len(tree.group_sizes)
    return reduce(columns, ops.convert_to_tensor(tree.groups), num_segments=count, sorted=True)


def _spread(of_groups, tree):
    """(M, R) to (R, N): each node gets its group's number."""
    return ops.transpose(ops.take(of_groups, tree.groups, axis=0))


def _log_softmax_of_rows(x, tree):
    """(R, N) to (R, N): a maximum is subtracted, then the logarithm of each group's sum.

    One maximum for a whole row does, unless a group lies so far below it that its sum has no
    digits left; then each group's own is found. The choice is between small arrays, which
    costs XLA nothing.
    """
    highest = ops.max(x, axis=-1, keepdims=True)  # (R, 1)
    sums = _sums(ops.exp(x - highest), tree)  # (M, R)

    def of_rows():
        return ops.broadcast_to(ops.transpose(highest), ops.shape(sums)), sums

    def of_groups():
        columns = ops.transpose(x)
        own = _by_group(ops.segment_max, columns, tree)
        raised = ops.exp(columns - ops.take(own, tree.groups, axis=0))
        return own, _by_group(ops.segment_sum, raised, tree)

    subtracted, sums = ops.cond(ops.min(sums) > _LEAST_SHARE, of_rows, of_groups)
    return x - _spread(subtracted, tree) - _spread(ops.log(sums), tree)


# ---------------------------------------------------------------------- the nodes on one path


def path_log_probability(logits, nodes, tree):
    """Logarithm of one node's absolute probability, from the groups on its path alone.

    Its negative is the cross-entropy of a label: the groups on the path pay, deeper ones and
    those beside it get no gradient (YOLO9000 sec. 4, "at or above").

    Args:
        logits: (..., N).
        nodes: (...) int, a node for each row.
        tree: the `WordTree`.

    Returns:
        (...) float32, at most 0.
    """
    path = ops.take(tree.paths, nodes, axis=0)  # (..., D)
    on_path = ops.maximum(path, 0)  # -1 behind the node's own depth
    groups = ops.take(tree.groups, on_path, axis=0)
    width = int(tree.group_sizes.max())
    siblings = _siblings(logits, groups, width, tree)  # (..., D, width)
    place = on_path - ops.take(tree.group_offsets, groups, axis=0)
    own = ops.sum(siblings * ops.one_hot(place, width, dtype="float32"), axis=-1)
    log_p = own - ops.logsumexp(siblings, axis=-1)
    return ops.sum(ops.where(path >= 0, log_p, 0.0), axis=-1)


def descend(logits, tree, *, threshold=0.5):
    """Walks from the root to the likeliest child, for as long as the walk stays sure.

    Only the groups that are met are looked at, all rows together, level by level; it ends
    when the last walk does. `WordTree.descend` does the same for one row of probabilities.

    Args:
        logits: (..., N).
        tree: the `WordTree`.
        threshold: a node is entered only if its absolute probability is above it; the
            likeliest root is entered whatever it is.

    Returns:
        The deepest node entered, (...) int32, and its absolute probability, (...) float32.
    """
    width = int(tree.group_sizes.max())
    blank = ops.zeros_like(logits[..., 0], dtype="float32")
    start = ops.cast(blank, "int32")

    def unfinished(level, group, node, probability):
        return (level < tree.paths.shape[1]) & ops.any(group >= 0)

    def one_level(level, group, node, probability):
        walking = group >= 0
        siblings = _siblings(logits, ops.maximum(group, 0), width, tree)  # (..., width)
        best = ops.cast(ops.argmax(siblings, axis=-1), "int32")
        highest = ops.max(siblings, axis=-1)
        below = probability * ops.exp(highest - ops.logsumexp(siblings, axis=-1))
        child = ops.take(tree.group_offsets, ops.maximum(group, 0), axis=0) + best
        sure = walking & (below > threshold)
        enter = sure | (walking & (level == 0))
        return (
            level + 1,
            ops.where(sure, ops.take(tree.child_groups, child, axis=0), -1),
            ops.where(enter, child, node),
            ops.where(enter, below, probability),
        )

    level = ops.convert_to_tensor(0, "int32")
    state = (level, start, start - 1, blank + 1)
    _, _, node, probability = ops.while_loop(unfinished, one_level, state)
    return node, probability


def _siblings(logits, groups, width, tree):
    """Logits of groups' nodes, filled up with -1e30.

    Args:
        logits: (..., N).
        groups: (...) for one group a row, or (..., D) for D of them.
        width: of the result, that of the largest group.
        tree: the `WordTree`.

    Returns:
        (..., width) or (..., D, width) float32.
    """
    count = len(tree)
    place = np.arange(width, dtype="int32")
    nodes = ops.expand_dims(ops.take(tree.group_offsets, groups, axis=0), -1) + place
    outer = ops.shape(logits)[:-1]
    rows = ops.reshape(ops.arange(ops.size(logits) // count, dtype="int32"), outer)
    for _ in range(len(nodes.shape) - len(outer)):
        rows = ops.expand_dims(rows, -1)
    # One gather of single numbers, from where they lie: no copy of all logits.
    flat = ops.reshape(logits, (-1,))
    taken = ops.take(flat, rows * count + ops.minimum(nodes, count - 1), axis=0)
    inside = place < ops.expand_dims(ops.take(tree.group_sizes, groups, axis=0), -1)
    return ops.where(inside, ops.cast(taken, "float32"), -1e30)
