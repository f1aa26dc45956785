"""Attribute summarizer: have the LLM say what the rows of a cluster have in common."""

from __future__ import annotations

import json

from synalign_agent.config import SessionConfig
from synalign_agent.deps import Deps
from synalign_agent.errors import BudgetExhausted, EndpointError
from synalign_agent.event_loop import to_its_end
from synalign_agent.gates.attribute_value import check_values
from synalign_agent.gates.base import Verdict
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.structured import ReplyProblem, parse_reply
from synalign_agent.prompting.render import render
from synalign_agent.records import CallRecord, Rejection, content_id
from synalign_agent.schemas import (
    MAX_ATTRIBUTE_CHARACTERS,
    MAX_DIMENSION_CHARACTERS,
    MAX_MEANING_CHARACTERS,
    AttributeValues,
    Dimension,
    ProposedDimensions,
    attributes_schema,
    dimensions_schema,
)
from synalign_agent.state import ClusterTask, State
from synalign_agent.stores.base import SessionStore

_DIMENSIONS = "dimensions"
_N_EXAMPLES = 12
_MAX_TOKENS = 400
STANDARD_DIMENSIONS = {
    "topic": "what the text is about, as concretely as possible",
    "tone": "mood and attitude of the writer",
    "style": "register, wording, spelling and punctuation habits",
}
"""Used where the LLM is not asked for dimensions, and, with a counted rejection, when its proposal is unusable."""


def frozen_dimensions(config: SessionConfig, store: SessionStore) -> dict[str, str] | None:
    """Return the session's attribute dimensions, or None before they are proposed."""
    if config.attributes.dimensions is not None:
        return config.attributes.dimensions
    stored = store.meta(_DIMENSIONS)
    if stored is not None:
        return dict(json.loads(stored))
    return STANDARD_DIMENSIONS if config.attributes.propose is False else None


async def propose_dimensions(state: State, deps: Deps) -> State:
    """Have the LLM name the attribute dimensions, from the seeds of the first clusters; they are frozen from then on."""
    clusters = await to_its_end(deps.store.clusters, state["round"])
    n, limits = deps.config.attributes.n_dimensions, bool(deps.config.llm.schema_limits)
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
        schema=dimensions_schema(n, limits=limits),
        max_tokens=deps.config.llm.max_tokens or _MAX_TOKENS,
        round=state["round"],
        is_reading=True,
    )
    try:
        call = await deps.model.call(request)
    except BudgetExhausted as error:
        return {"limits_hit": [error.limit]}
    if call.state != "done":
        # Dimensions are frozen for the whole session: an outage must not decide them.
        raise EndpointError(f"the attribute dimensions could not be proposed ({call.error}); resume to ask again")
    parsed = parse_reply(call.content, call.finish_reason, call.refusal, ProposedDimensions, lenient=deps.model.lenient)
    if not isinstance(parsed, ReplyProblem) and limits and not deps.model.lenient:
        parsed = next((problem for each in parsed.dimensions if (problem := _cut(each))), parsed)
    if isinstance(parsed, ReplyProblem):
        await to_its_end(deps.store.admit, [], [_rejection(call, "", parsed, call.content)])
        dimensions = STANDARD_DIMENSIONS
    else:
        dimensions = {dimension.name: dimension.description for dimension in parsed.dimensions}
    await to_its_end(deps.store.set_meta, _DIMENSIONS, json.dumps(dimensions, ensure_ascii=False))
    return {}


def _cut(dimension: Dimension) -> ReplyProblem | None:
    """Say so if the schema's limits ended a dimension in the middle, which small models that tell stories run into."""
    if len(dimension.name) < MAX_DIMENSION_CHARACTERS and len(dimension.description) < MAX_MEANING_CHARACTERS:
        return None
    return ReplyProblem("cut", f"dimension {dimension.name!r} reached the limit of the schema: {dimension.description}")


async def summarize_attributes(task: ClusterTask, deps: Deps) -> State:
    """Describe one cluster; a cluster whose description fails is generated from without one."""
    cluster = await to_its_end(deps.store.cluster, task["cluster_id"])
    dimensions = await to_its_end(frozen_dimensions, deps.config, deps.store) or STANDARD_DIMENSIONS
    limit = MAX_ATTRIBUTE_CHARACTERS if deps.config.llm.schema_limits else None
    request = CallRequest(
        node="summarize_attributes",
        prompt=deps.prompts["summarize_attributes"],
        values={
            # The packaged prompt names neither of the first two; one in `prompts_dir` may.
            "task": deps.config.task,
            "label": deps.label_for_prompt(cluster.label),
            "dimensions": dimensions,
            "demonstrations": deps.real.texts(cluster.member_ids),
        },
        schema=attributes_schema(list(dimensions), limit),
        max_tokens=deps.config.llm.max_tokens or _MAX_TOKENS,
        round=cluster.round,
        cluster_id=cluster.id,
        is_reading=True,
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
        await to_its_end(deps.store.admit, [], [_rejection(call, cluster.label, parsed, call.content)])
        return {}
    values, refused = check_values(
        parsed.root,
        dimensions,
        task=deps.config.task,
        label=cluster.label,
        examples=_example_values(request),
        offers_choices=dimensions != STANDARD_DIMENSIONS,
        max_repetition=deps.config.gates.max_repetition,
        limit=None if deps.model.lenient else limit,
    )
    if refused:
        rejections = [_rejection(call, cluster.label, verdict, parsed.root[name]) for name, verdict in refused.items()]
        await to_its_end(deps.store.admit, [], rejections)
    await to_its_end(deps.store.add_attributes, cluster.id, values)
    return {}


def _example_values(request: CallRequest) -> list[str]:
    """Return the values in the worked examples of the prompt, which small models repeat."""
    answers = [message.content for message in render(request.prompt, request.values) if message.role == "assistant"]
    parsed = [parse_reply(answer, "stop", None, AttributeValues) for answer in answers]
    return [value for each in parsed if not isinstance(each, ReplyProblem) for value in each.root.values()]


def _rejection(call: CallRecord, label: str, why: ReplyProblem | Verdict, text: str | None) -> Rejection:
    return Rejection(
        id=content_id(call.key, why.reason, why.detail),
        round=call.round,
        label=label,
        call_key=call.key,
        reason=f"attributes_{why.reason}",
        detail=why.detail,
        text=text or "",
    )
