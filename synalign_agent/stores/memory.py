"""A session store in plain dictionaries: the oracle that the conformance tests hold other stores to."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

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
    group_calls,
    sum_calls,
)


class MemorySessionStore:
    """A `SessionStore` that forgets everything at exit."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._meta: dict[str, str] = {}
        self._real: dict[str, RealRow] = {}
        self._clusters: dict[str, DemonstrationCluster] = {}
        self._attributes: dict[str, dict[str, str]] = {}
        self._calls: dict[tuple[str, int], CallRecord] = {}
        self._inherited: dict[tuple[str, int], CallRecord] = {}
        self._samples: dict[str, Sample] = {}
        self._rejections: dict[str, Rejection] = {}
        self._decisions: dict[str, Decision] = {}
        self._rounds: dict[int, tuple[dict[str, Any], bytes, list[Choice]]] = {}

    def meta(self, key: str) -> str | None:
        return self._meta.get(key)

    def set_meta(self, key: str, value: str) -> None:
        self._meta[key] = value

    def add_real(self, rows: Sequence[RealRow]) -> None:
        for row in rows:
            self._real.setdefault(row.id, row)

    def real_rows(self, split: Split | None = None) -> list[RealRow]:
        return [row for row in self._real.values() if split in (None, row.split)]

    def add_clusters(self, clusters: Sequence[DemonstrationCluster]) -> None:
        for cluster in clusters:
            self._clusters.setdefault(cluster.id, cluster)

    def clusters(self, round: int | None = None) -> list[DemonstrationCluster]:
        return [cluster for cluster in self._clusters.values() if round in (None, cluster.round)]

    def cluster(self, id: str) -> DemonstrationCluster:
        return self._clusters[id]

    def add_attributes(self, cluster_id: str, values: Mapping[str, str]) -> None:
        self._attributes.setdefault(cluster_id, dict(values))

    def attributes_of(self, cluster_id: str) -> dict[str, str]:
        return dict(self._attributes.get(cluster_id, {}))

    def record_calls(self, calls: Sequence[CallRecord]) -> None:
        with self._lock:
            for call in (one for one in calls if one.state == "intended"):
                self._calls.setdefault((call.key, call.attempt), call)
            for call in (one for one in calls if one.state != "intended"):
                attempt = self._calls.get((call.key, call.attempt))
                if attempt is not None and attempt.state == "intended":
                    self._calls[call.key, call.attempt] = call

    def look_up_calls(self, keys: Sequence[str]) -> dict[str, tuple[CallRecord | None, int]]:
        found: dict[str, tuple[CallRecord | None, int]] = {}
        for key in keys:
            attempts = [call for call in self.calls() if call.key == key]
            if not any(call.state == "done" for call in attempts):
                for place, call in self._inherited.items():
                    if call.key == key:
                        self._calls.setdefault(place, call)
                attempts = [call for call in self.calls() if call.key == key]
            done = next((call for call in attempts if call.state == "done"), None)
            found[key] = done, 1 + max((call.attempt for call in attempts), default=0)
        return found

    def mark_lost_calls(self) -> int:
        with self._lock:
            open_calls = [call for call in self._calls.values() if call.state == "intended"]
            for call in open_calls:
                self._calls[call.key, call.attempt] = replace(call, state="lost")
            return len(open_calls)

    def calls(
        self, *, round: int | None = None, node: str | None = None, cluster_ids: Sequence[str] | None = None
    ) -> list[CallRecord]:
        with self._lock:
            found = list(self._calls.values())
        return [
            call
            for call in found
            if round in (None, call.round)
            and node in (None, call.node)
            and (cluster_ids is None or call.cluster_id in cluster_ids)
        ]

    def call_totals(self) -> CallTotals:
        return sum_calls(self.calls())

    def call_groups(self) -> list[CallGroup]:
        own = group_calls(call for call in self.calls() if (call.key, call.attempt) not in self._inherited)
        inherited = group_calls(call for call in self.calls() if (call.key, call.attempt) in self._inherited)
        return sorted(own + [replace(group, inherited=True) for group in inherited], key=lambda group: group.order)

    def admit(self, samples: Sequence[Sample], rejections: Sequence[Rejection]) -> None:
        for sample in samples:
            self._samples.setdefault(sample.id, sample)
        for rejection in rejections:
            self._rejections.setdefault(rejection.id, rejection)

    def samples(self, *, before_round: int | None = None) -> list[Sample]:
        return [sample for sample in self._samples.values() if before_round is None or sample.round < before_round]

    def count_samples(self) -> int:
        return len(self._samples)

    def rejections(self, *, round: int | None = None) -> list[Rejection]:
        return [rejection for rejection in self._rejections.values() if round in (None, rejection.round)]

    def rejection_counts(self) -> dict[str, int]:
        counts = Counter(rejection.reason for rejection in self._rejections.values())
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def add_round(self, round: int, metrics: Mapping[str, Any], witness: bytes, choices: Sequence[Choice]) -> None:
        self._rounds.setdefault(round, (copy.deepcopy(dict(metrics)), witness, list(choices)))

    def rounds(self) -> list[dict[str, Any]]:
        return [copy.deepcopy(self._rounds[round][0]) for round in sorted(self._rounds)]

    def witness(self, round: int) -> bytes | None:
        return self._rounds[round][1] if round in self._rounds else None

    def choices(self, round: int) -> list[Choice]:
        return list(self._rounds[round][2]) if round in self._rounds else []

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        with self._lock:
            for decision in decisions:
                self._decisions.setdefault(decision.id, decision)

    def decisions(self, kind: DecisionKind | None = None, round: int | None = None) -> list[Decision]:
        with self._lock:
            found = list(self._decisions.values())
        return [one for one in found if kind in (None, one.kind) and round in (None, one.round)]

    def cut(self, from_round: int, facts: Sequence[str]) -> None:
        for place, call in self._calls.items():
            if call.round >= from_round and call.state == "done":
                self._inherited.setdefault(place, call)
        tables: list[dict[Any, Any]] = [
            self._calls, self._clusters, self._samples, self._rejections, self._decisions
        ]  # fmt: skip
        for rows in tables:
            for key in [key for key, row in rows.items() if row.round >= from_round]:
                del rows[key]
        self._rounds = {round: outcome for round, outcome in self._rounds.items() if round < from_round}
        self._attributes = {id: values for id, values in self._attributes.items() if id in self._clusters}
        for fact in facts:
            self._meta.pop(fact, None)

    def claim(self, owner: str) -> str | None:
        return None

    def release(self) -> None:
        """Do nothing: nobody else can reach it."""

    def claimed_by(self) -> str | None:
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
