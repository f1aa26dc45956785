"""What moved between two runs of an eval, beyond noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from scipy import stats

from evals.intervals import CONFIDENCE, Interval, mean_interval
from evals.results import EvalResult, Measurement
from synalign_agent.errors import InputError

_Key = tuple[tuple[tuple[str, Any], ...], str]
"""Condition, in the order of its names, and metric."""


class Change(NamedTuple):
    """One metric under one condition, in both runs."""

    condition: dict[str, Any]
    metric: str
    before: float
    after: float
    difference: Interval
    """Of after - before; over the seeds that both have, where they have the same ones."""
    is_paired: bool


class Comparison(NamedTuple):
    """Two runs beside each other."""

    changes: list[Change]
    """All that both have, what moved first."""
    n_unknown: int
    """Of `changes`: those with a single value, so that noise is not known."""
    only_before: int
    only_after: int
    """Conditions and metrics with a value in one run only."""
    notes: list[str]
    """What else differs."""

    @property
    def moved(self) -> list[Change]:
        """Return the changes whose interval excludes 0."""
        return [change for change in self.changes if change.difference.excludes_zero]


def compare(before: EvalResult, after: EvalResult) -> Comparison:
    """Compare two results of one eval.

    Seeds are paired where both runs have the same ones of a condition, on the same data: a seed draws the same rows in both.
    Otherwise the interval is Welch's.

    Raises:
        InputError: the results are of two evals.
    """
    if before.name != after.name:
        raise InputError(f"{before.name} and {after.name} are two evals; compare results of one")
    first, second = _values(before), _values(after)
    same_data = before.digests == after.digests
    changes = [_change(key, first[key], second[key], same_data) for key in first if key in second]
    changes.sort(key=lambda change: (not change.difference.excludes_zero, -abs(_relative(change))))
    return Comparison(
        changes,
        n_unknown=sum(change.difference.low is None for change in changes),
        only_before=len(first.keys() - second.keys()),
        only_after=len(second.keys() - first.keys()),
        notes=_notes(before, after),
    )


def compare_files(before: Path, after: Path) -> Comparison:
    """Compare two results in files, or the files of one name in two folders, if they share one.

    Raises:
        InputError: a file cannot be read, or the folders share no result or several.
    """
    if before.is_dir() and after.is_dir():
        shared = sorted({path.name for path in before.glob("*.json")} & {path.name for path in after.glob("*.json")})
        if len(shared) != 1:
            names = ", ".join(shared) or "none"
            raise InputError(f"{before} and {after} share these results: {names}; name the two files to compare")
        before, after = before / shared[0], after / shared[0]
    return compare(EvalResult.load(before), EvalResult.load(after))


def change_table(comparison: Comparison) -> Table:
    """Return what moved as a table."""
    table = Table(title="Moved beyond noise (95 % interval of the difference excludes 0)")
    for heading in ("condition", "metric"):
        table.add_column(heading, overflow="fold")
    for heading in ("before", "after", "difference", "interval", "seeds"):
        table.add_column(heading, justify="right")
    for change in comparison.moved:
        difference = change.difference
        table.add_row(
            ", ".join(f"{name} {value}" for name, value in change.condition.items()), change.metric,
            f"{change.before:.4g}", f"{change.after:.4g}", f"{difference.mean:+.3g}",
            f"({difference.low:+.3g}, {difference.high:+.3g})",
            f"{difference.n} paired" if change.is_paired else f"{difference.n}",
        )  # fmt: skip
    return table


def summary(comparison: Comparison) -> list[str]:
    """Return the comparison in sentences, beside the table."""
    n, moved = len(comparison.changes) - comparison.n_unknown, len(comparison.moved)
    lines = [
        f"{moved} of {n} figures moved beyond noise; if nothing had changed, about {round((1 - CONFIDENCE) * n)} would have.",
        f"{comparison.n_unknown} have one seed, so their noise is not known." if comparison.n_unknown else "",
        f"Only before: {comparison.only_before}; only after: {comparison.only_after}."
        if comparison.only_before or comparison.only_after
        else "",
    ]
    return [*(line for line in lines if line), *comparison.notes]


def _values(result: EvalResult) -> dict[_Key, dict[int, float]]:
    """Return the values by condition and metric, then by seed."""
    found: dict[_Key, dict[int, float]] = {}
    for entry in result.measurements:
        if entry.value is not None:
            found.setdefault(_key(entry), {})[entry.seed] = entry.value
    return found


def _key(entry: Measurement) -> _Key:
    return tuple(sorted(entry.condition.items())), entry.metric


def _change(key: _Key, before: Mapping[int, float], after: Mapping[int, float], same_data: bool) -> Change:
    is_paired = same_data and before.keys() == after.keys()
    difference = (
        mean_interval([after[seed] - before[seed] for seed in before])
        if is_paired
        else _welch(list(before.values()), list(after.values()))
    )
    means = [sum(values.values()) / len(values) for values in (before, after)]
    return Change(dict(key[0]), key[1], means[0], means[1], difference, is_paired)


def _welch(before: list[float], after: list[float]) -> Interval:
    n = min(len(before), len(after))
    difference = sum(after) / len(after) - sum(before) / len(before)
    if n < 2:
        return Interval(n, difference, None, None, "none")
    found = stats.ttest_ind(after, before, equal_var=False).confidence_interval(CONFIDENCE)
    if not math.isfinite(found.low):  # No spread on either side.
        return Interval(n, difference, difference, difference, "t")
    return Interval(n, difference, float(found.low), float(found.high), "t")


def _relative(change: Change) -> float:
    scale = max(abs(change.before), abs(change.after))
    return change.difference.mean / scale if scale else 0.0


def _notes(before: EvalResult, after: EvalResult) -> list[str]:
    settings = sorted(
        name
        for name in before.settings.keys() | after.settings.keys()
        if before.settings.get(name) != after.settings.get(name)
    )
    notes = [
        f"Settings differ: {', '.join(settings)}." if settings else "",
        "The data differ, so seeds are not paired." if before.digests != after.digests else "",
        f"Releases: {before.version} and {after.version}." if before.version != after.version else "",
        "The machines differ: compare no times."
        if before.machine.get("processor") != after.machine.get("processor")
        else "",
    ]
    return [note for note in notes if note]
