"""How the evals' figures look: colours that colour-blind people tell apart, and ours always the same one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evals.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS_COLOUR = "#d55e00"
_COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""Okabe and Ito, "Color universal design" (2008), without the yellow, which is too light for lines, and with a grey."""
_MARKERS = "osD^vPX"
_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 110,
}


def look(names: Sequence[str], ours: str | None = None) -> dict[str, dict[str, Any]]:
    """Return colour and marker of each name, for `Axes.errorbar` or `plot`.

    Args:
        names: what is drawn, in an order that does not change; 7 others beside ours have a colour of their own.
        ours: the one that stands out.
    """
    others = [name for name in names if name != ours]
    found = {
        name: {"color": _COLOURS[at % len(_COLOURS)], "marker": _MARKERS[at % len(_MARKERS)], "zorder": 2}
        for at, name in enumerate(others)
    }
    if ours is not None:
        found[ours] = {"color": OURS_COLOUR, "marker": "*", "zorder": 3}
    return found


def new_figure(rows: int, columns: int, *, width: float = 5.2, height: float = 4.0) -> tuple[Figure, Any]:
    """Return a figure that no window shows and its (rows, columns) array of Axes; `width` and `height` are inches a panel."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False)


def error_bars(intervals: Sequence[Interval]) -> list[list[float]]:
    """Return how far intervals reach below and above their means, as `Axes.errorbar` takes it; 0 where that is not known."""
    below = [0.0 if interval.low is None else interval.mean - interval.low for interval in intervals]
    above = [0.0 if interval.high is None else interval.high - interval.mean for interval in intervals]
    return [below, above]


def plain_logarithmic(axis: Any) -> None:
    """Label a logarithmic `Axis` with plain numbers, three in a power of ten or fewer where it spans many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    powers = math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if powers < 1.5 else (1.0, 3.0) if powers < 3.0 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())
