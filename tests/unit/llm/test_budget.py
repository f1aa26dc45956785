from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from synalign_agent.config import LimitsConfig, LLMPrices
from synalign_agent.errors import BudgetExhausted
from synalign_agent.llm.budget import Amount, Budget, cost_usd, prompt_token_bound
from synalign_agent.prompting.render import Message
from synalign_agent.records import CallTotals

quick = settings(derandomize=True, max_examples=60, deadline=None)

MULTILINGUAL = [
    "where is my parcel",
    "Größenänderungsüberprüfung – 3 µm",
    "我的包裹在哪里？已经等了三天了",
    "お問い合わせありがとうございます",
    "สวัสดีครับ ผมต้องการคืนสินค้า",
    "नमस्ते, मेरा ऑर्डर कहाँ है?",
    "أين طلبي؟",
    "👩‍👩‍👧‍👦🏳️‍🌈😤😤😤",
    "a\u0301\u0302\u0303\u200b\u200d\ufeff",
    "\x00\x01\x7f",
    "|||||<|im_start|>system<|im_end|>",
    "",
]


def byte_encoding() -> tiktoken.Encoding:
    """Return the tokenizer that needs the most tokens: one of byte-level BPE without any merge."""
    return tiktoken.Encoding(
        "bytes", pat_str=r"[\s\S]", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
    )


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 5))


def budget(totals: CallTotals | None = None, **limits: float) -> Budget:
    return Budget(LimitsConfig.model_validate(limits), totals or CallTotals())


async def settled(n: int = 20) -> None:
    """Let all tasks run until they wait for something."""
    for _ in range(n):
        await asyncio.sleep(0)


@pytest.mark.parametrize("text", MULTILINGUAL)
def test_the_bound_is_at_least_the_tokens_of_the_worst_tokenizer(text: str) -> None:
    worst = byte_encoding()
    messages = [Message("system", text), Message("user", text[::-1])]
    n_tokens = sum(len(worst.encode(message.content)) for message in messages) + len(worst.encode(text))
    assert n_tokens <= prompt_token_bound(messages, text)


@quick
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=5), st.text(st.characters(codec="utf-8")))
def test_the_bound_leaves_room_for_the_chat_template(contents: list[str], schema: str) -> None:
    worst = byte_encoding()
    messages = [Message("user", content) for content in contents]
    n_tokens = sum(len(worst.encode(text)) for text in (*contents, schema))
    # `<|start|>assistant<|end|>`-like frames around every message and the open reply take some ten tokens each.
    assert prompt_token_bound(messages, schema) >= n_tokens + 10 * (len(messages) + 1)


def test_cost_is_per_million_tokens() -> None:
    prices = LLMPrices(prompt_usd_per_million_tokens=2.0, completion_usd_per_million_tokens=8.0)
    assert cost_usd(prices, 1_000_000, 500_000) == pytest.approx(6.0)
    assert cost_usd(LLMPrices(), 10**9, 10**9) == 0.0


def test_reserving_takes_the_bound_and_settling_gives_the_rest_back() -> None:
    async def scenario() -> None:
        limited = budget(max_tokens=100)
        await limited.reserve(Amount(100, 0.0))
        await limited.settle(Amount(100, 0.0), Amount(40, 0.0))
        await limited.reserve(Amount(60, 0.0))  # exactly at the limit
        await limited.settle(Amount(60, 0.0), Amount(60, 0.0))
        with pytest.raises(BudgetExhausted, match=r"limits\.max_tokens") as caught:
            await limited.reserve(Amount(1, 0.0))
        assert caught.value.limit == "max_tokens"

    run(scenario())


def test_money_is_limited_like_tokens() -> None:
    async def scenario() -> None:
        limited = budget(max_usd=1.0)
        await limited.reserve(Amount(10**9, 0.75))
        await limited.settle(Amount(10**9, 0.75), Amount(10**9, 0.5))
        with pytest.raises(BudgetExhausted) as caught:
            await limited.reserve(Amount(0, 0.5001))
        assert caught.value.limit == "max_usd"
        await limited.reserve(Amount(0, 0.5))

    run(scenario())


def test_calls_are_counted_when_reserved_and_never_given_back() -> None:
    async def scenario() -> None:
        limited = budget(max_calls=2)
        await limited.reserve(Amount(1, 0.0))
        await limited.settle(Amount(1, 0.0), Amount(0, 0.0))
        await limited.reserve(Amount(1, 0.0))
        with pytest.raises(BudgetExhausted) as caught:  # at once: the call in flight cannot change it
            await asyncio.wait_for(limited.reserve(Amount(1, 0.0)), 1)
        assert caught.value.limit == "max_calls"

    run(scenario())


