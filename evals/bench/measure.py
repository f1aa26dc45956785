"""One measurement in a process of its own: nothing warms it, its peak memory is its own, and it can be ended.

The process runs the method once on a few rows (which imports and compiles), then up to five times on the problem, and scores
the answer when time and memory are taken. Seconds are those of the fastest run, CPU seconds are of the same run.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evals import machine
from evals.bench import competitors_alignment, competitors_selection
from evals.bench.rows import read_rows
from evals.bench.scores import score_picks, score_weights
from evals.bench.spec import Method, NotRunError, Spec
from evals.machine import busy_seconds, peak_memory, physical_memory
from synalign_agent.core.arrays import Array

_REPEATS = 5
_REPEAT_SECONDS = 6.0
"""No further run starts after this."""
_WARM_UP: dict[str, dict[str, Any]] = {"selection": {"n": 64, "n_picks": 4}, "alignment": {"n": 64, "m": 640}}
_GRACE = 1.1
"""Methods that look at the clock themselves get to finish a step."""
_MEMORY_SHARE = 0.75
_ROOT = Path(__file__).resolve().parents[2]


def method_of(spec: Spec) -> Method:
    """Return the competitor that a spec names."""
    methods = competitors_selection.METHODS if spec.task == "selection" else competitors_alignment.METHODS
    return methods[spec.method]


def run_apart(spec: Spec, folder: Path, prefix: str) -> dict[str, Any]:
    """Measure in another process.

    Args:
        spec: what to measure.
        folder: holds `real.npy`, `synthetic.npy`, `held_out.npy` (see `rows_path`); picks and weights are written there.
        prefix: put before the command, such as `taskset -c 0,1`; empty for nothing.

    Returns:
        The measurement, or {"not_run": reason}, with "over_seconds" where time ran out.
    """
    needs = method_of(spec).least_bytes(spec) + 4.0 * 384 * (spec.n + spec.m)
    if needs > _MEMORY_SHARE * physical_memory():
        return {"not_run": f"needs at least {needs / 1e9:.0f} GB of memory"}
    done = _run(spec.to_json(), folder, prefix)
    if done.returncode in (-signal.SIGALRM, 128 + signal.SIGALRM):
        return {"not_run": f"over {spec.limit:g} s", "over_seconds": spec.limit}
    if done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return {"not_run": "killed, most likely for its memory"}
    if done.returncode != 0:
        last = done.stderr.strip().splitlines() or ["no message"]
        return {"not_run": f"failed: {last[-1]}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def speeds_apart(folder: Path, prefix: str) -> dict[str, float]:
    """Measure the machine in another process, under the same prefix."""
    done = _run({}, folder, prefix)
    done.check_returncode()
    speeds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return speeds


def run_here(spec: Spec, real: Array, synthetic: Array | None, held_out: Array | None) -> tuple[dict[str, Any], Any]:
    """Measure in this process.

    Args:
        spec: what to measure.
        real: (n, d).
        synthetic: (m, d), for an alignment.
        held_out: (h, d) real rows that only score, for an alignment; None for no score.

    Returns:
        The measurement, or {"not_run": reason}, and the picks or weights.
    """
    method, rows = method_of(spec), (real,) if synthetic is None else (synthetic, real)
    try:
        _warm_up(method, spec, rows)
        timing, answer = _fastest(method, spec, rows)
    except (NotRunError, MemoryError) as error:
        return {"not_run": str(error) or "out of memory"}, None
    except ImportError as error:
        return {"not_run": f"{error.name} is not installed: pip install -e '.[bench]'"}, None
    result: dict[str, Any] = timing | {"peak_memory_mb": peak_memory() / 1e6}
    if spec.task == "selection":
        result["n_done"] = len(answer)
        result["is_finished"] = len(answer) == spec.n_picks
        return result | score_picks(real, answer, spec), answer
    assert synthetic is not None
    result["is_finished"] = answer.is_finished
    return result | score_weights(synthetic, real, held_out, answer, spec), answer.w


def main_one(text: str, folder: Path) -> None:
    """Carry out a spec given as JSON and print the measurement as JSON: the other side of `run_apart`.

    Without a spec ({}) measure the machine.
    """
    fields = json.loads(text)
    if not fields:
        print(json.dumps(machine.speeds()))
        return
    spec = Spec(**fields)
    real = read_rows(rows_path(folder, "real", spec.n), spec.n)
    synthetic = read_rows(rows_path(folder, "synthetic", spec.m), spec.m) if spec.m else None
    # Bootstrapped rows say nothing about quality.
    is_real = not (is_bootstrap(folder, "real", spec.n) or is_bootstrap(folder, "synthetic", spec.m))
    held_out = np.load(folder / "held_out.npy") if spec.m and is_real else None
    result, answer = run_here(spec, real, synthetic, held_out)
    if answer is not None:
        np.save(answer_path(folder, spec), answer)
    print(json.dumps(result))


def rows_path(folder: Path, side: str, n: int) -> Path:
    """Return the file that starts with the n rows: the base rows if they are enough, else the bootstrapped ones."""
    return folder / (f"{side}-bootstrap.npy" if is_bootstrap(folder, side, n) else f"{side}.npy")


def is_bootstrap(folder: Path, side: str, n: int) -> bool:
    """Return whether n rows are more than the base rows."""
    return n > len(np.load(folder / f"{side}.npy", mmap_mode="r"))


def answer_path(folder: Path, spec: Spec) -> Path:
    """Return the file of the picks or weights of a measurement."""
    return folder / f"{spec.key.replace(' ', '_').replace('/', '-').replace('>', '')}.npy"


def _run(fields: dict[str, Any], folder: Path, prefix: str) -> subprocess.CompletedProcess[str]:
    command = [*shlex.split(prefix), sys.executable, "-m", "evals.bench.core", "--one", json.dumps(fields)]
    # No timeout: a prefix may wait for its turn, and the process ends itself.
    return subprocess.run([*command, "--cache", str(folder)], cwd=_ROOT, capture_output=True, text=True, check=False)


def _warm_up(method: Method, spec: Spec, rows: Sequence[Array]) -> None:
    """Run on a few rows, to import and compile. Constraints are left out: they may not fit so few rows."""
    few = replace(spec, **_WARM_UP[spec.task], cap_times_m=None, min_ess=None)
    wanted = (few.n,) if spec.task == "selection" else (few.m, few.n)
    some = [part[:size] for part, size in zip(rows, wanted, strict=True)]
    few = replace(few, n=len(some[-1]), m=len(some[0]) if spec.task == "alignment" else 0)
    method.run(*some, few, time.perf_counter() + spec.limit)


def _fastest(method: Method, spec: Spec, rows: Sequence[Array]) -> tuple[dict[str, float], Any]:
    """Return seconds, CPU seconds, and how many processors others had meanwhile, of the fastest run; and the last answer."""
    runs: list[tuple[float, float, float]] = []
    answer, first = None, time.perf_counter()
    while not runs or (len(runs) < _REPEATS and time.perf_counter() - first < _REPEAT_SECONDS):
        with _ended_after(_GRACE * spec.limit):
            busy, cpu, started = busy_seconds(), time.process_time(), time.perf_counter()
            answer = method.run(*rows, spec, started + spec.limit)
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
            runs.append((seconds, cpu_seconds, max(busy_seconds() - busy - cpu_seconds, 0.0) / seconds))
    seconds, cpu_seconds, others = min(runs)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "others_cores": others, "n_runs": len(runs)}, answer


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End this process, even inside compiled code, if the block takes longer."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
