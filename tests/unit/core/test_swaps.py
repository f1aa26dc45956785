from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from synalign_agent.core import swaps
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.swaps import improve_by_swaps
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.8, 1.6))


def world(m: int, seed: int, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Return a pool that is off-centre, and its mean kernel values with real rows."""
    rng = np.random.default_rng(seed)
    X, real = rng.normal(0.5, 1.0, size=(m, 3)).astype(dtype), rng.normal(size=(50, 3)).astype(dtype)
    return X, KERNEL(X, real).mean(axis=1, dtype=np.float64)


def start(m: int, n: int, seed: int, max_copies: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.bincount(rng.choice(np.repeat(np.arange(m), max_copies), n, replace=False), minlength=m)


def objective(X: np.ndarray, copies: np.ndarray, k_sr: np.ndarray) -> float:
    w = copies / copies.sum()
    double = X.astype(np.float64)
    return float(w @ KERNEL(double, double) @ w - 2 * w @ k_sr)


def best_exchange(X: np.ndarray, copies: np.ndarray, k_sr: np.ndarray, max_copies: int) -> tuple[float, np.ndarray]:
    """Return the lowest objective that one exchange reaches, by trying all."""
    best, found = objective(X, copies, k_sr), copies
    for i, j in product(range(len(X)), repeat=2):
        if i != j and copies[i] > 0 and copies[j] < max_copies:
            tried = copies.copy()
            tried[i] -= 1
            tried[j] += 1
            value = objective(X, tried, k_sr)
            if value < best:
                best, found = value, tried
    return best, found


@pytest.mark.parametrize("max_copies", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_it_takes_the_best_exchanges_to_a_local_optimum(seed: int, max_copies: int) -> None:
    """Up to 128 rows of a kind, all pairs are in the working set, so each exchange is the best there is."""
    X, k_sr = world(14, seed)
    copies = start(14, 6, seed, max_copies)
    expected = [copies]
    while True:
        value, following = best_exchange(X, expected[-1], k_sr, max_copies)
        if value >= objective(X, expected[-1], k_sr) - 1e-12:
            break
        expected.append(following)
    found = improve_by_swaps(X, copies, KERNEL, k_sr, max_copies=max_copies)
    np.testing.assert_array_equal(found.copies, expected[-1])
    assert found.n_swaps == len(expected) - 1 and found.is_local_optimum
    for n_swaps, reached in enumerate(expected[:-1]):
        early = improve_by_swaps(X, copies, KERNEL, k_sr, max_copies=max_copies, max_swaps=n_swaps)
        np.testing.assert_array_equal(early.copies, reached)
        assert early.n_swaps == n_swaps and not early.is_local_optimum


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_copies", [1, 3])
def test_short_lists_end_at_a_proven_local_optimum(
    dtype: type, max_copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swaps, "_LIST_ROWS", 4)
    monkeypatch.setattr(swaps, "_SCAN_ROWS", 7)
    monkeypatch.setattr(swaps, "BLOCK_ROWS", 11)
    X, k_sr = world(60, 5, dtype)
    copies = start(60, 25, 5, max_copies)
    found = improve_by_swaps(X, copies, KERNEL, k_sr, max_copies=max_copies)
    assert found.is_local_optimum and found.n_swaps > 5
    slack = 2e-3 / 25**2 if dtype is np.float32 else 1e-11
    assert best_exchange(X, found.copies, k_sr, max_copies)[0] >= objective(X, found.copies, k_sr) - slack
    assert found.copies.sum() == 25 and found.copies.min() >= 0 and found.copies.max() <= max_copies


@pytest.mark.parametrize("max_copies", [1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_the_look_through_misses_no_pair(seed: int, max_copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With lists of one row, most exchanges, and the claim that there are none, come from it alone."""
    monkeypatch.setattr(swaps, "_LIST_ROWS", 1)
    monkeypatch.setattr(swaps, "_SCAN_ROWS", 2)
    X, k_sr = world(14, seed)
    found = improve_by_swaps(X, start(14, 6, seed, max_copies), KERNEL, k_sr, max_copies=max_copies)
    assert found.is_local_optimum
    assert best_exchange(X, found.copies, k_sr, max_copies)[0] >= objective(X, found.copies, k_sr) - 1e-11


@pytest.mark.parametrize(("dtype", "precision"), [(np.float32, 1e-7), (np.float64, 1e-13)])
def test_the_accounting_is_that_of_the_double_loop(dtype: type, precision: float) -> None:
    X, k_sr = world(300, 2, dtype)
    copies = start(300, 90, 2)
    found = improve_by_swaps(X, copies, KERNEL, k_sr)
    assert found.before == pytest.approx(objective(X, copies, k_sr), abs=precision)
    assert found.after == pytest.approx(objective(X, found.copies, k_sr), abs=precision)
    assert found.after < found.before - 0.01
    np.testing.assert_array_equal(copies, start(300, 90, 2))


def test_it_finds_the_one_row_that_is_missing() -> None:
    X = np.array([[0.0], [0.1], [5.0], [5.1]])
    k_sr = KERNEL(X, np.array([[0.0], [5.0]])).mean(axis=1)
    found = improve_by_swaps(X, np.array([1, 1, 0, 0]), KERNEL, k_sr)
    assert found.copies.tolist() == [1, 0, 1, 0] and found.n_swaps == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_rows_and_full_selections_are_left_alone(dtype: type) -> None:
    X = np.ones((6, 1), dtype)
    found = improve_by_swaps(X, np.array([1, 0, 1, 0, 0, 0]), KERNEL, np.full(6, 0.3))
    assert found.n_swaps == 0 and found.is_local_optimum and found.copies.tolist() == [1, 0, 1, 0, 0, 0]
    X, k_sr = world(5, 0, dtype)
    full = improve_by_swaps(X, np.ones(5, dtype=int), KERNEL, k_sr)
    assert full.n_swaps == 0 and full.is_local_optimum and full.after == full.before
    alone = improve_by_swaps(X[:1], [3], KERNEL, k_sr[:1], max_copies=4)
    assert alone.n_swaps == 0 and alone.copies.tolist() == [3]


def test_it_does_not_depend_on_chance_or_on_list_sizes_for_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    X, k_sr = world(400, 3)
    copies = start(400, 150, 3)
    one, two = (improve_by_swaps(X, copies, KERNEL, k_sr) for _ in range(2))
    np.testing.assert_array_equal(one.copies, two.copies)
    monkeypatch.setattr(swaps, "_LIST_ROWS", 16)
    other = improve_by_swaps(X, copies, KERNEL, k_sr)
    assert other.after == pytest.approx(one.after, abs=0.02 * (one.before - one.after))


@pytest.mark.parametrize(
    "changed",
    [
        {"copies": [1, 1]},
        {"copies": [1.0, 0.0, 0.0]},
        {"copies": [0, 0, 0]},
        {"copies": [2, 0, 0]},
        {"copies": [-1, 1, 1]},
        {"max_copies": 0},
        {"max_swaps": -1},
        {"k_sr": [0.1, 0.2]},
        {"k_sr": [0.1, 0.2, np.nan]},
        {"X_syn": [[0.0], [np.nan], [1.0]]},
    ],
)
def test_bad_input_is_refused(changed: dict[str, object]) -> None:
    good = {"X_syn": [[0.0], [1.0], [2.0]], "copies": [1, 0, 1], "kernel": KERNEL, "k_sr": [0.1, 0.2, 0.3]}
    improve_by_swaps(**good)
    with pytest.raises(InputError):
        improve_by_swaps(**(good | changed))
