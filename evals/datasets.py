"""What the evals run on: real rows to fit to, real rows that only score, and rows that language models wrote.

A benchmark is a folder `NAME/{ref,test,pool}.jsonl[.gz]` of objects with `text`, `label` and, for the pool, `generator`; or a
public dataset, `hf:OWNER/NAME[@SPLIT]`, whose splits `train` and `test` (or SPLIT) are the real rows, with a pool in
`OWNER--NAME/pool.jsonl[.gz]`. No rows are in the repository.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synalign_agent.config import DataConfig
from synalign_agent.core.arrays import IntArray
from synalign_agent.data.reader import read_rows
from synalign_agent.errors import InputError

_HUGGING_FACE = "hf:"
_ROOT = Path(__file__).resolve().parents[1]
SHORT_POOL_ROWS = 10_000
"""Rows of a pool that the short presets share: what two cores embed in two minutes."""
_TEXT_COLUMNS = ("text", "sentence", "content")


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled texts, in the order of their file."""

    texts: list[str]
    labels: IntArray
    """(n,) index into `Benchmark.label_names`."""
    generators: NDArray[np.str_] | None = None
    """(n,) which model wrote each row; only for pools."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: IntArray | NDArray[np.bool_]) -> Rows:
        """Return the rows at these indices (n,), or where this mask is true."""
        where = np.flatnonzero(indices) if indices.dtype == np.bool_ else indices
        generators = None if self.generators is None else self.generators[where]
        return Rows([self.texts[index] for index in where.tolist()], self.labels[where], generators)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A task with real and synthetic rows."""

    name: str
    label_names: tuple[str, ...]
    ref: Rows
    """Real rows for fitting, prompting and choosing; none of their texts is in `test`, whatever its case."""
    test: Rows
    """Real rows that score and do nothing else."""
    pool: Rows
    """Synthetic rows; none of their texts is in `ref` or `test`, whatever its case. Empty if they were not asked for."""
    digest: str
    """16 hex digits of all rows."""

    @property
    def folder_name(self) -> str:
        """Return the name as files may have it."""
        return _folder_name(self.name)


def load_benchmark(name: str, data_dir: Path | None = None, *, with_pool: bool = True) -> Benchmark:
    """Read a benchmark.

    Args:
        name: a folder in `data_dir`, or `hf:OWNER/NAME[@SPLIT]` for a public dataset: `train` to fit to, and `test`, or SPLIT
            where `test` has no labels, to score.
        data_dir: holds the benchmarks; None takes `$SYNALIGN_EVAL_DATA`, else `../shared/data` beside the checkout.
        with_pool: whether the eval needs synthetic rows that others made.

    Returns:
        The rows in the order of their files, without reference texts that are in `test`, and without pool texts that are real.

    Raises:
        InputError: files or fields are missing, or a pool's labels are not those of the real rows.
    """
    is_public = name.startswith(_HUGGING_FACE)
    # First the folder: what is missing there is said before anything is downloaded.
    files = (() if is_public else ("ref", "test")) + (("pool",) if with_pool else ())
    paths = {part: _part(data_folder(data_dir) / _folder_name(name), part) for part in files}
    if is_public:
        dataset_id, _, split = name.removeprefix(_HUGGING_FACE).partition("@")
        ref, test = (_public(dataset_id, part) for part in ("train", split or "test"))
    else:
        ref, test = (_file(paths[part]) for part in ("ref", "test"))
    synthetic = _file(paths["pool"]) if with_pool else []
    label_names = tuple(sorted({label for _, label, _ in ref}))
    unknown = sorted({label for _, label, _ in (*test, *synthetic)} - set(label_names))
    if unknown:
        raise InputError(
            f"{name}: labels {unknown} are not among those of its reference rows ({', '.join(label_names)})"
        )
    ref = _without_texts_of(test, ref)
    synthetic = _without_texts_of([*ref, *test], synthetic)
    real_ref, real_test, written = (_rows(part, label_names) for part in (ref, test, synthetic))
    real_ref, real_test = replace(real_ref, generators=None), replace(real_test, generators=None)
    return Benchmark(name, label_names, real_ref, real_test, written, _digest((real_ref, real_test, written)))


def data_folder(data_dir: Path | None = None) -> Path:
    """Return the folder that holds benchmarks; see `load_benchmark`.

    Raises:
        InputError: there is none; the message says how to get one.
    """
    if data_dir is None and (named := os.environ.get("SYNALIGN_EVAL_DATA")):
        data_dir = Path(named)
    if data_dir is None:
        data_dir = _ROOT.parent / "shared" / "data"
    if not data_dir.is_dir():
        raise InputError(
            f"{data_dir}: no such folder. Evals need NAME/ref.jsonl, test.jsonl and pool.jsonl (fields text, label and, in the "
            "pool, generator; .gz is fine): pass the folder that holds NAME with --data or in $SYNALIGN_EVAL_DATA. With a public "
            "dataset, --set datasets=hf:OWNER/NAME, the folder holds OWNER--NAME/pool.jsonl alone"
        )
    return data_dir


def split_ref(benchmark: Benchmark, seed: int, fraction: float) -> tuple[Rows, Rows]:
    """Split the reference into rows to fit and rows to choose settings on, label by label; `test` is never for choosing.

    Args:
        benchmark: whose `ref` is split.
        seed: of the split.
        fraction: share of validation rows, in (0, 1).

    Returns:
        (fit, validation), each in the order of `ref`.
    """
    rng = np.random.default_rng([seed, 0])
    labels = benchmark.ref.labels
    held = np.zeros(len(labels), dtype=np.bool_)
    for label in range(len(benchmark.label_names)):
        rows = np.flatnonzero(labels == label)
        held[rng.permutation(rows)[: round(fraction * len(rows))]] = True
    return benchmark.ref.take(~held), benchmark.ref.take(held)


