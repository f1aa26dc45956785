"""Generator: have the LLM write new texts from a cluster's label, attributes and demonstrations."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from synalign_agent.deps import Deps
from synalign_agent.errors import BudgetExhausted
from synalign_agent.llm.base import CallRequest
from synalign_agent.nodes.replies import GENERATE, begin_ahead, note_ended
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
    """Make a block of calls; the replies wait in the journal until the whole round is screened in one fixed order."""
    # Checkpoints of earlier versions hold one call a task.
    calls = task["calls"] if "calls" in task else [[task["cluster_id"], task["draw"]]]
    limits: set[str] = set()
    order = await begin_ahead(deps, calls[0][0])

    async def make(cluster_id: str, draw: int) -> None:
        call: CallRecord | None = None
        try:
            # As a function: the calls of a large round that wait for their turn hold no texts.
            call = await deps.model.call(partial(_request, deps, cluster_id, draw))
        except BudgetExhausted as error:
            limits.add(error.limit)
        note_ended(deps, order, cluster_id, draw, call)

    # All calls of the block end, whatever becomes of one of them: what was paid for reaches the journal.
    outcomes = await asyncio.gather(*(make(cluster_id, draw) for cluster_id, draw in calls), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return {"limits_hit": sorted(limits)} if limits else {}


def _request(deps: Deps, cluster_id: str, draw: int) -> CallRequest:
    config = deps.config
    n = config.generate.samples_per_call or 1
    layout = config.generate.demonstrations or "none"
    cluster = deps.store.cluster(cluster_id)
    demonstrations = deps.real.texts(cluster.member_ids) if layout != "none" else []
    # The same order in every draw: draws of a cluster then differ only in their seed, and an endpoint's prefix cache
    # answers all but the first without reading the prompt again.
    return CallRequest(
        node=GENERATE,
        prompt=deps.prompts["generate_samples"],
        values={
            "task": config.task,
            "label": deps.label_for_prompt(cluster.label),
            "attributes": attributes_in_force(deps.store, cluster_id),
            "guidance": guidance(deps.store, cluster.label, cluster.round),
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
        draw=draw,
    )
