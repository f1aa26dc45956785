"""How time and memory grow: log-log lines with fitted exponents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evals.bench.measure import method_of
from evals.bench.spec import OURS, Spec

_QUANTITIES = {
    "seconds": "seconds",
    "cpu_seconds": "CPU seconds",
    "peak_memory_mb": "peak memory, MB (with rows and libraries)",
}
_DRAWN = ("seconds", "peak_memory_mb")
_COLOURS = {
    OURS: "#0b6e4f",
    "full_pass": "#d1495b",
    "fista_300": "#d1495b",
    "farthest": "#7a7a85",
    "herding": "#7a7a85",
}


def fit_exponents(specs: Sequence[Spec], results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Fit quantity = a * size^b to each method's finished measurements, by least squares of the logarithms.

    Args:
        specs: the measurements of one axis: selections over n, or alignments over m.
        results: measurement of each key.

    Returns:
        method -> its sizes, quantities and exponents; an exponent is None where fewer than two sizes finished.
    """
    lines: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(spec.method for spec in specs):
        done = [spec for spec in specs if spec.method == method and results.get(spec.key, {}).get("is_finished")]
        sizes = [spec.m or spec.n for spec in done]
        label = next(method_of(spec).label for spec in specs if spec.method == method)
        lines[method] = {"label": label, "sizes": sizes}
        for quantity in _QUANTITIES:
            values = [results[spec.key][quantity] for spec in done]
            lines[method][quantity] = {"values": values, "exponent": None, "factor": None}
            if len(sizes) > 1:
                exponent, logarithm = np.polyfit(np.log(sizes), np.log(values), 1)
                lines[method][quantity] |= {"exponent": float(exponent), "factor": float(np.exp(logarithm))}
    return lines


def draw(growth: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw time and memory over size, measured (points) and fitted (lines), one column a task.

    Args:
        growth: title of the axis -> what `fit_exponents` returned.
        path: the image to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    style = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}
    with mpl.rc_context(style):
        shape = (len(_DRAWN), len(growth))
        figure, grid = plt.subplots(*shape, figsize=(6.5 * len(growth), 9.0), squeeze=False, layout="constrained")
        for column, (axis, lines) in enumerate(growth.items()):
            for row, quantity in enumerate(_DRAWN):
                _panel(grid[row][column], lines, quantity)
                grid[row][column].set(xlabel=axis, ylabel=_QUANTITIES[quantity])
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _panel(ax: Any, lines: Mapping[str, Any], quantity: str) -> None:
    """Draw one quantity of all methods. `ax` is a matplotlib Axes."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    sizes = sorted({size for line in lines.values() for size in line["sizes"]})
    for method, line in lines.items():
        fit, at = line[quantity], line["sizes"]
        if not at:
            continue
        style = {"color": _COLOURS[method], "zorder": 3 if method == OURS else 2}
        label = line["label"]
        if fit["exponent"] is not None:
            label += f": size$^{{{fit['exponent']:.2f}}}$"
            fitted = fit["factor"] * np.power([at[0], at[-1]], fit["exponent"])
            ax.plot([at[0], at[-1]], fitted, lw=2.4 if method == OURS else 1.2, **style)
        ax.plot(at, fit["values"], "o", ms=7 if method == OURS else 5, label=label, **style)
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(True, which="major", alpha=0.3)
    ax.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
