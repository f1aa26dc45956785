"""`synalign compare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from synalign_agent.cli.answer import print_json
from synalign_agent.cli.output import escape, number, print_warning, stderr_console, stdout_console
from synalign_agent.cli.run import AsJson, RunsDir
from synalign_agent.errors import InputError


def compare(
    thread_ids: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Sessions; the others are compared with the first.")
    ],
    runs_dir: RunsDir = Path("runs"),
    html: Annotated[Path | None, typer.Option(help="Write the comparison as a page to this file.")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show sessions beside each other: distances with their floors, cost, and which settings differ."""
    if len(set(thread_ids)) < 2:
        raise InputError("compare needs two sessions or more; `synalign status` lists them")
    with stderr_console().status("Reading"):
        from synalign_agent.report import compare as report
        from synalign_agent.session import Session

        found = []
        for thread_id in dict.fromkeys(thread_ids):
            with Session.view(thread_id, runs_dir=runs_dir) as session:
                found.append(report.Compared.of(session.summary(), session.store, session.config))
        comparison = report.compare(found)
    if open_page and html is None:
        html = runs_dir / "comparison.html"
    if html is not None:
        _write_page(html, comparison)
    if as_json:
        print_json({**comparison, "path": None if html is None else str(html)})
    else:
        _print(comparison)
        if html is not None:
            stderr_console().print(f"page: {html}", markup=False, soft_wrap=True)
    if open_page and html is not None:
        typer.launch(str(html.resolve()))


def _write_page(path: Path, comparison: Mapping[str, Any]) -> None:
    from synalign_agent.report.compare_page import render_comparison
    from synalign_agent.report.export import write_atomically

    page = render_comparison(comparison)
    try:
        write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --html") from None


def _print(comparison: Mapping[str, Any]) -> None:
    from rich.table import Table

    console = stdout_console()
    sessions, differences = comparison["sessions"], comparison["differences"]
    table = Table()
    table.add_column("")
    for session in sessions:
        table.add_column(escape(session["thread_id"]), justify="right", overflow="fold")
    for name, value in _MEASURES:
        table.add_row(name, *(value(session) for session in sessions))
    table.add_section()
    table.add_row("MMD² minus the first's", "", *(number(row["mmd2"]) for row in differences))
    table.add_row("noise of that", "", *(number(row["noise"]) for row in differences))
    table.add_row("beyond noise", "", *(_yes_no(row["beyond_noise"]) for row in differences))
    console.print(table)
    if comparison["settings"]:
        settings = Table(title="Settings that differ")
        settings.add_column("field")
        for session in sessions:
            settings.add_column(escape(session["thread_id"]), overflow="fold")
        for row in comparison["settings"]:
            settings.add_row(row["field"], *(escape(str(value)) for value in row["values"]))
        console.print(settings)
    for row in differences:
        if row["not_comparable"]:
            print_warning(
                f"the distances of {row['thread_id']} cannot be compared with those of {sessions[0]['thread_id']}: "
                f"they differ in {', '.join(row['not_comparable'])}"
            )


def _yes_no(value: bool | None) -> str:
    return "–" if value is None else "yes" if value else "no"


_MEASURES: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("state", lambda session: str(session["status"])),
    ("MMD² aligned", lambda session: number(session["mmd2"]["aligned"])),
    ("MMD² random", lambda session: number(session["mmd2"]["raw"])),
    ("MMD² floor", lambda session: number(session["mmd2"]["floor"])),
    ("target", lambda session: number(session["mmd2"]["target"])),
    ("within noise of real data", lambda session: _yes_no(session["within_noise"])),
    ("worth as many real rows", lambda session: number(session["n_eq"]["aligned"])),
    ("rows", lambda session: f"{session['n_selected']} of {session['n_requested']}"),
    ("pool", lambda session: number(session["n_pool"])),
    ("rounds", lambda session: number(session["n_rounds"])),
    ("calls", lambda session: number(session["calls"]["done"])),
    ("tokens", lambda session: f"{number(session['tokens']['prompt'])} + {number(session['tokens']['completion'])}"),
    ("USD", lambda session: number(session["cost_usd"])),
    ("seconds", lambda session: f"{session['seconds']:.0f}"),
)
