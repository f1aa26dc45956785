"""Where in a run the code that is running now belongs: which session, round and node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """What log lines and spans are marked with."""

    thread_id: str
    round: int
    node: str


_place: ContextVar[Place | None] = ContextVar("synalign_place", default=None)


def here() -> Place | None:
    """Return the place of the running code; None outside a node. Tasks and threads of a node inherit it."""
    return _place.get()


@contextmanager
def at(place: Place) -> Iterator[None]:
    """Mark what runs in the block."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)
