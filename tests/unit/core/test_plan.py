from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synalign_agent.core.plan import Progress, plan_clusters, stop_reason

quick = settings(derandomize=True, max_examples=150, deadline=None)


def plan(wanted: list[int], accepted: list[int], asked: list[int], prior: list[float], **sizes: int) -> list[int]:
    found = plan_clusters(
        wanted=np.array(wanted), accepted=np.array(accepted), asked=np.array(asked), prior=np.array(prior),
        round_samples=sizes.get("round_samples", 40), texts_per_cluster=sizes.get("texts_per_cluster", 4),
    )  # fmt: skip
    return [int(n) for n in found]


def test_the_first_round_is_shared_by_what_each_label_needs() -> None:
    assert plan([60, 20], [0, 0], [0, 0], [0.75, 0.25]) == [8, 3]  # 30 and 10 texts of 40


def test_a_label_that_is_complete_gets_nothing_while_others_are_short() -> None:
    assert plan([60, 20], [60, 10], [60, 10], [0.75, 0.25]) == [0, 3]


def test_no_more_is_asked_for_than_is_needed() -> None:
    assert plan([20, 20], [20, 19], [20, 19], [0.5, 0.5]) == [0, 1]


def test_a_label_with_a_low_yield_is_asked_for_more() -> None:
    # Half of the texts of `b` were accepted: it needs twice as many for the same number of rows.
    one, two = plan([50, 50], [9, 9], [9, 19], [0.5, 0.5], round_samples=10_000, texts_per_cluster=1)
    assert (one, two) == (41, 82)


def test_a_yield_of_nothing_does_not_ask_for_everything() -> None:
    assert plan([10], [0], [10_000], [1.0], round_samples=10_000, texts_per_cluster=1) == [100]


def test_a_complete_pool_is_extended_by_the_prior() -> None:
    assert plan([10, 10], [10, 12], [10, 12], [0.8, 0.2]) == [8, 2]


def test_there_is_always_a_cluster() -> None:
    assert plan([0, 0], [0, 0], [0, 0], [0.3, 0.7], round_samples=0) == [0, 1]


def test_a_label_without_mass_gets_nothing_once_the_pool_is_complete() -> None:
    assert plan([10, 0], [10, 0], [10, 0], [1.0, 0.0]) == [10, 0]


@st.composite
def rounds(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(1, 8))

    def counts(most: int) -> st.SearchStrategy[list[int]]:
        return st.lists(st.integers(0, most), min_size=n, max_size=n)

    accepted = draw(counts(500))
    rejected = draw(counts(5000))
    masses = draw(st.lists(st.floats(0, 1), min_size=n, max_size=n).filter(lambda masses: sum(masses) > 1e-3))
    return {
        "wanted": np.array(draw(counts(1000))),
        "accepted": np.array(accepted),
        "asked": np.array(accepted) + np.array(rejected),
        "prior": np.array(masses) / sum(masses),
        "round_samples": draw(st.integers(1, 500)),
        "texts_per_cluster": draw(st.integers(1, 30)),
    }


@quick
@given(rounds())
def test_a_round_is_never_empty_and_never_much_larger_than_asked_for(values: dict[str, Any]) -> None:
    clusters = plan_clusters(**values)
    assert clusters.shape == values["wanted"].shape and clusters.dtype.kind == "i"
    assert (clusters >= 0).all() and clusters.sum() >= 1
    most = values["round_samples"] + len(clusters) * values["texts_per_cluster"]
    assert clusters.sum() * values["texts_per_cluster"] <= most
    short = values["accepted"] < values["wanted"]
    if short.any():
        assert (clusters[~short] == 0).all() and (clusters[short] >= 1).all()


# stop_reason -----------------------------------------------------------------------------------------------------------

OPEN = Progress(n_pool=10, n_selected=5, mmd2=None, target=None)
FAR = Progress(n_pool=20, n_selected=10, mmd2=0.5, target=0.1)
NEAR = Progress(n_pool=20, n_selected=10, mmd2=0.1, target=0.1)


def stop(*history: Progress, **changes: Any) -> str | None:
    values: dict[str, Any] = {
        "n_samples": 10, "pool_target": 20, "limits_hit": [], "max_rounds": 100, "patience_rounds": 2, "min_gain": 0.1,
    }  # fmt: skip
    return stop_reason(history, **{**values, **changes})


