from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core.align import fit_weights
from synalign_agent.core.certificate import certify, kernel_means
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.real_side import real_side

KERNEL = RBFMixture((0.8, 1.6))


def test_a_certificate_scores_any_weights_and_bounds_what_is_left() -> None:
    rng = np.random.default_rng(0)
    syn, real = rng.normal(0.5, 1.0, size=(30, 3)), rng.normal(size=(40, 3))
    side, k_sr = real_side(syn, real, KERNEL, None, 40, None), KERNEL(syn, real).mean(axis=1)
    best = fit_weights(syn, real, KERNEL, cap=0.1, tolerance=1e-9)
    for w in (np.full(30, 1 / 30), np.repeat([0.1, 0.0], [10, 20]), best.w):
        found = certify(syn, side, w, KERNEL, cap=0.1, tolerance=1e-8, n_iterations=3)
        assert found.objective == pytest.approx(float(w @ KERNEL(syn, syn) @ w - 2 * w @ k_sr), abs=1e-12)
        assert -1e-9 <= found.objective - best.objective <= found.duality_gap + 1e-12
        assert found.converged == (found.duality_gap <= 1e-8) and found.n_iterations == 3
    assert found.converged


def test_a_subsample_of_the_real_rows_shows_in_the_errors() -> None:
    rng = np.random.default_rng(0)
    syn, real = rng.normal(0.5, 1.0, size=(20, 3)), rng.normal(size=(400, 3))
    side = real_side(syn, real, KERNEL, None, 100, rng)
    found = certify(syn, side, np.full(20, 1 / 20), KERNEL, cap=1.0, tolerance=1e-8, n_iterations=0)
    assert found.n_real == 100 and found.sampling_excess > 0.0
    on_all = KERNEL(syn, syn).mean() - 2 * KERNEL(syn, real).mean()
    assert 0.0 < abs(found.objective - on_all) < 4 * found.objective_error < 0.1


def test_kernel_means_compute_the_columns_of_weighted_rows_only() -> None:
    X = np.random.default_rng(0).normal(size=(8, 2))
    w = np.array([0.5, 0, 0, 0.25, 0, 0, 0, 0.25])
    columns = []

    def spy(A: np.ndarray, B: np.ndarray, /) -> np.ndarray:
        columns.append(len(B))
        return KERNEL(A, B)

    np.testing.assert_allclose(kernel_means(X, w, spy), KERNEL(X, X) @ w, rtol=1e-12)
    assert columns == [3]
    np.testing.assert_array_equal(kernel_means(X, np.zeros(8), KERNEL), 0.0)
    np.testing.assert_allclose(kernel_means(X, np.arange(1, 9), KERNEL), KERNEL(X, X) @ np.arange(1, 9), rtol=1e-12)
