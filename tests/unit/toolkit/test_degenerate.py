"""Inputs at the edge of what has a meaning: an answer with a finding, or an error that says what to do, never a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from synalign_agent import align, explore
from synalign_agent.errors import InputError
from synalign_agent.toolkit import Objective, Strategy
from synalign_agent.toolkit.align import AlignResult

OBJECTIVES, STRATEGIES = get_args(Objective), get_args(Strategy)


def texts(n: int, word: str = "real") -> list[str]:
    return [f"{word} {number}" for number in range(n)]


def labelled(n: int, word: str = "real") -> list[dict[str, str]]:
    return [{"text": text, "label": "ab"[place % 2]} for place, text in enumerate(texts(n, word))]


def vectors(n: int, d: int = 4, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, d))


def aligned(n_real: int, n_pool: int, n_samples: int, X: Any = None, Z: Any = None, **options: Any) -> AlignResult:
    X = vectors(n_real) if X is None else X
    Z = vectors(n_pool, seed=1) if Z is None else Z
    return align(
        texts(n_real), texts(n_pool, "synthetic"), n_samples=n_samples, embeddings=X, synthetic_embeddings=Z, **options
    )


def kinds(report: dict[str, Any]) -> list[str]:
    return [finding["kind"] for finding in report["findings"]]


def test_one_real_row_can_be_shown_but_not_matched() -> None:
    found = explore(["only"], 3, embeddings=vectors(1))
    assert found.rows["row"].tolist() == [0] and kinds(found.report) == ["fewer_rows_than_asked"]
    with pytest.raises(InputError, match="real: a single real row: nothing can be held against one row; add rows"):
        aligned(1, 5, 2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_that_are_all_equal_are_explored_with_a_finding(strategy: Any) -> None:
    found = explore(texts(50), 4, strategy=strategy, embeddings=np.ones((50, 4)))
    assert "real_rows_alike" in kinds(found.report)
    assert 1 <= found.report["n_selected"] <= 4 and found.report["coverage"]["explored"] == 1.0
    assert "real_rows_alike" not in kinds(explore(texts(50), 4, strategy=strategy, embeddings=vectors(50)).report)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rows_that_are_all_equal_are_matched_with_a_finding(objective: Any) -> None:
    found = aligned(50, 30, 6, X=np.ones((50, 4)), Z=np.ones((30, 4)), objective=objective)
    assert "real_rows_alike" in kinds(found.report) and found.report["n_selected"] == 6
    assert found.report["mmd2"]["aligned"] == pytest.approx(0.0, abs=1e-6)
    other = aligned(50, 30, 6, X=np.ones((50, 4)), objective=objective).report
    assert other["mmd2"]["aligned"] > other["mmd2"]["floor"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_dimension_has_two_directions_and_their_shares_are_matched(objective: Any) -> None:
    # Of the real rows 3 in 4 are positive, of the pool 1 in 4, in an order without a period.
    X = np.where(np.arange(80) % 4 < 3, 2.0, -1.0)[:, None]
    Z = np.where(np.arange(80) < 20, 3.0, -5.0)[:, None]
    found = aligned(80, 80, 20, X=X, Z=Z, objective=objective, holdout_fraction=0)
    positive = found.rows["selected"].to_numpy()[Z[:, 0] > 0].sum()
    assert found.report["n_selected"] == 20 and np.isfinite(list(found.report["mmd2"].values())).all()
    if objective != "none":
        assert positive == pytest.approx(15, abs=3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_dimension_is_explored(strategy: Any) -> None:
    found = explore(texts(60), 2, strategy=strategy, embeddings=vectors(60, 1))
    # Two centres of k-means may have one medoid.
    assert found.report["n_selected"] == found.rows["row"].nunique()
    assert found.report["n_selected"] == 2 or strategy == "kmeans"


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_weights_that_are_all_at_the_cap_take_every_row(objective: Any) -> None:
    found = aligned(60, 20, 20, objective=objective)
    assert found.rows["weight"].to_numpy() == pytest.approx(np.full(20, 1 / 20), rel=1e-6)
    assert found.rows["copies"].tolist() == [1] * 20 and found.report["ess"] == pytest.approx(20)
    assert kinds(found.report) == ["no_choice"]


def test_copies_are_a_choice() -> None:
    assert "no_choice" not in kinds(aligned(60, 20, 20, max_copies=3).report)
    assert "no_choice" in kinds(aligned(60, 20, 60, max_copies=3).report)


def test_labels_on_one_side_are_no_labels_unless_they_are_asked_for() -> None:
    X, Z = vectors(60), vectors(40, seed=1)
    sides: list[tuple[Any, Any, str]] = [
        (texts(60), labelled(40, "synthetic"), "real"), (labelled(60), texts(40, "synthetic"), "synthetic"),
    ]  # fmt: skip
    for real, pool, without in sides:
        found = align(real, pool, n_samples=5, embeddings=X, synthetic_embeddings=Z)
        assert found.report["per_label"].keys() == {"all"} and found.report["findings"] == []
        with pytest.raises(InputError, match=f"{without}: row 0 .*no field `label`"):
            align(real, pool, n_samples=5, embeddings=X, synthetic_embeddings=Z, label_column="label")


def test_an_effective_sample_size_that_no_weights_have_is_refused_with_the_largest_one() -> None:
    for wrong in (0.0, 21.0, float("nan")):
        with pytest.raises(InputError, match="min_ess must be above 0 and, with these 20 rows, at most 20, got"):
            aligned(60, 20, 5, min_ess=wrong)
    assert aligned(60, 20, 5, min_ess=20.0).report["ess"] == pytest.approx(20.0, rel=1e-6)


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    else:
        sign = "," if ending == "csv" else "\t"
        path.write_text(f"\ufefftext{sign}note{sign}text\na{sign}b{sign}c\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"rows\.{ending}: more than one column is called 'text'; rename or remove"):
        explore(path, 1, embeddings=vectors(1))


def test_two_columns_of_one_name_are_refused_in_a_frame() -> None:
    with pytest.raises(InputError, match="real: more than one column is called 'text'"):
        explore(pd.DataFrame([["a", "b"]], columns=["text", "text"]), 1, embeddings=vectors(1))


@pytest.mark.parametrize(("name", "content"), [("rows.jsonl", ""), ("rows.csv", ""), ("rows.csv", "text,label\n")])
def test_an_empty_file_is_called_empty(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=rf"{name}: no rows$"):
        explore(tmp_path / name, 1, embeddings=vectors(1))


def test_fields_that_semicolons_separate_are_guessed(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text;label\na;b\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"has 'text;label' .*are its fields separated by commas"):
        explore(tmp_path / "rows.csv", 1, embeddings=vectors(1))
