"""What a person sees: messages and warnings on stderr, results on stdout."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from synalign_agent.cli.log_lines import LOG, stderr_is_a_log

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH = 160
"""Columns of a table that no terminal shows: names and session ids stay whole, for `grep` and logs."""
_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def stderr_console() -> Console:
    """Return the console for everything that is not the result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def stdout_console() -> Console:
    """Return the console for results; in a pipe or a file it is as wide as tables need, unless COLUMNS says how wide."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH
    return console


def print_error(message: str) -> None:
    """Print an error to stderr."""
    stderr_console().print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)


def print_note(message: str) -> None:
    """Print a message, with rich markup, to stderr."""
    if stderr_is_a_log():
        from rich.text import Text

        LOG.info(Text.from_markup(message).plain)
        return
    stderr_console().print(message, soft_wrap=True)


def print_warning(message: str) -> None:
    """Print a warning to stderr."""
    if stderr_is_a_log():
        LOG.warning(message)
        return
    stderr_console().print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the tables of a session, its stop reason and its paths."""
    from synalign_agent.report.verdict import reference_note, why_stopped

    console = stdout_console()
    if summary["mmd2"]["aligned"] is not None:
        drawn, target = "rows drawn at random from the pool", ("target", summary["mmd2"]["target"])
        console.print(distance_table(summary, drawn, str(summary["n_selected"]), target))
        console.print(label_table(summary))
        if note := reference_note(summary["mmd2"]["reference"]):
            console.print(note, style="yellow")
    if summary["rejections"]:
        counts = ", ".join(f"{reason} {count}" for reason, count in summary["rejections"].items())
        console.print(f"Rejected: {counts}")
    calls, tokens = summary["calls"], summary["tokens"]
    console.print(
        f"Calls: {calls['done']} done, {calls['failed']} failed, {calls['repeated']} repeated, "
        f"{calls['in_flight_lost']} lost in flight. Tokens: {token_counts(tokens)}. "
        f"Cost: {cost(summary['cost_usd'])}. Time: {summary['seconds']:.0f} s."
    )
    reason = summary["stop_reason"]
    if reason is not None:
        console.print(f"Stopped: {why_stopped(reason)}.")
    for name, path in summary["paths"].items():
        if path is not None:
            console.print(f"{name:>8}: {path}", soft_wrap=True)


def print_ledger(ledger: Mapping[str, Any]) -> None:
    """Print what the calls of a session cost and bought (see `report/ledger.py`)."""
    console = stdout_console()
    calls, sample = ledger["calls"], ledger["per_accepted_sample"]
    if ledger["by_prompt"]:
        console.print(_spending_table("prompt", ledger["by_prompt"]))
    if ledger["by_node"]:
        console.print(_spending_table("node", ledger["by_node"]))
    if ledger["by_round"]:
        console.print(_gain_table(ledger["by_round"]))
    console.print(
        f"For each accepted sample: {number(sample['calls'])} calls, {number(sample['tokens'])} tokens, "
        f"{_usd(sample['cost_usd'])}."
    )
    if calls["cached"]:
        console.print(f"Answered by the response cache, at no cost: {calls['cached']} calls.")
    if calls["inherited"]:
        console.print(
            f"Inherited from the session that this one was forked from: {calls['inherited']} calls, "
            f"{_usd(ledger['inherited_cost_usd'])}."
        )
    for name, count in calls["failed_by_class"].items():
        console.print(f"Failed attempts: {escape(name)} {count}")
    if ledger["cost_usd"] is None and calls["done"]:
        console.print("Cost is not known: set llm.prices, and use an endpoint that reports its tokens.", style="dim")


