"""What a session store must do. Every implementation passes `tests/conformance`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from synalign_agent.records import (
    CallRecord,
    CallTotals,
    Choice,
    DemonstrationCluster,
    RealRow,
    Rejection,
    Sample,
    Split,
)


class SessionStore(Protocol):
    """Append-only and idempotent: writing a row again changes nothing, so a replayed node is harmless.

    Rows come back in the order in which they were first written. All methods may be called from any thread.
    """

    def meta(self, key: str) -> str | None:
        """Return a session fact, or None."""

    def set_meta(self, key: str, value: str) -> None:
        """Write a session fact, replacing an earlier one."""

    def add_real(self, rows: Sequence[RealRow]) -> None:
        """Keep real rows."""

    def real_rows(self, split: Split | None = None) -> list[RealRow]:
        """Return the real rows of one split, or all."""

    def add_clusters(self, clusters: Sequence[DemonstrationCluster]) -> None:
        """Keep demonstration clusters."""

    def clusters(self, round: int | None = None) -> list[DemonstrationCluster]:
        """Return the clusters of one round, or all."""

    def cluster(self, id: str) -> DemonstrationCluster:
        """Return one cluster. Raises KeyError for an unknown id."""

    def add_attributes(self, cluster_id: str, values: Mapping[str, str]) -> None:
        """Keep the attributes of a cluster; the first write wins."""

    def attributes_of(self, cluster_id: str) -> dict[str, str]:
        """Return the attributes of a cluster; empty if it has none."""

    def intend_call(self, call: CallRecord) -> None:
        """Write that an attempt is about to be sent (state `intended`)."""

    def finish_call(self, call: CallRecord) -> None:
        """Write the outcome of an intended attempt (state `done` or `failed`)."""

    def done_call(self, key: str) -> CallRecord | None:
        """Return the finished call with this key, if there is one."""

    def next_attempt(self, key: str) -> int:
        """Return the number of the next attempt of this call, from 1."""

    def mark_lost_calls(self) -> int:
        """Turn every `intended` attempt into `lost` and return how many; called when no other process can be running it."""

    def calls(self, *, round: int | None = None, node: str | None = None) -> list[CallRecord]:
        """Return attempts in the order in which they were intended."""

    def call_totals(self) -> CallTotals:
        """Sum up the journal."""

    def admit(self, samples: Sequence[Sample], rejections: Sequence[Rejection]) -> None:
        """Keep a round's accepted samples and rejections, all or none."""

    def samples(self, *, before_round: int | None = None) -> list[Sample]:
        """Return the pool, or the part of it from earlier rounds."""

    def count_samples(self) -> int:
        """Return the size of the pool."""

    def rejections(self, *, round: int | None = None) -> list[Rejection]:
        """Return the rejections of one round, or all."""

    def rejection_counts(self) -> dict[str, int]:
        """Return reason -> count, most frequent first."""

    def add_round(self, round: int, metrics: Mapping[str, Any], witness: bytes, choices: Sequence[Choice]) -> None:
        """Keep the outcome of a round: its numbers, the witness of every reference row (float32), and the choice."""

    def rounds(self) -> list[dict[str, Any]]:
        """Return the numbers of all rounds, in order."""

    def witness(self, round: int) -> bytes | None:
        """Return the witness that was written with a round."""

    def choices(self, round: int) -> list[Choice]:
        """Return what a round's alignment chose."""

    def close(self) -> None:
        """Release files and connections."""