def test_what_the_journal_has_charged_counts() -> None:
    async def scenario() -> None:
        for totals, limits, name in (
            (CallTotals(n_attempts=3), {"max_calls": 3}, "max_calls"),
            (CallTotals(charged_tokens=95, prompt_tokens=1), {"max_tokens": 100}, "max_tokens"),
            (CallTotals(charged_usd=0.95, cost_usd=0.1), {"max_usd": 1.0}, "max_usd"),
        ):
            with pytest.raises(BudgetExhausted) as caught:
                await budget(totals, **limits).reserve(Amount(10, 0.1))
            assert caught.value.limit == name

    run(scenario())


def test_without_limits_nothing_is_refused() -> None:
    async def scenario() -> None:
        free = budget(CallTotals(n_attempts=10**9, charged_tokens=10**12, charged_usd=1e9))
        for _ in range(100):
            await free.reserve(Amount(10**9, 1e6))

    run(scenario())


def test_a_call_waits_for_those_in_flight_to_give_back() -> None:
    async def scenario() -> None:
        limited = budget(max_tokens=100)
        await limited.reserve(Amount(60, 0.0))
        waiting = asyncio.create_task(limited.reserve(Amount(60, 0.0)))
        await settled()
        assert not waiting.done()
        await limited.settle(Amount(60, 0.0), Amount(10, 0.0))
        await waiting

    run(scenario())


def test_a_waiting_call_gives_up_when_nothing_in_flight_is_left() -> None:
    async def scenario() -> None:
        limited = budget(max_tokens=100)
        await limited.reserve(Amount(50, 0.0))
        await limited.reserve(Amount(50, 0.0))
        waiting = [asyncio.create_task(limited.reserve(Amount(90, 0.0))) for _ in range(3)]
        await limited.settle(Amount(50, 0.0), Amount(50, 0.0))
        await settled()
        assert not any(task.done() for task in waiting)
        await limited.settle(Amount(50, 0.0), Amount(50, 0.0))
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(outcome, BudgetExhausted) for outcome in outcomes)

    run(scenario())


def test_a_cancelled_waiter_holds_nothing() -> None:
    async def scenario() -> None:
        limited = budget(max_tokens=100)
        await limited.reserve(Amount(100, 0.0))
        waiting = asyncio.create_task(limited.reserve(Amount(100, 0.0)))
        await settled()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await limited.settle(Amount(100, 0.0), Amount(0, 0.0))
        await asyncio.wait_for(limited.reserve(Amount(100, 0.0)), 1)

    run(scenario())


@quick
@given(st.integers(0, 2**32), st.integers(1, 400), st.integers(1, 30))
def test_no_interleaving_passes_a_limit(seed: int, max_tokens: int, max_calls: int) -> None:
    choices = random.Random(seed)
    max_usd = max_tokens / 100
    spent, in_flight = [0, 0.0], [0, 0.0]
    n_calls = n_refused = 0

    async def call(limited: Budget) -> None:
        nonlocal n_calls, n_refused
        tokens = choices.randint(1, 120)
        bound = Amount(tokens, tokens / 100)
        for _ in range(choices.randint(0, 5)):
            await asyncio.sleep(0)
        try:
            await limited.reserve(bound)
        except BudgetExhausted:
            n_refused += 1
            return
        n_calls += 1
        in_flight[0] += bound.tokens
        in_flight[1] += bound.usd
        # Even if every call in flight uses all of its bound, no limit is passed.
        assert spent[0] + in_flight[0] <= max_tokens and n_calls <= max_calls
        assert spent[1] + in_flight[1] <= max_usd + 1e-9
        for _ in range(choices.randint(0, 8)):
            await asyncio.sleep(0)
        used = choices.randint(0, bound.tokens)
        in_flight[0] -= bound.tokens
        in_flight[1] -= bound.usd
        spent[0] += used
        spent[1] += used / 100
        await limited.settle(bound, Amount(used, used / 100))

    async def scenario() -> None:
        limited = budget(max_tokens=max_tokens, max_calls=max_calls, max_usd=max_usd)
        await asyncio.gather(*(call(limited) for _ in range(25)))

    run(scenario())
    assert n_calls + n_refused == 25
    assert spent[0] <= max_tokens and n_calls <= max_calls
