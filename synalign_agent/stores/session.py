"""The session store on SQLite: one file, write-ahead log, one transaction per write."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from synalign_agent.errors import SessionError
from synalign_agent.records import (
    UNBILLED,
    CallRecord,
    CallTotals,
    Choice,
    DemonstrationCluster,
    RealRow,
    Rejection,
    Sample,
    Split,
)
from synalign_agent.stores.migrations import check_version, migrate

Record = TypeVar("Record")


class SqliteSessionStore:
    """A `SessionStore` in one SQLite file (or ":memory:")."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        # Nodes run on LangGraph's threads and calls on asyncio's; one connection and one lock serve them all.
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(self._path, check_same_thread=False, timeout=30.0)
            check_version(self._connection, self._path)  # before anything is written
            self._connection.execute("PRAGMA journal_mode = WAL")
            # NORMAL loses nothing when the process is killed; only a power cut can lose the last commits.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            migrate(self._connection)
        except sqlite3.DatabaseError as error:
            raise SessionError(
                f"{self._path}: not readable as a session database ({error}); it may be damaged or on a read-only or full "
                "disk. Restore it from a copy; it is never replaced silently"
            ) from None

    def meta(self, key: str) -> str | None:
        row = self._one("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self._write(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", [(key, value)]
        )

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
        self._write("INSERT OR IGNORE INTO attributes VALUES (?, ?)", [(cluster_id, _to_json(values))])

    def attributes_of(self, cluster_id: str) -> dict[str, str]:
        row = self._one("SELECT value FROM attributes WHERE cluster_id = ?", (cluster_id,))
        return {} if row is None else dict(json.loads(row[0]))

    def intend_call(self, call: CallRecord) -> None:
        self._insert("calls", [call])

    def finish_call(self, call: CallRecord) -> None:
        values = {key: value for key, value in asdict(call).items() if key not in ("key", "attempt")}
        assignments = ", ".join(f"{name} = ?" for name in values)
        # Only an attempt that is still open may be closed: a finished one is never rewritten.
        self._write(
            f"UPDATE calls SET {assignments} WHERE key = ? AND attempt = ? AND state = 'intended'",
            [(*values.values(), call.key, call.attempt)],
        )

    def done_call(self, key: str) -> CallRecord | None:
        found = self._select(CallRecord, "calls", {"key": key, "state": "done"})
        return found[0] if found else None

    def next_attempt(self, key: str) -> int:
        row = self._one("SELECT COALESCE(MAX(attempt), 0) + 1 FROM calls WHERE key = ?", (key,))
        return int(row[0]) if row else 1

    def mark_lost_calls(self) -> int:
        with self._transaction() as connection:
            return connection.execute("UPDATE calls SET state = 'lost' WHERE state = 'intended'").rowcount

    def calls(self, *, round: int | None = None, node: str | None = None) -> list[CallRecord]:
        return self._select(CallRecord, "calls", {"round": round, "node": node})

    def call_totals(self) -> CallTotals:
        # Summed by SQLite: the panel asks several times a second, and replies can be long.
        unbilled = ", ".join(f"'{name}'" for name in sorted(UNBILLED))
        used = "(prompt_tokens + completion_tokens)"
        known = f"(state = 'done' AND {used} > 0)"
        free = f"(state = 'failed' AND error_class IN ({unbilled}))"
        row = self._one(
            f"""SELECT SUM(state = 'done'), SUM(state = 'failed'),
                 SUM(state = 'done') - COUNT(DISTINCT CASE WHEN state = 'done' THEN key END), SUM(state = 'lost'),
                 SUM(prompt_tokens), SUM(completion_tokens), SUM(cost_usd), COUNT(*),
                 SUM(CASE WHEN {known} THEN {used} WHEN {free} THEN 0 ELSE bound_tokens END),
                 SUM(CASE WHEN {known} THEN cost_usd WHEN {free} THEN 0.0 ELSE bound_usd END) FROM calls""",
            (),
        )
        classes = self._all(
            "SELECT error_class, COUNT(*) FROM calls WHERE state = 'failed' GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        names = [field.name for field in fields(CallTotals)]  # in the order of the query; the classes come last
        sums = dict(zip(names, (value or 0 for value in row or ()), strict=False))
        return CallTotals(**sums, failed_by_class=dict(classes))

    def admit(self, samples: Sequence[Sample], rejections: Sequence[Rejection]) -> None:
        with self._transaction() as connection:
            for table, rows in (("samples", samples), ("rejections", rejections)):
                if rows:
                    connection.executemany(*_insertion(table, rows))

    def samples(self, *, before_round: int | None = None) -> list[Sample]:
        found = self._select(Sample, "samples", {})
        return found if before_round is None else [sample for sample in found if sample.round < before_round]

    def count_samples(self) -> int:
        row = self._one("SELECT COUNT(*) FROM samples", ())
        return int(row[0]) if row else 0

    def rejections(self, *, round: int | None = None) -> list[Rejection]:
        return self._select(Rejection, "rejections", {"round": round})

    def rejection_counts(self) -> dict[str, int]:
        return dict(self._all("SELECT reason, COUNT(*) FROM rejections GROUP BY reason ORDER BY 2 DESC, 1"))

    def add_round(self, round: int, metrics: Mapping[str, Any], witness: bytes, choices: Sequence[Choice]) -> None:
        with self._transaction() as connection:
            values = (round, _to_json(metrics), witness)
            if connection.execute("INSERT OR IGNORE INTO rounds VALUES (?, ?, ?)", values).rowcount == 0:
                return  # the first outcome of a round stands, its choices with it
            connection.executemany(
                "INSERT INTO choices VALUES (?, ?, ?, ?)",
                [(round, choice.sample_id, choice.weight, choice.copies) for choice in choices],
            )

    def rounds(self) -> list[dict[str, Any]]:
        return [json.loads(row[0]) for row in self._all("SELECT metrics FROM rounds ORDER BY round")]

    def witness(self, round: int) -> bytes | None:
        row = self._one("SELECT witness FROM rounds WHERE round = ?", (round,))
        return None if row is None else bytes(row[0])

    def choices(self, round: int) -> list[Choice]:
        rows = self._all("SELECT sample_id, weight, copies FROM choices WHERE round = ? ORDER BY rowid", (round,))
        return [Choice(*row) for row in rows]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _insert(self, table: str, rows: Sequence[Any]) -> None:
        if rows:
            self._write(*_insertion(table, rows))

    def _write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._transaction() as connection:
            connection.executemany(statement, rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written in the block is kept, or none of it."""
        try:
            with self._lock, self._connection as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise SessionError(
                f"{self._path}: cannot be written ({error}); free disk space or fix the permissions, then resume: "
                "all that was confirmed before is kept"
            ) from None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._connection
        except sqlite3.DatabaseError as error:
            raise SessionError(f"{self._path}: cannot be read ({error}); restore it from a copy") from None

    def _select(self, record: type[Record], table: str, where: Mapping[str, Any]) -> list[Record]:
        names = [field.name for field in fields(record)]  # type: ignore[arg-type]
        given = {name: value for name, value in where.items() if value is not None}
        condition = " AND ".join(f"{name} = ?" for name in given) or "1"
        rows = self._all(
            f"SELECT {', '.join(names)} FROM {table} WHERE {condition} ORDER BY rowid", tuple(given.values())
        )
        if "member_ids" in names:
            at = names.index("member_ids")
            rows = [(*row[:at], tuple(json.loads(row[at])), *row[at + 1 :]) for row in rows]
        return [record(*row) for row in rows]

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._reading() as connection:
            return connection.execute(query, values).fetchall()

    def _one(self, query: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
        with self._reading() as connection:
            row: tuple[Any, ...] | None = connection.execute(query, values).fetchone()
            return row


def _insertion(table: str, rows: Sequence[Any]) -> tuple[str, list[tuple[Any, ...]]]:
    """Build an insert-if-absent; the columns of a table bear the names of its record's fields."""
    names = [field.name for field in fields(rows[0])]
    statement = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    return statement, [tuple(_plain(getattr(row, name)) for name in names) for row in rows]


def _plain(value: Any) -> Any:
    return _to_json(value) if isinstance(value, tuple) else value


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
