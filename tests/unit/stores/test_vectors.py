from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from synalign_agent.errors import SessionError
from synalign_agent.stores.vectors import VectorStore, kmeans_medoids, nearest_available, unit_float32

D = 8


def random_rows(n: int, seed: int = 0, d: int = D) -> NDArray[np.float32]:
    return np.random.default_rng((42, n, seed)).normal(size=(n, d)).astype(np.float32)


def normalised(X: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = X.astype(np.float64)
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def names(n: int) -> list[str]:
    return [f"id{number}" for number in range(n)]


@pytest.fixture
def X() -> NDArray[np.float32]:
    return random_rows(50)


@pytest.fixture
def store(X: NDArray[np.float32]) -> VectorStore:
    made = VectorStore("encoder", D)
    made.add(names(50), X)
    return made


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


def test_an_id_given_twice_at_once_is_kept_once(X: NDArray[np.float32]) -> None:
    made = VectorStore("encoder", D)
    made.add(["a", "b", "a"], X[:3])
    assert (len(made), made.ids) == (2, ["a", "b"])
    assert made.get(["a"]) == pytest.approx(normalised(X)[[0]], abs=1e-6)
    rows, _ = made.search(X[:1], 5)
    assert sorted(rows[0].tolist()) == [0, 1]


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


def test_a_saved_store_loads_as_it_was(store: VectorStore, tmp_path: Path) -> None:
    path = tmp_path / "vectors" / "real.faiss"
    store.save(path)
    found = VectorStore.load(path, model_id="encoder")
    assert found is not None
    assert (found.ids, found.dimension, found.model_id) == (store.ids, D, "encoder")
    assert (found.get(store.ids) == store.get(store.ids)).all()
    found.add(["new"], random_rows(1, seed=9))
    found.save(path)
    again = VectorStore.load(path, model_id="encoder")
    assert again is not None and len(again) == 51 and again.ids[-1] == "new"
    assert sorted(file.name for file in path.parent.iterdir()) == ["real.faiss", "real.faiss.json"]


def test_a_store_of_another_model_is_not_loaded(store: VectorStore, tmp_path: Path) -> None:
    store.save(tmp_path / "real.faiss")
    assert VectorStore.load(tmp_path / "real.faiss", model_id="another") is None


@pytest.mark.parametrize("missing", ["real.faiss", "real.faiss.json"])
def test_a_missing_part_is_not_loaded(store: VectorStore, tmp_path: Path, missing: str) -> None:
    store.save(tmp_path / "real.faiss")
    (tmp_path / missing).unlink()
    assert VectorStore.load(tmp_path / "real.faiss", model_id="encoder") is None


@pytest.mark.parametrize("keep", [0, 3, 20, 45, 100, -1])
def test_a_cut_index_is_not_loaded(store: VectorStore, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "real.faiss"
    store.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    assert VectorStore.load(path, model_id="encoder") is None


@pytest.mark.parametrize(
    "description",
    [
        "",
        "{",
        "[]",
        "null",
        "5",
        "{}",
        json.dumps({"model_id": "encoder", "dimension": D, "ids": names(49)}),
        json.dumps({"model_id": "encoder", "dimension": D + 1, "ids": names(50)}),
        json.dumps({"model_id": "encoder", "dimension": D, "ids": None}),
        json.dumps({"model_id": "encoder", "ids": names(50)}),
    ],
)
def test_a_damaged_description_is_not_loaded(store: VectorStore, tmp_path: Path, description: str) -> None:
    path = tmp_path / "real.faiss"
    store.save(path)
    (tmp_path / "real.faiss.json").write_text(description, encoding="utf-8")
    assert VectorStore.load(path, model_id="encoder") is None


def test_garbage_is_not_loaded(store: VectorStore, tmp_path: Path) -> None:
    path = tmp_path / "real.faiss"
    store.save(path)
    size = path.stat().st_size
    for content in (b"\xff" * size, b"\x00" * size, b"IxFI" + b"\xff" * (size - 4), b"IxFI" + b"\x7f" * (size - 4)):
        path.write_bytes(content)
        assert VectorStore.load(path, model_id="encoder") is None


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
