"""All near duplicates, against the full matrix of cosines."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from synalign_agent.errors import InputError
from synalign_agent.stores import near_duplicates as module
from synalign_agent.stores.near_duplicates import near_duplicates


def rows_with_copies(n: int = 400, d: int = 24) -> NDArray[np.float32]:
    """The last third are near copies of the first rows, from very near to far."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, d))
    third = n // 3
    X[-third:] = X[:third] + np.linspace(0.01, 0.8, third)[:, None] * rng.normal(size=(third, d))
    unit: NDArray[np.float32] = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    return unit


def pairs_by_definition(X: NDArray[np.float32], threshold: float) -> set[tuple[int, int]]:
    cosines = X.astype(np.float64) @ X.astype(np.float64).T
    return {(i, j) for j in range(len(X)) for i in range(j) if cosines[i, j] >= threshold and (X[i] != X[j]).any()}


@pytest.mark.parametrize("threshold", [0.6, 0.85, 0.95])
@pytest.mark.parametrize("block", [7, 64, 4096])
def test_exact_pairs_are_those_of_the_definition(threshold: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    X = rows_with_copies()
    found = near_duplicates(X, threshold)
    assert {(a, b) for a, b in found.pairs.tolist()} == pairs_by_definition(X, threshold)
    assert len(found.pairs) == len({tuple(pair) for pair in found.pairs.tolist()}) and found.recall == 1
    assert found.cosines == pytest.approx(np.einsum("ij,ij->i", X[found.pairs[:, 0]], X[found.pairs[:, 1]]), abs=1e-6)
    order = np.lexsort((found.pairs[:, 0], found.pairs[:, 1]))
    assert (order == np.arange(len(order))).all()


@pytest.mark.parametrize("threshold", [0.8, 0.95])
def test_cells_find_nearly_all_pairs_and_no_others(threshold: float) -> None:
    X = rows_with_copies(3000)
    truth = pairs_by_definition(X, threshold)
    found = near_duplicates(X, threshold, exact_rows=100)
    pairs = {(a, b) for a, b in found.pairs.tolist()}
    assert pairs <= truth and len(pairs) == len(found.pairs)
    assert len(pairs) / len(truth) >= 0.97 and 0.9 < found.recall <= 1
    again = near_duplicates(X, threshold, exact_rows=100)
    assert (again.pairs == found.pairs).all() and again.recall == found.recall


@pytest.mark.parametrize("exact_rows", [10, 1000])
def test_equal_rows_are_paired_with_their_first_only(exact_rows: int) -> None:
    X = rows_with_copies(400)
    X[50:150] = X[20]
    found = near_duplicates(X, 0.9, exact_rows=exact_rows)
    assert (found.equal_to[50:150] == 20).all() and found.equal_to[20] == 20 and found.equal_to[49] == 49
    assert not np.isin(found.pairs, np.arange(50, 150)).any()
    assert not found.kept()[50:150].any()


def test_the_first_stays_and_what_stays_is_apart() -> None:
    X = rows_with_copies()
    X[399] = X[0]
    kept = near_duplicates(X, 0.9).kept()
    cosines = X @ X.T
    for row in range(400):
        earlier = [other for other in range(row) if kept[other] and cosines[other, row] >= 0.9]
        assert kept[row] == (not earlier)


def test_vectors_of_any_length_and_precision_count_by_direction() -> None:
    X = rows_with_copies()
    scaled = X.astype(np.float64) * np.random.default_rng(0).uniform(0.1, 50, (400, 1))
    assert (near_duplicates(scaled, 0.9).pairs == near_duplicates(X, 0.9).pairs).all()
    doubled = near_duplicates(np.array([[1, 2], [2, 4], [1, 0]], dtype=np.float32), 1.0)
    assert doubled.pairs.tolist() == [[0, 1]]


def test_what_cannot_be_answered_is_refused() -> None:
    X = rows_with_copies()
    for threshold in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"\(0, 1\]"):
            near_duplicates(X, threshold)
    with pytest.raises(InputError, match="raise the threshold"):
        near_duplicates(X, 0.01, max_pairs=100)
    X[5] = np.nan
    with pytest.raises(InputError, match="Row 5"):
        near_duplicates(X, 0.9)


def test_no_rows_have_no_pairs() -> None:
    found = near_duplicates(np.empty((0, 4), dtype=np.float32), 0.9)
    assert found.pairs.shape == (0, 2) and found.kept().shape == (0,)
