"""Speed as ratios in one run, on two threads: kerasdet beside torchvision's ssd300_vgg16 and darknet.

    python tools/bench.py                      # everything that can run here
    python tools/bench.py detect step          # some of it
    python tools/bench.py input --data coco:instances.json,images/
    python tools/bench.py tree yolo --darknet DARKNET --tree 9k.tree
    python tools/bench.py roi fast_rcnn proposals --photos FOLDER    # NAME.jpg and NAME_boxes.mat

Each pair is timed in turn, ours, theirs, ours, theirs, and the ratio is that of the medians.
torchvision is not a dependency: where it is absent ours are timed alone, and that is said.
The two networks hold the same weights, with the background's bias raised so that some hundreds
of boxes pass the score threshold, as in a trained network.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from rich.console import Console
from timing import Rows, in_turn, timed

THREADS = 2
ONE_CORE = "--one-core"
if ONE_CORE in sys.argv:  # before a library starts a thread
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def torchvision_or_none():
    """(torchvision, its version), or (None, why not)."""
    try:
        import torch
        import torchvision
    except Exception as error:  # a wheel for another machine fails in many ways
        return None, f"{type(error).__name__}: {error}".splitlines()[0]
    torch.set_num_threads(THREADS)
    return torchvision, torchvision.__version__


# Before TensorFlow: after it, triton's LLVM in torch's CUDA builds crashes the process.
TORCHVISION, VERSION = torchvision_or_none()

import bench_fast_rcnn  # noqa: E402
import bench_overfeat  # noqa: E402
import bench_rcnn  # noqa: E402
import bench_yolo  # noqa: E402
import keras  # noqa: E402

import kerasdet  # noqa: E402


def same_networks(torchvision):
    """(our SSD300, torchvision's or None) with equal weights."""
    ours = kerasdet.zoo.ssd300(
        num_classes=90, box_sizes=(21, 45, 99, 153, 207, 261, 315), clamp_sizes=True
    )
    if torchvision is None:
        for layer in ours.layers:
            if layer.name.endswith("_mbox_conf"):
                bias = layer.bias.numpy().reshape(-1, 91)
                bias[:, 0] = 7.0
                layer.bias.assign(bias.reshape(-1))
        return ours, None
    import torch

    from kerasdet.weights.maps import ssd as maps

    torch.manual_seed(0)
    theirs = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None)
    with torch.no_grad():
        for head in theirs.head.classification_head.module_list:
            head.bias.view(-1, 91)[:, 0] = 7.0
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    maps.load(ours, maps.from_torch(state), source="torchvision's network")
    return ours, theirs


def bench_detect(rows, ours, theirs, runs):
    rng = np.random.default_rng(0)
    for batch, target in ((1, "<= 0.80"), (8, "<= 0.65")):
        images = [rng.integers(0, 256, (480, 640, 3)).astype("uint8") for _ in range(batch)]
        their_call = None
        if theirs is not None:
            import torch

            tensors = [torch.from_numpy(i).permute(2, 0, 1).float() / 255 for i in images]
            theirs.eval()

            def their_call(tensors=tensors):
                with torch.no_grad():
                    theirs(tensors)

        mine, other, ratio = in_turn(lambda images=images: ours.detect(images), their_call, runs)
        rows.add(f"detect, batch {batch}, 480x640", 1000 * mine, 1000 * other, ratio, target)
    found = ours.detect(images[0], score_threshold=0.0)
    if theirs is not None:
        with torch.no_grad():
            (same,) = theirs(tensors[:1])
        count = min(len(same["scores"]), found[0].count, 50)
        furthest = np.abs(same["boxes"].numpy()[:count] - found[0].boxes[:count]).max(initial=0)
        print(f"  the first {count} detections of both lie within {furthest:.3f} pixels")


