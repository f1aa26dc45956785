"""Inverted lists against exact search: recall is measured, similarities are exact, growth is not noticed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from synalign_agent.stores import vector_index
from synalign_agent.stores.unit_vectors import unit_float32
from synalign_agent.stores.vector_index import InvertedLists, exact_search, measured_recall
from synalign_agent.stores.vectors import VectorStore

D = 32


def grouped_rows(n: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows around 60 centres, as texts are around topics."""
    rng = np.random.default_rng((9, seed))
    centres = np.random.default_rng(9).normal(size=(60, D))
    return unit_float32(centres[rng.integers(60, size=n)] + 0.6 * rng.normal(size=(n, D)))


def names(first: int, last: int) -> list[str]:
    return [f"id{n}" for n in range(first, last)]


@pytest.mark.parametrize("block", [3, 50, 65_536])
@pytest.mark.parametrize("k", [1, 5, 120])
def test_exact_search_is_a_full_sort(block: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_index, "_SEARCH_BLOCK", block)
    X, queries = grouped_rows(120), grouped_rows(9, seed=1)
    cosines = queries @ X.T
    rows, similarities = exact_search(X, queries, k)
    assert (rows == np.argsort(-cosines, axis=1)[:, :k]).all()
    assert similarities == pytest.approx(np.take_along_axis(cosines, rows, axis=1), abs=1e-6)
    among = np.array([2, 3, 50, 51, 52, 119])
    rows, _ = exact_search(X, queries, min(k, 6), among)
    assert (rows == among[np.argsort(-cosines[:, among], axis=1)[:, : min(k, 6)]]).all()


def test_of_equally_near_rows_the_lowest_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_index, "_SEARCH_BLOCK", 10)
    X = np.repeat(grouped_rows(2), 25, axis=0)
    rows, _ = exact_search(X, X[:1], 25)
    assert rows[0].tolist() == list(range(25))


def test_the_measured_recall_is_the_recall() -> None:
    X = grouped_rows(4000)
    lists = InvertedLists.build(X)
    queries = grouped_rows(200, seed=1)
    exact, _ = exact_search(X, queries, 10)
    for n_probe in (1, 4, 64):
        lists.n_probe = n_probe
        found, similarities = lists.search(X, queries, 10)
        share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
        assert measured_recall(X, lists.search, 10, queries=queries) == pytest.approx(share, abs=1e-3)
        assert similarities == pytest.approx(np.einsum("qd,qkd->qk", queries, X[found]), abs=1e-6)
    assert share > 0.99 > 0.95 > measured_recall(X, _one_list(lists), 10)


def _one_list(lists: InvertedLists) -> object:
    lists.n_probe = 1
    return lists.search


def test_the_lists_are_the_same_for_the_same_rows() -> None:
    X = grouped_rows(3000)
    one, two = InvertedLists.build(X), InvertedLists.build(X)
    one.n_probe = two.n_probe = 2
    queries = grouped_rows(100, seed=1)
    assert all((a == b).all() for a, b in zip(one.search(X, queries, 5), two.search(X, queries, 5), strict=True))


def test_few_allowed_rows_in_the_lists_read_are_searched_exactly() -> None:
    X = grouped_rows(3000)
    lists = InvertedLists.build(X)
    lists.n_probe = 1
    among = np.arange(0, 3000, 100)
    rows, similarities = lists.search(X, X[:50], 20, among)
    expected, exact = exact_search(X, X[:50], 20, among)
    assert np.isin(rows, among).all() and (rows == expected).mean() > 0.9 and np.isfinite(similarities).all()
    assert all(len(set(row)) == 20 for row in rows.tolist())
    assert (similarities <= exact + 1e-6).all()


def test_a_store_passes_the_threshold_while_it_grows(tmp_path: Path) -> None:
    X = grouped_rows(6000)
    store = VectorStore("encoder", D, exact_rows=1000)
    sizes = [0, 900, 1100, 1500, 2300, 6000]
    for first, last in itertools.pairwise(sizes):
        store.add(names(first, last), X[first:last])
        assert store.approximate == (last > 1000)
        assert len(store) == last and store.recall >= 0.99
        rows, similarities = store.search(X[:last:50], 1)
        assert (rows[:, 0] == np.arange(0, last, 50)).mean() > 0.99 and similarities == pytest.approx(1, abs=1e-5)
    assert store.measured_recall(5, 200) > 0.97

    store.save(tmp_path / "real")
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".lists", ".npy"]
    described = json.loads((tmp_path / "real.json").read_text(encoding="utf-8"))
    assert described["lists"]["recall"] == store.recall
    loaded = VectorStore.load(tmp_path / "real", model_id="encoder", exact_rows=1000)
    assert loaded is not None and loaded.approximate and loaded.recall == store.recall
    queries = grouped_rows(40, seed=2)
    for among in (None, np.arange(0, 6000, 2), np.array([5, 1, 3000])):
        ours, theirs = store.search(queries, 3, among), loaded.search(queries, 3, among)
        assert (ours[0] == theirs[0]).all() and (ours[1] == theirs[1]).all()

    (tmp_path / described["lists"]["file"]).write_bytes(b"damaged")
    again = VectorStore.load(tmp_path / "real", model_id="encoder", exact_rows=1000)
    assert again is not None and again.approximate and again.recall >= 0.99


def test_few_rows_of_a_large_store_are_searched_exactly() -> None:
    X = grouped_rows(3000)
    store = VectorStore("encoder", D, exact_rows=1000)
    store.add(names(0, 3000), X)
    among = np.arange(999, -1, -1)
    rows, _ = store.search(grouped_rows(50, seed=3), 8, among)
    assert (rows == exact_search(X, grouped_rows(50, seed=3), 8, np.arange(1000))[0]).all()
