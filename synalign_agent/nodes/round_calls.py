"""The calls of a round: in which order they count, what is embedded together, and how many are under way."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from synalign_agent.deps import Deps
from synalign_agent.records import CallRecord

GENERATE = "generate"
"""The journal's name for these calls."""
_BLOCK_CALLS = 32
_BATCH_CALLS = 256


@dataclass(frozen=True)
class RoundCalls:
    """By cluster, then by draw; cut into batches of whole clusters, and those into blocks.

    A batch is what the screening holds at a time, a block what is embedded together.
    """

    label_of: dict[str, str]
    place_of: dict[str, int]
    n_draws: int
    under_way: asyncio.Semaphore
    """Calls that have begun: more than may be in flight, so that the next ones stand ready, and no more than that."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the task whose calls begin: first come, first served, in the order of the fan-out."""
    keys: dict[int, list[str]] = field(default_factory=dict)
    """Block -> keys of the finished calls, filled while the calls are made."""
    guidance: dict[str, list[str]] = field(default_factory=dict)
    """Label -> why people rejected its texts, for those that were asked for."""

    @classmethod
    def of(cls, deps: Deps, round: int) -> RoundCalls:
        """Return the order of a round."""
        clusters = deps.store.clusters(round)
        return cls(
            {cluster.id: cluster.label for cluster in clusters},
            {cluster.id: place for place, cluster in enumerate(clusters)},
            deps.config.generate.calls_per_cluster or 1,
            asyncio.Semaphore(2 * (deps.config.llm.concurrency or 1)),
        )

    @property
    def clusters_per_batch(self) -> int:
        """Return how many clusters share a batch; a batch holds all calls of each."""
        return math.ceil(_BATCH_CALLS / self.n_draws)

    def batches(self) -> Iterator[list[str]]:
        """Yield the ids of the clusters of each batch."""
        ids, size = list(self.place_of), self.clusters_per_batch
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    def position(self, cluster_id: str, draw: int) -> int:
        """Return the place of a call in the round."""
        # Draws beyond the last one are from before the configuration was changed.
        return self.place_of[cluster_id] * self.n_draws + min(draw, self.n_draws - 1)

    def block(self, cluster_id: str, draw: int) -> int:
        """Return the block of a call."""
        n_calls = self.clusters_per_batch * self.n_draws
        batch, place = divmod(self.position(cluster_id, draw), n_calls)
        return batch * math.ceil(n_calls / _BLOCK_CALLS) + place // _BLOCK_CALLS

    def note(self, block: int, call: CallRecord) -> None:
        """Keep the key of a finished call."""
        if call.state == "done" and call.key not in (keys := self.keys.setdefault(block, [])):
            keys.append(call.key)

    def sorted(self, calls: Iterable[CallRecord]) -> list[CallRecord]:
        """Return calls in the order of the round; several records of one call stay as they were."""
        return sorted(calls, key=lambda call: self.position(call.cluster_id, call.draw))
