"""Review of attributes: what people make of the descriptions before texts are written from them."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial

from synalign_agent.deps import Deps
from synalign_agent.event_loop import to_its_end
from synalign_agent.nodes.review import NAMES, Item, ask, due, keep_answer
from synalign_agent.nodes.summarize_attributes import frozen_dimensions
from synalign_agent.records import DemonstrationCluster
from synalign_agent.schemas import ActionRequest, EditedAction, clean_attributes
from synalign_agent.state import State
from synalign_agent.stores.reviews import attributes_in_force


async def review_attributes(state: State, deps: Deps) -> State:
    """Show the clusters of the round and wait for a decision about each; does nothing if the policy picks none."""
    pending = await to_its_end(_pending, state, deps)
    if not pending:
        return {"to_review": None, "answered": []}
    items = await to_its_end(_items, state, deps, pending[: deps.config.review.items_per_batch])
    answer = ask("attributes", items)
    return await to_its_end(keep_answer, deps, "attributes", state["round"], pending, items, answer)


def apply_attribute_review(state: State, deps: Deps) -> State:
    """Settle what was decided: `attributes_in_force` reads the decisions, so that nothing else has to be written."""
    left = [cluster_id for cluster_id in state.get("to_review") or [] if cluster_id not in state.get("answered", [])]
    return {"to_review": left or None, "answered": []}


def _pending(state: State, deps: Deps) -> list[str]:
    policy = deps.config.review.attributes
    if not due(policy, state["round"]):
        return []
    started = state.get("to_review")
    if started:
        return started
    clusters = deps.store.clusters(state["round"])
    if policy != "flagged":
        return [cluster.id for cluster in _by_label(clusters)]
    described = {cluster.id: json.dumps(deps.store.attributes_of(cluster.id)) for cluster in clusters}
    times = Counter((cluster.label, described[cluster.id]) for cluster in clusters)
    return [
        cluster.id
        for cluster in _by_label(clusters)
        if described[cluster.id] == "{}" or times[cluster.label, described[cluster.id]] > 1
    ]


def _by_label(clusters: list[DemonstrationCluster]) -> list[DemonstrationCluster]:
    return sorted(clusters, key=lambda cluster: (cluster.label, cluster.position))


def _items(state: State, deps: Deps, ids: list[str]) -> list[Item]:
    dimensions = list(frozen_dimensions(deps.config, deps.store) or {})
    problems = state.get("review_problems", {})
    in_force = attributes_in_force(deps.store, [id for id in ids if id in problems])
    items = []
    for cluster_id in ids:
        cluster = deps.store.cluster(cluster_id)
        given = deps.store.attributes_of(cluster_id)
        # A dimension without a value is shown empty, so that a person sees what could be said.
        attributes = {name: given.get(name, "") for name in (*dimensions, *(set(given) - set(dimensions)))}
        request = ActionRequest(
            name=NAMES["attributes"],
            args={
                "item_id": cluster_id,
                "round": cluster.round,
                "label": deps.label_for_prompt(cluster.label),
                "attributes": in_force.get(cluster_id, attributes),
                "demonstrations": deps.real.texts(cluster.member_ids),
                "problem": problems.get(cluster_id),
            },
            description=_table(cluster.label, attributes, deps.real.texts(cluster.member_ids)),
        )
        items.append(Item(cluster_id, request, partial(_read_edit, given)))
    return items


def _read_edit(given: dict[str, str], action: EditedAction) -> str | None:
    attributes = action.args.get("attributes")
    if not isinstance(attributes, dict):
        raise ValueError("`args` needs `attributes`: a JSON object with a value for each dimension")
    kept = clean_attributes(attributes)
    return None if kept == given else json.dumps(kept, ensure_ascii=False)


def _table(label: str, attributes: dict[str, str], demonstrations: list[str]) -> str:
    rows = "\n".join(f"| {name} | {value or '–'} |" for name, value in attributes.items())
    texts = "\n".join(f"- {text}" for text in demonstrations)
    return f"**{label}**\n\n| dimension | value |\n|---|---|\n{rows}\n\nread off these real rows:\n{texts}"
