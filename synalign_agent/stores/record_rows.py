"""Records as rows of tables: columns bear the names of fields, sequences are JSON, and what a model wrote may be encrypted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol, TypeVar

from synalign_agent.stores.database import Row

Record = TypeVar("Record")

_SECRET = ("content", "refusal")
"""Columns of `calls` that a cipher covers: what the model wrote."""
_FLAGS = ("cached", "inherited")


class TextCipher(Protocol):
    """Encrypts texts; the context must be the same to decrypt."""

    def encrypt(self, text: str, context: str) -> str:
        """Return printable text."""

    def decrypt(self, text: str, context: str) -> str:
        """Return what was encrypted."""


class RecordRows:
    """Turns records into the values of their columns and back."""

    def __init__(self, cipher: TextCipher | None = None) -> None:
        self._cipher = cipher

    def record(self, kind: Callable[..., Record], row: Row) -> Record:
        """Return the record whose columns, in the order of `columns(kind)`, hold `row`."""
        return kind(*self._fields(columns(kind), row))

    def values(self, record: Any) -> list[Any]:
        """Return what the columns of a record hold."""
        return list(self._columns(record))

    def _fields(self, names: Sequence[str], row: Row) -> Iterable[Any]:
        for name, value in zip(names, row, strict=True):
            if name == "member_ids":
                yield tuple(json.loads(value))
            elif name in _FLAGS:
                yield bool(value)
            elif name in _SECRET and value is not None and self._cipher is not None:
                yield self._cipher.decrypt(value, _context(name, row[0]))
            else:
                yield value

    def _columns(self, record: Any) -> Iterator[Any]:
        for name in columns(type(record)):
            value = getattr(record, name)
            if isinstance(value, tuple):
                yield to_json(value)
            elif isinstance(value, bool):
                yield int(value)
            elif name in _SECRET and value is not None and self._cipher is not None:
                yield self._cipher.encrypt(value, _context(name, record.key))
            else:
                yield value


def columns(kind: Any) -> tuple[str, ...]:
    """Return the columns of a record's table: they bear the names of its fields."""
    return tuple(field.name for field in fields(kind))


def insertion(table: str, names: Sequence[str]) -> str:
    """Return the statement that inserts a row unless it is there."""
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks(names)}) ON CONFLICT DO NOTHING"


def marks(values: Sequence[Any]) -> str:
    """Return a placeholder for each value."""
    return ", ".join("?" * len(values))


def to_json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return what a text column holds of a mapping or a sequence."""
    return json.dumps(value, ensure_ascii=False)


def _context(column: str, key: str) -> str:
    """Bind what is encrypted to its place, so that replies cannot be swapped."""
    return f"calls.{column}:{key}"
