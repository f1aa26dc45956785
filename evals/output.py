"""What a run of an eval leaves: NAME.json with every number, NAME.md with the tables and NAME.png with the picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from evals.cells import Target
from evals.registry import Eval
from evals.results import EvalResult

_MARKS = {True: "yes", False: "no", None: "not measured"}


def write(module: Eval, result: EvalResult, folder: Path) -> dict[str, str]:
    """Write the three files; return their paths by kind."""
    paths = {
        "json": result.save(folder),
        "table": folder / f"{result.name}.md",
        "figure": folder / f"{result.name}.png",
    }
    paths["table"].write_text(markdown(module, result), encoding="utf-8")
    # Without the software's version, so that equal pictures are equal files.
    module.figure(result).savefig(paths["figure"], dpi=110, metadata={"Software": None})
    return {kind: str(path) for kind, path in paths.items()}


def markdown(module: Eval, result: EvalResult) -> str:
    """Return targets and tables as Markdown."""
    machine = result.machine
    lines = [
        f"# {result.name}",
        "",
        f"synalign-agent {result.version}, settings and data {result.fingerprint}, {len(result.seeds)} seeds, "
        f"{result.seconds:,.0f} s on {machine['cores']} cores ({machine['processor']}), {result.started[:10]}.",
        "",
        *markdown_table(target_table(module.targets(result))),
    ]
    for table in (*module.tables(result), *missing_tables(result)):
        lines += ["", *markdown_table(table)]
    return "\n".join(lines) + "\n"


def target_table(targets: list[Target]) -> Table:
    """Return the targets as a table."""
    table = Table(title="Targets")
    for heading in ("target", "measured", "met"):
        table.add_column(heading)
    for wanted, is_met, figure in targets:
        table.add_row(wanted, figure, _MARKS[is_met])
    return table


def missing_tables(result: EvalResult) -> list[Table]:
    """Return one table of what was not measured and why; none where all was."""
    counts = Counter((entry.metric, entry.reason) for entry in result.measurements if entry.value is None)
    if not counts:
        return []
    table = Table(title="Not measured (a dash in the tables)")
    for heading in ("score", "reason", "measurements"):
        table.add_column(heading, justify="right" if heading == "measurements" else "left")
    for (metric, reason), n in counts.items():
        table.add_row(metric, escape(reason or ""), str(n))
    return [table]


def markdown_table(table: Table) -> list[str]:
    """Return a rich table as lines of Markdown: its title, then header and rows."""
    header = [_plain(column.header) for column in table.columns]
    rules = ["---:" if column.justify == "right" else "---" for column in table.columns]
    rows = zip(*(map(_plain, column.cells) for column in table.columns), strict=True)
    title = [f"**{_plain(table.title)}**", ""] if table.title else []
    return [*title, *(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))]


def _plain(cell: Any) -> str:
    text = Text.from_markup(cell).plain if isinstance(cell, str) else str(cell)
    return text.replace("|", "\\|").replace("\n", " ")
