"""k-means medoids."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from synalign_agent.errors import InputError
from synalign_agent.stores import clusters as clusters_module
from synalign_agent.stores.clusters import kmeans_medoids

D = 8


def random_rows(n: int, seed: int = 0, d: int = D) -> NDArray[np.float32]:
    return np.random.default_rng((42, n, seed)).normal(size=(n, d)).astype(np.float32)


def planted(n_each: int = 30) -> NDArray[np.float32]:
    """Three groups around axes, of 3, 2 and 1 parts."""
    rng = np.random.default_rng(0)
    axes = np.repeat(np.eye(D)[:3], [3 * n_each, 2 * n_each, n_each], axis=0)
    X: NDArray[np.float32] = (axes + 0.05 * rng.normal(size=axes.shape)).astype(np.float32)
    return X


def test_medoids_find_the_groups_the_largest_first() -> None:
    medoids = kmeans_medoids(planted(), 3, seed=0)
    assert [0 if row < 90 else 1 if row < 150 else 2 for row in medoids] == [0, 1, 2]


@pytest.mark.parametrize(("n", "k"), [(40, 7), (40, 40), (5, 20), (1, 1), (1, 3), (200, 30)])
def test_medoids_are_unique_rows_and_repeatable(n: int, k: int) -> None:
    X = random_rows(n)
    medoids = kmeans_medoids(X, k, seed=3)
    assert medoids == kmeans_medoids(X, k, seed=3)
    assert len(set(medoids)) == len(medoids) and 1 <= len(medoids) <= min(k, n)
    assert all(isinstance(row, int) and 0 <= row < n for row in medoids)


def test_medoids_of_equal_rows_do_not_repeat() -> None:
    X = np.repeat(random_rows(2), 10, axis=0)
    medoids = kmeans_medoids(X, 6, seed=0)
    assert len(set(medoids)) == len(medoids) and {row // 10 for row in medoids} == {0, 1}


def test_a_large_seed_is_accepted() -> None:
    assert kmeans_medoids(random_rows(20), 3, seed=2**40 + 5) == kmeans_medoids(random_rows(20), 3, seed=2**40 + 5)


def test_a_sample_trains_and_all_rows_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters_module, "_LEAST_TRAINING_ROWS", 60)
    monkeypatch.setattr(clusters_module, "_MOST_TRAINING_ROWS", 120)
    X = planted(n_each=200)
    # More centres than groups: with one each, Lloyd's iterations may end with two centres in one group.
    medoids = kmeans_medoids(X, 8, seed=1)
    assert {0 if row < 600 else 1 if row < 1000 else 2 for row in medoids} == {0, 1, 2}
    assert max(medoids) > 120
    monkeypatch.setattr(clusters_module, "BLOCK_ROWS", 64)
    assert kmeans_medoids(X, 8, seed=1) == medoids


def test_what_cannot_be_clustered_is_refused() -> None:
    for X, k in ((random_rows(0), 3), (random_rows(5), 0)):
        with pytest.raises(InputError, match="at least one row and one centre"):
            kmeans_medoids(X, k, 0)
    with pytest.raises(InputError, match="Row 1 "):
        kmeans_medoids(np.array([[1.0, 0.0], [np.nan, 1.0]], dtype=np.float32), 1, 0)
