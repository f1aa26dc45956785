from __future__ import annotations

import numpy as np
import pytest

from synalign_agent.core.arrays import BoolArray, IntArray, unit_rows
from synalign_agent.core.explore import (
    Cluster,
    exact_neighbours,
    gap_weights,
    select_by_variance,
    select_random,
    select_seeds,
)
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.errors import InputError

KERNEL = RBFMixture((0.9,))


def data(n: int = 80, d: int = 6, seed: int = 0) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, d)))


def naive_clusters(X: np.ndarray, n_clusters: int, size: int, gap: np.ndarray, noise: float) -> list[tuple[int, ...]]:
    """The oracle: solve the whole system again for every pick, as the paper's code refits."""
    K, S, free, clusters = KERNEL(X, X), [], set(range(len(X))), []
    for _ in range(n_clusters):
        variance = np.ones(len(X))
        if S:
            solved = np.linalg.solve(K[np.ix_(S, S)] + noise * np.eye(len(S)), K[S])
            variance = 1.0 - np.einsum("si,si->i", K[S], solved)
        seed = max(sorted(free), key=lambda i: round(variance[i] * gap[i], 10))
        others = sorted(free - {seed}, key=lambda i: (-round(float(X[i] @ X[seed]), 10), i))
        clusters.append((seed, *others[: size - 1]))
        S.extend(clusters[-1])
        free -= set(clusters[-1])
    return clusters


@pytest.mark.parametrize("gap_aware", [False, True])
def test_picks_are_those_of_naive_refitting(gap_aware: bool) -> None:
    X = data()
    gap = np.random.default_rng(1).uniform(0.1, 1.1, len(X)) if gap_aware else np.ones(len(X))
    clusters = select_by_variance(
        X,
        n_clusters=12,
        cluster_size=3,
        kernel=KERNEL,
        neighbours=exact_neighbours(X),
        gap=gap if gap_aware else None,
        noise=1e-4,
    )
    assert [cluster.members for cluster in clusters] == naive_clusters(X, 12, 3, gap, 1e-4)


def test_first_pick_without_a_gap_is_a_tie_and_goes_to_the_lowest_index() -> None:
    X = data()
    [cluster] = select_by_variance(X, n_clusters=1, cluster_size=1, kernel=KERNEL, neighbours=exact_neighbours(X))
    assert cluster == Cluster(0, (0,), 1.0)


def test_conditioned_rows_are_explored_and_never_picked() -> None:
    X = np.vstack([np.eye(3), np.eye(3)])
    clusters = select_by_variance(
        X, n_clusters=9, cluster_size=1, kernel=KERNEL, neighbours=exact_neighbours(X), conditioned=[0, 1]
    )
    assert [cluster.seed for cluster in clusters] == [2, 3, 4, 5]
    assert clusters[0].score is not None and clusters[1].score is not None
    assert clusters[0].score > 0.5 > clusters[1].score


def test_selection_stops_when_nothing_is_available() -> None:
    X = data(7)
    available = np.array([True] * 5 + [False] * 2)
    clusters = select_by_variance(
        X, n_clusters=9, cluster_size=2, kernel=KERNEL, neighbours=exact_neighbours(X), available=available
    )
    assert [len(cluster.members) for cluster in clusters] == [2, 2, 1]
    assert sorted(i for cluster in clusters for i in cluster.members) == [0, 1, 2, 3, 4]
    assert available.tolist() == [True] * 5 + [False] * 2


def test_conditioned_may_not_repeat() -> None:
    X = data(5)
    with pytest.raises(InputError, match="already"):
        select_by_variance(
            X, n_clusters=1, cluster_size=1, kernel=KERNEL, neighbours=exact_neighbours(X), conditioned=[1, 1]
        )


@pytest.mark.parametrize("gap", [np.ones(4), -np.ones(5), np.full(5, np.nan)])
def test_bad_gap_is_refused(gap: np.ndarray) -> None:
    X = data(5)
    with pytest.raises(InputError, match="gap"):
        select_by_variance(X, n_clusters=1, cluster_size=1, kernel=KERNEL, neighbours=exact_neighbours(X), gap=gap)


