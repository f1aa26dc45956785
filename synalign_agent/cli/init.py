"""`synalign init`: write a commented configuration file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from synalign_agent.cli.output import stderr_console
from synalign_agent.errors import InputError


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("synalign.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented configuration: it runs as it is, on the example data with the embedded model."""
    from synalign_agent.config_file import commented_yaml, example_config
    from synalign_agent.report.commands import check_command, run_command

    if path.exists() and not force:
        raise InputError(f"{path} exists; --force replaces it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commented_yaml(example_config()), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another path") from None
    console = stderr_console()
    say = partial(console.print, markup=False, soft_wrap=True)
    say(f"Wrote {path}. Point data.path at your rows and llm at your endpoint, then:")
    say(f"  {check_command(path)}\n  {run_command(path)}")
