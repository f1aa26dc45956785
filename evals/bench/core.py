"""Measure selection and alignment against what else one could use, side by side in one run.

Writes core.json (every number), core.md (the table) and growth.json and .png (how time and memory grow). A killed run
loses nothing that it printed: `--resume` goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from evals import machine
from evals.bench import plan, plot, table
from evals.bench.measure import answer_path, main_one, rows_path, run_apart, speeds_apart
from evals.bench.rows import Dataset, from_embeddings, from_texts, gaussian_mixture, write_rows
from evals.bench.scores import first_difference
from evals.bench.spec import OURS, Spec

_ROOT = Path(__file__).resolve().parents[2]
_RESULTS = Path(__file__).parent / "results"
_QUICK_LIMIT = 10.0
_SELECTION_SCALE = 0.5
"""Lengthscale of the selection in median distances: 0.7 for sentence embeddings, whose median distance is near 1.4."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, or one measurement of it."""
    options = _parse(arguments)
    if options.one is not None:
        main_one(options.one, options.cache)
        return
    console = Console(stderr=True)
    dataset = _dataset(options)
    folder = options.cache / f"bench-{dataset.fingerprint}-{options.seed}"
    chosen = plan.QUICK if options.quick else plan.FULL
    selection, alignment = _bases(options, dataset.median_distance())
    specs = plan.specs(chosen, selection, alignment, _QUICK_LIMIT if options.quick else options.reference_limit)
    wanted = [spec for spec in specs if any(text in spec.key for text in options.only)]
    _write_rows(folder, dataset, specs, options.seed)

    options.output = options.output or (options.cache / "quick" if options.quick else _RESULTS)
    options.output.mkdir(parents=True, exist_ok=True)
    report = _report(options, dataset, selection, alignment)
    _measure_speeds(report, folder, options.prefix)
    results: dict[str, dict[str, Any]] = report["results"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(wanted))
        for spec in wanted:
            progress.update(bar, description=spec.key)
            if options.again or spec.key not in results:
                results[spec.key] = run_apart(spec, folder, options.prefix) | {"spec": spec.to_json()}
                _save(options.output / "core.json", report)
                progress.console.print(f"{spec.key}: {_summary(results[spec.key])}", highlight=False)
            progress.advance(bar)

    for spec in specs:
        if spec.key in results:
            _compare_picks(spec, folder, results)
    growth = {
        f"real rows n (selection, T = {chosen.growth_picks})": list(plan.selection_growth(chosen, selection)),
        f"synthetic rows m (alignment, n = {chosen.growth_real:,})": list(plan.alignment_growth(chosen, alignment)),
    }
    report["growth"] = {axis: plot.fit_exponents(lines, results) for axis, lines in growth.items()}
    _measure_speeds(report, folder, options.prefix)
    _save(options.output / "core.json", report)
    _save(options.output / "growth.json", report["growth"])
    text = table.markdown(specs, results, report)
    (options.output / "core.md").write_text(text, encoding="utf-8")
    plot.draw(report["growth"], options.output / "growth.png")
    print(text)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m evals.bench.core", description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="folder with ref, pool and test.jsonl.gz to embed")
    source.add_argument(
        "--embeddings", type=Path, nargs="+", metavar="NPY", help="REAL.npy SYNTHETIC.npy [HELD_OUT.npy]"
    )
    parser.add_argument("--cache", type=Path, default=_ROOT / "runs" / "bench", help="folder for rows and answers")
    parser.add_argument(
        "--output", type=Path, help="folder for the results; default evals/bench/results, CACHE/quick if --quick"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, a few minutes")
    parser.add_argument("--resume", action="store_true", help="keep the measurements that the output folder has")
    parser.add_argument("--again", action="store_true", help="with --resume: measure what --only names once more")
    parser.add_argument(
        "--only",
        default=[""],
        nargs="+",
        metavar="TEXT",
        help="measure what has one of these in its name, and nothing else",
    )
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one run of a method")
    parser.add_argument(
        "--reference-limit", type=float, default=270.0, help="the same for slow reference methods up to 10,000 rows"
    )
    parser.add_argument(
        "--prefix", default="", help="put before the command of every measurement, e.g. 'taskset -c 0,1'"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", metavar="JSON", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.embeddings is not None and len(options.embeddings) not in (2, 3):
        parser.error("--embeddings takes REAL.npy SYNTHETIC.npy and perhaps HELD_OUT.npy")
    return options


def _dataset(options: argparse.Namespace) -> Dataset:
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.embeddings is not None:
        return from_embeddings(options.embeddings, options.seed)
    shared = _ROOT.parent / "shared" / "data" / "agnews"
    folder = options.data or (shared if shared.is_dir() else None)
    return gaussian_mixture(options.seed) if folder is None else from_texts(folder, options.cache, options.seed)


def _bases(options: argparse.Namespace, median: float) -> tuple[Spec, Spec]:
    """Return what all selections, and all alignments, have in common.

    Alignment uses exp(-d^2 / median^2), the median heuristic in its most common form.
    """
    limit = _QUICK_LIMIT if options.quick else options.limit
    selection = Spec("selection", lengthscale=_SELECTION_SCALE * median, seed=options.seed, limit=limit)
    return selection, Spec("alignment", lengthscale=median / math.sqrt(2.0), seed=options.seed, limit=limit)


def _write_rows(folder: Path, dataset: Dataset, specs: Sequence[Spec], seed: int) -> None:
    """Write the files that measurements read, those missing."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "held_out.npy", dataset.held_out)
    sizes = {"real": max(spec.n for spec in specs), "synthetic": max(spec.m for spec in specs)}
    for side, base in (("real", dataset.real), ("synthetic", dataset.synthetic)):
        np.save(folder / f"{side}.npy", base)
        bootstrap = folder / f"{side}-bootstrap.npy"
        if sizes[side] > len(base) and not (
            bootstrap.exists() and len(np.load(bootstrap, mmap_mode="r")) >= sizes[side]
        ):
            write_rows(bootstrap, base, sizes[side], seed)


def _report(options: argparse.Namespace, dataset: Dataset, selection: Spec, alignment: Spec) -> dict[str, Any]:
    """Start a report, with the measurements of an earlier one on the same rows if asked to resume."""
    path = options.output / "core.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if options.resume and path.exists() else {}
    is_same = earlier.get("fingerprint") == dataset.fingerprint
    return {
        "machine": machine.describe() | {"speeds": earlier.get("machine", {}).get("speeds", {})},
        "data": dataset.description,
        "fingerprint": dataset.fingerprint,
        "base_rows": {
            "real": len(dataset.real),
            "synthetic": len(dataset.synthetic),
            "held_out": len(dataset.held_out),
        },
        "dimensions": dataset.real.shape[1],
        "seed": options.seed,
        "lengthscales": {"selection": selection.lengthscale, "alignment": alignment.lengthscale},
        "results": earlier["results"] if is_same else {},
    }


def _measure_speeds(report: dict[str, Any], folder: Path, prefix: str) -> None:
    """Keep the best speeds: before and after, in every part of a resumed run."""
    speeds = report["machine"]["speeds"]
    for name, value in speeds_apart(folder, prefix).items():
        speeds[name] = max(value, speeds.get(name, 0.0))


def _compare_picks(spec: Spec, folder: Path, results: dict[str, dict[str, Any]]) -> None:
    """Add the share of picks that are ours, at the same place in the order."""
    ours = Spec(**{**spec.to_json(), "method": OURS})
    if spec.task != "selection" or "not_run" in results[spec.key] or not answer_path(folder, ours).exists():
        return
    picks, reference = np.load(answer_path(folder, spec)), np.load(answer_path(folder, ours))
    results[spec.key]["same_picks"] = float((picks == reference[: len(picks)]).mean())
    results[spec.key]["same_set"] = len(np.intersect1d(picks, reference[: len(picks)])) / len(picks)
    X = np.load(rows_path(folder, "real", spec.n), mmap_mode="r")
    if (found := first_difference(X, reference, picks, spec)) is not None:
        results[spec.key]["n_same_first"], results[spec.key]["lead_of_ours"] = found


def _save(path: Path, report: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=1), encoding="utf-8")
    partial.replace(path)


def _summary(result: dict[str, Any]) -> str:
    if "not_run" in result:
        return f"not run: {result['not_run']}"
    summary = f"{result['seconds']:.3g} s, {result['cpu_seconds']:.3g} CPU s, {result['peak_memory_mb']:,.0f} MB"
    return f"{summary}, {result['others_cores']:.1f} processors busy with other work"


if __name__ == "__main__":
    main()
