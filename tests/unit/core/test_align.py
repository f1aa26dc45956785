from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from synalign_agent.core import align
from synalign_agent.core.align import fit_weights, label_quotas, project_capped_simplex
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.7, 1.4, 2.8))


@pytest.mark.parametrize(
    ("v", "cap", "expected"),
    [
        ([0.2, 0.3, 0.5], 1.0, [0.2, 0.3, 0.5]),
        ([5.0, 0.0, 0.0], 1.0, [1.0, 0.0, 0.0]),
        ([5.0, 0.0, 0.0], 0.5, [0.5, 0.25, 0.25]),
        ([1.0, 1.0, 0.0], 9.0, [0.5, 0.5, 0.0]),
        ([3.0, 2.0, 1.0], 1 / 3, [1 / 3, 1 / 3, 1 / 3]),
        ([1.0, 0.8, 0.0, 0.0], 0.4, [0.4, 0.4, 0.1, 0.1]),
        ([-7.0], 1.0, [1.0]),
        ([-7.0], 3.0, [1.0]),
    ],
)
def test_projection_in_closed_cases(v: list[float], cap: float, expected: list[float]) -> None:
    np.testing.assert_allclose(project_capped_simplex(np.array(v), cap), expected, atol=1e-15)


def test_projection_matches_a_solver() -> None:
    rng = np.random.default_rng(0)
    for cap in (0.15, 0.3, 1.0):
        v = rng.normal(size=8)
        solved = minimize(
            lambda w, v=v: float(((w - v) ** 2).sum()),
            np.full(8, 1 / 8),
            jac=lambda w, v=v: 2 * (w - v),
            bounds=[(0.0, cap)] * 8,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(project_capped_simplex(v, cap), solved.x, atol=1e-6)


@pytest.mark.parametrize(("v", "cap"), [([1.0, 2.0], 0.4), ([np.nan, 1.0], 1.0), ([], 1.0), ([1.0, 2.0], np.nan)])
def test_projection_onto_nothing_is_refused(v: list[float], cap: float) -> None:
    with pytest.raises(InputError):
        project_capped_simplex(np.array(v), cap)


def pool(m: int = 30, h: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.6, 1.0, size=(m, 3)), rng.normal(size=(h, 3))


@pytest.mark.parametrize("cap", [1.0, 0.08, 0.05])
def test_weights_match_a_solver(cap: float) -> None:
    syn, real = pool()
    v = np.random.default_rng(5).dirichlet(np.ones(len(real)))
    K, c = KERNEL(syn, syn), KERNEL(syn, real) @ v
    solved = minimize(
        lambda w: float(w @ K @ w - 2 * w @ c),
        np.full(30, 1 / 30),
        jac=lambda w: 2 * (K @ w - c),
        bounds=[(0.0, cap)] * 30,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(30)},
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 1000},
    )
    fit = fit_weights(syn, real, KERNEL, cap=cap, real_weights=v, tolerance=1e-9)
    assert solved.success and fit.converged
    assert fit.objective == pytest.approx(float(fit.w @ K @ fit.w - 2 * fit.w @ c), abs=1e-12)
    assert abs(fit.objective - solved.fun) < 1e-7
    np.testing.assert_allclose(fit.w, solved.x, atol=2e-3)


def test_duality_gap_bounds_what_is_left() -> None:
    syn, real = pool(m=60)
    best = fit_weights(syn, real, KERNEL, cap=0.05, tolerance=1e-10)
    assert best.converged
    for n_iterations in (0, 1, 3, 10):
        early = fit_weights(syn, real, KERNEL, cap=0.05, tolerance=1e-10, max_iterations=n_iterations)
        assert early.n_iterations == n_iterations and not early.converged
        assert 0.0 <= early.objective - best.objective <= early.duality_gap + 1e-12


def test_no_step_raises_the_objective() -> None:
    syn, real = pool(m=60)
    objectives = [
        fit_weights(syn, real, KERNEL, cap=0.2, tolerance=1e-12, max_iterations=n).objective for n in range(0, 120)
    ]
    assert np.diff(objectives).max() <= 1e-14
    assert objectives[-1] < objectives[0] - 0.01


def test_a_wrong_first_guess_of_the_step_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    syn, real = pool()
    expected = fit_weights(syn, real, KERNEL, cap=0.08, tolerance=1e-9)
    monkeypatch.setattr(align, "_POWER_STEPS", 0)
    fit = fit_weights(syn, real, KERNEL, cap=0.08, tolerance=1e-9)
    assert fit.converged
    assert fit.objective == pytest.approx(expected.objective, abs=2e-9)


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


def test_equal_rows_are_no_trouble() -> None:
    fit = fit_weights(np.ones((6, 2)), np.zeros((3, 2)), KERNEL, cap=0.5)
    assert fit.converged
    assert fit.w.sum() == pytest.approx(1.0)


def test_an_unreachable_tolerance_ends_without_claiming_it() -> None:
    syn, real = pool()
    fit = fit_weights(syn, real, KERNEL, cap=0.2, tolerance=1e-300, max_iterations=3000)
    assert not fit.converged
    assert fit.n_iterations < 3000
    assert fit.duality_gap < 1e-8


@pytest.mark.parametrize("changed", [{"cap": 0.02}, {"tolerance": 0.0}, {"max_iterations": -1}])
def test_fit_checks_its_numbers(changed: dict[str, float]) -> None:
    syn, real = pool()
    with pytest.raises(InputError):
        fit_weights(syn, real, KERNEL, **({"cap": 0.5} | changed))


def test_quotas_give_the_largest_remainders_the_rest() -> None:
    assert label_quotas({"a": 0.55, "b": 0.27, "c": 0.18}, 10) == {"a": 5, "b": 3, "c": 2}
    assert label_quotas({"x": 3, "y": 1}, 4) == {"x": 3, "y": 1}
    assert label_quotas({"x": 1.0, "y": 0.0}, 3) == {"x": 3, "y": 0}


def test_equal_remainders_do_not_depend_on_order_or_round_off() -> None:
    assert label_quotas({"b": 1, "a": 1, "c": 1}, 4) == {"b": 1, "a": 2, "c": 1}
    assert label_quotas({"c": 1, "b": 1, "a": 1}, 5) == {"c": 1, "b": 2, "a": 2}
    assert label_quotas({"b": 0.1 + 0.2, "a": 0.3, "c": 0.4}, 5) == label_quotas({"b": 0.3, "a": 0.3, "c": 0.4}, 5)


@pytest.mark.parametrize(("prior", "n"), [({}, 3), ({"a": 0.0}, 3), ({"a": -1.0, "b": 2.0}, 3), ({"a": 1.0}, -1)])
def test_bad_priors_are_refused(prior: dict[str, float], n: int) -> None:
    with pytest.raises(InputError):
        label_quotas(prior, n)
