"""Two matrices for one: the truncated singular value decomposition and its bound."""

import numpy as np
import pytest

from kerasdet.low_rank import factors

SHAPES = [(40, 13), (13, 40), (20, 20), (1500, 30)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_product_is_the_truncated_svd(shape, rng):
    kernel = rng.normal(size=shape).astype("float32")
    u, s, v = np.linalg.svd(kernel.astype("float64"), full_matrices=False)
    first, second = factors(kernel, 5)
    assert (first.shape, second.shape) == ((shape[0], 5), (5, shape[1]))
    np.testing.assert_allclose(first @ second, (u[:, :5] * s[:5]) @ v[:5], atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_output_moves_by_more_than_the_first_value_left_out(shape, rng):
    kernel = rng.normal(size=shape).astype("float32")
    values = np.linalg.svd(kernel, compute_uv=False)
    first, second = factors(kernel, 4)
    x = rng.normal(size=(200, shape[0]))
    moved = np.linalg.norm(x @ kernel - x @ first @ second, axis=1)
    lengths = np.linalg.norm(x, axis=1)
    assert (moved <= values[4] * lengths * (1 + 1e-4)).all()
    # Reached by the singular vector itself.
    worst = np.linalg.svd(kernel)[0][:, 4]
    assert np.linalg.norm(worst @ kernel - worst @ first @ second) == pytest.approx(
        values[4], rel=1e-3
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_full_rank_changes_nothing(shape, rng):
    kernel = rng.normal(size=shape).astype("float32")
    first, second = factors(kernel, min(shape))
    np.testing.assert_allclose(first @ second, kernel, atol=1e-4)


def test_a_kernel_of_lower_rank_gives_no_nan():
    first, second = factors(np.outer(np.arange(6.0), np.ones(4)).astype("float32"), 3)
    np.testing.assert_allclose(first @ second, np.outer(np.arange(6.0), np.ones(4)), atol=1e-5)
