"""What the machine has to spare, and what a network takes of it."""

import keras
import pytest
from keras import layers

from kerasdet import memory
from kerasdet.errors import InputError
from kerasdet.layers import connected_conv
from kerasdet.layers.connected_conv import ConnectedConv2D


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes the files that the system answers by; None: there is no such file."""
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "memory").mkdir()

    def write(meminfo=None, limit=None, used=None, use=None, *, version=2):
        files = {"meminfo": meminfo}
        for place, text in enumerate((limit, used, use)):
            files[memory._CONTAINERS[2 - version][place]] = text
        for name, text in files.items():
            path = tmp_path / name
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text)

    return write


MEMINFO = "MemTotal:       24000 kB\nMemFree:  1000 kB\nMemAvailable:    2048 kB\n"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((MEMINFO, None, None), 2048 * 1024),
        ((MEMINFO, "max\n", "700\n"), 2048 * 1024),
        ((MEMINFO, "9223372036854771712\n", "700\n"), 2048 * 1024),  # version 1's way of no limit
        ((MEMINFO, "1000000\n", "300000\n"), 700_000),  # a container's limit is nearer
        ((MEMINFO, "9000000\n", "300000\n"), 2048 * 1024),
        ((None, "1000\n", "3000\n"), 0),
        ((None, None, None), None),
        (("something else", None, None), None),
    ],
)
def test_what_is_free_is_the_systems_or_the_containers(machine, files, expected, version):
    machine(*files, version=version)
    assert memory.available() == expected


@pytest.mark.parametrize(
    ("version", "use"),
    [
        (2, "anon 300000\ninactive_file 500000\nactive_file 100000\n"),
        (1, "inactive_file 7\ntotal_rss 300000\ntotal_inactive_file 500000\n"),
    ],
)
def test_files_that_were_read_do_not_count_as_used(machine, version, use):
    machine(MEMINFO, "1000000\n", "900000\n", use, version=version)
    assert memory.available() == 600_000


def test_more_than_there_is_is_refused_with_both_numbers(machine):
    machine(MEMINFO)
    memory.require(2048 * 1024, "It")
    with pytest.raises(InputError, match=r"It wants about 3\.5 GiB of memory, and 2 MiB are"):
        memory.require(int(3.5 * 2**30), "It")
    machine()
    memory.require(10**18, "It")  # a system that does not say refuses nothing


@pytest.fixture
def network():
    """A convolution to 16 channels at half the side, its ReLU, and a large kernel at the end."""
    inputs = keras.Input((None, None, 3))
    x = layers.ReLU()(layers.Conv2D(16, 2, strides=2)(inputs))
    x = layers.Dense(1000)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(500)(x), name="it")


@pytest.mark.parametrize(("back_end", "times"), [("tensorflow", 3), ("jax", 9)])
def test_a_pass_takes_its_two_largest_maps_some_times_and_a_copy_of_two_kernels(
    network, monkeypatch, back_end, times
):
    """The convolution's map and the ReLU's, which are more than the image; the two Dense layers."""
    monkeypatch.setattr(keras.backend, "backend", lambda: back_end)
    maps = 2 * (100 * 150 * 16) * 4
    kernels = (1000 * 500 + 16 * 1000) * 4
    demand = memory.Demand(network)
    assert demand.bytes(1, 200, 300) == times * maps + kernels + memory.SPARE
    assert demand.bytes(10, 200, 300) == 10 * times * maps + kernels + memory.SPARE
    assert demand.bytes(1, 400, 600) == 4 * times * maps + kernels + memory.SPARE
    biases, convolution = 1000 + 500 + 16, 2 * 2 * 3 * 16
    assert demand.bytes_of_weights() == kernels + (biases + convolution) * 4


def test_as_many_images_at_once_as_there_is_memory_for(network, monkeypatch):
    monkeypatch.setattr(memory, "PEAK", dict.fromkeys(memory.PEAK, 3))
    demand, sizes = memory.Demand(network), [(200, 300), (20, 30)]
    for free, expected in ((demand.bytes(4, 200, 300) - 1, 3), (10**12, 8), (None, 8)):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        assert demand.images_at_once(sizes, 8) == expected
        demand.require(sizes)
    monkeypatch.setattr(memory, "available", lambda: 97 * 2**20)
    for use in (demand.require, lambda sizes: demand.images_at_once(sizes, 8)):
        with pytest.raises(
            InputError,
            match="it on an image of 200x300 pixels wants about 103 MiB of memory, and 97 MiB are",
        ):
            use(sizes)
    with pytest.raises(InputError, match="it on 10 images of 200x300 pixels wants about 153 MiB"):
        demand.require(sizes, images=10)


def test_a_kernel_that_is_multiplied_is_not_copied_but_its_windows_are(monkeypatch):
    monkeypatch.setattr(connected_conv, "_LEAST", 0)
    inputs = keras.Input((None, None, 3))
    network = keras.Model(inputs, ConnectedConv2D(50, 4, use_bias=False)(inputs))
    kernel, maps, windows = 4 * 4 * 3 * 50, 9 * 8 * 3 + 6 * 5 * 50, 6 * 5 * 4 * 4 * 3
    peak = memory.PEAK[keras.backend.backend()]
    copied = peak * maps * 4 + kernel * 4 + memory.SPARE
    assert memory.Demand(network).bytes(1, 9, 8) == copied
    multiplied = (peak * maps + windows) * 4 + memory.SPARE
    if keras.backend.backend() != "tensorflow":
        multiplied = copied
    assert memory.Demand(network, known_sides=True).bytes(1, 9, 8) == multiplied
    # 20 x 20 windows are too many.
    large = memory.Demand(network, known_sides=True).bytes(1, 23, 23)
    assert large == memory.Demand(network).bytes(1, 23, 23)
