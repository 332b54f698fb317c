"""The part "fast_rcnn" of tools/bench.py: detection part by part, truncated SVD, and R-CNN beside it.

VGG16 with weights drawn at random, its class scores stretched so that some hundreds of boxes pass the
threshold, as in a trained network. Proposals are not counted, as in the paper. What differs from its
table 4: two cores and not a K40; R-CNN here is its network alone, on some of the regions and scaled
up to all, without its support vector machines; and its regions go through in batches.
"""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import rcnn as yardstick
from timing import in_turn, timed

from kerasdet import region_proposals, zoo
from kerasdet.data.proposal_cache import best_overlaps
from kerasdet.detectors.fast_rcnn import FastRCNN
from kerasdet.images import placement, read_image, warp

RANKS = {"fc6": 1024, "fc7": 256}  # sec. 4.4

# Milliseconds an image on a K40 (fig. 2), whole and after SVD.
_PAPER = {
    "convolution": (146, 143),
    "ROI pooling": (17, 17),
    "fc6 and fc7": (142, 41),
    "what follows, suppression apart": (11, 11),
}
_TRAINED = 128  # regions of a step, of two images (sec. 2.3)


class Photo(NamedTuple):
    """An image (H, W, 3) and regions (R, 4) in its pixels."""

    image: np.ndarray
    regions: np.ndarray


def photos_in(folder, most=None) -> list[Photo]:
    """The photos NAME.jpg of a folder with the boxes of NAME_boxes.mat; no folder: noise.

    Args:
        folder: path or None.
        most: regions of a photo that count, evenly from all; None for all.
    """
    if folder is None:
        rng = np.random.default_rng(0)
        corners = np.sort(rng.uniform(0, 1, (2000, 2, 2)), axis=1) * [500, 375]
        photos = [Photo(rng.uniform(0, 255, (375, 500, 3)), corners.reshape(-1, 4))]
    else:
        from kerasdet.data import read_regions

        photos = [
            Photo(read_image(path), read_regions(path.with_name(f"{path.stem}_boxes.mat")))
            for path in sorted(Path(folder).glob("*.jpg"))
        ]
    return [Photo(p.image, _evenly(p.regions, most).astype("float32")) for p in photos]


def _evenly(rows, count):
    if count is None or count >= len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(int)]


def bench_proposals(rows, folder):
    """How many of the authors' regions one of our Selective Search's overlaps, photo by photo.

    Args:
        rows: the table.
        folder: of NAME.jpg and NAME_boxes.mat.
    """
    from kerasdet.data import read_regions, selective_search

    for path in sorted(Path(folder).glob("*.jpg")):
        theirs = read_regions(path.with_name(f"{path.stem}_boxes.mat"))
        found = []
        seconds = timed(lambda p=path, f=found: f.append(selective_search(read_image(p))))
        best = best_overlaps(theirs, found[0])
        print(f"  {path.name}: {len(found[0])} regions of ours in {seconds:.0f} s")
        for least in (0.5, 0.7):
            name = f"Selective Search, {path.name}: share of the authors' {len(theirs)} regions"
            rows.add(f"{name} at IoU {least}", 100 * np.mean(best >= least), unit="%")


