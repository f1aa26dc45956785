"""A number of a result for people: found by its condition, written with its interval, and held against a target."""

from __future__ import annotations

from evals.intervals import Interval
from evals.results import Condition, EvalResult, matching, over_seeds

Target = tuple[str, bool | None, str]
"""What is wanted, whether it was met (None: not measured), and the figure."""


def interval_of(result: EvalResult, metric: str, where: Condition) -> Interval | None:
    """Return the mean over seeds of a metric under a condition; what differs otherwise is averaged first. None without values."""
    return over_seeds(matching(result.measurements, metric, where))


def cell(interval: Interval | None, spec: str, *, bounds: bool = True) -> str:
    """Return `mean (low, high)` in the format `spec`, without bounds that nobody knows; a dash for nothing."""
    if interval is None:
        return "–"
    mean = format(interval.mean, spec)
    if not bounds or interval.low is None or interval.high is None:
        return mean
    return f"{mean} ({interval.low:{spec}}, {interval.high:{spec}})"


def measured(interval: Interval | None, spec: str) -> str:
    """Return the same for a target, in words where there is nothing."""
    return "not measured" if interval is None else cell(interval, spec)
