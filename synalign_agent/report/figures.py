"""The figures of the report: numbers in, plotly figures out, readable on a light and on a dark page."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe-Ito hues, moved a little so that each has a contrast of at least 3 on white and on near-black.
BLUE, VERMILLION, GREY, _PURPLE = "#2e86c1", "#d55e00", "#85888d", "#b565a0"
SERIES = (VERMILLION, _PURPLE, "#0a8f6c", GREY, "#b58900", BLUE)
"""Colours of things without an order."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
TEXT, _GRID = "#7d828a", "rgba(128, 128, 128, 0.22)"


@dataclass(frozen=True, slots=True)
class _Line:
    key: str
    name: str
    color: str
    dash: str
    symbol: str


_LINES = (
    _Line("raw", "Random choice from the pool", GREY, "solid", "square"),
    _Line("aligned", "Aligned", VERMILLION, "solid", "diamond"),
    _Line("floor", "Real vs real (floor)", BLUE, "dot", "circle"),
    _Line("target", "Target", _PURPLE, "dash", "line-ew-open"),
)


def mmd2_by_round(rounds: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Draw the distances after each round; the y axis is logarithmic if all of them are above 0.

    Args:
        rounds: the metrics of each round: `round`, and `mmd2` with `raw`, `aligned`, `floor` and `target`, each of
            which may be None. A line of which nothing was measured is left out.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    x = [entry["round"] for entry in rounds]
    measured: list[float] = []
    for line in _LINES:
        y = [_finite(entry["mmd2"].get(line.key)) for entry in rounds]
        known = [value for value in y if value is not None]
        if not known:
            continue
        measured += known
        figure.add_scatter(
            x=x, y=y, name=line.name, mode="lines+markers", connectgaps=False,
            line={"color": line.color, "dash": line.dash, "width": 2},
            marker={"symbol": line.symbol, "color": line.color, "size": 8, "line": {"color": line.color, "width": 2}},
            hovertemplate=f"{line.name}: %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    styled(figure)
    figure.update_layout(hovermode="x unified", dragmode=False)
    figure.update_xaxes(title_text="Round", fixedrange=True, showgrid=False, **_round_ticks(x))
    figure.update_yaxes(title_text="MMD²", fixedrange=True)
    if measured and min(measured) > 0:
        figure.update_yaxes(type="log", **_log_ticks(min(measured), max(measured)))
    return figure


def weight_histogram(distribution: Mapping[str, Any]) -> go.Figure:
    """Draw how many pool rows have which weight, in units of equal weights.

    Args:
        distribution: what `weights.weight_distribution` returned; without a histogram the figure is empty.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    histogram = distribution.get("histogram")
    if histogram:
        edges = histogram["edges"]
        figure.add_bar(
            x=[(low + high) / 2 for low, high in itertools.pairwise(edges)], y=histogram["counts"], name="Pool rows",
            width=edges[1] - edges[0], marker={"color": VERMILLION, "line": {"width": 1, "color": "rgba(128, 128, 128, 0.6)"}},
            customdata=[[low, high] for low, high in itertools.pairwise(edges)],
            hovertemplate="%{y} rows with %{customdata[0]:.3g} to %{customdata[1]:.3g} times an equal weight<extra></extra>",
        )  # fmt: skip
        figure.add_vline(
            x=1.0, line={"color": BLUE, "dash": "dot", "width": 2},
            annotation={"text": "equal weights", "font": {"color": TEXT}, "yanchor": "top"},
        )  # fmt: skip
    styled(figure)
    figure.update_layout(showlegend=False, dragmode=False, bargap=0)
    figure.update_xaxes(
        title_text="Weight, in units of an equal weight", fixedrange=True, showgrid=False, rangemode="tozero"
    )
    figure.update_yaxes(title_text="Pool rows", fixedrange=True)
    return figure


def styled(figure: go.Figure) -> None:
    """Give a figure the page's font and colours, and a transparent ground."""
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"family": _FONT, "size": 13, "color": TEXT},
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom",
        },
        hoverlabel={
            "bgcolor": "#24282e", "bordercolor": "#24282e", "align": "left",
            "font": {"color": "#f4f5f6", "size": 13, "family": _FONT},
        },
        modebar={"orientation": "v", "bgcolor": "rgba(0, 0, 0, 0)", "color": TEXT, "activecolor": VERMILLION},
        showlegend=True,
    )  # fmt: skip
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(automargin=True, title_standoff=8, title_font_size=13, gridcolor=_GRID, zerolinecolor=_GRID)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _round_ticks(rounds: Sequence[int]) -> dict[str, Any]:
    if not rounds:
        return {}
    low, high = min(rounds), max(rounds)
    return {
        "range": [low - 0.4, high + 0.4],
        "tickmode": "linear",
        "tick0": low,
        "dtick": max(1, math.ceil((high - low) / 12)),
    }


_MANTISSAS = (
    (1.0,),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0),
)


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    """Return a padded range and ticks at round numbers, as many as a narrow range needs."""
    low, high = low / 1.25, high * 1.25
    ticks: list[float] = []
    for mantissas in _MANTISSAS:
        decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        ticks = [tick for decade in decades for m in mantissas if low <= (tick := float(f"{m}e{decade}")) <= high]
        if len(ticks) >= 4:
            break
    return {
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
        "minor": {"showgrid": False, "ticks": ""},
    }
