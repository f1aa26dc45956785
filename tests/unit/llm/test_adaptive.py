from __future__ import annotations

from synalign_agent.llm.adaptive import AdaptiveConcurrency


def answer(window: AdaptiveConcurrency, round_trips: int = 1) -> list[int]:
    """Answer full windows and return the limit after each."""
    limits = []
    for _ in range(round_trips):
        for _ in range(window.limit):
            window.answered()
        limits.append(window.limit)
    return limits


def test_the_ramp_doubles_up_to_the_ceiling() -> None:
    window = AdaptiveConcurrency(100)
    assert window.limit == 16
    assert answer(window, 4) == [32, 64, 100, 100]


def test_a_small_ceiling_needs_no_ramp() -> None:
    assert AdaptiveConcurrency(4).limit == 4


def test_an_overload_halves_once_per_round_trip_and_recovery_is_slow() -> None:
    window = AdaptiveConcurrency(64)
    answer(window, 2)
    for _ in range(64):
        window.overloaded(sent_at=1.0, now=2.0)
    assert window.limit == 32  # all of them were sent before the cut
    window.overloaded(sent_at=2.5, now=3.0)
    assert window.limit == 16
    assert answer(window, 4) == [16, 17, 18, 19]  # one call more per round-trip, not twice as many


def test_one_call_is_always_allowed() -> None:
    window = AdaptiveConcurrency(2)
    for time in range(10):
        window.overloaded(sent_at=float(time), now=float(time) + 0.5)
    assert window.limit == 1


def test_a_lower_ceiling_holds_at_once_and_a_higher_one_is_grown_into() -> None:
    window = AdaptiveConcurrency(16)
    window.set_ceiling(4)
    assert window.limit == 4
    window.set_ceiling(64)
    assert window.limit == 16
    assert answer(window) == [32]
