from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from synalign_agent.core.kernels import Cosine, Kernel, RBFMixture, from_gpytorch, median_distance, stationary
from synalign_agent.errors import InputError

with warnings.catch_warnings():
    # GPyTorch still compiles with torch.jit.script, which torch deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import gpytorch


def test_mixture_is_the_mean_of_its_gaussians() -> None:
    a, b = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])
    expected = (math.exp(-25 / 2) + math.exp(-25 / 8) + math.exp(-25 / 32)) / 3
    assert RBFMixture((1.0, 2.0, 4.0))(a, b)[0, 0] == pytest.approx(expected, rel=1e-12)


def test_rbf_agrees_with_gpytorch_in_convention() -> None:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(6, 3)), rng.normal(size=(5, 3))
    kernel = gpytorch.kernels.RBFKernel()
    kernel.lengthscale = 0.5
    np.testing.assert_allclose(from_gpytorch(kernel)(A, B), RBFMixture((0.5,))(A, B), rtol=1e-6)


def test_any_stationary_gpytorch_kernel_can_be_plugged_in() -> None:
    A = np.random.default_rng(1).normal(size=(4, 2))
    kernel = gpytorch.kernels.MaternKernel(nu=1.5).double()
    kernel.lengthscale = 1.0
    K = from_gpytorch(kernel)(A, A)
    d = math.sqrt(3) * np.linalg.norm(A[0] - A[1])
    assert K.dtype == np.float64
    np.testing.assert_allclose(np.diag(K), 1.0)
    assert K[0, 1] == pytest.approx((1 + d) * math.exp(-d), rel=1e-9)


def test_adapter_keeps_its_own_parameters() -> None:
    A = np.array([[0.0], [1.0]])
    module = gpytorch.kernels.RBFKernel()
    adapted = from_gpytorch(module)
    before = adapted(A, A)
    module.lengthscale = 99.0
    np.testing.assert_array_equal(adapted(A, A), before)


def test_kernels_without_unit_diagonal_are_refused() -> None:
    with pytest.raises(InputError, match="stationary"):
        from_gpytorch(gpytorch.kernels.LinearKernel())
    scaled = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
    scaled.outputscale = 2.0
    with pytest.raises(InputError, match="ScaleKernel"):
        from_gpytorch(scaled)(np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(InputError, match="batch"):
        from_gpytorch(gpytorch.kernels.RBFKernel(batch_shape=[2]))


@pytest.mark.parametrize("lengthscales", [(), (0.0,), (1.0, -1.0), (math.nan,), (math.inf,)])
def test_lengthscales_must_be_positive(lengthscales: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="lengthscale"):
        RBFMixture(lengthscales)


def test_median_distance_matches_scipy() -> None:
    X = np.random.default_rng(2).normal(size=(41, 6))
    expected = float(np.median(pdist(X)))
    assert median_distance(X, np.random.default_rng(0)) == pytest.approx(expected, rel=1e-12)


def test_median_distance_of_a_subsample_is_close_and_repeatable() -> None:
    X = np.random.default_rng(3).normal(size=(900, 6))
    expected = float(np.median(pdist(X)))
    first = median_distance(X, np.random.default_rng(7), max_rows=300)
    assert first == median_distance(X, np.random.default_rng(7), max_rows=300)
    assert first != expected
    assert first == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("n", [1, 2, 50])
def test_median_distance_of_equal_rows_is_one(n: int) -> None:
    row = np.random.default_rng(4).normal(size=384)
    assert median_distance(np.tile(row, (n, 1)), np.random.default_rng(0)) == 1.0


@pytest.mark.parametrize("kernel", [RBFMixture((0.7,)), RBFMixture((0.5, 1.0, 2.0)), RBFMixture((0.4, 1.1)), Cosine()])
@pytest.mark.parametrize("shape", [(3, 700), (700, 3), (600, 550), (1, 1)])
def test_float32_rows_give_float32_values_close_to_the_exact_ones(kernel: Kernel, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(shape[0], 20)), rng.normal(size=(shape[1], 20))
    A, B = A / np.linalg.norm(A, axis=1, keepdims=True), B / np.linalg.norm(B, axis=1, keepdims=True)
    single = kernel(A.astype(np.float32), B.astype(np.float32))
    assert single.dtype == np.float32
    assert kernel(A, B.astype(np.float32)).dtype == np.float64
    np.testing.assert_allclose(single, kernel(A, B), atol=3e-6)


def test_many_rows_and_few_give_the_same_values() -> None:
    A = np.random.default_rng(1).normal(size=(1200, 6))
    kernel = RBFMixture((0.5, 1.0, 2.0))
    np.testing.assert_allclose(kernel(A, A)[:4], kernel(A[:4], A), rtol=1e-10)


def test_values_of_distances_are_those_of_rows() -> None:
    rng, kernel = np.random.default_rng(2), RBFMixture((0.5, 1.3))
    A, B = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    squared = ((A[:, None] - B[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(kernel.of_squared_distances(squared), kernel(A, B), rtol=1e-10)


def test_cosine_is_that_of_the_angle_whatever_the_lengths() -> None:
    A = np.array([[2.0, 0.0], [0.0, 0.5], [3.0, 3.0], [0.0, 0.0]])
    half = math.sqrt(0.5)
    expected = [[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(Cosine()(A, A), expected, atol=1e-12)


@pytest.mark.parametrize(("name", "at_one"), [("rbf", math.exp(-0.5)), ("matern12", math.exp(-1.0)), ("rq", 1 / 1.5)])
def test_kernels_by_name_follow_their_formula(name: str, at_one: float) -> None:
    K = stationary(name, 2.0)(np.array([[0.0]]), np.array([[2.0], [0.0]]))
    np.testing.assert_allclose(K, [[at_one, 1.0]], rtol=1e-6)


@pytest.mark.parametrize(("name", "message"), [("cubic", "matern52"), ("rbf", "> 0")])
def test_a_kernel_that_is_none_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        stationary(name, 1.0 if name == "cubic" else 0.0)