def test_neighbours_are_nearest_first_and_skip_taken_rows() -> None:
    angles = np.radians([0, 10, 20, 30, 90])
    nearest = exact_neighbours(np.column_stack([np.cos(angles), np.sin(angles)]))
    everything = np.ones(5, dtype=bool)
    assert nearest(1, 3, everything).tolist() == [0, 2, 3]
    assert nearest(1, 3, np.array([True, True, False, True, True])).tolist() == [0, 3, 4]
    assert nearest(0, 99, everything).tolist() == [1, 2, 3, 4]
    assert nearest(0, 2, np.zeros(5, dtype=bool)).tolist() == []


def test_equal_rows_are_neighbours_in_index_order() -> None:
    row = np.random.default_rng(5).normal(size=384)
    nearest = exact_neighbours(np.tile(row, (101, 1)))
    assert nearest(3, 5, np.ones(101, dtype=bool)).tolist() == [0, 1, 2, 4, 5]


def test_neighbours_that_differ_by_round_off_tie() -> None:
    angles = 1.0 + np.array([0.0, 3e-14, 2e-14, 1e-14])
    nearest = exact_neighbours(np.column_stack([np.cos(angles), np.sin(angles)]))
    assert nearest(3, 3, np.ones(4, dtype=bool)).tolist() == [0, 1, 2]


def test_random_clusters_are_disjoint_and_follow_the_seed() -> None:
    X = data()

    def draw(seed: int) -> list[Cluster]:
        rng = np.random.default_rng(seed)
        return select_random(80, n_clusters=10, cluster_size=3, neighbours=exact_neighbours(X), rng=rng)

    rows = [i for cluster in draw(0) for i in cluster.members]
    assert len(rows) == len(set(rows)) == 30
    assert draw(0) == draw(0) != draw(1)


def test_random_seeds_are_uniform_over_available_rows() -> None:
    X, rng = data(6), np.random.default_rng(0)
    available = np.array([True, False, True, True, False, True])
    picks = [
        select_random(6, n_clusters=1, cluster_size=1, neighbours=exact_neighbours(X), rng=rng, available=available)[
            0
        ].seed
        for _ in range(2000)
    ]
    counts = np.bincount(picks, minlength=6)
    assert counts[[1, 4]].tolist() == [0, 0]
    assert (np.abs(counts[[0, 2, 3, 5]] - 500) < 100).all()


def test_given_seeds_are_used_in_order_and_unavailable_ones_skipped() -> None:
    angles = np.radians([0, 10, 20, 30, 90])
    nearest = exact_neighbours(np.column_stack([np.cos(angles), np.sin(angles)]))
    available = np.array([True, True, True, True, False])
    clusters = select_seeds([4, 1, 0, 3, 2], cluster_size=2, neighbours=nearest, available=available, n_clusters=2)
    assert [cluster.members for cluster in clusters] == [(1, 0), (3, 2)]


def test_a_neighbour_search_that_returns_taken_rows_is_caught() -> None:
    def careless(row: int, k: int, available: BoolArray) -> IntArray:
        return np.zeros(k, dtype=np.intp)

    with pytest.raises(InputError, match="contract"):
        select_by_variance(data(5), n_clusters=1, cluster_size=3, kernel=KERNEL, neighbours=careless)


@pytest.mark.parametrize(("n_clusters", "cluster_size"), [(-1, 1), (1, 0)])
def test_sizes_are_checked(n_clusters: int, cluster_size: int) -> None:
    X = data(5)
    with pytest.raises(InputError, match="must be >="):
        select_seeds(
            [0],
            n_clusters=n_clusters,
            cluster_size=cluster_size,
            neighbours=exact_neighbours(X),
            available=np.ones(5, dtype=bool),
        )


def test_availability_must_be_boolean() -> None:
    X = data(3)
    with pytest.raises(InputError, match="boolean"):
        select_seeds([0], cluster_size=1, neighbours=exact_neighbours(X), available=np.array([0, 1, 2]), n_clusters=1)


def test_gap_weights_scale_positive_witness_and_floor_the_rest() -> None:
    np.testing.assert_allclose(gap_weights(np.array([-1.0, 0.0, 1.0, 2.0]), floor=0.2), [0.2, 0.2, 0.7, 1.2])
    np.testing.assert_array_equal(gap_weights(np.array([-1.0, 0.0])), [1.0, 1.0])
    with pytest.raises(InputError, match="floor"):
        gap_weights(np.ones(2), floor=-0.1)
    with pytest.raises(InputError, match="witness"):
        gap_weights(np.array([np.nan]))
