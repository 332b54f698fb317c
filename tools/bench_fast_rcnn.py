"""The Fast R-CNN part of tools/bench.py: ROI pooling beside torchvision's C++.

    python tools/bench_fast_rcnn.py    # memory alone, as a process of its own: beside the result, result

A map of 38x50 cells and 512 channels, VGG16's conv5_3 of an 800x608 image after its ReLU. Regions
come in two kinds: any two corners in the image, 267x203 pixels in the mean; and such as Selective
Search finds on VOC photos, 128x117 pixels in the mean.
"""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np

SIDES = np.array([800, 608])


def regions(count, kind):
    """(count, 4) pixels, all inside the image."""
    rng = np.random.default_rng(0)
    if kind == "any two corners":
        corners = np.sort(rng.uniform(0, SIDES, (count, 2, 2)), axis=1)
    else:
        size = np.clip(rng.exponential((128, 117), (count, 2)), 16, SIDES - 1)
        start = rng.uniform(0, 1, (count, 2)) * (SIDES - size)
        corners = np.stack([start, start + size], axis=1)
    return corners.reshape(count, 4).astype("float32")


def one_map():
    """(1, 38, 50, 512), about half of it 0."""
    values = np.random.default_rng(1).normal(size=(1, 38, 50, 512))
    return np.maximum(values, 0).astype("float32")


def bench_roi(rows, runs):
    """Forward over 2000 regions, forward and backward over 128, and the memory of the first."""
    for kind in ("any two corners", "Selective Search's sizes"):
        _bench_forward(rows, runs, kind)
        _bench_both(rows, runs, kind)
    command = [sys.executable, __file__]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    name = f"ROI pooling, 2000 regions: peak memory beside the result's {said[-1]} MB"
    rows.add(name, float(said[-2]), target="< 600", unit="MB")


def _bench_forward(rows, runs, kind):
    import tensorflow as tf
    from timing import in_turn

    from kerasdet.layers import ROIPooling

    maps, given = one_map(), regions(2000, kind)
    pool = tf.function(ROIPooling(7, 1 / 16))
    ours = tf.constant(maps), tf.constant(given[None])
    theirs, torch = _torchvision(maps, given)
    their_call = None
    if theirs:

        def their_call():
            with torch.no_grad():
                return theirs()[0]

        found = their_call().numpy().transpose(0, 2, 3, 1)
        print(f"  equal to the last bit: {np.array_equal(pool(*ours)[0], found)}")
    mine, other, ratio = in_turn(lambda: pool(*ours), their_call, runs)
    name = f"ROI pooling, forward, 2000 regions of {kind}"
    rows.add(name, 1e3 * mine, 1e3 * other, ratio, "<= 0.125")


def _bench_both(rows, runs, kind):
    import tensorflow as tf
    from timing import in_turn

    from kerasdet.layers import ROIPooling

    maps, given = one_map(), regions(128, kind)
    layer = ROIPooling(7, 1 / 16)
    upstream = np.random.default_rng(2).normal(size=(1, 128, 7, 7, 512)).astype("float32")

    @tf.function
    def gradient(maps, regions, upstream):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            pooled = layer(maps, regions)
        return pooled, tape.gradient(pooled, maps, output_gradients=upstream)

    ours = [tf.constant(each) for each in (maps, given[None], upstream)]
    theirs, torch = _torchvision(maps, given)
    their_call = None
    if theirs:
        back = torch.from_numpy(upstream[0].transpose(0, 3, 1, 2).copy())

        def their_call():
            pooled, tensor = theirs()
            tensor.grad = None
            pooled.backward(back)
            return tensor.grad

        found = their_call().numpy().transpose(0, 2, 3, 1)
        print(f"  gradients differ by {np.abs(gradient(*ours)[1] - found).max():.1e} at most")
    mine, other, ratio = in_turn(lambda: gradient(*ours), their_call, runs)
    name = f"ROI pooling, forward and backward, 128 regions of {kind}"
    rows.add(name, 1e3 * mine, 1e3 * other, ratio, "<= 1")


def _torchvision(maps, given):
    """(a call that gives their result and its input, torch), or twice None."""
    try:
        import torch
        import torchvision
    except Exception:  # a wheel for another machine fails in many ways
        return None, None
    tensor = torch.from_numpy(maps.transpose(0, 3, 1, 2).copy()).requires_grad_(True)
    listed = [torch.from_numpy(given)]
    return lambda: (torchvision.ops.roi_pool(tensor, listed, 7, 1 / 16), tensor), torch


def peak_megabytes():
    """What a process grows by while it first pools 2000 regions, without and of the result."""
    import tensorflow as tf

    from kerasdet.layers import ROIPooling

    pool = tf.function(ROIPooling(7, 1 / 16))
    maps, given = one_map(), regions(2000, "any two corners")
    pool(maps[:, :7, :5], given[None, :3])  # so that TensorFlow itself does not count
    maps, given = tf.constant(maps), tf.constant(given[None])
    before = _status("VmRSS")
    size = 4 * math.prod(pool(maps, given).shape) / 2**20
    return _status("VmHWM") - before - size, size


def _status(line):
    """MB of this process, as Linux counts them."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{line}:")[1].split()[0]) / 1024


if __name__ == "__main__":
    print(*(f"{megabytes:.0f}" for megabytes in peak_megabytes()))
