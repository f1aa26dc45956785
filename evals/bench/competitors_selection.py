"""Ways to pick the rows where a Gaussian process knows least, and other ways to spread picks.

Every variance-based method starts at row 0 (before the first pick all variances are equal) and has the same kernel and noise.
"""

from __future__ import annotations

import time

import numpy as np

from evals.bench.spec import OURS, Method, Spec
from synalign_agent.core.arrays import Array, BoolArray, IntArray, squared_norms
from synalign_agent.core.explore import select_by_variance

_GPYTORCH_CHUNK = 1000
"""GPyTorch forms the covariance among the rows that are predicted together."""


def ours(X: Array, spec: Spec, deadline: float) -> IntArray:
    """Lazy greedy selection with incremental conditioning (`synalign_agent.core.explore`)."""

    def no_neighbours(row: int, k: int, available: BoolArray) -> IntArray:
        raise AssertionError("clusters of one row need no neighbours")

    clusters = select_by_variance(
        X, n_clusters=spec.n_picks, cluster_size=1, kernel=spec.kernel, neighbours=no_neighbours, noise=spec.noise
    )
    return np.array([cluster.seed for cluster in clusters], dtype=np.intp)


def refit(X: Array, spec: Spec, deadline: float) -> IntArray:
    """Fit a scikit-learn GP to all picks at every step and predict all other rows, as the paper's released code does.

    With its hyperparameters held fixed; re-estimating them at every step takes longer still.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    picks, left = [0], np.arange(1, len(X))
    while len(picks) < spec.n_picks and time.perf_counter() < deadline:
        process = GaussianProcessRegressor(
            RBF(spec.lengthscale, length_scale_bounds="fixed"), alpha=spec.noise, optimizer=None
        )
        process.fit(X[picks], np.zeros(len(picks)))
        deviation = process.predict(X[left], return_std=True)[1]
        best = int(np.argmax(deviation))
        picks.append(int(left[best]))
        left = np.delete(left, best)
    return np.array(picks, dtype=np.intp)


def gpytorch_exact(X: Array, spec: Spec, deadline: float) -> IntArray:
    """Build a GPyTorch ExactGP on all picks at every step and predict all rows in chunks."""
    import gpytorch
    import torch

    class ExactGP(gpytorch.models.ExactGP):  # type: ignore[misc]  # gpytorch has no types
        def __init__(self, x: torch.Tensor) -> None:
            likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(torch.full((len(x),), spec.noise).double())
            super().__init__(x, torch.zeros(len(x), dtype=x.dtype), likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.RBFKernel()
            self.covar_module.lengthscale = spec.lengthscale

        def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    rows = torch.from_numpy(X).double()
    picks = [0]
    with torch.no_grad():
        while len(picks) < spec.n_picks and time.perf_counter() < deadline:
            model = ExactGP(rows[picks]).double().eval()
            variance = torch.cat([model(chunk).variance for chunk in rows.split(_GPYTORCH_CHUNK)])
            variance[picks] = -1.0
            picks.append(int(variance.argmax()))
    return np.array(picks, dtype=np.intp)


def linear_operator_cholesky(X: Array, spec: Spec, deadline: float) -> IntArray:
    """Let linear_operator (of GPyTorch) factor K + noise I with pivoting: its pivots are the picks."""
    import torch
    from gpytorch.kernels import RBFKernel

    kernel = RBFKernel()
    kernel.lengthscale = spec.lengthscale
    with torch.no_grad():
        operator = kernel(torch.from_numpy(X)).add_diagonal(torch.tensor(spec.noise))
        _, pivots = operator.pivoted_cholesky(spec.n_picks, error_tol=0.0, return_pivots=True)
    picks: IntArray = pivots[: spec.n_picks].numpy().astype(np.intp)
    return picks


def full_pass_cholesky(X: Array, spec: Spec, deadline: float) -> IntArray:
    """Pivoted Cholesky in plain numpy, float32, all rows brought up to date at every step."""
    n, scale = len(X), np.float32(1.0 / spec.lengthscale**2)
    half_norms = 0.5 * scale * squared_norms(X)
    columns = np.empty((spec.n_picks, n), X.dtype)
    variance = np.ones(n, X.dtype)
    picks = np.zeros(spec.n_picks, dtype=np.intp)
    for t in range(spec.n_picks):
        if time.perf_counter() > deadline:
            return picks[:t]
        best = picks[t] = int(np.argmax(variance))
        column = X @ (scale * X[best])
        column -= half_norms
        column -= half_norms[best]
        np.exp(column, out=column)
        column -= columns[:t, best] @ columns[:t]
        column /= np.sqrt(variance[best] + np.float32(spec.noise))
        columns[t] = column
        np.square(column, out=column)
        variance -= column
        variance[best] = -np.inf
    return picks


def facility_location(X: Array, spec: Spec, deadline: float) -> IntArray:
    """Maximise apricot's facility location, another objective: the sum over rows of the kernel with the nearest pick."""
    from apricot import FacilityLocationSelection

    # apricot compiles for float64 alone.
    similarity = spec.kernel(X, X).astype(np.float64)
    fitted = FacilityLocationSelection(spec.n_picks, metric="precomputed", optimizer="lazy").fit(similarity)
    picks: IntArray = np.asarray(fitted.ranking, dtype=np.intp)
    return picks


def farthest_point(X: Array, spec: Spec, deadline: float) -> IntArray:
    """Pick the row farthest from all picks (Gonzalez, 1985), another objective, in numpy."""
    norms = squared_norms(X)
    nearest = np.full(len(X), np.inf, X.dtype)
    picks = np.zeros(spec.n_picks, dtype=np.intp)
    for t in range(1, spec.n_picks):
        last = picks[t - 1]
        squared = X @ X[last]
        squared *= -2.0
        squared += norms
        squared += norms[last]
        np.minimum(nearest, squared, out=nearest)
        nearest[last] = -np.inf
        picks[t] = int(np.argmax(nearest))
    return picks


METHODS = {
    OURS: Method("ours (lazy, exact)", ours, lambda s: 0.0),
    "refit": Method("scikit-learn GP refitted each step", refit, lambda s: 8.0 * s.n * min(s.n_picks, 100)),
    "gpytorch": Method("GPyTorch ExactGP rebuilt each step", gpytorch_exact, lambda s: 0.0),
    # Its factor, and the int64 indices and the copy by which it permutes the factor at every step.
    "linear_operator": Method(
        "linear_operator pivoted Cholesky", linear_operator_cholesky, lambda s: 16.0 * s.n * s.n_picks
    ),
    "full_pass": Method(
        "pivoted Cholesky, numpy float32, full pass a step", full_pass_cholesky, lambda s: 4.0 * s.n * s.n_picks
    ),
    "facility_location": Method("apricot facility location, lazy", facility_location, lambda s: 12.0 * s.n**2),
    "farthest": Method("farthest point, numpy", farthest_point, lambda s: 0.0),
}
