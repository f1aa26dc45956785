from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synalign_agent.errors import InputError
from synalign_agent.toolkit import vectors
from synalign_agent.toolkit.table import Table, read_table
from synalign_agent.toolkit.vectors import given


@pytest.fixture
def table() -> Table:
    """Five rows of which the second and the fourth are left out."""
    return read_table(["one", "", "two", "one", "three"], name="real")


def rows(dtype: Any = np.float32) -> Any:
    return (3.0 * np.random.default_rng(0).normal(size=(5, 4))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("block_rows", [2, 100])
def test_the_usable_rows_come_back_as_unit_vectors(
    table: Table, dtype: Any, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "_BLOCK_ROWS", block_rows)
    X = rows(dtype)
    expected = X[[0, 2, 4]].astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = given(X, table, "embeddings")
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_file_is_read_like_an_array_and_not_changed(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, rows())
    before = path.read_bytes()
    assert (given(path, table, "embeddings") == given(rows(), table, "embeddings")).all()
    assert (given(str(path), table, "embeddings") == given(np.load(path, mmap_mode="r"), table, "embeddings")).all()
    assert path.read_bytes() == before


def test_the_count_is_that_of_the_input_and_both_counts_are_told(table: Table) -> None:
    with pytest.raises(InputError, match="embeddings: 3 vectors for the 5 rows of real"):
        given(rows()[:3], table, "embeddings")


@pytest.mark.parametrize(("value", "says"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "all zeros")])
def test_vectors_without_a_direction_are_named_by_their_row(table: Table, value: float, says: str) -> None:
    X = rows()
    X[[2, 4]] = value
    with pytest.raises(InputError, match=f"embeddings: the vectors of 2 rows are {says}: rows 2, 4, counted from 0"):
        given(X, table, "embeddings")


def test_vectors_of_rows_that_are_left_out_may_be_anything(table: Table) -> None:
    X = rows()
    X[1], X[3] = np.nan, 0.0
    assert len(given(X, table, "embeddings")) == 3


@pytest.mark.parametrize(
    ("X", "says"),
    [
        (np.ones(5), r"shape \(5,\)"),
        (np.ones((5, 0)), r"shape \(5, 0\)"),
        (np.ones((5, 2), dtype=int), "floating-point numbers, found int64"),
        ("missing.npy", "missing.npy: no such file"),
    ],
)
def test_what_is_no_matrix_of_vectors_is_refused(table: Table, X: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        given(X, table, "embeddings")


def test_files_that_are_no_single_array_are_refused(table: Table, tmp_path: Path) -> None:
    np.savez(tmp_path / "several.npz", a=rows(), b=rows())
    (tmp_path / "text.npy").write_text("no array", encoding="utf-8")
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="several arrays"):
        given(tmp_path / "several.npz", table, "embeddings")
    for name in ("text.npy", "objects.npy"):
        with pytest.raises(InputError, match=r"not readable as a \.npy array"):
            given(tmp_path / name, table, "embeddings")
