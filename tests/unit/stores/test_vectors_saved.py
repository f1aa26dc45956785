"""Vectors on disk: whole or not at all, whatever happens to the file, the process or the machine."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.vectors import D, names, random_rows

from synalign_agent.stores import vectors as vectors_module
from synalign_agent.stores.unit_vectors import unit_float32
from synalign_agent.stores.vectors import VectorStore


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
