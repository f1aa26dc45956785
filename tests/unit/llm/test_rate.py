from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synalign_agent.llm.rate import TokenBucket


def test_a_full_bucket_gives_at_once_and_then_one_by_one() -> None:
    bucket = TokenBucket(120, now=10.0)  # two a second
    for _ in range(2):
        assert bucket.wait_seconds(1, 10.0) == 0
        bucket.take(1, 10.0)
    assert bucket.wait_seconds(1, 10.0) == pytest.approx(0.5)
    assert bucket.wait_seconds(1, 10.25) == pytest.approx(0.25)
    assert bucket.wait_seconds(1, 10.5) == 0


def test_less_than_one_a_second_still_gives_the_first_at_once() -> None:
    bucket = TokenBucket(6, now=0.0)
    assert bucket.wait_seconds(1, 0.0) == 0
    bucket.take(1, 0.0)
    assert bucket.wait_seconds(1, 0.0) == pytest.approx(10.0)


def test_an_amount_above_the_capacity_goes_when_full_and_leaves_a_debt() -> None:
    bucket = TokenBucket(60_000, now=0.0)  # holds 1,000
    assert bucket.wait_seconds(5_000, 0.0) == 0
    bucket.take(5_000, 0.0)
    assert bucket.wait_seconds(1, 0.0) == pytest.approx(4.001)
    assert bucket.wait_seconds(5_000, 0.0) == pytest.approx(5.0)


def test_what_was_not_used_is_given_back_up_to_the_capacity() -> None:
    bucket = TokenBucket(60_000, now=0.0)
    bucket.take(5_000, 0.0)
    bucket.take(-4_500, 0.0)
    assert bucket.wait_seconds(500, 0.0) == 0
    bucket.take(-100_000, 0.0)
    bucket.take(1_000, 0.0)
    assert bucket.wait_seconds(1, 0.0) > 0


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=80), st.integers(1, 600))
def test_no_minute_sees_more_than_the_allowance_and_the_burst(pauses: list[float], per_minute: int) -> None:
    bucket, now, sent = TokenBucket(per_minute, 0.0), 0.0, []
    for pause in pauses:
        now += pause
        now += bucket.wait_seconds(1, now) + 1e-9
        bucket.take(1, now)
        sent.append(now)
    burst = max(1.0, per_minute / 60)
    for start in sent:
        assert sum(start <= time < start + 60 for time in sent) <= per_minute + burst + 1e-3
