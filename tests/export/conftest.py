import numpy as np
import pytest

from tests.export.models import small_ssd


@pytest.fixture(scope="session")
def model():
    """The small SSD, float32."""
    return small_ssd()


@pytest.fixture(scope="session")
def photos():
    """Three noisy pictures of lopsided sizes, uint8 (H, W, 3)."""
    random = np.random.default_rng(2)
    sizes = [(50, 70), (131, 40), (96, 96)]
    coarse = [random.uniform(0, 256, (h // 8 + 1, w // 8 + 1, 3)) for h, w in sizes]
    return [
        np.kron(cells, np.ones((8, 8, 1)))[:h, :w].astype("uint8")
        for cells, (h, w) in zip(coarse, sizes, strict=True)
    ]
