"""What a session store must do. Every implementation passes `tests/conformance`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from synalign_agent.records import (
    CallGroup,
    CallRecord,
    CallTotals,
    Choice,
    Decision,
    DecisionKind,
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

    def record_calls(self, calls: Sequence[CallRecord]) -> None:
        """Write, all or none, which attempts are about to be sent (`intended`), then how open ones ended (`done`, `failed`)."""

    def look_up_calls(self, keys: Sequence[str]) -> dict[str, tuple[CallRecord | None, int]]:
        """Return key -> (the finished call, if there is one, and the number of the next attempt, from 1).

        A fork finds the finished calls that it inherited too.
        """

    def mark_lost_calls(self) -> int:
        """Turn every `intended` attempt into `lost` and return how many; called when no other process can be running it."""

    def calls(
        self, *, round: int | None = None, node: str | None = None, cluster_ids: Sequence[str] | None = None
    ) -> list[CallRecord]:
        """Return attempts in the order in which they were intended; with `cluster_ids`, at most some hundreds, only theirs."""

    def call_totals(self) -> CallTotals:
        """Sum up the journal."""

    def call_groups(self) -> list[CallGroup]:
        """Sum up the journal by what attempts have in common, in the order of `CallGroup.order`."""

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

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        """Keep what people decided, all or none; one with a known id changes nothing."""

    def decisions(self, kind: DecisionKind | None = None, round: int | None = None) -> list[Decision]:
        """Return decisions in the order of writing, conflicting ones too: of those about one item, the last counts."""

    def cut(self, from_round: int, facts: Sequence[str]) -> None:
        """Make a copy that nobody has seen yet the beginning of a fork: the one thing that takes anything out of a store.

        What belongs to `from_round` and later is removed, and so are the named session facts. Finished calls of those rounds
        wait for `look_up_calls`: among the store's calls, the fork would read them as its own, because its clusters bear the
        same ids in the same rounds.
        """

    def claim(self, owner: str) -> str | None:
        """Take the session for the process named `owner` until the store is closed or the process ends.

        Returns:
            None, or the name of the process that has it, where processes on several machines can reach the store. A store in
            a folder leaves that to the folder's lock file and returns None.
        """

    def release(self) -> None:
        """Give a claimed session back."""

    def claimed_by(self) -> str | None:
        """Return who has claimed the session, or None if nobody has or the store leaves that to a lock file."""

    def close(self) -> None:
        """Release files and connections."""
