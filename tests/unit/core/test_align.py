from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from synalign_agent.core.align import Weights, fit_weights
from synalign_agent.core.arrays import unit_rows
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.qp import pool_qp
from synalign_agent.core.qp.nystrom import NystromModel
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.7, 1.4, 2.8))


def pool(m: int = 30, h: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.6, 1.0, size=(m, 3)), rng.normal(size=(h, 3))


def texts(m: int, h: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit float32 rows in clusters, a pool with too much of one and duplicates, as embeddings of texts are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, 16))
    syn = centres[rng.integers(0, 8, m) // 2] + 0.7 * rng.normal(size=(m, 16))
    syn[: m // 10] = syn[m // 10]
    real = centres[rng.integers(0, 12, h)] + 0.7 * rng.normal(size=(h, 16))
    return unit_rows(syn.astype(np.float32)), unit_rows(real.astype(np.float32))


def wide(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64)


def gap_by_hand(
    fit: Weights, syn: np.ndarray, real: np.ndarray, cap: float, diagonal: np.ndarray | float = 0.0
) -> float:
    """Return what the weights can be above the minimum, from the whole kernel matrix: gradient'w less its minimum."""
    gradient = 2.0 * (
        KERNEL(wide(syn), wide(syn)) @ fit.w + diagonal * fit.w - KERNEL(wide(syn), wide(real)).mean(axis=1)
    )
    left, least = 1.0, 0.0
    for value in np.sort(gradient):
        least += min(cap, left) * value
        left -= min(cap, left)
    return float(gradient @ fit.w - least)


def assert_feasible(fit: Weights, cap: float) -> None:
    assert fit.w.min() >= 0.0 and fit.w.max() <= cap * (1.0 + 1e-12)
    assert fit.w.sum() == pytest.approx(1.0, abs=1e-12)


def solve(
    K: np.ndarray, c: np.ndarray, cap: float, *extra: dict[str, Any], start: np.ndarray | None = None
) -> np.ndarray:
    m = len(c)
    solved = minimize(
        lambda w: float(w @ K @ w - 2 * w @ c),
        np.full(m, 1 / m) if start is None else start,
        jac=lambda w: 2 * (K @ w - c),
        bounds=[(0.0, cap)] * m,
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(m)}, *extra],
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 1000},
    )
    assert solved.success
    found: np.ndarray = solved.x
    return found


@pytest.mark.parametrize("cap", [1.0, 0.08, 0.05])
def test_weights_match_a_solver(cap: float) -> None:
    syn, real = pool()
    v = np.random.default_rng(5).dirichlet(np.ones(len(real)))
    K, c = KERNEL(syn, syn), KERNEL(syn, real) @ v
    solved = solve(K, c, cap)
    fit = fit_weights(syn, real, KERNEL, cap=cap, real_weights=v, tolerance=1e-9)
    assert fit.converged
    assert fit.objective == pytest.approx(float(fit.w @ K @ fit.w - 2 * fit.w @ c), abs=1e-12)
    assert abs(fit.objective - float(solved @ K @ solved - 2 * solved @ c)) < 1e-7
    np.testing.assert_allclose(fit.w, solved, atol=2e-3)


@pytest.mark.parametrize("m", [40, 600, 3000])
@pytest.mark.parametrize("times_uniform", [None, 12.0, 2.0, 1.2])
def test_the_duality_gap_is_true_at_every_size_and_cap(m: int, times_uniform: float | None) -> None:
    syn, real = texts(m, 200)
    cap = 1.0 if times_uniform is None else times_uniform / m
    fit = fit_weights(syn, real, KERNEL, cap=cap, tolerance=1e-6)
    assert_feasible(fit, cap)
    assert fit.converged and fit.duality_gap <= 1e-6
    assert gap_by_hand(fit, syn, real, cap) <= 1.5e-6
    assert fit.support == np.count_nonzero(fit.w) and fit.ess == pytest.approx(1 / np.square(fit.w).sum())


