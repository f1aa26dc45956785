"""What an eval found: measurements with their conditions and seeds, and how they are summed up and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evals import machine
from evals.intervals import Interval, mean_interval
from synalign_agent import __version__
from synalign_agent.errors import InputError

Value = str | int | float | bool
Condition = Mapping[str, Value]

FORMAT_VERSION = 1
"""Of the JSON; a file of another format is refused, not guessed at."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number of one run."""

    condition: dict[str, Value]
    """What was varied: {"dataset": "agnews", "method": "kernel", "k": 5}."""
    metric: str
    seed: int
    value: float | None
    """None if there is none; then `reason` says why."""
    reason: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be averaged, and gaps without a reason."""
        if self.value is None and not self.reason:
            raise ValueError(f"{self.metric} of {self.condition}: a missing value needs its reason")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(
                f"{self.metric} of {self.condition}: {self.value} is no measurement; use None and a reason"
            )


@dataclass
class EvalResult:
    """All measurements of a run of an eval, and what they were made with."""

    name: str
    settings: dict[str, Any]
    digests: dict[str, str]
    """dataset -> `Benchmark.digest`"""
    seeds: list[int]
    machine: dict[str, Any] = field(default_factory=machine.describe)
    version: str = __version__
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seconds: float = 0.0
    measurements: list[Measurement] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values beside the measurements, such as curves or a gap map."""

    @property
    def fingerprint(self) -> str:
        """Hash what was asked: eval, settings and data (12 hex digits); not when, where and with which release."""
        asked = json.dumps([self.name, self.settings, self.digests], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()[:12]

    def add(self, condition: Condition, metric: str, seed: int, value: float | None, reason: str | None = None) -> None:
        """Keep a measurement; `value` may be a NumPy scalar, and `reason` is kept only where there is none."""
        number = None if value is None else float(value)
        kept = reason if value is None else None
        self.measurements.append(Measurement(dict(condition), metric, int(seed), number, kept))

    def save(self, folder: Path) -> Path:
        """Write `NAME.json` whole or not at all; return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        fields = {"format": FORMAT_VERSION, "fingerprint": self.fingerprint, **_without(asdict(self), "measurements")}
        lines = ",\n  ".join(json.dumps(_brief(measurement), ensure_ascii=False) for measurement in self.measurements)
        text = json.dumps(fields, indent=1, ensure_ascii=False)
        partial = path.with_suffix(".partial")
        # A line a measurement: results are compared in version control.
        partial.write_text(f'{text[:-2]},\n "measurements": [\n  {lines}\n ]\n}}\n', encoding="utf-8")
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: Path) -> EvalResult:
        """Read what `save` wrote.

        Raises:
            InputError: there is no such file, or it is not a result of this format.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not readable as the JSON of an eval: {error}") from None
        if not isinstance(fields, dict) or fields.get("format") != FORMAT_VERSION:
            raise InputError(f"{path}: not the result of an eval in format {FORMAT_VERSION}; run the eval again")
        measurements = [Measurement(**entry) for entry in fields.pop("measurements")]
        return cls(**_without(fields, "format", "fingerprint"), measurements=measurements)


def start(name: str, settings: Any, digests: Mapping[str, str], seeds: Sequence[int]) -> EvalResult:
    """Return a result without measurements.

    Args:
        name: of the eval.
        settings: a dataclass of plain values.
        digests: dataset -> digest.
        seeds: seeds that the run uses.
    """
    plain = json.loads(json.dumps(dataclasses.asdict(settings)))
    return EvalResult(name, plain, dict(digests), list(seeds))


def over_seeds(measurements: Iterable[Measurement]) -> Interval | None:
    """Return the mean over seeds with its interval, or None where no measurement has a value.

    Several values of a seed are averaged first, so that the interval is over seeds alone.
    """
    values = list(_by_seed(measurements).values())
    return mean_interval(values) if values else None


def matching(measurements: Iterable[Measurement], metric: str, condition: Condition) -> list[Measurement]:
    """Return the measurements of a metric whose condition has all the given fields with these values."""
    return [
        entry
        for entry in measurements
        if entry.metric == metric and all(entry.condition.get(name) == value for name, value in condition.items())
    ]


def paired_difference(a: Iterable[Measurement], b: Iterable[Measurement]) -> Interval | None:
    """Return the mean of a - b over the seeds that both have, with its interval; None if they share none.

    Args:
        a: measurements of one metric; several of a seed are averaged.
        b: the same of another condition or run.
    """
    first, second = _by_seed(a), _by_seed(b)
    shared = [seed for seed in first if seed in second]
    return mean_interval([first[seed] - second[seed] for seed in shared]) if shared else None


def timed(result: EvalResult, started: float) -> EvalResult:
    """Set the seconds since `started` (`time.perf_counter`) and return the result."""
    result.seconds = round(time.perf_counter() - started, 1)
    return result


def _by_seed(entries: Iterable[Measurement]) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for entry in entries:
        if entry.value is not None:
            values.setdefault(entry.seed, []).append(entry.value)
    return {seed: sum(found) / len(found) for seed, found in values.items()}


def _brief(measurement: Measurement) -> dict[str, Any]:
    fields = asdict(measurement)
    return fields if measurement.reason else _without(fields, "reason")


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
