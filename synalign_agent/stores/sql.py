"""What the SQL session stores share: the statements. A `Database` runs them on SQLite or PostgreSQL."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any, Protocol, TypeVar

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

Record = TypeVar("Record")
Row = tuple[Any, ...]

_KEYS_AT_ONCE = 500
_SECRET = ("content", "refusal")
"""Columns of `calls` that a cipher covers: what the model wrote."""


class Result(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """Rows that were written."""

    def fetchone(self) -> Row | None:
        """Return the next row."""

    def fetchall(self) -> list[Row]:
        """Return the rows that are left."""


class Connection(Protocol):
    """Runs statements that both dialects understand, with `?` for values."""

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> Result:
        """Run one statement."""

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Run one statement for each row of values."""


class Database(Protocol):
    """An open database of one session. Errors of the driver leave it as `SessionError`."""

    order: str
    """The column that orders rows as they were first written."""

    def writing(self) -> AbstractContextManager[Connection]:
        """Keep all that is written in the block, or none of it."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Read in the block."""

    def close(self) -> None:
        """Release files and connections."""


class TextCipher(Protocol):
    """Encrypts texts; the context must be the same to decrypt."""

    def encrypt(self, text: str, context: str) -> str:
        """Return printable text."""

    def decrypt(self, text: str, context: str) -> str:
        """Return what was encrypted."""


class SqlSessionStore:
    """A `SessionStore` in a SQL database; see `stores/migrations.py` for the tables."""

    def __init__(self, database: Database, cipher: TextCipher | None = None) -> None:
        self._database = database
        self._cipher = cipher

    def use_cipher(self, cipher: TextCipher | None) -> None:
        """Encrypt the replies that are written from now on, and decrypt those that are read."""
        self._cipher = cipher

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
            connection.execute(_insertion("attributes", ("cluster_id", "value")), (cluster_id, _to_json(values)))

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
                connection.executemany(_insertion("calls", _CALL), map(self._values, intents))
            if outcomes:
                connection.executemany(_CLOSING, map(self._closing_values, outcomes))

    def look_up_calls(self, keys: Sequence[str]) -> dict[str, tuple[CallRecord | None, int]]:
        found: dict[str, tuple[CallRecord | None, int]] = dict.fromkeys(keys, (None, 1))
        distinct = iter(list(found))
        while some := list(itertools.islice(distinct, _KEYS_AT_ONCE)):
            done = self._done_calls(some)
            query = f"SELECT key, MAX(attempt) FROM calls WHERE key IN ({_marks(some)}) GROUP BY key"
            last: dict[str, int] = {key: attempt for key, attempt in self._all(query, some)}
            found |= {key: (done.get(key), last.get(key, 0) + 1) for key in some}
        return found

    def mark_lost_calls(self) -> int:
        with self._database.writing() as connection:
            return connection.execute("UPDATE calls SET state = 'lost' WHERE state = 'intended'").rowcount

    def calls(self, *, round: int | None = None, node: str | None = None) -> list[CallRecord]:
        return self._select(CallRecord, "calls", {"round": round, "node": node})

    def call_totals(self) -> CallTotals:
        # Summed by the database: the panel asks several times a second, and replies can be long.
        row = self._one(_TOTALS)
        assert row is not None
        classes = self._all("SELECT error_class, COUNT(*) FROM calls WHERE state = 'failed' GROUP BY error_class")
        sums = dict(zip(_TOTALS_OF, row, strict=True))
        return CallTotals(**sums, failed_by_class=dict(sorted(classes, key=_most_frequent)))

    def call_groups(self) -> list[CallGroup]:
        names = _names(CallGroup)
        groups = [CallGroup(*self._fields(names, row)) for row in self._all(_GROUPS)]
        return sorted(groups, key=lambda group: group.order)

    def admit(self, samples: Sequence[Sample], rejections: Sequence[Rejection]) -> None:
        with self._database.writing() as connection:
            for table, rows in (("samples", samples), ("rejections", rejections)):
                if rows:
                    connection.executemany(_insertion(table, _names(type(rows[0]))), map(self._values, rows))

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
            values = (round, _to_json(metrics), witness)
            if connection.execute(_insertion("rounds", ("round", "metrics", "witness")), values).rowcount == 0:
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
                connection.executemany(_insertion(table, _names(type(rows[0]))), map(self._values, rows))

    def _done_calls(self, keys: Sequence[str]) -> dict[str, CallRecord]:
        found = self._select(CallRecord, "calls", {"state": "done"}, keys)
        done = {call.key: call for call in reversed(found)}  # of several, the first one
        missing = [key for key in keys if key not in done]
        if missing and self._adopt(missing):
            done |= self._done_calls(missing)
        return done

    def _adopt(self, keys: Sequence[str]) -> bool:
        """Take finished calls over from the session that this one was forked from, as if they had been made here."""
        there = (
            f"FROM inherited_calls WHERE key IN ({_marks(keys)}) AND state = 'done' AND NOT EXISTS (SELECT 1 FROM calls "
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
        self, record: Callable[..., Record], table: str, where: Mapping[str, Any], keys: Sequence[str] | None = None
    ) -> list[Record]:
        given = {name: value for name, value in where.items() if value is not None}
        conditions = [f"{name} = ?" for name in given] + ([f"key IN ({_marks(keys)})"] if keys else [])
        names = _names(record)
        query = f"SELECT {', '.join(names)} FROM {table} WHERE {' AND '.join(conditions) or '1 = 1'}"
        rows = self._all(f"{query} ORDER BY {self._database.order}", (*given.values(), *(keys or ())))
        return [record(*self._fields(names, row)) for row in rows]

    def _fields(self, names: Sequence[str], row: Row) -> Iterable[Any]:
        """Turn what is in the columns into what is in the record."""
        for name, value in zip(names, row, strict=True):
            if name == "member_ids":
                yield tuple(json.loads(value))
            elif name in ("cached", "inherited"):
                yield bool(value)
            elif name in _SECRET and value is not None and self._cipher is not None:
                yield self._cipher.decrypt(value, _context(name, row[0]))
            else:
                yield value

    def _values(self, record: Any) -> list[Any]:
        """Turn what is in the record into what is in the columns."""
        return list(self._columns(record))

    def _columns(self, record: Any) -> Iterator[Any]:
        for name in _names(type(record)):
            value = getattr(record, name)
            if isinstance(value, tuple):
                yield _to_json(value)
            elif isinstance(value, bool):
                yield int(value)
            elif name in _SECRET and value is not None and self._cipher is not None:
                yield self._cipher.encrypt(value, _context(name, record.key))
            else:
                yield value

    def _closing_values(self, call: CallRecord) -> list[Any]:
        key, attempt, *outcome = self._values(call)
        return [*outcome, key, attempt]

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._database.reading() as connection:
            return connection.execute(query, values).fetchall()

    def _one(self, query: str, values: Sequence[Any] = ()) -> Row | None:
        with self._database.reading() as connection:
            return connection.execute(query, values).fetchone()


def _names(record: Any) -> tuple[str, ...]:
    """Return the columns of a record's table: they bear the names of its fields."""
    return tuple(field.name for field in fields(record))


def _insertion(table: str, names: Sequence[str]) -> str:
    """Build an insert-if-absent."""
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({_marks(names)}) ON CONFLICT DO NOTHING"


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _context(column: str, key: str) -> str:
    """Bind what is encrypted to its place, so that replies cannot be swapped."""
    return f"calls.{column}:{key}"


def _most_frequent(count: Row) -> tuple[int, str]:
    return -count[1], count[0]


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


_CALL = _names(CallRecord)
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
