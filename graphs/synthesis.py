"""The synthesis loop as a LangGraph server serves it: no checkpointer (the server brings its own), nothing opened at import."""

from synalign_agent.graph import build_graph
from synalign_agent.serving import ServedSessions

graph = build_graph(ServedSessions().provide).compile(name="synthesis")
