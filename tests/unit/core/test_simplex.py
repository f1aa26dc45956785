from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from synalign_agent.core.simplex import label_quotas, linear_minimum, project_capped_simplex
from synalign_agent.errors import InputError


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


@pytest.mark.parametrize("cap", [1.0, 0.5, 0.3, 0.125, 0.13])
def test_linear_minimum_is_that_of_a_solver(cap: float) -> None:
    gradient = np.random.default_rng(1).normal(size=8)
    solved = linprog(gradient, A_eq=np.ones((1, 8)), b_eq=[1.0], bounds=(0.0, cap))
    assert linear_minimum(gradient, cap) == pytest.approx(solved.fun, abs=1e-12)
    assert linear_minimum(gradient, 0.3 * cap, 0.3) == pytest.approx(0.3 * solved.fun, abs=1e-12)


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
