"""Limits on calls, tokens and money, checked before each call against the most that it can use."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from synalign_agent.config import LimitsConfig, LLMPrices
from synalign_agent.errors import BudgetExhausted
from synalign_agent.prompting.render import Message
from synalign_agent.records import CallTotals

# Chat templates add a few tokens around each message, and at the start and end.
_TOKENS_PER_MESSAGE = 16


class Amount(NamedTuple):
    """Tokens and money of one call."""

    tokens: int
    usd: float


def prompt_token_bound(messages: Sequence[Message], schema_text: str) -> int:
    """Return a number of tokens that no tokenizer exceeds: a token holds at least one byte of UTF-8."""
    n_bytes = sum(len(message.content.encode()) for message in messages) + len(schema_text.encode())
    return n_bytes + _TOKENS_PER_MESSAGE * (len(messages) + 1)


def cost_usd(prices: LLMPrices, prompt_tokens: int, completion_tokens: int) -> float:
    """Return the price of a call in USD; what is not known counts as free."""
    return (
        prompt_tokens * (prices.prompt_usd_per_million_tokens or 0.0)
        + completion_tokens * (prices.completion_usd_per_million_tokens or 0.0)
    ) / 1e6


class Budget:
    """What is spent and what is reserved by calls in flight; their sum never passes a limit."""

    def __init__(self, limits: LimitsConfig, totals: CallTotals) -> None:
        self._limits = limits
        self._calls = totals.n_attempts
        self._spent = Amount(totals.charged_tokens, totals.charged_usd)
        self._reserved = Amount(0, 0.0)
        self._in_flight = 0
        self._settled = asyncio.Condition()

    async def reserve(self, bound: Amount) -> None:
        """Set `bound` aside for a call; wait while calls in flight may still give some of theirs back.

        Raises:
            BudgetExhausted: the call could pass a limit, and no call in flight can change that.
        """
        async with self._settled:
            while (limit := self._passed(bound)) is not None:
                if self._in_flight == 0 or limit == "max_calls":
                    raise BudgetExhausted(
                        limit, f"the next call could pass limits.{limit}; raise it in the configuration and resume"
                    )
                await self._settled.wait()
            self._calls += 1
            self._in_flight += 1
            self._reserved = Amount(self._reserved.tokens + bound.tokens, self._reserved.usd + bound.usd)

    async def settle(self, bound: Amount, charged: Amount) -> None:
        """Replace a reservation by what the call is charged."""
        async with self._settled:
            self._in_flight -= 1
            self._reserved = Amount(self._reserved.tokens - bound.tokens, self._reserved.usd - bound.usd)
            self._spent = Amount(self._spent.tokens + charged.tokens, self._spent.usd + charged.usd)
            self._settled.notify_all()

    def _passed(self, bound: Amount) -> str | None:
        limits = self._limits
        tokens = self._spent.tokens + self._reserved.tokens + bound.tokens
        usd = self._spent.usd + self._reserved.usd + bound.usd
        if limits.max_calls is not None and self._calls + 1 > limits.max_calls:
            return "max_calls"
        if limits.max_tokens is not None and tokens > limits.max_tokens:
            return "max_tokens"
        if limits.max_usd is not None and usd > limits.max_usd:
            return "max_usd"
        return None
