from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from synalign_agent.core.align import fit_weights, label_quotas, project_capped_simplex
from synalign_agent.core.arrays import unit_rows
from synalign_agent.core.explore import exact_neighbours, select_by_variance, select_random
from synalign_agent.core.gp import PosteriorVariance
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.mmd import mmd2_biased, mmd2_to_population, mmd2_unbiased, permutation_p_value, real_floor
from synalign_agent.core.resample import effective_sample_size, systematic

settings.register_profile("core", deadline=None, derandomize=True, max_examples=40)
core = settings.get_profile("core")

sizes = st.integers(2, 14)
seeds = st.integers(0, 2**32 - 1)
lengthscales = st.floats(0.2, 3.0)
values = st.floats(-1e3, 1e3)


def rows(n: int, seed: int, d: int = 3) -> np.ndarray:
    """Unit rows; about a quarter are copies of another, as texts often are."""
    rng = np.random.default_rng((42, n, seed))
    X = unit_rows(rng.normal(size=(n, d)))
    copies = rng.random(n) < 0.25
    X[copies] = X[rng.integers(0, n, copies.sum())]
    return X


def simplex(draws: list[float]) -> np.ndarray:
    w = np.array(draws) + 1e-9
    return w / w.sum()


@core
@given(sizes, seeds, lengthscales)
def test_variance_never_rises_and_stays_between_zero_and_one(n: int, seed: int, lengthscale: float) -> None:
    X, posterior = rows(n, seed), PosteriorVariance(RBFMixture((lengthscale,)))
    before = posterior.variance(X)
    for index in np.random.default_rng(seed).permutation(n).tolist():
        posterior.condition(X[index])
        after = posterior.variance(X)
        assert (after <= before + 1e-12).all() and after.min() >= 0.0
        assert after[index] < 1.1e-4  # what noise of 1e-4 leaves
        before = after


@core
@given(sizes, seeds, st.integers(0, 5), st.integers(1, 4), st.data())
def test_picks_are_available_distinct_and_repeatable(
    n: int, seed: int, n_clusters: int, cluster_size: int, data: st.DataObject
) -> None:
    X = rows(n, seed)
    available = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    near, kernel = exact_neighbours(X), RBFMixture((0.8,))

    def greedy() -> list:
        return select_by_variance(
            X, n_clusters=n_clusters, cluster_size=cluster_size, kernel=kernel, neighbours=near, available=available
        )

    def random() -> list:
        rng = np.random.default_rng(seed)
        return select_random(
            n, n_clusters=n_clusters, cluster_size=cluster_size, neighbours=near, rng=rng, available=available
        )

    for select in (greedy, random):
        clusters = select()
        assert clusters == select()
        picked = [i for cluster in clusters for i in cluster.members]
        assert len(set(picked)) == len(picked) == min(n_clusters * cluster_size, int(available.sum()))
        assert all(available[i] for i in picked)
        assert all(cluster.members[0] == cluster.seed for cluster in clusters)


