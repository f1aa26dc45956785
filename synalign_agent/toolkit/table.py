"""The rows that a user hands over: a file, a DataFrame, dicts or plain strings, as one table that remembers every row."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synalign_agent.config import DataConfig
from synalign_agent.data.reader import _label, _open, _text
from synalign_agent.data.split import split_rows
from synalign_agent.errors import InputError
from synalign_agent.records import UNLABELLED, RealRow
from synalign_agent.toolkit.findings import Finding, listed

Source = str | Path | pd.DataFrame | Sequence[str] | Sequence[Mapping[str, Any]]
"""A path (JSONL, CSV, Parquet), a Hugging Face dataset id or folder, `example:NAME`, a DataFrame, dicts, or texts."""

_REASONS = {"empty": "with an empty text", "unlabelled": "without a label", "duplicate": "that repeat another row"}


@dataclass(frozen=True)
class Table:
    """All rows as given, and which of them can be used."""

    source: str
    """What errors call it."""
    frame: pd.DataFrame
    """(N, fields), every row and field of the input."""
    texts: list[str]
    """n usable texts."""
    labels: list[str]
    """n labels; all `UNLABELLED` without a label column."""
    places: NDArray[np.int64]
    """(n,) where the usable rows are in `frame`, ascending."""
    left_out: dict[int, str]
    """Place of every other row -> why: `empty`, `unlabelled`, `duplicate`, or a reason of `leaving_out`."""

    def findings(self, role: str) -> list[Finding]:
        """Say what was left out in reading; `role` is `real` or `synthetic`."""
        counts = Counter(self.left_out.values())
        return [
            Finding(
                "rows_left_out",
                f"{self.source}: left out {counts[reason]} rows {words}",
                {"rows": role, "reason": reason, "count": counts[reason]},
            )
            for reason, words in _REASONS.items()
            if counts[reason]
        ]

    def split(self, holdout_fraction: float, min_holdout_rows: int, seed: int) -> list[RealRow]:
        """Return the usable rows, each marked `reference` or `holdout` (see `data.split.split_rows`)."""
        if not 0 <= holdout_fraction < 1 or min_holdout_rows < 2:
            raise InputError(
                f"holdout_fraction must be in [0, 1) and min_holdout_rows 2 or more, got {holdout_fraction} and "
                f"{min_holdout_rows}"
            )
        return split_rows(
            self.texts, self.labels, holdout_fraction=holdout_fraction, min_holdout_rows=min_holdout_rows, seed=seed
        )

    def leaving_out(self, labels: Collection[str], reason: str) -> Table:
        """Return the table without the rows of these labels."""
        kept = [at for at, label in enumerate(self.labels) if label not in labels]
        dropped = {int(place): reason for place, label in zip(self.places, self.labels, strict=True) if label in labels}
        return replace(
            self,
            texts=[self.texts[at] for at in kept],
            labels=[self.labels[at] for at in kept],
            places=self.places[kept],
            left_out=self.left_out | dropped,
        )


def read_table(source: Source, *, name: str, text_column: str = "text", label_column: str | None = None) -> Table:
    """Read rows and sort out those that cannot be used: empty texts, missing labels, exact repeats of text and label.

    Args:
        source: see `Source`; plain strings are texts under the field `text_column`.
        name: what errors call rows that are not from a file.
        text_column: field that holds the text.
        label_column: field that holds the label; None for one group.

    Raises:
        InputError: a file or field is missing, a value is no text or label, or no usable row is left.
    """
    shown, rows, given = _rows(source, name, text_column)
    kept: list[Mapping[str, Any]] = []
    texts: list[str] = []
    labels: list[str] = []
    places: list[int] = []
    left_out: dict[int, str] = {}
    seen: set[tuple[str, str]] = set()
    for place, (where, row) in enumerate(rows):
        if given is None:
            kept.append(row)
        text = _text(_with(row, text_column, where, "text_column"), text_column, where)
        label: str | None = UNLABELLED
        if label_column is not None:
            label = _label(_with(row, label_column, where, "label_column")[label_column], label_column, where)
        if text is None:
            left_out[place] = "empty"
        elif label is None:
            left_out[place] = "unlabelled"
        elif (text, label) in seen:
            left_out[place] = "duplicate"
        else:
            seen.add((text, label))
            texts.append(text)
            labels.append(label)
            places.append(place)
    if not texts and not left_out:
        raise InputError(f"{shown}: no rows")
    if not texts:
        raise InputError(f"{shown}: no usable rows among {len(left_out)}; is {text_column!r} the field with the texts?")
    frame = _frame(kept) if given is None else given
    return Table(shown, frame, texts, labels, np.array(places, dtype=np.int64), left_out)


def _frame(rows: list[Mapping[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, dtype=object)
    missing = frame.isna()
    frame = frame.mask(missing, None)
    # Only columns without gaps get a type: whole numbers with a gap would become fractions.
    complete = frame.columns[~missing.any()]
    return frame.astype({name: frame[name].infer_objects().dtype for name in complete})


def _rows(
    source: Source, name: str, text_column: str
) -> tuple[str, Iterator[tuple[str, Mapping[str, Any]]], pd.DataFrame | None]:
    """Return what to call the source, its rows with where each is, and the table if the source is one already."""
    if isinstance(source, str | Path):
        shown, rows = _open(DataConfig(path=str(source)))
        _check_columns(_header(Path(source).expanduser()), shown)
        return shown, rows, None
    if isinstance(source, pd.DataFrame):
        _check_columns([str(column) for column in source.columns], name)
        frame = source.reset_index(drop=True)
        # Missing values of every dtype become None, which is what files give.
        values = frame.astype(object).where(frame.notna(), None)
        return name, _numbered(values.to_dict("records"), name), frame
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise InputError(
            f"{name}: expected a path, a DataFrame, or a list of texts or dicts, got {type(source).__name__}"
        )
    return name, _numbered(source, name, text_column), None


def _header(path: Path) -> list[str]:
    """Return the column names of a CSV or Parquet file, in which, unlike in JSON lines, two columns may share one."""
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            with path.open(encoding="utf-8-sig", newline="") as file:
                return next(csv.reader(file, delimiter="\t" if kind == ".tsv" else ","), [])
        if kind in (".parquet", ".pq"):
            return list(pq.read_schema(path).names)
    except (OSError, ValueError, csv.Error, pa.ArrowException):
        pass  # The reader says what is wrong with the file.
    return []


def _check_columns(names: list[str], shown: str) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(f"{shown}: more than one column is called {listed(twice)}; rename or remove all but one")


def _numbered(rows: Iterable[Any], name: str, text_column: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for place, row in enumerate(rows):
        where = f"{name}: row {place} (from 0)"
        if isinstance(row, str) or row is None:
            yield where, {text_column: row}
        elif isinstance(row, Mapping):
            yield where, row
        else:
            raise InputError(f"{where}: expected a text or a dict, found {type(row).__name__} {row!r}")


def _with(row: Mapping[str, Any], column: str, where: str, option: str) -> Mapping[str, Any]:
    if column not in row:
        hint = (
            "; are its fields separated by commas?"
            if len(row) == 1 and any(sign in "".join(row) for sign in ";\t|")
            else ""
        )
        raise InputError(f"{where}: no field `{column}`; it has {', '.join(map(repr, row))} (set {option}){hint}")
    return row
