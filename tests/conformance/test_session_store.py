from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synalign_agent.records import (
    UNBILLED,
    CallRecord,
    CallTotals,
    Choice,
    Decision,
    DemonstrationCluster,
    RealRow,
    Rejection,
    Sample,
    Split,
    content_id,
    group_calls,
    sum_calls,
)
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.encryption import Cipher
from synalign_agent.stores.memory import MemorySessionStore
from synalign_agent.stores.postgres import PostgresSessionStore
from synalign_agent.stores.session import SqliteSessionStore

KEY = bytes(range(32))
NAMES = ("memory", "sqlite", "encrypted", "postgres")
Maker = Callable[[Path], SessionStore]


def maker(name: str, request: pytest.FixtureRequest) -> Maker:
    """Return what makes a store of its own for each folder."""
    if name == "memory":
        return lambda folder: MemorySessionStore()
    if name == "sqlite":
        return lambda folder: SqliteSessionStore(folder / "session.sqlite")
    if name == "encrypted":
        return lambda folder: SqliteSessionStore(folder / "session.sqlite", Cipher(KEY))
    url = request.getfixturevalue("postgres_url")
    return lambda folder: PostgresSessionStore(url, content_id(str(folder)))


TEXT = 'it\'s "größer"; DROP TABLE real; -- 😀\n\x00 \U0010ffff0 100 % %s ? end'


