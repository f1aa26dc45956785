"""`synalign run` and `synalign resume`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from synalign_agent.cli.answer import print_json
from synalign_agent.cli.log_lines import log_lines
from synalign_agent.cli.output import escape, print_note, print_summary, print_warning, stderr_console
from synalign_agent.errors import InterruptedByUser, SynAlignError
from synalign_agent.state import WAITING

if TYPE_CHECKING:
    from synalign_agent.session import Session

Work = Callable[..., Coroutine[Any, Any, dict[str, Any]]]
RunsDir = Annotated[Path, typer.Option(help="Folder that holds the session folders.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
LogFormat = Annotated[
    Literal["text", "json"],
    typer.Option(help="`json`: stderr is a log, one object a line with thread_id, round and node, and without texts."),
]
AcceptChanges = Annotated[
    bool, typer.Option("--accept-changes", help="Continue although the configuration is not the session's.")
]


def run(
    config: Annotated[Path, typer.Argument(help="Configuration file; `synalign init` writes one.")],
    real: Annotated[str | None, typer.Option(help="Real rows: file, Hugging Face dataset, or example:NAME.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Field that holds the text.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Field that holds the label; '' for none.")] = None,
    task: Annotated[str | None, typer.Option(help="What the texts are, in a few words; the prompts use it.")] = None,
    n_samples: Annotated[int | None, typer.Option(help="Synthetic rows to deliver.")] = None,
    base_url: Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint, ending in /v1.")] = None,
    model: Annotated[str | None, typer.Option(help="Model name at the endpoint, or GGUF path if embedded.")] = None,
    runs_dir: Annotated[str | None, typer.Option(help="Folder that holds the session folders.")] = None,
    thread_id: Annotated[str | None, typer.Option(help="Name of the session; an existing one is continued.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    accept_changes: AcceptChanges = False,
    log_format: LogFormat = "text",
    as_json: AsJson = False,
) -> None:
    """Write a synthetic dataset that matches real rows. Options override the configuration file."""
    stderr = stderr_console()
    with stderr.status("Starting"):
        from synalign_agent.config import SessionConfig, resolve_path
        from synalign_agent.config_file import example_config
        from synalign_agent.session import Session

        loaded = SessionConfig.load(config)
        here = Path.cwd()
        settings = loaded.with_overrides(
            {
                "data.path": real and resolve_path(real, here),
                "task": task,
                "data.text_column": text_column,
                "data.label_column": label_column,
                "n_samples": n_samples,
                "llm.base_url": base_url,
                # An endpoint on the command line means that endpoint, whatever provider the file names.
                "llm.provider": "openai" if base_url else None,
                "llm.model": model and resolve_path(model, here),
                "runs_dir": runs_dir,
                "seed": seed,
            }
        )
        if label_column == "":
            settings = settings.model_copy(update={"data": settings.data.model_copy(update={"label_column": None})})
        if real and task is None and settings.task == example_config().task:
            print_warning(
                f"--real names other rows, but the prompts still say {settings.task!r}: set --task, or task: in {config}"
            )
        session = Session.create(settings, thread_id=thread_id, accept_changes=accept_changes)
    _run(session, as_json, log_format)


def resume(
    thread_id: Annotated[str, typer.Argument(help="Name of the session.")],
    runs_dir: RunsDir = Path("runs"),
    accept_changes: AcceptChanges = False,
    log_format: LogFormat = "text",
    as_json: AsJson = False,
) -> None:
    """Continue a session that was paused, interrupted or killed. No finished call is sent again."""
    stderr = stderr_console()
    with stderr.status("Starting"):
        from synalign_agent.session import Session

        session = Session.open(thread_id, runs_dir=runs_dir, accept_changes=accept_changes)
    _run(session, as_json, log_format)


def go_on(session: Session, as_json: bool, work: Work | None = None) -> dict[str, Any]:
    """Run a session with a live view, to a review or to its end, and return its numbers; `work` replaces `session.arun`.

    Raises:
        typer.Exit: it was interrupted.
        SynAlignError: it failed; how to resume was printed.
    """
    from synalign_agent.cli.panel import watch

    try:
        with watch(session) as notify:
            return asyncio.run((work or session.arun)(notify=notify, handle_signals=True))
    except (InterruptedByUser, KeyboardInterrupt):
        _print_stopped(session, "Stopped. Every finished call is saved.", as_json)
        raise typer.Exit(InterruptedByUser.exit_code) from None
    except SynAlignError as error:
        # Bad input keeps its own message; what can be resumed says how.
        if error.exit_code != 2:
            _print_stopped(session, "The session is saved.", as_json, str(error))
        raise


def show_end(session: Session, summary: dict[str, Any], as_json: bool) -> None:
    """Print what a session came to.

    Raises:
        typer.Exit: it waits for a review, or delivered fewer samples than asked for.
    """
    if as_json:
        print_json(summary)
    if summary["status"] == WAITING:
        from synalign_agent.report.commands import review_command

        print_note(
            f"Waiting for {_what_waits(session)}. Continue with: [bold]{escape(review_command(session.folder))}[/]"
        )
        raise typer.Exit(4)
    if not as_json:
        print_summary(summary)
    if summary["n_selected"] < summary["n_requested"]:
        print_warning(f"{summary['n_selected']} of {summary['n_requested']} samples: {_way_on(session, summary)}")
        raise typer.Exit(3)


def _run(session: Session, as_json: bool, log_format: str) -> None:
    with session, log_lines(session.thread_id) if log_format == "json" else nullcontext():
        for line in session.summary()["warnings"]:
            print_warning(line)
        show_end(session, go_on(session, as_json), as_json)


def _what_waits(session: Session) -> str:
    """Say how many items nobody has decided."""
    pending = session.review()
    if pending is None or not pending.undecided:
        return "review"
    n_items, n_undecided = len(pending.items), len(pending.undecided)
    rest = f"; {n_items - n_undecided} of {n_items} are decided" if n_undecided < n_items else ""
    return f"review of {n_undecided} item{'' if n_undecided == 1 else 's'}{rest}"


def _way_on(session: Session, summary: dict[str, Any]) -> str:
    """Say why a run delivered too little, and what would make it deliver more."""
    from synalign_agent.report.commands import resume_command
    from synalign_agent.report.summary import REPORT
    from synalign_agent.report.verdict import why_stopped

    reason, rejected = summary["stop_reason"], summary["rejections"]
    again = f"run `{resume_command(session.folder, '--accept-changes')}`"
    config = session.folder / "config.yaml"
    if reason == "no_new_samples" and rejected:
        most = max(rejected, key=lambda name: rejected[name])
        return (
            f"{why_stopped(reason)}. Most were rejected as {most} ({rejected[most]}): look at the rejected texts in "
            f"{session.folder / REPORT}, change `gates` or `task` in {config}, and {again}"
        )
    return f"{why_stopped(reason)}. Raise the limit in {config} and {again}"


def _print_stopped(session: Session, what: str, as_json: bool, error: str | None = None) -> None:
    from synalign_agent.report.commands import resume_command

    print_note(f"{what} Resume with: [bold]{escape(resume_command(session.folder))}[/]")
    if as_json:
        print_json({**session.summary(), "error": error})
