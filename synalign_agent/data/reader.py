"""Read labelled texts from JSONL, CSV, Parquet or a Hugging Face dataset, with errors that name file, row and field."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from synalign_agent.config import EXAMPLE_PREFIX, DataConfig
from synalign_agent.errors import InputError
from synalign_agent.records import UNLABELLED

_SUFFIXES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}


@dataclass(frozen=True, slots=True)
class RawRows:
    """Texts and labels as read, with what was wrong with those left out."""

    texts: list[str]
    labels: list[str]
    source: str
    warnings: list[str] = field(default_factory=list)


def read_rows(config: DataConfig) -> RawRows:
    """Read, check and clean the real rows.

    Empty texts, missing labels and exact duplicates are left out and counted in `warnings`.

    Raises:
        InputError: the file or a column is missing, a row cannot be read, or a label has a single row.
    """
    source, rows = _open(config)
    texts: list[str] = []
    labels: list[str] = []
    counts: Counter[str] = Counter()
    seen: dict[str, set[str]] = {}
    numeric_labels = False
    for where, row in rows:
        text = _text(row, config.text_column, where)
        if text is None:
            counts["empty"] += 1
            continue
        label: str | None = UNLABELLED
        if config.label_column is not None:
            value = _field(row, config.label_column, where, "label_column")
            label = _label(value, config.label_column, where)
            numeric_labels |= label is not None and label.replace(".", "", 1).isdecimal()
        if label is None:
            counts["unlabelled"] += 1
        elif label in seen.setdefault(text, set()):
            counts["duplicate"] += 1
        else:
            counts["conflict"] += bool(seen[text])
            seen[text].add(label)
            texts.append(text)
            labels.append(label)
    warnings = [
        f"{source}: left out {counts['empty']} rows with an empty `{config.text_column}`" if counts["empty"] else "",
        f"{source}: left out {counts['unlabelled']} rows without a `{config.label_column}`" if counts["unlabelled"] else "",
        f"{source}: left out {counts['duplicate']} exact duplicate rows" if counts["duplicate"] else "",
        f"{source}: kept {counts['conflict']} texts that appear under more than one label" if counts["conflict"] else "",
        f"{source}: labels in `{config.label_column}` are numbers; the prompts will show them as they are, words work better"
        if numeric_labels
        else "",
    ]  # fmt: skip
    _check_labels(labels, source, config.label_column)
    return RawRows(texts, labels, source, [line for line in warnings if line])


def example_path(name: str) -> Path:
    """Return the path of a packaged example data set."""
    path = Path(str(resources.files("synalign_agent"))) / "examples" / f"{name}.jsonl"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.jsonl")))
        raise InputError(f"{EXAMPLE_PREFIX}{name}: no such example; there is: {known}")
    return path


def _open(config: DataConfig) -> tuple[str, Iterator[tuple[str, Mapping[str, Any]]]]:
    if config.path.startswith(EXAMPLE_PREFIX):
        path = example_path(config.path.removeprefix(EXAMPLE_PREFIX))
        return config.path, _read_jsonl(path, "utf-8")
    try:
        path = Path(config.path).expanduser()
        exists = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such home, a NUL byte
        raise InputError(f"data.path: {config.path[:200]!r} cannot be a file: {error}") from None
    kind = config.format
    if kind == "auto":
        kind = _SUFFIXES.get(path.suffix.lower(), "huggingface")  # type: ignore[assignment]
    if kind == "huggingface" and exists and config.format == "auto":
        raise InputError(
            f"{path}: {path.suffix or 'no ending'}: unknown kind of file; set data.format to jsonl, csv or parquet"
        )
    if kind == "huggingface":
        return config.path, _read_huggingface(config)
    if not exists:
        raise InputError(f"{path}: no such file")
    readers = {"jsonl": _read_jsonl, "csv": _read_csv}
    if kind in readers:
        return str(path), readers[kind](path, config.encoding)
    return str(path), _read_parquet(path)


def _read_jsonl(path: Path, encoding: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(path, encoding), start=1):
        where = f"{path}: row {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not a JSON object: {error.msg} at column {error.colno}") from None
        except (
            RecursionError,
            ValueError,
        ) as error:  # brackets without end; a number with more digits than Python reads
            raise InputError(f"{where}: not readable as JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected one JSON object per line, found {type(row).__name__}")
        yield where, row


def _read_csv(path: Path, encoding: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(_lines(path, encoding), delimiter=delimiter)
    try:
        for number, row in enumerate(reader, start=2):  # the header is row 1
            where = f"{path}: row {number}"
            if None in row:
                raise InputError(f"{where}: more fields than the header names; quote texts that contain {delimiter!r}")
            yield where, row
    except csv.Error as error:
        raise InputError(f"{path}: row {reader.line_num + 1}: not readable as CSV: {error}") from None


def _read_parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except Exception as error:
        raise InputError(f"{path}: not readable as Parquet: {error}") from None
    number = 0
    batches = file.iter_batches()
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:  # a damaged page behind a good header
            raise InputError(f"{path}: after row {number}: not readable as Parquet: {error}") from None
        if batch is None:
            return
        for row in batch.to_pylist():
            number += 1
            yield f"{path}: row {number}", row


def _read_huggingface(config: DataConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import datasets

    path = Path(config.path).expanduser()
    try:
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(path))
            dataset = loaded[config.hf_split] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            dataset = datasets.load_dataset(str(path) if path.is_dir() else config.path, split=config.hf_split)
    except Exception as error:  # `datasets` raises anything from KeyError to its own and huggingface_hub's errors
        raise InputError(
            f"{config.path}: not a file, and `datasets` could not load it as a dataset (split {config.hf_split!r}): "
            f"{type(error).__name__}: {error}"
        ) from None
    feature = dataset.features.get(config.label_column) if config.label_column else None
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    for number, row in enumerate(dataset, start=1):
        if names is not None and config.label_column is not None:
            code = row[config.label_column]  # -1 is how `datasets` writes a missing class
            row = {**row, config.label_column: None if code is None or code < 0 else names[code]}
        yield f"{config.path}[{config.hf_split}]: row {number}", row


def _lines(path: Path, encoding: str) -> Iterator[str]:
    # utf-8-sig also reads files without a byte order mark.
    actual = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    number = 0
    try:
        with path.open(encoding=actual, newline="") as file:
            for line in file:
                number += 1
                yield line
    except UnicodeDecodeError as error:
        # Files are decoded in blocks, so the row is found by the byte, not by the rows read so far.
        raise InputError(
            f"{path}: row {_row_of_bad_byte(path, actual)}: byte {error.object[error.start]:#04x} is not {encoding}; "
            "save the file as UTF-8, or set data.encoding in a config (for example cp1252)"
        ) from None
    except UnicodeError as error:
        raise InputError(
            f"{path}: near row {number + 1}: not readable as {encoding}: {error}; set data.encoding in a config"
        ) from None
    except (LookupError, ValueError):
        raise InputError(f"data.encoding: {encoding!r} is not an encoding that Python knows") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _row_of_bad_byte(path: Path, encoding: str) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeError:
                return number
    return 1  # the encoding has wider line ends than bytes can show


def _field(row: Mapping[str, Any], column: str, where: str, option: str) -> Any:
    if column not in row:
        raise InputError(f"{where}: no field `{column}`; it has {', '.join(map(repr, row))} (set data.{option})")
    return row[column]


def _text(row: Mapping[str, Any], column: str, where: str) -> str | None:
    value = _field(row, column, where, "text_column")
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(f"{where}: field `{column}`: expected text, found {type(value).__name__} {value!r}")
    return _storable(value)


def _storable(text: str) -> str | None:
    # Lone surrogates (from broken "\\ud83d" escapes) cannot be stored as UTF-8.
    return text.encode("utf-8", "replace").decode().strip() or None


def _label(value: Any, column: str, where: str) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, dict | list):
        raise InputError(f"{where}: field `{column}`: expected one label, found {type(value).__name__} {value!r}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _storable(str(value))


def _check_labels(labels: list[str], source: str, label_column: str | None) -> None:
    if not labels:
        raise InputError(f"{source}: no usable rows")
    counts = Counter(labels)
    single = sorted(label for label, count in counts.items() if count < 2)
    if single:
        shown = ", ".join(repr(label) for label in single[:5]) + (", ..." if len(single) > 5 else "")
        raise InputError(
            f"{source}: field `{label_column}`: {len(single)} of {len(counts)} labels have only one row ({shown}); every label "
            "needs two or more. Is data.label_column right? (null treats all rows as one group)"
        )
