"""Coroutines run to their end by callers that are none: each says what it does where an event loop runs already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from synalign_agent.errors import SessionError

Result = TypeVar("Result")


def run_without_loop(name: str, work: Coroutine[Any, Any, Result]) -> Result:
    """Run the coroutine behind a method `name`, whose own coroutine is called `a<name>`.

    Raises:
        SessionError: an event loop runs in this thread, which would have to wait for itself.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise SessionError(
        f"{name}() cannot be called where an event loop runs (a notebook, say): use `await session.a{name}()`"
    )


def run_in_thread(work: Coroutine[Any, Any, object]) -> None:
    """Run a short coroutine in a thread of its own and wait for it, whether or not this one has an event loop."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
