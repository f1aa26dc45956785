"""The command line of the evals, behind `synalign eval` and `python -m evals`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evals import registry
from evals.compare import change_table, compare_files, summary
from evals.output import missing_tables, target_table, write
from evals.registry import load, settings_of
from synalign_agent.cli.align import progress_bars
from synalign_agent.cli.answer import print_json
from synalign_agent.cli.output import print_error, stdout_console
from synalign_agent.errors import InputError, InterruptedByUser, SynAlignError

Quick = Annotated[bool, typer.Option("--quick", help="A minute: whether it runs, no evidence.")]
Full = Annotated[bool, typer.Option("--full", help="All rows and seeds: hours. Without either: minutes.")]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with NAME/{ref,test,pool}.jsonl, or with OWNER--NAME/pool.jsonl for --set datasets=hf:OWNER/NAME; by "
        "default $SYNALIGN_EVAL_DATA, else ../shared/data."
    ),
]
Output = Annotated[Path, typer.Option(help="Folder for the JSON, the table and the picture.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Set a field of the settings; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the targets and paths as one JSON object on stdout.")]

DEFAULT_OUTPUT = Path("runs/eval")

app = typer.Typer(
    name="eval",
    help="Measure the method on data that others made. Results are JSON, a table and a picture.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("compare")
def compare_results(
    before: Annotated[Path, typer.Argument(help="JSON of an eval, or a folder with one.")],
    after: Annotated[Path, typer.Argument(help="JSON of another run of it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print what moved as one JSON object on stdout.")] = False,
) -> None:
    """Show what moved between two results beyond noise."""
    found = compare_files(before, after)
    if as_json:
        moved = [{**change._asdict(), "difference": change.difference._asdict()} for change in found.moved]
        print_json(
            {"moved": moved, "n_compared": len(found.changes), "n_unknown": found.n_unknown, "notes": found.notes}
        )
        return
    console = stdout_console()
    if found.moved:
        console.print(change_table(found))
    for line in summary(found):
        console.print(line)


def run_eval(
    name: str, preset: str, data: Path | None, output: Path, overrides: list[str], as_json: bool
) -> None:  # fmt: skip
    """Run an eval, write its files and print its targets and tables."""
    with progress_bars() as progress:
        progress("Starting", 0, 0)
        module = load(name)
        result = module.run(settings_of(module, preset, overrides), progress, data)
        paths = write(module, result, output)
    targets = module.targets(result)
    if as_json:
        wanted = [{"target": text, "met": is_met, "figure": figure} for text, is_met, figure in targets]
        print_json(
            {
                "name": name,
                "fingerprint": result.fingerprint,
                "seconds": result.seconds,
                "targets": wanted,
                "paths": paths,
            }
        )
        return
    console = stdout_console()
    for table in (target_table(targets), *module.tables(result), *missing_tables(result)):
        console.print(table)
    for kind, path in paths.items():
        console.print(f"{kind:>7}: {path}", soft_wrap=True)


def _preset(quick: bool, full: bool) -> str:
    if quick and full:
        raise InputError("--quick and --full exclude each other")
    return "quick" if quick else "full" if full else "short"


@app.command("all")
def run_all(quick: Quick = False, full: Full = False, data: Data = None, output: Output = DEFAULT_OUTPUT) -> None:
    """Run all evals, one after the other; what fails is named at the end, and the others are done."""
    failed: list[str] = []
    for name in registry.available():
        try:
            run_eval(name, _preset(quick, full), data, output, [], as_json=False)
        except InterruptedByUser:
            raise
        except SynAlignError as error:
            print_error(f"{name}: {error}")
            failed.append(name)
    if failed:
        raise InputError(f"not done: {', '.join(failed)}; the reasons are above")


def _add(name: str, question: str) -> None:
    def command(
        quick: Quick = False, full: Full = False, data: Data = None, output: Output = DEFAULT_OUTPUT,
        overrides: Overrides = None, as_json: AsJson = False,
    ) -> None:  # fmt: skip
        run_eval(name, _preset(quick, full), data, output, overrides or [], as_json)

    app.command(name, help=question)(command)


for _name, _question in registry.available().items():
    _add(_name, _question)
