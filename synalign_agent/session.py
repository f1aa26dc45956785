"""A session: one folder, one thread of the graph, opened by one process at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from synalign_agent import wiring
from synalign_agent.config import SessionConfig
from synalign_agent.errors import InputError, SessionError
from synalign_agent.event_loop import run_without_loop
from synalign_agent.fork import fork_session
from synalign_agent.graph_thread import GraphThread, resuming
from synalign_agent.records import Decision
from synalign_agent.report.commands import resume_command
from synalign_agent.report.summary import summarize
from synalign_agent.report.write import write_outputs
from synalign_agent.review import PendingReview, unsettled
from synalign_agent.stores.base import SessionStore

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
        self._thread = GraphThread(folder, config, store)

    @property
    def thread_id(self) -> str:
        """The session's name, and the name of its folder."""
        return self.folder.name

    @classmethod
    def create(cls, config: SessionConfig, *, thread_id: str | None = None, accept_changes: bool = False) -> Session:
        """Make a session, or open the one with this id if its configuration is the same, or if no run has made anything in it.

        Args:
            config: what to do.
            thread_id: name of the session and its folder; by default the data's name and the time.
            accept_changes: continue an existing session although its configuration differs.

        Raises:
            InputError: the real rows cannot be used, or a new session's model lacks its key or its file.
            SessionError: the session exists with another configuration (the differences are listed).
        """
        config = wiring.resolve(config)
        thread_id = thread_id or wiring.default_thread_id(config.data.path)
        wiring.check_thread_id(thread_id)
        folder = Path(config.runs_dir) / thread_id
        if not wiring.session_exists(folder):
            wiring.check_setup(config.llm)
        with wiring.removed_on_error(folder):
            return cls._prepared(folder, config, accept_changes)

    @classmethod
    def open(cls, thread_id: str, *, runs_dir: str | Path = "runs", accept_changes: bool = False) -> Session:
        """Open an existing session with the configuration in its folder.

        Raises:
            SessionError: there is no such session, or its config.yaml was changed (the differences are listed).
        """
        folder = wiring.existing_session(thread_id, runs_dir)
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
        folder = wiring.existing_session(thread_id, runs_dir)
        store = wiring.open_store(folder)
        config = wiring.stored_config(store)
        if config is None:
            store.close()
            raise SessionError(f"{folder}: {_NEVER_STARTED}")
        # The server may have moved since the session was last opened.
        url = wiring.configured_storage(folder).url
        return cls(folder, config.with_overrides({"storage.url": url}), store, resumed=True)

    @classmethod
    def _prepared(cls, folder: Path, config: SessionConfig, accept_changes: bool) -> Session:
        store = wiring.open_store(folder, config)
        try:
            resumed = store.meta("config") is not None
            # Nothing can be at odds with another configuration that was made by none: a first try that failed burns no name.
            accept_changes = accept_changes or not _has_begun(store)
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
        return run_without_loop("run", self.arun(notify=notify))

    async def arun(
        self, *, notify: Callable[[str], None] | None = None, handle_signals: bool = False
    ) -> dict[str, Any]:
        """Do what `run` does, inside a running event loop; with `handle_signals`, SIGINT and SIGTERM stop it cleanly."""
        with ExitStack() as stack:
            wiring.lock_session(self.folder, stack, self.store)
            await self._thread.run(stack, notify or _ignore, handle_signals=handle_signals)
        return self.summary()

    def review(self) -> PendingReview | None:
        """Return what waits for a person, with the decisions that were kept so far, or None."""
        return run_without_loop("review", self.areview())

    async def areview(self) -> PendingReview | None:
        """Do what `review` does, inside a running event loop."""
        return await self._thread.pending()

    def keep(self, decisions: Sequence[Decision]) -> PendingReview:
        """Keep decisions (see `review.decide`) about items that wait, and return the review; the run goes on with `answer`.

        Raises:
            InputError: an item does not wait for review (any more).
            SessionError: another process runs this session, so that somebody has answered.
        """
        return run_without_loop("keep", self.akeep(decisions))

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
        return run_without_loop("answer", self.aanswer(decisions, notify=notify))

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
            await self._thread.run(stack, notify or _ignore, handle_signals=handle_signals, resume=resuming(pending))
        return self.summary()

    def stop(self) -> None:
        """Ask a running session to stop: calls in flight finish and are kept, nothing more is sent."""
        self._thread.stop()

    def summary(self) -> dict[str, Any]:
        """Return the session's numbers so far."""
        return summarize(self.folder, self.store, status=self.status())

    def status(self) -> str:
        """Return `new`, `running`, `interrupted`, `failed`, `waiting_for_review` or `finished`."""
        stored = self.store.meta("status") or "new"
        if stored == "running" and not self._thread.runs and not wiring.is_locked(self.folder, self.store):
            return "interrupted"  # its process was killed
        return stored

    def export(self) -> dict[str, Any]:
        """Write dataset and report from what there is now, without calling the model, and return the summary.

        Raises:
            InputError: no round is finished, so that no rows were chosen.
        """
        if not self.store.rounds():
            raise InputError(
                f"session {self.thread_id} has no finished round yet (its status is {self.status()}), so there is nothing to "
                f"export; go on with `{resume_command(self.folder)}`"
            )
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

    async def _keep_locked(self, decisions: Sequence[Decision]) -> PendingReview:
        pending = await self.areview()
        if pending is None:
            raise InputError(f"session {self.thread_id} does not wait for a review")
        for decision in decisions:
            pending.item(decision.item_id)
        self.store.add_decisions(list(decisions))
        return pending.refreshed(self.store)


def _has_begun(store: SessionStore) -> bool:
    """Tell whether a run has made anything that lasts: demonstrations, calls or rounds."""
    totals = store.call_totals()
    return bool(totals.done or totals.n_attempts or store.rounds() or store.clusters())


def _ignore(stage: str) -> None:
    """Tell nobody what is being done."""
