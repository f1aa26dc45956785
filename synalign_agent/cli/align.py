"""`synalign align`: select synthetic rows from any source so that they match real rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synalign_agent.cli.answer import print_json
from synalign_agent.cli.output import (
    distance_table,
    escape,
    label_table,
    number,
    print_warning,
    stderr_console,
    stdout_console,
)
from synalign_agent.cli.run import AsJson
from synalign_agent.errors import InterruptedByUser
from synalign_agent.toolkit import Objective

if TYPE_CHECKING:
    from rich.table import Table

TextColumn = Annotated[str, typer.Option(help="Field that holds the text.")]
LabelColumn = Annotated[str | None, typer.Option(help="Field that holds the label; without it, rows are one group.")]
Encoder = Annotated[
    str | None, typer.Option(help="sentence-transformers id or path; by default the packaged all-MiniLM-L6-v2.")
]
HoldoutFraction = Annotated[float, typer.Option(help="Share of each label's real rows kept for scoring only.")]
Seed = Annotated[int, typer.Option(help="Seed of the hold-out and of every random choice.")]
_SHOWN_LETTERS = 200


def align(
    real: Annotated[str, typer.Argument(help="Real rows: JSONL, CSV or Parquet file, or a Hugging Face dataset.")],
    synthetic: Annotated[str, typer.Argument(help="Synthetic rows to choose from, with the same fields.")],
    n_samples: Annotated[int, typer.Option("--n-samples", "-n", help="Rows to select.")],
    output: Annotated[Path, typer.Option(help="Folder for the rows and the report.")],
    objective: Annotated[Objective, typer.Option(help="How rows are weighed; `none` draws at random.")] = "kernel",
    text_column: TextColumn = "text",
    label_column: LabelColumn = None,
    max_copies: Annotated[int, typer.Option(help="How often one row may be selected.")] = 1,
    cap: Annotated[
        float | None,
        typer.Option(help="Largest weight, times the mean weight of selected rows; by default --max-copies."),
    ] = None,
    min_ess: Annotated[float | None, typer.Option(help="Least effective sample size of the weights, in rows.")] = None,
    swaps: Annotated[bool, typer.Option(help="Exchange selected rows for others where that comes nearer.")] = True,
    contrast_shrinkage: Annotated[
        bool, typer.Option(help="Follow what tells labels apart only as far as the real rows can tell it from chance.")
    ] = True,
    max_label_odds: Annotated[
        float, typer.Option(help="Leave out rows for which another label is so many times as probable (inf: none).")
    ] = 2.0,
    holdout_fraction: HoldoutFraction = 0.2,
    seed: Seed = 0,
    embeddings: Annotated[
        str | None, typer.Option(help=".npy file with a vector for every real row, instead of an encoder.")
    ] = None,
    synthetic_embeddings: Annotated[
        str | None, typer.Option(help=".npy file with a vector for every synthetic row, by the same encoder.")
    ] = None,
    encoder: Encoder = None,
    as_json: AsJson = False,
) -> None:
    """Select synthetic rows from any source so that they match real rows, and measure how well they do. Calls no LLM."""
    with progress_bars() as progress:
        progress("Starting", 0, 0)
        from synalign_agent.toolkit import align as aligner
        from synalign_agent.toolkit.files import check_output

        check_output(output)
        result = aligner.align(
            real, synthetic, n_samples=n_samples, objective=objective, text_column=text_column, label_column=label_column,
            max_copies=max_copies, cap=cap, min_ess=min_ess, swaps=swaps, contrast_shrinkage=contrast_shrinkage,
            max_label_odds=None if math.isinf(max_label_odds) else max_label_odds, holdout_fraction=holdout_fraction, seed=seed,
            embeddings=embeddings, synthetic_embeddings=synthetic_embeddings, encoder=encoder, progress=progress,
        )  # fmt: skip
        progress("Writing", 0, 0)
        paths = result.save(output)
    for line in result.report["warnings"]:
        print_warning(line)
    if as_json:
        print_json({**result.report, "paths": paths})
    else:
        _print_report(result.report, paths)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show work on stderr until the block ends, as bars on a terminal and as lines elsewhere; Ctrl-C is exit code 130."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = stderr_console()
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
        transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    tasks: dict[str, Any] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            for task in tasks.values():  # one thing at a time: what came before is finished
                bars.update(task, visible=False)
            tasks[what] = bars.add_task(what, total=total or None)
            if not console.is_terminal:
                console.print(what)
        bars.update(tasks[what], completed=done, total=total or None)

    try:
        with bars:
            yield show
    except KeyboardInterrupt:
        raise InterruptedByUser("interrupted; nothing was written") from None


def one_line(text: str) -> str:
    """Return a text for a cell of a table, which cuts it to its width."""
    return escape(" ".join(text[:_SHOWN_LETTERS].split()))


def _print_report(report: Mapping[str, Any], paths: Mapping[str, str]) -> None:
    console = stdout_console()
    quantile = ("as many, 95 of 100 times below", report["mmd2"]["floor_quantile"])
    console.print(distance_table(report, "random rows of the pool", number(report["n_eq"]["floor"]), quantile))
    if report["label_column"] is not None:
        console.print(label_table(report))
    if report["gap_map"]:
        console.print(_gap_table(report))
    console.print(
        f"Effective sample size of the weights: {report['ess']:.0f}. Time: {report['seconds']['total']:.1f} s."
    )
    if report["sampling_excess"]:
        console.print(
            f"Weights were fitted to {report['n_fitted']:,} of {report['n_real'] - report['n_held_out']:,} real rows; in MMD² "
            f"this costs at most {number(report['sampling_excess'])} on average."
        )
    if report["p_value"] is not None:
        console.print(
            f"If the selected and the {report['n_held_out']} held-out rows were of one distribution, they would differ as "
            f"much with probability {_probability(report['p_value'])}."
        )
    for name, path in paths.items():
        console.print(f"{name:>8}: {escape(path)}", soft_wrap=True)


def _probability(value: float) -> str:
    return "below 0.0001" if value < 1e-4 else number(value)


def _gap_table(report: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="What is missing: shares of the rows, where the selected one is too low", expand=True)
    with_labels = report["label_column"] is not None
    if with_labels:
        table.add_column("label")
    table.add_column("real rows like", ratio=1, no_wrap=True, overflow="ellipsis")
    for heading in ("real", "selected", "pool"):
        table.add_column(heading, justify="right")
    for gap in report["gap_map"]:
        shares = [f"{gap[name]:.1%}" for name in ("mass", "synthetic_mass", "pool_mass")]
        table.add_row(*([escape(gap["label"])] if with_labels else []), one_line(gap["examples"][0]), *shares)
    return table
