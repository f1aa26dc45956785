"""Sessions opened by a LangGraph server: by thread id and context, one set of handles each, closed when the run is over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from weakref import WeakValueDictionary

from langgraph.errors import GraphBubbleUp

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.config.serving import ServingConfig
from synalign_agent.deps import Deps
from synalign_agent.errors import InputError
from synalign_agent.event_loop import to_its_end
from synalign_agent.report.export import write_atomically
from synalign_agent.serving.contexts import continued_config, session_config
from synalign_agent.serving.open_fields import LikeOpenFields
from synalign_agent.serving.public_errors import public_errors
from synalign_agent.serving.sources import Rows, as_json_lines, checked_rows
from synalign_agent.serving.tools import serving_config
from synalign_agent.state import WAITING, Context

_ROWS = "real.jsonl"
"""File of a session's folder that holds the rows that its client sent."""


@dataclass(frozen=True, slots=True)
class ServedContext(Context):
    """What a client gives a run. A run that goes on with a session may leave all of it out."""

    config: Annotated[dict[str, Any] | None, LikeOpenFields()] = None
    """What to do: any of the fields that clients may set; None for the operator's configuration, or the packaged example."""
    real: Rows | None = None
    """The real rows to match, in place of `config.data.path`: objects with the fields `data.text_column` and
    `data.label_column`, or texts, with `data.label_column` null."""


class _Opened(NamedTuple):
    deps: Deps
    end: Callable[[str], None]
    """Closes the handles; the session keeps the status."""


class ServedSessions:
    """The open sessions of this process."""

    def __init__(self) -> None:
        self._open: dict[str, _Opened] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._nodes: Counter[str] = Counter()
        self._ended_badly: dict[str, str] = {}

    async def provide(self, thread_id: str, context: Context) -> Deps:
        """Return the handles of a thread, opening its session on the first use.

        Raises:
            SynAlignError: the session cannot be opened; see `public_errors`.
        """
        async with self._lock(thread_id):
            if thread_id not in self._open:
                # Cancelled or not: what it opens is known by then, and `around` closes it.
                await to_its_end(self._open_session, thread_id, context)
            return self._open[thread_id].deps

    @asynccontextmanager
    async def around(self, thread_id: str) -> AsyncIterator[None]:
        """Close a session whose run failed or was cancelled, when the last of its nodes has ended."""
        with public_errors():
            serving = await asyncio.to_thread(serving_config)
        self._nodes[thread_id] += 1
        try:
            with public_errors(serving):
                yield
        except GraphBubbleUp:
            raise
        except BaseException as error:
            self._ended_badly[thread_id] = "failed" if isinstance(error, Exception) else "interrupted"
            raise
        finally:
            self._nodes[thread_id] -= 1
            if not self._nodes[thread_id]:
                del self._nodes[thread_id]
                if status := self._ended_badly.pop(thread_id, None):
                    await asyncio.shield(self._end(thread_id, status))

    async def _end(self, thread_id: str, status: str) -> None:
        async with self._lock(thread_id):
            opened = self._open.get(thread_id)
            if opened is not None:
                await opened.deps.model.aclose()
                await to_its_end(opened.end, status)

    def _lock(self, thread_id: str) -> asyncio.Lock:
        return self._locks.setdefault(thread_id, asyncio.Lock())

    def _open_session(self, thread_id: str, context: Context) -> None:
        serving = serving_config()
        folder = Path(serving.runs_dir) / thread_id
        started = time.monotonic()
        with public_errors(serving), wiring.removed_on_error(folder), ExitStack() as stack:
            wiring.check_thread_id(thread_id)
            config = wiring.resolve(_config(folder, context, serving))
            store = wiring.open_store(folder, config)
            stack.callback(store.close)
            wiring.lock_session(folder, stack, store)
            earlier = float(store.meta("active_seconds") or 0.0)
            wiring.prepare(folder, store, config, accept_changes=False)
            store.mark_lost_calls()
            store.set_meta("status", "running")
            deps = wiring.open_deps(
                thread_id, folder, config, store, stack, _ignore, lambda: earlier + time.monotonic() - started
            )
            stack.callback(self._open.pop, thread_id, None)
            ending = stack.pop_all()

        def end(status: str) -> None:
            with ending:
                store.set_meta("active_seconds", str(deps.active_seconds()))
                store.set_meta("status", status)

        deps.close = partial(end, "finished")
        # The server may wait for days: meanwhile the session belongs to nobody, and its model needs no memory.
        deps.pause = partial(end, WAITING)
        self._open[thread_id] = _Opened(deps, end)


def _config(folder: Path, context: Context, serving: ServingConfig) -> SessionConfig:
    """Return the configuration of a new session, or of one that goes on, by what the client gave this time."""
    real = context.real if isinstance(context, ServedContext) else None
    there = wiring.session_exists(folder)
    if there and context.config is None and real is None and (stored := _stored(folder)) is not None:
        return continued_config(stored, serving)
    kept = folder / _ROWS
    if real is None and not kept.exists():
        return session_config(context.config, serving)
    config = session_config(context.config or {}, serving, rows=str(kept))
    if real is not None:
        text = "".join(as_json_lines(checked_rows(real, "real", serving), config.data.text_column))
        _keep(kept, text, there)
    return config


def _keep(path: Path, text: str, session_is_there: bool) -> None:
    if session_is_there and (not path.exists() or path.read_text(encoding="utf-8") != text):
        raise InputError("real: this session was made with other rows; leave them out, or use another thread")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def _stored(folder: Path) -> SessionConfig | None:
    store = wiring.open_store(folder)
    try:
        return wiring.stored_config(store)
    finally:
        store.close()


def _ignore(stage: str) -> None:
    """Tell nobody what is being prepared."""
