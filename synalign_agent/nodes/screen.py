"""Screen: read a round's replies in one fixed order, pass their texts through the gates, and admit what is left to the pool.

A round is read batch by batch, as its replies may not fit into memory at once. A replay after a kill begins at the first batch
and comes to the same verdicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from synalign_agent.deps import Deps
from synalign_agent.errors import BudgetExhausted
from synalign_agent.event_loop import to_its_end
from synalign_agent.gates.base import Candidate, Verdict
from synalign_agent.gates.duplicate import SeenTexts
from synalign_agent.gates.label_check import check_judgement
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.structured import ReplyProblem, parse_reply
from synalign_agent.nodes.replies import check_texts, read_replies
from synalign_agent.nodes.round_calls import GENERATE, RoundCalls
from synalign_agent.nodes.vector_gates import label_votes, near_copy, nearest_real, refuse_duplicates
from synalign_agent.observe.spans import gate_attributes
from synalign_agent.records import Rejection, Sample, content_id
from synalign_agent.schemas import LabelJudgement, judgement_schema
from synalign_agent.state import State

_STREAM = 4
_JUDGE_EXAMPLES = 2
_JUDGE_MAX_TOKENS = 60


@dataclass
class _Pool:
    """What the texts of the next batch must not repeat."""

    seen: SeenTexts
    n_earlier: int
    """Samples of earlier rounds: the first rows of `pool_vectors`."""
    accepted: list[str] = field(default_factory=list)
    """Ids of this round's samples."""

    @classmethod
    def before(cls, deps: Deps, round: int) -> _Pool:
        # Only earlier rounds count at first: a replay after a kill finds this round's samples in the store already.
        earlier = deps.store.samples(before_round=round)
        return cls(SeenTexts(sample.text for sample in earlier), len(earlier))

    def rows(self, deps: Deps) -> NDArray[np.int64]:
        """Return where the pool is in `pool_vectors`."""
        row_of = {id: row for row, id in enumerate(deps.pool_vectors.ids[self.n_earlier :], self.n_earlier)}
        accepted = [row_of[id] for id in self.accepted]
        return np.concatenate([np.arange(self.n_earlier), np.array(accepted, dtype=np.int64)])


async def screen(state: State, deps: Deps) -> State:
    """Admit the round's texts that pass every gate, batch by batch; store every other one with its reason."""
    round = state["round"]
    n_embedded = await deps.ahead.finish()
    order = await to_its_end(RoundCalls.of, deps, round)
    pool = await to_its_end(_Pool.before, deps, round)
    limits: list[str] = []
    for cluster_ids in order.batches():
        survivors, blocks, rejections = await to_its_end(_read, deps, round, order, cluster_ids)
        X, nearest = await to_its_end(_embed, deps, survivors, blocks, n_embedded)
        verdicts = await to_its_end(_check_vectors, deps, pool, survivors, X, nearest)
        if deps.config.gates.label_check.method == "llm":
            with deps.observers.spans.span("judge_label_gate", "gate") as span:
                n_judged = verdicts.count(None)
                limits += await _judge(deps, round, survivors, verdicts)
                span.set({"synalign.n_texts": n_judged, "synalign.n_rejected": n_judged - verdicts.count(None)})
            await to_its_end(_refuse_duplicates, deps, pool, survivors, X, verdicts)
        pool.accepted += await to_its_end(_admit, deps, round, survivors, X, nearest, verdicts, rejections)
    # Once: what is lost with the process is embedded again from the texts.
    await to_its_end(deps.pool_vectors.save, deps.folder / "vectors" / "pool")
    return {"limits_hit": sorted(set(limits))} if limits else {}


def _read(
    deps: Deps, round: int, order: RoundCalls, cluster_ids: Sequence[str]
) -> tuple[list[Candidate], list[int], list[Rejection]]:
    calls = deps.store.calls(round=round, node=GENERATE, cluster_ids=cluster_ids)
    candidates, rejections = read_replies(deps, order, calls)
    with deps.observers.spans.span("text_gates", "gate") as span:
        survivors, rejected = check_texts(deps, candidates)
        span.set(gate_attributes(len(candidates), [verdict for _, verdict in rejected]))
    rejections += [_reject_text(candidate, verdict, round) for candidate, verdict in rejected]
    block_of = {call.key: order.block(call.cluster_id, call.draw) for call in calls}
    return survivors, [block_of[candidate.call_key] for candidate in survivors], rejections


def _embed(
    deps: Deps, survivors: Sequence[Candidate], blocks: Sequence[int], n_embedded: int
) -> tuple[NDArray[np.float32], list[tuple[str, float]]]:
    parts = [np.empty((0, deps.real_vectors.dimension), dtype=np.float32)]

    def together(place_and_candidate: tuple[int, Candidate]) -> int:
        # What the background worker has done is in the encoder's cache, and is fetched at once. What it has not is embedded as
        # it would have done it, block by block, and gets the same vectors to the last bit.
        return max(place_and_candidate[0], n_embedded - 1)

    for _, group in groupby(zip(blocks, survivors, strict=True), key=together):
        parts.append(deps.encoder.encode([candidate.text for _, candidate in group]))
    X = np.concatenate(parts)
    return X, nearest_real(deps, X)


