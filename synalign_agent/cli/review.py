"""`synalign review`: decide what a session waits for, in the terminal or by files."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synalign_agent.cli.answer import print_json
from synalign_agent.cli.output import escape, print_warning, stderr_console
from synalign_agent.cli.review_terminal import Terminal, print_conflicts
from synalign_agent.cli.run import AsJson, RunsDir, go_on, show_end
from synalign_agent.errors import InputError

if TYPE_CHECKING:
    from synalign_agent.review import PendingReview
    from synalign_agent.session import Session


def review(
    thread_id: Annotated[str, typer.Argument(help="Name of the session.")],
    runs_dir: RunsDir = Path("runs"),
    export: Annotated[
        Path | None, typer.Option(help="Write what waits to this file (.jsonl or .csv) and stop.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", help="Read decisions from this file and go on if none is missing.")
    ] = None,
    reviewer: Annotated[str | None, typer.Option(help="Who decides (default: your user name).")] = None,
    again: Annotated[bool, typer.Option("--again", help="Go through items that are decided already, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Decide about the attributes or samples that a session waits for; every decision is saved at once."""
    if export is not None and import_ is not None:
        raise InputError("--export and --import: give one of them")
    with stderr_console().status("Starting"):
        from synalign_agent.session import Session

        session = Session.open(thread_id, runs_dir=runs_dir)
    with session:
        pending = session.review()
        if pending is None:
            raise InputError(f"session {thread_id} does not wait for a review (its status is {session.status()})")
        if export is not None:
            from synalign_agent.review_files import write_review

            write_review(pending, export)
            stderr_console().print(f"{len(pending.items)} items in {export}: fill in `decision` and import the file.")
            if as_json:
                print_json({"thread_id": thread_id, "path": str(export), "n_items": len(pending.items)})
            return
        name = reviewer or getpass.getuser()
        if import_ is not None:
            _import(session, pending, import_, name, as_json)
            return
        _by_hand(session, pending, name, again, as_json)


def _import(session: Session, pending: PendingReview, path: Path, reviewer: str, as_json: bool) -> None:
    from synalign_agent.review_files import read_review

    decisions = read_review(pending, path, reviewer=reviewer)
    pending = session.keep(decisions)
    stderr_console().print(f"{len(decisions)} decisions read from {path}.")
    print_conflicts(pending)
    if pending.undecided:
        _leave(session, pending, as_json)
    _go_on(session, as_json)


def _by_hand(session: Session, pending: PendingReview, reviewer: str, again: bool, as_json: bool) -> None:
    while True:
        if not Terminal(session, pending, reviewer).decide_all(again):
            _leave(session, session.review() or pending, as_json)
        summary = go_on(session, as_json, session.aanswer)
        following = session.review()
        if following is None:
            show_end(session, summary, as_json)
            return
        pending, again = following, False


def _go_on(session: Session, as_json: bool) -> None:
    summary = go_on(session, as_json, session.aanswer)
    following = session.review()
    for item in following.items if following is not None else ():
        if item.problem is not None:
            print_warning(f"item {item.id}: {item.problem}")
    show_end(session, summary, as_json)


def _leave(session: Session, pending: PendingReview, as_json: bool) -> None:
    from synalign_agent.report.commands import review_command

    console = stderr_console()
    n_decided = len(pending.items) - len(pending.undecided)
    console.print(f"{n_decided} of {len(pending.items)} items are decided, and saved.")
    console.print(f"Continue with: [bold]{escape(review_command(session.folder))}[/]", soft_wrap=True)
    if as_json:
        print_json(session.summary())
    raise typer.Exit(4)
