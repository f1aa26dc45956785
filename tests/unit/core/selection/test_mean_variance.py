from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synalign_agent.core.arrays import unit_rows
from synalign_agent.core.explore import exact_neighbours, select_by_mean_variance, select_by_variance
from synalign_agent.core.gp import PosteriorVariance
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.core.selection import mean_variance
from synalign_agent.errors import InputError

KERNEL, NOISE = RBFMixture((0.8,)), 1e-4


def data(n: int = 90, d: int = 5, seed: int = 0) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, d)))


def pick(X: np.ndarray, n: int, size: int = 1, **options: object) -> list[int]:
    found = select_by_mean_variance(
        X, n_clusters=n, cluster_size=size, kernel=KERNEL, neighbours=exact_neighbours(X), noise=NOISE,
        rng=np.random.default_rng(7), **options,  # type: ignore[arg-type]
    )  # fmt: skip
    return [row for cluster in found for row in cluster.members]


def mean_variance_after(X: np.ndarray, rows: list[int], weights: np.ndarray) -> float:
    solved = np.linalg.solve(KERNEL(X[rows], X[rows]) + NOISE * np.eye(len(rows)), KERNEL(X[rows], X))
    return float(np.average(1.0 - np.einsum("si,si->i", KERNEL(X[rows], X), solved), weights=weights))


@pytest.mark.parametrize("weighted", [False, True])
def test_every_pick_is_the_one_after_which_the_mean_variance_is_least(weighted: bool) -> None:
    X = data()
    weights = np.random.default_rng(1).uniform(0.1, 1.1, len(X)) if weighted else np.ones(len(X))
    free = set(range(0, len(X), 2))
    expected: list[int] = []
    for _ in range(12):
        after = {row: mean_variance_after(X, [*expected, row], weights) for row in sorted(free)}
        expected.append(min(after, key=lambda row: after[row]))
        free.remove(expected[-1])
    available = np.arange(len(X)) % 2 == 0
    assert pick(X, 12, gap=weights if weighted else None, available=available) == expected


def test_the_score_is_the_fall_of_the_mean() -> None:
    X = data()
    conditioned = [3, 50, 8]
    [cluster] = select_by_mean_variance(
        X, n_clusters=1, cluster_size=1, kernel=KERNEL, neighbours=exact_neighbours(X), conditioned=conditioned,
        noise=NOISE, rng=np.random.default_rng(0),
    )  # fmt: skip
    ones = np.ones(len(X))
    fall = mean_variance_after(X, conditioned, ones) - mean_variance_after(X, [*conditioned, cluster.seed], ones)
    assert cluster.score == pytest.approx(fall, rel=1e-9)


@pytest.mark.parametrize("block", [1000, 17])
def test_picks_go_on_as_if_there_had_been_no_break(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mean_variance, "MOST_CANDIDATES", block)
    monkeypatch.setattr(mean_variance, "MOST_TARGETS", 40)
    X = data()
    whole = pick(X, 14, 3)
    assert whole[:24] == pick(X, 8, 3)
    assert whole == [*whole[:24], *pick(X, 6, 3, conditioned=whole[:24])]


def test_all_rows_are_found_in_the_end_where_few_compete_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mean_variance, "MOST_CANDIDATES", 7)
    X = data(30)
    assert sorted(pick(X, 99)) == list(range(30))


def test_equal_rows_tie_and_the_lowest_index_wins() -> None:
    X = np.vstack([np.eye(4), np.eye(4)])
    assert pick(X, 4) == [0, 1, 2, 3]


def test_a_crowd_goes_before_the_odd_row_that_greatest_variance_begins_with() -> None:
    crowd = unit_rows(np.array([1.0, 0.0, 0.0]) + 0.05 * np.random.default_rng(0).normal(size=(20, 3)))
    X = np.vstack([np.array([[0.0, 0.0, 1.0]]), crowd])
    by_variance = select_by_variance(X, n_clusters=1, cluster_size=1, kernel=KERNEL, neighbours=exact_neighbours(X))
    assert by_variance[0].seed == 0
    assert pick(X, 2)[0] > 0
    assert pick(X, 2)[1] == 0


def test_a_gap_moves_the_pick_to_where_it_is() -> None:
    X = np.vstack([data(40, 8), np.eye(8)[:1], -np.eye(8)[:1]])
    gap = np.full(len(X), 0.001)
    gap[-1] = 1.0
    assert pick(X, 1, gap=gap) == [len(X) - 1]
    assert pick(X, 1, gap=np.zeros(len(X))) == pick(X, 1)


def test_float32_rows_are_compared_in_float64() -> None:
    X = data().astype(np.float32)
    assert pick(X, 10) == pick(X.astype(np.float64), 10)


def test_a_repeated_row_is_refused() -> None:
    with pytest.raises(InputError, match="already"):
        pick(data(), 1, conditioned=[1, 1])


@given(st.integers(0, 2**31 - 1), st.integers(2, 25), st.integers(1, 4))
def test_no_choice_leaves_more_than_it_says_and_falls_are_positive(seed: int, n: int, size: int) -> None:
    X = data(n, 3, seed)
    found = select_by_mean_variance(
        X, n_clusters=n, cluster_size=size, kernel=KERNEL, neighbours=exact_neighbours(X), noise=NOISE,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    rows = [row for cluster in found for row in cluster.members]
    assert sorted(rows) == list(range(n))
    posterior, left = PosteriorVariance(KERNEL, NOISE), 1.0
    for cluster in found:
        assert cluster.score is not None and cluster.score > -1e-12
        posterior.condition(X[cluster.seed])
        assert float(posterior.variance(X).mean()) == pytest.approx(left - cluster.score, abs=1e-9)
        posterior.extend(X[list(cluster.members[1:])])
        left = float(posterior.variance(X).mean())
