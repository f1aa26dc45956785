"""`--json`: what stdout holds is one object, of a command that fails too."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_given: ContextVar[bool] = ContextVar("synalign_answer_given", default=False)


@contextmanager
def one_answer() -> Iterator[None]:
    """Begin a command, which has printed nothing yet."""
    token = _given.set(False)
    try:
        yield
    finally:
        _given.reset(token)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout."""
    _given.set(True)
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def answer_error(message: str, exit_code: int) -> None:
    """Print why a command ends as its object, if it was given `--json` and has printed none."""
    # The arguments themselves, as options that cannot be read are an error too, and no command has run by then.
    if "--json" in sys.argv[1:] and not _given.get():
        print_json({"error": message, "exit_code": exit_code})
