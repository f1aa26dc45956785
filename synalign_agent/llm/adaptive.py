"""How many calls may be in flight: additive increase, multiplicative decrease (Chiu and Jain, 1989). Pure: without a clock."""

from __future__ import annotations

_RAMP_START = 16


class AdaptiveConcurrency:
    """A window of calls in flight that finds what the endpoint bears.

    Ramp: from 16 calls the window doubles with each round-trip. The first overload ends the ramp. An overload halves the
    window, at most once per round-trip: calls that were sent before the last cut say nothing about the window after it. From
    there on it grows by one call per round-trip.
    """

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._window = float(min(ceiling, _RAMP_START))
        self._ramping = True
        self._cut_at = float("-inf")
        self._untried = True

    @property
    def untried(self) -> bool:
        """Whether no call has been answered or turned away yet."""
        return self._untried

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return max(1, min(self._ceiling, int(self._window)))

    def set_ceiling(self, ceiling: int) -> None:
        """Change the largest window; the one that was found stays."""
        self._ceiling = ceiling

    def answered(self) -> None:
        """Count a call that was answered in time."""
        self._untried = False
        if self._window < self._ceiling:
            # One more per answer doubles a full window in a round-trip; 1/window more per answer adds one call to it.
            self._window = min(self._ceiling, self._window + (1.0 if self._ramping else 1.0 / self._window))

    def overloaded(self, sent_at: float, now: float) -> None:
        """Count a call, sent at `sent_at`, that the endpoint had no room or time for; times in seconds of one clock."""
        self._untried = False
        if sent_at < self._cut_at:
            return
        self._window = max(1.0, min(self._window, self._ceiling) / 2)
        self._ramping = False
        self._cut_at = now
