"""The synthesis loop as a LangGraph server serves it: no checkpointer (the server brings its own), nothing opened at import."""

from synalign_agent.graph import build_graph
from synalign_agent.serving.sessions import ServedContext, ServedSessions

_sessions = ServedSessions()
graph = build_graph(
    # A run that is sent twice costs nothing twice.
    _sessions.provide, context_schema=ServedContext, around=_sessions.around, again=False,
).compile(name="synthesis")  # fmt: skip
