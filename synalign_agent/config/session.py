"""Everything that defines a session, read from YAML and hashed."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from synalign_agent.config.alignment import AlignConfig, LimitsConfig, TargetConfig
from synalign_agent.config.data import DataConfig, EncoderConfig
from synalign_agent.config.generation import AttributesConfig, ExploreConfig, GatesConfig, GenerateConfig
from synalign_agent.config.llm import LLMConfig
from synalign_agent.config.observability import ObservabilityConfig
from synalign_agent.config.paths import resolve_path
from synalign_agent.config.review import ReviewConfig
from synalign_agent.config.section import OPERATIONAL, SECRET_ERROR, Section, is_operational, value_before, walk_fields
from synalign_agent.config.storage import StorageConfig
from synalign_agent.errors import ConfigError

FINGERPRINT_VERSION = 1


class SessionConfig(Section):
    """Everything that defines a session."""

    data: DataConfig = Field(description="The real rows to match.")
    task: str = Field(
        "short texts", min_length=1, description="What the texts are, in a few words; the prompts use it."
    )
    n_samples: int = Field(300, ge=1, description="Synthetic rows to deliver.")
    seed: int = Field(0, ge=0, description="Seed of every random choice, also sent to the LLM.")
    runs_dir: str = Field("runs", description="Folder that holds the session folders.", json_schema_extra=OPERATIONAL)
    prompts_dir: str | None = Field(None, description="Folder with your own prompt files, which win over the packaged.")
    round_samples: int | None = Field(
        None, ge=1, description="Texts to ask for per round (null = a third of the pool wanted)."
    )
    llm: LLMConfig = Field(default_factory=LLMConfig, description="The model that writes.")
    encoder: EncoderConfig = Field(default_factory=EncoderConfig, description="The sentence encoder.")
    explore: ExploreConfig = Field(default_factory=ExploreConfig, description="Explorer.")
    attributes: AttributesConfig = Field(default_factory=AttributesConfig, description="Attribute summarizer.")
    generate: GenerateConfig = Field(default_factory=GenerateConfig, description="Generator.")
    gates: GatesConfig = Field(default_factory=GatesConfig, description="Gates before the pool.")
    review: ReviewConfig = Field(default_factory=ReviewConfig, description="Review by people.")
    align: AlignConfig = Field(default_factory=AlignConfig, description="Aligner.")
    target: TargetConfig = Field(default_factory=TargetConfig, description="Target distance.")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="Rounds, calls, tokens and money.")
    storage: StorageConfig = Field(default_factory=StorageConfig, description="Where the session is kept.")
    observability: ObservabilityConfig = Field(
        default_factory=ObservabilityConfig, description="Traces, experiment tracking and callbacks."
    )

    @property
    def pool_target(self) -> int:
        """Accepted samples wanted before the first stop test."""
        return round(self.align.oversampling * self.n_samples)

    @property
    def texts_per_round(self) -> int:
        """Most texts that a round asks for: a third of the pool, unless configured."""
        return self.round_samples or max(1, -(-self.pool_target // 3))

    @classmethod
    def load(cls, path: str | Path, *, resolve_paths: bool = True) -> SessionConfig:
        """Read and validate a YAML file; relative paths in it are taken relative to the file, unless told otherwise.

        Raises:
            ConfigError: the file is missing, is not YAML, or a field is unknown or out of range (all of them are named).
        """
        path = Path(path)
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file; `synalign init {path}` writes one to start from") from None
        except (
            OSError,
            ValueError,
            RecursionError,
            yaml.YAMLError,
        ) as error:  # ValueError: a date that is none, a byte that is not UTF-8
            raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
        if raw is None:
            raise ConfigError(f"{path}: is empty; `synalign init {path} --force` writes one to start from")
        if not isinstance(raw, dict):
            raise ConfigError(f"{path}: expected `field: value` lines at the top level, found {type(raw).__name__}")
        config = cls.parse(raw, source=str(path))
        return config.resolve_paths(path.parent) if resolve_paths else config

    @classmethod
    def parse(cls, raw: Mapping[str, Any], *, source: str = "config") -> SessionConfig:
        """Validate plain values; `source` names their origin in errors."""
        try:
            return cls.model_validate(dict(raw))
        except ValidationError as error:
            lines = [f"{source}: {_where(item['loc'])}: {_plain(item)}" for item in error.errors()]
            raise ConfigError("\n".join(lines)) from None

    @classmethod
    def parse_stored(cls, raw: Mapping[str, Any]) -> SessionConfig:
        """Validate what a session stored; fields that did not exist then have the value that it behaved by."""
        source = "stored configuration"
        filled = copy.deepcopy(dict(raw))
        for dotted, info, _ in walk_fields(cls.parse(raw, source=source)):
            *parents, last = dotted.split(".")
            section = filled
            for name in parents:
                section = section.setdefault(name, {})
            for value in value_before(info):
                section.setdefault(last, value)
        return cls.parse(filled, source=source)

    def resolve_paths(self, folder: Path) -> SessionConfig:
        """Return a copy whose relative paths are absolute, seen from `folder`; `runs_dir` is seen from where one is."""

        def seen_from_folder(path: str | None) -> str | None:
            return None if path is None else str((folder / Path(path).expanduser()).resolve())

        return self.model_copy(
            update={
                "data": self.data.model_copy(update={"path": resolve_path(self.data.path, folder)}),
                "llm": self.llm.model_copy(
                    update={
                        "model": self.llm.model and resolve_path(self.llm.model, folder),
                        "response_cache": seen_from_folder(self.llm.response_cache),
                    }
                ),
                "encoder": self.encoder.model_copy(
                    update={"model": self.encoder.model and resolve_path(self.encoder.model, folder)}
                ),
                "prompts_dir": seen_from_folder(self.prompts_dir),
            }
        )

    def without_folders(self) -> SessionConfig:
        """Return a copy whose absolute paths are names alone, for files that others read; it is not meant to run here."""

        def name(path: str | None) -> str | None:
            return Path(path).name if path is not None and Path(path).is_absolute() else path

        named = ("data.path", "llm.model", "llm.response_cache", "encoder.model", "prompts_dir", "runs_dir")
        plain = {dotted: value for dotted, _, value in walk_fields(self)}
        return self.with_overrides({dotted: name(plain[dotted]) for dotted in named})

    def with_overrides(self, overrides: Mapping[str, Any], *, source: str = "option") -> SessionConfig:
        """Return a copy with `{"llm.model": value, ...}` replaced; values that are None are left alone."""
        raw = self.model_dump()
        for dotted, value in overrides.items():
            if value is None:
                continue
            node: Any = raw
            *parents, last = dotted.split(".")
            for name in parents:
                node = node.get(name) if isinstance(node, dict) else None
            if not isinstance(node, dict) or last not in node:
                raise ConfigError(f"{source}: {dotted}: unknown field; `synalign config schema` lists the known ones")
            node[last] = value
        return type(self).parse(raw, source=source)

    def to_yaml(self) -> str:
        """Return the values as YAML, without comments."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def fingerprint(self) -> str:
        """Hash every field that can change the result (16 hex digits); operational fields do not count."""
        relevant = dict(self._relevant(as_before=False))
        payload = json.dumps({"version": FINGERPRINT_VERSION, **relevant}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(payload.encode()).hexdigest()[:16]

    def changes(self, other: SessionConfig) -> list[str]:
        """List `field: mine -> other's` for each field that can change the result and that differs."""
        mine, theirs = dict(self._relevant()), dict(other._relevant())
        return [
            f"{name}: {mine.get(name)!r} -> {theirs.get(name)!r}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]

    def _relevant(self, *, as_before: bool = True) -> Iterator[tuple[str, Any]]:
        """Yield the fields that can change the result; without `as_before`, not those that are as if they did not exist."""
        for dotted, info, value in walk_fields(self):
            if not is_operational(info) and (as_before or value not in value_before(info)):
                yield dotted, value


def _where(location: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in location) or "(top level)"


def _plain(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "unknown field; `synalign config schema` lists the known ones"
    if item["type"] == SECRET_ERROR:
        return str(item["msg"])  # what was given may be a password
    return f"{item['msg']} (got {item['input']!r})" if item["type"] != "missing" else "this field is required"
