"""What LangGraph checkpoints: ids, counts and scalars of plain JSON types; texts and arrays stay in the stores."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Annotated, Any

from typing_extensions import TypedDict

WAITING = "waiting_for_review"
"""Status of a session that goes on when people have decided."""


class RoundSummary(TypedDict):
    """One round, as the router and the reader of a thread need it; the store has all of its numbers."""

    round: int
    n_pool: int
    n_selected: int
    mmd2: float | None
    target: float | None


def union(old: list[str] | None, new: list[str] | None) -> list[str]:
    """Merge what parallel tasks report; None clears."""
    return [] if new is None else sorted({*(old or []), *new})


class State(TypedDict, total=False):
    """The loop's progress."""

    round: int
    """Number of the round under way, from 1."""
    cluster_ids: list[str]
    """Demonstration clusters of the round."""
    limits_hit: Annotated[list[str], union]
    """Budget limits that stopped calls in the round."""
    history: Annotated[list[RoundSummary], operator.add]
    stop_reason: str | None
    to_review: list[str] | None
    """Items of the review under way that nobody has settled; None outside a review."""
    answered: list[str]
    """Items whose decisions wait for the node that puts them into effect."""
    review_problems: dict[str, str]
    """Item -> why its last decision could not be put into effect."""


class Input(TypedDict, total=False):
    """What a caller may give: nothing; the session is described by the context."""

    stop_reason: str | None
    """None begins another pass of a thread that has finished."""


class Output(TypedDict, total=False):
    """What a finished thread shows."""

    history: list[RoundSummary]
    stop_reason: str | None


class ClusterTask(TypedDict):
    """Argument of a fan-out task over clusters."""

    cluster_id: str


class GenerateTask(TypedDict):
    """Argument of a fan-out task over calls: a block of them, as a task costs milliseconds and a round may have thousands."""

    calls: list[list[Any]]
    """[cluster id, draw] of each."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a run is given each time it starts; never checkpointed."""

    config: dict[str, Any] | None = None
    """A `SessionConfig` as plain values, for a LangGraph server that opens sessions by itself."""
