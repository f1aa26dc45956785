"""What the nodes need of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from synalign_agent.prompting.catalog import PromptTemplate
from synalign_agent.records import CallRecord


@dataclass(frozen=True, slots=True)
class CallRequest:
    """One structured call: a prompt with its values, the schema of the reply, and which draw of it this is."""

    node: str
    prompt: PromptTemplate
    values: Mapping[str, Any]
    schema: Mapping[str, Any]
    """JSON Schema that the endpoint is asked to enforce."""
    max_tokens: int
    round: int
    cluster_id: str = ""
    draw: int = 0
    """Tells apart calls with equal prompts; part of the call's key."""
    is_reading: bool = False
    """Whether it describes or judges texts, at `llm.reading_temperature`, rather than writes some."""


class LanguageModel(Protocol):
    """A model behind the journal."""

    @property
    def lenient(self) -> bool:
        """Whether replies are to be searched for their JSON, as the endpoint enforces no schema."""

    async def call(self, request: CallRequest) -> CallRecord:
        """Return the finished call, from the journal if it was paid for before.

        A reply that was cut by the token limit is asked for once more; the cut one is returned if that fails.
        The record's state is `failed` when all attempts failed in a way that concerns this call alone.

        Raises:
            BudgetExhausted: the call could pass a limit.
            EndpointError: no call can succeed now.
        """

    async def aclose(self) -> None:
        """Close the connections."""

    def halt(self, error: Exception) -> None:
        """Send nothing more: calls in flight finish, all others raise `error`."""
