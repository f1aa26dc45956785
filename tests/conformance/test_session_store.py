"""Every session store: what is written comes back whole, in order, once."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import Any

import pytest
from support.store_rows import TEXT, call, cluster, decision, done, failed, real, rejection, same_totals, sample

from synalign_agent.records import (
    CallTotals,
    Choice,
    sum_calls,
)
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.migrations import MIGRATIONS
from synalign_agent.stores.sql import OF_ROUNDS


def everything(store: SessionStore) -> list[Any]:
    return [
        store.real_rows(), store.clusters(), store.calls(), store.samples(), store.rejections(), store.rounds(),
        store.call_totals(), store.rejection_counts(), store.count_samples(), store.meta("key"),
        [store.choices(n) for n in (1, 2)], [store.witness(n) for n in (1, 2)], store.attributes_of("cluster1"),
        store.decisions(), store.call_groups(),
    ]  # fmt: skip


def fill(store: SessionStore) -> None:
    store.set_meta("key", "value")
    store.add_real([real(1), real(2, "holdout")])
    store.add_clusters([cluster(1), cluster(2, round=2)])
    store.add_attributes("cluster1", {"tone": "calm"})
    store.record_calls([call("a")])
    store.record_calls([done(call("a"))])
    store.record_calls([call("b")])
    store.record_calls([failed(call("b"))])
    store.admit([sample(1), sample(2, round=2)], [rejection(1), rejection(2, round=2)])
    store.add_round(1, {"mmd2": 0.5}, b"\x00\x01", [Choice("sample1", 0.5, 1)])
    store.add_decisions([decision(1), decision(2, round=2)])


def test_a_new_store_is_empty(store: SessionStore) -> None:
    assert everything(store) == [
        [], [], [], [], [], [], CallTotals(), {}, 0, None, [[], []], [None, None], {}, [], [],
    ]  # fmt: skip
    assert (
        store.look_up_calls(["key1"])["key1"][0] is None
        and store.look_up_calls(["key1"])["key1"][1] == 1
        and store.mark_lost_calls() == 0
    )


def test_writing_everything_again_changes_nothing(store: SessionStore) -> None:
    fill(store)
    before = everything(store)
    fill(store)
    assert everything(store) == before


def test_writing_nothing_is_allowed(store: SessionStore) -> None:
    before = everything(store)
    store.add_real([])
    store.add_clusters([])
    store.admit([], [])
    store.add_decisions([])
    assert everything(store) == before


def test_a_session_fact_is_replaced(store: SessionStore) -> None:
    store.set_meta("key", "old")
    store.set_meta("other", "")
    store.set_meta("key", TEXT)
    assert (store.meta("key"), store.meta("other"), store.meta("none")) == (TEXT, "", None)


def test_real_rows_come_back_whole_in_order_and_by_split(store: SessionStore) -> None:
    rows = [real(3, "holdout", TEXT), real(1), real(2, "holdout"), real(0)]
    store.add_real(rows[:2])
    store.add_real(rows)
    assert store.real_rows() == rows
    assert store.real_rows("holdout") == [rows[0], rows[2]]
    assert store.real_rows("reference") == [rows[1], rows[3]]


def test_the_first_real_row_of_an_id_wins(store: SessionStore) -> None:
    store.add_real([real(1)])
    store.add_real([real(1, "holdout", "other"), real(2)])
    assert store.real_rows() == [real(1), real(2)]


def test_clusters_come_back_whole_in_order_and_by_round(store: SessionStore) -> None:
    clusters = [cluster(3, round=2), cluster(1, score=None), cluster(2)]
    store.add_clusters(clusters)
    store.add_clusters([replace(clusters[0], label="other")])
    assert store.clusters() == clusters
    assert store.clusters(1) == clusters[1:] and store.clusters(3) == []
    assert store.cluster("cluster3") == clusters[0] and isinstance(store.cluster("cluster3").member_ids, tuple)


def test_an_unknown_cluster_is_a_key_error(store: SessionStore) -> None:
    with pytest.raises(KeyError):
        store.cluster("nobody")


def test_the_first_attributes_of_a_cluster_win(store: SessionStore) -> None:
    store.add_attributes("cluster1", {"tone": TEXT, "a topic": "bills"})
    store.add_attributes("cluster1", {"tone": "other"})
    assert store.attributes_of("cluster1") == {"tone": TEXT, "a topic": "bills"}
    assert list(store.attributes_of("cluster1")) == ["tone", "a topic"]
    assert store.attributes_of("cluster2") == {}


def test_what_is_returned_can_be_changed_without_changing_the_store(store: SessionStore) -> None:
    fill(store)
    before = everything(store)
    store.attributes_of("cluster1")["tone"] = "other"
    store.rounds()[0]["mmd2"] = 9
    store.choices(1).clear()
    store.real_rows().clear()
    store.samples().clear()
    store.decisions().clear()
    store.rejection_counts().clear()
    assert everything(store) == before


def test_samples_come_back_whole_in_order_and_before_a_round(store: SessionStore) -> None:
    samples = [sample(3, text=TEXT), sample(1), sample(2, round=2)]
    store.admit(samples[:1], [])
    store.admit(samples, [])
    assert store.samples() == samples and store.count_samples() == 3
    assert store.samples(before_round=2) == samples[:2]
    assert store.samples(before_round=1) == [] == store.samples(before_round=0)


def test_a_sample_remembers_which_one_a_person_rewrote_into_it(store: SessionStore) -> None:
    rewritten = replace(sample(2, text=TEXT), edited_from="sample1")
    store.admit([sample(1), rewritten], [])
    assert store.samples() == [sample(1), rewritten]
    assert [one.edited_from for one in store.samples()] == [None, "sample1"]


def test_the_first_sample_and_rejection_of_an_id_win(store: SessionStore) -> None:
    store.admit([sample(1)], [rejection(1)])
    store.admit([sample(1, text="other")], [rejection(1, reason="other")])
    assert store.samples() == [sample(1)] and store.rejections() == [rejection(1)]


def test_rejections_come_by_round_and_are_counted_by_reason(store: SessionStore) -> None:
    reasons = ["too_long", "copy_words", "duplicate", "copy_words", "refused", "duplicate"]
    rejections = [rejection(n, round=1 + n // 3, reason=reason) for n, reason in enumerate(reasons)]
    store.admit([], rejections)
    assert store.rejections() == rejections and store.rejections(round=2) == rejections[3:]
    counts = store.rejection_counts()
    assert counts == {"copy_words": 2, "duplicate": 2, "refused": 1, "too_long": 1}
    assert list(counts.values()) == [2, 2, 1, 1]


def test_a_rounds_outcome_comes_back_whole(store: SessionStore) -> None:
    metrics: dict[str, Any] = {"mmd2": 0.1 + 0.2, "p": None, "per_label": {"größer": [1, 2.5, True]}, "ids": []}
    choices = [Choice("sample2", 1 / 3, 2), Choice("sample1", 2 / 3, 0)]
    witness = bytes(range(256))
    store.add_round(2, {"mmd2": 1}, b"", [])
    store.add_round(1, metrics, witness, choices)
    assert store.rounds() == [metrics, {"mmd2": 1}]
    assert (store.witness(1), store.witness(2), store.witness(3)) == (witness, b"", None)
    assert (store.choices(1), store.choices(2), store.choices(3)) == (choices, [], [])


def test_the_first_outcome_of_a_round_wins_as_a_whole(store: SessionStore) -> None:
    store.add_round(1, {"mmd2": 0.5}, b"1", [Choice("sample1", 1.0, 1)])
    store.add_round(1, {"mmd2": 0.4}, b"2", [Choice("sample1", 0.5, 2), Choice("sample2", 0.5, 1)])
    assert (store.rounds(), store.witness(1)) == ([{"mmd2": 0.5}], b"1")
    assert store.choices(1) == [Choice("sample1", 1.0, 1)]


def test_decisions_come_back_whole_in_the_order_of_writing_by_kind_and_round(store: SessionStore) -> None:
    decisions = [
        decision(3, round=2, verdict="reject", reason=TEXT),
        decision(1, kind="attributes", item_id="cluster1", verdict="edit", edited='{"tone": "größer"}'),
        decision(2, verdict="edit", edited=TEXT, reviewer="größer"),
        decision(2, round=2, kind="attributes", item_id="cluster2"),
    ]
    store.add_decisions(decisions[:1])
    store.add_decisions(decisions)
    assert store.decisions() == decisions
    assert store.decisions("sample") == [decisions[0], decisions[2]]
    assert store.decisions(round=2) == [decisions[0], decisions[3]]
    assert store.decisions("attributes", 1) == [decisions[1]] and store.decisions("sample", 3) == []


def test_conflicting_decisions_are_all_kept_and_the_later_comes_last(store: SessionStore) -> None:
    first = decision(1)
    others = [
        decision(1, reviewer="bob", verdict="reject", reason="dull"),
        decision(1, decided_at="2025-01-01T00:00:00Z"),
    ]
    store.add_decisions([first])
    store.add_decisions([*others, first])  # the repeated one stays where it was, whatever the clocks said
    assert store.decisions() == [first, *others]


def test_a_decisions_id_depends_on_all_of_it() -> None:
    other: dict[str, Any] = {
        "kind": "attributes", "item_id": "sample9", "round": 2, "verdict": "reject", "edited": "", "reason": "",
        "reviewer": "bob", "decided_at": "2026-01-01T00:00:01Z",
    }  # fmt: skip
    ids = {decision(1).id} | {decision(1, **{name: value}).id for name, value in other.items()}
    assert len(ids) == 1 + len(other) and decision(1).id == decision(1).id


def test_what_is_given_can_be_changed_afterwards(store: SessionStore) -> None:
    metrics: dict[str, Any] = {"labels": {"a": 1}}
    values, choices, members = {"tone": "calm"}, [Choice("sample1", 1.0, 1)], [real(1)]
    store.add_round(1, metrics, b"", choices)
    store.add_attributes("cluster1", values)
    store.add_real(members)
    metrics["labels"]["a"] = 2
    values["tone"] = "other"
    choices.clear()
    members.clear()
    assert store.rounds() == [{"labels": {"a": 1}}] and store.attributes_of("cluster1") == {"tone": "calm"}
    assert store.choices(1) == [Choice("sample1", 1.0, 1)] and store.real_rows() == [real(1)]


def test_threads_may_write_at_once(store: SessionStore) -> None:
    n_threads, n_each = 8, 25
    start, errors = threading.Barrier(n_threads), []

    def work(thread: int) -> None:
        try:
            start.wait(10)
            for n in range(n_each):
                key = f"key{thread}-{n}"
                store.record_calls([call(key)])
                store.call_totals()
                store.record_calls([done(call(key)) if n % 2 else failed(call(key))])
                store.admit([sample(thread * n_each + n)], [rejection(n)])  # the rejections are the same in all threads
                store.set_meta(f"meta{thread}", str(n))
                store.add_attributes("cluster1", {"thread": str(thread)})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert len(store.calls()) == n_threads * n_each == store.count_samples()
    assert {sample.id for sample in store.samples()} == {f"sample{n}" for n in range(n_threads * n_each)}
    assert len(store.rejections()) == n_each
    assert [store.meta(f"meta{number}") for number in range(n_threads)] == [str(n_each - 1)] * n_threads
    assert same_totals(store.call_totals(), sum_calls(store.calls()))
    assert store.call_totals().done == n_threads * (n_each // 2)
    assert store.mark_lost_calls() == 0


def test_a_cut_store_is_as_it_was_before_the_round(store: SessionStore) -> None:
    store.set_meta("status", "running")
    store.set_meta("warnings", "kept")
    fill(store)
    store.add_attributes("cluster2", {"tone": "loud"})
    store.add_round(2, {"mmd2": 0.25}, b"\x02", [Choice("sample2", 1.0, 1)])
    late = call("late", round=2)
    store.record_calls([late, failed(late), call("never answered", round=2)])
    store.cut(2, ["status", "nothing"])
    assert (store.clusters(), store.samples(), store.rejections()) == ([cluster(1)], [sample(1)], [rejection(1)])
    assert (store.rounds(), store.witness(2), store.choices(2)) == ([{"mmd2": 0.5}], None, [])
    assert [decided.round for decided in store.decisions()] == [1]
    assert (store.attributes_of("cluster1"), store.attributes_of("cluster2")) == ({"tone": "calm"}, {})
    assert (store.meta("status"), store.meta("warnings"), len(store.real_rows())) == (None, "kept", 2)
    assert [one.key for one in store.calls()] == ["a", "b"]
    assert store.look_up_calls(["late"]) == {"late": (None, 1)}  # it was not answered


def test_answers_that_were_cut_away_are_found_when_they_are_asked_for(store: SessionStore) -> None:
    early, first, second = call("early"), call("key2", round=2), call("key2", attempt=2, round=2)
    for one in (early, first, second):
        store.record_calls([one, failed(one) if one is first else done(one, content=TEXT)])
    store.cut(2, [])
    assert store.calls() == [done(early, content=TEXT)]
    store.cut(1, [])  # a fork of the fork
    assert store.calls() == store.call_groups() == []
    assert store.look_up_calls(["key2"]) == {"key2": (done(second, content=TEXT), 3)}
    assert store.calls() == [done(second, content=TEXT)]
    assert [(group.round, group.inherited, group.n) for group in store.call_groups()] == [(2, True, 1)]
    assert store.call_totals().repeated == 0


def test_every_table_of_rounds_is_cut() -> None:
    tables = re.findall(r"CREATE TABLE (\w+) \(([^;]*)\)", " ".join(MIGRATIONS))
    assert {name for name, columns in tables if re.search(r"\bround INTEGER", columns)} == {
        *OF_ROUNDS,
        "inherited_calls",
    }
