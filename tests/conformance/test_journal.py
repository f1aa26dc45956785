"""The journal of every session store: attempts, how they ended, and what they sum up to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.session_stores import NAMES, maker
from support.store_rows import TEXT, call, done, failed, same_totals

from synalign_agent.records import (
    UNBILLED,
    CallRecord,
    group_calls,
    sum_calls,
)
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.memory import MemorySessionStore


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
    calls[1] = replace(calls[1], cluster_id="cluster2")
    for one in calls:
        store.record_calls([one])
    store.record_calls([done(calls[0])])
    assert [one.key for one in store.calls()] == ["c", "a", "b", "d"]
    assert [one.key for one in store.calls(round=2)] == ["a", "d"]
    assert [one.key for one in store.calls(node="summarize")] == ["b", "d"]
    assert [one.key for one in store.calls(round=1, node="generate")] == ["c"]
    assert store.calls(round=0) == []
    assert [one.key for one in store.calls(cluster_ids=["cluster1"])] == ["c", "b", "d"]
    assert [one.key for one in store.calls(round=2, cluster_ids=["cluster2", "cluster1"])] == ["a", "d"]
    assert store.calls(round=1, cluster_ids=["cluster2"]) == store.calls(cluster_ids=[]) == []


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
    assert same_totals(totals, sum_calls(calls))
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
    assert same_totals(totals, sum_calls(store.calls()))


def test_a_finished_call_sent_again_is_counted(store: SessionStore) -> None:
    for attempt in (1, 2, 3):
        store.record_calls([call(attempt=attempt)])
        store.record_calls([done(call(attempt=attempt))])
    assert store.call_totals().repeated == 2
    assert store.look_up_calls(["key1"])["key1"][0] == done(call())
