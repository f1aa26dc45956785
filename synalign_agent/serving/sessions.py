"""Sessions opened by a LangGraph server: by thread id and context, one set of handles each, closed when the run is over."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent import futures
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
from synalign_agent.errors import InputError, SynAlignError
from synalign_agent.event_loop import to_its_end
from synalign_agent.report.export import write_atomically
from synalign_agent.report.summary import ERROR
from synalign_agent.serving.contexts import continued_config, session_config
from synalign_agent.serving.open_fields import LikeOpenFields
from synalign_agent.serving.public_errors import public_errors
from synalign_agent.serving.sources import Rows, as_json_lines, checked_rows
from synalign_agent.serving.tools import serving_config
from synalign_agent.state import WAITING, Context

_LOG = logging.getLogger(__name__)
_IDLE_SECONDS = 10.0
"""How long a session stays open without a node. A run can end between two of them without a word: it was cancelled there, or its
client asked for a break. One that goes on writes a checkpoint there, in milliseconds, or in seconds on a slow database; should
that take longer, the next node opens the session again. One that does not keeps everybody else from the session meanwhile."""
_POLL_SECONDS = 0.5
_MOST_REFUSED = 1000
_FAILED = "a run on the server failed; its reply, and the server's log, say why"
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
    loop: asyncio.AbstractEventLoop
    """Where its model can be called, and has its connections."""
    context: Context


class ServedSessions:
    """The open sessions of this process, whose runs may have an event loop each (`BG_JOB_ISOLATED_LOOPS`)."""

    def __init__(self) -> None:
        # A thread lock for what follows, because of those loops. It is never held across an await, or for long.
        self._guard = threading.Lock()
        self._open: dict[str, _Opened] = {}
        self._nodes: Counter[str] = Counter()
        """Nodes, and routes between them, that are inside `around`."""
        self._ended_badly: dict[str, str] = {}
        self._refused: OrderedDict[str, str] = OrderedDict()
        """Why the last threads of those without a session have none: what their clients gave was not accepted."""
        self._idle: dict[str, threading.Timer] = {}
        """Timers of open sessions that no node is in. Not the event loop's: a loop of one's own stops with the run."""
        self._closing: dict[str, futures.Future[None]] = {}
        self._turns: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], asyncio.Lock] = WeakValueDictionary()

    async def provide(self, thread_id: str, context: Context) -> Deps:
        """Return the handles of a thread, opening its session on the first use; call it inside `around`.

        Raises:
            SynAlignError: the session cannot be opened; see `public_errors`.
        """
        loop = asyncio.get_running_loop()
        with self._guard:
            turn = self._turns.setdefault((loop, thread_id), asyncio.Lock())
        async with turn:
            if closing := self._to_be_closed_for(thread_id, context, loop):
                await _closed(closing)
            if thread_id not in self._open:
                # Cancelled or not: what it opens is known by then, and `around` closes it.
                await to_its_end(self._open_session, thread_id, context, loop)
            return self._open[thread_id].deps

    @asynccontextmanager
    async def around(self, thread_id: str) -> AsyncIterator[None]:
        """Close a session when its last node has ended: at once if one failed or was cancelled, later if no other comes."""
        with public_errors():
            serving = await asyncio.to_thread(serving_config)
        self._enter(thread_id)
        try:
            with public_errors(serving):
                yield
        except GraphBubbleUp:
            raise
        except BaseException as error:
            self._ended_badly[thread_id] = "failed" if isinstance(error, Exception) else "interrupted"
            raise
        finally:
            if closing := self._leave(thread_id):
                await _closed(closing)

    def _enter(self, thread_id: str) -> None:
        with self._guard:
            self._nodes[thread_id] += 1
            timer = self._idle.pop(thread_id, None)
        if timer is not None:
            timer.cancel()

    def _leave(self, thread_id: str) -> futures.Future[None] | None:
        with self._guard:
            self._nodes[thread_id] -= 1
            if self._nodes[thread_id]:
                return None
            del self._nodes[thread_id]
            if status := self._ended_badly.pop(thread_id, None):
                return self._begin_closing(thread_id, status)
            # A session that is finished, or waits for a person, is not open any more.
            if thread_id in self._open:
                timer = self._idle[thread_id] = threading.Timer(_IDLE_SECONDS, self._close_idle, [thread_id])
                timer.daemon = True
                timer.start()
            return None

    def _close_idle(self, thread_id: str) -> None:
        with self._guard:
            # A node may have come while the timer went off.
            if self._idle.get(thread_id) is threading.current_thread():
                del self._idle[thread_id]
                self._begin_closing(thread_id, "interrupted")

    def _to_be_closed_for(
        self, thread_id: str, context: Context, loop: asyncio.AbstractEventLoop
    ) -> futures.Future[None] | None:
        """Return what a node waits for before it can open the session for its own run."""
        with self._guard:
            opened = self._open.get(thread_id)
            if opened is not None and (opened.loop is not loop or opened.context != context):
                # Left by an earlier run, which ended between two nodes: its model is of no use in another event loop, and what
                # another context says must be looked at.
                return self._begin_closing(thread_id, "interrupted")
            return self._closing.get(thread_id)

    def _begin_closing(self, thread_id: str, status: str) -> futures.Future[None] | None:
        """Take the session from those that are open, with `_guard` held, so that nobody else closes it or works with it."""
        opened = self._open.get(thread_id)
        if opened is None:
            return None
        closed: futures.Future[None] = futures.Future()
        # In a thread of its own: it waits for the event loop, which may wait for one of the loop's threads.
        threading.Thread(target=self._close, args=(thread_id, opened, status, closed)).start()
        self._open.pop(thread_id, None)  # if the thread did not come to it yet
        self._closing[thread_id] = closed
        return closed

    def _close(self, thread_id: str, opened: _Opened, status: str, closed: futures.Future[None]) -> None:
        try:
            try:
                _close_model(opened)
            finally:
                opened.end(status)
        except Exception:  # the handles are released all the same, and the next run can open the session
            _LOG.exception("session %s: could not be closed in order", thread_id)
        finally:
            with self._guard:
                del self._closing[thread_id]
            closed.set_result(None)

    def _open_session(self, thread_id: str, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        serving = serving_config()
        folder = Path(serving.runs_dir) / thread_id
        why = None if _gives_anything(context) or wiring.session_exists(folder) else self._refused.get(thread_id)
        if why is not None:
            # To go on without a context is not to begin with other rows than those that were asked for.
            raise InputError(f"this thread has no session to go on with; give the context again. It was refused: {why}")
        try:
            self._open_in(folder, thread_id, context, serving, loop)
        except SynAlignError as error:
            if not wiring.session_exists(folder):
                self._refused[thread_id] = str(error)
                while len(self._refused) > _MOST_REFUSED:
                    self._refused.popitem(last=False)
            raise

    def _open_in(
        self, folder: Path, thread_id: str, context: Context, serving: ServingConfig, loop: asyncio.AbstractEventLoop
    ) -> None:
        started = time.monotonic()
        with public_errors(serving), wiring.removed_on_error(folder), ExitStack() as stack:
            wiring.check_thread_id(thread_id)
            config = wiring.resolve(_config(folder, context, serving))
            store = wiring.open_store(folder, config)
            stack.callback(store.close)
            wiring.lock_session(folder, stack, store)
            earlier = float(store.meta("active_seconds") or 0.0)
            wiring.prepare(folder, store, config, accept_changes=False, way_out=_way_out(context))
            store.mark_lost_calls()
            store.set_meta("status", "running")
            store.set_meta(ERROR, "")
            deps = wiring.open_deps(
                thread_id, folder, config, store, stack, _ignore, lambda: earlier + time.monotonic() - started
            )
            stack.callback(self._open.pop, thread_id, None)
            ending = stack.pop_all()

        def end(status: str) -> None:
            with ending:
                store.set_meta("active_seconds", str(deps.active_seconds()))
                store.set_meta(ERROR, _FAILED if status == "failed" else "")
                store.set_meta("status", status)

        deps.close = partial(end, "finished")
        # The server may wait for days: meanwhile the session belongs to nobody, and its model needs no memory.
        deps.pause = partial(end, WAITING)
        self._open[thread_id] = _Opened(deps, end, loop, context)


async def _closed(closing: futures.Future[None]) -> None:
    """Wait until a session is closed, which goes on if the wait is cancelled."""
    await asyncio.shield(asyncio.wrap_future(closing))


def _close_model(opened: _Opened) -> None:
    """Close the model in its event loop, from a thread; a loop that has stopped does it when it runs again."""
    closing = opened.deps.model.aclose()
    try:
        closed = asyncio.run_coroutine_threadsafe(closing, opened.loop)
    except RuntimeError:  # the loop has ended, and the connections with it
        closing.close()
        return
    while opened.loop.is_running() and not futures.wait([closed], _POLL_SECONDS).done:
        pass


def _way_out(context: Context) -> str:
    """Return what a client can do about a configuration that is not the session's."""
    if not _gives_anything(context):
        return "The operator of this server changed that; use another thread"
    return "Leave the context out to go on with what is stored, or use another thread"


def _gives_anything(context: Context) -> bool:
    return context.config is not None or (isinstance(context, ServedContext) and context.real is not None)


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
