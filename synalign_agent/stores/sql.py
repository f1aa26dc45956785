"""What the SQL session stores share: the statements. A `Database` runs them on SQLite or PostgreSQL."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from synalign_agent.records import (
    UNBILLED,
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
from synalign_agent.stores.database import Database, Row
from synalign_agent.stores.record_rows import Record, RecordRows, TextCipher, columns, insertion, marks, to_json

OF_ROUNDS = ("clusters", "calls", "samples", "rejections", "rounds", "choices", "decisions")
"""Tables whose rows belong to a round."""
_KEYS_AT_ONCE = 500


class SqlSessionStore:
    """A `SessionStore` in a SQL database; see `stores/migrations.py` for the tables."""

    def __init__(self, database: Database, cipher: TextCipher | None = None) -> None:
        self._database = database
        self._rows = RecordRows(cipher)

    def use_cipher(self, cipher: TextCipher | None) -> None:
        """Encrypt the replies that are written from now on, and decrypt those that are read."""
        self._rows = RecordRows(cipher)

    def meta(self, key: str) -> str | None:
        row = self._one("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        statement = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        with self._database.writing() as connection:
            connection.execute(statement, (key, value))

    def add_real(self, rows: Sequence[RealRow]) -> None:
        self._insert("real", rows)

    def real_rows(self, split: Split | None = None) -> list[RealRow]:
        return self._select(RealRow, "real", {"split": split})

    def add_clusters(self, clusters: Sequence[DemonstrationCluster]) -> None:
        self._insert("clusters", clusters)

    def clusters(self, round: int | None = None) -> list[DemonstrationCluster]:
        return self._select(DemonstrationCluster, "clusters", {"round": round})

    def cluster(self, id: str) -> DemonstrationCluster:
        found = self._select(DemonstrationCluster, "clusters", {"id": id})
        if not found:
            raise KeyError(id)
        return found[0]

    def add_attributes(self, cluster_id: str, values: Mapping[str, str]) -> None:
        with self._database.writing() as connection:
            connection.execute(insertion("attributes", ("cluster_id", "value")), (cluster_id, to_json(values)))

    def attributes_of(self, cluster_id: str) -> dict[str, str]:
        row = self._one("SELECT value FROM attributes WHERE cluster_id = ?", (cluster_id,))
        return {} if row is None else dict(json.loads(row[0]))

    def record_calls(self, calls: Sequence[CallRecord]) -> None:
        intents = [call for call in calls if call.state == "intended"]
        outcomes = [call for call in calls if call.state != "intended"]
        if not calls:
            return
        with self._database.writing() as connection:
            if intents:
                connection.executemany(insertion("calls", _CALL), map(self._rows.values, intents))
            if outcomes:
                connection.executemany(_CLOSING, map(self._closing_values, outcomes))

    def look_up_calls(self, keys: Sequence[str]) -> dict[str, tuple[CallRecord | None, int]]:
        found: dict[str, tuple[CallRecord | None, int]] = dict.fromkeys(keys, (None, 1))
        distinct = iter(list(found))
        while some := list(itertools.islice(distinct, _KEYS_AT_ONCE)):
            done = self._done_calls(some)
            query = f"SELECT key, MAX(attempt) FROM calls WHERE key IN ({marks(some)}) GROUP BY key"
            last: dict[str, int] = {key: attempt for key, attempt in self._all(query, some)}
            found |= {key: (done.get(key), last.get(key, 0) + 1) for key in some}
        return found

    def mark_lost_calls(self) -> int:
        with self._database.writing() as connection:
            return connection.execute("UPDATE calls SET state = 'lost' WHERE state = 'intended'").rowcount

    def calls(
        self, *, round: int | None = None, node: str | None = None, cluster_ids: Sequence[str] | None = None
    ) -> list[CallRecord]:
        return self._select(CallRecord, "calls", {"round": round, "node": node}, {"cluster_id": cluster_ids})

    def call_totals(self) -> CallTotals:
        # Summed by the database: the panel asks several times a second, and replies can be long.
        row = self._one(_TOTALS)
        assert row is not None
        classes = self._all("SELECT error_class, COUNT(*) FROM calls WHERE state = 'failed' GROUP BY error_class")
        sums = dict(zip(_TOTALS_OF, row, strict=True))
        return CallTotals(**sums, failed_by_class=dict(sorted(classes, key=_most_frequent)))

    def call_groups(self) -> list[CallGroup]:
        groups = [self._rows.record(CallGroup, row) for row in self._all(_GROUPS)]
        return sorted(groups, key=lambda group: group.order)

    def admit(self, samples: Sequence[Sample], rejections: Sequence[Rejection]) -> None:
        with self._database.writing() as connection:
            for table, rows in (("samples", samples), ("rejections", rejections)):
                if rows:
                    connection.executemany(insertion(table, columns(type(rows[0]))), map(self._rows.values, rows))

    def samples(self, *, before_round: int | None = None) -> list[Sample]:
        found = self._select(Sample, "samples", {})
        return found if before_round is None else [sample for sample in found if sample.round < before_round]

    def count_samples(self) -> int:
        row = self._one("SELECT COUNT(*) FROM samples")
        return int(row[0]) if row else 0

    def rejections(self, *, round: int | None = None) -> list[Rejection]:
        return self._select(Rejection, "rejections", {"round": round})

    def rejection_counts(self) -> dict[str, int]:
        counts = self._all("SELECT reason, COUNT(*) FROM rejections GROUP BY reason")
        return dict(sorted(counts, key=_most_frequent))

    def add_round(self, round: int, metrics: Mapping[str, Any], witness: bytes, choices: Sequence[Choice]) -> None:
        with self._database.writing() as connection:
            values = (round, to_json(metrics), witness)
            if connection.execute(insertion("rounds", ("round", "metrics", "witness")), values).rowcount == 0:
                return  # the first outcome of a round stands, its choices with it
            connection.executemany(
                "INSERT INTO choices (round, sample_id, weight, copies) VALUES (?, ?, ?, ?)",
                [(round, choice.sample_id, choice.weight, choice.copies) for choice in choices],
            )

    def rounds(self) -> list[dict[str, Any]]:
        return [json.loads(row[0]) for row in self._all("SELECT metrics FROM rounds ORDER BY round")]

    def witness(self, round: int) -> bytes | None:
        row = self._one("SELECT witness FROM rounds WHERE round = ?", (round,))
        return None if row is None else bytes(row[0])

    def choices(self, round: int) -> list[Choice]:
        query = f"SELECT sample_id, weight, copies FROM choices WHERE round = ? ORDER BY {self._database.order}"
        return [Choice(*row) for row in self._all(query, (round,))]

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        self._insert("decisions", decisions)

    def decisions(self, kind: DecisionKind | None = None, round: int | None = None) -> list[Decision]:
        return self._select(Decision, "decisions", {"kind": kind, "round": round})

    def cut(self, from_round: int, facts: Sequence[str]) -> None:
        names = ", ".join(_CALL)
        with self._database.writing() as connection:
            connection.execute(
                f"INSERT INTO inherited_calls ({names}) SELECT {names} FROM calls WHERE round >= ? AND state = 'done' "
                f"ORDER BY {self._database.order} ON CONFLICT DO NOTHING",
                (from_round,),
            )
            for table in OF_ROUNDS:
                connection.execute(f"DELETE FROM {table} WHERE round >= ?", (from_round,))
            connection.execute("DELETE FROM attributes WHERE cluster_id NOT IN (SELECT id FROM clusters)")
            connection.executemany("DELETE FROM meta WHERE key = ?", [(key,) for key in facts])

    def claim(self, owner: str) -> str | None:
        return None

    def release(self) -> None:
        """Do nothing: the session's lock file is enough."""

    def claimed_by(self) -> str | None:
        return None

    def close(self) -> None:
        self._database.close()

    def _insert(self, table: str, rows: Sequence[Any]) -> None:
        if rows:
            with self._database.writing() as connection:
                connection.executemany(insertion(table, columns(type(rows[0]))), map(self._rows.values, rows))

    def _done_calls(self, keys: Sequence[str]) -> dict[str, CallRecord]:
        found = self._select(CallRecord, "calls", {"state": "done"}, {"key": keys})
        done = {call.key: call for call in reversed(found)}  # of several, the first one
        missing = [key for key in keys if key not in done]
        if missing and self._adopt(missing):
            done |= self._done_calls(missing)
        return done

    def _adopt(self, keys: Sequence[str]) -> bool:
        """Take finished calls over from the session that this one was forked from, as if they had been made here."""
        there = (
            f"FROM inherited_calls WHERE key IN ({marks(keys)}) AND state = 'done' AND NOT EXISTS (SELECT 1 FROM calls "
            "WHERE calls.key = inherited_calls.key AND calls.attempt = inherited_calls.attempt)"
        )
        if self._one(f"SELECT 1 {there} LIMIT 1", keys) is None:
            return False
        names = ", ".join(_CALL)
        with self._database.writing() as connection:
            connection.execute(
                f"INSERT INTO calls ({names}) SELECT {names} {there} ORDER BY {self._database.order} ON CONFLICT DO NOTHING",
                keys,
            )
        return True

    def _select(
        self,
        kind: Callable[..., Record],
        table: str,
        where: Mapping[str, Any],
        among: Mapping[str, Sequence[str] | None] | None = None,
    ) -> list[Record]:
        """Return the rows with these values, and with one of those, in the order of writing; None for any."""
        given = {name: value for name, value in where.items() if value is not None}
        listed = {name: values for name, values in (among or {}).items() if values is not None}
        if not all(listed.values()):
            return []
        conditions = [f"{name} = ?" for name in given]
        conditions += [f"{name} IN ({marks(values)})" for name, values in listed.items()]
        names = columns(kind)
        query = f"SELECT {', '.join(names)} FROM {table} WHERE {' AND '.join(conditions) or '1 = 1'}"
        values = [*given.values(), *itertools.chain.from_iterable(listed.values())]
        rows = self._all(f"{query} ORDER BY {self._database.order}", values)
        return [self._rows.record(kind, row) for row in rows]

    def _closing_values(self, call: CallRecord) -> list[Any]:
        key, attempt, *outcome = self._rows.values(call)
        return [*outcome, key, attempt]

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._database.reading() as connection:
            return connection.execute(query, values).fetchall()

    def _one(self, query: str, values: Sequence[Any] = ()) -> Row | None:
        with self._database.reading() as connection:
            return connection.execute(query, values).fetchone()


