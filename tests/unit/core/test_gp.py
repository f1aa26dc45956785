from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from synalign_agent.core import gp
from synalign_agent.core.arrays import unit_rows
from synalign_agent.core.gp import PosteriorVariance
from synalign_agent.core.kernels import Kernel, RBFMixture, from_gpytorch
from synalign_agent.errors import InputError

with warnings.catch_warnings():
    # GPyTorch still compiles with torch.jit.script, which torch deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import gpytorch


def exact_gp_variance(X: np.ndarray, S: list[int], lengthscale: float, noise: float) -> np.ndarray:
    """The oracle: GPyTorch's exact GP, variance of the latent function."""

    class Model(gpytorch.models.ExactGP):
        def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
            fixed = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(torch.full((len(x),), noise, dtype=torch.float64))
            super().__init__(x, y, fixed)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.RBFKernel()

        def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    rows = torch.tensor(X)
    model = Model(rows[S], torch.zeros(len(S), dtype=torch.float64)).double()
    model.covar_module.lengthscale = lengthscale
    model.eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        return model(rows).variance.numpy()


def conditioned(X: np.ndarray, S: Sequence[int], kernel: Kernel, noise: float) -> PosteriorVariance:
    posterior = PosteriorVariance(kernel, noise)
    for row in S:
        posterior.condition(X[row])
    return posterior


def test_variance_matches_gpytorch_exact_gp() -> None:
    X = np.random.default_rng(0).normal(size=(60, 4))
    S = [5, 17, 3, 40, 41, 59, 0]
    posterior = conditioned(X, S, RBFMixture((1.3,)), 1e-3)
    assert len(posterior) == len(S)
    np.testing.assert_allclose(posterior.variance(X), exact_gp_variance(X, S, 1.3, 1e-3), atol=1e-6)


@pytest.mark.parametrize("kernel_name", ["RBFKernel", "MaternKernel", "RQKernel"])
def test_any_stationary_gpytorch_kernel_works(kernel_name: str) -> None:
    X = np.random.default_rng(3).normal(size=(40, 3))
    kernel = from_gpytorch(getattr(gpytorch.kernels, kernel_name)())
    S = [7, 30, 2, 11]
    K = kernel(X, X)
    solved = np.linalg.solve(K[np.ix_(S, S)] + 1e-2 * np.eye(4), K[S])
    expected = 1.0 - np.einsum("si,si->i", K[S], solved)
    np.testing.assert_allclose(conditioned(X, S, kernel, 1e-2).variance(X), expected, atol=1e-9)


def test_variance_matches_the_formula_past_the_first_capacity() -> None:
    rng = np.random.default_rng(1)
    X, kernel, noise = rng.normal(size=(300, 5)), RBFMixture((0.7, 1.4, 2.8)), 1e-4
    S = rng.permutation(300)[:280].tolist()
    K = kernel(X, X)
    solved = np.linalg.solve(K[np.ix_(S, S)] + noise * np.eye(len(S)), K[S])
    expected = 1.0 - np.einsum("si,si->i", K[S], solved)
    np.testing.assert_allclose(conditioned(X, S, kernel, noise).variance(X), expected, atol=1e-9)


def test_many_rows_at_once_are_the_same_as_one_by_one() -> None:
    X, kernel = np.random.default_rng(5).normal(size=(50, 3)), RBFMixture((1.0,))
    expected = conditioned(X, range(30), kernel, 1e-4)
    posterior = conditioned(X, range(9), kernel, 1e-4)
    posterior.extend(X[9:30])
    np.testing.assert_allclose(posterior.variance(X), expected.variance(X), atol=1e-11)
    for (row, pivot), (other, other_pivot) in zip(posterior.pivots(), expected.pivots(), strict=True):
        np.testing.assert_array_equal(row, other)
        np.testing.assert_allclose(pivot.known, other_pivot.known, atol=1e-9)
        assert pivot.root == pytest.approx(other_pivot.root, rel=1e-9)


def test_known_columns_are_continued() -> None:
    X, kernel = np.random.default_rng(6).normal(size=(20, 3)), RBFMixture((1.0,))
    posterior = conditioned(X, range(5), kernel, 1e-4)
    known = posterior.project(X)
    for row in range(5, 9):
        posterior.condition(X[row])
    whole = posterior.project(X)
    np.testing.assert_allclose(whole[:, :5], known, atol=1e-12)
    np.testing.assert_allclose(posterior.project(X, known), whole[:, 5:], atol=1e-10)
    assert posterior.project(X, whole).shape == (20, 0)


def test_float32_rows_give_float32_variances_close_to_the_exact_ones() -> None:
    X = unit_rows(np.random.default_rng(7).normal(size=(500, 30)))
    posterior = conditioned(X, range(100), RBFMixture((1.0,)), 1e-4)
    single = posterior.variance(X.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, posterior.variance(X), atol=2e-5)


def test_a_memory_map_is_read_in_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = unit_rows(np.random.default_rng(8).normal(size=(100, 4))).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    monkeypatch.setattr(gp, "TILE_ROWS", 7)
    posterior = conditioned(X, range(10), RBFMixture((1.0,)), 1e-4)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_allclose(posterior.variance(mapped), 1.0 - (posterior.project(X) ** 2).sum(axis=1), atol=1e-5)


def test_nothing_conditioned_is_the_prior() -> None:
    posterior = PosteriorVariance(RBFMixture((1.0,)))
    np.testing.assert_array_equal(posterior.variance(np.eye(3)), np.ones(3))
    assert len(posterior) == 0


def test_equal_rows_without_noise_get_jitter_and_a_warning() -> None:
    X = np.vstack([np.eye(3), np.eye(3)])
    posterior = conditioned(X, [0], RBFMixture((1.0,)), 0.0)
    with pytest.warns(RuntimeWarning, match="jitter"):
        posterior.condition(X[3])
    posterior.condition(X[1])
    variance = posterior.variance(X)
    assert np.isfinite(variance).all()
    np.testing.assert_allclose(variance[[0, 1, 3, 4]], 0.0, atol=1e-6)
    assert variance[2] > 0.1


def test_equal_rows_at_once_get_jitter_too() -> None:
    posterior = PosteriorVariance(RBFMixture((1.0,)), 0.0)
    with pytest.warns(RuntimeWarning, match="jitter"):
        posterior.extend(np.vstack([np.eye(3), np.eye(3)]))
    assert len(posterior) == 6


@pytest.mark.parametrize("noise", [-1e-9, np.nan, np.inf])
def test_a_noise_that_is_none_is_refused(noise: float) -> None:
    with pytest.raises(InputError, match="noise"):
        PosteriorVariance(RBFMixture((1.0,)), noise=noise)