def print_sessions(sessions: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of sessions (see `report/sessions.py`)."""
    from rich.table import Table

    table = Table()
    for heading in ("session", "state", "rounds", "pool", "rows", "MMD²", "target", "calls", "failed", "USD"):
        table.add_column(heading, justify="left" if heading in ("session", "state") else "right", overflow="fold")
    for row in sessions:
        name = escape(row["thread_id"])
        if row["forked_from"]:
            name += f" [dim]of {escape(row['forked_from'])}[/]"
        chosen = "–" if row["n_selected"] is None else f"{row['n_selected']}/{number(row['n_requested'])}"
        table.add_row(
            name, row["status"], number(row["n_rounds"]), number(row["n_pool"]), chosen, number(row["mmd2"]["aligned"]),
            number(row["mmd2"]["target"]), number(row["calls"]["done"]), number(row["calls"]["failed"]),
            number(row["cost_usd"]),
        )  # fmt: skip
    stdout_console().print(table)


def number(value: float | None) -> str:
    """Return four significant digits, or a dash for what was not measured."""
    if isinstance(value, int):
        return str(value)
    return "–" if value is None else f"{value:.4g}"


def token_counts(tokens: Mapping[str, int | None]) -> str:
    """Return prompt plus completion tokens, for people."""
    return "not reported" if tokens["prompt"] is None else f"{tokens['prompt']:,} + {tokens['completion']:,}"


def cost(value: float | None) -> str:
    """Return what was paid, for people."""
    return "not known" if value is None else f"{value:.4f} USD"


def _usd(value: float | None) -> str:
    return "cost not known" if value is None else f"{value:.4g} USD"


def _spending_table(what: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title=f"By {what}")
    for heading in (what, "done", "cached", "failed", "lost", "prompt tokens", "completion tokens", "USD"):
        table.add_column(heading, justify="left" if heading == what else "right")
    for name, row in rows.items():
        table.add_row(
            escape(name), number(row["done"]), number(row["cached"]), number(row["failed"]), number(row["in_flight_lost"]),
            number(row["tokens"]["prompt"]), number(row["tokens"]["completion"]), number(row["cost_usd"]),
        )  # fmt: skip
    return table


def _gain_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title="By round")
    for heading in (
        "round",
        "calls",
        "tokens",
        "USD",
        "accepted",
        "MMD² gained",
        "USD per MMD²",
        "USD per MMD² since round 1",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            number(row["round"]), number(row["calls"]), number(row["tokens"]), number(row["cost_usd"]), number(row["accepted"]),
            number(row["mmd2_gained"]), number(row["cost_usd_per_mmd2"]), number(row["cumulative"]["cost_usd_per_mmd2"]),
        )  # fmt: skip
    return table


def distance_table(report: Mapping[str, Any], drawn: str, floor_n_eq: str, last: tuple[str, float | None]) -> Table:
    """Return random, aligned and real rows beside each other.

    Args:
        report: with `mmd2`, `n_eq`, `n_selected`, `n_requested` and `n_pool`.
        drawn: what the random rows are called.
        floor_n_eq: what the real rows are worth.
        last: name and MMD² of what the distances are held against.
    """
    from rich.table import Table

    mmd2, n_eq, n = report["mmd2"], report["n_eq"], report["n_selected"]
    table = Table(title=f"{n} of {report['n_requested']} rows, out of a pool of {report['n_pool']}")
    table.add_column("")
    table.add_column("MMD²", justify="right")
    table.add_column("worth as many real rows", justify="right")
    table.add_row(f"{n} {drawn}", number(mmd2["raw"]), number(n_eq["raw"]))
    table.add_row(
        f"[bold]{n} aligned rows[/]", f"[bold]{number(mmd2['aligned'])}[/]", f"[bold]{number(n_eq['aligned'])}[/]"
    )
    table.add_row(f"{n} real rows (noise floor)", number(mmd2["floor"]), floor_n_eq)
    table.add_row(last[0], number(last[1]), "")
    return table


def label_table(summary: Mapping[str, Any]) -> Table:
    """Return rows and distances of every label; `summary` has `per_label`."""
    from rich.table import Table

    table = Table(title="Per label")
    for heading in ("label", "rows", "pool", "MMD² random", "MMD² aligned", "MMD² floor"):
        table.add_column(heading, justify="left" if heading == "label" else "right")
    for label, row in summary["per_label"].items():
        mmd2 = row["mmd2"]
        table.add_row(
            escape(label), f"{row['n_selected']} of {row['n_requested']}", str(row["n_pool"]),
            number(mmd2["raw"]), number(mmd2["aligned"]), number(mmd2["floor"]),
        )  # fmt: skip
    return table


def escape(text: str) -> str:
    """Return a text that rich prints as it is, without what a terminal takes for commands: texts come from models and files."""
    from rich.markup import escape

    return escape(text.translate(_CONTROL))
