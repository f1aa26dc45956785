"""`synalign status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from synalign_agent.cli.answer import print_json
from synalign_agent.cli.output import (
    escape,
    print_ledger,
    print_sessions,
    print_summary,
    print_warning,
    stderr_console,
)
from synalign_agent.cli.run import AsJson, RunsDir


def status(
    thread_id: Annotated[str | None, typer.Argument(help="Name of the session; without one, all are listed.")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show where a session stands, what it cost, what failed and why, and the command that continues it; or list all sessions."""
    if thread_id is None:
        _list(runs_dir, as_json)
        return
    from synalign_agent.report.commands import resume_command, review_command
    from synalign_agent.report.summary import read_ledger
    from synalign_agent.session import Session

    with Session.view(thread_id, runs_dir=runs_dir) as session:
        summary = session.summary()
        ledger = read_ledger(session.store)
        if as_json:
            print_json({**summary, "ledger": ledger})
            return
        console = stderr_console()
        console.print(f"{thread_id}: [bold]{summary['status']}[/], {summary['n_rounds']} rounds finished")
        if summary["error"] is not None:
            console.print(f"  ended with: {escape(summary['error'])}", soft_wrap=True)
        for fork in summary["lineage"]:
            console.print(_fork_line(fork), soft_wrap=True, markup=False)
        for line in summary["warnings"]:
            print_warning(line)
        print_summary(summary)
        print_ledger(ledger)
        if summary["status"] not in ("finished", "running"):
            command = review_command if summary["review"]["pending"] else resume_command
            console.print(f"Continue with: [bold]{escape(command(session.folder))}[/]", soft_wrap=True)


def _fork_line(fork: dict[str, Any]) -> str:
    changes = "".join(f"; {change}" for change in fork["changes"])
    return f"  forked from {fork['parent']} at round {fork['from_round']}{changes}"


def _list(runs_dir: Path, as_json: bool) -> None:
    from synalign_agent.report.sessions import list_sessions

    sessions = list_sessions(runs_dir)
    if as_json:
        print_json({"runs_dir": str(runs_dir), "sessions": sessions})
        return
    if not sessions:
        stderr_console().print(f"{runs_dir}: no sessions; `synalign run` makes one", soft_wrap=True, markup=False)
        return
    print_sessions(sessions)
    for row in sessions:
        if row["status"] == "unreadable":
            print_warning(row["error"])
