"""Which measurements are made, in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from evals.bench.spec import OURS, Spec

_SELECTORS = (OURS, "refit", "gpytorch", "linear_operator", "full_pass", "facility_location", "farthest")
_ALIGNERS = (OURS, "adam", "fista_300", "fista_1000", "clarabel", "goodpoints", "projection", "herding", "uniform")
_CAPPED_ALIGNERS = (OURS, "fista_1000", "clarabel", "projection", "herding")
_GROWTH_SELECTORS = (OURS, "full_pass", "farthest")
_GROWTH_ALIGNERS = (OURS, "fista_300", "herding")
_MIN_ESS_SHARE = 0.25
_REFERENCES = frozenset({"refit", "gpytorch", "adam", "clarabel"})
_REFERENCE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Problem:
    """Sizes, and the methods to compare there."""

    n: int
    """Real rows."""
    picks: int = 0
    m: int = 0
    methods: tuple[str, ...] = (OURS,)
    cap_times_m: float | None = None
    min_ess: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Problems to solve, and the lines of the plot."""

    problems: tuple[Problem, ...]
    growth_picks: int
    growth_n: tuple[int, ...]
    growth_m: tuple[int, ...]
    growth_real: int


FULL = Plan(
    problems=(
        Problem(n=7_000, picks=100, methods=_SELECTORS),
        Problem(n=7_000, picks=400, methods=(OURS, "refit", "linear_operator", "full_pass", "facility_location", "farthest")),
        Problem(n=100_000, picks=600, methods=(OURS, "full_pass", "linear_operator", "facility_location", "farthest")),
        Problem(n=1_000_000, picks=100, methods=(OURS, "full_pass", "farthest")),
        Problem(n=1_000_000, picks=600, methods=(OURS, "full_pass", "linear_operator")),
        Problem(m=5_000, n=7_000, methods=_ALIGNERS),
        Problem(m=5_000, n=7_000, methods=_CAPPED_ALIGNERS, cap_times_m=10.0),
        Problem(m=5_000, n=7_000, methods=_CAPPED_ALIGNERS, cap_times_m=2.0),
        Problem(m=5_000, n=7_000, min_ess=5_000 * _MIN_ESS_SHARE),
        Problem(m=2_000, n=7_000, methods=(OURS, "fista_1000", "clarabel")),
        Problem(m=20_000, n=7_000, methods=(OURS, "fista_300", "fista_1000", "clarabel", "projection", "herding", "uniform")),
        Problem(m=20_000, n=7_000, methods=(OURS, "fista_300"), cap_times_m=10.0),
        Problem(m=100_000, n=7_000, methods=(OURS, "adam", "fista_300", "clarabel", "herding")),
        Problem(m=100_000, n=50_000),
        Problem(m=100_000, n=1_000_000),
    ),
    growth_picks=300,
    growth_n=(10_000, 30_000, 100_000, 300_000, 1_000_000),
    growth_m=(2_500, 5_000, 10_000, 20_000, 50_000, 100_000),
    growth_real=7_000,
)  # fmt: skip
QUICK = Plan(
    problems=(
        Problem(n=1_000, picks=50, methods=_SELECTORS),
        Problem(m=1_000, n=1_000, methods=_ALIGNERS),
        Problem(m=1_000, n=1_000, methods=(OURS, "fista_1000"), cap_times_m=10.0),
    ),
    growth_picks=50,
    growth_n=(2_000, 10_000),
    growth_m=(500, 1_000),
    growth_real=1_000,
)


def specs(plan: Plan, selection: Spec, alignment: Spec, reference_limit: float) -> list[Spec]:
    """Return the measurements of a plan, each once.

    Args:
        plan: the problems.
        selection: lengthscale, noise, seed and limit of every selection; method and sizes are filled in.
        alignment: the same for every alignment.
        reference_limit: seconds for the slow reference methods up to 10,000 rows.
    """
    found: dict[str, Spec] = {}
    for problem in plan.problems:
        base = selection if problem.picks else alignment
        sizes = replace(
            base,
            n=problem.n,
            n_picks=problem.picks,
            m=problem.m,
            cap_times_m=problem.cap_times_m,
            min_ess=problem.min_ess,
        )
        for method in problem.methods:
            is_reference = method in _REFERENCES and max(problem.n, problem.m) <= _REFERENCE_ROWS
            spec = replace(sizes, method=method, limit=max(base.limit, reference_limit) if is_reference else base.limit)
            found.setdefault(spec.key, spec)
    for spec in (*selection_growth(plan, selection), *alignment_growth(plan, alignment)):
        found.setdefault(spec.key, spec)
    return list(found.values())


def selection_growth(plan: Plan, base: Spec) -> Iterator[Spec]:
    """Yield the selections behind the lines of the plot."""
    for method in _GROWTH_SELECTORS:
        for n in plan.growth_n:
            yield replace(base, method=method, n=n, n_picks=plan.growth_picks)


def alignment_growth(plan: Plan, base: Spec) -> Iterator[Spec]:
    """Yield the alignments behind the lines of the plot."""
    for method in _GROWTH_ALIGNERS:
        for m in plan.growth_m:
            yield replace(base, method=method, n=plan.growth_real, m=m)
