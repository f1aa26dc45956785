"""The one place that picks implementations and opens handles: store, data, encoder, vectors, endpoint, model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from synalign_agent import observation
from synalign_agent.config import SessionConfig
from synalign_agent.core.align import label_quotas
from synalign_agent.data.measure import label_prior, session_kernel
from synalign_agent.data.reader import read_rows
from synalign_agent.data.real import RealData
from synalign_agent.data.split import split_rows, split_warnings
from synalign_agent.deps import Deps
from synalign_agent.embedding.base import Encoder
from synalign_agent.embedding.cache import CachedEncoder
from synalign_agent.embedding.encoder import SentenceEncoder
from synalign_agent.errors import ConfigError, SessionError
from synalign_agent.gates.copy_check import WordRuns
from synalign_agent.gates.debris import begins_with_debris
from synalign_agent.gates.length import length_limits
from synalign_agent.llm.budget import Budget
from synalign_agent.llm.client import JournaledModel
from synalign_agent.llm.profiles import resolve_profile
from synalign_agent.llm.providers import check_setup as check_setup
from synalign_agent.llm.providers import model_name, open_endpoint
from synalign_agent.prompting.catalog import PromptCatalog
from synalign_agent.stores import folder as session_folder
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.copies import copied_rows as copied_rows
from synalign_agent.stores.folder import DATABASE as DATABASE
from synalign_agent.stores.folder import check_thread_id as check_thread_id
from synalign_agent.stores.folder import configured_storage as configured_storage
from synalign_agent.stores.folder import default_thread_id as default_thread_id
from synalign_agent.stores.folder import existing_session as existing_session
from synalign_agent.stores.folder import is_locked as is_locked
from synalign_agent.stores.folder import lock_session as lock_session
from synalign_agent.stores.folder import removed_on_error as removed_on_error
from synalign_agent.stores.folder import session_exists as session_exists
from synalign_agent.stores.vectors import VectorStore

Notify = Callable[[str], None]
"""Called with what is being prepared, in words."""

_PRICES = ("llm.prices.prompt_usd_per_million_tokens", "llm.prices.completion_usd_per_million_tokens")
_ENCODER = "encoder"  # the key of the `model_id` that the session was made with
FIXED = ("data.", "seed:", "encoder.")
"""How the lines of `changes_since` begin that no session may have."""


@dataclass(frozen=True)
class SessionData:
    """What a session holds, without a model: enough to export and report."""

    real: RealData
    real_vectors: VectorStore
    pool_vectors: VectorStore


def resolve(config: SessionConfig) -> SessionConfig:
    """Return the configuration with the defaults of its model filled in.

    Raises:
        ConfigError: there is a limit in USD, and no price to count by.
    """
    config = resolve_profile(config, model_name(config.llm))
    if config.llm.provider == "embedded" and not config.llm.prices.known:
        config = config.with_overrides(dict.fromkeys(_PRICES, 0.0))
    if config.limits.max_usd is not None and not config.llm.prices.known:
        raise ConfigError(
            f"limits.max_usd: the prices of this endpoint are not known, so that nothing would ever count; set {_PRICES[0]} and "
            f"{_PRICES[1]} (0 for an endpoint that is free), or limits.max_tokens instead"
        )
    return config


def open_store(folder: Path, config: SessionConfig | None = None) -> SessionStore:
    """Open, or make, the session's database; without a configuration, where the session's config.yaml says it is."""
    return session_folder.open_store(folder, None if config is None else config.storage)


def open_checkpointer(folder: Path, config: SessionConfig) -> AbstractAsyncContextManager[Any]:
    """Open the session's checkpointer; it prunes itself."""
    return session_folder.open_checkpointer(folder, config.storage)


def make_encoder(config: SessionConfig, like: str | None = None) -> Encoder:
    """Return the configured encoder behind the user's embedding cache; see `SentenceEncoder` for `like`."""
    return CachedEncoder(SentenceEncoder(config.encoder, like))


def session_encoder(folder: Path, store: SessionStore, config: SessionConfig) -> Encoder:
    """Return the encoder of a session: always the weights and the precision that it was made with.

    Raises:
        SessionError: the weights are others now, so that distances to earlier rounds would mean nothing.
    """
    made_with = store.meta(_ENCODER)
    encoder = make_encoder(config, made_with)
    if made_with is None:
        store.set_meta(_ENCODER, encoder.model_id)
    elif encoder.model_id != made_with:
        raise SessionError(
            f"session {folder.name} was made with the encoder {made_with}, which encoder.model no longer names: it is "
            f"{encoder.model_id} now. Put the former model back, or begin another session"
        )
    return encoder


