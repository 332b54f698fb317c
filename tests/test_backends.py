"""TensorFlow and JAX compute the same, and JAX needs no TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import backend_probe, small

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="run from TensorFlow, it starts JAX itself"
    ),
    pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed"),
]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Everything measured on TensorFlow and, where TensorFlow cannot be imported, on JAX."""
    folder = tmp_path_factory.mktemp("backends")
    keras.utils.set_random_seed(6)
    small.ssd().save_weights(folder / "ssd.weights.h5")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.backend_probe",
            folder / "ssd.weights.h5",
            folder / "jax.npz",
        ],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "XLA_FLAGS": "--xla_backend_optimization_level=1",  # it runs once what it compiles
        },
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "jax, no TensorFlow"
    with np.load(folder / "jax.npz") as arrays:
        on_jax = dict(arrays)
    return backend_probe.measure(folder / "ssd.weights.h5"), on_jax


def test_jax_builds_loads_trains_and_detects_without_tensorflow(both):
    on_tensorflow, on_jax = both
    assert on_jax.keys() == on_tensorflow.keys()
    weights = 8 + 12 + 6  # backbone, heads, extra map
    moving_averages = 4
    assert sum(name.startswith("gradient/") for name in on_jax) == weights + moving_averages


# Relative to the largest number of each array: sums run in different orders in float32.
@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("output", 1e-5), ("assigned", 1e-5), ("found", 1e-4), ("term", 1e-5), ("gradient", 1e-4)],
)
def test_both_back_ends_agree(kind, tolerance, both):
    on_tensorflow, on_jax = both
    names = [name for name in on_tensorflow if name.startswith(f"{kind}/")]
    assert len(names) > 1
    for name in names:
        expected, found = on_tensorflow[name], on_jax[name]
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
        largest = np.abs(expected).max()
        assert largest > 0, f"{name}: nothing to compare"
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * largest, err_msg=name)
