"""Exploration and alignment for rows that are already there, without an LLM or a session."""

from __future__ import annotations

from typing import Literal

Objective = Literal["kernel", "projection", "herding", "thinning", "none"]
"""How synthetic rows are weighed; `none` draws them at random."""

Strategy = Literal["ivr", "gp", "random", "kmeans", "farthest"]
"""How demonstrations are picked."""
