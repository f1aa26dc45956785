from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from synalign_agent.errors import InputError
from synalign_agent.toolkit.table import Table, read_table

RECORDS: list[dict[str, Any]] = [
    {"text": "one", "label": "a", "id": 7},
    {"text": " ", "label": "a", "id": 8},
    {"text": "two", "label": None, "id": 9},
    {"text": "one", "label": "a", "id": 10},
    {"text": "one", "label": "b", "id": 11},
    {"text": "three", "label": "b"},
]


def written(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"rows.{kind}"
    frame = pd.DataFrame(RECORDS)
    if kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in RECORDS), encoding="utf-8")
    elif kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def checked(table: Table) -> None:
    assert table.texts == ["one", "one", "three"]
    assert table.labels == ["a", "b", "b"]
    assert table.places.tolist() == [0, 4, 5]
    assert table.left_out == {1: "empty", 2: "unlabelled", 3: "duplicate"}
    assert len(table.frame) == 6 and list(table.frame.columns) == ["text", "label", "id"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_files_of_every_kind_become_the_same_table(tmp_path: Path, kind: str) -> None:
    checked(read_table(str(written(tmp_path, kind)), name="real", label_column="label"))


def test_frames_and_dicts_become_the_same_table() -> None:
    frame = pd.DataFrame(RECORDS, index=[5, 5, 4, 3, 2, 1])
    checked(read_table(frame, name="real", label_column="label"))
    checked(read_table(RECORDS, name="real", label_column="label"))
    checked(read_table(pd.DataFrame(RECORDS).astype({"label": "category"}), name="real", label_column="label"))


def test_texts_alone_are_one_group() -> None:
    table = read_table(["one", "", "two", "one"], name="real", text_column="body")
    assert (table.texts, set(table.labels)) == (["one", "two"], {"all"})
    assert table.frame["body"].tolist() == ["one", "", "two", "one"]


def test_whole_numbers_stay_whole_where_a_field_is_missing() -> None:
    assert read_table(RECORDS, name="real").frame["id"].iloc[0] == 7
    assert isinstance(read_table(RECORDS, name="real").frame["id"].iloc[0], int)


def test_what_was_left_out_is_told() -> None:
    found = read_table(RECORDS, name="real", label_column="label").findings("real")
    assert {finding.details["reason"]: finding.details["count"] for finding in found} == {
        "empty": 1, "unlabelled": 1, "duplicate": 1,
    }  # fmt: skip
    assert {finding.kind for finding in found} == {"rows_left_out"}


def test_labels_can_be_left_out_later() -> None:
    table = read_table(RECORDS, name="real", label_column="label").leaving_out({"b"}, "why")
    assert (table.texts, table.labels, table.places.tolist()) == (["one"], ["a"], [0])
    assert table.left_out[4] == table.left_out[5] == "why" and table.left_out[1] == "empty"


def test_numbers_as_labels_are_labels_in_every_dtype() -> None:
    rows = pd.DataFrame({"text": ["one", "two", "three"], "label": [1, 2, None]})
    assert read_table(rows, name="real", label_column="label").labels == ["1", "2"]


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        (RECORDS, {"text_column": "body"}, r"row 0 \(from 0\): no field `body`; it has 'text', 'label', 'id' \(set text_column"),
        (RECORDS, {"label_column": "class"}, "no field `class`.*label_column"),
        (pd.DataFrame(RECORDS), {"text_column": "id"}, "expected text, found"),
        ([1, 2], {}, "expected a text or a dict, found int"),
        (["", None], {}, "no usable rows"),
        ([], {}, "real: no rows"),
        ({"text": ["one"]}, {}, "got dict"),
        (5, {}, "got int"),
        ("missing.csv", {}, "missing.csv: no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(source: Any, options: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_table(source, name="real", **options)


@pytest.mark.parametrize(("fraction", "least"), [(-0.1, 2), (1.0, 2), (0.2, 1)])
def test_a_split_that_cannot_be_is_refused(fraction: float, least: int) -> None:
    with pytest.raises(InputError, match="holdout_fraction"):
        read_table(RECORDS, name="real").split(fraction, least, 0)
