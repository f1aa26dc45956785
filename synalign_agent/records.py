"""The rows that the stores keep. Plain values: texts and ids, no arrays and no live handles."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["reference", "holdout"]

UNLABELLED = "all"
"""Group name used when the data have no label column."""


def content_id(*parts: str) -> str:
    """Return 16 hex digits that depend on all parts and on where one ends and the next begins."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class RealRow:
    """A real labelled text."""

    id: str
    """`content_id(label, text)`."""
    text: str
    label: str
    split: Split
    """`holdout` rows score, and never reach the LLM or the weights."""


@dataclass(frozen=True, slots=True)
class DemonstrationCluster:
    """Real reference rows that are shown, or summarised, together."""

    id: str
    round: int
    label: str
    position: int
    """Order of selection within the round, from 0."""
    seed_id: str
    member_ids: tuple[str, ...]
    """Ids of real rows, the seed first."""
    score: float | None
    """Posterior variance of the seed when it was picked, times the gap weight if one was used; None for other strategies."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A synthetic text that passed all gates."""

    id: str
    """Hash of the call it came from and its position in the reply, so that a replay finds it again."""
    round: int
    label: str
    text: str
    cluster_id: str
    call_key: str
    position: int
    nearest_real_id: str
    nearest_similarity: float
    """Cosine similarity to the nearest real row, reference and hold-out."""
    edited_from: str | None = None
    """Id of the sample that a person rewrote into this one; None for a text as the model wrote it."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A text, or a whole reply, that did not become data, and why."""

    id: str
    round: int
    label: str
    call_key: str
    reason: str
    """One of a few words, counted in reports: `length_cut`, `refused`, `duplicate`, `copy_words`, ..."""
    detail: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One attempt of one LLM call, as the journal keeps it."""

    key: str
    attempt: int
    state: Literal["intended", "done", "failed", "lost"]
    node: str
    round: int
    cluster_id: str
    draw: int
    prompt: str
    prompt_version: str
    prompt_sha256: str
    model: str
    seed: int
    bound_tokens: int
    """Most tokens that the attempt can have used; what the budget charges where the use is unknown."""
    bound_usd: float
    content: str | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    error_class: str | None = None
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    cached: bool = False
    """The reply came from the response cache that sessions share: nothing was sent, nothing is charged."""


@dataclass(frozen=True, slots=True)
class CallTotals:
    """Sums over the journal."""

    done: int = 0
    failed: int = 0
    repeated: int = 0
    """Finished calls that were sent again; the journal exists to keep this at 0."""
    in_flight_lost: int = 0
    """Calls whose process died before the reply was written."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    n_attempts: int = 0
    """Attempts that were sent, or were about to be; replies from the shared cache are none."""
    charged_tokens: int = 0
    """Tokens for the budget: reported use, or the bound where an attempt's use is unknown (lost, timed out)."""
    charged_usd: float = 0.0
    cached: int = 0
    """Calls of `done` that the shared response cache answered."""
    failed_by_class: Mapping[str, int] = field(default_factory=dict)

    @property
    def reports_tokens(self) -> bool:
        """Whether the endpoint tells what its calls use, as far as there are any."""
        return not self.done or self.prompt_tokens + self.completion_tokens > 0


UNBILLED = frozenset(
    {
        "authentication", "bad_request", "context_overflow", "insufficient_quota", "not_found", "rate_limit", "server_error",
        "unreachable", "unsupported_format",
    }
)  # fmt: skip
"""Error classes in which the endpoint answered that it did not serve the call, so that nothing is charged."""


def charge(call: CallRecord) -> tuple[int, float]:
    """Return the (tokens, USD) that an attempt takes from the budget: its use where known, else its upper bound."""
    used = call.prompt_tokens + call.completion_tokens
    if call.cached:
        return 0, 0.0
    if call.state == "done" and used:
        return used, call.cost_usd
    if call.state == "failed" and call.error_class in UNBILLED:
        return 0, 0.0
    return call.bound_tokens, call.bound_usd


