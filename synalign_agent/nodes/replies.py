"""From replies to texts that are worth embedding: read in the order of the round, parsed, and past the cheap gates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import cast

from synalign_agent.deps import Deps
from synalign_agent.event_loop import to_its_end
from synalign_agent.gates.base import Candidate, Verdict
from synalign_agent.gates.copy_check import check_words
from synalign_agent.gates.debris import check_debris
from synalign_agent.gates.length import check_length, check_repetition
from synalign_agent.llm.structured import ReplyProblem, parse_reply
from synalign_agent.nodes.round_calls import GENERATE, RoundCalls
from synalign_agent.records import CallRecord, Rejection, content_id
from synalign_agent.schemas import GeneratedTexts


def read_replies(deps: Deps, order: RoundCalls, calls: Iterable[CallRecord]) -> tuple[list[Candidate], list[Rejection]]:
    """Return the texts in the replies of some clusters, in the order of the round, and what is no data."""
    last_attempts: dict[str, CallRecord] = {}
    for call in calls:
        last_attempts[call.key] = call
    latest = {(call.cluster_id, call.draw): call.key for call in last_attempts.values()}
    candidates: list[Candidate] = []
    rejections: list[Rejection] = []
    # Only where a grammar holds a text to the limit is one of that length a text without an end.
    enforced = bool(deps.config.llm.schema_limits) and not deps.model.lenient
    for call in order.sorted(last_attempts.values()):
        label = order.label_of[call.cluster_id]
        if call.state != "done":
            # A call that was asked again, in another format, say, is not a second failure.
            if latest[call.cluster_id, call.draw] == call.key:
                problem = ReplyProblem(f"call_{call.error_class or call.state}", call.error or "")
                rejections.append(_reject_reply(call, label, problem))
            continue
        parsed = parse_reply(call.content, call.finish_reason, call.refusal, GeneratedTexts, lenient=deps.model.lenient)
        if isinstance(parsed, ReplyProblem):
            rejections.append(_reject_reply(call, label, parsed))
            continue
        for position, text in enumerate(parsed.texts):
            is_cut = enforced and len(text) >= deps.limits.max_characters
            candidates.append(Candidate(call.key, position, call.cluster_id, label, text.strip(), is_cut))
    return candidates, rejections


def check_texts(deps: Deps, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[tuple[Candidate, Verdict]]]:
    """Run the gates that need no embedding; return who passes, and who does not and why."""
    gates, real_ids = deps.config.gates, [row.id for row in deps.real.rows]
    survivors: list[Candidate] = []
    rejected: list[tuple[Candidate, Verdict]] = []
    for candidate in candidates:
        verdict = (
            check_length(candidate.text, deps.limits, is_cut=candidate.is_cut)
            or check_debris(candidate.text, is_usual=deps.debris_is_usual)
            or check_repetition(candidate.text, gates.max_repetition)
            or check_words(candidate.text, deps.word_runs, real_ids)
        )
        if verdict is None:
            survivors.append(candidate)
        else:
            rejected.append((candidate, verdict))
    return survivors, rejected


async def begin_ahead(deps: Deps, cluster_id: str) -> RoundCalls:
    """Have the texts of the round that `cluster_id` belongs to embedded while its calls are made; return its order."""
    async with deps.ahead.lock:
        if deps.ahead.plan is not None and cluster_id in deps.ahead.plan.place_of:
            return cast(RoundCalls, deps.ahead.plan)
        round = (await to_its_end(deps.store.cluster, cluster_id)).round
        order, calls_open = await to_its_end(_open_round, deps, round)
        deps.ahead.begin(calls_open, partial(_embed_block, deps, order), order)
        return order


def note_ended(deps: Deps, order: RoundCalls, cluster_id: str, draw: int, call: CallRecord | None) -> None:
    """Tell the background worker that a call has ended, with its record if it has one."""
    block = order.block(cluster_id, draw)
    if call is not None:
        order.note(block, call)
    deps.ahead.ended(block, order.position(cluster_id, draw))


def _open_round(deps: Deps, round: int) -> tuple[RoundCalls, dict[int, set[int]]]:
    order = RoundCalls.of(deps, round)
    calls_open: dict[int, set[int]] = {}
    for cluster_id in order.place_of:
        for draw in range(order.n_draws):
            calls_open.setdefault(order.block(cluster_id, draw), set()).add(order.position(cluster_id, draw))
    # After a kill the tasks that had finished do not run again: their calls have ended before this round was begun.
    for cluster_ids in order.batches():
        for call in deps.store.calls(round=round, node=GENERATE, cluster_ids=cluster_ids):
            if call.state == "done" and call.draw < order.n_draws:
                block = order.block(call.cluster_id, call.draw)
                order.note(block, call)
                calls_open[block].discard(order.position(call.cluster_id, call.draw))
    return order, calls_open


def _embed_block(deps: Deps, order: RoundCalls, block: int) -> None:
    """Fill the encoder's cache with a block's texts, which the screening asks for in the same block."""
    found = deps.store.look_up_calls(order.keys.pop(block, []))
    calls = [call for call, _ in found.values() if call is not None]
    survivors, _ = check_texts(deps, read_replies(deps, order, calls)[0])
    deps.encoder.encode([candidate.text for candidate in survivors])


def _reject_reply(call: CallRecord, label: str, problem: ReplyProblem) -> Rejection:
    id = content_id(call.key, problem.reason)
    return Rejection(id, call.round, label, call.key, problem.reason, problem.detail, call.content or "")
