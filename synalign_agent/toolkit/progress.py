"""How long work says where it is, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much; 0 of 0 where that is not known."""


def silent(what: str, done: int, total: int) -> None:
    """Be a `Progress` that nobody looks at."""


class Clock:
    """Wall time by phase."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of a block under `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started

    def seconds(self) -> dict[str, float]:
        """Return seconds by phase, and their sum as `total`."""
        return {**self._seconds, "total": sum(self._seconds.values())}
