"""What an OverFeat's look at one photo takes of memory beside what is estimated, in a fresh process.

python tools/peak_memory.py fast detect 245x245,461x569
python tools/peak_memory.py accurate ten --width 0.125 --classifier
"""

import argparse
import ctypes
import gc
import tempfile

import numpy as np

import kerasdet
from kerasdet import export
from kerasdet.backbones.overfeat import LAYOUTS, SCALES
from kerasdet.export.inputs import _GRAPHS
from kerasdet.opening import sides

USES = ("detect", "localise", "scales", "ten", "export")


def status(key):
    """Bytes of this process: VmRSS now, VmHWM at its highest."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


def main():
    """Prints both, and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=list(LAYOUTS))
    parser.add_argument("use", choices=USES)
    parser.add_argument("scales", nargs="?", help="HxW,...; the paper's six if not said")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--coarse", action="store_true")
    parser.add_argument("--classifier", action="store_true")
    given = parser.parse_args()
    scales = [sides(size) for size in given.scales.split(",")] if given.scales else list(SCALES)
    if given.classifier:
        model = kerasdet.Classifier(
            given.classes,
            network=f"overfeat_{given.network}",
            width=given.width,
            scales=scales,
        )
    else:
        model = kerasdet.OverFeat(
            given.classes,
            network=given.network,
            width=given.width,
            scales=scales,
            fine=not given.coarse,
            stddev=None,
        )
    height, width = max(scales, key=lambda size: size[0] * size[1])
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype("uint8")
    window = model.image_size if given.classifier else 2 * [LAYOUTS[given.network].window]
    images, *size = {"scales": (2, height, width), "ten": (10, *window)}.get(
        given.use, (1, height, width)
    )
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what making the weights took goes back to the system
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # VmHWM starts again at what is there now
    before = status("VmRSS")
    if given.use == "export":
        with tempfile.TemporaryDirectory() as folder:
            export.saved_model(model, folder, serving=False)
    elif given.use in ("scales", "ten"):
        model.vote(photo, given.use)
    else:
        getattr(model, given.use)(photo)
    taken = status("VmHWM") - before
    demand = getattr(model, "_vote_memory", model._memory) if images > 1 else model._memory
    wanted = demand.bytes(images, *size)
    if given.use == "export":
        wanted += demand.bytes_of_weights() + _GRAPHS
    print(
        f"{given.network} {given.width:g} {given.use} {given.scales or 'six scales'}: "
        f"{taken / 2**20:.0f} MiB at the peak, {wanted / 2**20:.0f} estimated: "
        f"{wanted / taken:.2f} times"
    )


if __name__ == "__main__":
    main()
