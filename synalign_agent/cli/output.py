"""What a person sees: messages and warnings on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_REASONS = {
    "target_reached": "target reached",
    "patience": "no further gain",
    "max_rounds": "round limit reached",
    "max_calls": "call limit reached",
    "max_tokens": "token limit reached",
    "max_usd": "money limit reached",
    "no_new_samples": "no new samples were accepted",
}


def stderr_console() -> Console:
    """Return the console for everything that is not the result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_error(message: str) -> None:
    """Print an error to stderr."""
    stderr_console().print(f"[bold red]error:[/] {_escape(message)}", soft_wrap=True)


def print_warning(message: str) -> None:
    """Print a warning to stderr."""
    stderr_console().print(f"[yellow]warning:[/] {_escape(message)}", soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the tables of a session, its stop reason and its paths."""
    from rich.console import Console

    console = Console(highlight=False)
    if summary["mmd2"]["aligned"] is not None:
        console.print(_distance_table(summary))
        console.print(_label_table(summary))
        if summary["mmd2"]["reference"] != "holdout":
            console.print(
                "Distances are to the reference rows themselves: too few real rows to hold any out "
                f"({summary['mmd2']['reference']}).",
                style="yellow",
            )
    if summary["rejections"]:
        counts = ", ".join(f"{reason} {count}" for reason, count in summary["rejections"].items())
        console.print(f"Rejected: {counts}")
    calls, tokens = summary["calls"], summary["tokens"]
    console.print(
        f"Calls: {calls['done']} done, {calls['failed']} failed, {calls['repeated']} repeated, "
        f"{calls['in_flight_lost']} lost in flight. Tokens: {tokens['prompt']:,} + {tokens['completion']:,}. "
        f"Cost: {summary['cost_usd']:.4f} USD. Time: {summary['seconds']:.0f} s."
    )
    reason = summary["stop_reason"]
    if reason is not None:
        console.print(f"Stopped: {_REASONS.get(reason, reason)}.")
    for name, path in summary["paths"].items():
        if path is not None:
            console.print(f"{name:>8}: {path}", soft_wrap=True)


def number(value: float | None) -> str:
    """Return four significant digits, or a dash for what was not measured."""
    return "–" if value is None else f"{value:.4g}"


def _distance_table(summary: Mapping[str, Any]) -> Table:
    from rich.table import Table

    mmd2, n_eq, n = summary["mmd2"], summary["n_eq"], summary["n_selected"]
    table = Table(title=f"{n} of {summary['n_requested']} rows, out of a pool of {summary['n_pool']}")
    table.add_column("")
    table.add_column("MMD²", justify="right")
    table.add_column("worth as many real rows", justify="right")
    table.add_row(f"{n} rows drawn at random from the pool", number(mmd2["raw"]), number(n_eq["raw"]))
    table.add_row(
        f"[bold]{n} aligned rows[/]", f"[bold]{number(mmd2['aligned'])}[/]", f"[bold]{number(n_eq['aligned'])}[/]"
    )
    table.add_row(f"{n} real rows (noise floor)", number(mmd2["floor"]), str(n))
    table.add_row("target", number(mmd2["target"]), "")
    return table


def _label_table(summary: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="Per label")
    for heading in ("label", "rows", "pool", "MMD² random", "MMD² aligned", "MMD² floor"):
        table.add_column(heading, justify="left" if heading == "label" else "right")
    for label, row in summary["per_label"].items():
        mmd2 = row["mmd2"]
        table.add_row(
            _escape(label), f"{row['n_selected']} of {row['n_requested']}", str(row["n_pool"]),
            number(mmd2["raw"]), number(mmd2["aligned"]), number(mmd2["floor"]),
        )  # fmt: skip
    return table


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
