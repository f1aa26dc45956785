"""Generator: have the LLM write new texts from a cluster's label, attributes and demonstrations."""

from __future__ import annotations

import asyncio

from synalign_agent.deps import Deps
from synalign_agent.errors import BudgetExhausted
from synalign_agent.llm.base import CallRequest
from synalign_agent.schemas import texts_schema
from synalign_agent.state import GenerateTask, State

NODE = "generate"

_TOKENS_PER_TEXT = 24
"""JSON quotes, commas, and words that split into many tokens."""


async def generate(task: GenerateTask, deps: Deps) -> State:
    """Make one call; the reply waits in the journal until the whole round is screened in one fixed order."""
    request = await asyncio.to_thread(_request, deps, task["cluster_id"], task["draw"])
    try:
        await deps.model.call(request)
    except BudgetExhausted as error:
        return {"limits_hit": [error.limit]}
    return {}


def _request(deps: Deps, cluster_id: str, draw: int) -> CallRequest:
    config = deps.config
    n = config.generate.samples_per_call or 1
    layout = config.generate.demonstrations or "none"
    cluster = deps.store.cluster(cluster_id)
    demonstrations = deps.real.texts(cluster.member_ids) if layout != "none" else []
    # The same order in every draw: draws of a cluster then differ only in their seed, and an endpoint's prefix cache
    # answers all but the first without reading the prompt again.
    return CallRequest(
        node=NODE,
        prompt=deps.prompts["generate_samples"],
        values={
            "task": config.task,
            "label": deps.label_for_prompt(cluster.label),
            "attributes": deps.store.attributes_of(cluster_id),
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
