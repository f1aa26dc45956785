"""Tables, picture and targets of the alignment eval."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.table import Table

from evals.cells import Target, cell, interval_of, measured
from evals.methods import LABELS, OURS, SESSION
from evals.plot_style import error_bars, look, new_figure, plain_logarithmic
from evals.results import EvalResult, matching, paired_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MIXTURE = {"pool": "mixture", "reference": "all"}
_NAMES = {**LABELS, "real": "real rows"}
_TARGET_RATIO = 1.0 / 8.0
_SCORES: tuple[tuple[str, str, str], ...] = (
    ("n_selected", "rows", ",.0f"),
    ("mmd2", "MMD²", ".5f"),
    ("n_eq", "worth real rows", ",.0f"),
    ("precision", "precision", ".3f"),
    ("recall", "recall", ".3f"),
    ("coverage", "coverage", ".3f"),
    ("c2st_auc", "C2ST AUC", ".3f"),
    ("distinct_2", "distinct-2", ".3f"),
    ("near_duplicates", "near dup.", ".1%"),
    ("ess", "own ESS", ",.0f"),
    ("ess_even_weights", "ESS, at least n", ",.0f"),
    ("mmd2_even_weights", "MMD² of these weights", ".5f"),
    ("mmd2_ours_as_even_weights", "of ours, as even", ".5f"),
    ("seconds", "seconds", ".2f"),
    ("peak_mb", "peak MB", ",.0f"),
)


def targets(result: EvalResult) -> list[Target]:
    """Check that the aligned rows' distance is an eighth of the raw pool's at most, and below every other method's."""
    found: list[Target] = []
    for dataset in result.digests:
        for method, what in ((OURS, "aligned rows"), (SESSION, "rows aligned as sessions do")):
            if method not in result.settings["methods"]:
                continue
            ratio = _ratio(result, {"dataset": dataset, **_MIXTURE}, method)
            wanted = f"{dataset}: MMD² of {result.settings['n_selected']:,} {what} ≤ 1/8 of that of random rows"
            is_met = None if ratio is None else ratio <= _TARGET_RATIO
            found.append((wanted, is_met, "not measured" if ratio is None else f"1/{1.0 / ratio:.1f}"))
        found.extend(_against_others(result, dataset))
    return found


def _against_others(result: EvalResult, dataset: str) -> Iterator[Target]:
    for method in _methods(result):
        if method in (OURS, SESSION):
            continue
        other = {"dataset": dataset, **_MIXTURE, "method": method}
        selected = matching(result.measurements, "mmd2", {**other, "method": OURS})
        weighted = matching(result.measurements, "mmd2_ours_as_even_weights", other)
        for ours, metric, what in (
            (selected, "mmd2", "selected rows"),
            (weighted, "mmd2_even_weights", "weights at equal ESS"),
        ):
            difference = paired_difference(ours, matching(result.measurements, metric, other))
            wanted = f"{dataset}, {what}: MMD² below {LABELS[method]}"
            is_below = None if difference is None or difference.high is None else difference.high < 0.0
            yield wanted, is_below, measured(difference, "+.5f")


def tables(result: EvalResult) -> list[Table]:
    """Return the targets, and for each dataset the scores of the mixture, the reference sizes, the pools and what is missing."""
    found = []
    for dataset in result.digests:
        found += [_scores(result, dataset), _by_reference(result, dataset), _by_pool(result, dataset)]
        if result.details["missing_modes"].get(dataset):
            found.append(_missing(result, dataset))
    return found


def _scores(result: EvalResult, dataset: str) -> Table:
    n, floor = result.settings["n_selected"], result.details["floor"][dataset]
    table = Table(
        title=f"{dataset}: {n:,} rows of {result.settings['pool_rows']:,} of the mixture, all reference rows; "
        f"{len(result.seeds)} seeds, 95 % intervals; {n:,} real rows score {floor:.5f} on average"
    )
    table.add_column("method")
    for _, heading, _ in _SCORES:
        table.add_column(heading, justify="right")
    where = {"dataset": dataset, **_MIXTURE}
    for method in [*_methods(result), "real"]:
        found = [
            (interval_of(result, metric, {**where, "method": method}), metric, spec) for metric, _, spec in _SCORES
        ]
        cells = [cell(interval, spec, bounds=metric.startswith("mmd2")) for interval, metric, spec in found]
        table.add_row(_NAMES[method], *cells)
    return table


def _by_reference(result: EvalResult, dataset: str) -> Table:
    references = _references(result)
    table = Table(title=f"{dataset}: MMD² of the selected rows over the reference rows of each label")
    table.add_column("method")
    for reference in references:
        table.add_column(reference, justify="right")
    for method in _methods(result):
        where = {"dataset": dataset, "pool": "mixture", "method": method}
        found = [interval_of(result, "mmd2", {**where, "reference": reference}) for reference in references]
        table.add_row(LABELS[method], *(cell(interval, ".5f") for interval in found))
    return table


def _by_pool(result: EvalResult, dataset: str) -> Table:
    n = result.settings["n_from_generator"]
    table = Table(title=f"{dataset}: MMD² of {n:,} rows from the pool of one model, all reference rows")
    table.add_column("pool")
    for method in _methods(result):
        table.add_column(LABELS[method].split(" (")[0], justify="right")
    table.add_column("ours over random", justify="right")
    for pool in _pools(result, dataset):
        where = {"dataset": dataset, "pool": pool, "reference": "all"}
        ratio = _ratio(result, where)
        found = [interval_of(result, "mmd2", {**where, "method": method}) for method in _methods(result)]
        cells = [cell(interval, ".5f", bounds=False) for interval in found]
        # A pool that is too small has a line too: what is left out is seen.
        table.add_row(pool, *cells, "–" if ratio is None else f"1/{1.0 / ratio:.1f}")
    return table


