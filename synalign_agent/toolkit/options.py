"""What options may be."""

from __future__ import annotations

from numbers import Integral

from synalign_agent.errors import InputError


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Refuse what is not a whole number of at least `least`.

    Raises:
        InputError: with the option's name and its value.
    """
    if not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} must be a whole number, {least} or more, got {value!r}")