@pytest.mark.parametrize("m", [40, 600, 3000])
@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_an_ess_floor_holds_and_costs_no_more_than_it_must(m: int, share: float) -> None:
    syn, real = texts(m, 200, seed=1)
    free = fit_weights(syn, real, KERNEL, cap=1.0)
    fit = fit_weights(syn, real, KERNEL, cap=1.0, min_ess=share * m)
    assert_feasible(fit, 1.0)
    assert fit.converged and fit.ess >= share * m * (1 - 1e-9) and fit.objective >= free.objective - 1e-6
    if share < 1.0:
        # Stationary in w for the multiplier, and the floor is met with equality: no feasible weights are better.
        assert fit.ess_multiplier > 0.0
        slack = 1.0 / (share * m) - float(fit.w @ fit.w)
        assert gap_by_hand(fit, syn, real, 1.0, fit.ess_multiplier) + fit.ess_multiplier * slack <= 2e-6


def test_an_ess_floor_that_does_not_bind_changes_nothing() -> None:
    syn, real = texts(200, 100)
    free = fit_weights(syn, real, KERNEL, cap=0.2)
    fit = fit_weights(syn, real, KERNEL, cap=0.2, min_ess=0.5 * free.ess)
    assert fit.ess_multiplier == 0.0
    assert fit.objective == pytest.approx(free.objective, abs=1e-6)


@pytest.mark.parametrize("m", [30, 900])
def test_ridge_pulls_towards_the_prior(m: int) -> None:
    syn, real = texts(m, 100, seed=2)
    prior = np.random.default_rng(0).dirichlet(np.full(m, 3.0)) + 1e-6
    prior /= prior.sum()
    fits = [fit_weights(syn, real, KERNEL, cap=1.0, ridge=ridge, prior_weights=prior) for ridge in (1e-4, 1e-2, 1e3)]
    for fit, ridge in zip(fits, (1e-4, 1e-2, 1e3), strict=True):
        assert fit.converged
        assert gap_by_hand(fit, syn, real, 1.0, ridge / prior) <= 1.5e-6
        assert fit.penalty == pytest.approx(ridge * float((np.square(fit.w - prior) / prior).sum()), abs=1e-9)
    distances = [np.abs(fit.w - prior).sum() for fit in fits]
    assert distances[0] > distances[1] > distances[2] and distances[2] < 1e-3


@pytest.mark.parametrize("ess", [None, 20.0])
def test_fixed_rows_keep_their_weights_and_the_others_are_best_given_them(ess: float | None) -> None:
    syn, real = pool()
    fixed = {3: 0.1, 7: 0.0, 20: 0.02}
    fit = fit_weights(syn, real, KERNEL, cap=0.1, fixed=fixed, tolerance=1e-9, min_ess=ess)
    assert {row: fit.w[row] for row in fixed} == fixed
    assert_feasible(fit, 0.1)
    K, c = KERNEL(syn, syn), KERNEL(syn, real).mean(axis=1)
    extra: list[dict[str, Any]] = [{"type": "eq", "fun": lambda w, r=row, v=v: w[r] - v} for row, v in fixed.items()]
    if ess is not None:
        extra.append({"type": "ineq", "fun": lambda w: 1 / ess - w @ w})
    solved = solve(K, c, 0.1, *extra)
    assert fit.objective == pytest.approx(float(solved @ K @ solved - 2 * solved @ c), abs=1e-7)
    assert fit.objective == pytest.approx(float(fit.w @ K @ fit.w - 2 * fit.w @ c), abs=1e-12)


def test_every_row_may_be_fixed() -> None:
    syn, real = pool(m=4)
    given = {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1}
    fit = fit_weights(syn, real, KERNEL, cap=0.5, fixed=given)
    np.testing.assert_array_equal(fit.w, [0.4, 0.3, 0.2, 0.1])
    assert fit.converged and fit.duality_gap == 0.0


