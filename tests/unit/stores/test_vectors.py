from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from synalign_agent.errors import InputError, SessionError
from synalign_agent.stores import vectors as vectors_module
from synalign_agent.stores.clusters import kmeans_medoids
from synalign_agent.stores.nearest import nearest_available
from synalign_agent.stores.unit_vectors import unit_float32
from synalign_agent.stores.vectors import VectorStore

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


def vectors_file(path: Path) -> Path:
    """Return the file with the vectors of a store that was saved at `path`."""
    (file,) = path.parent.glob(f"{path.name}.*.npy")
    return file


def test_a_saved_store_loads_as_it_was(store: VectorStore, tmp_path: Path) -> None:
    path = tmp_path / "vectors" / "real"
    store.save(path)
    found = VectorStore.load(path, model_id="encoder")
    assert found is not None
    assert (found.ids, found.dimension, found.model_id) == (store.ids, D, "encoder")
    assert (found.get(store.ids) == store.get(store.ids)).all()
    found.add(["new"], random_rows(1, seed=9))
    for _ in range(2):
        found.save(path)
        again = VectorStore.load(path, model_id="encoder")
        assert again is not None and len(again) == 51 and again.ids[-1] == "new"
        assert sorted(file.name for file in path.parent.iterdir()) == sorted((vectors_file(path).name, "real.json"))


def test_a_store_of_another_model_is_not_loaded(store: VectorStore, tmp_path: Path) -> None:
    store.save(tmp_path / "real")
    assert VectorStore.load(tmp_path / "real", model_id="another") is None


@pytest.mark.parametrize("missing", ["vectors", "description"])
def test_a_missing_part_is_not_loaded(store: VectorStore, tmp_path: Path, missing: str) -> None:
    path = tmp_path / "real"
    store.save(path)
    (vectors_file(path) if missing == "vectors" else tmp_path / "real.json").unlink()
    assert VectorStore.load(path, model_id="encoder") is None


@pytest.mark.parametrize("keep", [0, 3, 20, 45, 100, -1])
def test_cut_vectors_are_not_loaded(store: VectorStore, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "real"
    store.save(path)
    file = vectors_file(path)
    file.write_bytes(file.read_bytes()[:keep])
    assert VectorStore.load(path, model_id="encoder") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", "{}"])
def test_a_damaged_description_is_not_loaded(store: VectorStore, tmp_path: Path, text: str) -> None:
    path = tmp_path / "real"
    store.save(path)
    (tmp_path / "real.json").write_text(text, encoding="utf-8")
    assert VectorStore.load(path, model_id="encoder") is None
    store.save(path)
    assert VectorStore.load(path, model_id="encoder") is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [("ids", names(49)), ("dimension", D + 1), ("ids", None), ("dimension", None), ("model_id", None), ("vectors", None),
     ("vectors", {"file": "/", "sha256": ""}), ("vectors", {"file": "other.npy", "sha256": ""})],
)  # fmt: skip
def test_a_description_of_something_else_is_not_loaded(
    store: VectorStore, tmp_path: Path, field: str, value: object
) -> None:
    path = tmp_path / "real"
    store.save(path)
    described = json.loads((tmp_path / "real.json").read_text(encoding="utf-8"))
    (tmp_path / "real.json").write_text(json.dumps(described | {field: value}), encoding="utf-8")
    assert VectorStore.load(path, model_id="encoder") is None
    del described[field]
    (tmp_path / "real.json").write_text(json.dumps(described), encoding="utf-8")
    assert VectorStore.load(path, model_id="encoder") is None


def test_garbage_is_not_loaded(store: VectorStore, tmp_path: Path) -> None:
    path = tmp_path / "real"
    store.save(path)
    file = vectors_file(path)
    size = file.stat().st_size
    for content in (b"\xff" * size, b"\x00" * size, b"\x93NUMPY" + b"\xff" * (size - 6)):
        file.write_bytes(content)
        described = json.loads((tmp_path / "real.json").read_text(encoding="utf-8"))
        assert VectorStore.load(path, model_id="encoder") is None
        # Even a description that vouches for it does not make it vectors.
        described["vectors"]["sha256"] = hashlib.sha256(content).hexdigest()
        (tmp_path / "real.json").write_text(json.dumps(described), encoding="utf-8")
        assert VectorStore.load(path, model_id="encoder") is None


