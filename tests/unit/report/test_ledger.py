"""The ledger is plain arithmetic: every number has a hand-made case, and None where nothing was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from synalign_agent.records import CallGroup
from synalign_agent.report.ledger import ledger


def group(
    round: int = 1,
    node: str = "generate",
    state: str = "done",
    n: int = 10,
    tokens: int = 1000,
    usd: float = 1.0,
    **more: Any,
) -> CallGroup:
    return CallGroup(
        node=node, prompt=more.pop("prompt", f"{node}_prompt"), round=round, state=state,
        error_class=more.pop("error_class", None), cached=more.pop("cached", False), inherited=more.pop("inherited", False),
        n=n, n_without_usage=more.pop("n_without_usage", 0), prompt_tokens=tokens, completion_tokens=tokens // 2, cost_usd=usd,
        seconds=2.0,
    )  # fmt: skip


def finished(round: int, n_pool: int, aligned: float | None) -> dict[str, Any]:
    return {"round": round, "n_pool": n_pool, "mmd2": {"aligned": aligned}}


GROUPS = [
    group(1, "propose", n=1, tokens=100, usd=0.5),
    group(1, n=10, tokens=1000, usd=2.0),
    group(1, state="failed", n=3, tokens=0, usd=0.0, error_class="timeout"),
    group(1, state="failed", n=4, tokens=0, usd=0.0, error_class="rate_limit"),
    group(2, state="failed", n=2, tokens=0, usd=0.0, error_class="timeout"),
    group(2, n=20, tokens=2000, usd=4.0),
    group(2, n=5, tokens=0, usd=0.0, cached=True, n_without_usage=5),
    group(2, state="lost", n=2, tokens=0, usd=0.0),
    group(3, n=8, tokens=800, usd=1.5),
    group(4, state="intended", n=6, tokens=0, usd=0.0),
]
ROUNDS = [finished(1, 40, 0.05), finished(2, 100, 0.03), finished(3, 120, 0.035)]


def make(groups: list[CallGroup] = GROUPS, rounds: list[dict[str, Any]] = ROUNDS, **more: Any) -> dict[str, Any]:
    return ledger(groups, rounds, **{"n_accepted": 120, "repeated": 0, "priced": True, **more})


def test_calls_are_counted_by_what_became_of_them() -> None:
    assert make()["calls"] == {
        "done": 44, "repeated": 0, "in_flight": 6, "in_flight_lost": 2, "failed": 9,
        "failed_by_class": {"timeout": 5, "rate_limit": 4}, "cached": 5, "inherited": 0,
    }  # fmt: skip
    assert list(make()["calls"]["failed_by_class"]) == ["timeout", "rate_limit"]
    assert make(repeated=3)["calls"]["repeated"] == 3


def test_tokens_and_cost_by_prompt_and_node() -> None:
    result = make()
    assert result["tokens"] == {"prompt": 3900, "completion": 1950, "unreported_calls": 0, "inherited": 0}
    assert result["cost_usd"] == pytest.approx(8.0)
    assert result["by_node"].keys() == {"propose", "generate"}
    assert result["by_prompt"]["generate_prompt"] == result["by_node"]["generate"]
    assert result["by_node"]["propose"]["cost_usd"] == pytest.approx(0.5)
    row = result["by_node"]["generate"]
    assert (row["done"], row["failed"], row["in_flight_lost"], row["cached"]) == (43, 9, 2, 5)
    assert row["tokens"] == {"prompt": 3800, "completion": 1900}
    assert sum(part["cost_usd"] for part in result["by_prompt"].values()) == pytest.approx(result["cost_usd"])


def test_an_accepted_sample_bears_every_call() -> None:
    result = make()["per_accepted_sample"]
    assert result == {
        "calls": pytest.approx(39 / 120),
        "tokens": pytest.approx(5850 / 120),
        "cost_usd": pytest.approx(8 / 120),
    }
    assert set(make(n_accepted=0)["per_accepted_sample"].values()) == {None}


def test_gain_by_round_and_cumulative() -> None:
    first, second, third = make()["by_round"]
    assert (first["accepted"], second["accepted"], third["accepted"]) == (40, 60, 20)
    # Nothing was measured before the first round, so nothing is known to have been gained.
    assert first["cost_usd"] == pytest.approx(2.5)
    assert first["mmd2_gained"] is first["cost_usd_per_mmd2"] is first["tokens_per_mmd2"] is None
    assert first["cumulative"]["cost_usd_per_mmd2"] is None
    assert second["mmd2_gained"] == pytest.approx(0.02)
    assert second["cost_usd_per_mmd2"] == pytest.approx(4.0 / 0.02)
    assert second["tokens_per_mmd2"] == pytest.approx(3000 / 0.02)
    # A rise is told, but has no price.
    assert third["mmd2_gained"] == pytest.approx(-0.005)
    assert third["cost_usd_per_mmd2"] is None
    assert third["cumulative"]["mmd2_gained"] == pytest.approx(0.015)
    assert third["cumulative"]["cost_usd_per_mmd2"] == pytest.approx(5.5 / 0.015)


def test_rounds_without_a_distance_are_skipped_over() -> None:
    rounds = [finished(1, 0, None), finished(2, 10, 0.05), finished(3, 10, None), finished(4, 30, 0.04)]
    rows = make(rounds=rounds)["by_round"]
    assert [row["mmd2_gained"] for row in rows] == [None, None, None, pytest.approx(0.01)]
    # What rounds 3 and 4 cost together bought the fall since round 2.
    assert rows[3]["cumulative"]["cost_usd"] == pytest.approx(1.5)


def test_without_prices_every_amount_is_unknown_and_tokens_stay() -> None:
    result = make(priced=False)
    assert result["cost_usd"] is result["inherited_cost_usd"] is None
    assert result["per_accepted_sample"]["cost_usd"] is None
    assert {row["cost_usd"] for row in result["by_node"].values()} == {None}
    assert {row["cost_usd_per_mmd2"] for row in result["by_round"]} == {None}
    assert result["by_round"][1]["tokens_per_mmd2"] is not None


def test_use_that_the_endpoint_does_not_report_is_unknown_not_zero() -> None:
    silent = [
        replace(entry, prompt_tokens=0, completion_tokens=0, cost_usd=0.0, n_without_usage=entry.n) for entry in GROUPS
    ]
    result = make(silent)
    assert result["tokens"]["prompt"] is result["tokens"]["completion"] is result["cost_usd"] is None
    assert result["tokens"]["unreported_calls"] == 39  # cached replies are no use of the endpoint
    assert result["per_accepted_sample"] == {"calls": pytest.approx(39 / 120), "tokens": None, "cost_usd": None}
    some = [*GROUPS, group(3, n=2, tokens=0, usd=0.0, n_without_usage=2)]
    assert make(some)["tokens"]["unreported_calls"] == 2
    assert make(some)["tokens"]["prompt"] == 3900


def test_a_fork_tells_what_its_parent_paid() -> None:
    result = make([*GROUPS, group(3, n=7, tokens=70, usd=0.7, inherited=True)], inherited_rounds=1)
    assert result["calls"]["inherited"] == 1 + 10 + 7
    assert result["inherited_cost_usd"] == pytest.approx(2.5 + 0.7)
    assert result["tokens"]["inherited"] == (100 + 50) + (1000 + 500) + (70 + 35)
    assert result["cost_usd"] == pytest.approx(8.7)


def test_a_session_without_calls_has_spent_nothing_and_measured_nothing() -> None:
    result = make([], [], n_accepted=0)
    assert (result["calls"]["done"], result["tokens"]["prompt"], result["cost_usd"]) == (0, 0, 0)
    assert result["by_prompt"] == result["by_node"] == {}
    assert result["by_round"] == []
    assert set(result["per_accepted_sample"].values()) == {None}
