"""Tables, picture and target of the loop eval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from evals.cells import Target, cell, interval_of
from evals.intervals import mean_interval
from evals.plot_style import look, new_figure, plain_logarithmic
from evals.results import EvalResult, matching, paired_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE = "random"
"""The arm that others are compared with: random demonstrations, no attributes, no alignment."""
_WANTED = "gp_gap+attributes+alignment"
_OURS = "ivr_gap+attributes+alignment"
_WANTED_SHARE = 0.5


def targets(result: EvalResult) -> list[Target]:
    """Check that the whole loop needs at most half of the baseline's calls to come as close."""
    found: list[Target] = []
    for dataset in result.digests:
        for arm in (_WANTED, _OURS):
            wanted = f"{dataset}: {arm} needs half of the calls of {BASELINE}, or fewer, for the same MMD²"
            if arm not in result.settings["arms"]:
                found.append((wanted, None, "not measured"))
                continue
            shares, n_never = _shares(result, dataset, arm)
            never = f"never in {n_never} of {n_never + len(shares)} seeds"
            if not shares:
                found.append((wanted, False, never) if n_never else (wanted, None, "not measured"))
                continue
            interval = mean_interval(shares)
            met = not n_never and interval.mean <= _WANTED_SHARE
            found.append((wanted, met, f"{cell(interval, '.2f')} of the calls" + (f", {never}" if n_never else "")))
    return found


def tables(result: EvalResult) -> list[Table]:
    """Return, for each dataset, where every arm ends and how many calls it needs."""
    found = []
    for dataset in result.digests:
        settings = result.settings
        table = Table(
            title=f"{dataset}, {settings['model']}: {settings['n_samples']} rows after {settings['max_calls']} calls, "
            f"{len(result.seeds)} seeds, 95 % intervals; {settings['n_samples']} real rows score "
            f"{result.details['floor'][dataset]:.5f}"
        )
        headings = (
            "arm",
            "MMD²",
            f"less {BASELINE}'s",
            f"calls to {BASELINE}'s best",
            "never",
            "accepted texts / call",
        )
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "arm" else "right")
        for arm in settings["arms"]:
            where = {"dataset": dataset, "arm": arm}
            ours = matching(result.measurements, "mmd2", where)
            base = matching(result.measurements, "mmd2", {"dataset": dataset, "arm": BASELINE})
            difference = None if arm == BASELINE else paired_difference(ours, base)
            calls = matching(result.measurements, "calls_to_baseline", where)
            table.add_row(
                arm,
                cell(interval_of(result, "mmd2", where), ".5f"),
                cell(difference, "+.5f"),
                cell(interval_of(result, "calls_to_baseline", where), ".0f"),
                str(sum(entry.value is None for entry in calls)),
                cell(interval_of(result, "texts_per_call", where), ".2f"),
            )
        found.append(table)
    return found


def figure(result: EvalResult) -> Figure:
    """Draw, for each dataset, the mean MMD² over calls: all arms with the same parts in one panel."""
    datasets = list(result.digests)
    parts = list(dict.fromkeys(arm.partition("+")[2] for arm in result.settings["arms"]))
    drawn, grid = new_figure(len(datasets), len(parts), width=4.2, height=3.6)
    demonstrations = list(dict.fromkeys(arm.partition("+")[0] for arm in result.settings["arms"]))
    styles = look(demonstrations, "ivr_gap" if "ivr_gap" in demonstrations else None)
    for row, dataset in enumerate(datasets):
        for axes, part in zip(grid[row], parts, strict=True):
            for name in demonstrations:
                calls, means = mean_curve(result, dataset, f"{name}+{part}" if part else name)
                if len(calls):
                    axes.plot(calls, means, ms=5, lw=1.3, label=name, **styles[name])
            axes.axhline(result.details["floor"][dataset], color="black", ls=":", lw=1)
            axes.set(yscale="log", xlabel="calls", ylabel="MMD² to test rows")
            axes.set_title(f"{dataset}: {part.replace('+', ' + ') or 'neither attributes nor alignment'}", fontsize=9)
        for axes in grid[row][1:]:
            axes.sharex(grid[row][0])
            axes.sharey(grid[row][0])
        grid[row][0].autoscale()
        plain_logarithmic(grid[row][0].yaxis)
    # A panel may lack some of the demonstrations, so the legend is the figure's.
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    shown = [name for name in demonstrations if name in lines]
    floor = grid[0][0].get_lines()[-1]
    drawn.legend(
        [*(lines[name] for name in shown), floor], [*shown, "as many real rows"], loc="outside lower center", ncols=6
    )
    return drawn


def mean_curve(result: EvalResult, dataset: str, arm: str) -> tuple[list[float], list[float]]:
    """Return calls and MMD² by round, means over seeds; only rounds that every seed has, with rows to deliver."""
    curves = [
        entry["points"] for entry in result.details["curves"] if entry["dataset"] == dataset and entry["arm"] == arm
    ]
    by_round = [
        points for points in zip(*curves, strict=False) if all(distance is not None for _, distance, *_ in points)
    ]
    return (
        [float(np.mean([point[0] for point in points])) for points in by_round],
        [float(np.mean([point[1] for point in points])) for points in by_round],
    )


def _shares(result: EvalResult, dataset: str, arm: str) -> tuple[list[float], int]:
    """Return the share of the baseline's calls that an arm needs, for each seed in which it gets there, and in how many not."""
    ours, base = (
        {
            entry.seed: entry.value
            for entry in matching(result.measurements, "calls_to_baseline", {"dataset": dataset, "arm": name})
        }
        for name in (arm, BASELINE)
    )
    pairs = [(mine, base.get(seed)) for seed, mine in ours.items()]
    shares = [mine / theirs for mine, theirs in pairs if mine is not None and theirs]
    return shares, sum(mine is None and theirs is not None for mine, theirs in pairs)
