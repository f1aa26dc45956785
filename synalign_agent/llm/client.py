"""The one way to the endpoint: journal first, then budget, then the gate, then the request, then the journal again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Iterator
from dataclasses import replace

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from synalign_agent.config import LLMConfig
from synalign_agent.errors import EndpointError
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.budget import Amount, Budget, cost_usd
from synalign_agent.llm.chat import ChatClient, ChatReply
from synalign_agent.llm.failures import UNSUPPORTED_FORMAT, Failure, classify, fatal_error
from synalign_agent.llm.journal import Journal
from synalign_agent.llm.output_format import FormatProbe
from synalign_agent.llm.prepare import Prepared, Preparer
from synalign_agent.llm.providers import Endpoint
from synalign_agent.llm.response_cache import ResponseCache
from synalign_agent.llm.traffic import Rules, traffic_for
from synalign_agent.observe.spans import Spans
from synalign_agent.records import CallRecord, charge
from synalign_agent.stores.base import SessionStore

_BREAKER_MIN_CALLS = 8
_BREAKER_WINDOW_CALLS = 20
_MAX_WAIT_SECONDS = 60.0
_OVERLOADS = ("rate_limit", "timeout")
_NO_CHARGE = Amount(0, 0.0)


class _AttemptFailed(Exception):
    """Carries a classified failure through tenacity."""

    def __init__(self, failure: Failure, record: CallRecord) -> None:
        super().__init__(failure.error_class)
        self.failure = failure
        self.record = record


class JournaledModel:
    """A chat model whose every attempt is written before it is sent and whose every reply is written before it is used."""

    def __init__(
        self,
        endpoint: Endpoint,
        config: LLMConfig,
        store: SessionStore,
        budget: Budget,
        seed: int,
        spans: Spans | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._config = config
        self._store = store
        self._budget = budget
        self._preparer = Preparer(endpoint, config, seed)
        self._spans = spans or Spans()
        self._chat = ChatClient(endpoint, config)
        self._cache = ResponseCache(config.response_cache) if config.response_cache else None
        self._journal = Journal(store, self._cache)
        self._format = FormatProbe(config, endpoint, store)
        # The session's own calls wait here, in the order of the fan-out; the gate is shared with other sessions. Twice what may
        # be in flight: while calls are, the next ones are rendered, looked up in the journal, and stand at the gate.
        self._slots = asyncio.Semaphore(2 * (config.concurrency or 1))
        self._traffic = traffic_for(endpoint.base_url, endpoint.model)
        self._traffic.join(self, Rules(config.concurrency or 1, config.requests_per_minute, config.tokens_per_minute))
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._halted: Exception | None = None
        self._halting = asyncio.Event()
        self._answered = False
        self._recent: deque[bool] = deque(maxlen=_BREAKER_WINDOW_CALLS)

    async def call(self, request: CallRequest) -> CallRecord:
        async with self._slots:
            await self._raise_if_halted()
            record = await self._call_in_format(request)
            if record.state == "done" and record.finish_reason == "length":
                # Twice the tokens and another seed: a limit that was too low is cured by the one, a model that went round in
                # circles by the other. Fewer samples would be another prompt, which no prefix cache knows.
                again = await self._call_in_format(request, after_cut=True)
                return again if again.state == "done" else record
            return record

    @property
    def lenient(self) -> bool:
        return self._format.current != "json_schema"

    def halt(self, error: Exception) -> None:
        self._halted = self._halted or error
        self._halting.set()
        self._traffic.withdraw(self)

    async def aclose(self) -> None:
        self._traffic.leave(self)
        await self._journal.settle()
        await self._chat.aclose()
        if self._cache is not None:
            self._cache.close()

    async def _call_in_format(self, request: CallRequest, *, after_cut: bool = False) -> CallRecord:
        """Make the call in the format that the endpoint takes, which the first calls find out."""
        while True:
            prepared = self._preparer.prepare(request, self._format.current, after_cut=after_cut)
            known = await self._journal.look_up(prepared.planned)
            if known.done is not None:
                return known.done
            record = await self._with_retries(prepared, known.next_attempt)
            if record.error_class != UNSUPPORTED_FORMAT:
                return record

    async def _with_retries(self, prepared: Prepared, next_attempt: int) -> CallRecord:
        numbers = itertools.count(next_attempt)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._config.max_attempts),
            wait=_wait,
            sleep=self._sleep,
            retry=retry_if_exception(lambda error: isinstance(error, _AttemptFailed) and error.failure.retryable),
            reraise=True,
        )
        try:
            record: CallRecord = await retrying(self._attempt, prepared, numbers)
            await self._format.works(prepared.output_format)
        except _AttemptFailed as error:
            record, failure = error.record, error.failure
            if failure.error_class == UNSUPPORTED_FORMAT and self._format.refused(prepared.output_format):
                return record  # asked again in the next format
            if failure.fatal is not None:
                self.halt(fatal_error(failure))
        self._watch(record)
        if record.state != "done":
            # After the breaker opened this call fails as a task, not as data: a resume sends it again.
            await self._raise_if_halted()
        return record

    async def _sleep(self, seconds: float) -> None:
        """Wait before a retry, but not longer than until somebody halts the model."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._halting.wait(), seconds)

    def _watch(self, record: CallRecord) -> None:
        """Halt when the endpoint has not answered once, or fails too often of late."""
        if record.error_class in ("context_overflow", "content_filter"):
            return  # this prompt's fault, not the endpoint's
        self._recent.append(record.state != "done")
        self._answered |= record.state == "done"
        n_failed, n_recent = sum(self._recent), len(self._recent)
        too_many = n_recent >= _BREAKER_MIN_CALLS and n_failed > self._config.max_failed_share * n_recent
        if too_many or not self._answered:
            url, last = self._endpoint.base_url, f"{record.error_class}: {record.error}"
            failed = f"{n_failed} of the last {n_recent} calls to {url} failed (last: {last})"
            what = failed if self._answered else f"{url} has answered no call ({last})"
            self.halt(EndpointError(f"{what}; the session is saved, resume when the endpoint answers"))

    async def _attempt(self, prepared: Prepared, numbers: Iterator[int]) -> CallRecord:
        await self._raise_if_halted()
        record = replace(prepared.planned, attempt=next(numbers))
        bound = Amount(record.bound_tokens, record.bound_usd)
        await self._budget.reserve(bound)
        charged = _NO_CHARGE
        self._in_flight += 1
        self._idle.clear()
        try:
            # Halted: while it waited for the budget. Not admitted: halted while it waited at the gate.
            if self._halted is None and (sent_at := await self._traffic.admit(self, bound.tokens)) is not None:
                charged = bound  # what it used is unknown until it has ended
                try:
                    record, failure, written = await self._send(prepared, record, sent_at)
                    charged = Amount(*charge(record))
                finally:
                    self._traffic.release(reserved_tokens=bound.tokens, used_tokens=charged.tokens)
                # The place is free already. The intent of the call that takes it stands behind this outcome in the journal's
                # queue, so that no more calls are open on disk than may be in flight.
                await written
                if failure is not None:
                    raise _AttemptFailed(failure, record)
                return record
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()
            await self._budget.settle(bound, charged)
        await self._raise_if_halted()
        raise AssertionError("the gate turns away calls of halted models only")

    async def _send(
        self, prepared: Prepared, record: CallRecord, sent_at: float
    ) -> tuple[CallRecord, Failure | None, Awaitable[object]]:
        """Write the intent, send, and return how it ended, and what to wait for until that is on disk."""
        failure: Failure | None = None
        await self._journal.write(record)
        started = time.monotonic()
        with self._spans.call(record, prepared.messages) as span:
            try:
                reply = await self._chat.complete(
                    prepared.messages,
                    seed=record.seed,
                    max_tokens=prepared.max_tokens,
                    temperature=prepared.temperature,
                    response_format=prepared.response_format,
                )
            except Exception as error:
                failure = classify(error, self._endpoint.base_url)
                record = replace(
                    record, state="failed", error_class=failure.error_class, error=_one_line(error),
                    seconds=time.monotonic() - started,
                )  # fmt: skip
                asked_to_wait = failure.retry_after_seconds
                if failure.error_class in _OVERLOADS or asked_to_wait is not None:
                    pause = None if asked_to_wait is None else min(asked_to_wait, _MAX_WAIT_SECONDS)
                    self._traffic.overloaded(sent_at, pause)
            else:
                record = self._completed(record, reply, time.monotonic() - started)
                self._traffic.answered()
            span.ended(record)
        return record, failure, self._journal.write(record)

    async def _raise_if_halted(self) -> None:
        if self._halted is not None:
            # LangGraph cancels the siblings of a task that raises: let those in flight, which are paid for, finish first.
            await self._idle.wait()
            raise self._halted

    def _completed(self, record: CallRecord, reply: ChatReply, seconds: float) -> CallRecord:
        return replace(
            record, state="done", content=reply.content, finish_reason=reply.finish_reason, refusal=reply.refusal,
            prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens,
            cost_usd=cost_usd(self._config.prices, reply.prompt_tokens, reply.completion_tokens), seconds=seconds,
        )  # fmt: skip


_backoff = wait_exponential_jitter(multiplier=0.5, max=_MAX_WAIT_SECONDS)


def _wait(state: RetryCallState) -> float:
    """Wait exponentially longer with jitter; not at all where the endpoint said how long, as the gate then holds everybody."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.failure.retry_after_seconds if isinstance(error, _AttemptFailed) else None
    return _backoff(state) if asked is None else 0.0


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return text.encode("utf-8", "replace").decode()
