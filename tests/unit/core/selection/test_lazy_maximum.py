from __future__ import annotations

import numpy as np
import pytest
import torch

from synalign_agent.core.arrays import unit_rows
from synalign_agent.core.explore import exact_neighbours, select_by_variance
from synalign_agent.core.gp import PosteriorVariance
from synalign_agent.core.kernels import Cosine, Kernel, RBFMixture
from synalign_agent.core.selection import lazy_maximum, stale_variance
from synalign_agent.core.selection.lazy_maximum import LazyMaximum
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.8,))
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which 300 rows go through everything that a million rows do."""
    monkeypatch.setattr(lazy_maximum, "_ALL_IN_POOL", 20)
    monkeypatch.setattr(lazy_maximum, "_LEAST_POOL", 5)
    monkeypatch.setattr(lazy_maximum, "_MOST_POOL", 40)
    monkeypatch.setattr(lazy_maximum, "_MANY_CONTENDERS", 4)
    monkeypatch.setattr(stale_variance, "TILE_ROWS", 16)


def data(n: int = 300, d: int = 8, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, d))).astype(dtype)


def every_row_every_step(
    X: np.ndarray, weights: np.ndarray, free: np.ndarray, n_steps: int, kernel: Kernel = KERNEL, noise: float = 1e-4
) -> list[int]:
    """The oracle: solve the whole system for all rows in float64 at every step."""
    rows, free = X.astype(np.float64), free.copy()
    K = kernel(rows, rows)
    picks: list[int] = []
    for _ in range(n_steps):
        variance = np.ones(len(X))
        if picks:
            solved = np.linalg.solve(K[np.ix_(picks, picks)] + noise * np.eye(len(picks)), K[picks])
            variance = 1.0 - np.einsum("si,si->i", K[picks], solved)
        scores = np.where(free, variance * weights / weights.max(), -1.0)
        picks.append(int(np.argmax(scores >= scores.max() - 1e-12)))
        free[picks[-1]] = False
    return picks


def lazily(
    X: np.ndarray,
    weights: np.ndarray,
    free: np.ndarray,
    n_steps: int,
    kernel: Kernel = KERNEL,
    device: str | None = None,
) -> list[int]:
    best = LazyMaximum(X, kernel, 1e-4, weights, free.copy(), n_steps, device)
    picks: list[int] = []
    while len(picks) < n_steps and (found := best.find()) is not None:
        best.take(found.row)
        best.condition(found.row)
        picks.append(found.row)
    return picks


@pytest.mark.usefixtures("small_pools")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cache_bytes", [0, 4 * 300 * 20, 2**29])
def test_picks_are_those_of_updating_every_row(dtype: type, cache_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale_variance, "CACHE_BYTES", cache_bytes)
    X, rng = data(dtype=dtype), np.random.default_rng(1)
    for weights in (np.ones(300), rng.uniform(0.1, 1.1, 300), rng.integers(0, 3, 300).astype(float)):
        free = rng.random(300) < 0.8
        assert lazily(X, weights, free, 80) == every_row_every_step(X, weights, free, 80)


@pytest.mark.usefixtures("small_pools")
def test_most_rows_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    refreshed: list[int] = []
    refresh = stale_variance.StaleVariance.refresh

    def counting(self: stale_variance.StaleVariance, rows: np.ndarray) -> int:
        refreshed.append(refresh(self, rows))
        return refreshed[-1]

    monkeypatch.setattr(stale_variance.StaleVariance, "refresh", counting)
    lazily(data(), np.ones(300), np.ones(300, dtype=bool), 100)
    assert sum(refreshed) < 0.5 * 100 * 300


@pytest.mark.usefixtures("small_pools")
@pytest.mark.parametrize("lengthscale", [0.02, 0.1, 0.25])
def test_a_tiny_lengthscale_ties_everything_and_the_order_decides(lengthscale: float) -> None:
    X, kernel = data(), RBFMixture((lengthscale,))
    weights, free = np.ones(300), np.ones(300, dtype=bool)
    assert lazily(X, weights, free, 60, kernel) == every_row_every_step(X, weights, free, 60, kernel)


@pytest.mark.usefixtures("small_pools")
def test_copies_of_rows_tie_and_come_after_everything_else() -> None:
    X = data(100)
    doubled = np.concatenate([X, X])
    picks = lazily(doubled, np.ones(200), np.ones(200, dtype=bool), 100)
    assert picks == every_row_every_step(doubled, np.ones(200), np.ones(200, dtype=bool), 100)
    assert max(picks) < 100


@pytest.mark.usefixtures("small_pools")
def test_equal_rows_are_picked_in_order() -> None:
    X = np.repeat(data(1), 50, axis=0)
    assert lazily(X, np.ones(50), np.ones(50, dtype=bool), 50) == list(range(50))


@pytest.mark.usefixtures("small_pools")
def test_when_rows_run_out_there_is_no_best() -> None:
    X, free = data(30), np.zeros(30, dtype=bool)
    free[[4, 9]] = True
    assert sorted(lazily(X, np.ones(30), free, 10)) == [4, 9]


@pytest.mark.usefixtures("small_pools")
def test_cosine_similarity_is_a_kernel_for_exploration() -> None:
    X, free = data(120), np.ones(120, dtype=bool)
    weights = np.ones(120)
    assert lazily(X, weights, free, 7, Cosine()) == every_row_every_step(X, weights, free, 7, Cosine())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", [KERNEL, RBFMixture((0.5, 1.0, 2.0))])
def test_a_device_picks_the_same(device: str, dtype: type, kernel: Kernel) -> None:
    X, free = data(dtype=dtype), np.random.default_rng(2).random(300) < 0.9
    weights = np.random.default_rng(3).uniform(0.5, 1.0, 300)
    assert lazily(X, weights, free, 90, kernel, device) == every_row_every_step(X, weights, free, 90, kernel)


def test_a_device_that_is_none_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match="no-such-device"):
        lazily(data(), np.ones(300), np.ones(300, dtype=bool), 2, device="no-such-device")


@pytest.mark.usefixtures("small_pools")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_exploration_goes_on_where_it_was_left(dtype: type) -> None:
    X = data(dtype=dtype)
    near = exact_neighbours(X)

    def select(n_clusters: int, conditioned: list[int]) -> list[tuple[int, ...]]:
        clusters = select_by_variance(
            X, n_clusters=n_clusters, cluster_size=3, kernel=KERNEL, neighbours=near, conditioned=conditioned
        )
        return [cluster.members for cluster in clusters]

    whole = select(30, [])
    first = select(12, [])
    second = select(18, [row for members in first for row in members])
    assert first + second == whole


@pytest.mark.usefixtures("small_pools")
def test_the_score_is_the_exact_variance_times_the_weight() -> None:
    X, weights = data(), np.random.default_rng(4).uniform(0.2, 3.0, 300)
    best = LazyMaximum(X, KERNEL, 1e-4, weights, np.ones(300, dtype=bool), 40)
    posterior = PosteriorVariance(KERNEL, 1e-4)
    for _ in range(40):
        found = best.find()
        assert found is not None
        expected = posterior.variance(X[[found.row]].astype(np.float64))[0] * weights[found.row]
        assert found.score == pytest.approx(expected, rel=1e-9)
        best.take(found.row)
        best.condition(found.row)
        posterior.condition(X[found.row])
