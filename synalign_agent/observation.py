"""Picks a session's observers, and tells them when it begins and ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from synalign_agent.config import SessionConfig
from synalign_agent.data.real import RealData
from synalign_agent.embedding.base import Encoder
from synalign_agent.embedding.traced import TracedEncoder
from synalign_agent.errors import MissingExtraError
from synalign_agent.observe.events import DataVersion, PromptVersion, SessionEnd, SessionStart
from synalign_agent.observe.observers import Observers, load_observer
from synalign_agent.observe.spans import Spans
from synalign_agent.prompting.catalog import PromptCatalog
from synalign_agent.records import content_id
from synalign_agent.report.summary import summarize
from synalign_agent.stores.base import SessionStore

_WARNINGS = "warnings"
_log = logging.getLogger(__name__)


def open_observers(thread_id: str, config: SessionConfig, *, n_rounds: int = 0) -> Observers:
    """Return the observers that the configuration names; what it does not name is not imported.

    Args:
        thread_id: the session's id.
        config: its configuration.
        n_rounds: rounds that it has finished.

    Raises:
        ConfigError: a callback cannot be loaded.
        MissingExtraError: traces or MLflow are asked for, and their extra is not installed.
    """
    wanted = config.observability
    spans: Spans | None = None
    observers: list[tuple[str, Any]] = []
    if wanted.otlp.endpoint is not None:
        try:
            from synalign_agent.observe.otel import open_spans
        except ImportError as error:
            raise _missing("otel", "observability.otlp.endpoint", error) from None
        spans = open_spans(thread_id, wanted.otlp, priced=config.llm.prices.known)
    if wanted.mlflow.tracking_uri is not None:
        try:
            from synalign_agent.observe.mlflow_run import MLflowRun
        except ImportError as error:
            raise _missing("mlflow", "observability.mlflow.tracking_uri", error) from None
        observers.append(("mlflow", MLflowRun(wanted.mlflow)))
    observers += [(path, load_observer(path)) for path in wanted.callbacks]
    return Observers(thread_id, observers, spans, n_rounds=n_rounds)


def traced(encoder: Encoder, spans: Spans) -> Encoder:
    """Return the encoder with a span for each batch, if anybody traces."""
    return TracedEncoder(encoder, spans) if spans.recorded else encoder


def follow(
    observers: Observers,
    stack: ExitStack,
    folder: Path,
    store: SessionStore,
    config: SessionConfig,
    prompts: PromptCatalog,
    real: RealData,
) -> None:
    """Tell the observers that the session has begun, and when `stack` ends, that it has ended."""
    if observers.nobody:
        return
    stack.callback(partial(_tell_end, observers, folder, store))
    session = SessionStart(
        thread_id=folder.name,
        folder=folder,
        n_rounds=len(store.rounds()),
        config=config,
        config_fingerprint=config.fingerprint(),
        data=DataVersion(
            source=config.data.path,
            digest=content_id(*(f"{row.id} {row.split}" for row in real.rows)),
            n_reference=int((~real.held_out).sum()),
            n_holdout=int(real.held_out.sum()),
            labels=tuple(real.labels),
        ),
        prompts=tuple(
            PromptVersion(name, template.version, template.sha256, template.body)
            for name, template in prompts.templates.items()
        ),
        kept=_Kept(store, folder.name),
    )
    observers.session_started(session)


def _tell_end(observers: Observers, folder: Path, store: SessionStore) -> None:
    try:
        status = store.meta("status") or "failed"
        summary = summarize(folder, store, status=status)
    except Exception as error:  # a database that is gone: what ended the run is what is raised, not this
        _log.warning("observers could not be told how session %s ended: %s", folder.name, type(error).__name__)
        return
    observers.session_ended(SessionEnd(folder.name, folder, status, summary["stop_reason"], summary))
    added = observers.warnings()
    if added:
        before = (store.meta(_WARNINGS) or "").splitlines()
        store.set_meta(_WARNINGS, "\n".join([*before, *(line for line in added if line not in before)]))


def _missing(extra: str, field: str, error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        f"{field} is set, which needs the extra {extra!r}: run `pip install 'synalign-agent[{extra}]'` ({error})"
    )


class _Kept(MutableMapping[str, str]):
    """Strings in the session's store, under its thread id: what a fork copies along is not found there."""

    def __init__(self, store: SessionStore, thread_id: str) -> None:
        self._store = store
        self._prefix = f"observers/{thread_id}/"

    def __getitem__(self, key: str) -> str:
        value = self._store.meta(self._prefix + key)
        if not value:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: str) -> None:
        self._store.set_meta(self._prefix + key, value)

    def __delitem__(self, key: str) -> None:
        self[key]
        self._store.set_meta(self._prefix + key, "")

    def __iter__(self) -> Iterator[str]:
        raise TypeError("the store does not list what is kept; ask for a key")

    def __len__(self) -> int:
        raise TypeError("the store does not count what is kept; ask for a key")
