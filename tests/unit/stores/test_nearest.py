"""Nearest available rows are those of the brute-force search of the core."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from synalign_agent.core.explore import exact_neighbours
from synalign_agent.errors import InputError
from synalign_agent.stores import nearest as nearest_module
from synalign_agent.stores.nearest import nearest_available


def random_rows(n: int, seed: int = 0, d: int = 8) -> NDArray[np.float32]:
    return np.random.default_rng((42, n, seed)).normal(size=(n, d)).astype(np.float32)


def normalised(X: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = X.astype(np.float64)
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


@pytest.mark.parametrize("seed", range(5))
def test_nearest_available_agrees_with_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = random_rows(40, seed) * 3
    neighbours = nearest_available(X)
    cosines = normalised(X) @ normalised(X).T
    for row in range(40):
        available = rng.random(40) < 0.5
        k = int(rng.integers(1, 12))
        allowed = np.flatnonzero(available & (np.arange(40) != row))
        expected = allowed[np.argsort(-cosines[row, allowed])][:k]
        assert neighbours(row, k, available).tolist() == expected.tolist()


def test_nearest_available_with_nothing_available() -> None:
    neighbours = nearest_available(random_rows(5))
    assert neighbours(2, 3, np.zeros(5, dtype=bool)).tolist() == []
    assert neighbours(2, 3, np.arange(5) == 2).tolist() == []


def test_nearest_available_knows_a_row_from_its_copies() -> None:
    X = np.repeat(random_rows(1), 4, axis=0)
    found = nearest_available(X)(1, 10, np.ones(4, dtype=bool))
    assert sorted(found.tolist()) == [0, 2, 3]


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make small inputs take the way of large ones."""
    monkeypatch.setattr(nearest_module, "_BOUNDED_ROWS", 1)
    monkeypatch.setattr(nearest_module, "_GROUPS", 16)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decay", [0.0, 0.5, 3.0])
def test_bounds_never_change_the_answer(dtype: type, decay: float) -> None:
    rng = np.random.default_rng(7)
    # From directions that are all alike, where bounds are useless, to a few that hold nearly everything.
    X = (rng.normal(size=(600, 32)) * np.exp(-decay * np.arange(32) / 8) * rng.uniform(0.1, 9, (600, 1))).astype(dtype)
    X[300:340] = X[10]
    X[340:380] = 2 * X[11]
    neighbours, exact = nearest_available(X), exact_neighbours(X.astype(np.float64))
    for row in [*range(0, 600, 7), 10, 11, 310, 350]:
        for share in (1.0, 0.3, 0.02, 0.0):
            available = rng.random(600) < share
            k = int(rng.integers(1, 60))
            assert neighbours(row, k, available).tolist() == exact(row, k, available).tolist()


@pytest.mark.usefixtures("bounded")
def test_bounds_are_upper_bounds_and_skip_most_rows() -> None:
    X = (random_rows(2000, d=64) * np.exp(-np.arange(64) / 6)).astype(np.float32)
    norms = np.linalg.norm(X, axis=1)
    bounds = nearest_module._bounding_rows(X, norms)
    cosines = normalised(X) @ normalised(X).T
    slack = bounds.astype(np.float64) @ bounds.T - cosines
    assert bounds.shape == (2000, 16) and slack.min() > -1e-6
    assert np.median(slack) < 0.05


@pytest.mark.parametrize("wrong", [np.nan, 0.0])
def test_a_row_without_a_direction_is_named(wrong: float) -> None:
    X = random_rows(6)
    X[4] = wrong
    with pytest.raises(InputError, match="Row 4"):
        nearest_available(X)
    with pytest.raises(InputError, match="shape"):
        nearest_available(X[0])


def test_a_memory_map_is_read_as_it_is(tmp_path: object) -> None:
    X = random_rows(300)
    np.save(f"{tmp_path}/X.npy", X)
    mapped = np.load(f"{tmp_path}/X.npy", mmap_mode="r")
    available = np.ones(300, dtype=bool)
    assert nearest_available(mapped)(3, 5, available).tolist() == nearest_available(X)(3, 5, available).tolist()
