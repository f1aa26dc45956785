"""How many calls does the loop need to come close to real rows, and which of its parts does that?

Dataset: real rows that a session gets as its own. Run: whole sessions of the product with a live model, one for each combination
of demonstrations, attributes and alignment (an arm), all with the same number of calls; arms that ask the same thing share the
reply, and each counts it. Scores: MMD² of what the session would deliver after each round, to test rows that none has, on
average over the draw where an arm draws at random; calls until that is as low as the best that random demonstrations without
attributes and alignment reach. A stopped run goes on where it was.

The packaged SmolLM2 writes by default. `--set model=PATH.gguf` takes another file, `--set model=NAME --set base_url=URL --set
concurrency=32` an endpoint.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.datasets import Benchmark, load_benchmarks
from evals.embeddings import cache_folder, default_encoder, embed
from evals.loop_arms import SIZES, Arm, Point, SessionSettings, curve, run_session
from evals.loop_view import BASELINE, figure, tables, targets
from evals.methods.base import product_kernel
from evals.results import EvalResult, Value, start, timed
from evals.scorers.held_out import HeldOut
from synalign_agent.toolkit.progress import Progress

__all__ = ["Settings", "figure", "run", "tables", "targets"]

NAME = "loop"
_PARTS = ("", "+alignment", "+attributes", "+attributes+alignment")


def _arms(*demonstrations: str) -> tuple[str, ...]:
    return tuple(name + parts for name in demonstrations for parts in _PARTS)


@dataclass(frozen=True, slots=True)
class Settings(SessionSettings):
    """Which arms run, with which model, and what each gets."""

    arms: tuple[str, ...] = _arms("random", "gp", "gp_gap", "ivr", "ivr_gap")
    """`DEMONSTRATIONS[+attributes][+alignment]`"""
    max_test: int | None = None

    @classmethod
    def preset(cls, name: str) -> Settings:
        """Return the settings called quick (a minute and a half on two cores), short (five minutes) or full (hours)."""
        if name == "quick":
            return cls(arms=(BASELINE, "ivr_gap+attributes+alignment"), max_test=500, **SIZES[name])
        if name == "short":
            return cls(arms=(BASELINE, f"{BASELINE}+alignment", "ivr_gap+attributes+alignment"), **SIZES[name])
        return cls(**SIZES[name])


def run(settings: Settings, progress: Progress, data_dir: Path | None = None) -> EvalResult:
    """Run the eval, or what is left of it.

    Args:
        settings: which arms.
        progress: told (description, done, total).
        data_dir: see `datasets.load_benchmark`.

    Raises:
        InputError: the data are missing, or an arm is unknown.
        EndpointError: the model cannot be reached; run the eval again when it can.
    """
    started = time.perf_counter()
    arms = [Arm.parse(name) for name in settings.arms]
    benchmarks = load_benchmarks(
        settings.datasets, data_dir, ref=settings.max_ref, test=settings.max_test, with_pool=False
    )
    result = start(NAME, settings.public(), {b.name: b.digest for b in benchmarks}, range(settings.n_seeds))
    result.details = {"curves": [], "floor": {}}
    encoder = default_encoder()
    folder = cache_folder() / NAME
    total, done = len(benchmarks) * settings.n_seeds * len(arms), 0
    for benchmark in benchmarks:
        held_out = _held_out(benchmark, progress)
        result.details["floor"][benchmark.name] = held_out.floor(settings.n_samples)
        for seed in range(settings.n_seeds):
            curves: dict[str, list[Point]] = {}
            for arm in arms:
                progress(f"{benchmark.name}: {arm}", done, total)
                done += 1
                session = run_session(arm, benchmark, settings.effort, settings.writer, seed, folder)
                curves[str(arm)] = curve(session, benchmark, held_out, encoder, settings.max_calls)
            _score(result, benchmark.name, seed, curves)
    progress("Loop: done", total, total)
    return timed(result, started)


def calls_to(points: Sequence[Point], mmd2: float) -> int | None:
    """Return the calls after which a session first was as close as `mmd2`; None if it never was."""
    return next((point.n_calls for point in points if point.mmd2 is not None and point.mmd2 <= mmd2), None)


def _score(result: EvalResult, dataset: str, seed: int, curves: dict[str, list[Point]]) -> None:
    """Keep the curves of a seed, where they end, and the calls that each arm needs for the best of the baseline."""
    level = min((p.mmd2 for p in curves.get(BASELINE, []) if p.mmd2 is not None), default=None)
    for name, points in curves.items():
        arm = Arm.parse(name)
        condition: dict[str, Value] = {
            "dataset": dataset, "arm": name, "demonstrations": arm.demonstrations, "attributes": arm.attributes,
            "alignment": arm.alignment,
        }  # fmt: skip
        result.details["curves"].append({**condition, "seed": seed, "points": [list(point) for point in points]})
        last = points[-1] if points else None
        distance = None if last is None else last.mmd2
        result.add(condition, "mmd2", seed, distance, None if distance is not None else "no round delivered a row")
        if last is not None:
            result.add(condition, "texts_per_call", seed, last.n_pool / last.n_calls)
        if level is None:
            result.add(condition, "calls_to_baseline", seed, None, f"the arm {BASELINE} was not measured")
            continue
        calls = calls_to(points, level)
        why = None if calls is not None else f"did not come as close as {BASELINE} within its calls"
        result.add(condition, "calls_to_baseline", seed, calls, why)


def _held_out(benchmark: Benchmark, progress: Progress) -> HeldOut:
    X = embed(benchmark.test, f"{benchmark.name} test", progress)
    # The scale of all real rows that sessions draw theirs from: one kernel for all arms and seeds.
    kernel = product_kernel(embed(benchmark.ref, f"{benchmark.name} ref", progress))
    return HeldOut(X, benchmark.test.labels, len(benchmark.label_names), kernel)