@core
@given(sizes, sizes, seeds)
def test_mmd_does_not_depend_on_row_order(n: int, m: int, seed: int) -> None:
    X, Y, kernel = rows(n, seed), rows(m, seed + 1), RBFMixture((0.5, 1.0))
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(n)), np.repeat([0.0, 1.0], [m // 2, m - m // 2])
    strata = b.astype(int)
    p, q = rng.permutation(n), rng.permutation(m)
    biased = mmd2_biased(X, Y, kernel, x_weights=a)
    assert biased >= 0.0
    assert math.isclose(biased, mmd2_biased(X[p], Y[q], kernel, x_weights=a[p], block_rows=3), abs_tol=1e-12)
    unbiased = mmd2_unbiased(X, Y, kernel)
    assert math.isclose(unbiased, mmd2_unbiased(X[p], Y[q], kernel, block_rows=3), abs_tol=1e-12)
    population = mmd2_to_population(X, Y, kernel, syn_weights=a, real_strata=strata)
    shuffled = mmd2_to_population(X[p], Y[q], kernel, syn_weights=a[p], real_strata=strata[q], block_rows=3)
    assert math.isclose(population, shuffled, abs_tol=1e-12)


@core
@given(sizes, seeds)
def test_mmd_is_symmetric_and_splitting_a_weight_changes_nothing(n: int, seed: int) -> None:
    X, Y, kernel = rows(n, seed), rows(n + 1, seed + 1), RBFMixture((0.7,))
    assert math.isclose(mmd2_biased(X, Y, kernel), mmd2_biased(Y, X, kernel), abs_tol=1e-12)
    doubled = mmd2_biased(np.vstack([X, X]), Y, kernel)
    assert math.isclose(mmd2_biased(X, Y, kernel), doubled, abs_tol=1e-12)


@core
@given(st.lists(values, min_size=1, max_size=20), st.floats(1.0, 6.0))
def test_projection_is_feasible_and_optimal(v: list[float], looseness: float) -> None:
    cap = looseness / len(v)
    point = np.array(v)
    w = project_capped_simplex(point, cap)
    assert (w >= 0).all() and (w <= min(cap, 1.0) * (1 + 1e-12)).all()
    assert math.isclose(w.sum(), 1.0, abs_tol=1e-12)
    # Optimal: v - w is one number where 0 < w < cap, no more where w = 0, no less at cap.
    low, high, slack = w <= 1e-12, w >= cap * (1 - 1e-12), 1e-9 * (1 + np.abs(point).max())
    shift = point - w
    if (~high).any() and (~low).any():
        assert shift[~high].max() <= shift[~low].min() + slack


@core
@given(sizes, sizes, seeds, st.floats(1.0, 8.0), lengthscales)
def test_fitted_weights_are_feasible_and_no_worse_than_uniform(
    m: int, h: int, seed: int, looseness: float, lengthscale: float
) -> None:
    syn, real, kernel = rows(m, seed), rows(h, seed + 1), RBFMixture((lengthscale,))
    cap = looseness / m
    fit = fit_weights(syn, real, kernel, cap=cap, tolerance=1e-7)
    assert fit.w.min() >= 0.0 and fit.w.max() <= cap * (1 + 1e-12)
    assert math.isclose(fit.w.sum(), 1.0, abs_tol=1e-12)
    uniform = kernel(syn, syn).mean() - 2 * kernel(syn, real).mean()
    assert fit.objective <= uniform + 1e-12
    assert fit.converged and 0.0 <= fit.duality_gap <= 1e-7
    np.testing.assert_array_equal(fit.w, fit_weights(syn, real, kernel, cap=cap, tolerance=1e-7).w)


@core
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 60), seeds)
def test_systematic_counts_are_the_neighbouring_whole_numbers(draws: list[float], n: int, seed: int) -> None:
    w = simplex(draws)
    counts = systematic(w, n, np.random.default_rng(seed))
    assert counts.sum() == n
    assert (counts >= np.floor(n * w - 1e-9)).all() and (counts <= np.ceil(n * w - 1e-9)).all()
    np.testing.assert_array_equal(counts, systematic(w, n, np.random.default_rng(seed)))


@core
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_effective_sample_size_is_between_one_and_m(draws: list[float]) -> None:
    assert 1.0 - 1e-12 <= effective_sample_size(simplex(draws)) <= len(draws) * (1 + 1e-12)


@core
@given(st.dictionaries(st.text(max_size=3), st.floats(0.001, 10), min_size=1, max_size=8), st.integers(0, 200))
def test_quotas_sum_and_are_within_one_of_the_exact_share(prior: dict[str, float], n: int) -> None:
    quotas = label_quotas(prior, n)
    assert list(quotas) == list(prior) and sum(quotas.values()) == n
    total = sum(prior.values())
    assert all(abs(quotas[label] - n * prior[label] / total) < 1.0 + 1e-9 for label in prior)
    backwards = label_quotas(dict(reversed(prior.items())), n)
    assert backwards == quotas


@core
@given(sizes, sizes, seeds)
def test_null_distributions_are_repeatable(n: int, m: int, seed: int) -> None:
    X, Y, kernel = rows(n, seed), rows(m, seed + 1), RBFMixture((0.9,))

    def both() -> tuple[list[float], float]:
        rng = np.random.default_rng(seed)
        floor = real_floor(X, kernel, n_syn=m, n_real=n, rng=rng, n_draws=20)
        return floor.draws.tolist(), permutation_p_value(X, Y, kernel, rng=rng, n_permutations=30)

    draws, p = both()
    assert (draws, p) == both()
    assert np.isfinite(draws).all() and 1 / 31 <= p <= 1.0