def ingest(store: SessionStore, config: SessionConfig) -> None:
    """Read the real rows into a new session; does nothing for a session that has them."""
    if store.meta("ingested"):
        return
    raw = read_rows(config.data)
    rows = split_rows(
        raw.texts,
        raw.labels,
        holdout_fraction=config.data.holdout_fraction,
        min_holdout_rows=config.data.min_holdout_rows,
        seed=config.seed,
    )
    store.add_real(rows)
    store.set_meta("warnings", "\n".join([*raw.warnings, *split_warnings(rows)]))
    store.set_meta("ingested", "1")


def keep_config(folder: Path, store: SessionStore, config: SessionConfig, thread_id: str | None = None) -> None:
    """Keep the resolved configuration, its fingerprint and the prompts' hashes; `config.yaml` is for people to read and edit.

    Args:
        folder: the session's folder.
        store: its store.
        config: what is kept.
        thread_id: the session's name, if its folder does not bear it yet.
    """
    text = config.to_yaml()
    store.set_meta("config", text)
    store.set_meta("config_fingerprint", config.fingerprint())
    store.set_meta("prompts", prompt_hashes(config))
    header = f"# Session {thread_id or folder.name}, configuration fingerprint {config.fingerprint()}\n"
    with session_folder.explained_errors(folder):
        (folder / "config.yaml").write_text(header + text, encoding="utf-8")


def prepare(
    folder: Path, store: SessionStore, config: SessionConfig, *, accept_changes: bool, way_out: str | None = None
) -> list[str]:
    """Make a session's database ready for `config`, new or not, and return what differs from its last configuration.

    Args:
        folder: the session's folder.
        store: its store.
        config: resolved configuration.
        accept_changes: go on although it differs.
        way_out: see `refuse_changes`.

    Raises:
        InputError: the real rows cannot be used.
        SessionError: the configuration differs and may not.
    """
    changes = changes_since(store, config)
    refuse_changes(folder, store, changes, accept=accept_changes, way_out=way_out)
    ingest(store, config)
    keep_config(folder, store, config)
    return changes


def stored_config(store: SessionStore) -> SessionConfig | None:
    """Return the configuration that the session was last opened with; None for one that was never started."""
    stored = store.meta("config")
    return None if stored is None else SessionConfig.parse_stored(yaml.safe_load(stored))


def changes_since(store: SessionStore, config: SessionConfig) -> list[str]:
    """List how `config` and its prompts differ from what the session was made with; empty for a session without either."""
    stored = stored_config(store)
    if stored is None:
        return []
    changes = stored.changes(config)
    before = json.loads(store.meta("prompts") or "{}")
    # A version that renders the same as before where nothing new is given is no change.
    same = {
        name: {template.sha256, *template.continues}
        for name, template in PromptCatalog.load(config.prompts_dir).templates.items()
    }
    return changes + [
        f"prompt {name}: the file was edited" for name in sorted(same) if before.get(name) not in same[name]
    ]


def refuse_changes(
    folder: Path, store: SessionStore, changes: Sequence[str], *, accept: bool, way_out: str | None = None
) -> None:
    """Refuse to go on with another configuration unless told to.

    Args:
        folder: the session's folder.
        store: its store.
        changes: what differs.
        accept: go on with what may change.
        way_out: what the message tells callers to do who have neither the command line nor Python.

    Raises:
        SessionError: not told to, or the rows, their split or their vectors would change, or the session is running.
    """
    if not changes:
        return
    listed = "\n  ".join(changes)
    if any(change.startswith(FIXED) for change in changes):
        raise SessionError(
            f"session {folder.name} was made with other data, seed or encoder, which cannot change in a session:\n  {listed}\n"
            f"{way_out or 'Choose another --thread-id'}"
        )
    if not accept:
        flags = "Continue with the new one by --accept-changes (in Python: accept_changes=True), or choose another --thread-id"
        raise SessionError(
            f"session {folder.name} was made with another configuration:\n  {listed}\n{way_out or flags}"
        )
    if is_locked(folder, store):
        raise SessionError(f"session {folder.name} is running; stop it before changing it")


