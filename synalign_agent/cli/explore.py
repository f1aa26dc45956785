"""`synalign explore`: list the real rows that show what the data contain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synalign_agent.cli.align import Encoder, HoldoutFraction, LabelColumn, Seed, TextColumn, one_line, progress_bars
from synalign_agent.cli.answer import print_json
from synalign_agent.cli.output import escape, number, print_warning, stdout_console
from synalign_agent.cli.run import AsJson
from synalign_agent.toolkit import Strategy

if TYPE_CHECKING:
    from rich.table import Table


def explore(
    real: Annotated[str, typer.Argument(help="Real rows: JSONL, CSV or Parquet file, or a Hugging Face dataset.")],
    n: Annotated[int, typer.Option("--n", "-n", help="Demonstrations to pick.")],
    strategy: Annotated[
        Strategy,
        typer.Option(help="`ivr`: lowers the mean posterior variance of all rows most; the others for comparison."),
    ] = "ivr",
    cluster_size: Annotated[int, typer.Option(help="Rows picked together: one and its nearest neighbours.")] = 1,
    lengthscale_factor: Annotated[
        float, typer.Option(help="Lengthscale and radius of coverage, as a multiple of the median distance.")
    ] = 0.7,
    text_column: TextColumn = "text",
    label_column: LabelColumn = None,
    holdout_fraction: HoldoutFraction = 0.2,
    seed: Seed = 0,
    embeddings: Annotated[
        str | None, typer.Option(help=".npy file with a vector for every row, instead of an encoder.")
    ] = None,
    encoder: Encoder = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to write them too: a .jsonl, .csv or .parquet file, or a folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pick real rows as demonstrations, in order, with the share of the data that they cover. Held-out rows are not picked."""
    with progress_bars() as progress:
        progress("Starting", 0, 0)
        from synalign_agent.toolkit import explore as explorer
        from synalign_agent.toolkit.files import check_output

        if output is not None:
            check_output(output)
        result = explorer.explore(
            real, n, strategy=strategy, cluster_size=cluster_size, lengthscale_factor=lengthscale_factor,
            text_column=text_column, label_column=label_column, holdout_fraction=holdout_fraction, seed=seed,
            embeddings=embeddings, encoder=encoder, progress=progress,
        )  # fmt: skip
        paths = result.save(output) if output is not None else {}
    for line in result.report["warnings"]:
        print_warning(line)
    if as_json:
        print_json({**result.report, "paths": paths})
    else:
        _print_report(result.report, paths)


def _print_report(report: Mapping[str, Any], paths: Mapping[str, str]) -> None:
    console = stdout_console()
    console.print(_table(report))
    coverage = report["coverage"]
    console.print(
        f"{coverage['explored']:.1%} of {report['n_real']} rows are within a distance of {coverage['radius']:.3g} (of unit "
        f"vectors) of a demonstration; of as many random ones, {coverage['random']:.1%} are."
    )
    for name, path in paths.items():
        console.print(f"{name}: {escape(path)}", soft_wrap=True)


def _table(report: Mapping[str, Any]) -> Table:
    from rich.table import Table

    # All columns but the text have their width; the text takes what is left and is cut to it.
    table = Table(title=f"{report['n_selected']} demonstrations ({report['strategy']})", expand=True)
    with_labels = report["label_column"] is not None
    for heading in ("pick", "row", "variance", "coverage"):
        table.add_column(heading, justify="right")
    if with_labels:
        table.add_column("label")
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis")
    for row in report["demonstrations"]:
        table.add_row(
            str(row["pick"]), str(row["row"]), number(row["variance"]), f"{row['coverage']:.1%}",
            *([escape(row["label"])] if with_labels else []), one_line(row["text"]),
        )  # fmt: skip
    return table
