"""The WordTree: labels from coarse to fine, so that a detector may say "dog" when it is not sure of more.

Redmon and Farhadi, YOLO9000, arXiv:1612.08242, sec. 4; darknet src/tree.c and data/9k.tree. Every
node's children form a sibling group, and a network gives each group one softmax: the probability
of a node, given that its parent is right. The product along the path from the root is the
node's absolute probability.

NumPy alone; what runs in a network is `kerasdet.layers.WordTreeSoftmax`.
"""

import json
from numbers import Integral
from pathlib import Path

import numpy as np

from kerasdet.errors import InputError

# 9k.tree has 140 kB. A file that is much larger is something else, and is not read into memory.
_LARGEST_FILE = 64 * 2**20


class WordTree:
    """A forest of labels, parents before children and siblings side by side, as in darknet's files.

    Args:
        names: N names, one a node; several nodes may share one.
        parents: for each node the index of its parent, smaller than its own; -1 for a root.
        wnids: N identifiers that are unique, such as ImageNet's "n02084071"; None: there are none.

    Attributes:
        names: list of N strings.
        wnids: list of N strings, or None.
        parents: (N,) int32, -1 for a root.
        groups: (N,) int32, the sibling group of each node.
        group_offsets: (M,) int32, the first node of each group.
        group_sizes: (M,) int32, how many siblings it has.
        group_parents: (M,) int32, the node above it, -1 for the group of roots.
        child_groups: (N,) int32, the group of a node's children, -1 for a leaf.
        depths: (N,) int32, steps from the root, 0 for a root.
        leaves: (L,) int32, the nodes without children.
        paths: (N, D) int32, the nodes from the root to each node itself, then -1.

    Raises:
        InputError: if the lists do not fit together, a node stands before its parent or above
            itself, or siblings stand apart.

    Source: darknet src/tree.c (read_tree).
    """

    def __init__(self, names, parents, *, wnids=None):
        self.names = [str(name) for name in names]
        self.wnids = None if wnids is None else [str(wnid) for wnid in wnids]
        self.parents = _checked_parents(parents, len(self.names))
        if self.wnids is not None and len(self.wnids) != len(self.names):
            raise InputError(
                f"A WordTree wants as many wnids as names, not {len(self.wnids)} and "
                f"{len(self.names)}."
            )
        count = len(self.parents)
        starts = np.flatnonzero(np.diff(self.parents, prepend=-2))
        self.group_offsets = starts.astype("int32")
        self.group_sizes = np.diff(starts, append=count).astype("int32")
        self.group_parents = self.parents[starts]
        self.groups = np.repeat(np.arange(len(starts), dtype="int32"), self.group_sizes)
        self._check_groups()
        self.child_groups = np.full(count, -1, "int32")
        inner = self.group_parents >= 0
        self.child_groups[self.group_parents[inner]] = np.flatnonzero(inner)
        self.leaves = np.flatnonzero(self.child_groups < 0).astype("int32")
        self.depths, self.paths = _paths(self.parents)
        self._by_wnid = {wnid: node for node, wnid in enumerate(self.wnids or [])}
        self._by_name: dict[str, list[int]] = {}
        for node, name in enumerate(self.names):
            self._by_name.setdefault(name, []).append(node)

    def _check_groups(self):
        if self.group_parents[0] != -1:
            raise InputError("A WordTree wants a root (parent -1) first.")
        parents, counts = np.unique(self.group_parents, return_counts=True)
        if counts.max() > 1:
            parent = int(parents[counts > 1][0])
            above = "the roots" if parent < 0 else f"the children of node {parent} ({self[parent]})"
            raise InputError(f"A WordTree wants siblings side by side, but {above} stand apart.")

    # ------------------------------------------------------------------ making one

    @classmethod
    def from_darknet(cls, tree, names=None) -> "WordTree":
        """Reads a `.tree` file, one "wnid parent" a line, and its names, one a line.

        Args:
            tree: path of the tree; a parent is a line counted from 0, -1 for a root.
            names: path of as many names; None: the wnids are the names.

        Raises:
            InputError: naming the file, and the line where there is one.
        """
        wnids, parents = [], []
        for line, text in enumerate(_lines(tree), start=1):
            parts = text.split()
            if len(parts) != 2 or not _is_integer(parts[1]):
                raise InputError(
                    f"Wanted a name and its parent's number, not {text[:60]!r}: {tree}, line {line}."
                )
            wnids.append(parts[0])
            parents.append(int(parts[1]))
        node_names = wnids if names is None else _lines(names)
        if len(node_names) != len(wnids):
            raise InputError(
                f"Wanted as many names as nodes, but {names} has {len(node_names)} and {tree} "
                f"has {len(wnids)}."
            )
        unique = len(set(wnids)) == len(wnids)
        try:
            return cls(node_names, parents, wnids=wnids if unique else None)
        except InputError as error:
            raise InputError(f"{tree}: {error}") from error

    @classmethod
    def from_json(cls, path) -> "WordTree":
        """Reads {"child": "parent", ..., "root": null}; see `from_parents`.

        Raises:
            InputError: naming the file.
        """

        def unique(pairs):
            twice = _twice(name for name, _ in pairs)
            if twice is not None:
                raise InputError(f"{twice!r} stands there twice.")
            return dict(pairs)

        text = _text(path)
        try:
            parents = json.loads(text, object_pairs_hook=unique)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"Wanted JSON of parents in {path}: {error}.") from error
        if not isinstance(parents, dict):
            raise InputError(
                f"Wanted an object of parents, {{child: parent or null}}, in {path}, "
                f"not {type(parents).__name__}."
            )
        try:
            return cls.from_parents(parents)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    @classmethod
    def from_parents(cls, parents) -> "WordTree":
        """Makes a tree from each name's parent, in any order.

            WordTree.from_parents({"dog": "animal", "terrier": "dog", "cat": "animal"})

        Nodes are numbered level by level, siblings in the order they are written in.

        Args:
            parents: {child: parent}. A root has the parent None. Where no name has None,
                parents that are nobody's child are the roots; where one has, all must be
                written so, and a parent that is not written is an error.

        Raises:
            InputError: if there is nothing, a parent is not known, or names go in a circle.
        """
        parents = dict(parents)
        for child, parent in parents.items():
            if not isinstance(child, str) or not isinstance(parent, str | None):
                raise InputError(f"A WordTree wants names, not {child!r} below {parent!r}.")
        if None not in parents.values():
            roots = [parent for parent in parents.values() if parent not in parents]
            parents = {**dict.fromkeys(roots), **parents}
        children: dict[str | None, list[str]] = {None: []}
        for child, parent in parents.items():
            if parent is not None and parent not in parents:
                raise InputError(f"The parent {parent!r} of {child!r} is not in the tree.")
            children.setdefault(parent, []).append(child)
        order: list[str | None] = [None]
        for name in order:  # grows while it is walked: level by level
            order += children.get(name, [])
        names = [name for name in order if name is not None]
        if len(names) < len(parents):
            raise InputError(_circle(parents, set(parents) - set(names)))
        places = {name: node for node, name in enumerate(names)}
        return cls(names, [places.get(parents[name], -1) for name in names])

    @classmethod
    def joined(cls, detection_names, classification_names, *, parents=None) -> "WordTree":
        """Makes one tree of the labels of a detection set and of a classification set.

            WordTree.joined(["dog", "cat"], ["terrier", "poodle"],
                            parents={"terrier": "dog", "poodle": "dog"})

        A name in both lists is one node. `tree.nodes(detection_names)` are then the nodes of
        the set's labels.

        Args:
            detection_names: names of the labels that come with boxes.
            classification_names: names of the labels that come with whole images.
            parents: {name: parent}; a name without one is a root. Parents may be in neither
                list ("animal") and have parents themselves.

        Raises:
            InputError: if a list is none or has a name twice, names go in a circle, or `parents` gives a
                parent to a name that is in neither list and above none of them.
        """
        parents = dict(parents or {})
        for names in (detection_names, classification_names):
            if isinstance(names, str):
                raise InputError(f"A WordTree is joined of two lists of names, not {names!r}.")
            twice = _twice(names)
            if twice is not None:
                raise InputError(f"A list of labels has {twice!r} twice.")
        listed = [*detection_names, *classification_names]
        given = {*listed, *parents.values()}
        stray = [name for name in parents if name not in given]
        if stray:
            raise InputError(
                f"{stray[0]!r} has the parent {parents[stray[0]]!r}, but it is in neither list of "
                "labels and above none of them."
            )
        every = dict.fromkeys([*listed, *(p for p in parents.values() if p is not None), *parents])
        return cls.from_parents({name: parents.get(name) for name in every})

    # ------------------------------------------------------------------ finding nodes

    def __len__(self):
        return len(self.names)

    def __getitem__(self, node) -> str:
        """The name of a node."""
        return self.names[node]

    def node(self, label) -> int:
        """The node of an index, a wnid or a name.

        Raises:
            InputError: if there is none, or several nodes have the name.
        """
        if isinstance(label, int | np.integer):
            if not 0 <= label < len(self):
                raise InputError(f"Wanted a node from 0 to {len(self) - 1}, not {label}.")
            return int(label)
        if label in self._by_wnid:
            return self._by_wnid[label]
        nodes = self._by_name.get(label, [])
        if len(nodes) != 1:
            which = ", ".join(map(str, nodes))
            raise InputError(
                f"The tree has the name {label!r} {len(nodes)} times, at nodes {which}: say which "
                "by its number or wnid."
                if nodes
                else f"The tree has no node {label!r}."
            )
        return nodes[0]

    def nodes(self, labels) -> np.ndarray:
        """(n,) int32: the nodes of a list of indices, wnids and names; see `node`."""
        return np.array([self.node(label) for label in labels], "int32").reshape(-1)

    def read_map(self, path) -> np.ndarray:
        """Reads which node each label of another list is, one a line in that list's order.

        Args:
            path: darknet's coco9k.map or inet9k.map, of node numbers; or a file of wnids or names,
                which numbers are if all are names of nodes.

        Returns:
            (n,) int32 nodes.

        Raises:
            InputError: naming file and line.
        """
        labels = [text.strip() for text in _lines(path)]
        # Numbers, unless the tree has nodes of such names: "0" and "1" may be digits.
        numbers = not all(label in self._by_name for label in labels)
        nodes = []
        for line, label in enumerate(labels, start=1):
            try:
                as_number = numbers and _is_integer(label)
                nodes.append(self.node(int(label) if as_number else label))
            except InputError as error:
                raise InputError(f"{path}, line {line}: {error}") from error
        return np.array(nodes, "int32").reshape(-1)

    # ------------------------------------------------------------------ walking it

    def path(self, label) -> list[int]:
        """The nodes from the root to this one, itself included."""
        path = self.paths[self.node(label)]
        return path[path >= 0].tolist()

    def path_names(self, label) -> list[str]:
        """The names from the root to this node, itself included."""
        return [self.names[node] for node in self.path(label)]

    def children(self, label) -> list[int]:
        """The nodes right below this one."""
        group = self.child_groups[self.node(label)]
        if group < 0:
            return []
        return list(
            range(self.group_offsets[group], self.group_offsets[group] + self.group_sizes[group])
        )

    def lowest_common(self, label, other) -> int | None:
        """The deepest node that both are or stand below; None if their roots differ."""
        common = [a for a, b in zip(self.path(label), self.path(other), strict=False) if a == b]
        return common[-1] if common else None

    def absolute(self, conditional) -> np.ndarray:
        """Probabilities given the parent to absolute ones, the products along the paths.

        Args:
            conditional: (..., N).

        Returns:
            (..., N), the same dtype.
        """
        absolute = np.array(conditional)
        for depth in range(1, self.paths.shape[1]):
            level = np.flatnonzero(self.depths == depth)
            absolute[..., level] *= absolute[..., self.parents[level]]
        return absolute

    def descend(self, conditional, *, threshold=0.5) -> tuple[int, float]:
        """Walks from the root to the likeliest child, for as long as the walk stays sure.

        Args:
            conditional: (N,) probabilities given the parent.
            threshold: a node is entered only if its absolute probability is above it.

        Returns:
            The deepest node reached and its absolute probability. The likeliest root where
            even that is not sure.

        Source: darknet src/tree.c, hierarchy_top_prediction, given conditional probabilities.
            Darknet hands it absolute ones and so multiplies a node's ancestors in again.
        """
        node, probability, group = -1, 1.0, 0
        while group >= 0:
            start, size = self.group_offsets[group], self.group_sizes[group]
            best = int(start + np.argmax(conditional[start : start + size]))
            below = probability * float(conditional[best])
            if below <= threshold and node >= 0:
                break
            node, probability, group = best, below, int(self.child_groups[best])
            if below <= threshold:
                break
        return node, probability

    # ------------------------------------------------------------------ keeping it

    def get_config(self) -> dict:
        """Names, parents and wnids as plain lists; `from_config` makes the same tree."""
        return {"names": list(self.names), "parents": self.parents.tolist(), "wnids": self.wnids}

    def darknet_text(self) -> str:
        """A `.tree` file, which `from_darknet` and darknet read; `names` go into a file of their own.

        A tree without wnids has its names in their place, "_" for blanks, as darknet splits a line
        there and has room for 255 letters (src/tree.c, read_tree).
        """
        labels = self.wnids or ["_".join(name.split())[:255] or "_" for name in self.names]
        lines = zip(labels, self.parents.tolist(), strict=True)
        return "".join(f"{label} {parent}\n" for label, parent in lines)

    @classmethod
    def from_config(cls, config) -> "WordTree":
        """The tree that `get_config` told of.

        Raises:
            InputError: if it is something else.
        """
        if not (isinstance(config, dict) and {"names", "parents"} <= set(config)):
            raise InputError(
                "Wanted a WordTree, or the config of one with names and parents, not "
                f"{_shortened(config)}; of a dict of parents WordTree.from_parents makes one."
            )
        return cls(config["names"], config["parents"], wnids=config.get("wnids"))

    def __eq__(self, other):
        return isinstance(other, WordTree) and self.get_config() == other.get_config()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self):
        return f"WordTree({len(self)} nodes in {len(self.group_sizes)} groups)"


