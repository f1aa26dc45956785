"""Tables, picture and targets of the copying eval."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.table import Table

from evals.cells import Target, cell, interval_of, measured
from evals.intervals import Interval
from evals.methods import LABELS, OURS
from evals.planted_copies import CHANGES, NEW
from evals.plot_style import look, new_figure
from evals.results import EvalResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GATES = {
    "words": "runs of words",
    "cosine": "cosine",
    "nearest": "cosine or share of the nearest row",
    "any": "all together",
}
SCALE = "copies_10_percent"
_METHODS = {**LABELS, SCALE: "random, a tenth of it copies"}
_NEARNESS = {
    "closer_to_shown": ("nearer to the rows that were fitted to", ".1%"),
    "nearest_cosine": ("cosine to the nearest of them", ".3f"),
    "shared_words_shown": ("longest shared run, words: mean, fitted to", ".2f"),
    "shared_words_hidden": ("… not fitted to", ".2f"),
    "shared_words_shown_p99": ("99 % quantile, fitted to", ".1f"),
    "shared_words_hidden_p99": ("… not fitted to", ".1f"),
}
_LEAST_RECALL, _MOST_FALSE_POSITIVES, _MOST_NEARER = 0.95, 0.02, 0.55


def targets(result: EvalResult) -> list[Target]:
    """Check that the gates catch every kind of copy, let new rows pass, and that alignment does not seek copies."""
    found: list[Target] = []
    for dataset in result.digests:
        for kind in CHANGES:
            recall = _rejected(result, dataset, kind, "any")
            wanted = f"{dataset}: the gates catch {_LEAST_RECALL:.0%} of copies, {kind}"
            found.append(_target(wanted, recall, lambda mean: mean >= _LEAST_RECALL))
        rejected = _rejected(result, dataset, NEW, "any")
        wanted = f"{dataset}: they reject at most {_MOST_FALSE_POSITIVES:.0%} of new rows"
        found.append(_target(wanted, rejected, lambda mean: mean <= _MOST_FALSE_POSITIVES))
        nearer = interval_of(result, "closer_to_shown", {"dataset": dataset, "method": OURS})
        wanted = f"{dataset}: at most {_MOST_NEARER:.0%} of aligned rows are nearer to the rows that were fitted to"
        found.append(_target(wanted, nearer, lambda mean: mean <= _MOST_NEARER))
    return found


def _target(wanted: str, share: Interval | None, meets: Callable[[float], bool]) -> Target:
    return wanted, None if share is None else meets(share.mean), measured(share, ".1%")


def tables(result: EvalResult) -> list[Table]:
    """Return, for each dataset, how near selections are to either half, and what the gates catch."""
    return [table(result, dataset) for dataset in result.digests for table in (_nearness, _caught)]


def _nearness(result: EvalResult, dataset: str) -> Table:
    n = result.settings["n_selected"]
    table = Table(title=f"{dataset}: {n:,} rows, aligned to one half of the reference rows and not to the other")
    table.add_column("rows")
    for heading, _ in _NEARNESS.values():
        table.add_column(heading, justify="right")
    for method in (*result.settings["methods"], SCALE):
        where = {"dataset": dataset, "method": method}
        cells = [cell(interval_of(result, metric, where), spec) for metric, (_, spec) in _NEARNESS.items()]
        table.add_row(_METHODS[method], *cells)
    return table


def _caught(result: EvalResult, dataset: str) -> Table:
    table = Table(title=f"{dataset}: share rejected, {result.settings['n_planted']:,} rows of each kind a seed")
    table.add_column("rows")
    for heading in GATES.values():
        table.add_column(heading, justify="right")
    for kind in (*CHANGES, NEW):
        table.add_row(
            f"copy, {kind}" if kind in CHANGES else "real test row, new to the gates",
            *(cell(_rejected(result, dataset, kind, gate), ".1%") for gate in GATES),
        )
    where = {"dataset": dataset, "copy": "all"}
    table.add_row(
        "precision, with as many copies of all kinds as new rows",
        *(cell(interval_of(result, "precision", {**where, "gate": gate}), ".1%") for gate in GATES),
    )
    return table


def figure(result: EvalResult) -> Figure:
    """Draw, for each dataset, the share of every kind of copy that each gate rejects."""
    datasets, kinds = list(result.digests), (*CHANGES, NEW)
    drawn, grid = new_figure(1, len(datasets), width=7.0, height=4.4)
    styles = look(list(GATES.values()), GATES["any"])
    for axes, dataset in zip(grid[0], datasets, strict=True):
        for gate, label in GATES.items():
            shares = [_rejected(result, dataset, kind, gate) for kind in reversed(kinds)]
            known = [(at, share) for at, share in enumerate(shares) if share is not None]
            axes.plot(
                [share.mean for _, share in known], [at for at, _ in known], ls="", ms=8, label=label, **styles[label]
            )
        axes.set_yticks(range(len(kinds)), list(reversed(kinds)))
        axes.set(xlabel="share rejected", xlim=(-0.03, 1.03), title=dataset)
        axes.legend(fontsize=8, loc="lower right")
    return drawn


def _rejected(result: EvalResult, dataset: str, kind: str, gate: str) -> Interval | None:
    """Return the share of planted rows of a kind that a gate rejects: wanted of copies, unwanted of new rows."""
    metric = "false_positive_rate" if kind == NEW else "recall"
    return interval_of(result, metric, {"dataset": dataset, "copy": kind, "gate": gate})