def after(*distances: float | None) -> list[Progress]:
    """Complete rounds with these distances, and a growing pool."""
    return [Progress(20 + n, 10, distance, 0.001) for n, distance in enumerate(distances)]


def test_a_loop_with_everything_ahead_goes_on() -> None:
    assert stop(OPEN) is None
    assert stop(FAR) is None


@pytest.mark.parametrize(("distance", "expected"), [(0.1, "target_reached"), (0.1001, None), (-0.01, "target_reached")])
def test_the_target_on_both_sides(distance: float, expected: str | None) -> None:
    assert stop(FAR._replace(mmd2=distance)) == expected


@pytest.mark.parametrize("missing", [{"n_pool": 19}, {"n_selected": 9}, {"mmd2": None}, {"target": None}])
def test_the_target_counts_only_for_a_complete_pool(missing: dict[str, Any]) -> None:
    assert stop(NEAR._replace(**missing)) is None


def test_a_target_reached_in_an_earlier_round_is_not_enough() -> None:
    assert stop(NEAR, FAR._replace(n_pool=21)) is None


def test_patience_ends_after_rounds_without_a_gain() -> None:
    assert stop(*after(0.5, 0.5)) is None
    assert stop(*after(0.5, 0.5, 0.5)) == "patience"
    assert stop(*after(0.5, 0.5), patience_rounds=1) == "patience"


def test_a_gain_is_relative_and_starts_patience_anew() -> None:
    assert stop(*after(0.5, 0.46, 0.46)) == "patience"  # 8 % is less than the gain of 10 %
    assert stop(*after(0.5, 0.44, 0.44)) is None
    assert stop(*after(0.5, 0.5, 0.44, 0.44)) is None
    assert stop(*after(0.5, 0.5, 0.44, 0.44, 0.44)) == "patience"


def test_small_gains_add_up() -> None:
    assert stop(*after(0.5, 0.46, 0.44, 0.43)) is None  # .44 is 12 % below the .5 that counted last


def test_a_worse_round_does_not_become_the_mark() -> None:
    assert stop(*after(0.5, 0.9, 0.6)) == "patience"


def test_gains_below_zero_are_measured_too() -> None:
    assert stop(*[entry._replace(target=-1.0) for entry in after(-0.10, -0.105, -0.105)]) == "patience"
    assert stop(*[entry._replace(target=-1.0) for entry in after(-0.10, -0.12, -0.12)]) is None


def test_patience_counts_only_complete_rounds() -> None:
    growing = [Progress(10 + n, 5, 0.5, 0.1) for n in range(5)]
    assert stop(*growing) is None
    assert stop(*growing, *after(0.5, 0.5)) is None
    assert stop(*growing, *after(0.5, 0.5, 0.5)) == "patience"


def test_a_limit_ends_the_loop_by_its_own_name() -> None:
    assert stop(OPEN, limits_hit=["max_usd"]) == "max_usd"
    assert stop(FAR, limits_hit=["max_calls", "max_usd"]) == "max_calls"


def test_the_last_round_is_the_last() -> None:
    assert stop(OPEN, max_rounds=2) is None
    assert stop(OPEN, OPEN._replace(n_pool=12), max_rounds=2) == "max_rounds"


def test_rounds_without_a_new_sample_end_the_loop() -> None:
    assert stop(OPEN, OPEN) is None
    assert stop(OPEN, OPEN, OPEN) == "no_new_samples"
    assert stop(OPEN, OPEN, OPEN._replace(n_pool=11)) is None
    assert stop(OPEN, OPEN._replace(n_pool=11), OPEN._replace(n_pool=11)) is None


def test_the_order_of_precedence() -> None:
    """Switch the reasons on in all combinations; the first in the order must win."""
    order = ["target_reached", "patience", "max_tokens", "max_rounds", "no_new_samples"]
    for active in itertools.product([False, True], repeat=len(order)):
        reached, impatient, limited, last, idle = active
        distances = [0.5, 0.5, 0.5] if impatient else [0.5, 0.4, 0.3]
        pools = [20, 20, 20] if idle else [20, 21, 22]
        history = [Progress(n, 10, distance, 0.1) for n, distance in zip(pools, distances, strict=True)]
        if reached:
            history[-1] = history[-1]._replace(target=1.0)
        expected = next((name for name, on in zip(order, active, strict=True) if on), None)
        found = stop(*history, limits_hit=["max_tokens"] if limited else [], max_rounds=3 if last else 4)
        assert found == expected, active
