"""The YOLO part of tools/bench.py: the tree's softmax, YOLOv2 beside darknet's own program.

darknet is no dependency: where `--darknet FOLDER` does not name a folder with its program and
cfg files, built there by `make OPENMP=1`, ours is timed alone.
"""

import re
import subprocess
import tempfile
from pathlib import Path

import keras
import numpy as np
from timing import in_turn

import kerasdet
from kerasdet.layers.word_tree_softmax import WordTreeSoftmax
from kerasdet.weights.maps import darknet as darknet_weights
from kerasdet.word_tree import WordTree


def bench_tree(rows, runs, tree_file):
    """`WordTreeSoftmax` on YOLO9000's tree beside one flat softmax over the same tensor."""
    import tensorflow as tf

    tree = WordTree.from_darknet(tree_file) if tree_file else _tree_like_9k()
    logits = tf.random.stateless_normal((1, 13, 13, 3, len(tree.names)), (0, 0))
    layer = WordTreeSoftmax(tree)

    def with_gradient(function):
        weights = tf.random.stateless_uniform(logits.shape, (1, 1))

        @tf.function
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = tf.reduce_sum(function(x) * weights)
            return tape.gradient(total, x)

        return run

    tree_softmax, flat = (tf.function(f) for f in (layer, tf.nn.softmax))
    mine, other, ratio = in_turn(lambda: tree_softmax(logits), lambda: flat(logits), runs * 3)
    rows.add("tree softmax, forward (beside a flat one)", 1e3 * mine, 1e3 * other, ratio, "<= 3")
    tree_softmax, flat = (with_gradient(f) for f in (layer, tf.nn.softmax))
    mine, other, ratio = in_turn(lambda: tree_softmax(logits), lambda: flat(logits), runs * 3)
    rows.add("tree softmax, with its gradient", 1e3 * mine, 1e3 * other, ratio, "<= 4")


def _tree_like_9k():
    """As many nodes and groups as darknet's tree: 9418 in 1846, each below an earlier node."""
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(5, 9418), 1845, replace=False))
    sizes = np.diff([0, *cuts, 9418])
    parents = [np.full(sizes[0], -1)]
    for number, size in enumerate(sizes[1:]):
        parents.append(np.full(size, number))
    return WordTree([str(node) for node in range(9418)], np.concatenate(parents))


def bench_yolo(rows, runs, darknet):
    """YOLOv2 on one image of 416 pixels: forward beside darknet's, and what is not convolution."""
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = kerasdet.zoo.yolo_v2()
    images = np.random.default_rng(0).uniform(0, 255, (1, 416, 416, 3)).astype("float32")
    forward = tf.function(lambda x: model(x, training=False))
    seconds = [in_turn(lambda: forward(images), None, runs)[0]]
    if darknet is None:
        rows.add("YOLOv2 forward, 416 pixels", 1e3 * seconds[0])
    else:
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "yolov2-voc.weights"
            darknet_weights.save(model, weights)
            theirs = [_darknet_seconds(darknet, weights) for _ in range(max(runs // 2, 3))]
        seconds.append(in_turn(lambda: forward(images), None, runs)[0])
        mine, other = np.median(seconds), np.median(theirs)
        rows.add(
            "YOLOv2 forward, 416 pixels (beside darknet)",
            1e3 * mine,
            1e3 * other,
            mine / other,
            "<= 0.25",
        )
    outputs = forward(images)
    whole = tf.function(lambda x: model.decode(model(x, training=False)))
    rest = tf.function(lambda o: model.decode(o))
    _, _, share = in_turn(lambda: rest(outputs), lambda: whole(images), runs)
    rows.add("YOLOv2 decode and suppression, of detection", 100 * share, target="< 5 %", unit="%")


def _darknet_seconds(folder, weights):
    """What darknet prints for its network's forward pass; resizing and drawing are not in it."""
    photo = folder / "data" / "dog.jpg"
    command = ["./darknet", "detector", "test", "cfg/voc.data", "cfg/yolov2-voc.cfg"]
    done = subprocess.run(
        [*command, str(weights), str(photo)], cwd=folder, capture_output=True, text=True, check=True
    )
    return float(re.search(r"Predicted in ([\d.]+) seconds", done.stdout)[1])
