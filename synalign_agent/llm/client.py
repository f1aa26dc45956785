"""The one way to the endpoint: journal first, then budget, then the gate, then the request, then the journal again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from synalign_agent.config import LLMConfig
from synalign_agent.errors import EndpointError
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.budget import Amount, Budget, cost_usd, prompt_token_bound
from synalign_agent.llm.chat import ChatClient, ChatReply
from synalign_agent.llm.failures import UNSUPPORTED_FORMAT, Failure, classify, fatal_error
from synalign_agent.llm.journal import Journal
from synalign_agent.llm.output_format import FormatProbe
from synalign_agent.llm.providers import Endpoint
from synalign_agent.llm.response_cache import ResponseCache
from synalign_agent.llm.structured import OutputFormat, instruct, response_format
from synalign_agent.llm.traffic import Rules, traffic_for
from synalign_agent.prompting.render import Message, render
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


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A call, ready to be sent."""

    planned: CallRecord
    messages: Sequence[Message]
    response_format: dict[str, Any] | None
    output_format: OutputFormat
    max_tokens: int


class JournaledModel:
    """A chat model whose every attempt is written before it is sent and whose every reply is written before it is used."""

    def __init__(self, endpoint: Endpoint, config: LLMConfig, store: SessionStore, budget: Budget, seed: int) -> None:
        self._endpoint = endpoint
        self._config = config
        self._store = store
        self._budget = budget
        self._seed = seed
        self._chat = ChatClient(endpoint, config)
        self._cache = ResponseCache(config.response_cache) if config.response_cache else None
        self._journal = Journal(store, self._cache)
        self._format = FormatProbe(config, endpoint, store)
        # The session's own calls wait here, in the order of the fan-out; the gate is shared with other sessions.
        self._slots = asyncio.Semaphore(config.concurrency or 1)
        self._traffic = traffic_for(endpoint.base_url, endpoint.model)
        self._traffic.join(self, Rules(config.concurrency or 1, config.requests_per_minute, config.tokens_per_minute))
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._halted: Exception | None = None
        self._halting = asyncio.Event()
        self._answered = False
        self._recent: deque[bool] = deque(maxlen=_BREAKER_WINDOW_CALLS)

    async def call(self, request: CallRequest | Callable[[], CallRequest]) -> CallRecord:
        async with self._slots:
            await self._raise_if_halted()
            made = request if isinstance(request, CallRequest) else await asyncio.to_thread(request)
            record = await self._call_in_format(made)
            if record.state == "done" and record.finish_reason == "length":
                # Twice the tokens and another seed: a limit that was too low is cured by the one, a model that went round in
                # circles by the other. Fewer samples would be another prompt, which no prefix cache knows.
                again = await self._call_in_format(made, after_cut=True)
                return again if again.state == "done" else record
            return record

    @property
    def halted(self) -> bool:
        return self._halted is not None

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
            prepared = self._prepare(request, after_cut)
            known = await self._journal.look_up(prepared.planned)
            if known.done is not None:
                return known.done
            record = await self._with_retries(prepared, known.next_attempt)
            if record.error_class != UNSUPPORTED_FORMAT:
                return record

    def _prepare(self, request: CallRequest, after_cut: bool) -> _Prepared:
        output_format = self._format.current
        messages = render(request.prompt, request.values)
        schema_text = json.dumps(request.schema, sort_keys=True, ensure_ascii=False)
        if output_format != "json_schema":
            messages = instruct(messages, schema_text)
        max_tokens = self._more_tokens(request.max_tokens) if after_cut else request.max_tokens
        identity = [
            self._seed,
            request.node,
            request.round,
            request.cluster_id,
            request.draw,
            self._endpoint.identity,
            messages,
            schema_text,
        ]
        # Marks are added only where something differs from a plain call, so that calls of earlier versions are found.
        if after_cut:
            identity.append("after a cut")
        if output_format != "json_schema":
            identity.append(output_format)
        identity_text = _canonical(identity)
        seed = int.from_bytes(_sha256(identity_text)[:4], "big") >> 1
        parameters = _canonical([self._config.temperature, max_tokens, self._config.extra_body, seed])
        bound = self._bound(messages, schema_text, max_tokens)
        planned = CallRecord(
            key=_sha256(f"[{identity_text}, {parameters}]").hex()[:32], attempt=0, state="intended", node=request.node,
            round=request.round, cluster_id=request.cluster_id, draw=request.draw, prompt=request.prompt.name,
            prompt_version=request.prompt.version, prompt_sha256=request.prompt.sha256, model=self._endpoint.identity,
            seed=seed, bound_tokens=bound.tokens, bound_usd=bound.usd,
        )  # fmt: skip
        asked = response_format(output_format, request.prompt.output_schema, request.schema)
        return _Prepared(planned, messages, asked, output_format, max_tokens)

    def _more_tokens(self, max_tokens: int) -> int:
        allowed = self._config.max_tokens
        return 2 * max_tokens if allowed is None else max(max_tokens, min(2 * max_tokens, allowed))

    async def _with_retries(self, prepared: _Prepared, next_attempt: int) -> CallRecord:
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
        if record.error_class == "context_overflow":
            return  # this prompt's fault, not the endpoint's
        self._recent.append(record.state != "done")
        self._answered |= record.state == "done"
        n_failed, n_recent = sum(self._recent), len(self._recent)
        too_many = n_recent >= _BREAKER_MIN_CALLS and n_failed > self._config.max_failed_share * n_recent
        if too_many or not self._answered:
            self.halt(
                EndpointError(
                    f"{n_failed} of the last {n_recent} calls to {self._endpoint.base_url} failed "
                    f"(last: {record.error_class}: {record.error}); the session is saved, resume when the endpoint answers"
                )
            )

    async def _attempt(self, prepared: _Prepared, numbers: Iterator[int]) -> CallRecord:
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
                    record, failure = await self._send(prepared, record, sent_at)
                    charged = Amount(*charge(record))
                    if failure is not None:
                        raise _AttemptFailed(failure, record)
                    return record
                finally:
                    self._traffic.release(reserved_tokens=bound.tokens, used_tokens=charged.tokens)
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()
            await self._budget.settle(bound, charged)
        await self._raise_if_halted()
        raise AssertionError("the gate turns away calls of halted models only")

    async def _send(self, prepared: _Prepared, record: CallRecord, sent_at: float) -> tuple[CallRecord, Failure | None]:
        failure: Failure | None = None
        await self._journal.write(record)
        started = time.monotonic()
        try:
            reply = await self._chat.complete(
                prepared.messages,
                seed=record.seed,
                max_tokens=prepared.max_tokens,
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
        await self._journal.write(record)
        return record, failure

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

    def _bound(self, messages: Sequence[Message], schema_text: str, max_tokens: int) -> Amount:
        prompt_tokens = prompt_token_bound(messages, schema_text)
        return Amount(prompt_tokens + max_tokens, cost_usd(self._config.prices, prompt_tokens, max_tokens))


_backoff = wait_exponential_jitter(multiplier=0.5, max=_MAX_WAIT_SECONDS)


def _wait(state: RetryCallState) -> float:
    """Wait exponentially longer with jitter; not at all where the endpoint said how long, as the gate then holds everybody."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.failure.retry_after_seconds if isinstance(error, _AttemptFailed) else None
    return _backoff(state) if asked is None else 0.0


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return text.encode("utf-8", "replace").decode()
