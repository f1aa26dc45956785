from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from synalign_agent.core.baselines.projection import match_mean, projection
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.mmd import mmd2_biased
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.8, 1.6))


@pytest.mark.parametrize("cap", [1.0, 0.2, 0.12])
def test_the_match_is_that_of_a_solver(cap: float) -> None:
    rng = np.random.default_rng(0)
    A, b = rng.normal(0.7, 1.0, size=(12, 4)), rng.normal(size=4)
    solved = minimize(
        lambda w: float(((w @ A - b) ** 2).sum()),
        np.full(12, 1 / 12),
        jac=lambda w: 2 * A @ (w @ A - b),
        bounds=[(0.0, cap)] * 12,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    w, n_iterations = match_mean(A, b, cap, 1e-9)
    assert ((w @ A - b) ** 2).sum() == pytest.approx(solved.fun, abs=1e-8)
    assert 0 < n_iterations < 2000
    assert w.min() >= 0 and w.max() <= cap + 1e-12 and w.sum() == pytest.approx(1.0)


def test_no_step_is_taken_where_uniform_weights_match() -> None:
    A = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    w, n_iterations = match_mean(A, np.zeros(2), 1.0, 1e-9)
    np.testing.assert_array_equal(w, 0.25)
    assert n_iterations == 0
    equal, _ = match_mean(np.ones((3, 2)), np.zeros(2), 0.5, 1e-12)
    np.testing.assert_allclose(equal, 1 / 3)


def test_among_perfect_matches_an_even_one_is_found() -> None:
    rng = np.random.default_rng(1)
    A = rng.normal(0.3, 1.0, size=(400, 3))
    w, _ = match_mean(A, np.zeros(3), 1.0, 1e-10)
    assert np.abs(w @ A).max() < 1e-4
    assert 1 / (w @ w) > 200  # a vertex of the solutions would have 4 rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projection_matches_the_mean_of_the_real_rows(dtype: type) -> None:
    rng = np.random.default_rng(2)
    syn, real = rng.normal(0.4, 1.0, size=(300, 5)).astype(dtype), rng.normal(size=(200, 5)).astype(dtype)

    def run(seed: int) -> np.ndarray:
        return projection(syn, real, n=30, cap=1 / 30, kernel=KERNEL, rng=np.random.default_rng(seed), tolerance=1e-8).w

    w = run(0)
    assert np.linalg.norm(w @ syn - real.mean(axis=0)) < 0.02 * np.linalg.norm(syn.mean(axis=0) - real.mean(axis=0))
    assert w.max() <= 1 / 30 + 1e-12
    assert mmd2_biased(syn, real, KERNEL, x_weights=w) < mmd2_biased(syn, real, KERNEL)
    np.testing.assert_array_equal(w, run(0))
    assert not np.array_equal(w, run(1))


def test_a_cap_that_leaves_nothing_is_refused() -> None:
    X = np.random.default_rng(0).normal(size=(5, 2))
    with pytest.raises(InputError):
        projection(X, X, n=9, cap=1 / 9, kernel=KERNEL, rng=np.random.default_rng(0), tolerance=1e-6)
