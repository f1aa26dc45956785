"""What the decisions of people make of a session: which one counts, what is left of the pool, what the attributes are now."""

from __future__ import annotations

import json
from collections.abc import Iterable

from synalign_agent.records import Decision, Sample
from synalign_agent.stores.base import SessionStore

GATES = "gates"
"""The reviewer of an undo that sends an edited text back: it takes everybody's decisions back, and says why."""
_MAX_GUIDANCE = 5


def standing(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """Return the decision in force for each item: the last one; an undo takes those of its reviewer back."""
    by_item: dict[str, list[Decision]] = {}
    for decision in decisions:
        earlier = by_item.setdefault(decision.item_id, [])
        if decision.verdict == "undo":
            earlier[:] = [other for other in earlier if decision.reviewer not in (other.reviewer, GATES)]
        else:
            earlier.append(decision)
    return {item_id: given[-1] for item_id, given in by_item.items() if given}


def sent_back(decisions: Iterable[Decision]) -> dict[str, str]:
    """Return item -> why its edit was turned away, for the items that nobody has decided since."""
    last = {decision.item_id: decision for decision in decisions}
    return {id: found.reason or "" for id, found in last.items() if found.reviewer == GATES and found.verdict == "undo"}


def pool(store: SessionStore, *, before_round: int | None = None) -> list[Sample]:
    """Return the samples that no person rejected or replaced, in the order of the store."""
    in_force = standing(store.decisions(kind="sample"))
    gone = {item_id for item_id, decision in in_force.items() if decision.verdict != "approve"}
    return [sample for sample in store.samples(before_round=before_round) if sample.id not in gone]


def attributes_in_force(store: SessionStore, cluster_ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return each cluster's attributes as a person left them, else as the LLM gave them; empty if there are none."""
    in_force = standing(store.decisions(kind="attributes"))
    found: dict[str, dict[str, str]] = {}
    for cluster_id in cluster_ids:
        decision = in_force.get(cluster_id)
        if decision is None or decision.verdict == "approve":
            found[cluster_id] = store.attributes_of(cluster_id)
        else:
            found[cluster_id] = {} if decision.edited is None else dict(json.loads(decision.edited))
    return found


def guidance(store: SessionStore, label: str, before_round: int) -> list[str]:
    """Return why people rejected texts of a label in earlier rounds: distinct reasons, the latest first, five at most."""
    in_force = standing(store.decisions(kind="sample")).values()
    rejected = [decision for decision in in_force if decision.verdict == "reject" and decision.reason]
    if not rejected:
        return []  # the usual case, once a call: without reading the pool
    label_of = {sample.id: sample.label for sample in store.samples(before_round=before_round)}
    reasons = [
        " ".join((decision.reason or "").split()) for decision in rejected if label_of.get(decision.item_id) == label
    ]
    return list(dict.fromkeys(reversed(reasons)))[:_MAX_GUIDANCE]
