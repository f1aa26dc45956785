"""Tables, picture and targets of the exploration eval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from evals.cells import Target, cell, interval_of, measured
from evals.intervals import Interval
from evals.plot_style import error_bars, look, new_figure
from evals.results import EvalResult, Measurement, Value, matching, paired_difference
from synalign_agent.config import ExploreConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS = "ivr"
_DEFAULT_SCALE = ExploreConfig().lengthscale_factor
_WANTED_PICKS, _RANDOM_PICKS = 50, 100
_METRICS = (
    ("hull", "share of the rows inside the picks' convex hull (2-D PCA)", ".3f"),
    ("nearest", "mean distance to the nearest pick", ".3f"),
    ("radius", "share of the rows within a radius of a pick", ".3f"),
    ("macro_f1", "macro-F1 of a classifier trained on the picks", ".3f"),
)


def targets(result: EvalResult) -> list[Target]:
    """Check that our picks cover as much as twice as many random ones, and are no farther from the rows than as many."""
    found: list[Target] = []
    for dataset in result.digests:
        ours = _values(result, dataset, OURS, _WANTED_PICKS, "hull")
        random = _values(result, dataset, "random", _RANDOM_PICKS, "hull")
        difference = paired_difference(ours, random)
        found.append(
            (
                f"{dataset}: hull of {_WANTED_PICKS} picks covers what that of {_RANDOM_PICKS} random ones does",
                None if difference is None else difference.mean >= 0.0,
                measured(difference, "+.3f"),
            )
        )
        for n in result.settings["picks"]:
            closer = paired_difference(
                _values(result, dataset, OURS, n, "nearest"), _values(result, dataset, "random", n, "nearest")
            )
            wanted = f"{dataset}: {n} picks a label are no farther from the rows than {n} random ones"
            found.append((wanted, None if closer is None else closer.mean <= 0.0, measured(closer, "+.3f")))
    return found


def tables(result: EvalResult) -> list[Table]:
    """Return, for each dataset, every score over the picks, and how it depends on the lengthscale."""
    found = []
    for dataset in result.digests:
        for metric, heading, spec in _METRICS:
            table = Table(title=f"{dataset}: {heading}, mean over labels and {len(result.seeds)} seeds, 95 % interval")
            table.add_column("strategy")
            for n in result.settings["picks"]:
                table.add_column(f"{n} picks", justify="right")
            for strategy in result.settings["strategies"]:
                intervals = [_interval(result, dataset, strategy, n, metric) for n in result.settings["picks"]]
                table.add_row(strategy, *(cell(interval, spec) for interval in intervals))
            found.append(table)
        found.append(_by_lengthscale(result, dataset))
    return found


def figure(result: EvalResult) -> Figure:
    """Draw, for each dataset: hull coverage, nearest pick and macro-F1 over the picks, and hull coverage over the lengthscale."""
    datasets, picks = list(result.digests), result.settings["picks"]
    drawn, grid = new_figure(len(datasets), 4, width=4.4, height=3.6)
    styles = look(result.settings["strategies"], OURS)
    for row, dataset in enumerate(datasets):
        for axes, (metric, _, _) in zip(grid[row], (_METRICS[0], _METRICS[1], _METRICS[3]), strict=False):
            for strategy in result.settings["strategies"]:
                found = [(n, _interval(result, dataset, strategy, n, metric)) for n in picks]
                _draw(axes, [(n, interval) for n, interval in found if interval is not None], strategy, styles)
            axes.set(xscale="log", xlabel="picks of each label", ylabel=metric.replace("_", " "), title=dataset)
            axes.set_xticks(picks, [str(n) for n in picks])
        axes, n = grid[row][3], _at(result)
        for strategy in _with_lengthscale(result):
            found = [(scale, _interval(result, dataset, strategy, n, "hull", scale)) for scale in _scales(result)]
            _draw(axes, [(scale, interval) for scale, interval in found if interval is not None], strategy, styles)
        axes.set(xscale="log", xlabel="lengthscale / median distance", ylabel=f"hull at {n} picks", title=dataset)
    grid[0][0].legend(fontsize=7)
    return drawn


def _by_lengthscale(result: EvalResult, dataset: str) -> Table:
    n = _at(result)
    table = Table(title=f"{dataset}: {n} picks of each label over the lengthscale / median distance")
    table.add_column("strategy, score")
    for scale in _scales(result):
        table.add_column(f"{scale:g}", justify="right")
    for strategy in _with_lengthscale(result):
        for metric, _, spec in _METRICS:
            intervals = [_interval(result, dataset, strategy, n, metric, scale) for scale in _scales(result)]
            table.add_row(f"{strategy}, {metric}", *(cell(interval, spec, bounds=False) for interval in intervals))
    return table


def _draw(axes: Any, found: list[tuple[float, Interval]], strategy: str, styles: dict[str, dict[str, Any]]) -> None:
    x, means = [at for at, _ in found], [interval.mean for _, interval in found]
    bars = error_bars([interval for _, interval in found])
    axes.errorbar(x, means, yerr=bars, ms=5, capsize=2, lw=1.2, label=strategy, **styles[strategy])


def _values(result: EvalResult, dataset: str, strategy: str, n: int, metric: str) -> list[Measurement]:
    return matching(result.measurements, metric, _where(dataset, strategy, n))


def _interval(
    result: EvalResult, dataset: str, strategy: str, n: int, metric: str, scale: float = _DEFAULT_SCALE
) -> Interval | None:
    return interval_of(result, metric, _where(dataset, strategy, n, scale))


def _where(dataset: str, strategy: str, n: int, scale: float = _DEFAULT_SCALE) -> dict[str, Value]:
    return {"dataset": dataset, "strategy": strategy, "lengthscale": scale, "picks": n}


def _with_lengthscale(result: EvalResult) -> list[str]:
    """Return the strategies that are drawn over the lengthscale: ours and the paper's, where they were run."""
    return [strategy for strategy in (OURS, "gp") if strategy in result.settings["strategies"]]


def _scales(result: EvalResult) -> list[float]:
    return sorted({*result.settings["lengthscales"], _DEFAULT_SCALE})


def _at(result: EvalResult) -> int:
    """Return the number of picks at which lengthscales are compared: that of the target, or the nearest below it."""
    picks: list[int] = result.settings["picks"]
    return max((n for n in picks if n <= _WANTED_PICKS), default=min(picks))
