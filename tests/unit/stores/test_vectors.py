"""Vectors in memory: added, searched, and grown by several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from support.vectors import D, names, random_rows

from synalign_agent.errors import InputError, SessionError
from synalign_agent.stores.clusters import kmeans_medoids
from synalign_agent.stores.nearest import nearest_available
from synalign_agent.stores.unit_vectors import unit_float32
from synalign_agent.stores.vectors import VectorStore


def normalised(X: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = X.astype(np.float64)
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def test_vectors_come_back_with_norm_one_in_the_order_asked_for(store: VectorStore, X: NDArray[np.float32]) -> None:
    found = store.get(["id7", "id0", "id7"])
    assert found == pytest.approx(normalised(X)[[7, 0, 7]], abs=1e-6)
    assert found.dtype == np.float32 and len(store) == 50 and store.ids == names(50)


def test_an_empty_store_answers(X: NDArray[np.float32]) -> None:
    empty = VectorStore("encoder", D)
    empty.add([], np.empty((0, D), dtype=np.float32))
    assert len(empty) == 0 and empty.get([]).shape == (0, D)
    rows, similarities = empty.search(X, 3)
    assert rows.shape == similarities.shape == (50, 0)


def test_an_unknown_id_is_a_key_error(store: VectorStore) -> None:
    with pytest.raises(KeyError):
        store.get(["id0", "nobody"])


def test_ids_that_are_there_are_skipped(store: VectorStore, X: NDArray[np.float32]) -> None:
    store.add(["id3", "new", "id4"], random_rows(3, seed=1))
    assert len(store) == 51 and store.ids[-1] == "new"
    assert store.get(["id3"]) == pytest.approx(normalised(X)[[3]], abs=1e-6)
    assert store.get(["new"]) == pytest.approx(normalised(random_rows(3, seed=1))[[1]], abs=1e-6)


def test_an_id_given_twice_at_once_is_refused(store: VectorStore, X: NDArray[np.float32]) -> None:
    with pytest.raises(InputError, match="'b' is given to two"):
        store.add(["a", "b", "b"], X[:3])
    with pytest.raises(InputError, match="2 ids for 3 vectors"):
        store.add(["a", "b"], X[:3])
    assert len(store) == 50


@pytest.mark.parametrize(("value", "what"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "all zeros")])
def test_vectors_without_a_direction_are_refused_by_row_and_change_nothing(
    store: VectorStore, value: float, what: str
) -> None:
    wrong = random_rows(3, seed=1)
    wrong[2] = value
    with pytest.raises(InputError, match=f"Row 2 of the vectors .*{what}"):
        store.add(["a", "b", "c"], wrong)
    assert len(store) == 50 and "a" not in store
    store.add(["a"], random_rows(1, seed=1))
    assert store.get(["a"]) == pytest.approx(normalised(random_rows(1, seed=1)), abs=1e-6)
    with pytest.raises(InputError, match=what):
        store.search(wrong, 1)
    with pytest.raises(SessionError, match="dimensions"):
        store.search(random_rows(2, d=D + 1), 1)


def test_the_matrix_is_a_read_only_view_that_outlives_growth(store: VectorStore, X: NDArray[np.float32]) -> None:
    before = store.matrix
    assert np.shares_memory(before, store.matrix) and before == pytest.approx(normalised(X), abs=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        before[0] = 0
    store.add([f"more{n}" for n in range(200)], random_rows(200, seed=8))
    assert before.shape == (50, D) and (before == store.matrix[:50]).all() and store.matrix.shape == (250, D)


def test_other_dimensions_are_refused_and_change_nothing(store: VectorStore) -> None:
    with pytest.raises(SessionError, match=f"{D + 1} dimensions"):
        store.add(["new"], random_rows(1, d=D + 1))
    assert len(store) == 50 and store.ids == names(50)


@pytest.mark.parametrize("k", [1, 5, 50, 80])
def test_search_is_the_exact_nearest_by_cosine(store: VectorStore, X: NDArray[np.float32], k: int) -> None:
    queries = random_rows(12, seed=3) * 7
    rows, similarities = store.search(queries, k)
    cosines = normalised(queries) @ normalised(X).T
    expected = np.argsort(-cosines, axis=1)[:, :k]
    assert rows.shape == (12, min(k, 50))
    assert (rows == expected).all()
    assert similarities == pytest.approx(np.take_along_axis(cosines, expected, axis=1), abs=1e-5)


@pytest.mark.parametrize("k", [1, 4, 30])
def test_search_among_some_rows_finds_no_others(store: VectorStore, X: NDArray[np.float32], k: int) -> None:
    among = np.array([40, 3, 17, 22, 8, 31, 5], dtype=np.int64)
    queries = random_rows(9, seed=4)
    rows, similarities = store.search(queries, k, among=among)
    cosines = normalised(queries) @ normalised(X)[among].T
    expected = among[np.argsort(-cosines, axis=1)[:, :k]]
    assert rows.shape == similarities.shape == (9, min(k, 7))
    assert (rows == expected).all()


def test_search_among_none_and_for_nothing(store: VectorStore, X: NDArray[np.float32]) -> None:
    rows, similarities = store.search(X[:4], 3, among=np.empty(0, dtype=np.int64))
    assert rows.shape == similarities.shape == (4, 0)
    rows, _ = store.search(np.empty((0, D), dtype=np.float32), 3)
    assert len(rows) == 0


def test_the_callers_arrays_are_not_changed() -> None:
    X = random_rows(30) * 5
    before = X.copy()
    made = VectorStore("encoder", D)
    made.add(names(30), X)
    made.search(X, 3)
    nearest_available(X)(0, 3, np.ones(30, dtype=bool))
    kmeans_medoids(X, 4, 0)
    unit_float32(X)
    assert (before == X).all()
    made.get(["id0"])[:] = 0
    assert made.get(["id0"]) == pytest.approx(normalised(X)[[0]], abs=1e-6)


def test_a_view_with_gaps_is_stored_right(X: NDArray[np.float32]) -> None:
    wide = np.repeat(X, 2, axis=1)[::-1]
    made = VectorStore("encoder", D)
    made.add(names(50), wide[:, ::2])
    assert made.get(["id0"]) == pytest.approx(normalised(X)[[49]], abs=1e-6)


@pytest.mark.parametrize("exact_rows", [200, 100_000])
def test_a_store_is_searched_while_another_thread_adds(exact_rows: int) -> None:
    X = random_rows(3000, d=16)
    store = VectorStore("encoder", 16, exact_rows=exact_rows)
    store.add(names(100), X[:100])

    def grow() -> None:
        for start in range(100, 3000, 50):
            store.add([f"id{row}" for row in range(start, start + 50)], X[start : start + 50])

    unit = normalised(X)
    queries = random_rows(20, seed=6, d=16)
    with ThreadPoolExecutor(1) as threads:
        growing = threads.submit(grow)
        n_searches = 0
        while not growing.done() or n_searches < 3:
            before = len(store)
            rows, similarities = store.search(queries, 5)
            assert rows.min() >= 0 and rows.max() < len(store) and len(store.matrix) >= before
            assert similarities == pytest.approx(np.einsum("qd,qkd->qk", normalised(queries), unit[rows]), abs=1e-5)
            assert store.get(store.ids[-1:]).shape == (1, 16)
            n_searches += 1
        growing.result()
    assert len(store) == 3000 and store.matrix == pytest.approx(unit, abs=1e-6)
    assert store.measured_recall() > 0.95


def test_first_rows_are_bit_for_bit_the_same_and_grow_on_their_own() -> None:
    rng = np.random.default_rng(0)
    whole = VectorStore("m", 8)
    whole.add([str(n) for n in range(10)], rng.normal(size=(10, 8)).astype(np.float32))
    part = whole.first(4)
    assert (part.ids, len(part)) == (["0", "1", "2", "3"], 4)
    assert np.array_equal(part.matrix, whole.matrix[:4])
    part.add(["new"], rng.normal(size=(1, 8)))
    assert (len(part), len(whole)) == (5, 10)
    assert "new" not in whole and "9" not in part
    assert np.array_equal(part.get(["0", "3"]), whole.get(["0", "3"]))
