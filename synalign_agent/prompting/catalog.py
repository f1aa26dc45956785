"""Find, check and hash the prompt files (`<name>.md.j2`: YAML front matter, then a Jinja body with role markers)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import StrictUndefined, TemplateSyntaxError, meta
from jinja2.sandbox import SandboxedEnvironment
from pydantic import BaseModel

from synalign_agent.errors import ConfigError
from synalign_agent.schemas import AttributeValues, GeneratedTexts, LabelJudgement, ProposedDimensions

SUFFIX = ".md.j2"


class PromptUse(NamedTuple):
    """How the prompt of a name is used, whoever wrote its file."""

    reply: type[BaseModel]
    """What its reply must fit."""
    inputs: frozenset[str]
    """What it is rendered with; a file names those that it needs."""


PROMPT_USES: Mapping[str, PromptUse] = {
    "propose_dimensions": PromptUse(ProposedDimensions, frozenset({"task", "examples", "n_dimensions"})),
    "summarize_attributes": PromptUse(AttributeValues, frozenset({"task", "label", "dimensions", "demonstrations"})),
    "generate_samples": PromptUse(
        GeneratedTexts,
        frozenset({"task", "label", "attributes", "guidance", "demonstrations", "layout", "n", "words"}),
    ),
    "judge_label": PromptUse(LabelJudgement, frozenset({"task", "text", "examples"})),
}


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A checked prompt file."""

    name: str
    version: str
    inputs: frozenset[str]
    output_schema: str
    """Name of the model that the reply must fit."""
    body: str
    sha256: str
    """Hash of the file with LF line ends."""
    source: str
    continues: frozenset[str] = frozenset()
    """Hashes of earlier versions that render the same where the inputs added since are empty: their sessions go on."""


@dataclass(frozen=True, slots=True)
class PromptCatalog:
    """All prompts of a session; a user's folder wins over the packaged files."""

    templates: dict[str, PromptTemplate]

    def __getitem__(self, name: str) -> PromptTemplate:
        return self.templates[name]

    @classmethod
    def load(cls, prompts_dir: str | None = None) -> PromptCatalog:
        """Read every prompt once, so that a broken file fails before the first call is paid for.

        Raises:
            ConfigError: a file is missing or unreadable, declares other variables than it uses, or some that it is not given.
        """
        folders = [packaged_prompts_dir()]
        if prompts_dir is not None:
            user = Path(prompts_dir)
            if not user.is_dir():
                raise ConfigError(f"prompts_dir: {user}: no such folder")
            unknown = sorted(
                path.name for path in user.glob(f"*{SUFFIX}") if path.name[: -len(SUFFIX)] not in PROMPT_USES
            )
            if unknown:
                raise ConfigError(
                    f"{user}: {', '.join(unknown)}: no prompt of that name; known: {', '.join(PROMPT_USES)}"
                )
            folders.insert(0, user)
        templates = {}
        for name in PROMPT_USES:
            path = next(
                (folder / f"{name}{SUFFIX}" for folder in folders if (folder / f"{name}{SUFFIX}").is_file()), None
            )
            if path is None:
                raise ConfigError(f"prompt {name}{SUFFIX} is missing from {folders[-1]}; is the installation complete?")
            templates[name] = load_template(path)
        return cls(templates)


def packaged_prompts_dir() -> Path:
    """Return the folder of the prompts that ship with the package (the repository's `prompts/` in a checkout)."""
    installed = Path(str(resources.files("synalign_agent"))) / "prompts"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "prompts"


def load_template(path: Path) -> PromptTemplate:
    """Read one prompt file and check it: the variables that it declares are those that it uses, and are given."""
    try:
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as UTF-8: {error}") from None
    try:
        _, header, body = text.split("---\n", 2)
        front: dict[str, Any] = yaml.safe_load(header)
        name, version = str(front["name"]), str(front["version"])
        inputs, schema = frozenset(map(str, front["inputs"])), str(front["output_schema"])
        continues = frozenset(map(str, front.get("continues", ())))
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path}: needs front matter between two `---` lines with name, version, inputs and output_schema ({error})"
        ) from None
    if name != path.name[: -len(SUFFIX)] or name not in PROMPT_USES:
        raise ConfigError(f"{path}: front matter says name {name!r}")
    use = PROMPT_USES[name]
    if schema != use.reply.__name__:
        raise ConfigError(f"{path}: output_schema {schema!r}: replies to this prompt are read as {use.reply.__name__}")
    if not_given := sorted(inputs - use.inputs):
        raise ConfigError(f"{path}: inputs: no {', '.join(not_given)}; it is given {', '.join(sorted(use.inputs))}")
    try:
        used = meta.find_undeclared_variables(environment().parse(body))
    except TemplateSyntaxError as error:
        raise ConfigError(f"{path}: line {error.lineno}: {error.message}") from None
    if undeclared := sorted(used - inputs):
        raise ConfigError(f"{path}: uses {', '.join(undeclared)} without declaring it under inputs")
    if unused := sorted(inputs - used):
        raise ConfigError(f"{path}: declares {', '.join(unused)} under inputs but never uses it")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return PromptTemplate(name, version, inputs, schema, body, digest, str(path), continues)


def environment() -> SandboxedEnvironment:
    """Return the Jinja environment of all prompts: sandboxed, and a missing variable is an error."""
    env = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    # Jinja's own `tojson` escapes for HTML, which a model would then imitate.
    env.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env
