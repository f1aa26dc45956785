"""Which decision counts, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from synalign_agent.records import Decision, Sample
from synalign_agent.stores.memory import MemorySessionStore
from synalign_agent.stores.reviews import GATES, attributes_in_force, guidance, pool, sent_back, standing


def decision(item: str, verdict: Any, by: str = "ada", at: int = 0, **more: Any) -> Decision:
    return Decision.of(
        more.pop("kind", "sample"), item, 1, verdict, reviewer=by, decided_at=f"2026-01-01T00:00:{at:02}+00:00", **more
    )


@pytest.fixture
def store() -> MemorySessionStore:
    store = MemorySessionStore()
    samples = [
        Sample(id, 1, label, f"text of {id}", "c", "k", place, "r", 0.5)
        for place, (id, label) in enumerate([("s1", "a"), ("s2", "a"), ("s3", "b")])
    ]
    store.admit(samples, [])
    return store


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("approve", "ada"), ("reject", "bob")], ("reject", "bob")),
        ([("reject", "bob"), ("approve", "ada")], ("approve", "ada")),
        ([("approve", "ada"), ("reject", "bob"), ("undo", "bob")], ("approve", "ada")),
        ([("approve", "ada"), ("edit", "ada"), ("undo", "ada")], None),
        ([("undo", "ada"), ("approve", "ada")], ("approve", "ada")),
        ([("approve", "ada"), ("reject", "bob"), ("undo", GATES)], None),
        ([("edit", "ada"), ("undo", GATES), ("approve", "bob")], ("approve", "bob")),
        ([("approve", "ada"), ("undo", "eve")], ("approve", "ada")),
    ],
)
def test_the_last_decision_that_nobody_took_back_counts(given: Any, expected: Any) -> None:
    decisions = [decision("s1", verdict, by, at) for at, (verdict, by) in enumerate(given)]
    found = standing([*decisions, decision("s2", "approve")])
    assert "s2" in found
    assert (None if "s1" not in found else (found["s1"].verdict, found["s1"].reviewer)) == expected


def test_an_item_is_sent_back_until_somebody_decides_again() -> None:
    back = [decision("s1", "edit", edited="x"), decision("s1", "undo", GATES, reason="a copy")]
    assert sent_back(back) == {"s1": "a copy"}
    assert sent_back([*back, decision("s1", "approve", at=1)]) == {}
    assert sent_back([decision("s1", "approve"), decision("s1", "undo", at=1)]) == {}


def test_rejected_and_replaced_samples_are_not_in_the_pool(store: MemorySessionStore) -> None:
    store.add_decisions([decision("s1", "reject", reason="no"), decision("s2", "approve")])
    assert [sample.id for sample in pool(store)] == ["s2", "s3"]
    store.add_decisions([decision("s3", "edit", edited="y"), decision("s1", "approve", "bob")])
    assert [sample.id for sample in pool(store)] == ["s1", "s2"]
    assert pool(store, before_round=1) == []


def test_guidance_is_the_latest_distinct_reasons_of_the_label_from_earlier_rounds(store: MemorySessionStore) -> None:
    assert guidance(store, "a", 2) == []
    store.add_decisions(
        [
            decision("s1", "reject", reason="too  \n long"),
            decision("s2", "reject", reason="an advert"),
            decision("s3", "reject", reason="of another label"),
        ]
    )
    assert guidance(store, "a", 2) == ["an advert", "too long"]
    assert guidance(store, "a", 1) == []
    store.add_decisions([decision("s1", "reject", "bob", reason="an advert")])
    assert guidance(store, "a", 2) == ["an advert"]


def test_attributes_are_those_that_a_person_left(store: MemorySessionStore) -> None:
    store.add_attributes("c", {"tone": "dry"})
    assert attributes_in_force(store, ["c"])["c"] == {"tone": "dry"}
    store.add_decisions([decision("c", "edit", kind="attributes", edited='{"mood": "calm"}')])
    assert attributes_in_force(store, ["c"])["c"] == {"mood": "calm"}
    store.add_decisions([decision("c", "reject", "bob", kind="attributes", reason="empty words")])
    assert attributes_in_force(store, ["c"])["c"] == {}
    store.add_decisions([decision("c", "approve", "eve", kind="attributes")])
    assert attributes_in_force(store, ["c"])["c"] == {"tone": "dry"}
