"""Write tables and reports, each file as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from synalign_agent.errors import InputError
from synalign_agent.report.export import write_atomically, write_json_lines

TABLE_ENDINGS = (".parquet", ".jsonl", ".csv")


def write_table(path: Path, frame: pd.DataFrame) -> Path:
    """Write a table as Parquet, JSON lines or CSV, by the ending of `path`.

    Raises:
        InputError: the ending is another one, or the file cannot be written.
    """
    writers = {
        ".parquet": lambda file: _for_parquet(frame).to_parquet(file, index=False),
        ".jsonl": partial(write_json_lines, frame, date_format="iso", double_precision=15),
        ".csv": partial(frame.to_csv, index=False),
    }
    if path.suffix.lower() not in writers:
        raise InputError(f"{path}: cannot write this kind of file; end the name with {', '.join(TABLE_ENDINGS)}")
    return _write(path, writers[path.suffix.lower()])


def write_report(path: Path, report: Mapping[str, Any]) -> Path:
    """Write a report as JSON."""
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _write(path, lambda file: file.write_text(text, encoding="utf-8"))


def check_output(path: Path) -> None:
    """Make the folder for output now, so that a wrong name shows before the work and not after it.

    Args:
        path: a file with one of `TABLE_ENDINGS`, or a folder.

    Raises:
        InputError: the folder cannot be made, or is a file.
    """
    folder = path.parent if path.suffix.lower() in TABLE_ENDINGS else path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be a folder for the output: {error.strerror}") from None


def _write(path: Path, write: Any) -> Path:
    check_output(path.parent)
    try:
        write_atomically(path, write)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _for_parquet(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with columns that Parquet has no type for (values of several types) as JSON text."""
    import pyarrow as pa

    replaced: dict[str, pd.Series[Any]] = {}
    for name, column in frame.items():
        if not pd.api.types.is_object_dtype(column.dtype):
            continue
        try:
            pa.array(column, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            replaced[str(name)] = column.map(partial(json.dumps, ensure_ascii=False, default=str))
    return frame.assign(**replaced)
