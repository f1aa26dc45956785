"""Real Phoenix and MLflow servers, each out of a virtual environment of its own (`make ops-test` makes them), on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 300.0
_QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "1",
    "PHOENIX_TELEMETRY_ENABLED": "false",
}


def server_python(name: str) -> Path:
    """Return the interpreter of a server's environment; skip, or fail where `SYNALIGN_REQUIRE_<NAME>` is 1, without one."""
    variable = f"SYNALIGN_{name.upper()}_VENV"
    folder = Path(os.environ.get(variable) or ROOT / f".venv-{name}")
    python = folder / "bin" / "python"
    if not python.exists():
        reason = (
            f"no {name} server in {folder}: `make {name}-server` installs one there, {variable} names another place"
        )
        if os.environ.get(f"SYNALIGN_REQUIRE_{name.upper()}") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return python


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(command: Sequence[str], folder: Path, url: str, environment: dict[str, str] | None = None) -> Iterator[str]:
    """Run a server in `folder` until the block ends; yield `url` once its /health or /healthz answers."""
    log = folder / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **_QUIET, **(environment or {})}, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url):
            assert server.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.2)
        yield url
    finally:
        # The whole group: the server has workers. A group of ours, as it was started as a session.
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _answers(url: str) -> bool:
    for path in ("/health", "/healthz"):
        try:
            with urllib.request.urlopen(url + path, timeout=5) as response:
                if response.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            continue
    return False
