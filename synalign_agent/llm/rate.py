"""How much may be sent per minute: a token bucket that can go into debt. Pure: the caller brings the clock."""

from __future__ import annotations

_BURST_SECONDS = 1.0


class TokenBucket:
    """An allowance of requests, or of tokens, per minute.

    It holds one second's worth (at least 1), so that no minute sees more than 1/60 above the allowance. An amount may be
    taken as soon as the bucket is full enough for it, or full: one that is larger than the bucket leaves a debt, which the
    next one waits for. What turns out not to be used is given back.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        """Start full at time `now`, in seconds."""
        self.per_minute = per_minute
        self._per_second = per_minute / 60.0
        self._capacity = max(1.0, self._per_second * _BURST_SECONDS)
        self._level = self._capacity
        self._filled_at = now

    def wait_seconds(self, amount: float, now: float) -> float:
        """Return how long to wait, from `now`, until `amount` may be taken; 0 if it may be taken now."""
        missing = min(amount, self._capacity) - self._level_at(now)
        return max(0.0, missing / self._per_second)

    def take(self, amount: float, now: float) -> None:
        """Take `amount`; take a negative one to give back."""
        self._level = min(self._capacity, self._level_at(now) - amount)
        self._filled_at = now

    def _level_at(self, now: float) -> float:
        return min(self._capacity, self._level + (now - self._filled_at) * self._per_second)
