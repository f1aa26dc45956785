"""`synalign export` and `synalign report`: write the files of a session again, from what it has now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synalign_agent.cli.answer import print_json
from synalign_agent.cli.output import print_summary, stderr_console
from synalign_agent.cli.run import AsJson, RunsDir


def export(
    thread_id: Annotated[str, typer.Argument(help="Name of the session.")],
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write dataset, pool, dataset card and report from the last finished round, without calling the model."""
    from synalign_agent.session import Session

    with Session.view(thread_id, runs_dir=runs_dir) as session:
        with stderr_console().status("Writing"):
            summary = session.export()
        if as_json:
            print_json(summary)
        else:
            print_summary(summary)


def report(
    thread_id: Annotated[str, typer.Argument(help="Name of the session.")],
    runs_dir: RunsDir = Path("runs"),
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the report page again and show the numbers."""
    export(thread_id, runs_dir, as_json)
    if open_page:
        typer.launch(str((runs_dir / thread_id / "report.html").resolve()))
