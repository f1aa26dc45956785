"""A session's folder: which database holds its rows, who runs it, and where its checkpoints are."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import yaml
from pydantic import ValidationError

from synalign_agent.config import StorageConfig
from synalign_agent.errors import InputError, SessionError
from synalign_agent.stores import checkpoints
from synalign_agent.stores.base import SessionStore
from synalign_agent.stores.encryption import Cipher, session_cipher
from synalign_agent.stores.postgres import PostgresSessionStore
from synalign_agent.stores.session import SqliteSessionStore

DATABASE = "session.sqlite"
CONFIG = "config.yaml"
_LOCK = ".lock"
_OWNER = "owner"
_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)
_THREAD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def check_thread_id(thread_id: str) -> None:
    """Refuse what cannot name a folder and a schema.

    Raises:
        InputError: it cannot.
    """
    if not _THREAD_ID.match(thread_id):
        raise InputError(f"thread id {thread_id!r}: use letters, digits, dot, dash and underscore")


def session_exists(folder: Path) -> bool:
    """Tell whether a folder holds a session, whose rows may be in PostgreSQL."""
    return (folder / DATABASE).is_file() or configured_storage(folder).url is not None


def existing_session(thread_id: str, runs_dir: str | Path) -> Path:
    """Return the folder of a session.

    Raises:
        SessionError: it does not exist (those that do are listed).
    """
    folder = Path(runs_dir) / thread_id
    if not session_exists(folder):
        known = sorted(path.name for path in Path(runs_dir).glob("[!.]*") if session_exists(path))
        there = f"there is: {', '.join(known[:10])}" if known else "there is none; `synalign run` makes one"
        raise SessionError(f"{folder}: no such session; in {runs_dir} {there}")
    return folder


def default_thread_id(data_path: str) -> str:
    """Return a name for a new session: the data's and the time."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(data_path.split(":")[-1]).stem).strip("-_") or "session"
    return f"{stem[:60]}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def removed_on_error(folder: Path) -> Iterator[None]:
    """Take a folder that the block made away again if the block fails, so that the corrected command can be repeated."""
    existed = folder.exists()
    try:
        yield
    except BaseException:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def open_store(folder: Path, storage: StorageConfig | None = None) -> SessionStore:
    """Open, or make, the session's database.

    Args:
        folder: the session's folder, named by its thread id; made if it is missing.
        storage: where the session lives; None for what its config.yaml says.

    Raises:
        ConfigError: the key of an encrypted session is missing.
        SessionError: the database is damaged, of a newer version, elsewhere than `storage` says, encrypted with another key,
            or was there and is gone.
    """
    before = configured_storage(folder)
    storage = before if storage is None else storage
    file = folder / DATABASE
    if storage.url is not None and file.exists():
        raise SessionError(
            f"{folder}: this session is kept in {DATABASE}; a session cannot move, so set storage.url to null"
        )
    if storage.url is None and before.url is not None and not file.exists():
        raise SessionError(f"{folder}: this session is kept at {before.url}; put that back into storage.url")
    if storage.url is None:
        _refuse_lost(folder)
    with explained_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    store = SqliteSessionStore(file) if storage.url is None else PostgresSessionStore(storage.url, folder.name)
    try:
        store.use_cipher(session_cipher(store, storage.encryption_key_env, str(folder)))
    except BaseException:
        store.close()
        raise
    return store


@contextmanager
def explained_errors(folder: Path) -> Iterator[None]:
    """Turn what a full or read-only disk raises in the block into a sentence.

    Raises:
        SessionError: a file of the session cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        raise SessionError(
            f"{error.filename or folder}: cannot be written ({error.strerror}); free disk space or fix the permissions, then "
            "resume: all calls that were answered are in the journal"
        ) from error


def lock_session(folder: Path, stack: ExitStack, store: SessionStore | None = None) -> None:
    """Take the session for this process until `stack` ends: by a lock file, and in a shared database there too.

    What a full or read-only disk raises until then is explained.

    Raises:
        SessionError: another process runs it, or the folder cannot be written.
    """
    stack.enter_context(explained_errors(folder))
    # Not thread-local: a server takes the lock in one thread and gives it back in another.
    lock = filelock.FileLock(folder / _LOCK, timeout=0, thread_local=False)
    owner = folder / _OWNER
    me = f"process {os.getpid()} on {socket.gethostname()}"
    try:
        lock.acquire()
    except filelock.Timeout:
        raise _taken(folder, owner.read_text(encoding="utf-8") if owner.exists() else "another process") from None
    stack.callback(lock.release)
    other = None if store is None else store.claim(me)
    if other is not None:
        raise _taken(folder, other)
    if store is not None:
        stack.callback(_release, store)
    owner.write_text(me, encoding="utf-8")


def is_locked(folder: Path, store: SessionStore | None = None) -> bool:
    """Tell whether a process runs the session now."""
    if store is not None and store.claimed_by() is not None:
        return True
    with ExitStack() as stack:
        lock = filelock.FileLock(folder / _LOCK, timeout=0)
        try:
            stack.enter_context(lock)
        except filelock.Timeout:
            return True
        except OSError:
            return False  # a folder that cannot be written is run by nobody
    return False


@asynccontextmanager
async def open_checkpointer(folder: Path, storage: StorageConfig) -> AsyncIterator[Any]:
    """Open the session's checkpointer, which prunes at each end of a round and encrypts if the session does.

    Raises:
        ConfigError: the key of an encrypted session is missing.
        SessionError: the checkpoints are damaged or cannot be written.
    """
    variable = storage.encryption_key_env
    serializer = None if variable is None else Cipher.from_environment(variable).serializer()
    kept = storage.checkpoints_kept
    opened: Any = (
        checkpoints.open_sqlite_checkpointer(folder, kept, serializer)
        if storage.url is None
        else checkpoints.open_postgres_checkpointer(storage.url, folder.name, kept, serializer)
    )
    async with opened as saver:
        yield saver


def configured_storage(folder: Path) -> StorageConfig:
    """Return what the folder's config.yaml says about storage; the defaults if it says nothing.

    Raises:
        SessionError: that cannot be read.
    """
    try:
        raw = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        return StorageConfig.model_validate((raw or {}).get("storage") or {})
    except FileNotFoundError:
        return StorageConfig()
    except (OSError, ValueError, AttributeError, yaml.YAMLError, ValidationError):
        # Without the text of the error: it repeats values, and one may be a password.
        raise SessionError(
            f"{folder / CONFIG}: what it says about `storage` cannot be read; correct the file"
        ) from None


def _refuse_lost(folder: Path) -> None:
    file = folder / DATABASE
    others = [name for name in (CONFIG, checkpoints.FILE) if (folder / name).exists()]
    if others and (not file.exists() or file.stat().st_size == 0):
        raise SessionError(
            f"{file}: {'is empty' if file.exists() else 'is missing'}, but {' and '.join(others)} of its session is there. "
            "Restore it from a copy; if there is none, remove the folder and start again: its calls are lost"
        )


def _taken(folder: Path, owner: str) -> SessionError:
    return SessionError(f"session {folder.name} is being run by {owner}; wait for it, or end that process")


def _release(store: SessionStore) -> None:
    with suppress(SessionError):  # the connection is gone, and the lock with it
        store.release()
