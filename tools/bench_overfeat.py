"""The OverFeat part of tools/bench.py: one dense pass beside the same windows one by one.

The windows are cropped from the image and go through the same weights alone. Their outputs are not the
dense ones: 3x3 convolutions see zeros past a crop's edge, and the neighbours in the whole image.
"""

import keras
import numpy as np
from timing import in_turn

from kerasdet.backbones.overfeat import LAYOUTS, SCALES
from kerasdet.classifier import Classifier
from kerasdet.compiling import compiled
from kerasdet.detectors.overfeat import OverFeat


def bench_overfeat(rows, runs, plot=None):
    """Both networks at full width, 1000 classes, at the paper's third scale; and at all six."""
    costs = {}
    for network in LAYOUTS:
        keras.utils.set_random_seed(0)
        costs[network] = _bench_network(rows, runs, network)
    if plot is not None:
        _draw(costs, plot)
        print(f"Wrote {plot}")


def _bench_network(rows, runs, network):
    """[(windows, seconds)] of the dense pass at the paper's scales, the single window first."""
    classifier = Classifier(1000, network=f"overfeat_{network}")
    model = OverFeat(1000, network=network, background=False, task="localisation")
    model.start_from(classifier)
    window, stride = model.layout.window, model.layout.stride
    one = compiled(classifier, lambda logits: logits, (1, window, window, 3))
    rng = np.random.default_rng(0)
    cost = []
    for size in ((window, window), *SCALES):
        image = rng.uniform(0, 255, (1, *size, 3)).astype("float32")
        # The classes alone: a crop goes through no regressor either.
        classes = keras.Model(model.input, model.output["classes"])
        dense = compiled(classes, lambda logits: logits, image.shape)
        seconds, _, _ = in_turn(lambda dense=dense, image=image: dense(image), None, runs)
        corners = [
            (i * stride, j * stride)
            for i in range(model.layout.output_side(size[0]))
            for j in range(model.layout.output_side(size[1]))
        ]
        cost.append((len(corners), seconds))
        if size == SCALES[2]:
            crops = [image[:, y : y + window, x : x + window] for y, x in corners]

            def one_by_one(crops=crops):
                for crop in crops:
                    one(crop)

            mine, other, ratio = in_turn(
                lambda d=dense, i=image: d(i), one_by_one, max(runs // 3, 1)
            )
            rows.add(
                f"OverFeat {network}, {len(crops)} windows of {size[0]}x{size[1]} (beside one by one)",
                1e3 * mine,
                1e3 * other,
                ratio,
                "<= 0.1",
            )
    (_, first), (count, last) = cost[0], cost[-1]
    more = (last - first) / (count - 1)
    rows.add(
        f"OverFeat {network}, one more window of {count} (beside the first)",
        1e3 * more,
        1e3 * first,
        more / first,
    )
    return cost


def _draw(costs, path):
    """Milliseconds of one more window, from one size of the image to the next."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for network, cost in costs.items():
        counts, seconds = np.array(cost).T
        (line,) = axes.plot(
            counts[1:], 1e3 * np.diff(seconds) / np.diff(counts), "o-", label=f"{network}, one more"
        )
        axes.axhline(
            1e3 * seconds[0], color=line.get_color(), linestyle=":", label=f"{network}, the first"
        )
    axes.set(xlabel="windows", ylabel="milliseconds a window", yscale="log", xscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
