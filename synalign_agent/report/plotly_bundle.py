"""Plotly's scripts and figures as text that a page can hold."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


@cache
def plotly_script() -> Markup:
    """Return plotly.js, compressed with gzip, as base64: 2 MB of page instead of 5.

    Browsers decompress it (`DecompressionStream`: Chrome 80, Firefox 113, Safari 16.4); in older ones the page has its tables and
    no figures.
    """
    from plotly.offline import get_plotlyjs

    # No time stamp: the same report is the same bytes.
    return Markup(base64.b64encode(gzip.compress(get_plotlyjs().encode(), compresslevel=6, mtime=0)).decode())


def figure_json(figure: go.Figure) -> Markup:
    """Return a figure as JSON that may stand inside a script element, whatever its texts hold."""
    return Markup(str(figure.to_json()).translate(_ESCAPES))


def script_json(value: object) -> Markup:
    """Return plain values as JSON that may stand inside a script element, whatever their texts hold."""
    return Markup(json.dumps(value, ensure_ascii=False).translate(_ESCAPES))
