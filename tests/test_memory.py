"""What the machine has to spare, and what a network takes of it."""

import keras
import pytest
from keras import layers

from kerasdet import memory
from kerasdet.errors import InputError


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes the files that the system answers by; None: there is no such file."""

    def write(meminfo=None, limit=None, used=None):
        for name, text in (("_MEMINFO", meminfo), ("_LIMIT", limit), ("_USED", used)):
            path = tmp_path / name
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text)
            monkeypatch.setattr(memory, name, path)

    return write


MEMINFO = "MemTotal:       24000 kB\nMemFree:  1000 kB\nMemAvailable:    2048 kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((MEMINFO, None, None), 2048 * 1024),
        ((MEMINFO, "max\n", "700\n"), 2048 * 1024),
        ((MEMINFO, "1000000\n", "300000\n"), 700_000),  # a container's limit is nearer
        ((MEMINFO, "9000000\n", "300000\n"), 2048 * 1024),
        ((None, "1000\n", "3000\n"), 0),
        ((None, None, None), None),
        (("something else", None, None), None),
    ],
)
def test_what_is_free_is_the_systems_or_the_containers(machine, files, expected):
    machine(*files)
    assert memory.available() == expected


def test_more_than_there_is_is_refused_with_both_numbers(machine):
    machine(MEMINFO)
    memory.require(2048 * 1024, "It")
    with pytest.raises(InputError, match=r"It wants about 3\.5 GiB of memory, and 2 MiB are"):
        memory.require(int(3.5 * 2**30), "It")
    machine()
    memory.require(10**18, "It")  # a system that does not say refuses nothing


def test_a_network_takes_three_times_its_two_largest_layer_outputs():
    """Of 2x20x30: 16 channels at half the side, and their ReLU, are more than the image."""
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(16, 2, strides=2)(inputs)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.ReLU()(x)))
    assert memory.bytes_for(model, (2, 20, 30, 3)) == 3 * 2 * (2 * 10 * 15 * 16) * 4
    assert memory.bytes_for(model, (2, 40, 60, 3)) == 4 * memory.bytes_for(model, (2, 20, 30, 3))