def bench_parts(rows, ours, runs):
    """What is not convolution, as a share of the whole, in detection and in training."""
    import tensorflow as tf

    images = np.random.default_rng(0).uniform(0, 255, (8, 300, 300, 3)).astype("float32")
    outputs = ours(images, training=False)
    whole = tf.function(lambda x: ours.decode(ours(x, training=False)))
    rest = tf.function(lambda o: ours.decode(o))
    batch, decode, share = in_turn(lambda: rest(outputs), lambda: whole(images), runs)
    rows.add("decode and suppression, batch 8, of detection", 100 * share, target="< 5 %", unit="%")
    del batch, decode

    targets = _targets(8)

    @tf.function
    def matching_and_loss(outputs, targets):
        assigned = ours.assign(targets)
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = sum(ours.loss_terms(outputs, assigned).values())
        return tape.gradient(loss, outputs)

    ours.compile(keras.optimizers.SGD(1e-5, momentum=0.9), weight_decay=5e-4)
    given = {name: tf.constant(value) for name, value in targets.items()}
    _, _, share = in_turn(
        lambda: matching_and_loss(outputs, given),
        lambda: ours.train_on_batch(images, targets),
        max(runs // 2, 3),
    )
    rows.add(
        "matching and loss, batch 8, of a training step", 100 * share, target="< 5 %", unit="%"
    )


def _targets(batch):
    rng = np.random.default_rng(0)
    boxes, labels = np.zeros((batch, 32, 4), "float32"), np.full((batch, 32), -1, "int32")
    corner, size = rng.uniform(0, 200, (batch, 7, 2)), rng.uniform(20, 100, (batch, 7, 2))
    boxes[:, :7], labels[:, :7] = np.concatenate([corner, corner + size], -1), 3
    return {"boxes": boxes, "labels": labels}


def bench_step(rows, ours, theirs, runs):
    images = np.random.default_rng(0).uniform(0, 255, (8, 300, 300, 3)).astype("float32")
    targets = _targets(8)
    ours.compile(keras.optimizers.SGD(1e-5, momentum=0.9), weight_decay=5e-4)
    their_step = None
    if theirs is not None:
        import torch

        tensors = [torch.from_numpy(i).permute(2, 0, 1).contiguous() / 255 for i in images]
        listed = [
            {"boxes": torch.from_numpy(b[:7]), "labels": torch.from_numpy(k[:7]).long() + 1}
            for b, k in zip(targets["boxes"], targets["labels"], strict=True)
        ]
        sgd = torch.optim.SGD(theirs.parameters(), 1e-5, momentum=0.9, weight_decay=5e-4)
        theirs.train()

        def their_step():
            sgd.zero_grad()
            sum(theirs(tensors, listed).values()).backward()
            sgd.step()

    mine, other, ratio = in_turn(
        lambda: ours.train_on_batch(images, targets), their_step, max(runs // 2, 3)
    )
    rows.add("training step, batch 8", 1000 * mine, 1000 * other, ratio, "<= 0.75")


def bench_input(rows, torchvision, spec, runs):
    """SSD's augmentation from files, in images a CPU second, in a process bound to one core."""
    examples = kerasdet.data.load(spec)
    count = len(examples.records)

    class Model:
        image_size = (300, 300)
        class_names = examples.class_names

    # One after the other: batches made ahead of time must not be counted to the other side.
    batches = kerasdet.data.pipeline(examples, Model, 16, augment="ssd", repeat=True)
    stream = iter(batches)
    rounds = max(runs, 3)
    for _ in range(batches.steps_per_epoch):
        next(stream)
    start = time.process_time()
    for _ in range(rounds * batches.steps_per_epoch):
        next(stream)
    ours = rounds * count / (time.process_time() - start)
    del stream
    theirs = None
    if torchvision is not None:
        chain = _torchvision_chain(examples)
        chain()
        theirs = count / float(np.median([timed(chain, time.process_time) for _ in range(3)]))
    rows.add(
        "SSD's input from files, one core",
        ours,
        theirs,
        theirs and ours / theirs,
        ">= 5",
        unit="images/s",
    )


def in_own_process(arguments, spec):
    """Runs the input bench where no thread was started before it was bound to one core."""
    command = [sys.executable, __file__, "input", ONE_CORE, "--data", spec]
    done = subprocess.run(
        [*command, "--runs", str(arguments.runs)], stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []


def _torchvision_chain(examples):
    """The reference preset "ssd" (references/detection/presets.py), resize included."""
    import torch
    from PIL import Image
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    chain = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill={tv_tensors.Image: (123, 117, 104), "others": 0}),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(0.5),
            v2.ToDtype(torch.float32, scale=True),
            v2.SanitizeBoundingBoxes(),
            v2.Resize((300, 300), antialias=False),
        ]
    )
    records = [r for r in examples.records if len(r.labels)]

    def run():
        for record in examples.records:
            record = record if len(record.labels) else records[0]
            image = Image.open(record.path).convert("RGB")
            boxes = tv_tensors.BoundingBoxes(
                record.boxes, format="XYXY", canvas_size=(image.height, image.width)
            )
            chain(image, {"boxes": boxes, "labels": torch.as_tensor(record.labels)})

    return run


