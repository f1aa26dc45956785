"""A real PostgreSQL of the tests' own: made in a temporary folder, on loopback, ended with the tests."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REASON = "no PostgreSQL server on this machine: install the Debian package `postgresql`, or put initdb and pg_ctl on the PATH"


wherever_kept = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
"""Marks a test that is to pass wherever a session is kept; see the fixture `database`."""


def programs() -> Path | None:
    """Return the newest folder with `initdb` and `pg_ctl`, or None."""
    installed = sorted(
        glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(Path(path).parent.name), reverse=True
    )
    on_path = [str(Path(found).resolve().parent) for found in [shutil.which("initdb")] if found]
    folders = [Path(folder) for folder in (*installed, *on_path)]
    return next((one for one in folders if (one / "initdb").exists() and (one / "pg_ctl").exists()), None)


def must_run() -> bool:
    """Tell whether a missing server is a failure: continuous integration (`.ci/run`) does not skip."""
    return os.environ.get("SYNALIGN_REQUIRE_POSTGRES") == "1"


def new_database(url: str, template: str | None = None) -> str:
    """Make a database on the server of `url`, empty or as the database of the URL `template` is; return its URL."""
    import psycopg

    name = f"db_{uuid.uuid4().hex}"
    copied = "" if template is None else f" TEMPLATE {template.rsplit('/', 1)[1]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}{copied}".encode())
    return f"{url.rsplit('/', 1)[0]}/{name}"


def _unprivileged_user() -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


@contextmanager
def running_server() -> Iterator[str]:
    """Start a server and yield the URL of an empty database."""
    bin_folder = programs()
    assert bin_folder is not None, REASON
    # PostgreSQL refuses to run as root, and a folder of root's temporary ones cannot be entered by others.
    user = _unprivileged_user() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="synalign-postgres-"))
    data = folder / "data"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "HOME": str(folder)}
        errors = folder / f"{program}.errors"
        # A pipe would stay open as long as the server that pg_ctl starts.
        with errors.open("wb") as file:
            outcome = subprocess.run(
                [str(bin_folder / program), *arguments],
                user=user,
                extra_groups=None if user is None else [],
                cwd=folder,
                env=environment,
                timeout=120,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        assert outcome.returncode == 0, errors.read_text(errors="replace")

    try:
        if user is not None:
            shutil.chown(folder, user)
        run("initdb", "-D", str(data), "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
        run("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-w", "-t", "100", "-o", options, "start")
        try:
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
