"""The gate in front of an endpoint, shared by all models of this process that use it, whatever event loop they run in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from synalign_agent.llm.adaptive import AdaptiveConcurrency
from synalign_agent.llm.rate import TokenBucket

_SPACING_SECONDS = 0.003
"""Calls that begin together are answered together for good: an endpoint then stands idle while a whole wave of replies is read
and the next one is rendered. Spread over 50 ms, the 16 first calls leave no waves behind them."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one model asks of the gate."""

    concurrency: int
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass(eq=False, slots=True)
class _Waiting:
    """A call that stands in the queue of an endpoint."""

    owner: object
    tokens: int
    loop: asyncio.AbstractEventLoop
    ended: asyncio.Future[None]
    admitted_at: float | None = None

    def end(self) -> bool:
        """Let the call go on, admitted or not; return whether anybody is there to do so."""
        return _on_loop(self.loop, lambda: None if self.ended.done() else self.ended.set_result(None))


def _on_loop(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> bool:
    """Do something in `loop`, at once if it is the one that runs here; return False if it has ended."""
    if loop is asyncio._get_running_loop():
        action()
        return True
    try:
        loop.call_soon_threadsafe(action)
    except RuntimeError:
        return False
    return True


class EndpointTraffic:
    """Admits calls one by one, in the order in which they came: at most so many in flight, so many a minute, none in a pause."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, spacing_seconds: float = 0.0) -> None:
        """Open the gate; until the first answer, `spacing_seconds` lie between one admission and the next."""
        self._clock = clock
        self._spacing_seconds = spacing_seconds
        self._spaced_until = float("-inf")
        # A thread lock, as sessions of one process may have an event loop each. It is never held across an await.
        self._lock = threading.Lock()
        self._rules: dict[object, Rules] = {}
        self._window = AdaptiveConcurrency(1)
        self._requests: TokenBucket | None = None
        self._tokens: TokenBucket | None = None
        self._paused_until = float("-inf")
        self._wake_at = float("inf")
        self._in_flight = 0
        self._queue: deque[_Waiting] = deque()

    def join(self, owner: object, rules: Rules) -> None:
        """Add a model. The widest concurrency and the tightest rates of all models hold for all of them."""
        with self._lock:
            fresh = not self._rules
            self._rules[owner] = rules
            self._apply(fresh=fresh)

    def leave(self, owner: object) -> None:
        """Remove a model and send its waiting calls away."""
        self.withdraw(owner)
        with self._lock:
            if self._rules.pop(owner, None) is not None and self._rules:
                self._apply(fresh=False)
            self._pump()

    def withdraw(self, owner: object) -> None:
        """Send the waiting calls of `owner` away: their `admit` returns None. Calls in flight are not touched."""
        with self._lock:
            gone = [waiting for waiting in self._queue if waiting.owner == owner]
            self._queue = deque(waiting for waiting in self._queue if waiting.owner != owner)
            for waiting in gone:
                waiting.end()
            self._wake_at = float("inf")
            self._pump()

    async def admit(self, owner: object, tokens: int) -> float | None:
        """Wait for a place in flight and return when it was given, or None if `owner` withdrew; give it back by `release`."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(owner, tokens, loop, loop.create_future())
        with self._lock:
            self._queue.append(waiting)
            self._pump()
        try:
            await waiting.ended
        except asyncio.CancelledError:
            with self._lock:
                if waiting.admitted_at is not None:
                    self._in_flight -= 1
                elif waiting in self._queue:
                    self._queue.remove(waiting)
                self._wake_at = float("inf")  # its loop may be about to end, and the timer with it
                self._pump()
            raise
        return waiting.admitted_at

    def release(self, *, reserved_tokens: int, used_tokens: int) -> None:
        """Give a place back, with the tokens that the call did not use."""
        with self._lock:
            self._in_flight -= 1
            if self._tokens is not None:
                self._tokens.take(used_tokens - reserved_tokens, self._clock())
            self._pump()

    def answered(self) -> None:
        """Report a call that the endpoint answered in time."""
        with self._lock:
            self._window.answered()

    def overloaded(self, sent_at: float, pause_seconds: float | None) -> None:
        """Report a call that the endpoint had no room for; nobody sends anything for `pause_seconds`."""
        with self._lock:
            now = self._clock()
            self._window.overloaded(sent_at, now)
            if pause_seconds is not None:
                self._paused_until = max(self._paused_until, now + pause_seconds)

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        with self._lock:
            return self._window.limit

    def _apply(self, *, fresh: bool) -> None:
        rules, now = self._rules.values(), self._clock()
        ceiling = max(each.concurrency for each in rules)
        if fresh:
            self._window = AdaptiveConcurrency(ceiling)
        else:
            self._window.set_ceiling(ceiling)
        self._requests = _bucket(self._requests, [each.requests_per_minute for each in rules], now)
        self._tokens = _bucket(self._tokens, [each.tokens_per_minute for each in rules], now)

    def _pump(self) -> None:
        """Admit from the head of the queue what may go now, and see to it that somebody comes back for the next one."""
        while self._queue and self._in_flight < self._window.limit:
            head, now = self._queue[0], self._clock()
            wait = self._wait_seconds(head.tokens, now)
            if wait > 0:
                if now + wait < self._wake_at and _on_loop(head.loop, partial(head.loop.call_later, wait, self._wake)):
                    self._wake_at = now + wait
                return
            self._queue.popleft()
            head.admitted_at = now
            if not head.end():
                continue  # its event loop is gone
            if self._window.untried:
                self._spaced_until = now + self._spacing_seconds
            self._in_flight += 1
            if self._requests is not None:
                self._requests.take(1, now)
            if self._tokens is not None:
                self._tokens.take(head.tokens, now)

    def _wake(self) -> None:
        with self._lock:
            self._wake_at = float("inf")
            self._pump()

    def _wait_seconds(self, tokens: int, now: float) -> float:
        waits = [self._paused_until - now]
        if self._window.untried:
            waits.append(self._spaced_until - now)
        if self._requests is not None:
            waits.append(self._requests.wait_seconds(1, now))
        if self._tokens is not None:
            waits.append(self._tokens.wait_seconds(tokens, now))
        return max(waits)


def _bucket(kept: TokenBucket | None, rates: Iterable[float | None], now: float) -> TokenBucket | None:
    """Return the bucket of the tightest rate: the one there is, if it has that rate, as models that come and go share it."""
    tightest = min((rate for rate in rates if rate is not None), default=None)
    if tightest is None or (kept is not None and kept.per_minute == tightest):
        return None if tightest is None else kept
    return TokenBucket(tightest, now)


_registry: dict[tuple[str, str], EndpointTraffic] = {}
_registry_lock = threading.Lock()


def traffic_for(base_url: str, model: str) -> EndpointTraffic:
    """Return the one gate of this process to a model at an endpoint."""
    with _registry_lock:
        return _registry.setdefault((base_url, model), EndpointTraffic(spacing_seconds=_SPACING_SECONDS))
