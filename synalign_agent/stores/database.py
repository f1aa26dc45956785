"""What the SQL session stores need of a database: `stores/session.py` and `stores/postgres.py` have one each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Row = tuple[Any, ...]


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