def _missing(result: EvalResult, dataset: str) -> Table:
    table = Table(
        title=f"{dataset}: kinds of test rows that our selection has too few of, largest part of the MMD² first"
    )
    for heading in ("label", "words that mark them", "test", "selected", "pool"):
        table.add_column(heading, justify="left" if heading in ("label", "words that mark them") else "right")
    for mode in result.details["missing_modes"][dataset]:
        shares = [f"{mode[name]:.1%}" for name in ("test", "selected", "pool")]
        table.add_row(mode["label"], ", ".join(mode["words"]), *shares)
    return table


def figure(result: EvalResult) -> Figure:
    """Draw, for each dataset: selected rows by method, over the reference size, and weights over their ESS."""
    datasets = list(result.digests)
    drawn, grid = new_figure(len(datasets), 3, width=5.6, height=4.2)
    styles = look([method for method in LABELS if method != SESSION], OURS)
    styles[SESSION] = {**styles[OURS], "marker": "P"}
    panels: tuple[Callable[..., None], ...] = (_draw_methods, _draw_references, _draw_ess)
    for row, dataset in enumerate(datasets):
        for axes, draw in zip(grid[row], panels, strict=True):
            draw(axes, result, dataset, styles)
    return drawn


def _draw_methods(axes: Any, result: EvalResult, dataset: str, styles: dict[str, dict[str, Any]]) -> None:
    methods = _methods(result)
    found = {
        method: interval_of(result, "mmd2", {"dataset": dataset, **_MIXTURE, "method": method}) for method in methods
    }
    for at, method in enumerate(reversed(methods)):
        if (interval := found[method]) is not None:
            axes.errorbar(interval.mean, at, xerr=error_bars([interval]), ms=9, capsize=3, ls="", **styles[method])
    axes.set_yticks(range(len(methods)), [LABELS[method] for method in reversed(methods)])
    raw = found.get("random")
    if raw is not None:
        axes.axvline(raw.mean * _TARGET_RATIO, color="black", ls="--", lw=1, label="1/8 of random")
    axes.axvline(result.details["floor"][dataset], color="black", ls=":", lw=1, label="as many real rows")
    axes.set(xscale="log", xlabel="MMD² of the selected rows to test rows", title=dataset)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.3, -0.15), ncols=2, frameon=False)
    plain_logarithmic(axes.xaxis)


def _draw_references(axes: Any, result: EvalResult, dataset: str, styles: dict[str, dict[str, Any]]) -> None:
    references = _references(result)
    for method in _methods(result):
        where = {"dataset": dataset, "pool": "mixture", "method": method}
        found = [interval_of(result, "mmd2", {**where, "reference": reference}) for reference in references]
        known = [(at, interval) for at, interval in enumerate(found) if interval is not None]
        means, bars = [interval.mean for _, interval in known], error_bars([interval for _, interval in known])
        axes.errorbar(
            [at for at, _ in known], means, yerr=bars, ms=7, capsize=2, lw=1.2, label=LABELS[method], **styles[method]
        )  # fmt: skip
    axes.set_xticks(range(len(references)), references)
    axes.set(yscale="log", xlabel="reference rows of each label", ylabel="MMD² of the selected rows")
    plain_logarithmic(axes.yaxis)


def _draw_ess(axes: Any, result: EvalResult, dataset: str, styles: dict[str, dict[str, Any]]) -> None:
    where = {"dataset": dataset, **_MIXTURE}
    curve = []
    for least in dict.fromkeys(
        entry.condition["least_ess"] for entry in matching(result.measurements, "curve_ess", where)
    ):
        ess, mmd2 = (
            interval_of(result, metric, {**where, "least_ess": least}) for metric in ("curve_ess", "curve_mmd2")
        )
        if ess is not None and mmd2 is not None:
            curve.append((ess.mean, mmd2.mean))
    if curve:
        axes.plot(*zip(*sorted(curve), strict=True), "-", color=styles[OURS]["color"], lw=1.5, zorder=3)
    for method in _methods(result):
        ess, mmd2 = (
            interval_of(result, metric, {**where, "method": method})
            for metric in ("ess_even_weights", "mmd2_even_weights")
        )
        if ess is not None and mmd2 is not None:
            axes.errorbar(
                ess.mean, mmd2.mean, yerr=error_bars([mmd2]), ms=8, capsize=3, ls="", label=LABELS[method], **styles[method]
            )  # fmt: skip
    axes.set(
        xscale="log", yscale="log", xlabel="effective sample size of the weights", ylabel="MMD² of the weighted pool"
    )
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    plain_logarithmic(axes.xaxis)
    plain_logarithmic(axes.yaxis)


def _ratio(result: EvalResult, where: dict[str, Any], ours_by: str = OURS) -> float | None:
    ours, raw = (interval_of(result, "mmd2", {**where, "method": method}) for method in (ours_by, "random"))
    return None if ours is None or raw is None else ours.mean / raw.mean


def _methods(result: EvalResult) -> list[str]:
    return [method for method in LABELS if method in result.settings["methods"]]


def _references(result: EvalResult) -> list[str]:
    return list(result.settings["references"])


def _pools(result: EvalResult, dataset: str) -> list[str]:
    pools = dict.fromkeys(
        str(entry.condition["pool"]) for entry in matching(result.measurements, "mmd2", {"dataset": dataset})
    )
    return [pool for pool in pools if pool != "mixture"]