def sample_rows(rows: Rows, n: int | None, seed: int) -> IntArray:
    """Return the indices of about n rows, the same share of every label and generator, in order; all of them for None.

    With one seed, a larger n gives a superset, so that what a small eval embedded serves a large one.

    Args:
        rows: to draw from.
        n: rows wanted, >= 1.
        seed: of the draw.
    """
    if n is None or n >= len(rows):
        return np.arange(len(rows))
    kinds = [
        f"{label}\0{'' if rows.generators is None else rows.generators[row]}" for row, label in enumerate(rows.labels)
    ]
    _, kind, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    # A random order inside each kind; row r of c is taken while (r + 1/2) / c < n / N, the same for all kinds.
    drawn = np.random.default_rng([seed, 1]).random(len(rows))
    order = np.lexsort((drawn, kind))
    place = np.empty(len(rows))
    place[order] = np.concatenate([np.arange(count) + 0.5 for count in counts]) / counts[kind[order]]
    chosen: IntArray = np.sort(np.argsort(place, kind="stable")[:n])
    return chosen


def smaller(
    benchmark: Benchmark, *, ref: int | None = None, test: int | None = None, pool: int | None = None
) -> Benchmark:
    """Return about as many rows of each part, by `sample_rows` with seed 0, so that all evals embed the same rows."""
    parts = [
        part.take(sample_rows(part, n, seed=0))
        for part, n in ((benchmark.ref, ref), (benchmark.test, test), (benchmark.pool, pool))
    ]
    return replace(benchmark, ref=parts[0], test=parts[1], pool=parts[2], digest=_digest(parts))


def load_benchmarks(
    names: Sequence[str], data_dir: Path | None = None, *, ref: int | None = None, test: int | None = None,
    pool: int | None = None, with_pool: bool = True,
) -> list[Benchmark]:  # fmt: skip
    """Return benchmarks (`load_benchmark`), each with about as many rows of each part (`smaller`)."""
    return [
        smaller(load_benchmark(name, data_dir, with_pool=with_pool), ref=ref, test=test, pool=pool) for name in names
    ]


_Row = tuple[str, str, str]
"""text, label, generator"""


def _without_texts_of(rows: list[_Row], others: list[_Row]) -> list[_Row]:
    """Return the others whose text, whatever its case, is not among those of the rows."""
    known = {text.casefold().strip() for text, _, _ in rows}
    return [row for row in others if row[0].casefold().strip() not in known]


def _folder_name(name: str) -> str:
    """Return a folder's name as it is, and `hf:OWNER/NAME@SPLIT` as `OWNER--NAME`."""
    if not name.startswith(_HUGGING_FACE):
        return name
    return name.removeprefix(_HUGGING_FACE).partition("@")[0].replace("/", "--")


def _part(folder: Path, part: str) -> Path:
    for name in (f"{part}.jsonl.gz", f"{part}.jsonl"):
        if (folder / name).is_file():
            return folder / name
    there = ", ".join(sorted(path.name for path in folder.parent.iterdir() if path.is_dir())) or "none"
    raise InputError(
        f"{folder}: no {part}.jsonl or {part}.jsonl.gz in it; benchmarks in {folder.parent}: {there}; choose with --set "
        "datasets=NAME"
    )


def _file(path: Path) -> list[_Row]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    rows: list[_Row] = []
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                row = json.loads(line)
                if not isinstance(row.get("text"), str) or "label" not in row:
                    raise InputError(f"{path}: row {number}: expected an object with a `text` and a `label`")
                rows.append((row["text"], str(row["label"]), str(row.get("generator", path.parent.name))))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: row {len(rows) + 1}: not readable as JSON lines: {error}") from None
    return rows


def _public(dataset_id: str, split: str) -> list[_Row]:
    """Read a split of a public dataset, under whichever of the usual names its texts are."""
    problems: list[str] = []
    for column in _TEXT_COLUMNS:
        try:
            raw = read_rows(
                DataConfig(
                    path=dataset_id, format="huggingface", hf_split=split, text_column=column, label_column="label"
                )
            )
        except InputError as error:
            problems.append(str(error))
        else:
            return [(text, label, dataset_id) for text, label in zip(raw.texts, raw.labels, strict=True)]
    raise InputError(
        f"{_HUGGING_FACE}{dataset_id}, split {split}: no rows with a label and a text in one of the columns "
        f"{', '.join(_TEXT_COLUMNS)}; a split other than `test` is named as {_HUGGING_FACE}{dataset_id}@SPLIT. "
        + "; ".join(dict.fromkeys(problems))
    )


def _rows(rows: list[_Row], label_names: tuple[str, ...]) -> Rows:
    code = {label: index for index, label in enumerate(label_names)}
    return Rows(
        [text for text, _, _ in rows],
        np.array([code[label] for _, label, _ in rows], dtype=np.int64),
        np.array([generator for _, _, generator in rows], dtype=np.str_),
    )


def _digest(parts: Iterable[Rows]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        generators = [""] * len(part) if part.generators is None else part.generators.tolist()
        for text, label, generator in zip(part.texts, part.labels.tolist(), generators, strict=True):
            digest.update(json.dumps([text, label, generator]).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
