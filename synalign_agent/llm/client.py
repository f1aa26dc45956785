"""The one way to the endpoint: journal first, then budget, then the request, then the journal again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient
from pydantic import SecretStr
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from synalign_agent.config import LLMConfig
from synalign_agent.errors import EndpointError
from synalign_agent.llm.base import CallRequest
from synalign_agent.llm.budget import Amount, Budget, cost_usd, prompt_token_bound
from synalign_agent.llm.failures import Failure, classify, fatal_error
from synalign_agent.llm.providers import Endpoint
from synalign_agent.prompting.render import Message, render
from synalign_agent.records import CallRecord, charge
from synalign_agent.stores.base import SessionStore

_BREAKER_MIN_CALLS = 8
_BREAKER_WINDOW_CALLS = 20
_MAX_WAIT_SECONDS = 60.0


class _AttemptFailed(Exception):
    """Carries a classified failure through tenacity."""

    def __init__(self, failure: Failure, record: CallRecord) -> None:
        super().__init__(failure.error_class)
        self.failure = failure
        self.record = record


class JournaledModel:
    """A chat model whose every attempt is written before it is sent and whose every reply is written before it is used."""

    def __init__(self, endpoint: Endpoint, config: LLMConfig, store: SessionStore, budget: Budget, seed: int) -> None:
        self._endpoint = endpoint
        self._config = config
        self._store = store
        self._budget = budget
        self._seed = seed
        # A client of its own: the one that langchain-openai shares keeps connections of an event loop that has ended, and a
        # call on such a connection is sent, paid for, and lost.
        self._http = DefaultAsyncHttpxClient()
        # `max_retries=0`: retries happen here, so that each attempt is journalled and budgeted.
        self._chat = ChatOpenAI(
            model=endpoint.model,
            base_url=endpoint.base_url,
            api_key=SecretStr(endpoint.api_key),
            temperature=config.temperature,
            timeout=config.timeout_seconds,
            max_retries=0,
            http_async_client=self._http,
        )
        self._slots = asyncio.Semaphore(config.concurrency or 1)
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._halted: Exception | None = None
        self._halting = asyncio.Event()
        self._answered = False
        self._recent: deque[bool] = deque(maxlen=_BREAKER_WINDOW_CALLS)

    async def call(self, request: CallRequest) -> CallRecord:
        messages = render(request.prompt, request.values)
        schema_text = json.dumps(request.schema, sort_keys=True, ensure_ascii=False)
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
        seed = int.from_bytes(_sha256(identity)[:4], "big") >> 1
        parameters = [self._config.temperature, request.max_tokens, self._config.extra_body, seed]
        key = _sha256([identity, parameters]).hex()[:32]

        if (done := await asyncio.to_thread(self._store.done_call, key)) is not None:
            return done
        bound = self._bound(messages, schema_text, request.max_tokens)
        planned = CallRecord(
            key=key, attempt=0, state="intended", node=request.node, round=request.round, cluster_id=request.cluster_id,
            draw=request.draw, prompt=request.prompt.name, prompt_version=request.prompt.version,
            prompt_sha256=request.prompt.sha256, model=self._endpoint.identity, seed=seed,
            bound_tokens=bound.tokens, bound_usd=bound.usd,
        )  # fmt: skip
        async with self._slots:
            return await self._with_retries(planned, request, messages)

    @property
    def halted(self) -> bool:
        return self._halted is not None

    def halt(self, error: Exception) -> None:
        self._halted = self._halted or error
        self._halting.set()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _sleep(self, seconds: float) -> None:
        """Wait before a retry, but not longer than until somebody halts the model."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._halting.wait(), seconds)

    async def _with_retries(self, planned: CallRecord, request: CallRequest, messages: Sequence[Message]) -> CallRecord:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._config.max_attempts),
            wait=_wait,
            sleep=self._sleep,
            retry=retry_if_exception(lambda error: isinstance(error, _AttemptFailed) and error.failure.retryable),
            reraise=True,
        )
        try:
            record: CallRecord = await retrying(self._attempt, planned, request, messages)
        except _AttemptFailed as error:
            record = error.record
            if error.failure.fatal is not None:
                self.halt(fatal_error(error.failure))
        self._watch(record)
        if record.state != "done":
            # After the breaker opened this call fails as a task, not as data: a resume sends it again.
            await self._raise_if_halted()
        return record

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

    async def _attempt(self, planned: CallRecord, request: CallRequest, messages: Sequence[Message]) -> CallRecord:
        await self._raise_if_halted()
        bound = Amount(planned.bound_tokens, planned.bound_usd)
        await self._budget.reserve(bound)
        if self._halted is not None:  # while it waited for the budget
            await self._budget.settle(bound, Amount(0, 0.0))
            await self._raise_if_halted()
        self._in_flight += 1
        self._idle.clear()
        record = planned
        try:
            attempt = await asyncio.to_thread(self._store.next_attempt, planned.key)
            record = replace(planned, attempt=attempt)
            await asyncio.to_thread(self._store.intend_call, record)
            started = time.monotonic()
            try:
                reply = await self._chat.ainvoke(
                    [(message.role, message.content) for message in messages],
                    seed=planned.seed,
                    **self._request_fields(request),
                )
            except Exception as error:
                failure = classify(error, self._endpoint.base_url)
                record = replace(
                    record, state="failed", error_class=failure.error_class, error=_one_line(error),
                    seconds=time.monotonic() - started,
                )  # fmt: skip
                await asyncio.to_thread(self._store.finish_call, record)
                raise _AttemptFailed(failure, record) from error
            record = self._completed(record, reply, time.monotonic() - started)
            await asyncio.to_thread(self._store.finish_call, record)
            return record
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()
            await self._budget.settle(bound, Amount(*charge(record)))

    async def _raise_if_halted(self) -> None:
        if self._halted is not None:
            # LangGraph cancels the siblings of a task that raises: let those in flight, which are paid for, finish first.
            await self._idle.wait()
            raise self._halted

    def _request_fields(self, request: CallRequest) -> dict[str, Any]:
        # The schema travels in `extra_body`: given as `response_format`, langchain-openai parses the reply itself and
        # raises for cut and refused ones, and what was paid for is lost. Here the whole reply reaches the journal.
        response_format = {
            "type": "json_schema",
            "json_schema": {"name": request.prompt.output_schema, "schema": request.schema, "strict": True},
        }
        body: dict[str, Any] = {**(self._config.extra_body or {}), "response_format": response_format}
        if self._endpoint.hosted_by_openai:
            return {"extra_body": body, "max_tokens": request.max_tokens}
        # Sent as `max_tokens`, which every compatible server knows; the client would rename it.
        return {"extra_body": {**body, "max_tokens": request.max_tokens}}

    def _completed(self, record: CallRecord, reply: AIMessage, seconds: float) -> CallRecord:
        usage = reply.usage_metadata
        prompt_tokens = usage["input_tokens"] if usage else 0
        completion_tokens = usage["output_tokens"] if usage else 0
        return replace(
            record, state="done", content=_storable(str(reply.content)),
            finish_reason=reply.response_metadata.get("finish_reason"),
            refusal=_storable(reply.additional_kwargs.get("refusal") or "") or None, prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_usd=cost_usd(self._config.prices, prompt_tokens, completion_tokens), seconds=seconds,
        )  # fmt: skip

    def _bound(self, messages: Sequence[Message], schema_text: str, max_tokens: int) -> Amount:
        prompt_tokens = prompt_token_bound(messages, schema_text)
        return Amount(prompt_tokens + max_tokens, cost_usd(self._config.prices, prompt_tokens, max_tokens))


_backoff = wait_exponential_jitter(multiplier=0.5, max=_MAX_WAIT_SECONDS)


def _wait(state: RetryCallState) -> float:
    """Wait as long as the endpoint asks, else exponentially longer with jitter."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.failure.retry_after_seconds if isinstance(error, _AttemptFailed) else None
    return min(asked, _MAX_WAIT_SECONDS) if asked is not None else _backoff(state)


def _sha256(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).digest()


def _storable(text: str) -> str:
    """Replace halves of surrogate pairs: the reply is paid for, so it must reach the journal whatever it holds."""
    return text.encode("utf-8", "replace").decode()


def _one_line(error: Exception) -> str:
    return _storable(" ".join(f"{type(error).__name__}: {error}".split())[:500])
