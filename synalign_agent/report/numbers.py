"""How the page writes numbers, money, times and texts; what was not measured is a dash, never 0."""

from __future__ import annotations

import math

from markupsafe import Markup, escape

_MAX_CHARACTERS = 600

NOT_MEASURED = Markup('<span class="missing" role="img" aria-label="not measured" title="not measured">–</span>')


def number(value: float | None) -> Markup:
    """Return an integer as it is and any other number with 4 significant digits."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if isinstance(value, int):
        return Markup(f"{value:,}".replace("-", "−"))
    return Markup(digits(value, 4))


def digits(value: float, n_digits: int) -> str:
    """Return a number with so many significant digits, and a power of ten where it is very large or small."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{n_digits - 1}e}".split("e")
    power = int(exponent)
    if -5 < power < 6:
        text = f"{value:,.{max(0, n_digits - 1 - power)}f}"
    else:
        text = f"{mantissa} × 10{str(power).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "−")


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def brief(value: float) -> str:
    """Return a number as a sentence says it."""
    return digits(value, 3)


def rounded(n: float) -> str:
    """Return a number of rows as a sentence says it."""
    return f"{n:,.0f}" if n >= 10 else digits(n, 2)


def usd(value: float | None) -> Markup:
    """Return an amount of money."""
    return NOT_MEASURED if value is None else Markup("${}").format(number(value))


def thousandth(value: float | None) -> float | None:
    """Turn a price of 1, which no MMD² ever falls by, into one of 0.001."""
    return None if value is None else value / 1000


def percent(share: float | None) -> Markup:
    """Return a share with a tenth of a per cent."""
    return NOT_MEASURED if share is None or not math.isfinite(share) else Markup(f"{100 * share:.1f} %")


def duration(seconds: float | None) -> Markup:
    """Return a time in seconds, minutes or hours."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_MEASURED
    if seconds < 59.95:
        return Markup(f"{digits(seconds, 3)} s")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return Markup(f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s")


def shorten(text: str) -> Markup:
    """Cut what would fill the page, such as a whole reply, and say so."""
    if len(text) <= _MAX_CHARACTERS:
        return escape(text)
    n_more = len(text) - _MAX_CHARACTERS
    cut = Markup('{}… <span class="muted">({} more characters)</span>')
    return cut.format(text[:_MAX_CHARACTERS], f"{n_more:,}")


def yes_no(value: bool | None) -> Markup:
    """Return a yes or no."""
    return NOT_MEASURED if value is None else Markup("yes" if value else "no")
