"""The table: targets first, then one problem after the other, every method as a ratio to ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evals.bench import targets
from evals.bench.measure import method_of
from evals.bench.spec import OURS, Spec
from evals.bench.targets import Results, Target

_VARIANCE_SELECTORS = ("refit", "gpytorch", "linear_operator", "full_pass")
_COST = ("method", "seconds", "× ours", "CPU s", "× ours", "peak MB", "others")
_SELECTION = (*_COST, "same picks", "mean variance", "max variance")
_ALIGNMENT = (*_COST, "objective", "gap", "held-out MMD²", "n_eq", "ESS", "rows used")


def markdown(specs: Sequence[Spec], results: Results, report: Mapping[str, Any]) -> str:
    """Render the targets and all problems that have at least one measurement."""
    machine, base = report["machine"], report["base_rows"]
    speeds = machine["speeds"]
    lines = [
        "# The numeric core against alternatives",
        "",
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gb']} GB; numpy reads "
        f"{speeds['read_gb_per_s']:.1f} GB/s in a matrix-vector product and does {speeds['gemm_gflop_per_s']:.0f} float32 "
        f"GFLOP/s in a matrix product. Data: {report['data']}, {report['dimensions']} dimensions. Sizes above "
        f"{base['real']:,} real or {base['synthetic']:,} synthetic rows are a smoothed bootstrap: right for time and memory, no "
        f"evidence of quality, and not scored on the {base['held_out']:,} held-out rows.",
        "",
        "Each row is a process of its own. Seconds and CPU seconds are of the fastest of up to five runs (one, if it takes "
        "6 s), after a run on a few rows that imports and compiles. Peak memory includes rows and libraries. \"Others\": how "
        "many of the processors were busy with other work meanwhile. \"≥\": cut off at the time limit, so the ratio is of the "
        "part that was done.",
        "",
        *_targets(results),
    ]  # fmt: skip
    for problem in dict.fromkeys(spec.problem for spec in specs):
        group = [spec for spec in specs if spec.problem == problem and spec.key in results]
        if group:
            lines += ["", *_problem(problem, group, results, report)]
    return "\n".join(lines) + "\n"


def full_pass_bytes(spec: Spec, dimensions: int) -> float:
    """Return the bytes that a pivoted Cholesky reads when all rows and columns so far are read at every step."""
    return 4.0 * spec.n * spec.n_picks * (dimensions + spec.n_picks / 2.0)


def _targets(results: Results) -> Iterator[str]:
    found = list(targets.rows(results))
    if not found:
        return
    yield from ("## Targets", "", "| problem | target | measured | in CPU seconds | met |", "|---|---|---:|---:|---|")
    for target, value, cpu, is_bound, is_met in found:
        sign = "≥ " if is_bound else ""
        in_cpu = "" if cpu is None else sign + _figure(target, cpu)
        yield (
            f"| {target.problem} | {_wanted(target)} | {sign}{_figure(target, value)} | {in_cpu} | "
            f"{'yes' if is_met else 'no'} |"
        )


def _wanted(target: Target) -> str:
    if target.quantity == "same_picks":
        return f"the picks of {target.against}"
    if target.against is not None:
        return f"≥ {target.bound:g} × faster than {target.against}"
    name = {"seconds": "", "peak_memory_mb": "", "gap": "duality gap "}[target.quantity]
    return f"{name}≤ {_figure(target, target.bound)}"


def _figure(target: Target, value: float) -> str:
    if target.quantity == "same_picks":
        return f"{value:.1%}"
    if target.against is not None:
        return f"{_number(value)} ×"
    unit = {"seconds": f"{_number(value)} s", "peak_memory_mb": f"{value:,.0f} MB", "gap": f"{value:.1e}"}
    return unit[target.quantity]


def _problem(problem: str, group: Sequence[Spec], results: Results, report: Mapping[str, Any]) -> list[str]:
    is_selection = group[0].task == "selection"
    header = _SELECTION if is_selection else _ALIGNMENT
    ours = next((results[spec.key] for spec in group if spec.method == OURS), {})
    lines = [f"## {problem}", "", f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1)]
    for spec in group:
        result = results[spec.key]
        label = method_of(spec).label
        if "not_run" in result:
            ratio = result["over_seconds"] / ours["seconds"] if "over_seconds" in result and "seconds" in ours else None
            cells = [result["not_run"], "" if ratio is None else f"≥ {_number(ratio)}"]
        else:
            cells = _cost_cells(spec, result, ours)
            cells += _selection_cells(result) if is_selection else _alignment_cells(result)
        cells += [""] * (len(header) - 1 - len(cells))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return [*lines, "", *_notes(group, ours, results, report)]


def _notes(
    group: Sequence[Spec], ours: Mapping[str, Any], results: Results, report: Mapping[str, Any]
) -> Iterator[str]:
    if group[0].task == "alignment":
        yield from _alignment_notes(group[0], ours, report)
        return
    yield from _selection_notes(group[0], report)
    for spec in group:
        if spec.method in _VARIANCE_SELECTORS and (result := results[spec.key]).get("n_same_first") is not None:
            yield (
                f"After {result['n_same_first']} equal picks, {method_of(spec).label} parts from ours: in float64 our next pick "
                f"has a variance {result['lead_of_ours']:+.1e} from that of its next pick."
            )


def _selection_notes(spec: Spec, report: Mapping[str, Any]) -> Iterator[str]:
    speeds = report["machine"]["speeds"]
    moved = full_pass_bytes(spec, report["dimensions"])
    flops = 2.0 * spec.n * spec.n_picks * (report["dimensions"] + spec.n_picks / 2.0)
    yield (
        f"A full pass a step reads {moved / 1e9:,.1f} GB, {_number(moved / 1e9 / speeds['read_gb_per_s'])} s at the speed of "
        f"memory; bringing every row up to date in matrix products is {flops / 1e9:,.0f} GFLOP, "
        f"{_number(flops / 1e9 / speeds['gemm_gflop_per_s'])} s."
    )


def _alignment_notes(spec: Spec, ours: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    n_used = min(spec.n, 50_000)
    flops = 2.0 * spec.m * n_used * report["dimensions"]
    yield (
        f"The mean kernel with {n_used:,} real rows, which all methods but the projections need, is {flops / 1e9:,.0f} GFLOP, "
        f"{_number(flops / 1e9 / report['machine']['speeds']['gemm_gflop_per_s'])} s; a dense K is "
        f"{4.0 * spec.m**2 / 1e9:,.1f} GB."
    )
    if "floor_times_rows" in ours:
        yield (
            f"Floor of the held-out MMD²: real rows, {spec.m:,} of them or as many as the ESS, would score "
            f"{ours['floor_times_rows'] / spec.m:.2e} and {ours['floor_times_rows'] / ours['ess']:.2e}."
        )
    if ours.get("sampling_excess"):
        yield (
            f"Ours matched a subsample of the real rows: that costs the objective {ours['sampling_excess']:.1e} at most on "
            f"average, and leaves it with a standard error of {ours['objective_error']:.1e}."
        )


def _cost_cells(spec: Spec, result: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    seconds = _number(result["seconds"])
    if not result["is_finished"]:
        done = f"{result['n_done']} of {spec.n_picks} picks" if spec.n_picks else f"{result['n_iterations']:,} steps"
        seconds += f" for {done}"
    ratios = [
        ("" if result["is_finished"] else "≥ ") + _number(result[name] / ours[name]) if name in ours else ""
        for name in ("seconds", "cpu_seconds")
    ]
    memory = f"{result['peak_memory_mb']:,.0f}"
    return [seconds, ratios[0], _number(result["cpu_seconds"]), ratios[1], memory, f"{result['others_cores']:.1f}"]


def _selection_cells(result: Mapping[str, Any]) -> list[str]:
    same = result.get("same_picks")
    cells = ["" if same is None else f"{same:.1%}"]
    if not result["is_finished"]:
        return cells
    return [*cells, f"{result['mean_variance']:.4f}", f"{result['max_variance']:.4f}"]


def _alignment_cells(result: Mapping[str, Any]) -> list[str]:
    has_quality = "mmd2_held_out" in result
    n_eq = result["n_eq"] if has_quality else None
    return [
        f"{result['objective']:.6f}" if "objective" in result else "",
        "" if result["gap"] is None else f"{result['gap']:.1e}",
        f"{result['mmd2_held_out']:.3e}" if has_quality else "",
        "" if not has_quality else "∞" if n_eq is None else f"{n_eq:,.0f}",
        f"{result['ess']:,.0f}",
        f"{result['support']:,}",
    ]


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
