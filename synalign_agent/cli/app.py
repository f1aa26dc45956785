"""`synalign`: the commands, their exit codes, and errors as plain sentences."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from synalign_agent import __version__
from synalign_agent.cli import config as config_commands
from synalign_agent.cli.align import align
from synalign_agent.cli.answer import answer_error, one_answer
from synalign_agent.cli.compare import compare
from synalign_agent.cli.evaluate import evaluate
from synalign_agent.cli.explore import explore
from synalign_agent.cli.export import export, report
from synalign_agent.cli.fork import fork
from synalign_agent.cli.init import init
from synalign_agent.cli.output import print_error
from synalign_agent.cli.review import review
from synalign_agent.cli.run import resume, run
from synalign_agent.cli.status import status
from synalign_agent.errors import InputError, InterruptedByUser, SynAlignError

app = typer.Typer(
    name="synalign",
    help="Write synthetic text that matches the distribution of your real data.",
    epilog="Exit codes: 0 done, 2 bad usage or input, 3 stopped by a limit before the samples asked for, 4 waiting for review, "
    "5 endpoint failure (resumable), 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(init)
app.command()(run)
app.command()(resume)
app.command()(review)
app.command()(status)
app.command()(fork)
app.command()(report)
app.command()(compare)
app.command()(export)
app.command()(explore)
app.command()(align)
# Everything after `eval` is for the evals' own command line.
app.command("eval", add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    evaluate
)
app.add_typer(config_commands.app, name="config")


@app.callback(invoke_without_command=True)
def top(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Write synthetic text that matches the distribution of your real data."""
    if version:
        sys.stdout.write(f"{__version__}\n")
        raise typer.Exit


def main() -> None:
    """Run the command line; errors that a user can mend end with their sentence and exit code, not with a traceback."""
    with one_answer():
        try:
            app()
        except SynAlignError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted", InterruptedByUser.exit_code)
        except SystemExit as stop:
            # Typer has said on stderr what is wrong with the arguments; its error is what it met when it gave up.
            wrong_usage = getattr(stop.__context__, "format_message", None)
            if wrong_usage is not None:
                answer_error(wrong_usage(), InputError.exit_code)
            elif stop.code == InterruptedByUser.exit_code:
                answer_error("interrupted", InterruptedByUser.exit_code)
            raise


def _fail(message: str, exit_code: int) -> NoReturn:
    print_error(message)
    answer_error(message, exit_code)
    sys.exit(exit_code)
