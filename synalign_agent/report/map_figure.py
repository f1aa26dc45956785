"""The map: real, pool and selected rows as points, with their texts."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from synalign_agent.report.figures import BLUE, GREY, VERMILLION, styled

if TYPE_CHECKING:
    import plotly.graph_objects as go

Group = Literal["real", "pool", "selected"]

MAX_POINTS_PER_GROUP = 3000
_MAX_HOVER_CHARACTERS = 200
_HOVER_WIDTH = 48

# In drawing order: what matters most lies on top.
GROUPS: dict[Group, str] = {"real": "Real", "pool": "Raw, not selected", "selected": "Selected"}
_MARKERS: dict[Group, dict[str, Any]] = {
    "real": {"symbol": "circle-open", "color": BLUE, "size": 6, "opacity": 0.75},
    "pool": {"symbol": "x-thin-open", "color": GREY, "size": 5, "opacity": 0.8},
    "selected": {"symbol": "diamond", "color": VERMILLION, "size": 6, "opacity": 0.8},
}


@dataclass(frozen=True, slots=True)
class MapPoint:
    """A row on the map."""

    x: float
    """Along the first direction."""
    y: float
    group: Group
    label: str
    text: str
    detail: str
    """A few words shown below the text."""
    sample_id: str = ""
    """Of a synthetic row: what a click shows the lineage of."""
    neighbourhood: tuple[float, float] | None = None
    """Place on the map of neighbourhoods."""


def map_figure(points: Sequence[MapPoint], *, neighbourhoods: bool = False) -> go.Figure:
    """Draw real, raw and selected rows, one trace and one marker shape for each group that has points.

    Args:
        points: rows; those without a place are left out.
        neighbourhoods: lay them out by neighbourhood (t-SNE) instead of by direction (PCA).

    Raises:
        ValueError: a group has more than 3000 points; the page would be slow, so the caller draws a sample.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for group, name in GROUPS.items():
        members = [point for point in points if point.group == group]
        if len(members) > MAX_POINTS_PER_GROUP:
            raise ValueError(f"{len(members)} points in group {group!r}, at most {MAX_POINTS_PER_GROUP} can be drawn")
        places = [point.neighbourhood if neighbourhoods else (point.x, point.y) for point in members]
        shown = [(place, point) for place, point in zip(places, members, strict=True) if place is not None]
        if not shown:
            continue
        marker = _MARKERS[group]
        figure.add_scatter(
            x=[round(place[0], 4) for place, _ in shown], y=[round(place[1], 4) for place, _ in shown], name=name,
            mode="markers",
            marker={**marker, "line": {"width": 1.2, "color": marker["color"]} if "open" in marker["symbol"] else {}},
            hovertext=[_hover_text(name, point) for _, point in shown], hoverinfo="text",
            customdata=[point.sample_id for _, point in shown] if group != "real" else None,
        )  # fmt: skip
    styled(figure)
    figure.update_layout(hovermode="closest", dragmode=False, legend_itemsizing="constant")
    figure.update_layout(margin_r=34)  # the place of the tool buttons
    figure.update_xaxes(title_text="" if neighbourhoods else "First direction")
    figure.update_yaxes(title_text="" if neighbourhoods else "Second direction")
    if not neighbourhoods:  # whose distances mean nothing, so that they may fill the page
        figure.update_yaxes(scaleanchor="x", scaleratio=1)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(showticklabels=False, ticks="", showgrid=not neighbourhoods, zeroline=not neighbourhoods)
    return figure


def _hover_text(group: str, point: MapPoint) -> str:
    heading = _wrapped(f"{group}, {point.label}" if point.label else group)
    return "<br>".join(part for part in (f"<b>{heading}</b>", _wrapped(point.text), _wrapped(point.detail)) if part)


def _wrapped(text: str) -> str:
    words = " ".join(text.split())
    if len(words) > _MAX_HOVER_CHARACTERS:
        words = words[: _MAX_HOVER_CHARACTERS - 1].rstrip() + "…"
    return "<br>".join(html.escape(line) for line in textwrap.wrap(words, _HOVER_WIDTH))
