"""Reads and writes of the call journal, gathered: calls that run at the same time share a thread hop and a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from synalign_agent.llm.response_cache import ResponseCache
from synalign_agent.records import CallRecord
from synalign_agent.stores.base import SessionStore


class Known(NamedTuple):
    """What is known of a call before it is sent."""

    done: CallRecord | None
    """The finished call; `cached` if another session paid for it."""
    next_attempt: int


@dataclass(frozen=True, slots=True)
class _Job:
    planned: CallRecord | None
    records: Sequence[CallRecord]
    ended: asyncio.Future[Known | None]


class Journal:
    """The session's journal, with the response cache behind it if there is one; serves one event loop.

    While a batch is in its thread the next one gathers.
    """

    def __init__(self, store: SessionStore, cache: ResponseCache | None = None) -> None:
        self._store = store
        self._cache = cache
        self._jobs: list[_Job] = []
        self._worker: asyncio.Task[None] | None = None

    async def look_up(self, planned: CallRecord) -> Known:
        """Return the finished call with this key, which may now be there from the cache, and the number of its next attempt."""
        known = await self._submit(planned, ())
        assert known is not None
        return known

    def write(self, *records: CallRecord) -> Awaitable[object]:
        """Queue intents (state `intended`) and outcomes; what is returned ends when they are on disk.

        Writes reach the disk in the order of these calls.
        """
        return self._submit(None, records)

    async def settle(self) -> None:
        """Wait for what is being written."""
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def _submit(self, planned: CallRecord | None, records: Sequence[CallRecord]) -> asyncio.Future[Known | None]:
        job = _Job(planned, records, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return job.ended

    async def _work(self) -> None:
        while self._jobs:
            batch, self._jobs = self._jobs, []
            try:
                answers = await asyncio.to_thread(self._run, batch)
            except asyncio.CancelledError:
                _each(batch, lambda job: job.ended.cancel())
                raise
            except Exception as error:
                _each(batch, partial(_fail, error))
                continue
            for job in batch:
                if not job.ended.done():
                    job.ended.set_result(answers[job.planned.key] if job.planned is not None else None)

    def _run(self, batch: Sequence[_Job]) -> dict[str, Known]:
        records = [record for job in batch for record in job.records]
        if records:
            self._store.record_calls(records)
            if self._cache is not None:
                self._cache.put([record for record in records if record.state == "done"])
        planned = {job.planned.key: job.planned for job in batch if job.planned is not None}
        if not planned:
            return {}
        known = {key: Known(*found) for key, found in self._store.look_up_calls(list(planned)).items()}
        if self._cache is not None:
            known |= self._adopt(self._cache, [planned[key] for key in known if known[key].done is None], known)
        return known

    def _adopt(self, cache: ResponseCache, missing: Sequence[CallRecord], known: dict[str, Known]) -> dict[str, Known]:
        """Journal what other sessions have paid for."""
        found = cache.get([replace(call, attempt=known[call.key].next_attempt) for call in missing])
        if found:
            self._store.record_calls([replace(call, state="intended", content=None) for call in found] + found)
        return {call.key: Known(call, call.attempt + 1) for call in found}


def _fail(error: Exception, job: _Job) -> None:
    job.ended.set_exception(error)


def _each(batch: Sequence[_Job], action: Callable[[_Job], Any]) -> None:
    for job in batch:
        if not job.ended.done():
            action(job)