def main():
    parts = ("detect", "parts", "step", "input", "tree", "yolo", "roi", "fast_rcnn", "proposals")
    parts += ("overfeat",)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(parts)}; none: all")
    parser.add_argument("--data", help="photos for the input bench, as kerasdet data takes them")
    parser.add_argument("--darknet", type=Path, help="folder of darknet's built program")
    parser.add_argument("--tree", type=Path, help="9k.tree; without it a tree of its size")
    parser.add_argument("--photos", type=Path, help="folder of photos and their proposals")
    parser.add_argument("--plot", type=Path, help="picture of what one more window costs OverFeat")
    parser.add_argument("--regions", type=int, help="of each of these photos, for a quick look")
    parser.add_argument(ONE_CORE, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=9, help="timed runs of each")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(parts)
    if unknown:
        parser.error(f"wanted some of {', '.join(parts)}, not {', '.join(sorted(unknown))}")
    for name in ("darknet", "tree", "photos"):
        path = getattr(arguments, name)
        if path is not None and not path.exists():
            parser.error(f"--{name} names {path}, which is not there")

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    torchvision = TORCHVISION
    print(
        f"torchvision {VERSION}" if torchvision else f"torchvision is absent, ours alone: {VERSION}"
    )
    rows = Rows()
    chosen = arguments.parts or list(parts)
    if {"detect", "parts", "step"} & set(chosen):
        ours, theirs = same_networks(torchvision)
        if "detect" in chosen:
            bench_detect(rows, ours, theirs, arguments.runs)
        if "parts" in chosen:
            bench_parts(rows, ours, arguments.runs)
        if "step" in chosen:
            bench_step(rows, ours, theirs, arguments.runs)
    if "tree" in chosen:
        bench_yolo.bench_tree(rows, arguments.runs, arguments.tree)
    if "yolo" in chosen:
        bench_yolo.bench_yolo(rows, arguments.runs, arguments.darknet)
    if "roi" in chosen:
        bench_fast_rcnn.bench_roi(rows, arguments.runs)
    if "fast_rcnn" in chosen:
        bench_rcnn.bench_fast_rcnn(
            rows, arguments.runs, arguments.photos, regions=arguments.regions
        )
    if "proposals" in chosen:
        if arguments.photos is None:
            print("proposals: no --photos with the authors' regions, left out")
        else:
            bench_rcnn.bench_proposals(rows, arguments.photos)
    if "overfeat" in chosen:
        bench_overfeat.bench_overfeat(rows, arguments.runs, arguments.plot)
    if "input" in chosen:
        spec = arguments.data or _photos()
        if spec is None:
            print("input: no --data with photos, left out")
        elif arguments.one_core:
            bench_input(rows, torchvision, spec, arguments.runs)
            print(json.dumps(rows.rows))
            return
        else:
            rows.rows += in_own_process(arguments, spec)
    Console().print(rows.table(f"medians of {arguments.runs} runs, {THREADS} threads"))


def _photos():
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco128"
    annotations = folder / "annotations" / "instances_train2017.json"
    return f"coco:{annotations},{folder}/images/train2017" if annotations.is_file() else None


if __name__ == "__main__":
    main()
