"""What the core is to reach, and whether this run reached it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evals.bench.spec import OURS

Results = Mapping[str, Mapping[str, Any]]
"""key of a spec -> its measurement"""


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one number of our measurement of a problem, or on a competitor's number over ours."""

    problem: str
    quantity: Literal["seconds", "peak_memory_mb", "gap", "same_picks"]
    bound: float
    against: str | None = None
    """A competitor: its seconds over ours are to be at least `bound`. None: ours is to be at most `bound`."""


TARGETS = (
    Target("selection n=7000 T=100", "seconds", 200.0, "refit"),
    Target("selection n=7000 T=100", "same_picks", 1.0, "refit"),
    Target("selection n=7000 T=400", "seconds", 700.0, "refit"),
    Target("selection n=7000 T=400", "same_picks", 1.0, "refit"),
    Target("selection n=100000 T=600", "seconds", 2.0),
    Target("selection n=1000000 T=600", "seconds", 15.0),
    Target("selection n=1000000 T=600", "peak_memory_mb", 2500.0),
    Target("alignment m=5000 n=7000", "seconds", 30.0, "adam"),
    Target("alignment m=5000 n=7000", "gap", 1e-6),
    Target("alignment m=20000 n=7000", "seconds", 1.5),
    Target("alignment m=20000 n=7000", "peak_memory_mb", 1000.0),
    Target("alignment m=20000 n=7000", "seconds", 15.0, "fista_300"),
    Target("alignment m=100000 n=7000", "seconds", 10.0),
    Target("alignment m=100000 n=7000", "peak_memory_mb", 2000.0),
    Target("alignment m=100000 n=7000", "gap", 1e-6),
    Target("alignment m=100000 n=1000000", "seconds", 60.0),
    Target("alignment m=100000 n=1000000", "peak_memory_mb", 3000.0),
)


def rows(results: Results) -> Iterator[tuple[Target, float, float | None, bool, bool]]:
    """Yield (target, figure, the same in CPU seconds, whether it is a lower bound, whether it is met) for what was measured."""
    for target in TARGETS:
        ours = results.get(f"{target.problem} {OURS}", {})
        if "seconds" not in ours:
            continue
        if target.against is None:
            value = ours.get(target.quantity)
            if value is not None:
                cpu = ours["cpu_seconds"] if target.quantity == "seconds" else None
                yield target, value, cpu, False, value <= target.bound
            continue
        other = results.get(f"{target.problem} {target.against}", {})
        if target.quantity == "same_picks":
            if "same_picks" in other:
                yield target, other["same_picks"], None, False, other["same_picks"] >= target.bound
        elif "seconds" in other:
            ratio, cpu_ratio = other["seconds"] / ours["seconds"], other["cpu_seconds"] / ours["cpu_seconds"]
            yield target, ratio, cpu_ratio, not other["is_finished"], ratio >= target.bound
        elif "over_seconds" in other:
            ratio = other["over_seconds"] / ours["seconds"]
            yield target, ratio, None, True, ratio >= target.bound
