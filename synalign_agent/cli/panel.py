"""The live view of a run: a panel on a terminal, plain lines elsewhere; warnings are always shown above it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from synalign_agent.cli.log_lines import LOG, stderr_is_a_log
from synalign_agent.cli.output import cost, number, stderr_console, token_counts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from synalign_agent.session import Session

_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 15.0


@contextmanager
def watch(session: Session) -> Iterator[Callable[[str], None]]:
    """Show the progress of a session until the block ends; yield a function that takes what is being prepared.

    Where stderr is a log, nothing is drawn: the session logs its rounds itself.
    """
    if stderr_is_a_log():
        yield LOG.info
        return
    console = stderr_console()
    view = _View(session)
    with _warnings_on(console):
        if console.is_terminal:
            from rich.live import Live

            with Live(get_renderable=view.panel, console=console, refresh_per_second=1 / _REFRESH_SECONDS):
                yield view.notify
        else:
            stop = threading.Event()
            printer = threading.Thread(target=_print_lines, args=(view, console, stop), daemon=True)
            printer.start()
            try:
                yield view.announce(console)
            finally:
                stop.set()
                printer.join()


class _View:
    """What is known of a run, read from its store."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stage = "Starting"
        self._started = time.monotonic()
        self._tokens_before = self._completion_tokens()

    def notify(self, stage: str) -> None:
        self._stage = stage

    def announce(self, console: Console) -> Callable[[str], None]:
        """Return a function that takes what is being prepared and prints it as a line."""

        def notify(stage: str) -> None:
            self.notify(stage)
            console.print(stage)

        return notify

    def line(self) -> str:
        """Return one line of plain text."""
        s = self._session.summary()
        mmd2 = s["mmd2"]
        return (
            f"round {s['n_rounds'] + 1}: {self._pool_text(s)}; calls {s['calls']['done']} done, {s['calls']['failed']} failed; "
            f"{self._tokens_per_second(s):.0f} tokens/s; cost {cost(s['cost_usd'])}; rejected {sum(s['rejections'].values())}; "
            f"MMD2 {number(mmd2['aligned'])} (target {number(mmd2['target'])}, floor {number(mmd2['floor'])})"
        )

    def panel(self) -> RenderableType:
        """Return the panel for a terminal."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        s = self._session.summary()
        mmd2, calls, tokens = s["mmd2"], s["calls"], s["tokens"]
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right")
        grid.add_column()
        grid.add_row("round", f"{s['n_rounds'] + 1}   [dim]{self._stage}[/]")
        grid.add_row("accepted", self._pool_text(s))
        grid.add_row("rejected", "  ".join(f"{reason} {count}" for reason, count in s["rejections"].items()) or "–")
        grid.add_row("calls", f"{calls['done']} done  {calls['failed']} failed")
        grid.add_row("tokens", f"{token_counts(tokens)}   {self._tokens_per_second(s):.0f} per second")
        grid.add_row("cost", f"{cost(s['cost_usd'])}   {time.monotonic() - self._started:.0f} s")
        grid.add_row(
            "MMD²",
            f"[bold]{number(mmd2['aligned'])}[/]   raw {number(mmd2['raw'])}   floor {number(mmd2['floor'])}   "
            f"target {number(mmd2['target'])}",
        )
        bar = ProgressBar(
            total=self._session.config.pool_target, completed=min(s["n_pool"], self._session.config.pool_target)
        )
        return Panel(Group(grid, bar), title=f"synalign · {self._session.thread_id}", title_align="left")

    def _pool_text(self, summary: dict[str, Any]) -> str:
        wanted = self._session.config.pool_target
        return f"{summary['n_pool']} of {wanted} for the pool, {summary['n_requested']} to deliver"

    def _tokens_per_second(self, summary: dict[str, Any]) -> float:
        seconds = max(time.monotonic() - self._started, 1e-9)
        return ((summary["tokens"]["completion"] or 0) - self._tokens_before) / seconds

    def _completion_tokens(self) -> int:
        return int(self._session.summary()["tokens"]["completion"] or 0)


def _print_lines(view: _View, console: Console, stop: threading.Event) -> None:
    while not stop.wait(_LINE_SECONDS):
        console.print(view.line(), soft_wrap=True)


def _warnings_on(console: Console) -> AbstractContextManager[None]:
    """Send log records and Python warnings through the console, so that the panel never covers them."""
    from rich.logging import RichHandler

    from synalign_agent.observe.logs import records_to

    return records_to(RichHandler(console=console, show_path=False, level=logging.WARNING))
