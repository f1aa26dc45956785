"""Write synthetic text whose distribution matches your real data.

`Session` runs and resumes the loop, `SessionConfig` describes it. Both are imported on first use, so that importing the
package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Session", "SessionConfig", "__version__"]

if TYPE_CHECKING:
    from synalign_agent.config import SessionConfig
    from synalign_agent.session import Session


def __getattr__(name: str) -> Any:
    """Import the public names lazily: torch and langgraph take seconds."""
    if name == "Session":
        from synalign_agent.session import Session

        return Session
    if name == "SessionConfig":
        from synalign_agent.config import SessionConfig

        return SessionConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
