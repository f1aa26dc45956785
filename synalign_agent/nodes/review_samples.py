"""Review of samples: what people make of the texts that passed the gates, before the pool is aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from synalign_agent.deps import Deps
from synalign_agent.event_loop import to_its_end
from synalign_agent.gates.base import Verdict
from synalign_agent.gates.copy_check import check_words
from synalign_agent.gates.duplicate import SeenTexts
from synalign_agent.gates.length import check_repetition
from synalign_agent.nodes.review import NAMES, Item, ask, due, keep_answer
from synalign_agent.nodes.vector_gates import label_votes, near_copy, nearest_real, refuse_duplicates
from synalign_agent.records import Decision, Rejection, Sample, content_id
from synalign_agent.schemas import ActionRequest, EditedAction
from synalign_agent.state import State
from synalign_agent.stores.reviews import GATES, attributes_in_force, pool, sent_back, standing

REJECTED = "review_rejected"
"""The reason of a rejection by a person; its detail is what the person said."""
_SAID = {
    "copy_words": "copies a real row",
    "copy_cosine": "copies a real row",
    "copy_edited": "copies a real row",
    "duplicate": "repeats another sample",
    "near_duplicate": "repeats another sample",
}


async def review_samples(state: State, deps: Deps) -> State:
    """Show the samples of the round and wait for a decision about each; does nothing if the policy picks none."""
    pending, flags = await to_its_end(_pending, state, deps)
    if not pending:
        return {"to_review": None, "answered": []}
    items = await to_its_end(_items, state, deps, pending[: deps.config.review.items_per_batch], flags)
    answer = ask("sample", items)
    return await to_its_end(keep_answer, deps, "sample", state["round"], pending, items, answer)


def apply_sample_review(state: State, deps: Deps) -> State:
    """Reject and replace samples as decided; an edited text that a gate turns away goes back to review with the reason."""
    round = state["round"]
    in_force = standing(deps.store.decisions(kind="sample", round=round))
    # A pass that was killed may have sent some back already.
    answered = {item_id for item_id in state.get("answered", []) if item_id in in_force}
    originals = {sample.id: sample for sample in deps.store.samples() if sample.id in answered}
    rejections = [
        _rejection(originals[item_id], in_force[item_id])
        for item_id in originals
        if in_force[item_id].verdict == "reject"
    ]
    edits = [
        replace(
            originals[item_id],
            id=content_id("edited", item_id, in_force[item_id].edited or ""),
            text=in_force[item_id].edited or "",
            edited_from=item_id,
        )
        for item_id in originals
        if in_force[item_id].verdict == "edit"
    ]
    refused = _admit(deps, edits, rejections)
    deps.store.add_decisions([_send_back(in_force[item_id], why) for item_id, why in refused.items()])
    settled = answered - refused.keys()
    left = [sample_id for sample_id in state.get("to_review") or [] if sample_id not in settled]
    return {"to_review": left or None, "answered": []}


def _admit(deps: Deps, edits: list[Sample], rejections: list[Rejection]) -> dict[str, str]:
    """Write what holds; return why edits do not, by the id of the sample that they replace."""
    if not edits:
        deps.store.admit([], rejections)
        return {}
    X = deps.encoder.encode([sample.text for sample in edits])
    for place, (real_id, similarity) in enumerate(nearest_real(deps, X)):
        edits[place] = replace(edits[place], nearest_real_id=real_id, nearest_similarity=similarity)
    verdicts = _verdicts(deps, edits, X)
    kept = [place for place, verdict in enumerate(verdicts) if verdict is None]
    # Texts first, as in `screen`: vectors can be rebuilt from them.
    deps.store.admit([edits[place] for place in kept], rejections)
    deps.pool_vectors.add([edits[place].id for place in kept], X[kept])
    deps.pool_vectors.save(deps.folder / "vectors" / "pool")
    return {
        str(sample.edited_from): f"the edited text {_SAID[verdict.reason]}: {verdict.detail}"
        for sample, verdict in zip(edits, verdicts, strict=True)
        if verdict is not None
    }


def _verdicts(deps: Deps, edits: Sequence[Sample], X: NDArray[np.float32]) -> list[Verdict | None]:
    """Hold edited texts to the gates that protect others' data and the pool; length and label are the person's to judge."""
    real_ids = [row.id for row in deps.real.rows]
    verdicts = [
        check_words(sample.text, deps.word_runs, real_ids)
        or near_copy(deps, sample.text, sample.nearest_real_id, sample.nearest_similarity)
        for sample in edits
    ]
    # Their originals have left the pool by the decision; what a killed pass over this node wrote must not count against it.
    new = {sample.id for sample in edits}
    others = [sample for sample in pool(deps.store) if sample.id not in new]
    row_of = {id: row for row, id in enumerate(deps.pool_vectors.ids)}
    among = np.array([row_of[sample.id] for sample in others], dtype=np.int64)
    refuse_duplicates(
        deps, verdicts, [sample.text for sample in edits], X,
        seen=SeenTexts(sample.text for sample in others), pool_rows=among,
    )  # fmt: skip
    return verdicts


def _send_back(decision: Decision, why: str) -> Decision:
    return Decision.of(
        "sample", decision.item_id, decision.round, "undo", reason=why, reviewer=GATES, decided_at=decision.decided_at
    )


def _rejection(sample: Sample, decision: Decision) -> Rejection:
    return Rejection(
        id=content_id(decision.id),
        round=sample.round,
        label=sample.label,
        call_key=sample.call_key,
        reason=REJECTED,
        detail=decision.reason or "",
        text=sample.text,
    )


def _pending(state: State, deps: Deps) -> tuple[list[str], dict[str, list[str]]]:
    """Return the ids that are left to decide, and why samples of the round are flagged."""
    policy = deps.config.review.samples
    if not due(policy, state["round"]):
        return [], {}
    written = [
        sample for sample in deps.store.samples() if sample.round == state["round"] and sample.edited_from is None
    ]
    flags = _flags(deps, written)
    started = state.get("to_review")
    if started:
        return started, flags
    if policy == "flagged":
        return [sample.id for sample in written if flags[sample.id]], flags
    return [sample.id for sample in written], flags


def _flags(deps: Deps, samples: Sequence[Sample]) -> dict[str, list[str]]:
    """Return sample -> what the gates would say of it if their thresholds were nearer by `review.margin`."""
    if not samples:
        return {}
    gates, margin = deps.config.gates, deps.config.review.margin
    votes: list[Verdict | None] = [None] * len(samples)
    ids = [sample.id for sample in samples]
    X = deps.pool_vectors.get(ids)
    if gates.label_check.method == "nearest" and len(deps.real.labels) > 1:
        labels = [sample.label for sample in samples]
        votes = label_votes(deps, labels, X, min_vote=gates.label_check.min_vote + margin)
    # The nearest sample of this and earlier rounds; the first hit is the sample itself.
    written = {sample.id for sample in deps.store.samples() if sample.edited_from is None}
    rows = np.array([row for row, id in enumerate(deps.pool_vectors.ids) if id in written], dtype=np.int64)
    _, cosines = deps.pool_vectors.search(X, 2, among=rows)
    flags: dict[str, list[str]] = {}
    for place, sample in enumerate(samples):
        said = [
            near_copy(deps, sample.text, sample.nearest_real_id, sample.nearest_similarity, margin=margin),
            check_repetition(sample.text, max(0.0, gates.max_repetition - margin)),
            votes[place],
        ]
        reasons = [verdict.detail for verdict in said if verdict is not None]
        if cosines.shape[1] == 2 and cosines[place, 1] > gates.duplicate_cosine - margin:
            reasons.append(f"cosine {cosines[place, 1]:.3f} to another sample")
        flags[sample.id] = reasons
    return flags


def _items(state: State, deps: Deps, ids: Sequence[str], flags: dict[str, list[str]]) -> list[Item]:
    samples = {sample.id: sample for sample in deps.store.samples()}
    problems = {
        **state.get("review_problems", {}),
        **sent_back(deps.store.decisions(kind="sample", round=state["round"])),
    }
    in_force = attributes_in_force(deps.store, {samples[id].cluster_id for id in ids})
    items = []
    for sample_id in ids:
        sample = samples[sample_id]
        label, nearest = deps.label_for_prompt(sample.label), deps.real.texts([sample.nearest_real_id])[0]
        attributes = in_force[sample.cluster_id]
        request = ActionRequest(
            name=NAMES["sample"],
            args={
                "item_id": sample.id,
                "round": sample.round,
                "label": label,
                "text": sample.text,
                "attributes": attributes,
                "nearest_real": nearest,
                "nearest_similarity": sample.nearest_similarity,
                "flags": flags.get(sample.id, []),
                "problem": problems.get(sample.id),
            },
            description="\n\n".join(
                [
                    f"**{label or 'text'}**: {sample.text}",
                    f"nearest real row (cosine {sample.nearest_similarity:.2f}): {nearest}",
                    "; ".join(f"{name}: {value}" for name, value in attributes.items()),
                ]
            ).strip(),
        )
        items.append(Item(sample.id, request, partial(_read_edit, sample.text)))
    return items


def _read_edit(before: str, action: EditedAction) -> str | None:
    text = action.args.get("text")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("`args` needs `text`: the new text, not empty (reject the sample to drop it)")
    return None if text.strip() == before else text.strip()
