"""Write synthetic text whose distribution matches your real data.

`Session` runs and resumes the loop, `SessionConfig` describes it; `explore` and `align` work without either, on rows that
are already there. All are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Session", "SessionConfig", "__version__", "align", "explore"]

if TYPE_CHECKING:
    from synalign_agent.config import SessionConfig
    from synalign_agent.session import Session
    from synalign_agent.toolkit.align import align
    from synalign_agent.toolkit.explore import explore

_MODULES = {
    "Session": "synalign_agent.session",
    "SessionConfig": "synalign_agent.config",
    "align": "synalign_agent.toolkit.align",
    "explore": "synalign_agent.toolkit.explore",
}


def __getattr__(name: str) -> Any:
    """Import the public names lazily: torch and langgraph take seconds."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