@pytest.fixture(params=NAMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    made = maker(request.param, request)(tmp_path)
    yield made
    made.close()


def real(n: int, split: Split = "reference", text: str = "text") -> RealRow:
    return RealRow(f"real{n}", text, "label", split)


def cluster(n: int, round: int = 1, score: float | None = 0.5) -> DemonstrationCluster:
    return DemonstrationCluster(f"cluster{n}", round, "label", n, "real1", ("real1", f"real{n}"), score)


def sample(n: int, round: int = 1, text: str = "text") -> Sample:
    return Sample(f"sample{n}", round, "label", text, "cluster1", "key1", n, "real1", 0.25)


def rejection(n: int, round: int = 1, reason: str = "duplicate") -> Rejection:
    return Rejection(f"rejection{n}", round, "label", "key1", reason, "detail", "text")


def call(key: str = "key1", attempt: int = 1, round: int = 1, node: str = "generate", bound: int = 100) -> CallRecord:
    return CallRecord(
        key=key, attempt=attempt, state="intended", node=node, round=round, cluster_id="cluster1", draw=0,
        prompt="generate_samples", prompt_version="1", prompt_sha256="0", model="m", seed=7, bound_tokens=bound,
        bound_usd=bound / 1000,
    )  # fmt: skip


def done(intended: CallRecord, prompt: int = 10, completion: int = 5, content: str = "{}") -> CallRecord:
    return replace(
        intended, state="done", content=content, finish_reason="stop", prompt_tokens=prompt, completion_tokens=completion,
        cost_usd=(prompt + completion) / 1e4, seconds=1.5,
    )  # fmt: skip


def failed(intended: CallRecord, error_class: str = "timeout") -> CallRecord:
    return replace(intended, state="failed", error_class=error_class, error="it broke", seconds=0.5)


def same(one: CallTotals, two: CallTotals) -> bool:
    """Compare up to the order in which money was added up."""
    money = ("cost_usd", "charged_usd")
    assert [getattr(one, name) for name in money] == pytest.approx([getattr(two, name) for name in money], abs=1e-9)
    return replace(one, cost_usd=0, charged_usd=0) == replace(two, cost_usd=0, charged_usd=0)


def decision(n: int, round: int = 1, **others: Any) -> Decision:
    fields: dict[str, Any] = {"kind": "sample", "item_id": f"sample{n}", "round": round, "verdict": "approve"}
    by = {"reviewer": "ada", "decided_at": "2026-01-01T00:00:00Z"}
    return Decision.of(**{**fields, **by, **others})


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


def test_a_call_is_intended_and_then_done(store: SessionStore) -> None:
    store.record_calls([call()])
    assert store.calls() == [call()] and store.look_up_calls(["key1"])["key1"][0] is None
    finished = done(call(), content=TEXT)
    store.record_calls([finished])
    assert store.calls() == [finished] and store.look_up_calls(["key1"])["key1"][0] == finished
    assert store.look_up_calls(["key2"])["key2"][0] is None


def test_finishing_again_changes_nothing(store: SessionStore) -> None:
    store.record_calls([call()])
    store.record_calls([done(call())])
    for again in (done(call(), 99, 99, "other"), failed(call())):
        store.record_calls([again])
        assert store.calls() == [done(call())]
    store.record_calls([call(bound=7)])
    assert store.calls() == [done(call())]


def test_a_failed_attempt_stays_failed_and_is_not_done(store: SessionStore) -> None:
    store.record_calls([call()])
    store.record_calls([failed(call())])
    store.record_calls([done(call())])
    assert store.calls() == [failed(call())] and store.look_up_calls(["key1"])["key1"][0] is None


def test_attempts_are_numbered_by_call(store: SessionStore) -> None:
    assert store.look_up_calls(["key1"])["key1"][1] == 1
    store.record_calls([call()])
    assert store.look_up_calls(["key1"])["key1"][1] == 2 and store.look_up_calls(["key2"])["key2"][1] == 1
    store.record_calls([failed(call())])
    second = call(attempt=2)
    store.record_calls([second])
    store.record_calls([done(second)])
    assert store.look_up_calls(["key1"])["key1"][1] == 3
    assert store.look_up_calls(["key1"])["key1"][0] == done(second)
    assert store.calls() == [failed(call()), done(second)]


def test_calls_may_be_recorded_many_at_once(store: SessionStore) -> None:
    both = call("both")
    store.record_calls([call("open")])
    store.record_calls([done(both), call("new"), done(call("open")), both, failed(call("never intended"))])
    store.record_calls([])
    assert store.calls() == [done(call("open")), call("new"), done(both)]
    store.record_calls([failed(both), failed(call("new")), call("new", bound=7)])
    assert store.calls() == [done(call("open")), failed(call("new")), done(both)]


def test_recording_calls_is_all_or_nothing(store: SessionStore) -> None:
    if isinstance(store, MemorySessionStore):
        pytest.skip("a dictionary takes every text")
    with pytest.raises(UnicodeEncodeError):
        store.record_calls([call("good"), done(call("good")), call("lone \ud83d surrogate")])
    assert store.calls() == []


def test_calls_are_looked_up_many_at_once(store: SessionStore) -> None:
    store.record_calls([call("done"), done(call("done")), call("failed"), failed(call("failed")), call("open")])
    again = call("failed", attempt=2)
    store.record_calls([again, done(again), call("done", attempt=2), done(call("done", attempt=2), content="other")])
    assert store.look_up_calls(["open", "done", "none", "failed", "done"]) == {
        "open": (None, 2), "done": (done(call("done")), 3), "none": (None, 1), "failed": (done(again), 3),
    }  # fmt: skip
    many = [f"key{n}" for n in range(1203)]
    store.record_calls([call(many[-1]), done(call(many[-1]))])
    found = store.look_up_calls(many)
    assert list(found) == many and found[many[0]] == (None, 1) and found[many[-1]] == (done(call(many[-1])), 2)
    assert store.look_up_calls([]) == {}


def test_open_calls_are_lost_and_no_others(store: SessionStore) -> None:
    for key in "abc":
        store.record_calls([call(key)])
    store.record_calls([done(call("b"))])
    assert store.mark_lost_calls() == 2
    assert [(found.key, found.state) for found in store.calls()] == [("a", "lost"), ("b", "done"), ("c", "lost")]
    assert store.mark_lost_calls() == 0
    assert store.look_up_calls(["a"])["a"][1] == 2 and store.look_up_calls(["a"])["a"][0] is None
    store.record_calls([done(call("a"))])  # a reply that comes after all
    assert store.calls()[0].state == "lost"


def test_calls_come_in_the_order_intended_and_by_round_and_node(store: SessionStore) -> None:
    calls = [call("c"), call("a", round=2), call("b", node="summarize"), call("d", round=2, node="summarize")]
    for one in calls:
        store.record_calls([one])
    store.record_calls([done(calls[0])])
    assert [one.key for one in store.calls()] == ["c", "a", "b", "d"]
    assert [one.key for one in store.calls(round=2)] == ["a", "d"]
    assert [one.key for one in store.calls(node="summarize")] == ["b", "d"]
    assert [one.key for one in store.calls(round=1, node="generate")] == ["c"]
    assert store.calls(round=0) == []


CLASSES = [*sorted(UNBILLED), "timeout", "connection", "malformed_response"]
OUTCOMES: list[Literal["intended", "done", "failed", "lost"]] = ["intended", "done", "failed", "lost"]


@pytest.mark.parametrize("name", NAMES)
@settings(derandomize=True, max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from(OUTCOMES),
            st.sampled_from(CLASSES),
            st.integers(0, 3),
            st.integers(0, 3),
            st.integers(1, 50),
        ),
        max_size=25,
    )
)
def test_totals_are_the_sum_of_the_calls(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    outcomes: list[tuple[int, str, str, int, int, int]],
) -> None:
    made = maker(name, request)(tmp_path_factory.mktemp("totals"))
    # Lost ones first: marking takes all that are open.
    lost = [outcome for outcome in outcomes if outcome[1] == "lost"]
    for key, *_, bound in lost:
        made.record_calls([call(f"key{key}", made.look_up_calls([f"key{key}"])[f"key{key}"][1], bound=bound)])
    assert made.mark_lost_calls() == len(lost)
    for key, state, error_class, prompt, completion, bound in outcomes:
        if state == "lost":
            continue
        intended = call(f"key{key}", made.look_up_calls([f"key{key}"])[f"key{key}"][1], bound=bound)
        made.record_calls([intended])
        if state == "done":
            made.record_calls([done(intended, prompt, completion)])
        elif state == "failed":
            made.record_calls([failed(intended, error_class)])
    calls, totals, made_groups = made.calls(), made.call_totals(), made.call_groups()
    made.close()
    assert same(totals, sum_calls(calls))
    groups, expected = made_groups, group_calls(calls)
    assert [group.order for group in groups] == [group.order for group in expected]
    for one, two in zip(groups, expected, strict=True):
        assert (one.n, one.n_without_usage, one.prompt_tokens, one.completion_tokens) == (
            two.n, two.n_without_usage, two.prompt_tokens, two.completion_tokens,
        )  # fmt: skip
        assert (one.cost_usd, one.seconds) == pytest.approx((two.cost_usd, two.seconds), abs=1e-9)
    assert totals.n_attempts == len(outcomes)
    assert totals.done == sum(one[1] == "done" for one in outcomes)
    assert sum(totals.failed_by_class.values()) == totals.failed == sum(one[1] == "failed" for one in outcomes)


