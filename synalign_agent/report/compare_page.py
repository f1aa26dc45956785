"""A comparison of sessions as one HTML page that needs nothing else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from synalign_agent.report.figures import BLUE, SERIES, styled
from synalign_agent.report.plotly_bundle import figure_json, plotly_script
from synalign_agent.report.templates import asset, template
from synalign_agent.report.verdict import within_noise

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SYMBOLS = ("diamond", "square", "circle", "triangle-up", "x", "star")


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """Return the page of what `compare.compare` returned."""
    sessions = comparison["sessions"]
    figure = _by_round(sessions)
    figures = {"rounds": figure_json(figure)} if figure.data else {}
    labels = list(dict.fromkeys(label for session in sessions for label in session["per_label"]))
    return template("compare.html.j2").render(
        style=asset("style.css"),
        script=asset("report.js"),
        plotly_script=plotly_script() if figures else "",
        figures=figures,
        figures_json=Markup('{{"figure-rounds":{}}}').format(figures["rounds"]) if figures else "",
        sessions=sessions,
        differences=comparison["differences"],
        per_label=[(label, [_of_label(session["per_label"].get(label)) for session in sessions]) for label in labels],
        settings=[
            (entry["field"], [json.dumps(value, ensure_ascii=False) for value in entry["values"]])
            for entry in comparison["settings"]
        ],
    )


def _of_label(row: Mapping[str, Any] | None) -> dict[str, Any]:
    mmd2 = (row or {}).get("mmd2") or {}
    return {"aligned": mmd2.get("aligned"), "floor": mmd2.get("floor"), "within_noise": within_noise(mmd2)}


def _by_round(sessions: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Draw the aligned distance of every session by round, and the first one's floor."""
    import plotly.graph_objects as go

    figure = go.Figure()
    looks = zip(itertools.cycle(SERIES), itertools.cycle(_SYMBOLS), strict=False)
    for place, (session, (color, symbol)) in enumerate(zip(sessions, looks, strict=False)):
        rounds = [entry for entry in session["by_round"] if entry["aligned"] is not None]
        if not rounds:
            continue
        if place == 0:
            figure.add_scatter(
                x=[entry["round"] for entry in rounds], y=[entry["floor"] for entry in rounds], name="Floor of the first",
                mode="lines", line={"color": BLUE, "dash": "dot", "width": 2},
                hovertemplate="Real vs real (floor): %{y:.4g}<extra></extra>",
            )  # fmt: skip
        # A name that people gave: plotly would read markup in it.
        name = session["thread_id"].replace("&", "&amp;").replace("<", "&lt;")
        figure.add_scatter(
            x=[entry["round"] for entry in rounds], y=[entry["aligned"] for entry in rounds], name=name,
            mode="lines+markers", line={"color": color, "width": max(2, 5 - 2 * place)},
            marker={"symbol": symbol, "color": color, "size": max(8, 13 - 3 * place)},
            hovertemplate="%{fullData.name}: %{y:.4g}<extra></extra>",
        )  # fmt: skip
    styled(figure)
    figure.update_layout(hovermode="x unified", dragmode=False)
    figure.update_xaxes(title_text="Round", fixedrange=True, showgrid=False, dtick=1)
    figure.update_yaxes(title_text="MMD², aligned", fixedrange=True, rangemode="tozero")
    return figure
