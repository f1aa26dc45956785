"""Demonstrations and coverage, as a LangGraph server serves them."""

from synalign_agent.serving.exploration import build_exploration

graph = build_exploration().compile(name="exploration")