def test_totals_charge_what_is_known_and_the_bound_where_it_is_not(store: SessionStore) -> None:
    outcomes: list[Callable[[CallRecord], CallRecord] | None] = [
        lambda one: done(one, 10, 5),  # 15
        lambda one: done(one, 0, 0),  # no usage reported: 100
        lambda one: failed(one, "timeout"),  # 100
        lambda one: failed(one, "rate_limit"),  # 0
        None,  # lost: 100
    ]
    for number, outcome in enumerate(outcomes):
        store.record_calls([call(f"key{number}")])
        if outcome is not None:
            store.record_calls([outcome(call(f"key{number}"))])
    store.mark_lost_calls()
    store.record_calls([call("open")])  # in flight: 100
    totals = store.call_totals()
    assert (totals.charged_tokens, totals.prompt_tokens, totals.completion_tokens) == (415, 10, 5)
    assert [totals.charged_usd, totals.cost_usd] == pytest.approx([0.4015, 0.0015])
    assert (totals.done, totals.failed, totals.in_flight_lost, totals.repeated) == (2, 2, 1, 0)
    assert dict(totals.failed_by_class) == {"timeout": 1, "rate_limit": 1}


def test_a_reply_from_the_shared_cache_is_done_counted_and_free(store: SessionStore) -> None:
    store.record_calls([call("paid")])
    store.record_calls([done(call("paid"), 10, 5)])
    for key, tokens in (("cached", 0), ("cached-with-use", 7)):
        store.record_calls([call(key)])
        store.record_calls([replace(done(call(key), tokens, 0), cached=True, cost_usd=0.0)])
    assert [one.cached for one in store.calls()] == [False, True, True]
    assert store.look_up_calls(["cached"])["cached"][0] == replace(
        done(call("cached"), 0, 0), cached=True, cost_usd=0.0
    )
    totals = store.call_totals()
    assert (totals.done, totals.cached, totals.charged_tokens, totals.n_attempts) == (3, 2, 15, 1)
    assert [(group.cached, group.n, group.n_without_usage) for group in store.call_groups()] == [
        (False, 1, 0),
        (True, 2, 1),
    ]
    assert same(totals, sum_calls(store.calls()))


def test_a_finished_call_sent_again_is_counted(store: SessionStore) -> None:
    for attempt in (1, 2, 3):
        store.record_calls([call(attempt=attempt)])
        store.record_calls([done(call(attempt=attempt))])
    assert store.call_totals().repeated == 2
    assert store.look_up_calls(["key1"])["key1"][0] == done(call())


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
    assert same(store.call_totals(), sum_calls(store.calls()))
    assert store.call_totals().done == n_threads * (n_each // 2)
    assert store.mark_lost_calls() == 0
