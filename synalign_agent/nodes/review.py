"""What both reviews share: asking in LangChain's shape, and reading an answer into decisions and problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from langgraph.types import interrupt

from synalign_agent.config import ReviewPolicy
from synalign_agent.deps import Deps
from synalign_agent.records import Decision, DecisionKind
from synalign_agent.schemas import ActionRequest, EditedAction, ReviewAnswer, ReviewDecision, ReviewRequest
from synalign_agent.state import State
from synalign_agent.stores.reviews import standing

NAMES: dict[DecisionKind, str] = {"attributes": "review_attributes", "sample": "review_sample"}
"""What the items are called in a request."""

ReadEdit = Callable[[EditedAction], str | None]
"""Return the edit as it is kept, None where it changes nothing; ValueError says what is wrong with it."""


class Item(NamedTuple):
    """Something to look at."""

    id: str
    request: ActionRequest
    read_edit: ReadEdit


def due(policy: ReviewPolicy, round: int) -> bool:
    """Tell whether a policy may want to see something of a round."""
    return policy != "never" and (policy != "first_round" or round == 1)


def ask(kind: DecisionKind, items: Sequence[Item]) -> ReviewAnswer:
    """Wait for a person: the first statement of a review that has an effect, since the node starts over when it is resumed."""
    request = ReviewRequest(
        action_requests=[item.request for item in items],
        review_configs=[{"action_name": NAMES[kind], "allowed_decisions": ["approve", "edit", "reject"]}],
    )
    return interrupt(request, response_schema=ReviewAnswer)


def keep_answer(
    deps: Deps, kind: DecisionKind, round: int, pending: list[str], items: Sequence[Item], answer: ReviewAnswer
) -> State:
    """Keep the decisions of an answer; return the items that have one now, and what is wrong with the others."""
    decisions, problems = read_answer(kind, round, items, answer)
    in_force = standing(deps.store.decisions(kind=kind, round=round))
    # A replay after a kill dates its decisions anew where the answer does not: what is in force already is not written again.
    deps.store.add_decisions(
        [decision for decision in decisions if not _same(decision, in_force.get(decision.item_id))]
    )
    return {
        "to_review": pending,
        "answered": [decision.item_id for decision in decisions],
        "review_problems": problems,
    }


def read_answer(
    kind: DecisionKind, round: int, items: Sequence[Item], answer: ReviewAnswer
) -> tuple[list[Decision], dict[str, str]]:
    """Match the decisions of an answer with the items; an item whose decision is missing or unusable is a problem."""
    by_id = {item.id: item for item in items}
    given, problems = _matched(items, answer.decisions)
    decisions: list[Decision] = []
    for item_id, said in given:
        if item_id not in by_id:
            problems[item_id] = "is not among the items that wait for review"
            continue
        verdict: Literal["approve", "edit", "reject"] = said.type
        edited: str | None = None
        if said.type == "edit" and said.edited_action is not None:
            try:
                edited = by_id[item_id].read_edit(said.edited_action)
            except ValueError as error:
                problems[item_id] = str(error)
                continue
            verdict = "edit" if edited is not None else "approve"
        decisions.append(
            Decision.of(
                kind, item_id, round, verdict, edited=edited, reason=(said.message or "").strip() or None,
                reviewer=said.reviewer, decided_at=said.decided_at or datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )  # fmt: skip
    decided = {decision.item_id for decision in decisions}
    for item in items:
        if item.id not in decided:
            problems.setdefault(item.id, "has no decision yet")
    return decisions, problems


def _matched(
    items: Sequence[Item], decisions: Sequence[ReviewDecision]
) -> tuple[list[tuple[str, ReviewDecision]], dict[str, str]]:
    named = [(said.item_id, said) for said in decisions if said.item_id is not None]
    if named:
        return named, {}
    if len(decisions) != len(items):
        counts = (
            f"the answer has {len(decisions)} decisions for {len(items)} items: give one for each, or name `item_id`"
        )
        return [], dict.fromkeys((item.id for item in items), counts)
    return [(item.id, said) for item, said in zip(items, decisions, strict=True)], {}


def _same(one: Decision, other: Decision | None) -> bool:
    return other is not None and replace(one, id="", decided_at="") == replace(other, id="", decided_at="")
