"""Attribute summarizer: have the LLM say what the rows of a cluster have in common."""

from __future__ import annotations

import json

import numpy as np

from synalign_agent.deps import Deps
from synalign_agent.errors import BudgetExhausted, EndpointError
from synalign_agent.event_loop import to_its_end
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.structured import ReplyProblem, parse_reply
from synalign_agent.records import CallRecord, DemonstrationCluster, Rejection, content_id
from synalign_agent.schemas import AttributeValues, ProposedDimensions, attributes_schema, dimensions_schema
from synalign_agent.state import ClusterTask, State

_STREAM = 2
_DIMENSIONS = "dimensions"
_N_EXAMPLES = 12
_N_CONTRAST = 3
_MAX_TOKENS = 400
FALLBACK_DIMENSIONS = {
    "topic": "what the text is about, as concretely as possible",
    "tone": "mood and attitude of the writer",
    "style": "register, wording, spelling and punctuation habits",
}
"""Used, with a counted rejection, when the LLM's proposal is unusable."""


def frozen_dimensions(deps: Deps) -> dict[str, str] | None:
    """Return the session's attribute dimensions, or None before they are proposed."""
    if deps.config.attributes.dimensions is not None:
        return deps.config.attributes.dimensions
    stored = deps.store.meta(_DIMENSIONS)
    return None if stored is None else dict(json.loads(stored))


async def propose_dimensions(state: State, deps: Deps) -> State:
    """Have the LLM name the attribute dimensions, from the seeds of the first clusters; they are frozen from then on."""
    clusters = await to_its_end(deps.store.clusters, state["round"])
    n = deps.config.attributes.n_dimensions
    # One seed a cluster, taking turns between labels: the seeds are the most different rows there are.
    by_turn = sorted(clusters, key=lambda cluster: (cluster.position, cluster.label))
    request = CallRequest(
        node="propose_dimensions",
        prompt=deps.prompts["propose_dimensions"],
        values={
            "task": deps.config.task,
            "examples": deps.real.texts([cluster.seed_id for cluster in by_turn[:_N_EXAMPLES]]),
            "n_dimensions": n,
        },
        schema=dimensions_schema(n, limits=bool(deps.config.llm.schema_limits)),
        max_tokens=_MAX_TOKENS,
        round=state["round"],
    )
    try:
        call = await deps.model.call(request)
    except BudgetExhausted as error:
        return {"limits_hit": [error.limit]}
    if call.state != "done":
        # Dimensions are frozen for the whole session: an outage must not decide them.
        raise EndpointError(f"the attribute dimensions could not be proposed ({call.error}); resume to ask again")
    parsed = parse_reply(call.content, call.finish_reason, call.refusal, ProposedDimensions, lenient=deps.model.lenient)
    if isinstance(parsed, ReplyProblem):
        await to_its_end(deps.store.admit, [], [_rejection(call, "", parsed)])
        dimensions = FALLBACK_DIMENSIONS
    else:
        dimensions = {dimension.name: dimension.description for dimension in parsed.dimensions}
    await to_its_end(deps.store.set_meta, _DIMENSIONS, json.dumps(dimensions, ensure_ascii=False))
    return {}


async def summarize_attributes(task: ClusterTask, deps: Deps) -> State:
    """Describe one cluster; a cluster whose description fails is generated from without one."""
    cluster = await to_its_end(deps.store.cluster, task["cluster_id"])
    dimensions = frozen_dimensions(deps) or FALLBACK_DIMENSIONS
    request = CallRequest(
        node="summarize_attributes",
        prompt=deps.prompts["summarize_attributes"],
        values={
            "task": deps.config.task,
            "label": deps.label_for_prompt(cluster.label),
            "dimensions": dimensions,
            "demonstrations": deps.real.texts(cluster.member_ids),
            "contrast": _contrast(deps, cluster),
        },
        schema=attributes_schema(list(dimensions), limits=bool(deps.config.llm.schema_limits)),
        max_tokens=_MAX_TOKENS,
        round=cluster.round,
        cluster_id=cluster.id,
    )
    try:
        call = await deps.model.call(request)
    except BudgetExhausted as error:
        return {"limits_hit": [error.limit]}
    parsed: AttributeValues | ReplyProblem
    if call.state == "done":
        parsed = parse_reply(
            call.content, call.finish_reason, call.refusal, AttributeValues, lenient=deps.model.lenient
        )
    else:
        parsed = ReplyProblem(f"call_{call.error_class}", call.error or "")
    if not isinstance(parsed, ReplyProblem) and not parsed.root.keys() >= dimensions.keys():
        missing = ", ".join(sorted(dimensions.keys() - parsed.root.keys()))
        parsed = ReplyProblem("off_schema", f"no value for {missing}")
    if isinstance(parsed, ReplyProblem):
        await to_its_end(deps.store.admit, [], [_rejection(call, cluster.label, parsed)])
        return {}
    values = {name: " ".join(parsed.root[name].split()) for name in dimensions}
    await to_its_end(deps.store.add_attributes, cluster.id, {name: value for name, value in values.items() if value})
    return {}


def _contrast(deps: Deps, cluster: DemonstrationCluster) -> list[str]:
    """Draw reference rows of the same label from outside the cluster."""
    rows = deps.real.reference_rows(deps.real.labels.index(cluster.label))
    others = np.setdiff1d(rows, [deps.real.position[id] for id in cluster.member_ids])
    rng = deps.rng(_STREAM, cluster.round, int(cluster.id, 16) % 2**32)
    picked = rng.choice(others, size=min(_N_CONTRAST, len(others)), replace=False)
    return [deps.real.rows[int(row)].text for row in picked]


def _rejection(call: CallRecord, label: str, problem: ReplyProblem) -> Rejection:
    return Rejection(
        id=content_id(call.key, problem.reason),
        round=call.round,
        label=label,
        call_key=call.key,
        reason=f"attributes_{problem.reason}",
        detail=problem.detail,
        text=call.content or "",
    )
