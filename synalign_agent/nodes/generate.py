"""Generator: have the LLM write new texts from a cluster's label, attributes and demonstrations."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from synalign_agent.deps import Deps
from synalign_agent.errors import BudgetExhausted
from synalign_agent.event_loop import to_its_end
from synalign_agent.llm.base import CallRequest
from synalign_agent.nodes.replies import begin_ahead, note_ended
from synalign_agent.nodes.round_calls import GENERATE, RoundCalls
from synalign_agent.records import CallRecord
from synalign_agent.schemas import texts_schema
from synalign_agent.state import GenerateTask, State
from synalign_agent.stores.reviews import attributes_in_force, guidance

_TOKENS_PER_TEXT = 24
"""JSON quotes, commas, and words that split into many tokens."""
_MOST_TASKS = 64
"""A task costs the graph one to four milliseconds, and a checkpointed write."""


def generate_tasks(cluster_ids: Sequence[str], n_draws: int) -> list[GenerateTask]:
    """Cut a round's calls into the tasks of the fan-out: one call each, or blocks where that would be more than 64 tasks."""
    calls: list[list[Any]] = [[cluster_id, draw] for cluster_id in cluster_ids for draw in range(n_draws)]
    size = max(1, math.ceil(len(calls) / _MOST_TASKS))
    return [{"calls": calls[start : start + size]} for start in range(0, len(calls), size)]


async def generate(task: GenerateTask, deps: Deps) -> State:
    """Make a block of calls; the replies wait in the journal until the round is screened in one fixed order."""
    # Checkpoints of earlier versions hold one call a task.
    calls = task["calls"] if "calls" in task else [[task["cluster_id"], task["draw"]]]
    limits: set[str] = set()
    order = await begin_ahead(deps, calls[0][0])

    async def make(request: CallRequest) -> None:
        call: CallRecord | None = None
        try:
            call = await deps.model.call(request)
        except BudgetExhausted as error:
            limits.add(error.limit)
        finally:
            order.under_way.release()
        note_ended(deps, order, request.cluster_id, request.draw, call)

    making: list[asyncio.Task[None]] = []
    try:
        # A task after the other, each call when there is room for it: of a large round only what is under way takes memory.
        async with order.turn:
            request_of = await to_its_end(_requests, deps, order, dict.fromkeys(id for id, _ in calls))
            for cluster_id, draw in calls:
                await order.under_way.acquire()
                making.append(asyncio.create_task(make(replace(request_of[cluster_id], draw=draw))))
    except BaseException:
        for call in making:
            call.cancel()
        raise
    # All calls of the block end, whatever becomes of one of them: what was paid for reaches the journal.
    outcomes = await asyncio.gather(*making, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return {"limits_hit": sorted(limits)} if limits else {}


def _requests(deps: Deps, order: RoundCalls, cluster_ids: Iterable[str]) -> dict[str, CallRequest]:
    """Return cluster -> the request of its first draw; others have the same prompt, and another draw.

    The same demonstrations in the same order in every draw: draws of a cluster then differ only in their seed, and an
    endpoint's prefix cache answers all but the first without reading the prompt again.
    """
    attributes = attributes_in_force(deps.store, cluster_ids)
    return {cluster_id: _request(deps, order, cluster_id, attributes[cluster_id]) for cluster_id in attributes}


def _request(deps: Deps, order: RoundCalls, cluster_id: str, attributes: dict[str, str]) -> CallRequest:
    config = deps.config
    n = config.generate.samples_per_call or 1
    layout = config.generate.demonstrations or "none"
    cluster = deps.store.cluster(cluster_id)
    demonstrations = deps.real.texts(cluster.member_ids) if layout != "none" else []
    if cluster.label not in order.guidance:
        order.guidance[cluster.label] = guidance(deps.store, cluster.label, cluster.round)
    return CallRequest(
        node=GENERATE,
        prompt=deps.prompts["generate_samples"],
        values={
            "task": config.task,
            "label": deps.label_for_prompt(cluster.label),
            "attributes": attributes,
            "guidance": order.guidance[cluster.label],
            "demonstrations": [demonstrations[start : start + n] for start in range(0, len(demonstrations), n)],
            "layout": layout,
            "n": n,
            "words": deps.limits.usual_words,
        },
        schema=texts_schema(n, deps.limits.max_characters if config.llm.schema_limits else None),
        # At most one token for two characters, which holds for natural text in any script with a BPE tokenizer.
        max_tokens=config.llm.max_tokens or n * (deps.limits.max_characters // 2 + _TOKENS_PER_TEXT),
        round=cluster.round,
        cluster_id=cluster_id,
    )
