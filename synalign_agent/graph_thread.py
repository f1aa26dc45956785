"""A session's thread of the graph: run to its end or to a review, stopped, and asked what it waits for."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.deps import Deps
from synalign_agent.errors import InterruptedByUser, SynAlignError
from synalign_agent.event_loop import to_its_end
from synalign_agent.graph import build_graph
from synalign_agent.report.summary import ERROR
from synalign_agent.review import PendingReview, read_pending
from synalign_agent.state import WAITING, Context
from synalign_agent.stores.base import SessionStore

_RECURSION_LIMIT = 100_000
_SETTLE_SECONDS = 10.0
_MOST_OF_AN_ERROR = 2000


class GraphThread:
    """The graph over one session's handles. Whoever runs it holds the session's lock."""

    def __init__(self, folder: Path, config: SessionConfig, store: SessionStore) -> None:
        self._folder = folder
        self._config = config
        self._store = store
        self._deps: Deps | None = None
        self._stop_requested = False
        self._active_seconds: Callable[[], float] = float

    @property
    def runs(self) -> bool:
        """Whether it has a model open."""
        return self._deps is not None

    async def run(
        self,
        stack: ExitStack,
        notify: Callable[[str], None],
        *,
        handle_signals: bool,
        resume: Command[Any] | None = None,
    ) -> None:
        """Run, or continue, to the end or to a review; keep the session's status, running time, and the error that ended the run.

        Args:
            stack: takes over what is opened for the run.
            notify: told what is being done, in words.
            handle_signals: SIGINT and SIGTERM stop it cleanly.
            resume: answers the review that it waits for; see `resuming`.
        """
        started, earlier_seconds = time.monotonic(), float(self._store.meta("active_seconds") or 0.0)
        self._active_seconds = lambda: earlier_seconds + time.monotonic() - started
        self._store.set_meta("status", "running")
        self._store.set_meta(ERROR, "")
        status, failure = "failed", ""
        try:
            self._store.mark_lost_calls()
            if handle_signals:
                self._stop_on_signals(stack, notify)
            waits = await self._run_graph(stack, notify, resume)
            status = WAITING if waits else "finished"
        except (InterruptedByUser, asyncio.CancelledError, KeyboardInterrupt):
            status = "interrupted"
            raise
        except Exception as error:
            failure = _in_words(error)
            raise
        finally:
            self._deps = None
            self._store.set_meta(ERROR, failure)
            self._store.set_meta("status", status)
            self._store.set_meta("active_seconds", str(self._active_seconds()))

    def stop(self) -> None:
        """Ask it to stop: calls in flight finish and are kept, nothing more is sent."""
        self._stop_requested = True
        if self._deps is not None:
            self._deps.model.halt(InterruptedByUser("stopped on request"))

    async def pending(self) -> PendingReview | None:
        """Return what waits for a person, with the decisions that were kept so far, or None."""
        async with self.opened() as (graph, config, _):
            state = await graph.aget_state(config)
        return self._pending(state) if state.interrupts else None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Any, RunnableConfig, Any]]:
        """Open the checkpoints and yield the compiled graph, the configuration that names the thread, and the checkpointer."""
        async with wiring.open_checkpointer(self._folder, self._config) as saver:
            graph = build_graph(self._provide).compile(checkpointer=saver, name="synalign")
            config: RunnableConfig = {
                "configurable": {"thread_id": self._folder.name},
                "recursion_limit": _RECURSION_LIMIT,
            }
            yield graph, config, saver

    async def _run_graph(self, stack: ExitStack, notify: Callable[[str], None], resume: Command[Any] | None) -> bool:
        """Run to the end or to a review, and tell whether the session waits for one."""
        async with self.opened() as (graph, config, saver):
            state = await graph.aget_state(config)
            # Not `state.next`, which leaves out tasks whose writes were saved when the process died, so that a step killed at
            # its very end looks like the end of the run.
            unfinished = bool(state.tasks)
            if state.values and not unfinished and not self._may_continue():
                return False
            if state.interrupts and resume is None and not self._may_continue():
                pending = self._pending(state)
                if pending.undecided:
                    return True  # no need to start a model
                # Everything was decided, and then the process died or the person left.
                resume = resuming(pending)
            self._deps = await to_its_end(
                wiring.open_deps,
                self._folder.name,
                self._folder,
                self._config,
                self._store,
                stack,
                notify,
                self._active_seconds,
            )
            # A full collection visits all that was imported: .2 s in which no reply is read. What is there now is left out of it.
            gc.freeze()
            stack.callback(gc.unfreeze)
            if self._stop_requested:
                self.stop()
            notify("Running")
            # None continues at the last checkpoint; an input starts another pass of the loop, from the state there is.
            start: Any = resume if unfinished else {"stop_reason": None}
            if not unfinished:
                self._store.set_meta("stop_reason", "")
            earlier_tasks = asyncio.all_tasks()
            try:
                await graph.ainvoke(start, config, context=Context(), durability="sync")
            except BaseException:
                # The task that failed has its siblings cancelled, some while they write a checkpoint. Left alone, their open
                # transaction outlives the connection, and the next opening in this process finds the database locked.
                cancelled = asyncio.all_tasks() - earlier_tasks
                if cancelled:
                    await asyncio.wait(cancelled, timeout=_SETTLE_SECONDS)
                await saver.conn.rollback()
                raise
            finally:
                await self._deps.model.aclose()
            self._store.set_meta("reopened_with_changes", "")
            return bool((await graph.aget_state(config)).interrupts)

    async def _provide(self, thread_id: str, context: Context) -> Deps:
        assert self._deps is not None, "the graph runs only inside `run`"
        return self._deps

    def _pending(self, state: StateSnapshot) -> PendingReview:
        [waiting] = state.interrupts
        return read_pending(waiting.id, waiting.value, self._store)

    def _may_continue(self) -> bool:
        """Tell whether a finished session has more to do: only if it was reopened with another configuration."""
        return bool(self._store.meta("reopened_with_changes"))

    def _stop_on_signals(self, stack: ExitStack, notify: Callable[[str], None]) -> None:
        """Stop cleanly at the first signal; a second one has its usual effect."""
        loop = asyncio.get_running_loop()

        def handle(number: signal.Signals) -> None:
            notify("Stopping: calls in flight are waited for, so that nothing is lost; press Ctrl-C again to drop them")
            self.stop()
            loop.remove_signal_handler(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, handle, number)
            stack.callback(loop.remove_signal_handler, number)


def _in_words(error: Exception) -> str:
    """Return what an error says; its kind too, if it is none of ours, which are sentences."""
    text = str(error) if isinstance(error, SynAlignError) else f"{type(error).__name__}: {error}"
    return text[:_MOST_OF_AN_ERROR].encode("utf-8", "replace").decode()


def resuming(answered: PendingReview) -> Command[Any]:
    """Return the command that goes on with a review whose items are all decided."""
    return Command(resume={answered.interrupt_id: answered.answer()})