def test_duality_gap_bounds_what_is_left_when_rounds_run_out() -> None:
    syn, real = texts(3000, 200)
    best = fit_weights(syn, real, KERNEL, cap=1.0, tolerance=1e-6)
    objectives = []
    for n_iterations in range(best.n_iterations):
        early = fit_weights(syn, real, KERNEL, cap=1.0, tolerance=1e-6, max_iterations=n_iterations)
        assert early.n_iterations == n_iterations and not early.converged
        assert -2e-6 <= early.objective - best.objective <= early.duality_gap + 1e-6
        objectives.append(early.objective)
    assert len(objectives) >= 2
    assert np.diff([*objectives, best.objective]).max() <= 1e-7


@pytest.mark.parametrize("m", [600, 3000])
def test_small_caches_and_batches_change_the_way_and_not_the_answer(m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    syn, real = texts(m, 200)
    expected = fit_weights(syn, real, KERNEL, cap=3 / m)
    # Few columns are kept, so that most steps are those of the low-rank model.
    for name, value in {"_BATCH": 7, "_DIRECT_FREE": 20, "_MAX_COLUMNS": 64, "_RANK": 40, "_SMALL_POOL": 10}.items():
        monkeypatch.setattr(pool_qp, name, value)
    fit = fit_weights(syn, real, KERNEL, cap=3 / m)
    assert gap_by_hand(fit, syn, real, 3 / m) <= fit.duality_gap + 5e-7
    assert abs(fit.objective - expected.objective) <= fit.duality_gap + 1e-6


def test_the_low_rank_model_of_full_rank_is_the_problem_itself() -> None:
    syn, real = pool(m=50)
    c = KERNEL(syn, real).mean(axis=1)
    model = NystromModel(syn, KERNEL, 50)
    w, _ = model.minimise(c, np.full(50, 0.05), cap=0.06, mass=1.0, tolerance=1e-16)
    K = KERNEL(syn, syn) + 0.05 * np.eye(50)
    solved = solve(K, c, 0.06)
    assert float(w @ K @ w - 2 * w @ c) == pytest.approx(float(solved @ K @ solved - 2 * solved @ c), abs=2e-5)


def test_rows_that_are_the_real_ones_get_the_weight() -> None:
    real = np.array([[0.0, 0.0], [2.0, 0.0]])
    syn = np.vstack([real, [[9.0, 9.0], [-9.0, 9.0]]])
    fit = fit_weights(syn, real, RBFMixture((1.0,)), cap=1.0, real_weights=np.array([0.25, 0.75]), tolerance=1e-12)
    np.testing.assert_allclose(fit.w, [0.25, 0.75, 0.0, 0.0], atol=1e-5)


@pytest.mark.parametrize(("m", "cap"), [(1, 1.0), (1, 7.0), (4, 0.25), (3, 1 / 3)])
def test_uniform_is_returned_where_it_is_forced(m: int, cap: float) -> None:
    syn, real = pool(m=m)
    fit = fit_weights(syn, real, KERNEL, cap=cap)
    np.testing.assert_array_equal(fit.w, np.full(m, 1 / m))
    expected = KERNEL(syn, syn).mean() - 2 * KERNEL(syn, real).mean()
    assert fit.objective == pytest.approx(expected, abs=1e-12)
    assert fit.converged and fit.duality_gap == 0.0


@pytest.mark.parametrize("m", [6, 700, 2500])
@pytest.mark.parametrize("min_ess", [None, 0.5])
def test_equal_rows_are_no_trouble(m: int, min_ess: float | None) -> None:
    floor = None if min_ess is None else min_ess * m
    fit = fit_weights(np.ones((m, 2), np.float32), np.zeros((3, 2)), KERNEL, cap=3 / m, min_ess=floor)
    assert fit.converged
    assert_feasible(fit, 3 / m)


@pytest.mark.parametrize("d", [1, 2])
def test_rows_on_a_line_are_no_trouble(d: int) -> None:
    rng = np.random.default_rng(d)
    syn, real = rng.normal(size=(700, d)).astype(np.float32), rng.normal(1.0, 1.0, size=(60, d)).astype(np.float32)
    for cap, min_ess in ((1.5 / 700, None), (1.0, 400.0), (1.0, None)):
        fit = fit_weights(syn, real, KERNEL, cap=cap, min_ess=min_ess, tolerance=1e-6)
        assert fit.converged
        assert_feasible(fit, cap)


def test_an_unreachable_tolerance_ends_without_claiming_it() -> None:
    syn, real = pool()
    fit = fit_weights(syn, real, KERNEL, cap=0.2, tolerance=1e-300, max_iterations=3000)
    assert fit.n_iterations < 3000
    assert fit.duality_gap < 1e-8
    assert fit.converged == (fit.duality_gap <= 1e-300)


def test_a_subsample_of_the_real_rows_costs_no_more_than_it_says() -> None:
    syn, real = texts(150, 4000, seed=3)
    whole = fit_weights(syn, real, KERNEL, cap=1.0)
    assert whole.n_real == 4000 and whole.sampling_excess == 0.0 == whole.objective_error
    K, c = KERNEL(wide(syn), wide(syn)), KERNEL(wide(syn), wide(real)).mean(axis=1)
    excess, errors, bounds = [], [], []
    for seed in range(20):
        fit = fit_weights(syn, real, KERNEL, cap=1.0, max_real_rows=400, rng=np.random.default_rng(seed))
        assert fit.n_real == 400
        on_all = float(fit.w @ K @ fit.w - 2 * fit.w @ c)
        excess.append(on_all - whole.objective)
        errors.append((fit.objective - on_all) / fit.objective_error)
        bounds.append(fit.sampling_excess)
    assert 0.0 < np.mean(excess) <= np.mean(bounds)
    # The objective on the subsample is off by its standard error, and a little lower for having been fitted to it.
    assert 0.5 < np.sqrt(np.mean(np.square(errors))) < 2.0


def test_weighted_real_rows_are_drawn_by_weight() -> None:
    syn, real = texts(100, 500)
    heavy = np.zeros(500)
    heavy[:20] = 1 / 20
    fit = fit_weights(syn, real, KERNEL, cap=1.0, real_weights=heavy, max_real_rows=300, rng=np.random.default_rng(0))
    exact = fit_weights(syn, real[:20], KERNEL, cap=1.0)
    assert fit.objective == pytest.approx(exact.objective, abs=4 * fit.objective_error)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cap": 0.02}, "cap must be >="),
        ({"tolerance": 0.0}, "tolerance > 0"),
        ({"max_iterations": -1}, "max_iterations"),
        ({"min_ess": 31.0}, "at most 30"),
        ({"min_ess": 0.0}, "min_ess"),
        ({"ridge": -1.0}, "ridge"),
        ({"prior_weights": np.full(30, 1 / 30)}, "ridge > 0"),
        ({"ridge": 1.0, "prior_weights": np.eye(30)[0]}, "must be > 0"),
        ({"fixed": {30: 0.1}}, "names row 30"),
        ({"fixed": {0: 0.6}}, r"lie in \[0, cap"),
        ({"fixed": {0: 0.5, 1: 0.5, 2: 0.5}}, "sum to 1.5"),
        ({"max_real_rows": 0}, "max_real_rows"),
        ({"max_real_rows": 5}, "pass rng"),
    ],
)
def test_fit_checks_its_numbers(changed: dict[str, Any], said: str) -> None:
    syn, real = pool()
    with pytest.raises(InputError, match=said):
        fit_weights(syn, real, KERNEL, **({"cap": 0.5} | changed))