def sum_calls(calls: Iterable[CallRecord]) -> CallTotals:
    """Sum up attempts."""
    calls = list(calls)
    states = Counter(call.state for call in calls)
    classes = Counter(str(call.error_class) for call in calls if call.state == "failed")
    charges = [charge(call) for call in calls]
    return CallTotals(
        done=states["done"],
        failed=states["failed"],
        repeated=states["done"] - len({call.key for call in calls if call.state == "done"}),
        in_flight_lost=states["lost"],
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        completion_tokens=sum(call.completion_tokens for call in calls),
        cost_usd=sum(call.cost_usd for call in calls),
        n_attempts=sum(not call.cached for call in calls),
        charged_tokens=sum(tokens for tokens, _ in charges),
        charged_usd=sum(usd for _, usd in charges),
        cached=sum(call.cached for call in calls if call.state == "done"),
        failed_by_class=dict(classes.most_common()),
    )


@dataclass(frozen=True, slots=True)
class CallGroup:
    """Sums over the attempts that share node, prompt, round, state, error class and origin."""

    node: str
    prompt: str
    round: int
    state: str
    error_class: str | None
    cached: bool
    inherited: bool
    """Taken over from the session that this one was forked from, cost included."""
    n: int
    n_without_usage: int
    """Attempts that reported no tokens."""
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    seconds: float

    @property
    def order(self) -> tuple[int, str, str, str, str, bool, bool]:
        """The place of the group in a list."""
        kind = (self.node, self.prompt, self.state, self.error_class or "")
        return (self.round, *kind, self.cached, self.inherited)


def group_calls(calls: Iterable[CallRecord]) -> list[CallGroup]:
    """Sum up attempts by what they have in common; none is inherited."""
    groups: dict[tuple[str, str, int, str, str | None, bool], list[CallRecord]] = {}
    for call in calls:
        common = (call.node, call.prompt, call.round, call.state, call.error_class, call.cached)
        groups.setdefault(common, []).append(call)
    return sorted((_group(members) for members in groups.values()), key=lambda group: group.order)


def _group(members: list[CallRecord]) -> CallGroup:
    first = members[0]
    return CallGroup(
        node=first.node,
        prompt=first.prompt,
        round=first.round,
        state=first.state,
        error_class=first.error_class,
        cached=first.cached,
        inherited=False,
        n=len(members),
        n_without_usage=sum(call.prompt_tokens + call.completion_tokens == 0 for call in members),
        prompt_tokens=sum(call.prompt_tokens for call in members),
        completion_tokens=sum(call.completion_tokens for call in members),
        cost_usd=sum(call.cost_usd for call in members),
        seconds=sum(call.seconds for call in members),
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """What the aligner decided about one pool sample."""

    sample_id: str
    weight: float
    """Sampling weight within the whole pool; all of them sum to 1."""
    copies: int
    """How often the sample is in the result; 0 if it was not selected."""


DecisionKind = Literal["attributes", "sample"]
Verdict = Literal["approve", "edit", "reject", "undo"]
"""`undo` takes the reviewer's decisions about the item back."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about the attributes of a cluster, or about a sample."""

    id: str
    """`content_id` of all other fields: the same decision given twice is one, another one is kept beside it."""
    kind: DecisionKind
    item_id: str
    """The cluster's id, or the sample's."""
    round: int
    verdict: Verdict
    edited: str | None
    """For `edit`: the attributes as a JSON object, or the new text."""
    reason: str | None
    """For `reject`: why, in the person's words."""
    reviewer: str
    decided_at: str
    """ISO 8601 in UTC, given by whoever records the decision."""

    @classmethod
    def of(
        cls,
        kind: DecisionKind,
        item_id: str,
        round: int,
        verdict: Verdict,
        *,
        edited: str | None = None,
        reason: str | None = None,
        reviewer: str,
        decided_at: str,
    ) -> Decision:
        """Make a decision with the id that its content gives it."""
        # JSON keeps a missing reason apart from an empty one.
        content = json.dumps([kind, item_id, round, verdict, edited, reason, reviewer, decided_at])
        return cls(content_id(content), kind, item_id, round, verdict, edited, reason, reviewer, decided_at)