def _most_frequent(count: Row) -> tuple[int, str]:
    return -count[1], count[0]


_CALL = columns(CallRecord)
# Only an attempt that is still open may be closed: a finished one is never rewritten.
_OUTCOME = ", ".join(f"{name} = ?" for name in _CALL[2:])
_CLOSING = f"UPDATE calls SET {_OUTCOME} WHERE key = ? AND attempt = ? AND state = 'intended'"
_USED = "(prompt_tokens + completion_tokens)"
_KNOWN = f"(state = 'done' AND {_USED} > 0)"
_FREE = f"(cached <> 0 OR (state = 'failed' AND error_class IN ({', '.join(repr(name) for name in sorted(UNBILLED))})))"
_TOTALS_OF = (
    "done", "failed", "repeated", "in_flight_lost", "prompt_tokens", "completion_tokens", "cost_usd", "n_attempts",
    "charged_tokens", "charged_usd", "cached",
)  # fmt: skip
_TOTALS = f"""
    SELECT COUNT(*) FILTER (WHERE state = 'done'), COUNT(*) FILTER (WHERE state = 'failed'),
      COUNT(*) FILTER (WHERE state = 'done') - COUNT(DISTINCT CASE WHEN state = 'done' THEN key END),
      COUNT(*) FILTER (WHERE state = 'lost'),
      CAST(COALESCE(SUM(prompt_tokens), 0) AS BIGINT), CAST(COALESCE(SUM(completion_tokens), 0) AS BIGINT),
      COALESCE(SUM(cost_usd), 0.0), COUNT(*) FILTER (WHERE cached = 0),
      CAST(COALESCE(SUM(CASE WHEN {_FREE} THEN 0 WHEN {_KNOWN} THEN {_USED} ELSE bound_tokens END), 0) AS BIGINT),
      COALESCE(SUM(CASE WHEN {_FREE} THEN 0.0 WHEN {_KNOWN} THEN cost_usd ELSE bound_usd END), 0.0),
      COUNT(*) FILTER (WHERE state = 'done' AND cached <> 0) FROM calls"""
_GROUPS = f"""
    SELECT node, prompt, round, state, error_class, cached, inherited, COUNT(*), COUNT(*) FILTER (WHERE {_USED} = 0),
      CAST(SUM(prompt_tokens) AS BIGINT), CAST(SUM(completion_tokens) AS BIGINT), SUM(cost_usd), SUM(seconds)
    FROM (
      SELECT calls.*, CASE WHEN EXISTS (
        SELECT 1 FROM inherited_calls AS other WHERE other.key = calls.key AND other.attempt = calls.attempt
      ) THEN 1 ELSE 0 END AS inherited FROM calls
    ) AS attempts
    GROUP BY node, prompt, round, state, error_class, cached, inherited"""