def _check_vectors(
    deps: Deps,
    pool: _Pool,
    survivors: Sequence[Candidate],
    X: NDArray[np.float32],
    nearest: Sequence[tuple[str, float]],
) -> list[Verdict | None]:
    gates = deps.config.gates
    with deps.observers.spans.span("vector_gates", "gate") as span:
        texts = [candidate.text for candidate in survivors]
        verdicts = [near_copy(deps, text, *row) for text, row in zip(texts, nearest, strict=True)]
        if gates.label_check.method == "nearest" and len(deps.real.labels) > 1:
            labels = [candidate.label for candidate in survivors]
            votes = label_votes(deps, labels, X, min_vote=gates.label_check.min_vote)
            verdicts = [verdict or vote for verdict, vote in zip(verdicts, votes, strict=True)]
        _refuse_duplicates(deps, pool, survivors, X, verdicts, accept=gates.label_check.method != "llm")
        span.set(gate_attributes(len(survivors), verdicts))
    return verdicts


def _refuse_duplicates(
    deps: Deps,
    pool: _Pool,
    survivors: Sequence[Candidate],
    X: NDArray[np.float32],
    verdicts: list[Verdict | None],
    *,
    accept: bool = True,
) -> None:
    texts = [candidate.text for candidate in survivors]
    refuse_duplicates(deps, verdicts, texts, X, seen=pool.seen, pool_rows=pool.rows(deps), accept=accept)


async def _judge(deps: Deps, round: int, survivors: Sequence[Candidate], verdicts: list[Verdict | None]) -> list[str]:
    """Ask the LLM for the label of every candidate that is left; a text whose judgement fails is rejected."""
    examples = _judge_examples(deps)
    limits: list[str] = []

    async def judge(place: int) -> None:
        candidate = survivors[place]
        request = CallRequest(
            node="judge_label",
            prompt=deps.prompts["judge_label"],
            values={"task": deps.config.task, "text": candidate.text, "examples": examples},
            schema=judgement_schema(deps.real.labels),
            max_tokens=deps.config.llm.max_tokens or _JUDGE_MAX_TOKENS,
            round=round,
            cluster_id=candidate.cluster_id,
            is_reading=True,
        )
        try:
            call = await deps.model.call(request)
        except BudgetExhausted as error:
            limits.append(error.limit)
            verdicts[place] = Verdict("unjudged", f"limits.{error.limit} left no call for its label")
            return
        if call.state != "done":
            verdicts[place] = Verdict("unjudged", f"{call.error_class}: {call.error}")
            return
        parsed = parse_reply(call.content, call.finish_reason, call.refusal, LabelJudgement, lenient=deps.model.lenient)
        if isinstance(parsed, ReplyProblem):
            verdicts[place] = Verdict("unjudged", f"{parsed.reason}: {parsed.detail}")
        else:
            verdicts[place] = check_judgement(candidate.label, parsed.label)

    await asyncio.gather(*(judge(place) for place, verdict in enumerate(verdicts) if verdict is None))
    return limits


def _judge_examples(deps: Deps) -> dict[str, list[str]]:
    rng = deps.rng(_STREAM)
    examples = {}
    for code, label in enumerate(deps.real.labels):
        rows = deps.real.reference_rows(code)
        picked = rng.choice(rows, size=min(_JUDGE_EXAMPLES, len(rows)), replace=False)
        examples[label] = [deps.real.rows[int(row)].text for row in picked]
    return examples


def _admit(
    deps: Deps,
    round: int,
    survivors: Sequence[Candidate],
    X: NDArray[np.float32],
    nearest: Sequence[tuple[str, float]],
    verdicts: Sequence[Verdict | None],
    rejections: list[Rejection],
) -> list[str]:
    """Keep a batch's samples and rejections, and return the ids of the samples."""
    samples: list[Sample] = []
    kept: list[int] = []
    for place, (candidate, verdict) in enumerate(zip(survivors, verdicts, strict=True)):
        if verdict is not None:
            rejections.append(_reject_text(candidate, verdict, round))
            continue
        kept.append(place)
        samples.append(
            Sample(
                id=content_id(candidate.call_key, str(candidate.position)),
                round=round,
                label=candidate.label,
                text=candidate.text,
                cluster_id=candidate.cluster_id,
                call_key=candidate.call_key,
                position=candidate.position,
                nearest_real_id=nearest[place][0],
                nearest_similarity=nearest[place][1],
            )
        )
    # Texts first: vectors can be rebuilt from them, not the other way round.
    deps.store.admit(samples, rejections)
    ids = [sample.id for sample in samples]
    deps.pool_vectors.add(ids, X[kept])
    return ids


def _reject_text(candidate: Candidate, verdict: Verdict, round: int) -> Rejection:
    id = content_id(candidate.call_key, str(candidate.position), verdict.reason)
    return Rejection(id, round, candidate.label, candidate.call_key, verdict.reason, verdict.detail, candidate.text)
