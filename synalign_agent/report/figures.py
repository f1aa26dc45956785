"""The figures of the report: numbers in, plotly figures out, readable on a light and on a dark page."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from synalign_agent.core.arrays import FloatArray

if TYPE_CHECKING:
    import plotly.graph_objects as go

Group = Literal["real", "pool", "selected"]

MAX_POINTS_PER_GROUP = 3000
_MAX_HOVER_CHARACTERS = 200
_HOVER_WIDTH = 48

# Okabe-Ito hues, moved a little so that each has a contrast of at least 3 on white and on near-black.
_BLUE, _VERMILLION, _GREY, _PURPLE = "#2e86c1", "#d55e00", "#85888d", "#b565a0"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_TEXT, _GRID = "#7d828a", "rgba(128, 128, 128, 0.22)"


@dataclass(frozen=True, slots=True)
class MapPoint:
    """A row on the map."""

    x: float
    y: float
    group: Group
    label: str
    text: str
    detail: str
    """A few words shown below the text."""


@dataclass(frozen=True, slots=True)
class _Line:
    key: str
    name: str
    color: str
    dash: str
    symbol: str


_LINES = (
    _Line("raw", "Random choice from the pool", _GREY, "solid", "square"),
    _Line("aligned", "Aligned", _VERMILLION, "solid", "diamond"),
    _Line("floor", "Real vs real (floor)", _BLUE, "dot", "circle"),
    _Line("target", "Target", _PURPLE, "dash", "line-ew-open"),
)

# In drawing order: what matters most lies on top.
_MARKERS: dict[Group, tuple[str, dict[str, Any]]] = {
    "real": ("Real", {"symbol": "circle-open", "color": _BLUE, "size": 6, "opacity": 0.75}),
    "pool": ("Pool, not selected", {"symbol": "x-thin-open", "color": _GREY, "size": 5, "opacity": 0.8}),
    "selected": ("Selected", {"symbol": "diamond", "color": _VERMILLION, "size": 6, "opacity": 0.8}),
}


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
    _style(figure)
    figure.update_layout(hovermode="x unified", dragmode=False)
    figure.update_xaxes(title_text="Round", fixedrange=True, showgrid=False, **_round_ticks(x))
    figure.update_yaxes(title_text="MMD²", fixedrange=True, gridcolor=_GRID, zerolinecolor=_GRID)
    if measured and min(measured) > 0:
        figure.update_yaxes(type="log", **_log_ticks(min(measured), max(measured)))
    return figure


def project_2d(reference: ArrayLike, others: Sequence[ArrayLike]) -> list[FloatArray]:
    """Project on the two directions in which the real rows vary most (PCA).

    Args:
        reference: (n, d) real rows; the directions and the origin come from them alone.
        others: arrays (k, d), each possibly empty.

    Returns:
        (n, 2) and then a (k, 2) for each of `others`. A direction in which the real rows do not vary is all 0. The sign
        is fixed: the largest loading of a direction is positive.
    """
    X = np.asarray(reference, dtype=np.float64)
    if not len(X):
        return [np.zeros((len(np.asarray(rows)), 2)) for rows in (reference, *others)]
    center = X.mean(axis=0)
    _, spread, directions = np.linalg.svd(X - center, full_matrices=False)
    axes = np.zeros((X.shape[1], 2))
    n_axes = min(2, int((spread > 1e-9 * max(float(np.abs(X).max()), 1e-300) * math.sqrt(X.size)).sum()))
    for place in range(n_axes):
        direction = directions[place]
        axes[:, place] = direction * np.sign(direction[np.argmax(np.abs(direction))])
    return [(np.asarray(rows, dtype=np.float64).reshape(-1, X.shape[1]) - center) @ axes for rows in (X, *others)]


def map_figure(points: Sequence[MapPoint]) -> go.Figure:
    """Draw real, pool and selected rows, one trace and one marker shape for each group that has points.

    Raises:
        ValueError: a group has more than 3000 points; the page would be slow, so the caller draws a sample.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for group, (name, marker) in _MARKERS.items():
        members = [point for point in points if point.group == group]
        if len(members) > MAX_POINTS_PER_GROUP:
            raise ValueError(f"{len(members)} points in group {group!r}, at most {MAX_POINTS_PER_GROUP} can be drawn")
        if not members:
            continue
        figure.add_scatter(
            x=[point.x for point in members], y=[point.y for point in members], name=name, mode="markers",
            marker={**marker, "line": {"width": 1.2, "color": marker["color"]} if "open" in marker["symbol"] else {}},
            hovertext=[_hover_text(name, point) for point in members], hoverinfo="text",
        )  # fmt: skip
    _style(figure)
    figure.update_layout(hovermode="closest", dragmode=False, legend_itemsizing="constant")
    figure.update_layout(margin_r=34)  # the place of the tool buttons
    figure.update_xaxes(title_text="First direction")
    figure.update_yaxes(title_text="Second direction", scaleanchor="x", scaleratio=1)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(showticklabels=False, ticks="", gridcolor=_GRID, zerolinecolor=_GRID)
    return figure


def _style(figure: go.Figure) -> None:
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"family": _FONT, "size": 13, "color": _TEXT},
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom",
        },
        hoverlabel={
            "bgcolor": "#24282e", "bordercolor": "#24282e", "align": "left",
            "font": {"color": "#f4f5f6", "size": 13, "family": _FONT},
        },
        modebar={"orientation": "v", "bgcolor": "rgba(0, 0, 0, 0)", "color": _TEXT, "activecolor": _VERMILLION},
        showlegend=True,
    )  # fmt: skip
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(automargin=True, title_standoff=8, title_font_size=13)


def _hover_text(group: str, point: MapPoint) -> str:
    heading = _wrapped(f"{group}, {point.label}" if point.label else group)
    return "<br>".join(part for part in (f"<b>{heading}</b>", _wrapped(point.text), _wrapped(point.detail)) if part)


def _wrapped(text: str) -> str:
    words = " ".join(text.split())
    if len(words) > _MAX_HOVER_CHARACTERS:
        words = words[: _MAX_HOVER_CHARACTERS - 1].rstrip() + "…"
    return "<br>".join(html.escape(line) for line in textwrap.wrap(words, _HOVER_WIDTH))


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
