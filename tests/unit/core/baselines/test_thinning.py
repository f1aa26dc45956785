from __future__ import annotations

import math

import numpy as np
import pytest

from synalign_agent.core.baselines import thinning as module
from synalign_agent.core.baselines.thinning import halve, thinning
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.mmd import mmd2_biased
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.8, 1.6))


def halve_by_the_book(X: np.ndarray, coins: np.ndarray, delta: float) -> tuple[list[int], list[int]]:
    """Algorithm 1a of Generalized kernel thinning with one round, sums over sets as printed."""
    n = len(X)
    one: list[int] = []
    two: list[int] = []
    sigma = 0.0
    K = KERNEL(X, X)
    for pair in range(n // 2):
        x, z = 2 * pair, 2 * pair + 1
        b = math.sqrt(2 - 2 * K[x, z])
        a = max(b * sigma * math.sqrt(2 * math.log(2 / (delta / n))), b**2)
        sigma = math.sqrt(sigma**2 + b**2 * max(1 + (b**2 - 2 * a) * sigma**2 / a**2, 0))
        earlier = range(2 * pair)
        alpha = sum(K[y, x] - K[y, z] for y in earlier) - 2 * sum(K[y, x] - K[y, z] for y in one)
        if coins[pair] < min(1.0, 0.5 * max(1 - alpha / a, 0.0)):
            x, z = z, x
        one.append(x)
        two.append(z)
    return one, two


@pytest.mark.parametrize("n", [2, 3, 40, 121])
@pytest.mark.parametrize("block_pairs", [1, 7, 256])
def test_halving_is_the_papers_algorithm(n: int, block_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_PAIRS", block_pairs)
    X = np.random.default_rng(n).normal(size=(n, 2))
    first, second = halve(X, KERNEL, np.random.default_rng(5))
    expected = halve_by_the_book(X, np.random.default_rng(5).random(n // 2), 0.5)
    assert (first.tolist(), second.tolist()) == expected


def test_a_thinned_half_is_closer_than_a_random_one() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)).astype(np.float32)
    thinned = [mmd2_biased(X[halve(X, KERNEL, rng)[0]], X, KERNEL) for _ in range(10)]
    random = [mmd2_biased(X[rng.permutation(600)[:300]], X, KERNEL) for _ in range(10)]
    assert np.mean(thinned) < 0.4 * np.mean(random)


def test_equal_rows_are_halved() -> None:
    first, second = halve(np.ones((6, 1)), KERNEL, np.random.default_rng(0))
    assert sorted([*first, *second]) == list(range(6))


def world(m: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(0.6, 1.0, size=(m, 3)), rng.normal(size=(150, 3))


def run(syn: np.ndarray, real: np.ndarray, n: int, cap: float, seed: int = 0) -> np.ndarray:
    return thinning(syn, real, n=n, cap=cap, kernel=KERNEL, rng=np.random.default_rng(seed), tolerance=1e-7).w


@pytest.mark.parametrize(("n", "max_copies"), [(30, 1), (30, 3), (100, 1), (120, 1), (1, 1), (150, 2)])
def test_the_selection_has_n_rows_within_the_cap_near_the_real_ones(n: int, max_copies: int) -> None:
    syn, real = world()
    w = run(syn, real, n, max_copies / n)
    copies = np.round(w * n)
    np.testing.assert_allclose(w * n, copies, atol=1e-9)
    assert copies.sum() == n and copies.max() <= max_copies
    rng = np.random.default_rng(1)
    slots = np.repeat(np.arange(120), max_copies)
    random = [mmd2_biased(syn[rng.choice(slots, n, replace=False)], real, KERNEL) for _ in range(50)]
    assert mmd2_biased(syn, real, KERNEL, x_weights=w) <= min(random) + 1e-12


def test_the_closest_of_the_four_selections_is_refined(monkeypatch: pytest.MonkeyPatch) -> None:
    syn, real = world()
    selections: list[np.ndarray] = []
    refined: list[np.ndarray] = []

    def herd(*arguments: object) -> np.ndarray:
        selections.append(original_herd(*arguments))
        return selections[-1]

    def improve(X: np.ndarray, copies: np.ndarray, *rest: object, **limits: int) -> object:
        refined.append(copies)
        return original_improve(X, copies, *rest, **limits)

    original_herd, original_improve = module.herd, module.improve_by_swaps
    monkeypatch.setattr(module, "herd", herd)
    monkeypatch.setattr(module, "improve_by_swaps", improve)
    run(syn, real, 30, 1 / 30)
    distances = [mmd2_biased(syn, real, KERNEL, x_weights=copies / 30) for copies in selections]
    assert len(selections) == 4 and len(set(distances)) > 1
    np.testing.assert_array_equal(refined[0], selections[int(np.argmin(distances))])


def test_it_follows_the_seed_and_refuses_what_does_not_fit() -> None:
    syn, real = world()
    np.testing.assert_array_equal(run(syn, real, 30, 1 / 30), run(syn, real, 30, 1 / 30))
    with pytest.raises(InputError):
        run(syn, real, 121, 1 / 121)
