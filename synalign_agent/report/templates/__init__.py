"""The pages' templates, styles and scripts."""

from __future__ import annotations

from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup

from synalign_agent.report import numbers


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=numbers.number, usd=numbers.usd, duration=numbers.duration, shorten=numbers.shorten,
        thousandth=numbers.thousandth, percent=numbers.percent, yes_no=numbers.yes_no,
    )  # fmt: skip
    return environment


def template(name: str) -> jinja2.Template:
    """Return a page's template."""
    return _environment().get_template(name)


def asset(name: str) -> Markup:
    """Return a style sheet or a script, to stand in a page as it is."""
    return Markup(_source(name).rstrip())


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