def load_data(folder: Path, store: SessionStore, encoder: Encoder, notify: Notify) -> SessionData:
    """Return the session's rows with their vectors; what `vectors/` lacks is embedded again."""
    rows, samples = store.real_rows(), store.samples()
    real_vectors = _vectors(
        folder / "vectors" / "real", encoder, [row.id for row in rows], [row.text for row in rows],
        lambda done, total: notify(f"Embedding real rows: {done:,} of {total:,}"),
    )  # fmt: skip
    pool_vectors = _vectors(
        folder / "vectors" / "pool", encoder, [sample.id for sample in samples], [sample.text for sample in samples],
        lambda done, total: notify(f"Embedding the pool: {done:,} of {total:,}"), dimension=real_vectors.dimension,
    )  # fmt: skip
    # The store's own matrix, which holds the rows in this order: a copy of a million rows would be 1.5 GB.
    return SessionData(RealData(rows, real_vectors.matrix), real_vectors, pool_vectors)


def open_deps(
    thread_id: str,
    folder: Path,
    config: SessionConfig,
    store: SessionStore,
    stack: ExitStack,
    notify: Notify,
    active_seconds: Callable[[], float],
) -> Deps:
    """Open everything that the nodes need; `stack` ends what was started.

    Args:
        thread_id: the session's id.
        folder: its folder.
        config: resolved configuration.
        store: its open store, with the real rows ingested.
        stack: takes over the endpoint.
        notify: told what is being prepared.
        active_seconds: the session's running time.
    """
    check_setup(config.llm)  # before the encoder, which takes seconds to load
    prompts = PromptCatalog.load(config.prompts_dir)
    observers = observation.open_observers(thread_id, config, n_rounds=len(store.rounds()))
    notify("Loading the sentence encoder")
    encoder = observation.traced(session_encoder(folder, store, config), observers.spans)
    data = load_data(folder, store, encoder, notify)
    real = data.real
    prior = label_prior(config, real)
    quotas = label_quotas(dict(zip(real.labels, prior.tolist(), strict=True)), config.n_samples)
    notify("Starting the model")
    endpoint = stack.enter_context(open_endpoint(config.llm))
    texts = [row.text for row in real.rows]
    shown = [row.text for row in real.rows if row.split == "reference"]  # the prompts tell the model how long texts are
    observation.follow(observers, stack, folder, store, config, prompts, real)
    return Deps(
        thread_id=thread_id,
        folder=folder,
        config=config,
        store=store,
        model=JournaledModel(
            endpoint, config.llm, store, Budget(config.limits, store.call_totals()), config.seed, observers.spans
        ),
        encoder=encoder,
        prompts=prompts,
        real=real,
        real_vectors=data.real_vectors,
        pool_vectors=data.pool_vectors,
        limits=length_limits(shown, config.gates.length),
        debris_is_usual=any(map(begins_with_debris, shown)),
        word_runs=WordRuns(texts, config.gates.copy_check.max_shared_words),
        kernel=session_kernel(config, real),
        prior=prior,
        quotas=np.array([quotas[label] for label in real.labels], dtype=np.int64),
        active_seconds=active_seconds,
        observers=observers,
    )


def prompt_hashes(config: SessionConfig) -> str:
    """Return the hashes of the session's prompts as canonical JSON."""
    templates = PromptCatalog.load(config.prompts_dir).templates
    return json.dumps({name: template.sha256 for name, template in templates.items()}, sort_keys=True)


def _vectors(
    path: Path,
    encoder: Encoder,
    ids: Sequence[str],
    texts: Sequence[str],
    progress: Callable[[int, int], None],
    dimension: int | None = None,
) -> VectorStore:
    saved = VectorStore.load(path, model_id=encoder.model_id)
    n_saved = len(saved) if saved is not None and list(ids[: len(saved)]) == saved.ids else 0
    if saved is not None and n_saved == len(ids) and n_saved > 0:
        return saved
    fresh = encoder.encode(texts[n_saved:], progress) if len(texts) > n_saved else None
    if saved is None or n_saved == 0:
        if fresh is None and dimension is None:
            raise ConfigError("the session has no real rows")
        saved = VectorStore(encoder.model_id, dimension if fresh is None else fresh.shape[1])  # type: ignore[arg-type]
    if fresh is not None:
        saved.add(ids[n_saved:], fresh)
    saved.save(path)
    return saved
