"""`synalign eval`: run the evals of a checkout; they are not part of the installed package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import typer

import synalign_agent
from synalign_agent.errors import InputError, MissingExtraError


def evaluate(context: typer.Context) -> None:
    """Run an eval of the method on benchmark data, or compare two results. In a checkout: the evals are not in the package."""
    root = _checkout()
    # First on the path: another package may be called `evals`.
    sys.path.insert(0, str(root))
    try:
        commands: Any = importlib.import_module("evals.commands")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("evals", "synalign_agent")):
            raise
        raise MissingExtraError(f"evals need {error.name}: run `pip install --editable '.[eval]'` in {root}") from None
    commands.app(args=context.args, prog_name="synalign eval")


def _checkout() -> Path:
    """Return the checkout that this package is of, or that the working directory is in."""
    here = Path.cwd()
    for root in (Path(synalign_agent.__file__).resolve().parents[1], here, *here.parents):
        if (root / "evals" / "commands.py").is_file() and (root / "synalign_agent" / "__init__.py").is_file():
            return root
    raise InputError(
        "the evals are not part of the installed package: clone the repository, run `pip install --editable '.[eval]'` "
        "there, and call `synalign eval` in it"
    )
