"""The live handles that the nodes work with. Opened when a process starts, never checkpointed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synalign_agent.config import SessionConfig
from synalign_agent.core.alignment import Rows
from synalign_agent.core.kernels import RBFMixture
from synalign_agent.data.real import RealData
from synalign_agent.embedding.ahead import EmbedAhead
from synalign_agent.embedding.base import Encoder
from synalign_agent.gates.copy_check import WordRuns
from synalign_agent.gates.length import LengthLimits
from synalign_agent.llm.base import LanguageModel
from synalign_agent.observe.observers import Observers
from synalign_agent.prompting.catalog import PromptCatalog
from synalign_agent.records import UNLABELLED
from synalign_agent.state import Context
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.reviews import pool
from synalign_agent.stores.vectors import VectorStore


@dataclass
class Deps:
    """Everything that a node may touch."""

    thread_id: str
    folder: Path
    config: SessionConfig
    """With the model's profile filled in."""
    store: SessionStore
    model: LanguageModel
    encoder: Encoder
    prompts: PromptCatalog
    real: RealData
    real_vectors: VectorStore
    """All real rows, in the order of `real.rows`."""
    pool_vectors: VectorStore
    """Accepted samples."""
    limits: LengthLimits
    debris_is_usual: bool
    """Whether real rows begin with what would be left of JSON in a synthetic one."""
    word_runs: WordRuns
    kernel: RBFMixture
    """The kernel of every MMD of the session."""
    prior: NDArray[np.float64]
    """Label shares of the result, in the order of `real.labels`."""
    quotas: NDArray[np.int64]
    """Samples wanted per label."""
    active_seconds: Callable[[], float]
    """Time that the session has run, over all of its openings."""
    ahead: EmbedAhead = field(default_factory=EmbedAhead)
    """Embeds replies while other calls are in flight."""
    observers: Observers = field(default_factory=Observers)
    """Told what happens; also opens spans."""
    close: Callable[[], None] = field(default=lambda: None)
    """Called after the last node; ends what was opened for a served session, nothing in a `Session`, which closes itself."""
    pause: Callable[[], None] = field(default=lambda: None)
    """Called when the run begins to wait for a person; like `close`, of a session that goes on later."""

    def rng(self, *stream: int) -> np.random.Generator:
        """Return a generator that depends on the session's seed and on what it is for, not on what ran before."""
        return np.random.default_rng([self.config.seed, *stream])

    def label_for_prompt(self, label: str) -> str | None:
        """Return the label, or None for data without labels."""
        return None if label == UNLABELLED and self.config.data.label_column is None else label

    def pool_rows(self, *, before_round: int | None = None) -> tuple[list[str], Rows]:
        """Return the ids and embedded rows of the pool, or of its part from earlier rounds, in the order of the store."""
        samples = pool(self.store, before_round=before_round)
        code_of = {label: code for code, label in enumerate(self.real.labels)}
        ids = [sample.id for sample in samples]
        codes = np.array([code_of[sample.label] for sample in samples], dtype=np.int64)
        return ids, Rows(self.pool_vectors.get(ids), codes)


DepsProvider = Callable[[str, Context], Awaitable[Deps]]
"""(thread_id, context) -> the open handles of that session."""
