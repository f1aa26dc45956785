"""Review by people: what they are shown, what their answers change, and what an unusable answer leads to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from support.chat_server import ChatServer
from support.postgres import wherever_kept
from support.reviews import BY, EDITED, approve_all, finish, pending_of, pool_of, sent

from synalign_agent import graph as graph_module
from synalign_agent.config import SessionConfig
from synalign_agent.errors import InputError, SessionError
from synalign_agent.review import decide
from synalign_agent.session import Session

MakeConfig = Callable[..., SessionConfig]
pytestmark = pytest.mark.usefixtures("hash_encoder")


def test_a_sample_is_shown_beside_its_nearest_real_row_and_attributes(waiting: Session) -> None:
    pending = pending_of(waiting)
    samples = {sample.id: sample for sample in waiting.store.samples()}
    real = {row.id: row.text for row in waiting.store.real_rows()}
    assert pending.kind == "sample" and {item.id for item in pending.items} == samples.keys()
    for item in pending.items:
        sample = samples[item.id]
        assert (item.content, item.shown["label"], item.shown["nearest_real"]) == (
            sample.text, sample.label, real[sample.nearest_real_id],
        )  # fmt: skip
        assert item.shown["attributes"] == waiting.store.attributes_of(sample.cluster_id) != {}
        assert item.decision is None and item.problem is None


def test_nothing_is_sent_or_aligned_while_a_review_waits(waiting: Session, chat_server: ChatServer) -> None:
    n_requests = len(chat_server.requests)
    assert waiting.run()["status"] == "waiting_for_review"
    assert waiting.store.rounds() == [] and len(chat_server.requests) == n_requests


@wherever_kept
def test_approved_samples_end_like_a_run_without_review(waiting: Session, make_config: MakeConfig) -> None:
    reviewed = finish(waiting)
    with Session.create(make_config(limits__max_rounds=2), thread_id="plain") as session:
        plain = session.run()
    assert reviewed["status"] == "finished"
    assert (reviewed["mmd2"], reviewed["n_pool"]) == (plain["mmd2"], plain["n_pool"])
    assert pool_of(reviewed) == pool_of(plain)


def test_rejected_samples_leave_the_pool_and_their_reasons_guide_the_next_round(
    waiting: Session, chat_server: ChatServer
) -> None:
    first, *others = pending_of(waiting).items
    n_requests = len(chat_server.requests)
    result = waiting.answer(
        [decide(first, "reject", reason="reads like an advert", **BY)]
        + [decide(item, "approve", **BY) for item in others]
    )
    assert first.content not in pool_of(result)
    assert result["rejections"]["review_rejected"] == 1
    [rejection] = [found for found in waiting.store.rejections() if found.reason == "review_rejected"]
    assert (rejection.text, rejection.detail, rejection.label) == (
        first.content, "reads like an advert", first.shown["label"],
    )  # fmt: skip
    later = sent(chat_server, "GeneratedTexts", n_requests)
    guided = [prompt for prompt in later if "reads like an advert" in prompt]
    assert guided and all(f"with the label {first.shown['label']}" in prompt for prompt in guided)
    assert len(guided) < len(later)


def test_an_edited_sample_replaces_its_original_with_a_vector_and_lineage(waiting: Session) -> None:
    first, *others = pending_of(waiting).items
    result = waiting.answer(
        [decide(first, "edit", edit=EDITED, **BY)] + [decide(item, "approve", **BY) for item in others]
    )
    texts = pool_of(result)
    assert EDITED in texts and first.content not in texts
    [edited] = [sample for sample in waiting.store.samples() if sample.edited_from is not None]
    [original] = [sample for sample in waiting.store.samples() if sample.id == first.id]
    assert (edited.text, edited.edited_from, edited.label) == (EDITED, first.id, original.label)
    assert (edited.call_key, edited.cluster_id) == (original.call_key, original.cluster_id)
    assert edited.nearest_similarity != original.nearest_similarity
    assert edited.id in {choice.sample_id for choice in waiting.store.choices(1)}
    assert first.id not in {choice.sample_id for choice in waiting.store.choices(1)}


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ("Package left in the rain. Box is mush. Thanks for nothing.", "copies a real row: shares 8 words"),
        ("the text of the second sample", "repeats another sample: same words as an earlier sample"),
    ],
)
def test_an_edit_that_a_gate_turns_away_comes_back_with_the_reason_and_can_be_given_again(
    waiting: Session, edit: str, says: str
) -> None:
    first, second, *others = pending_of(waiting).items
    edit = str(second.content) if "second" in edit else edit
    result = waiting.answer(
        [decide(first, "edit", edit=edit, **BY)] + [decide(item, "approve", **BY) for item in (second, *others)]
    )
    assert result["status"] == "waiting_for_review" and waiting.store.rounds() == []
    [back] = pending_of(waiting).items
    assert back.id == first.id and back.decision is None and says in str(back.problem)
    result = waiting.answer([decide(back, "edit", edit=EDITED, **BY)])
    assert result["status"] == "finished" and EDITED in pool_of(result)
    assert pool_of(result).count(edit) == (edit == second.content)


def test_a_batch_follows_a_batch_until_every_item_is_decided(make_config: MakeConfig) -> None:
    config = make_config(review__samples="first_round", review__items_per_batch=7, limits__max_rounds=1)
    with Session.create(config, thread_id="t") as session:
        session.run()
        n_samples = session.store.count_samples()
        seen: list[str] = []
        while (pending := session.review()) is not None:
            assert len(pending.items) <= 7
            seen += [item.id for item in pending.items]
            approve_all(session)
    assert len(seen) == len(set(seen)) == n_samples > 7


@wherever_kept
def test_attributes_are_approved_edited_dropped_and_added_before_anything_is_written(
    make_config: MakeConfig, chat_server: ChatServer
) -> None:
    with Session.create(make_config(review__attributes="every_round", limits__max_rounds=1), thread_id="t") as session:
        assert session.run()["status"] == "waiting_for_review"
        assert sent(chat_server, "GeneratedTexts") == []
        pending = pending_of(session)
        changed, rejected, *others = pending.items
        assert pending.kind == "attributes" and list(dict(changed.shown["attributes"])) == ["topic", "tone"]
        assert len(changed.shown["demonstrations"]) == 5
        kept = dict(changed.shown["attributes"])["tone"]
        result = session.answer(
            [
                decide(changed, "edit", edit={"tone": kept, "urgency": "needs it before a wedding"}, **BY),
                decide(rejected, "reject", reason="says nothing", **BY),
                *(decide(item, "approve", **BY) for item in others),
            ]
        )
        clusters = {item.id: session.store.cluster(item.id) for item in pending.items}
        by_call = {call.cluster_id: call for call in session.store.calls(node="generate")}
    assert result["status"] == "finished"
    prompts = sent(chat_server, "GeneratedTexts")
    assert sum("Urgency: needs it before a wedding" in prompt for prompt in prompts) == 1
    [edited] = [prompt for prompt in prompts if "Urgency: needs it before a wedding" in prompt]
    assert f"Tone: {kept}" in edited and "Topic:" not in edited
    assert sum("Tone:" not in prompt for prompt in prompts) == 1  # the dropped description
    assert by_call.keys() == clusters.keys()
    pool = pd.read_parquet(result["paths"]["pool"])
    assert any({pair["name"] for pair in row} == {"tone", "urgency"} for row in pool["attributes"])


@pytest.mark.parametrize("policy", ["flagged", "every_round"])
def test_flagged_shows_only_what_passed_a_gate_narrowly(make_config: MakeConfig, policy: str) -> None:
    # A margin at which some of the scripted texts, which have little in common, are near a threshold.
    config = make_config(review__samples=policy, review__margin=0.4, limits__max_rounds=1)
    with Session.create(config, thread_id="t") as session:
        session.run()
        n_samples = session.store.count_samples()
        items = pending_of(session).items
    assert all(item.shown["flags"] for item in items) == (policy == "flagged") and any(
        item.shown["flags"] for item in items
    )
    assert (0 < len(items) < n_samples) if policy == "flagged" else len(items) == n_samples


def test_without_flags_nobody_is_asked(make_config: MakeConfig) -> None:
    config = make_config(
        review__samples="flagged", review__attributes="flagged", review__margin=0.0, limits__max_rounds=2
    )
    with Session.create(config, thread_id="t") as session:
        assert session.run()["status"] == "finished"


def test_a_decision_carries_who_and_when_the_later_wins_and_both_are_kept(waiting: Session) -> None:
    item = pending_of(waiting).items[0]
    waiting.keep([decide(item, "approve", reviewer="ada", decided_at="2026-01-01T00:00:00+00:00")])
    waiting.keep([decide(item, "reject", reason="no", reviewer="bob", decided_at="2026-01-01T00:01:00+00:00")])
    seen = pending_of(waiting).item(item.id)
    assert [decision.reviewer for decision in seen.given] == ["ada", "bob"]
    assert [decision.reviewer for decision in seen.conflicting] == ["ada", "bob"]
    assert seen.decision is not None and seen.decision.verdict == "reject"
    waiting.keep([decide(item, "undo", reviewer="bob")])
    seen = pending_of(waiting).item(item.id)
    assert seen.decision is not None and seen.decision.reviewer == "ada" and seen.conflicting == ()
    assert len(seen.given) == 3


@wherever_kept
def test_decisions_survive_leaving_and_an_incomplete_answer_names_what_is_missing(
    waiting: Session, make_config: MakeConfig
) -> None:
    first, *others = pending_of(waiting).items
    waiting.keep([decide(first, "reject", reason="no", **BY)])
    waiting.close()
    with Session.open("t", runs_dir=make_config().runs_dir) as session:
        assert session.status() == "waiting_for_review"
        assert len(pending_of(session).undecided) == len(others)
        with pytest.raises(
            InputError, match=f"{len(others)} of {len(others) + 1} items need a decision.*\n.*{others[0].id}"
        ):
            session.answer()
        assert finish(session)["rejections"]["review_rejected"] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"verdict": "reject"}, "reason: say why"),
        ({"verdict": "edit"}, "edit: the new text is missing"),
        ({"verdict": "edit", "edit": " "}, "edit: the new text is missing"),
        ({"verdict": "approve", "edit": "x"}, "edit: there is one"),
        ({"verdict": "approve", "reviewer": " "}, "reviewer: name who decides"),
    ],
)
def test_an_unusable_decision_says_what_is_wrong(waiting: Session, arguments: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        decide(pending_of(waiting).items[0], **{"reviewer": "ada", **arguments})


def test_the_policy_can_be_turned_off_while_a_review_waits(waiting: Session, make_config: MakeConfig) -> None:
    waiting.close()
    with Session.create(make_config(limits__max_rounds=2), thread_id="t", accept_changes=True) as session:
        assert session.run()["status"] == "finished"


def test_answering_needs_a_review_that_waits(make_config: MakeConfig) -> None:
    with Session.create(make_config(limits__max_rounds=1), thread_id="t") as session:
        session.run()
        assert session.review() is None
        with pytest.raises(InputError, match="does not wait"):
            session.answer()


@wherever_kept
@pytest.mark.parametrize("node", ["review_samples", "apply_sample_review"])
def test_a_crash_after_the_answer_changes_nothing(
    waiting: Session, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, node: str
) -> None:
    edited, rejected, copied, *others = pending_of(waiting).items
    original = getattr(graph_module, node)

    async def dies(state: Any, deps: Any) -> Any:
        result = original(state, deps)
        await result if asyncio.iscoroutine(result) else result
        raise RuntimeError("power cut")

    def dies_at_once(state: Any, deps: Any) -> Any:
        original(state, deps)
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(graph_module, node, dies if node == "review_samples" else dies_at_once)
        with pytest.raises(RuntimeError, match="power cut"):
            waiting.answer(
                [
                    decide(edited, "edit", edit=EDITED, **BY),
                    decide(rejected, "reject", reason="no", **BY),
                    decide(copied, "edit", edit="Package left in the rain. Box is mush. Thanks for nothing.", **BY),
                    *(decide(item, "approve", **BY) for item in others),
                ]
            )
    waiting.close()
    with Session.open("t", runs_dir=make_config().runs_dir) as session:
        assert session.run()["status"] == "waiting_for_review"
        [back] = pending_of(session).items
        assert back.id == copied.id and "copies a real row" in str(back.problem)
        result = finish(session)
        assert result["rejections"]["review_rejected"] == 1
        assert sum(sample.edited_from is not None for sample in session.store.samples()) == 1
    assert EDITED in pool_of(result) and copied.content in pool_of(result)


def test_a_session_that_an_older_version_began_goes_on(make_config: MakeConfig, chat_server: ChatServer) -> None:
    """Neither the new section of the configuration nor the prompt's new version asks for --accept-changes."""
    import yaml

    config = make_config(limits__max_calls=9)
    with Session.create(config, thread_id="t") as session:
        session.run()
        stored = yaml.safe_load(str(session.store.meta("config")))
        del stored["review"]
        session.store.set_meta("config", yaml.safe_dump(stored))
        (session.folder / "config.yaml").write_text(yaml.safe_dump(stored), encoding="utf-8")
        prompts = json.loads(str(session.store.meta("prompts")))
        # The file of version 1.0.0.
        prompts["generate_samples"] = "bf863d4116b3bfebb403a9cbc99e6882e8936e28e9615c57d502c6e578621948"
        session.store.set_meta("prompts", json.dumps(prompts))
    n_requests = len(chat_server.requests)
    with Session.open("t", runs_dir=config.runs_dir) as session:
        assert session.run()["status"] == "finished"
    assert len(chat_server.requests) == n_requests


def test_nobody_decides_about_what_does_not_wait_any_more(waiting: Session) -> None:
    item = pending_of(waiting).items[0]
    n_pool = finish(waiting)["n_pool"]
    with pytest.raises(InputError, match="does not wait"):
        waiting.keep([decide(item, "reject", reason="too late", **BY)])
    assert waiting.summary()["n_pool"] == n_pool


def test_a_round_without_a_single_approved_sample_ends_with_a_reason(waiting: Session) -> None:
    result = waiting.answer([decide(item, "reject", reason="no", **BY) for item in pending_of(waiting).items])
    assert (result["status"], result["stop_reason"]) == ("finished", "max_rounds")
    assert result["rejections"]["review_rejected"] == waiting.store.count_samples() - result["n_pool"] > 0


def test_sync_methods_say_what_to_use_in_an_event_loop(waiting: Session) -> None:
    async def call() -> None:
        waiting.review()

    with pytest.raises(SessionError, match=r"await session\.areview\(\)"):
        asyncio.run(call())
