"""`synalign review` in the terminal: one item after the other, by keys, or by lines where there is no terminal."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from synalign_agent.cli.output import escape, print_warning, stderr_console
from synalign_agent.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from synalign_agent.records import Decision
    from synalign_agent.review import PendingReview, ReviewItem
    from synalign_agent.session import Session

_KEYS = "[bold]a[/] approve  [bold]e[/] edit  [bold]r[/] reject  [bold]s[/] skip  [bold]u[/] undo  [bold]q[/] quit"


class Terminal:
    """One batch, item by item. On a terminal a key is enough; elsewhere each answer is a line."""

    def __init__(self, session: Session, pending: PendingReview, reviewer: str) -> None:
        self._session = session
        self._pending = pending
        self._reviewer = reviewer
        self._console: Console = stderr_console()
        decided = (item for item in pending.items if item.decision and item.decision.reviewer == reviewer)
        self._made = [item.id for item in decided]
        """Items that this reviewer decided, in order, for undo."""

    def decide_all(self, again: bool) -> bool:
        """Ask about every item; return False if the person leaves before all are decided."""
        if self._pending.kind == "attributes":
            _print_tables(self._console, self._pending.items)
        queue = [item.id for item in (self._pending.items if again else self._pending.undecided)]
        while True:
            while queue:
                key = self._about(queue[0])
                if key == "q":
                    return False
                if key == "s":
                    queue.append(queue.pop(0))
                elif key == "u":
                    queue = self._undo(queue)
                else:
                    queue.pop(0)
            print_conflicts(self._pending)
            self._console.print(f"All {len(self._pending.items)} items are decided.")
            key = self._key("[bold]g[/] go on with the run  [bold]u[/] undo  [bold]q[/] quit", "guq")
            if key == "g":
                return True
            if key == "q":
                return False
            queue = self._undo([])

    def _about(self, id: str) -> str:
        """Show an item until there is a decision, or a key that leads elsewhere; return the key."""
        item = self._item(id)
        left = len(self._pending.undecided)
        self._console.rule(f"{left} of {len(self._pending.items)} to decide")
        _print_item(self._console, item)
        while True:
            key = self._key(_KEYS, "aersuq")
            if key in "suq":
                return key
            try:
                self._keep(item, key)
            except EOFError:
                return "q"
            except InputError as error:
                self._console.print(f"[yellow]{escape(str(error))}[/]")
                continue
            return key

    def _keep(self, item: ReviewItem, key: str) -> None:
        from synalign_agent.review import decide

        by = partial(decide, item, reviewer=self._reviewer)
        if key == "a":
            decision = by("approve")
        elif key == "r":
            decision = by("reject", reason=_line("Why? "))
        else:
            decision = by("edit", edit=_ask_edit(self._console, item))
        self._pending = self._session.keep([decision])
        self._console.print(f"  {decision.verdict}: saved", style="green")
        self._made.append(item.id)

    def _undo(self, queue: Sequence[str]) -> list[str]:
        """Take this reviewer's last decision back and put its item first."""
        from synalign_agent.review import decide

        if not self._made:
            self._console.print("Nothing to undo.")
            return list(queue)
        id = self._made.pop()
        self._pending = self._session.keep([decide(self._item(id), "undo", reviewer=self._reviewer)])
        return [id, *(other for other in queue if other != id)]

    def _item(self, id: str) -> ReviewItem:
        return self._pending.item(id)

    def _key(self, prompt: str, allowed: str) -> str:
        while True:
            self._console.print(prompt)
            key = _read_key()
            if key in allowed:
                return key


def print_conflicts(pending: PendingReview) -> None:
    """Warn of items about which reviewers differ."""
    for item in pending.items:
        if item.conflicting:
            said = ", ".join(_said(decision) for decision in item.conflicting)
            print_warning(f"item {item.id}: reviewers differ ({said}); the later decision counts")


def _said(decision: Decision) -> str:
    reason = f": {decision.reason}" if decision.reason else ""
    return f"{decision.reviewer} {decision.decided_at[:19]} {decision.verdict}{reason}"


def _read_key() -> str:
    """Return a key in lower case; the end of the input means `q`."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip()[:1].lower() or ("?" if line else "q")
    import click

    try:
        return click.getchar().lower()
    except (EOFError, KeyboardInterrupt):
        return "q"


def _line(prompt: str, before: str = "") -> str:
    """Ask for a line; on a terminal `before` stands there to be changed."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")
    import readline

    readline.set_startup_hook(lambda: readline.insert_text(before))
    try:
        return input(prompt)
    except KeyboardInterrupt:
        raise EOFError from None
    finally:
        readline.set_startup_hook()


def _ask_edit(console: Console, item: ReviewItem) -> str | dict[str, str]:
    now = item.content
    if isinstance(now, str):
        return _edited_lines(now) if sys.stdin.isatty() and len(now.splitlines()) > 1 else _line("New text: ", now)
    console.print("An empty value drops the dimension.")
    edited = {name: _line(f"{name}: ", value) for name, value in now.items()}
    while new := _line("Another dimension, as name: value (empty ends): "):
        name, _, value = new.partition(":")
        edited[name] = value
    return edited


def _edited_lines(text: str) -> str:
    """Open the editor, which a text of several lines needs; leaving it without saving changes nothing."""
    import click

    edited = click.edit(text)
    return text if edited is None else edited


def _print_item(console: Console, item: ReviewItem) -> None:
    shown = item.shown
    label = f"[bold]{escape(str(shown['label']))}[/]  " if shown["label"] else ""
    if item.problem:
        console.print(f"[yellow]{escape(item.problem)}[/]")
    if item.kind == "sample":
        console.print(f"{label}{escape(shown['text'])}")
        similarity, nearest = shown["nearest_similarity"], escape(shown["nearest_real"])
        console.print(f"  nearest real row (cosine {similarity:.2f}): {nearest}", style="dim")
        said = "; ".join(f"{name}: {value}" for name, value in shown["attributes"].items())
        if said:
            console.print(f"  asked for: {escape(said)}", style="dim")
        for flag in shown["flags"]:
            console.print(f"  [yellow]near a threshold:[/] {escape(flag)}")
    else:
        console.print(label)
        for name, value in shown["attributes"].items():
            console.print(f"  {escape(name)}: {escape(value) or '–'}")
        for text in shown["demonstrations"]:
            console.print(f"  - {escape(text)}", style="dim")
    for decision in item.given:
        console.print(f"  {escape(_said(decision))}", style="cyan")


def _print_tables(console: Console, items: Sequence[ReviewItem]) -> None:
    """Print dimension x value, a table for each label."""
    from rich.table import Table

    by_label: dict[Any, list[ReviewItem]] = {}
    for item in items:
        by_label.setdefault(item.shown["label"], []).append(item)
    for label, group in by_label.items():
        names = list(dict.fromkeys(name for item in group for name in item.shown["attributes"]))
        table = Table(*map(escape, names), title=label and escape(label))
        for item in group:
            table.add_row(*(escape(item.shown["attributes"].get(name, "")) or "–" for name in names))
        console.print(table)
