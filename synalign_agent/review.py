"""A review that waits for people: what it shows, what was decided so far, and the answer that lets the run go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from synalign_agent.errors import InputError
from synalign_agent.records import Decision, DecisionKind
from synalign_agent.schemas import clean_attributes
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.reviews import sent_back, standing

_KINDS: dict[str, DecisionKind] = {"review_attributes": "attributes", "review_sample": "sample"}


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """A cluster's attributes, or a sample."""

    id: str
    kind: DecisionKind
    round: int
    shown: Mapping[str, Any]
    """`text` or `attributes`, `label`, and what to compare with (`nearest_real`, `demonstrations`, `flags`)."""
    given: tuple[Decision, ...]
    """Everything that was decided about it, in order."""
    decision: Decision | None
    """What is in force."""
    problem: str | None
    """Why the last decision could not be put into effect."""

    @property
    def content(self) -> str | dict[str, str]:
        """The text, or the attributes, as the model wrote it."""
        found: str | dict[str, str] = self.shown["text" if self.kind == "sample" else "attributes"]
        return found

    @property
    def conflicting(self) -> tuple[Decision, ...]:
        """The last decisions of its reviewers, if they differ."""
        last = {reviewer: standing(self._of(reviewer)).get(self.id) for reviewer in self._reviewers()}
        kept = [decision for decision in last.values() if decision is not None]
        differ = len({(decision.verdict, decision.edited) for decision in kept}) > 1
        return tuple(kept) if differ and self.decision is not None else ()

    def _reviewers(self) -> list[str]:
        return list(dict.fromkeys(decision.reviewer for decision in self.given))

    def _of(self, reviewer: str) -> list[Decision]:
        return [decision for decision in self.given if decision.reviewer == reviewer]


@dataclass(frozen=True, slots=True)
class PendingReview:
    """The batch that a session waits for."""

    interrupt_id: str
    kind: DecisionKind
    items: tuple[ReviewItem, ...]

    @property
    def undecided(self) -> list[ReviewItem]:
        """The items that need a decision."""
        return [item for item in self.items if item.decision is None]

    def item(self, id: str) -> ReviewItem:
        """Return an item by its id.

        Raises:
            InputError: it does not wait for review.
        """
        for item in self.items:
            if item.id == id:
                return item
        raise InputError(
            f"item {id!r} does not wait for review: `synalign review THREAD_ID --export` lists those that do"
        )

    def refreshed(self, store: SessionStore) -> PendingReview:
        """Return the same batch with the decisions that are kept by now."""
        return _joined(self.interrupt_id, self.kind, [item.shown for item in self.items], store)

    def answer(self) -> dict[str, Any]:
        """Return what resumes the graph: the decision in force for every item, as `schemas.ReviewAnswer`."""
        decisions = []
        for item in self.items:
            if item.decision is None:
                raise InputError(f"item {item.id} has no decision yet")
            said: dict[str, Any] = {
                "type": item.decision.verdict,
                "item_id": item.id,
                "reviewer": item.decision.reviewer,
                "decided_at": item.decision.decided_at,
                "message": item.decision.reason,
            }
            if item.decision.edited is not None:
                args = (
                    {"text": item.decision.edited}
                    if item.kind == "sample"
                    else {"attributes": json.loads(item.decision.edited)}
                )
                said["edited_action"] = {"args": args}
            decisions.append(said)
        return {"decisions": decisions}


def read_pending(interrupt_id: str, request: Mapping[str, Any], store: SessionStore) -> PendingReview:
    """Join an interrupt's request with the decisions that were kept since."""
    asked = request["action_requests"]
    return _joined(interrupt_id, _KINDS[asked[0]["name"]], [action["args"] for action in asked], store)


def _joined(
    interrupt_id: str, kind: DecisionKind, all_shown: Sequence[Mapping[str, Any]], store: SessionStore
) -> PendingReview:
    given: dict[str, list[Decision]] = {}
    for decision in store.decisions(kind=kind, round=all_shown[0]["round"]):
        given.setdefault(decision.item_id, []).append(decision)
    items = []
    for shown in all_shown:
        id = str(shown["item_id"])
        decided = given.get(id, [])
        items.append(
            ReviewItem(
                id=id,
                kind=kind,
                round=shown["round"],
                shown=shown,
                given=tuple(decided),
                decision=standing(decided).get(id),
                problem=sent_back(decided).get(id) or shown.get("problem"),
            )
        )
    return PendingReview(interrupt_id, kind, tuple(items))


def decide(
    item: ReviewItem,
    verdict: Literal["approve", "edit", "reject", "undo"],
    *,
    edit: str | Mapping[str, str] | None = None,
    reason: str | None = None,
    reviewer: str,
    decided_at: str | None = None,
) -> Decision:
    """Make a decision about an item.

    Args:
        item: what it is about.
        verdict: `undo` takes the reviewer's earlier decisions about the item back.
        edit: for `edit`: the new text, or all attributes (a dimension that is left out is dropped, a new one added).
        reason: for `reject`, needed.
        reviewer: who decides.
        decided_at: when, ISO 8601 (None = now).

    Raises:
        InputError: the edit or the reason is missing or unusable.
    """
    reason = " ".join((reason or "").split()) or None
    edited: str | None = None
    if not reviewer.strip():
        raise InputError("reviewer: name who decides")
    if verdict == "reject" and reason is None:
        raise InputError("reason: say why it is rejected; that guides what is written next")
    if verdict == "edit":
        edited = _edited(item, edit)
        if edited is None:
            verdict = "approve"
    elif edit:
        raise InputError(f"edit: there is one, but the decision is {verdict!r}, not 'edit'")
    return Decision.of(
        item.kind, item.id, item.round, verdict, edited=edited, reason=reason, reviewer=reviewer.strip(),
        decided_at=decided_at or now(),
    )  # fmt: skip


def now() -> str:
    """Return the time as decisions bear it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _edited(item: ReviewItem, edit: str | Mapping[str, str] | None) -> str | None:
    """Return the edit as it is kept, None if it changes nothing."""
    if item.kind == "sample":
        if not isinstance(edit, str) or not edit.strip():
            raise InputError("edit: the new text is missing (reject the sample to drop it)")
        return None if edit.strip() == item.content else edit.strip()
    if not isinstance(edit, Mapping):
        raise InputError('edit: the attributes are missing; give all of them, as in {"tone": "angry"}')
    try:
        kept = clean_attributes(edit)
    except ValueError as error:
        raise InputError(f"edit: {error}") from None
    before = {name: value for name, value in dict(item.shown["attributes"]).items() if value}
    return None if kept == before else json.dumps(kept, ensure_ascii=False)


def unsettled(items: Iterable[ReviewItem]) -> str:
    """Say which items need a decision, and why those whose decision came back did."""
    lines = [f"{item.id}: {item.problem or 'has no decision yet'}" for item in items]
    return "\n  ".join(lines)
