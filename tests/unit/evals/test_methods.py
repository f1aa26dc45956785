"""Every method selects distinct rows and has weights on the simplex; the aligned ones come nearer than chance."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

pytest.importorskip("evals.methods", reason="the evals are not part of the source distribution")

from evals.ess import temper
from evals.methods import LABELS, METHODS, OURS, SESSION, session
from evals.methods.kernel import weights_at
from synalign_agent.config import AlignConfig
from synalign_agent.core.arrays import unit_rows
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.label_odds import doubtful_rows
from synalign_agent.core.mmd import mmd2_biased
from synalign_agent.core.resample import effective_sample_size

N_POOL, N_REF, N_SELECTED = 240, 60, 50


def rows(n: int, shares: tuple[float, float], seed: int) -> tuple[np.ndarray, list[str]]:
    """Two kinds of unit rows, and texts that say which."""
    rng = np.random.default_rng(seed)
    kind = rng.random(n) < shares[1]
    X = rng.normal(scale=0.35, size=(n, 6))
    X[np.arange(n), np.where(kind, 1, 0)] += 1.0
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    return X, [f"{'market bank' if one else 'goal match'} {row}" for row, one in enumerate(kind)]


POOL, REF, TEST = rows(N_POOL, (0.8, 0.2), 0), rows(N_REF, (0.3, 0.7), 1), rows(400, (0.3, 0.7), 2)


def call(name: str, n: int = N_SELECTED, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    if name == "thinning" and importlib.util.find_spec("goodpoints") is None:
        pytest.skip("goodpoints is not installed")
    found = METHODS[name](POOL[0], REF[0], POOL[1], REF[1], n, np.random.default_rng(seed))
    return found.weights, found.selected


def distance(selected: np.ndarray) -> float:
    return mmd2_biased(POOL[0][selected], TEST[0], RBFMixture((0.5,)))


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_gives_can_be_scored(name: str) -> None:
    weights, selected = call(name)
    assert weights.shape == (N_POOL,) and (weights >= 0).all() and weights.sum() == pytest.approx(1.0)
    assert len(selected) == len(set(selected.tolist())) == N_SELECTED
    assert selected.tolist() == sorted(selected.tolist())
    again, same = call(name)
    assert np.array_equal(weights, again) and np.array_equal(selected, same)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "random"])
def test_a_method_comes_nearer_than_chance(name: str) -> None:
    chance = np.mean([distance(call("random", seed=seed)[1]) for seed in range(5)])
    assert distance(call(name)[1]) < 0.7 * chance


def test_ours_is_nearest_to_what_it_was_fitted_to() -> None:
    def fitted(name: str) -> float:
        from evals.methods.base import product_kernel

        return mmd2_biased(POOL[0][call(name)[1]], REF[0], product_kernel(REF[0]))

    assert fitted(OURS) <= min(fitted(name) for name in METHODS if name not in (OURS, "thinning")) + 1e-9


def test_voting_reaches_as_many_rows_as_are_wanted() -> None:
    assert len(call("voting", n=N_POOL)[1]) == N_POOL


def test_weights_have_the_effective_sample_size_that_was_asked_for() -> None:
    wanted = 0.8 * N_POOL
    assert effective_sample_size(weights_at(POOL[0], REF[0], wanted)) == pytest.approx(wanted, rel=1e-3)


def test_tempering_keeps_the_order_and_meets_the_effective_sample_size() -> None:
    weights = np.random.default_rng(0).gamma(0.1, size=200)
    weights[:20] = 0.0
    weights /= weights.sum()
    even = temper(weights, 90.0)
    assert effective_sample_size(even) == pytest.approx(90.0, rel=1e-6)
    assert np.array_equal(np.argsort(weights, kind="stable"), np.argsort(even, kind="stable"))
    assert temper(weights, 1.0) is weights
    assert effective_sample_size(temper(weights, 190.0)) == pytest.approx(180.0)


def test_every_method_has_a_name_for_people() -> None:
    assert LABELS.keys() == {*METHODS, SESSION}


def test_the_method_of_sessions_selects_what_they_would_of_every_label() -> None:
    rng = np.random.default_rng(0)
    pools, refs = ([unit_rows(rng.normal(size=(n, 6)) + shift) for shift in (0.5, -0.5)] for n in (120, 80))
    found = session.select_all(pools, refs, 20, np.random.default_rng(1))
    assert [len(of_label.selected) for of_label in found] == [20, 20]
    assert [of_label.weights.sum() for of_label in found] == pytest.approx([1.0, 1.0])
    labels = [np.repeat([0, 1], n) for n in (120, 80)]
    doubtful = doubtful_rows(
        np.concatenate(pools), labels[0], np.concatenate(refs), labels[1], max_odds=AlignConfig().max_label_odds or np.inf,
        at_least=np.array([20, 20]), rng=np.random.default_rng(1),
    )  # fmt: skip
    assert doubtful.any()
    assert not doubtful[np.concatenate([found[0].selected, 120 + found[1].selected])].any()
