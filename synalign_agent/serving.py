"""Sessions opened by a LangGraph server: by thread id and context, one set of handles each, closed when the run is over."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.config_file import example_config
from synalign_agent.deps import Deps
from synalign_agent.state import WAITING, Context

RUNS_DIR_VARIABLE = "SYNALIGN_RUNS_DIR"


class ServedSessions:
    """The open sessions of this process."""

    def __init__(self) -> None:
        self._open: dict[str, Deps] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def provide(self, thread_id: str, context: Context) -> Deps:
        """Return the handles of a thread, opening its session on the first use."""
        async with self._locks.setdefault(thread_id, asyncio.Lock()):
            deps = self._open.get(thread_id)
            if deps is not None and deps.model.halted:
                # A run that stopped on a failing endpoint was started again: begin with a fresh connection.
                await asyncio.to_thread(deps.close)
                deps = None
            if deps is None:
                deps = await asyncio.to_thread(self._open_session, thread_id, context)
                self._open[thread_id] = deps
            return deps

    def _open_session(self, thread_id: str, context: Context) -> Deps:
        config = example_config() if context.config is None else SessionConfig.parse(context.config, source="context")
        config = wiring.resolve(config)
        folder = Path(os.environ.get(RUNS_DIR_VARIABLE) or config.runs_dir) / thread_id
        started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            store = wiring.open_store(folder, config)
            stack.callback(store.close)
            wiring.lock_session(folder, stack, store)
            earlier = float(store.meta("active_seconds") or 0.0)
            wiring.prepare(folder, store, config, accept_changes=False)
            store.mark_lost_calls()
            store.set_meta("status", "running")
            deps = wiring.open_deps(
                thread_id,
                folder,
                config,
                store,
                stack,
                lambda stage: None,
                lambda: earlier + time.monotonic() - started,
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
        return deps
