"""`synalign config check` and `synalign config schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synalign_agent.cli.answer import print_json
from synalign_agent.cli.output import escape, print_warning, stderr_console
from synalign_agent.cli.run import AsJson

app = typer.Typer(help="Look at a configuration.", no_args_is_help=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from synalign_agent.config import SessionConfig

    print_json(SessionConfig.model_json_schema())


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="Configuration file.")],
    as_json: AsJson = False,
) -> None:
    """Check file, columns, prompts, encoder and model endpoint without spending a generation call."""
    from synalign_agent.preflight import preflight
    from synalign_agent.report.commands import run_command

    console = stderr_console()
    with console.status("Checking"):
        found = preflight(config)
    for line in found.warnings:
        print_warning(line)
    if as_json:
        print_json({"ok": True, "checks": found.checks, "warnings": found.warnings, "fingerprint": found.fingerprint})
        return
    for name, text in found.checks.items():
        console.print(f"[green]ok[/] {name}: {escape(text)}", soft_wrap=True)
    console.print(f"Next: [bold]{escape(run_command(config))}[/]", soft_wrap=True)