def test_a_large_store_is_mapped_and_can_still_grow(
    store: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "MAPPED_BYTES", 1)
    path = tmp_path / "real"
    store.save(path)
    found = VectorStore.load(path, model_id="encoder")
    assert found is not None and isinstance(found.matrix, np.memmap)
    queries = random_rows(5, seed=2)
    assert (found.search(queries, 4)[0] == store.search(queries, 4)[0]).all()
    found.add(["new"], queries[:1])
    assert found.search(queries[:1], 1)[0][0, 0] == 50
    found.save(path)
    again = VectorStore.load(path, model_id="encoder")
    assert again is not None and again.ids[-1] == "new" and (again.matrix == found.matrix).all()


class Killed(BaseException):
    """What no handler in a store catches, as it would not catch a signal."""


@pytest.mark.parametrize("exact_rows", [10, 1000])
def test_a_save_that_dies_at_any_moment_leaves_the_old_store_or_the_new(
    X: NDArray[np.float32], tmp_path: Path, exact_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "real"
    ids, steps_survived, outcomes = names(40), 0, []
    # Every call through which a save changes the disk is a moment to die at, before it and after it.
    while not outcomes or outcomes[-1] != "completed":
        assert steps_survived < 50
        store = VectorStore("encoder", D, exact_rows=exact_rows)
        store.add(ids, X[:40])
        store.save(path)
        store.add(["new"], X[40:41])
        with monkeypatch.context() as patch:
            left = steps_survived

            def step(original: Callable[..., Any]) -> Callable[..., Any]:
                def dying(*arguments: Any, **options: Any) -> Any:
                    nonlocal left
                    for moment in ("before", "after"):
                        if left == 0:
                            raise Killed(moment)
                        left -= 1
                        if moment == "before":
                            result = original(*arguments, **options)
                    return result

                return dying

            for owner, name in ((os, "replace"), (np, "save"), (Path, "write_text"), (Path, "unlink")):
                patch.setattr(owner, name, step(getattr(owner, name)))
            try:
                store.save(path)
                outcomes.append("completed")
            except Killed:
                pass
        found = VectorStore.load(path, model_id="encoder", exact_rows=exact_rows)
        assert found is not None and len(found) in (40, 41)
        assert (found.matrix == store.matrix[: len(found)]).all() and found.approximate == store.approximate
        if not outcomes or outcomes[-1] != "completed":
            outcomes.append("new" if len(found) == 41 else "old")
        steps_survived += 1
    assert outcomes[0] == "old" and outcomes[-2:] == ["new", "completed"]
    assert outcomes == sorted(outcomes, key=["old", "new", "completed"].index)


@pytest.mark.slow
def test_a_killed_process_leaves_a_store_that_loads(tmp_path: Path) -> None:
    script = """
import sys, pathlib, numpy as np
from synalign_agent.stores.vectors import VectorStore
store, rng = VectorStore("encoder", 64), np.random.default_rng(0)
print("ready", flush=True)
for number in range(100_000):
    store.add([f"id{number}-{row}" for row in range(200)], rng.normal(size=(200, 64)).astype(np.float32))
    store.save(pathlib.Path(sys.argv[1]))
    print(len(store), flush=True)
"""
    path, rng = tmp_path / "real", np.random.default_rng(5)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        saved = 0
        for line in itertools.islice(process.stdout, 1, 6):
            saved = int(line)
        time.sleep(float(rng.uniform(0, 0.02)))
        process.kill()
        process.communicate()
        found = VectorStore.load(path, model_id="encoder")
        assert found is not None and len(found) >= saved == 1000
        expected = np.random.default_rng(0).normal(size=(len(found), 64)).astype(np.float32)
        assert found.matrix == pytest.approx(unit_float32(expected), abs=1e-6)


def test_what_dead_processes_left_is_removed_when_it_is_old(store: VectorStore, tmp_path: Path) -> None:
    left = [tmp_path / name for name in ("real.123.tmp", f"real.{'0' * 16}.npy", f"real.{'1' * 16}.lists")]
    others = [tmp_path / name for name in ("real.txt", "pool.json", f"pool.{'0' * 16}.npy")]
    for file in left + others:
        file.write_bytes(b"x")
    store.save(tmp_path / "real")
    assert all(file.exists() for file in left)  # another process may be about to name them
    for file in left + others:
        os.utime(file, (0, 0))
    store.save(tmp_path / "real")
    assert not any(file.exists() for file in left) and all(file.exists() for file in others)
    assert VectorStore.load(tmp_path / "real", model_id="encoder") is not None


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
