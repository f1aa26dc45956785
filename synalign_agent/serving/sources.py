"""Rows that come over the network: in the request, within limits, or in a file of the one folder that clients may read."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synalign_agent.config import EXAMPLE_PREFIX
from synalign_agent.config.paths import FILE_SUFFIXES
from synalign_agent.config.serving import ServingConfig
from synalign_agent.data.reader import example_path
from synalign_agent.errors import InputError

Rows = list[dict[str, Any]] | list[str]
"""Rows of a request: objects with the fields that the options name, or texts."""
RowsOrFile = Rows | str
"""Rows, the name of a file in the server's data folder, or `example:NAME`."""

_ENDINGS = sorted(FILE_SUFFIXES - {".gguf"})


def checked_source(given: object, name: str, serving: ServingConfig) -> RowsOrFile:
    """Return rows within the limits, or the path of a file that clients may read.

    Args:
        given: what the client sent under `name`.
        name: what errors call it.
        serving: the limits.

    Raises:
        InputError: it is neither, or too large; the message names what the client sent, and no path of the server.
    """
    if isinstance(given, str):
        return checked_file(given, name, serving)
    return checked_rows(given, name, serving)


def checked_file(given: str, name: str, serving: ServingConfig) -> str:
    """Return the absolute path of a file in the data folder, links followed, or the name of an example.

    Raises:
        InputError: there is no such file in the folder, or it is too large, or of another kind.
    """
    if given.startswith(EXAMPLE_PREFIX):
        example_path(given.removeprefix(EXAMPLE_PREFIX))
        return given
    if serving.data_dir is None:
        raise InputError(f"{name}: this server reads no files; send the rows themselves, or example:customer_messages")
    path = _inside(Path(serving.data_dir), given)
    if path is None:
        # One sentence for a file that is missing and for one that is elsewhere: it tells nothing of what is there.
        raise InputError(f"{name}: {given[:200]!r} is no file in the data folder of this server")
    if path.suffix.lower() not in _ENDINGS:
        raise InputError(f"{name}: {given!r}: give a file that ends in {', '.join(_ENDINGS)}")
    n_bytes = path.stat().st_size
    if n_bytes > serving.max_file_bytes:
        raise InputError(
            f"{name}: {given!r} has {n_bytes:,} bytes, and this server reads {serving.max_file_bytes:,} at most"
        )
    return str(path)


def check_given(state: Collection[str], *names: str) -> None:
    """Check that the input of this run, not of an earlier one on the thread, gave the fields.

    Raises:
        InputError: one is missing.
    """
    for name in names:
        if name not in state:
            raise InputError(f"{name}: is missing from the input of this run; rows are not kept between runs")


def checked_rows(given: object, name: str, serving: ServingConfig) -> Rows:
    """Return the rows if they are within the limits on their number, each value, and all of them.

    Raises:
        InputError: they are not, or are no rows.
    """
    if isinstance(given, str):
        raise InputError(
            f"{name}: expected a list of rows, found a text; the name of a file belongs in config.data.path"
        )
    if not isinstance(given, Sequence) or not given:
        raise InputError(f"{name}: give a list of texts or objects with at least one row, or the name of a file")
    if len(given) > serving.max_rows:
        raise InputError(
            f"{name}: {len(given):,} rows, and one request may bring {serving.max_rows:,}; put them into a file of the server's "
            "data folder and send its name"
        )
    n_bytes = 0
    for place, row in enumerate(given):
        if not isinstance(row, str | Mapping):
            raise InputError(f"{name}: row {place} (from 0): expected a text or an object, found {type(row).__name__}")
        for value in (row,) if isinstance(row, str) else row.values():
            n_value = _n_bytes(value, name, place)
            if n_value > serving.max_text_bytes:
                raise InputError(
                    f"{name}: row {place} (from 0): a value of {n_value:,} bytes, and this server takes "
                    f"{serving.max_text_bytes:,}; shorten the text, or leave the field out"
                )
        n_bytes += _n_bytes(row, name, place)
        if n_bytes > serving.max_request_bytes:
            raise InputError(
                f"{name}: more than {serving.max_request_bytes:,} bytes of rows, which is the most that one request may bring; "
                "put them into a file of the server's data folder and send its name"
            )
    return list(given)


def as_json_lines(rows: Rows, text_column: str) -> Iterator[str]:
    """Yield each row as a line of JSON; a text becomes an object with the field `text_column`."""
    for row in rows:
        yield json.dumps({text_column: row} if isinstance(row, str) else row, ensure_ascii=True) + "\n"


def _inside(folder: Path, given: str) -> Path | None:
    try:
        path = (folder / given).resolve()
        return path if not Path(given).is_absolute() and path.is_relative_to(folder) and path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a NUL byte
        return None


def _n_bytes(value: object, name: str, place: int) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    try:
        return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    except (RecursionError, TypeError, ValueError):
        raise InputError(f"{name}: row {place} (from 0): is no plain JSON of moderate depth") from None
