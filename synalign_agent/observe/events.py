"""What an observer is told. Write a class with the methods that you need and name it in `observability.callbacks`.

    class Slack(Observer):
        def on_round_end(self, result: RoundResult) -> None:
            post(f"round {result.round}: MMD² {result.mmd2.aligned}, target {result.mmd2.target}")

Methods are called from the thread that runs the node, so a slow one slows the run down. An exception is a counted warning with
the observer's name; it never ends the run. Events hold no texts. After a kill, the round under way is done, and told, again.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synalign_agent.config import SessionConfig


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """A prompt file of the session."""

    name: str
    version: str
    sha256: str
    template: str
    """The Jinja body, before any value is filled in."""


@dataclass(frozen=True, slots=True)
class DataVersion:
    """The real rows of the session."""

    source: str
    """As the configuration names them."""
    digest: str
    """16 hex digits over texts, labels and split."""
    n_reference: int
    n_holdout: int
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SessionStart:
    """A session begins, or goes on."""

    thread_id: str
    folder: Path
    n_rounds: int
    """Rounds that are finished; more than 0 for a session that goes on."""
    config: SessionConfig
    """Resolved: nothing is left to a model's profile."""
    config_fingerprint: str
    data: DataVersion
    prompts: tuple[PromptVersion, ...]
    kept: MutableMapping[str, str]
    """Strings that an observer may keep with the session, to find them when it goes on; forks begin without them."""


@dataclass(frozen=True, slots=True)
class Distances:
    """Squared MMD to the population of the real rows; None where it was not measured."""

    raw: float | None
    """Rows drawn at random from the pool."""
    aligned: float | None
    """The chosen rows."""
    floor: float | None
    """As many real rows."""
    target: float | None


@dataclass(frozen=True, slots=True)
class AlignmentResult:
    """Weights were fitted and rows chosen."""

    thread_id: str
    round: int
    n_pool: int
    n_selected: int
    mmd2: Distances
    ess: float
    """Effective sample size of the weights, in rows."""
    duality_gap: float
    """Bound on what better weights could still gain; the largest of the labels' bounds."""
    seconds: float

    @classmethod
    def of(cls, thread_id: str, numbers: Mapping[str, Any], *, seconds: float) -> AlignmentResult:
        """Read the numbers that the store keeps of a round."""
        return cls(
            thread_id=thread_id,
            round=numbers["round"],
            n_pool=numbers["n_pool"],
            n_selected=numbers["n_selected"],
            mmd2=_distances(numbers["mmd2"]),
            ess=numbers["ess"],
            duality_gap=numbers["duality_gap"],
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class RoundResult:
    """A round is finished and kept. Counts and costs are of the session so far, not of the round alone."""

    thread_id: str
    round: int
    n_pool: int
    n_selected: int
    mmd2: Distances
    n_eq: float | None
    """How many real rows the chosen ones are worth."""
    ess: float
    p_value: float | None
    coverage: float | None
    """Share of the reference rows that lie near a demonstration."""
    rejections: Mapping[str, int]
    """Reason -> rejected texts and replies."""
    n_calls: int
    n_failed_calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    """None where the endpoint reports no tokens."""
    cost_usd: float | None
    """None without `llm.prices`, and where the endpoint reports no tokens."""
    seconds: float
    """Time that the session has run."""
    stop_reason: str | None
    """Why this round is the last; None if another follows."""

    @classmethod
    def of(cls, thread_id: str, numbers: Mapping[str, Any], *, priced: bool, stop_reason: str | None) -> RoundResult:
        """Read the numbers that the store keeps of a round."""
        calls, tokens = numbers["calls"], numbers["tokens"]
        reported = not calls["done"] or any(tokens.values())
        return cls(
            thread_id=thread_id,
            round=numbers["round"],
            n_pool=numbers["n_pool"],
            n_selected=numbers["n_selected"],
            mmd2=_distances(numbers["mmd2"]),
            n_eq=numbers["n_eq"]["aligned"],
            ess=numbers["ess"],
            p_value=numbers["p_value"],
            coverage=numbers["coverage"]["explored"],
            rejections=numbers["rejections"],
            n_calls=calls["done"],
            n_failed_calls=calls["failed"],
            prompt_tokens=tokens["prompt"] if reported else None,
            completion_tokens=tokens["completion"] if reported else None,
            cost_usd=numbers["cost_usd"] if priced and reported else None,
            seconds=numbers["seconds"],
            stop_reason=stop_reason,
        )


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """The run is over, for good or for now."""

    thread_id: str
    folder: Path
    status: str
    """`finished`, `waiting_for_review`, `interrupted` or `failed`."""
    stop_reason: str | None
    summary: Mapping[str, Any]
    """The session's numbers, as `synalign status --json` prints them; `paths` names the files that there are."""


class Observer:
    """Base of observers: every method does nothing. A class need not inherit from it, methods that it lacks are not called."""

    def on_session_start(self, session: SessionStart) -> None:
        """Called when everything is open, before the first node. An observer that fails here is not called again."""

    def on_alignment_end(self, result: AlignmentResult) -> None:
        """Called when the aligner has chosen, before the round is kept."""

    def on_round_end(self, result: RoundResult) -> None:
        """Called when the round is kept."""

    def on_session_end(self, session: SessionEnd) -> None:
        """Called when the run ends, also if it failed or waits for people."""


def _distances(numbers: Mapping[str, float | None]) -> Distances:
    """Read the distances that the store keeps of a round."""
    return Distances(numbers["raw"], numbers["aligned"], numbers["floor"], numbers["target"])
