"""The command line, called in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synalign_agent.cli.app import main


@pytest.fixture
def columns() -> int:
    """Width of the terminal; a module overrides it."""
    return 200


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, columns: int
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command line, with lines on stdin, and returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))

    def call(*arguments: str, keys: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["synalign", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call
