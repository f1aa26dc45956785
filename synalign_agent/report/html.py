"""The report of a session as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from synalign_agent.report import tables
from synalign_agent.report.figures import mmd2_by_round, weight_histogram
from synalign_agent.report.map_figure import MapPoint, map_figure
from synalign_agent.report.plotly_bundle import figure_json, plotly_script, script_json
from synalign_agent.report.templates import asset, template
from synalign_agent.report.verdict import fork_sentence, label_name, reference_note, state, verdict, worth

_MAX_PAIRS = 50
_PAIRS_IN_VIEW = 10
_MAX_VALUES = 12
"""Of an attribute dimension."""
_SCORED_NAMES = {"holdout": "Real, held out", "reference": "Real", "mixed": "Real, held out if any"}


def render_report(
    *,
    summary: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
    points: Sequence[MapPoint],
    rejection_examples: Mapping[str, Sequence[tuple[str, str]]],
    samples: Sequence[Mapping[str, Any]],
    attributes: Sequence[Mapping[str, Any]],
    config_yaml: str,
    task: str = "",
    ledger: Mapping[str, Any] | None = None,
    analysis: Mapping[str, Any] | None = None,
    lineage: Mapping[str, Any] | None = None,
) -> str:
    """Return the page. The same arguments give the same page.

    Args:
        summary: the session's numbers, as in `report/summary.py`; None is shown as "not measured".
        rounds: the metrics of each round, oldest first.
        points: rows on the map, at most 3000 per group.
        rejection_examples: reason -> (text, detail) of a few rejections.
        samples: selected rows with `text`, `label`, `weight`, `nearest_real_text` and `nearest_similarity`; the 50 most
            similar are shown.
        attributes: demonstration clusters with `label`, `attributes` and `demonstrations`.
        config_yaml: the configuration.
        task: what the texts are.
        ledger: what the calls cost and bought, as in `report/ledger.py`; None leaves its tables out.
        analysis: what `report/analysis.py` found; None where no round is finished.
        lineage: where samples come from, as in `report/lineage.py`.
    """
    found = analysis or {}
    gaps, weights = found.get("gap_map"), found.get("weights")
    figures = _figures(rounds, points, weights or {})
    mmd2 = summary.get("mmd2") or {}
    rounds_text = tables.rounds_text(rounds)
    pairs = sorted(samples, key=lambda row: _or(row["nearest_similarity"], -math.inf), reverse=True)[:_MAX_PAIRS]
    return template("report.html.j2").render(
        style=asset("style.css"),
        script=asset("report.js"),
        plotly_script=plotly_script() if figures else "",
        figures=figures,
        figures_json=Markup("{{{}}}").format(
            Markup(",").join(Markup('"figure-{}":{}').format(name, json) for name, json in figures.items())
        ),
        lineage_json=script_json(lineage),
        has_lineage=bool(lineage and lineage["samples"]),
        summary=summary,
        task=task,
        n_real=found.get("n_real"),
        verdict=verdict(summary, gaps),
        worth=worth(summary),
        cost=ledger["cost_usd"] if ledger else summary.get("cost_usd"),
        state=state(summary),
        reference_note=reference_note(mmd2.get("reference")),
        forks=[fork_sentence(fork) for fork in summary.get("lineage") or ()],
        mmd2=tables.with_keys(mmd2, ("raw", "aligned", "floor", "floor_quantile", "target", "reference")),
        rows_worth=tables.rows_worth(summary),
        times_floor=tables.times_floor(mmd2),
        rounds=[
            {**entry, "mmd2": tables.with_keys(entry.get("mmd2"), ("raw", "aligned", "floor", "target"))}
            for entry in rounds
        ],
        rounds_text=rounds_text,
        map_groups=tables.map_groups(points),
        shares=[_shown(dimension) for dimension in found.get("attribute_shares") or ()],
        lengths=found.get("text_length"),
        scored_name=_SCORED_NAMES.get(mmd2.get("reference") or "", "Real"),
        gaps=None if gaps is None else [_described(gap) for gap in gaps],
        per_label=tables.per_label(summary),
        rejections=tables.rejections(summary, rejection_examples, found.get("real_rejection_rates") or {}),
        copy_check=found.get("copy_check"),
        pairs_in_view=pairs[:_PAIRS_IN_VIEW],
        pairs_folded=pairs[_PAIRS_IN_VIEW:],
        weights=weights,
        attributes=attributes,
        coverage=tables.with_keys(summary.get("coverage"), ("explored", "random", "n_demonstrations")),
        calls=tables.with_keys(summary.get("calls"), ("done", "failed", "repeated", "in_flight_lost")),
        tokens=tables.with_keys(summary.get("tokens"), ("prompt", "completion")),
        ledger=ledger,
        config_yaml=config_yaml,
    )


def _figures(
    rounds: Sequence[Mapping[str, Any]], points: Sequence[MapPoint], weights: Mapping[str, Any]
) -> dict[str, Markup]:
    """Return the figures that have something to show, as JSON."""
    figures = {"rounds": mmd2_by_round(rounds), "weights": weight_histogram(weights)}
    if points:
        figures["map"] = map_figure(points)
        figures["neighbourhoods"] = map_figure(points, neighbourhoods=True)
    return {name: figure_json(figure) for name, figure in figures.items() if figure.data}


def _described(gap: Mapping[str, Any]) -> dict[str, Any]:
    return {**gap, "label_name": label_name(gap["label"]), "missing": gap["mass"] - gap["synthetic_mass"]}


def _shown(dimension: Mapping[str, Any]) -> dict[str, Any]:
    """Return the most frequent values of a dimension, and how many there are besides."""
    values = sorted(dimension["values"], key=lambda row: -max(row["real"] or 0.0, row["selected"] or 0.0))
    largest = max((max(row["real"] or 0.0, row["selected"] or 0.0) for row in values), default=0.0)
    n_more = max(0, len(values) - _MAX_VALUES)
    return {**dimension, "values": values[:_MAX_VALUES], "n_more": n_more, "largest": largest or 1.0}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