def bench_fast_rcnn(rows, runs, folder=None, *, regions=None, crops=16):
    """Parts of an image's time, whole and compressed, then R-CNN on the same photos.

    Args:
        rows: the table.
        runs: timed runs.
        folder: of photos and their boxes, as in `photos_in`.
        regions: of each photo that count; None for all.
        crops: regions that R-CNN is timed on.
    """
    _bench_detection(rows, runs, photos_in(folder, regions), crops)
    _bench_training(rows, max(runs // 4, 1), min(crops, 8))


def _bench_detection(rows, runs, photos, crops):
    keras.utils.set_random_seed(0)
    model = zoo.fast_rcnn_vgg16()
    _stretch_scores(model, photos[0])
    models = [model]
    seconds = timed(lambda: models.append(model.compress(**RANKS)))
    print(f"  compressed to ranks {RANKS} in {seconds:.0f} s")
    end_to_end = []
    for which, (network, about) in enumerate(zip(models, ("", ", with SVD"), strict=True)):
        inputs, cut = _prepared(network, photos[0])
        size = "x".join(str(side) for side in inputs["images"].shape[1:3])
        name = f"Fast R-CNN{about}, {size}, {inputs['regions'].shape[1]} regions"
        for part, took in _seconds_by_part(network, inputs, cut, runs).items():
            paper = f"paper, K40: {_PAPER[part][which]} ms" if part in _PAPER else ""
            rows.add(f"{name}: {part}", 1e3 * took, target=paper)
        detect = [lambda p=p, n=network: n.detect(p.image, p.regions) for p in photos]
        took = np.mean([in_turn(call, None, runs)[0] for call in detect])
        paper = f"paper, K40: {(320, 223)[which]} ms"
        rows.add(f"Fast R-CNN{about}: an image, all in all", 1e3 * took, target=paper)
        print(f"  {np.mean([call()[0].count for call in detect]):.0f} detections an image")
        end_to_end.append(took)
    _bench_svd(rows, runs, models, photos[0])
    _bench_rcnn(rows, runs, model, photos, crops, end_to_end)


def _stretch_scores(model, photo):
    """Class logits of deviation 2, background's 4 higher: some boxes in a hundred pass."""
    inputs, _ = _prepared(model, Photo(photo.image, _evenly(photo.regions, 100)))
    logits = np.asarray(model(inputs, training=False)["classes"])
    layer = model.get_layer("cls_score")
    kernel, bias = layer.get_weights()
    factor = 2 / logits.std()
    shift = -factor * logits.mean(axis=(0, 1))
    shift[0] += 4
    layer.set_weights([kernel * factor, bias * factor + shift])


def _prepared(model, photo):
    """A network's inputs for one photo as `detect` makes them, and the photo's (height, width)."""
    shape = photo.image.shape[:2]
    place = placement(shape, model.image_size, "corner", short_side=model.short_side)
    scale = np.array(place.scale, "float32")
    regions = region_proposals.checked_regions(photo.regions, shape)
    regions = regions[region_proposals.distinct(regions * scale, 1 / model.stride)] * scale
    image = warp(photo.image, (place.height, place.width))
    return {"images": image[None], "regions": regions[None]}, (place.height, place.width)


def _parts(model):
    """The network cut in four: (convolution, pooling, the hidden layers, what gives the outputs)."""
    import tensorflow as tf

    pool, hidden = model.get_layer("roi_pool5"), model.get_layer("drop7").output
    features = keras.Model(model.get_layer("images").output, pool.input[0])
    connected, outputs = keras.Model(pool.output, hidden), keras.Model(hidden, model.output)
    return tuple(tf.function(part) for part in (features, pool, connected, outputs))


def _seconds_by_part(model, inputs, size, runs):
    """Median seconds of each part, one after the other in every run."""
    import tensorflow as tf

    images, regions = (tf.constant(inputs[name]) for name in ("images", "regions"))
    features, pool, connected, outputs = _parts(model)
    decode = tf.function(lambda raw, regions: model.decode(raw, regions=regions, image_size=size))
    maps = features(images)
    pooled = pool(maps, regions)
    hidden = connected(pooled)
    raw = outputs(hidden)
    calls = {
        "convolution": lambda: features(images),
        "ROI pooling": lambda: pool(maps, regions),
        "fc6 and fc7": lambda: connected(pooled),
        "what follows, suppression apart": lambda: outputs(hidden),
        "decoding and suppression": lambda: decode(raw, regions),
    }
    for call in calls.values():
        call()
    took = [[timed(call) for call in calls.values()] for _ in range(runs)]
    return dict(zip(calls, np.median(took, axis=0), strict=True))


def _bench_svd(rows, runs, models, photo):
    """The two large layers, whole and in two each, on the same pooled regions."""
    inputs, _ = _prepared(models[0], photo)
    features, pool, *_ = _parts(models[0])
    pooled = pool(features(inputs["images"]), inputs["regions"])
    whole, halves = (_parts(model)[2] for model in models)
    mine, other, ratio = in_turn(lambda: halves(pooled), lambda: whole(pooled), runs)
    name = f"fc6 and fc7 of {inputs['regions'].shape[1]} regions: with SVD, whole, times faster"
    rows.add(name, 1e3 * mine, 1e3 * other, 1 / ratio, ">= 3 (paper: 3.5)")


def _bench_rcnn(rows, runs, model, photos, crops, end_to_end):
    """R-CNN's time for all regions of a photo, from some of them, beside both of ours."""
    import tensorflow as tf

    network = tf.function(lambda inputs: model(inputs, training=False))

    def run():
        for photo in photos:
            some = _evenly(photo.regions, crops)
            yardstick.rcnn(network, photo.image, some, model.mean, batch=min(crops, 16))

    seconds = in_turn(run, None, max(runs // 2, 1))[0] / len(photos)
    timed_on = np.mean([min(crops, len(photo.regions)) for photo in photos])
    count = np.mean([len(photo.regions) for photo in photos])
    whole = seconds * count / timed_on
    name = f"R-CNN, an image of {count:.0f} regions (timed on {timed_on:.0f} and scaled), beside "
    for other, ours, paper in zip(
        ("Fast R-CNN", "it with SVD"), end_to_end, (146, 213), strict=True
    ):
        rows.add(name + other, 1e3 * whole, 1e3 * ours, whole / ours, f"paper: {paper}")


def _bench_training(rows, runs, crops):
    """A step on 128 regions of two images, beside one on 128 warped regions (from fewer, scaled)."""
    rng = np.random.default_rng(0)
    settings = {"train_from": "paper", "sampling": {"background_iou": (0.0, 0.5)}}
    regions = np.tile([[[0, 0, 200, 200], [300, 0, 800, 500]]], (2, _TRAINED // 4, 1))
    sizes = rng.uniform(0, 40, regions.shape) * [1, 1, -1, -1]
    fast = {
        "images": rng.uniform(0, 255, (2, 600, 800, 3)).astype("float32"),
        "regions": (regions + sizes).astype("float32"),
    }
    seconds = _step_seconds(settings, fast, [0, 0, 200, 200], runs)
    squares = rng.uniform(0, 255, (crops, yardstick.SIDE, yardstick.SIDE, 3)).astype("float32")
    one = {"samples": 1, "foreground_share": 1.0}  # the whole square, as an object of its own
    inputs = yardstick.inputs_of(squares)
    box = inputs["regions"][0, 0].tolist()
    theirs = _step_seconds({**settings, "sampling": one}, inputs, box, runs) * _TRAINED / crops
    rows.add(
        f"R-CNN, a training step on {_TRAINED} regions (timed on {crops} and scaled), beside "
        "Fast R-CNN's of two images",
        1e3 * theirs,
        1e3 * seconds,
        theirs / seconds,
        "paper, a whole training: 8.8",
    )


def _step_seconds(settings, inputs, box, runs):
    model = FastRCNN(20, backbone="vgg16", **settings)
    model.compile(keras.optimizers.SGD(1e-6, momentum=0.9))
    count = len(inputs["images"])
    targets = {
        "boxes": np.tile(np.array([[box]], "float32"), (count, 1, 1)),
        "labels": np.zeros((count, 1), "int32"),
    }
    return in_turn(lambda: model.train_on_batch(inputs, targets), None, runs)[0]
