"""Embed in the background, block by block, while the calls of later blocks are in flight."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

_log = logging.getLogger(__name__)


class EmbedAhead:
    """Runs the work of each block of a round once all its calls have ended: in a thread, one at a time, in order.

    In order, so that what a block finds in the encoder's cache, and with it the last bits of its vectors, does not depend on
    which call returned first. What is not done when the round ends is left to whoever needs it.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        """Held while a round is begun."""
        self.plan: Any = None
        """What the caller of `begin` keeps about the round under way; None between rounds."""
        self._open: dict[int, set[int]] = {}
        self._embed: Callable[[int], object] = lambda block: None
        self._n_blocks = self._next = 0
        self._task: asyncio.Task[None] | None = None

    def begin(self, calls_open: Mapping[int, set[int]], embed: Callable[[int], object], plan: Any) -> None:
        """Start a round: `calls_open` holds, for each block from 0, the calls that have yet to end."""
        self.plan = plan
        self._open = {block: set(calls) for block, calls in calls_open.items()}
        self._n_blocks, self._next = len(calls_open), 0
        self._embed = embed
        self._go_on()

    def ended(self, block: int, call: int) -> None:
        """Note a call that has ended, well or not."""
        self._open.get(block, set()).discard(call)
        self._go_on()

    async def finish(self) -> int:
        """End the round: wait for the block under way, begin no other; return how many blocks are done, from the first on."""
        self._n_blocks, self.plan = 0, None
        if self._task is not None:
            await asyncio.wait([self._task])
        n_done, self._next = self._next, 0
        return n_done

    def _go_on(self) -> None:
        if self._is_ready() and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work())

    def _is_ready(self) -> bool:
        return self._next < self._n_blocks and not self._open[self._next]

    async def _work(self) -> None:
        while self._is_ready():
            try:
                await asyncio.to_thread(self._embed, self._next)
            except Exception as error:
                # The screening meets the same error where it can be reported; a call in flight must not fail of it.
                _log.debug("block %d was not embedded ahead: %s", self._next, error)
            self._next += 1
