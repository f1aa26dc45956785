"""Alignment of rows that are already there, as a LangGraph server serves it."""

from synalign_agent.serving.alignment import build_alignment

graph = build_alignment().compile(name="alignment")
