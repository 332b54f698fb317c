"""What every test shares: a quiet TensorFlow, fixed seeds, and the folder of real data where there is one."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("MPLBACKEND", "agg")
if os.environ["KERAS_BACKEND"] == "jax":  # tests compile much and run little: twice as fast
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real photos and weights are not here: no folder {folder}")
    return folder.resolve()
