"""The commands that a person is told to run, quoted so that they can be pasted into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path


def resume_command(folder: Path, *options: str) -> str:
    """Return the command that continues the session in a folder."""
    return _command("resume", folder.name, "--runs-dir", str(folder.parent), *options)


def review_command(folder: Path) -> str:
    """Return the command that decides what the session in a folder waits for."""
    return _command("review", folder.name, "--runs-dir", str(folder.parent))


def run_command(config: Path) -> str:
    """Return the command that runs a configuration file."""
    return _command("run", str(config))


def check_command(config: Path) -> str:
    """Return the command that checks a configuration file."""
    return _command("config", "check", str(config))


def fork_command(folder: Path, thread_id: str, settings: Mapping[str, str]) -> str:
    """Return the command that makes the session `thread_id` of the one in a folder, with these settings (field -> YAML)."""
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return _command("fork", folder.name, "--thread-id", thread_id, "--runs-dir", str(folder.parent), *changes)


def _command(*words: str) -> str:
    return shlex.join(("synalign", *words))
