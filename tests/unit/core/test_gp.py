from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from synalign_agent.core.gp import PosteriorVariance
from synalign_agent.core.kernels import RBFMixture
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


def test_variance_matches_gpytorch_exact_gp() -> None:
    X = np.random.default_rng(0).normal(size=(60, 4))
    posterior = PosteriorVariance(X, RBFMixture((1.3,)), noise=1e-3)
    S = [5, 17, 3, 40, 41, 59, 0]
    posterior.condition_many(S)
    assert posterior.conditioned == tuple(S)
    np.testing.assert_allclose(posterior.variance, exact_gp_variance(X, S, 1.3, 1e-3), atol=1e-6)


def test_variance_matches_the_formula_past_the_first_capacity() -> None:
    rng = np.random.default_rng(1)
    X, kernel, noise = rng.normal(size=(90, 5)), RBFMixture((0.7, 1.4, 2.8)), 1e-4
    posterior = PosteriorVariance(X, kernel, noise)
    S = rng.permutation(90)[:70]
    posterior.condition_many(S.tolist())
    K = kernel(X, X)
    solved = np.linalg.solve(K[np.ix_(S, S)] + noise * np.eye(len(S)), K[S])
    np.testing.assert_allclose(posterior.variance, 1.0 - np.einsum("si,si->i", K[S], solved), atol=1e-9)


def test_nothing_conditioned_is_the_prior() -> None:
    posterior = PosteriorVariance(np.eye(3), RBFMixture((1.0,)))
    np.testing.assert_array_equal(posterior.variance, np.ones(3))
    assert posterior.conditioned == ()


def test_variance_cannot_be_written() -> None:
    posterior = PosteriorVariance(np.eye(3), RBFMixture((1.0,)))
    with pytest.raises(ValueError, match="read-only"):
        posterior.variance[0] = 5.0


@pytest.mark.parametrize(("rows", "message"), [([1, 1], "already"), ([3], "out of range"), ([-1], "out of range")])
def test_bad_rows_are_refused(rows: list[int], message: str) -> None:
    posterior = PosteriorVariance(np.eye(3), RBFMixture((1.0,)))
    with pytest.raises(InputError, match=message):
        posterior.condition_many(rows)


def test_equal_rows_without_noise_get_jitter_and_a_warning() -> None:
    X = np.vstack([np.eye(3), np.eye(3)])
    posterior = PosteriorVariance(X, RBFMixture((1.0,)), noise=0.0)
    posterior.condition(0)
    with pytest.warns(RuntimeWarning, match="jitter"):
        posterior.condition(3)
    posterior.condition(1)
    assert np.isfinite(posterior.variance).all()
    np.testing.assert_allclose(posterior.variance[[0, 1, 3, 4]], 0.0, atol=1e-9)
    assert posterior.variance[2] > 0.1


def test_negative_noise_is_refused() -> None:
    with pytest.raises(InputError, match="noise"):
        PosteriorVariance(np.eye(2), RBFMixture((1.0,)), noise=-1e-9)
