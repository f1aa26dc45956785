"""`synalign fork`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from synalign_agent.cli.answer import print_json
from synalign_agent.cli.output import escape, stderr_console
from synalign_agent.cli.run import AsJson, RunsDir
from synalign_agent.errors import InputError


def fork(
    thread_id: Annotated[
        str, typer.Argument(help="Name of the session to fork; it stays as it is, and may be running.")
    ],
    from_round: Annotated[
        int | None,
        typer.Option(help="First round that the fork makes itself; by default the one after the last finished round."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Configuration field and its new value, e.g. target.mmd2=0.01."
        ),
    ] = None,
    new_thread_id: Annotated[str | None, typer.Option("--thread-id", help="Name of the new session.")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Make a new session that shares another's first rounds and pays for no call that both make."""
    values = dict(_parse(setting) for setting in overrides or [])
    with stderr_console().status("Copying"):
        from synalign_agent.fork import fork_session
        from synalign_agent.report.commands import resume_command
        from synalign_agent.session import Session

        # The parent is not opened: that would bring it to the newest schema, and it is to stay as it is.
        made = fork_session(runs_dir / thread_id, from_round=from_round, overrides=values, thread_id=new_thread_id)
        with Session.view(made.name, runs_dir=runs_dir) as session:
            summary = session.summary()
    if as_json:
        print_json(summary)
        return
    lineage = summary["lineage"][-1]
    n_shared = lineage["from_round"] - 1
    shares = (
        f"shares rounds 1 to {n_shared} of {thread_id}"
        if n_shared
        else f"begins at round 1, with {thread_id}'s replies"
    )
    console = stderr_console()
    console.print(f"{made.name}: {shares}", markup=False, soft_wrap=True)
    for change in lineage["changes"]:
        console.print(f"  {change}", markup=False, soft_wrap=True)
    console.print(f"Run it with: [bold]{escape(resume_command(made))}[/]", soft_wrap=True)


def _parse(setting: str) -> tuple[str, Any]:
    """Split `field=value`; the value is YAML, so that numbers, null and lists are what they look like."""
    import yaml

    name, equals, value = setting.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set {setting}: write it as field=value, e.g. --set target.mmd2=0.01")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {setting}: the value is not YAML: {error}") from None
    return name.strip(), _as_number(parsed)


def _as_number(value: Any) -> Any:
    """Read 1e-3 as a number: YAML 1.1 wants 1.0e-3, and takes it for text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
