"""Between coroutines and what is none: work that blocks, and callers without an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from synalign_agent.errors import SessionError

Result = TypeVar("Result")
P = ParamSpec("P")


async def to_its_end(function: Callable[P, Result], /, *arguments: P.args, **options: P.kwargs) -> Result:
    """Run what blocks in a thread and, however often cancelled, see its end: what it uses may be closed after that."""
    # Not `asyncio.to_thread`, whose coroutine would be a task, which a loop that shuts down cancels too.
    call = partial(contextvars.copy_context().run, function, *arguments, **options)
    work = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        work.exception()  # nobody else will ask for it
        raise


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
