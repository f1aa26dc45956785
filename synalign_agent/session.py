"""A session: one folder, one thread of the graph, opened by one process at a time."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.deps import Deps
from synalign_agent.errors import InputError, InterruptedByUser, SessionError
from synalign_agent.fork import fork_session
from synalign_agent.graph import build_graph
from synalign_agent.records import Decision
from synalign_agent.report.summary import summarize
from synalign_agent.report.write import write_outputs
from synalign_agent.review import PendingReview, read_pending, unsettled
from synalign_agent.state import WAITING, Context
from synalign_agent.stores.base import SessionStore

Result = TypeVar("Result")
_RECURSION_LIMIT = 100_000
_SETTLE_SECONDS = 10.0
_KEEP_ATTEMPTS = 25
_KEEP_PAUSE_SECONDS = 0.2
_NEVER_STARTED = "the session was never started; give `synalign run` this thread id again"


class Session:
    """Create, run, resume and inspect one synthesis.

    A session is its folder: copy it to another machine and resume it there. Use it as a context manager, or call `close`.
    """

    def __init__(self, folder: Path, config: SessionConfig, store: SessionStore, *, resumed: bool) -> None:
        self.folder = folder
        self.config = config
        """Resolved: nothing is left to a model's profile."""
        self.store = store
        self.resumed = resumed
        """Whether the session existed before it was opened."""
        self._deps: Deps | None = None
        self._stop_requested = False
        self._active_seconds: Callable[[], float] = float

    @property
    def thread_id(self) -> str:
        """The session's name, and the name of its folder."""
        return self.folder.name

    @classmethod
    def create(cls, config: SessionConfig, *, thread_id: str | None = None, accept_changes: bool = False) -> Session:
        """Make a session, or open the one with this id if its configuration is the same.

        Args:
            config: what to do.
            thread_id: name of the session and its folder; by default the data's name and the time.
            accept_changes: continue an existing session although its configuration differs.

        Raises:
            InputError: the real rows cannot be used.
            SessionError: the session exists with another configuration (the differences are listed).
        """
        config = wiring.resolve(config)
        thread_id = thread_id or _default_thread_id(config)
        wiring.check_thread_id(thread_id)
        folder = Path(config.runs_dir) / thread_id
        with _removed_on_error(folder):
            return cls._prepared(folder, config, accept_changes)

    @classmethod
    def open(cls, thread_id: str, *, runs_dir: str | Path = "runs", accept_changes: bool = False) -> Session:
        """Open an existing session with the configuration in its folder.

        Raises:
            SessionError: there is no such session, or its config.yaml was changed (the differences are listed).
        """
        folder = _existing(thread_id, runs_dir)
        if not (folder / "config.yaml").exists():
            raise SessionError(f"{folder}: {_NEVER_STARTED}")
        config = SessionConfig.load(folder / "config.yaml", resolve_paths=False)
        # The folder may have moved since the file was written.
        return cls._prepared(folder, config.model_copy(update={"runs_dir": str(folder.parent)}), accept_changes)

    @classmethod
    def view(cls, thread_id: str, *, runs_dir: str | Path = "runs") -> Session:
        """Open an existing session to look at it or export it, while it runs or afterwards; its configuration stays as it is.

        Raises:
            SessionError: there is no such session.
        """
        folder = _existing(thread_id, runs_dir)
        store = wiring.open_store(folder)
        stored = store.meta("config")
        if stored is None:
            store.close()
            raise SessionError(f"{folder}: {_NEVER_STARTED}")
        return cls(
            folder, SessionConfig.parse(yaml.safe_load(stored), source="stored configuration"), store, resumed=True
        )

    @classmethod
    def _prepared(cls, folder: Path, config: SessionConfig, accept_changes: bool) -> Session:
        store = wiring.open_store(folder, config)
        try:
            resumed = store.meta("config") is not None
            if wiring.prepare(folder, store, config, accept_changes=accept_changes):
                store.set_meta("reopened_with_changes", "1")
        except BaseException:
            store.close()
            raise
        return cls(folder, config, store, resumed=resumed)

    def run(self, *, notify: Callable[[str], None] | None = None) -> dict[str, Any]:
        """Run, or continue, to the end or to a review, and return the session's numbers (see `report/summary.py`).

        Raises:
            EndpointError: the endpoint cannot be used; resumable.
            SessionError: another process runs this session.
        """
        return _without_loop("run", self.arun(notify=notify))

    async def arun(
        self, *, notify: Callable[[str], None] | None = None, handle_signals: bool = False
    ) -> dict[str, Any]:
        """Do what `run` does, inside a running event loop; with `handle_signals`, SIGINT and SIGTERM stop it cleanly."""
        with ExitStack() as stack:
            wiring.lock_session(self.folder, stack, self.store)
            await self._run_locked(stack, notify or (lambda stage: None), handle_signals)
        return self.summary()

    def review(self) -> PendingReview | None:
        """Return what waits for a person, with the decisions that were kept so far, or None."""
        return _without_loop("review", self.areview())

    async def areview(self) -> PendingReview | None:
        """Do what `review` does, inside a running event loop."""
        async with self._graph() as (graph, config, _):
            state = await graph.aget_state(config)
        return self._pending(state) if state.interrupts else None

    def keep(self, decisions: Sequence[Decision]) -> PendingReview:
        """Keep decisions (see `review.decide`) about items that wait, and return the review; the run goes on with `answer`.

        Raises:
            InputError: an item does not wait for review (any more).
            SessionError: another process runs this session, so that somebody has answered.
        """
        return _without_loop("keep", self.akeep(decisions))

    async def akeep(self, decisions: Sequence[Decision]) -> PendingReview:
        """Do what `keep` does, inside a running event loop."""
        with ExitStack() as stack:
            # Another reviewer holds the lock for a moment only, unless the answer is being put into effect.
            for left in reversed(range(_KEEP_ATTEMPTS)):
                try:
                    wiring.lock_session(self.folder, stack, self.store)
                    break
                except SessionError:
                    if left == 0:
                        raise
                    await asyncio.sleep(_KEEP_PAUSE_SECONDS)
            return await self._keep_locked(decisions)

    def answer(
        self, decisions: Sequence[Decision] = (), *, notify: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """Keep decisions, and go on with those in force: to the next review, or to the end; return the session's numbers.

        Raises:
            InputError: nothing waits for review, or an item has no decision (they are listed); what was decided is kept.
            SessionError: another process runs this session.
        """
        return _without_loop("answer", self.aanswer(decisions, notify=notify))

    async def aanswer(
        self,
        decisions: Sequence[Decision] = (),
        *,
        notify: Callable[[str], None] | None = None,
        handle_signals: bool = False,
    ) -> dict[str, Any]:
        """Do what `answer` does, inside a running event loop."""
        with ExitStack() as stack:
            wiring.lock_session(self.folder, stack, self.store)
            pending = await self._keep_locked(decisions)
            if pending.undecided:
                raise InputError(
                    f"{len(pending.undecided)} of {len(pending.items)} items need a decision:\n  {unsettled(pending.undecided)}"
                )
            await self._run_locked(stack, notify or (lambda stage: None), handle_signals, _resuming(pending))
        return self.summary()

    def stop(self) -> None:
        """Ask a running session to stop: calls in flight finish and are kept, nothing more is sent."""
        self._stop_requested = True
        if self._deps is not None:
            self._deps.model.halt(InterruptedByUser("stopped on request"))

    def summary(self) -> dict[str, Any]:
        """Return the session's numbers so far."""
        return summarize(self.folder, self.store, status=self.status())

    def status(self) -> str:
        """Return `new`, `running`, `interrupted`, `failed`, `waiting_for_review` or `finished`."""
        stored = self.store.meta("status") or "new"
        if stored == "running" and self._deps is None and not wiring.is_locked(self.folder, self.store):
            return "interrupted"  # its process was killed
        return stored

    def export(self) -> dict[str, Any]:
        """Write dataset and report from what there is now, without calling the model, and return the summary."""
        encoder = wiring.session_encoder(self.folder, self.store, self.config)
        data = wiring.load_data(self.folder, self.store, encoder, lambda stage: None)
        write_outputs(
            self.folder, self.store, self.config, data.real, data.real_vectors, data.pool_vectors, status=self.status()
        )
        return self.summary()

    def fork(
        self,
        *,
        from_round: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        thread_id: str | None = None,
    ) -> Session:
        """Make a session out of this one's rounds before `from_round` and its whole journal; see `fork.fork_session`."""
        folder = fork_session(self.folder, from_round=from_round, overrides=overrides or {}, thread_id=thread_id)
        return Session.open(folder.name, runs_dir=folder.parent)

    def dataset(self) -> Any:
        """Return the chosen rows as a pandas DataFrame."""
        import pandas as pd

        path = self.folder / "export" / "dataset.parquet"
        if not path.exists():
            raise SessionError(f"session {self.thread_id} has no dataset yet: call run() or export() first")
        return pd.read_parquet(path)

    def close(self) -> None:
        """Release the session's database."""
        self.store.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _run_locked(
        self,
        stack: ExitStack,
        notify: Callable[[str], None],
        handle_signals: bool,
        resume: Command[Any] | None = None,
    ) -> None:
        started, earlier_seconds = time.monotonic(), float(self.store.meta("active_seconds") or 0.0)
        self._active_seconds = lambda: earlier_seconds + time.monotonic() - started
        self.store.set_meta("status", "running")
        status = "failed"
        try:
            self.store.mark_lost_calls()
            waits = await self._run_graph(stack, notify, handle_signals, resume)
            status = WAITING if waits else "finished"
        except (InterruptedByUser, asyncio.CancelledError, KeyboardInterrupt):
            status = "interrupted"
            raise
        finally:
            self._deps = None
            self.store.set_meta("status", status)
            self.store.set_meta("active_seconds", str(self._active_seconds()))

    @asynccontextmanager
    async def _graph(self) -> AsyncIterator[tuple[Any, RunnableConfig, Any]]:
        """Open the checkpoints and yield the compiled graph, the configuration that names the thread, and the checkpointer."""
        async with wiring.open_checkpointer(self.folder, self.config) as saver:
            graph = build_graph(self._provide).compile(checkpointer=saver, name="synalign")
            config: RunnableConfig = {
                "configurable": {"thread_id": self.thread_id},
                "recursion_limit": _RECURSION_LIMIT,
            }
            yield graph, config, saver

    async def _run_graph(
        self, stack: ExitStack, notify: Callable[[str], None], handle_signals: bool, resume: Command[Any] | None
    ) -> bool:
        """Run to the end or to a review, and tell whether the session waits for one."""
        if handle_signals:
            _stop_on_signals(self, stack, notify)
        async with self._graph() as (graph, config, saver):
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
                resume = _resuming(pending)
            self._deps = await asyncio.to_thread(
                wiring.open_deps,
                self.thread_id,
                self.folder,
                self.config,
                self.store,
                stack,
                notify,
                self._active_seconds,
            )
            if self._stop_requested:
                self.stop()
            notify("Running")
            # None continues at the last checkpoint; an input starts another pass of the loop, from the state there is.
            start: Any = resume if unfinished else {"stop_reason": None}
            if not unfinished:
                self.store.set_meta("stop_reason", "")
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
            self.store.set_meta("reopened_with_changes", "")
            return bool((await graph.aget_state(config)).interrupts)

    async def _provide(self, thread_id: str, context: Context) -> Deps:
        assert self._deps is not None, "the graph runs only inside arun"
        return self._deps

    async def _keep_locked(self, decisions: Sequence[Decision]) -> PendingReview:
        pending = await self.areview()
        if pending is None:
            raise InputError(f"session {self.thread_id} does not wait for a review")
        for decision in decisions:
            pending.item(decision.item_id)
        self.store.add_decisions(list(decisions))
        return pending.refreshed(self.store)

    def _pending(self, state: StateSnapshot) -> PendingReview:
        [waiting] = state.interrupts
        return read_pending(waiting.id, waiting.value, self.store)

    def _may_continue(self) -> bool:
        """Tell whether a finished session has more to do: only if it was reopened with another configuration."""
        return bool(self.store.meta("reopened_with_changes"))


def _resuming(pending: PendingReview) -> Command[Any]:
    return Command(resume={pending.interrupt_id: pending.answer()})


def _without_loop(name: str, work: Coroutine[Any, Any, Result]) -> Result:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise SessionError(
        f"{name}() cannot be called where an event loop runs (a notebook, say): use `await session.a{name}()`"
    )


def _existing(thread_id: str, runs_dir: str | Path) -> Path:
    folder = Path(runs_dir) / thread_id
    if not wiring.session_exists(folder):
        known = sorted(path.name for path in Path(runs_dir).glob("*") if wiring.session_exists(path))
        there = f"there is: {', '.join(known[:10])}" if known else "there is none; `synalign run` makes one"
        raise SessionError(f"{folder}: no such session; in {runs_dir} {there}")
    return folder


def _default_thread_id(config: SessionConfig) -> str:
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(config.data.path.split(":")[-1]).stem).strip("-_") or "session"
    return f"{stem[:60]}-{datetime.now():%Y%m%d-%H%M%S}"


class _removed_on_error:
    """Take a new folder away again if making the session failed, so that the corrected command can be repeated."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._existed = self._folder.exists()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._existed:
            import shutil

            shutil.rmtree(self._folder, ignore_errors=True)


def _stop_on_signals(session: Session, stack: ExitStack, notify: Callable[[str], None]) -> None:
    """The first signal stops cleanly; a second one has its usual effect."""
    loop = asyncio.get_running_loop()

    def handle(number: signal.Signals) -> None:
        notify("Stopping: calls in flight are waited for, so that nothing is lost; press Ctrl-C again to drop them")
        session.stop()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle, number)
        stack.callback(loop.remove_signal_handler, number)
