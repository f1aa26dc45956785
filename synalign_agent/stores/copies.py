"""A session's rows copied to where a fork is made, wherever they are kept."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from synalign_agent.errors import SessionError
from synalign_agent.stores.folder import CONFIG, DATABASE, configured_storage, session_exists
from synalign_agent.stores.schema_copy import copy_schema, drop_schema, rename_schema


@contextmanager
def copied_rows(source: Path, unfinished: Path) -> Iterator[Callable[[str], None]]:
    """Copy a session's rows and config.yaml, as they are at one moment, to where nobody looks for a session yet.

    The session may be running. It is only read: neither brought to the newest schema nor checkpointed.

    Args:
        source: the session's folder.
        unfinished: an empty folder. No thread id may be its name.

    Yields:
        A function that gives the copy's rows to a thread id. They are removed again if the block fails.

    Raises:
        SessionError: there is no such session, it cannot be copied, or the thread id has rows already.
    """
    if not session_exists(source):
        raise SessionError(f"{source}: no such session")
    if (source / CONFIG).exists():
        shutil.copy(source / CONFIG, unfinished)  # it says how the store is to be opened
    url = configured_storage(source).url
    if url is None:
        _copy_file(source / DATABASE, unfinished / DATABASE)
        yield lambda thread_id: None  # they go where the folder goes
        return
    copy_schema(url, source.name, unfinished.name)
    name = unfinished.name

    def give(thread_id: str) -> None:
        nonlocal name
        rename_schema(url, name, thread_id)
        name = thread_id

    try:
        yield give
    except BaseException:
        with suppress(SessionError):  # a server that is gone: what failed first is what is told
            drop_schema(url, name)
        raise


def _copy_file(source: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True, timeout=30.0)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        raise SessionError(f"{source}: cannot be copied ({error}); nothing was changed") from None
