"""What a narrow OverFeat takes of memory for one image, beside its two largest layer outputs.

python tools/peak_memory.py fast 0.25 2000
"""

import argparse
import threading
import time

import numpy as np

import kerasdet
from kerasdet import memory


def resident():
    """Bytes of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def main():
    """Prints both, and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    parser.add_argument("width", type=float)
    parser.add_argument("side", type=int)
    given = parser.parse_args()
    model = kerasdet.OverFeat(num_classes=5, network=given.network, width=given.width, stddev=None)
    small, large = (240, 240), (given.side, given.side)
    model._run(model.candidates, small)(np.zeros((1, *small, 3), "float32"))
    run = model._run(model.candidates, large)
    run.get_concrete_function()  # traced; what is left is the pass itself
    image = np.random.default_rng(0).uniform(0, 255, (1, *large, 3)).astype("float32")
    before, seen, done = resident(), [0], threading.Event()

    def watch():
        while not done.is_set():
            seen.append(resident())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run(image)
    done.set()
    watcher.join()
    outputs = memory.bytes_for(model, image.shape) / memory.PEAK
    grown = max(seen) - before
    print(f"{grown / 2**20:.0f} MiB beside {outputs / 2**20:.0f}: {grown / outputs:.2f} times")


if __name__ == "__main__":
    main()
