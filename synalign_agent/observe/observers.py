"""All observers of a session as one: whoever fails is named and counted, and the run goes on."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from synalign_agent.errors import ConfigError
from synalign_agent.observe.events import AlignmentResult, RoundResult, SessionEnd, SessionStart
from synalign_agent.observe.place import Place, at
from synalign_agent.observe.spans import Spans

_log = logging.getLogger(__name__)
_MESSAGE_CHARACTERS = 200


class Observers:
    """Tells observers what happens in a session. Without any, and without spans, it does nothing."""

    def __init__(
        self,
        thread_id: str = "",
        observers: Sequence[tuple[str, Any]] = (),
        spans: Spans | None = None,
        *,
        n_rounds: int = 0,
    ) -> None:
        """Take observers with the names that warnings give them, for a session with `n_rounds` finished rounds."""
        self.spans = spans or Spans()
        self.failures: Counter[str] = Counter()
        """Name -> times that it failed."""
        self.round = n_rounds + 1
        """The round under way, for nodes that are not told."""
        self._thread_id = thread_id
        self._observers = list(observers)
        self._last_error: dict[str, str] = {}

    @property
    def nobody(self) -> bool:
        """Whether there is nobody to tell."""
        return not self._observers and not self.spans.recorded

    def session_started(self, session: SessionStart) -> None:
        """Tell that a session begins or goes on."""
        failed = self._tell("on_session_start", session)
        self._observers = [(name, observer) for name, observer in self._observers if name not in failed]

    def alignment_ended(self, result: AlignmentResult) -> None:
        """Tell that rows were chosen."""
        self._tell("on_alignment_end", result)

    def round_ended(self, result: RoundResult) -> None:
        """Tell that a round is kept."""
        tokens = None if result.prompt_tokens is None else result.prompt_tokens + (result.completion_tokens or 0)
        numbers = {"n_pool": result.n_pool, "mmd2": result.mmd2.aligned, "target": result.mmd2.target, "tokens": tokens}
        _log.info(
            "round %d done",
            result.round,
            extra={**numbers, "cost_usd": result.cost_usd, "stop_reason": result.stop_reason},
        )
        self._tell("on_round_end", result)

    def session_ended(self, session: SessionEnd) -> None:
        """Tell that the run is over, and send what is left to send."""
        self._tell("on_session_end", session)
        problem = self.spans.flush()
        if problem is not None:
            self._note("otlp", "export", problem)

    @contextmanager
    def node(self, name: str, round: int | None) -> Iterator[None]:
        """Mark what runs in the block as a node's; tasks that are not told their round have the last one that was."""
        self.round = round or self.round
        self.spans.mark_node({"synalign.round": self.round})
        with at(Place(self._thread_id, self.round, name)):
            started = time.monotonic()
            try:
                yield
            except BaseException as error:
                _log.debug("%s ended by %s", name, type(error).__name__)
                raise
            _log.info("%s done", name, extra={"seconds": time.monotonic() - started})

    def warnings(self) -> list[str]:
        """Return a line for each observer that failed."""
        return [
            f"observer {name} failed {count} time{'s' * (count > 1)}, the run was not affected: {self._last_error[name]}"
            for name, count in self.failures.items()
        ]

    def _tell(self, method: str, event: object) -> set[str]:
        failed = set()
        for name, observer in self._observers:
            told = getattr(observer, method, None)
            if told is None:
                continue
            try:
                told(event)
            except Exception as error:
                failed.add(name)
                self._note(name, method, f"{type(error).__name__}: {error}")
                _log.debug("observer %s", name, exc_info=error)
        return failed

    def _note(self, name: str, method: str, error: str) -> None:
        lines = error.splitlines() or [""]
        self.failures[name] += 1
        self._last_error[name] = f"{method}: {lines[0][:_MESSAGE_CHARACTERS]}"
        _log.warning("observer %s failed in %s: %s", name, method, lines[0][:_MESSAGE_CHARACTERS])


def load_observer(path: str) -> Any:
    """Return the observer that `package.module:name` names; a class, or a function, is called without arguments.

    Raises:
        ConfigError: there is no such thing, or it cannot be made.
    """
    module_name, _, name = path.partition(":")
    try:
        found: Any = import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
        return found() if callable(found) else found
    except Exception as error:
        raise ConfigError(
            f"observability.callbacks: {path}: {type(error).__name__}: {error}. The module must be installed, or in a folder on "
            "PYTHONPATH, and what it names must be an observer or make one when called without arguments"
        ) from error