# ------------------------------------------------------------------------ helpers


def _checked_parents(parents, count) -> np.ndarray:
    parents = list(parents)
    for node, parent in enumerate(parents):
        if not isinstance(parent, Integral):
            raise InputError(
                f"Node {node} has the parent {parent!r}; wanted a node's number or -1."
            )
    parents = [int(parent) for parent in parents]
    if not count:
        raise InputError("A WordTree wants at least one node.")
    if len(parents) != count:
        raise InputError(
            f"A WordTree wants as many names as parents, not {count} and {len(parents)}."
        )
    for node, parent in enumerate(parents):
        if not -1 <= parent < count:
            raise InputError(
                f"Node {node} has the parent {parent}, but the tree's nodes are 0 to {count - 1}."
            )
    for node, parent in enumerate(parents):
        if parent >= node:
            circle = _circle_from(node, parents)
            if circle:
                walk = " -> ".join(map(str, circle))
                raise InputError(f"Node {node} stands above itself: {walk}.")
            raise InputError(
                f"Node {node} stands before its parent {parent}; parents must come first."
            )
    return np.array(parents, "int32")


def _circle_from(node, parents):
    """The nodes upwards from `node` back to itself, or None."""
    walk = [node]
    for _ in range(len(parents)):
        walk.append(parents[walk[-1]])
        if walk[-1] < 0:
            return None
        if walk[-1] == node:
            return walk
    return None


