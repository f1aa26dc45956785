"""Finish: write the dataset and the report, and free the session for its next opening."""

from __future__ import annotations

from synalign_agent.deps import Deps
from synalign_agent.report.write import write_outputs
from synalign_agent.state import State


def finish(state: State, deps: Deps) -> State:
    """Export what was chosen, with the reason for stopping."""
    reason = state.get("stop_reason") or "unknown"
    deps.store.set_meta("stop_reason", reason)
    deps.store.set_meta("active_seconds", str(deps.active_seconds()))
    write_outputs(deps.folder, deps.store, deps.config, deps.real, deps.real_vectors, deps.pool_vectors)
    return {"stop_reason": reason}
