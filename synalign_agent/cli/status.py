"""`synalign status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synalign_agent.cli.output import print_json, print_summary, print_warning, stderr_console
from synalign_agent.cli.run import AsJson, RunsDir, resume_command


def status(
    thread_id: Annotated[str, typer.Argument(help="Name of the session.")],
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show where a session stands, what failed and why, and the command that continues it."""
    from synalign_agent.session import Session

    with Session.view(thread_id, runs_dir=runs_dir) as session:
        summary = session.summary()
        if as_json:
            print_json(summary)
            return
        console = stderr_console()
        console.print(f"{thread_id}: [bold]{summary['status']}[/], {summary['n_rounds']} rounds finished")
        for line in summary["warnings"]:
            print_warning(line)
        print_summary(summary)
        for name, count in summary["calls"]["failed_by_class"].items():
            console.print(f"  failed calls: {name} {count}")
        if summary["status"] not in ("finished", "running"):
            console.print(f"Continue with: [bold]{resume_command(session)}[/]", soft_wrap=True)
