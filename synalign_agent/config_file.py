"""The configuration as a file that explains itself."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from synalign_agent.config import DataConfig, LLMConfig, Section, SessionConfig

_WIDTH = 110


def example_config() -> SessionConfig:
    """Return a configuration that runs without a key or a network: example data, embedded model.

    All else is at its default, as it is what people begin their own from.
    """
    return SessionConfig(
        data=DataConfig(path="example:customer_messages"),
        task="short messages that customers send to an online shop",
        n_samples=60,
        llm=LLMConfig(provider="embedded"),
    )


def commented_yaml(config: SessionConfig) -> str:
    """Return the configuration as YAML with every field's meaning, unit and default above it."""
    return "\n".join(["# synalign-agent session. Fields at their default may be left out.", *_lines(config, 0)]) + "\n"


def _lines(section: Section, depth: int) -> list[str]:
    indent = "  " * depth
    lines: list[str] = []
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if depth == 0:
            lines.append("")
        comment = info.description or ""
        if isinstance(value, Section):
            lines += _comment(comment, indent)
            lines += [f"{indent}{name}:", *_lines(value, depth + 1)]
            continue
        if not info.is_required():
            comment += f" Default: {_inline(info.get_default(call_default_factory=True))}."
        lines += _comment(comment, indent)
        lines.append(f"{indent}{name}: {_inline(value)}")
    return lines


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - len(indent))]


def _inline(value: Any) -> str:
    if isinstance(value, Section):
        value = value.model_dump(mode="json")
    dumped: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return dumped.removesuffix("\n").removesuffix("...").strip()
