"""Tables, picture and targets of the downstream eval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table

from evals.cells import Target, cell, interval_of
from evals.intervals import Interval
from evals.plot_style import error_bars, look, new_figure
from evals.results import EvalResult, matching, paired_difference
from evals.training_sets import ALIGNED, LABELS, NEED_REFERENCE, RAW, REAL, REPEATED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLASSIFIERS = {"logistic": "logistic regression", "finetuned": "fine-tuned MiniLM"}
_REFERENCES = {"": "", "all": "fitted to all reference rows", "k": "fitted to the k rows alone"}
_USUAL_SIZE = 2000
"""Synthetic rows of the targets and of the tables over k, or the largest number there is."""
_LEAST_GAIN = 0.04
"""Of macro-F1, aligned over raw, with 5 real rows of each label of AG News."""
_METRICS = {"macro_f1": "macro-F1", "accuracy": "accuracy", "ece": "calibration error"}


class Row(NamedTuple):
    """A way to train: what is added, and what it was aligned to."""

    arm: str
    reference: str

    @property
    def label(self) -> str:
        """Return what tables call it."""
        return f"{LABELS[self.arm]}, {_REFERENCES[self.reference]}" if self.reference else LABELS[self.arm]

    def where(self, m: int) -> dict[str, str | int]:
        """Return its part of a condition."""
        found: dict[str, str | int] = {"arm": self.arm, "m": 0 if self.arm == REAL else m}
        return found | {"reference": self.reference} if self.reference else found


_ROWS = [
    *(Row(arm, "") for arm in (REAL, REPEATED, RAW)),
    *(Row(arm, reference) for reference in ("all", "k") for arm in LABELS if arm in NEED_REFERENCE),
]


def targets(result: EvalResult) -> list[Target]:
    """Check what aligned rows add, to raw ones and to the real rows alone, at 5 and 25 real rows of each label."""
    found: list[Target] = []
    for dataset in result.digests:
        for classifier in _classifiers(result, dataset):
            for reference in ("all", "k"):
                least = _LEAST_GAIN if dataset == "agnews" else 0.0
                found.append(_gain(result, dataset, classifier, reference, "5", RAW, least))
                found += [_gain(result, dataset, classifier, reference, "25", other, 0.0) for other in (REAL, RAW)]
    return found


def _gain(
    result: EvalResult, dataset: str, classifier: str, reference: str, k: str, other: str, least: float
) -> Target:
    m = _usual_size(result, dataset, classifier)
    ours, against = Row(ALIGNED, reference), Row(other, "")
    difference = _difference(result, {"dataset": dataset, "classifier": classifier, "k": k}, ours, against, m)
    against_what = "real rows alone" if other == REAL else "random synthetic rows"
    wanted = f"by ≥ {100 * least:.0f} points" if least else "(interval above 0)"
    setting = f"{dataset}, {_CLASSIFIERS[classifier]}, {k} a label, {_REFERENCES[reference]}"
    text = f"{setting}: aligned beats {against_what} {wanted}"
    if difference is None:
        return text, None, "not measured"
    # A least gain is one of means; a sign is one of intervals.
    is_met = difference.mean >= least if least else (difference.low is not None and difference.low > 0.0)
    return text, is_met, _points(difference)


def tables(result: EvalResult) -> list[Table]:
    """Return, for each dataset and classifier: macro-F1 over k, paired differences, macro-F1 over m, accuracy, calibration."""
    found = []
    for dataset in result.digests:
        for classifier in _classifiers(result, dataset):
            where = {"dataset": dataset, "classifier": classifier}
            found.append(_over_k(result, where, "macro_f1"))
            found.append(_differences(result, where))
            if len(_sizes(result, dataset, classifier)) > 1:
                found.append(_over_m(result, where))
            found += [_over_k(result, where, metric) for metric in ("accuracy", "ece")]
    return found


def _over_k(result: EvalResult, where: dict[str, Any], metric: str) -> Table:
    m = _usual_size(result, where["dataset"], where["classifier"])
    table = _table(f"{_title(where)}: {_METRICS[metric]} with k real rows of each label and {m:,} synthetic rows")
    ks = _ks(result, where)
    _add_columns(table, [f"k = {k}" for k in ks])
    for row in _ROWS:
        found = [interval_of(result, metric, {**where, "k": k, **row.where(m)}) for k in ks]
        if any(found):
            table.add_row(row.label, *(cell(interval, ".3f") for interval in found))
    return table


def _differences(result: EvalResult, where: dict[str, Any]) -> Table:
    m = _usual_size(result, where["dataset"], where["classifier"])
    table = _table(f"{_title(where)}: what {m:,} aligned rows add to macro-F1, in points, paired by seed")
    ks = _ks(result, where)
    _add_columns(table, [f"k = {k}" for k in ks])
    for reference in ("all", "k"):
        for other in [row for row in _ROWS if row.reference in ("", reference) and row.arm != ALIGNED]:
            ours = Row(ALIGNED, reference)
            found = [_difference(result, {**where, "k": k}, ours, other, m) for k in ks]
            if any(found):
                name = f"{ours.label}, over: {LABELS[other.arm]}"
                table.add_row(name, *map(_points, found))
    return table


def _over_m(result: EvalResult, where: dict[str, Any]) -> Table:
    sizes = _sizes(result, where["dataset"], where["classifier"])
    table = _table(f"{_title(where)}: macro-F1 over the number of synthetic rows")
    ks = [k for k in _ks(result, where) if k in ("5", "25", "100")]
    _add_columns(table, [f"k = {k}, m = {m:,}" for k in ks for m in sizes])
    for row in [row for row in _ROWS if row.arm in (RAW, ALIGNED)]:
        found = [interval_of(result, "macro_f1", {**where, "k": k, **row.where(m)}) for k in ks for m in sizes]
        if any(found):
            table.add_row(row.label, *(cell(interval, ".3f", bounds=False) for interval in found))
    return table


def figure(result: EvalResult) -> Figure:
    """Draw macro-F1 over the real rows of each label, one panel a dataset and classifier."""
    panels = [(dataset, classifier) for dataset in result.digests for classifier in _classifiers(result, dataset)]
    n_columns = max(1, max(sum(name == dataset for name, _ in panels) for dataset in result.digests))
    drawn, grid = new_figure(len(result.digests), n_columns, width=7.0, height=4.6)
    rows = [row for row in _ROWS if row.arm in (REAL, RAW, ALIGNED)]
    styles = look([row.label for row in rows], Row(ALIGNED, "all").label)
    for line, dataset in enumerate(result.digests):
        classifiers = _classifiers(result, dataset)
        for column in range(n_columns):
            axes = grid[line][column]
            if column < len(classifiers):
                _draw(axes, result, {"dataset": dataset, "classifier": classifiers[column]}, rows, styles)
            else:
                axes.set_visible(False)
    return drawn


def _draw(axes: Any, result: EvalResult, where: dict[str, Any], rows: list[Row], styles: dict[str, Any]) -> None:
    m, ks = _usual_size(result, where["dataset"], where["classifier"]), _ks(result, where)
    for shift, row in enumerate(rows):
        found = [interval_of(result, "macro_f1", {**where, "k": k, **row.where(m)}) for k in ks]
        known = [(at, interval) for at, interval in enumerate(found) if interval is not None]
        if not known:
            continue
        # A little aside, or intervals hide each other.
        places = [at + 0.06 * (shift - (len(rows) - 1) / 2) for at, _ in known]
        means, bars = [interval.mean for _, interval in known], error_bars([interval for _, interval in known])
        axes.errorbar(places, means, yerr=bars, capsize=2, lw=1.3, ms=7, label=row.label, **styles[row.label])
    axes.set_xticks(range(len(ks)), ks)
    axes.set_xlim(-0.5, len(ks) - 0.5)
    axes.set(xlabel="real rows of each label", ylabel="macro-F1", title=f"{_title(where)}, {m:,} synthetic rows")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="lower right")


def _difference(result: EvalResult, where: dict[str, Any], ours: Row, other: Row, m: int) -> Interval | None:
    ours_found, others = (matching(result.measurements, "macro_f1", {**where, **row.where(m)}) for row in (ours, other))
    return paired_difference(ours_found, others)


def _classifiers(result: EvalResult, dataset: str) -> list[str]:
    there = {entry.condition["classifier"] for entry in result.measurements if entry.condition["dataset"] == dataset}
    return [name for name in _CLASSIFIERS if name in there]


def _ks(result: EvalResult, where: dict[str, Any]) -> list[str]:
    there = dict.fromkeys(str(entry.condition["k"]) for entry in matching(result.measurements, "macro_f1", where))
    return sorted(there, key=lambda k: float("inf") if k == "all" else int(k))


def _sizes(result: EvalResult, dataset: str, classifier: str) -> list[int]:
    found = matching(result.measurements, "macro_f1", {"dataset": dataset, "classifier": classifier, "arm": RAW})
    return sorted({int(entry.condition["m"]) for entry in found})


def _usual_size(result: EvalResult, dataset: str, classifier: str) -> int:
    sizes = _sizes(result, dataset, classifier)
    return max((size for size in sizes if size <= _USUAL_SIZE), default=min(sizes, default=0))


def _title(where: dict[str, Any]) -> str:
    return f"{where['dataset']}, {_CLASSIFIERS[where['classifier']]}"


def _table(title: str) -> Table:
    table = Table(title=title)
    table.add_column("trained on")
    return table


def _add_columns(table: Table, headings: list[str]) -> None:
    for heading in headings:
        table.add_column(heading, justify="right")


def _points(difference: Interval | None) -> str:
    """Write a difference of macro-F1 in points."""
    if difference is None:
        return cell(None, "")
    low, high = (None if end is None else 100 * end for end in (difference.low, difference.high))
    return cell(difference._replace(mean=100 * difference.mean, low=low, high=high), "+.1f")
