"""Table, picture and target of the attributes eval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from evals.cells import Target, cell, interval_of, measured
from evals.plot_style import OURS_COLOUR, error_bars, new_figure
from evals.results import EvalResult, matching, paired_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = (
    ("recovered", "recovered"),
    ("recovered_by_chance", "by chance"),
    ("drift", "drift of the pool"),
    ("drift_by_chance", "by chance"),
    ("drift_aligned", "of the result"),
    ("drift_aligned_by_chance", "by chance"),
)
"""Every score is followed by what chance gives at its number of texts."""


def targets(result: EvalResult) -> list[Target]:
    """Check that readings recover more than chance does."""
    found: list[Target] = []
    for dataset in result.digests:
        where = {"dataset": dataset}
        difference = paired_difference(
            matching(result.measurements, "recovered", where),
            matching(result.measurements, "recovered_by_chance", where),
        )
        met = None if difference is None or difference.low is None else difference.low > 0.0
        wanted = f"{dataset}: stated attributes are recovered more often than by chance"
        found.append((wanted, met, measured(difference, "+.3f")))
    return found


def tables(result: EvalResult) -> list[Table]:
    """Return, for each dataset, recovery and drift; dimensions that seeds named differently are summed up in one row."""
    found = []
    for dataset in result.digests:
        table = Table(
            title=f"{dataset}, {result.settings['model']}: {result.settings['n_read']} synthetic and as many real texts read, "
            f"{len(result.seeds)} seeds, 95 % intervals"
        )
        for heading in ("dimension", *(heading for _, heading in _COLUMNS)):
            table.add_column(heading, justify="left" if heading == "dimension" else "right")
        table.add_row(
            "all", *(cell(interval_of(result, metric, {"dataset": dataset}), ".3f") for metric, _ in _COLUMNS)
        )
        for dimension in _dimensions(result, dataset):
            where = {"dataset": dataset, "dimension": dimension}
            table.add_row(dimension, *(cell(interval_of(result, metric, where), ".3f") for metric, _ in _COLUMNS))
        found.append(table)
    return found


def figure(result: EvalResult) -> Figure:
    """Draw every score beside what chance gives."""
    datasets = list(result.digests)
    drawn, grid = new_figure(1, len(datasets), width=5.2)
    for axes, dataset in zip(grid[0], datasets, strict=True):
        for at, (metric, _) in enumerate(_COLUMNS):
            interval = interval_of(result, metric, {"dataset": dataset})
            if interval is not None:
                colour = "#999999" if metric.endswith("chance") else OURS_COLOUR
                axes.errorbar(at, interval.mean, yerr=error_bars([interval]), fmt="o", ms=8, capsize=3, color=colour)
        names = [metric.replace("_", "\n") for metric, _ in _COLUMNS]
        axes.set_xticks(range(len(_COLUMNS)), names, fontsize=8)
        axes.set(ylim=(0.0, 1.0), ylabel="share", title=dataset)
    return drawn


def _dimensions(result: EvalResult, dataset: str) -> list[str]:
    """Return the dimensions that all seeds have; a model names them anew in every session."""
    seeds: dict[str, set[int]] = {}
    for entry in result.measurements:
        if entry.condition.get("dataset") == dataset and "dimension" in entry.condition:
            seeds.setdefault(str(entry.condition["dimension"]), set()).add(entry.seed)
    return [dimension for dimension, found in seeds.items() if len(found) == len(result.seeds)]