def _circle(parents, lost) -> str:
    """Says which of the names that hang from no root go in a circle."""
    name = min(lost)
    seen: list[str] = []
    while name not in seen:
        seen.append(name)
        name = parents[name]
    circle = [*seen[seen.index(name) :], name]
    return f"The tree goes in a circle: {' -> '.join(circle)}."


def _paths(parents):
    """Depth of each node (N,), and the nodes from its root to it, padded with -1 (N, D)."""
    depths = np.zeros(len(parents), "int32")
    for node, parent in enumerate(parents):
        if parent >= 0:
            depths[node] = depths[parent] + 1
    paths = np.full((len(parents), depths.max() + 1), -1, "int32")
    for node, parent in enumerate(parents):
        if parent >= 0:
            paths[node] = paths[parent]
        paths[node, depths[node]] = node
    return depths, paths


def _shortened(value) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


def _twice(names):
    """The first name that comes a second time, or None."""
    seen = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _text(path) -> str:
    try:
        size = Path(path).stat().st_size
        if size > _LARGEST_FILE:
            raise InputError(f"Wanted a tree, a list or a map, but {path} has {size} bytes.")
        return Path(path).read_text(encoding="utf-8-sig")  # some editors write a mark in front
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"Wanted a text file in UTF-8, but {path} is not.") from error


def _lines(path) -> list[str]:
    return _text(path).rstrip().split("\n")


def _is_integer(text) -> bool:
    """Whether it is a number that a file of this size can mean."""
    digits = text.removeprefix("-")
    return len(digits) < 19 and digits.isascii() and digits.isdigit()
