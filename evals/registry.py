"""Which evals there are, and what each of them offers."""

from __future__ import annotations

import ast
import importlib
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from evals.cells import Target
from evals.results import EvalResult
from synalign_agent.errors import InputError, MissingExtraError
from synalign_agent.toolkit.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

NAMES = ("alignment", "downstream", "exploration", "loop", "attributes", "copying")
"""Each is the module of this name."""
PRESETS = ("quick", "short", "full")
_FOLDER = Path(__file__).parent


class Eval(Protocol):
    """What the module of an eval has; the first line of its docstring says what it asks."""

    Settings: Any
    """A frozen dataclass of plain values with `preset(name)`, a class method for quick, short and full."""

    def run(self, settings: Any, progress: Progress, data_dir: Path | None = None) -> EvalResult:
        """Measure."""

    def tables(self, result: EvalResult) -> list[Table]:
        """Return the result for people."""

    def figure(self, result: EvalResult) -> Figure:
        """Draw it."""

    def targets(self, result: EvalResult) -> list[Target]:
        """Return what was wanted of it, and whether it is so."""


def load(name: str) -> Eval:
    """Return the module of an eval.

    Raises:
        InputError: there is none of this name.
        MissingExtraError: a library that evals need is not installed.
    """
    if name not in available():
        raise InputError(f"there is no eval {name!r}; there are {', '.join(available())}")
    try:
        module: Any = importlib.import_module(f"evals.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("evals", "synalign_agent")):
            raise
        raise MissingExtraError(
            f"evals need {error.name}: run `pip install --editable '.[eval]'` in the checkout"
        ) from None
    found: Eval = module
    return found


def available() -> dict[str, str]:
    """Return the evals that this checkout has, each with its question; nothing is imported."""
    found = {}
    for name in NAMES:
        path = _FOLDER / f"{name}.py"
        if path.is_file():
            documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[name] = documentation.partition("\n")[0]
    return found


def settings_of(module: Eval, preset: str, overrides: list[str]) -> Any:
    """Return a preset with some fields set otherwise.

    Args:
        module: an eval.
        preset: quick, short or full.
        overrides: `field=value`, values in YAML.

    Raises:
        InputError: a field does not exist, or a value has another type than the preset's.
    """
    settings = module.Settings.preset(preset)
    known = {field.name: getattr(settings, field.name) for field in fields(settings)}
    changed: dict[str, Any] = {}
    for text in overrides:
        name, equals, raw = text.partition("=")
        if not equals or name not in known:
            raise InputError(f"--set {text}: expected FIELD=VALUE with a field of {', '.join(known)}")
        try:
            value = yaml.safe_load(raw)
        except yaml.YAMLError:
            raise InputError(f"--set {text}: {raw!r} is not a value in YAML") from None
        changed[name] = _like(known[name], value, text)
    return replace(settings, **changed)


def _like(old: Any, value: Any, text: str) -> Any:
    """Return a value in the type of the one it replaces."""
    if isinstance(old, tuple):
        entries = value if isinstance(value, list) else [value]
        return tuple(_like(old[0], entry, text) if old else entry for entry in entries)
    if isinstance(old, str) and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(old, float) and type(value) is int:
        return float(value)
    if old is not None and value is not None and type(value) is not type(old):
        raise InputError(f"--set {text}: expected a value like {old!r}")
    return value
