"""What a LangGraph server lets its clients do; the operator writes it, no client can change it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from synalign_agent.config.llm import LLMPrices
from synalign_agent.config.section import Section
from synalign_agent.errors import ConfigError

CONFIG_VARIABLE = "SYNALIGN_SERVING_CONFIG"
"""Names the YAML file of a `ServingConfig`."""
RUNS_DIR_VARIABLE = "SYNALIGN_RUNS_DIR"
"""Wins over `runs_dir`: an image has one file and many places to run."""


class ServedEndpoint(Section):
    """An endpoint that clients may name. Its key goes to this URL and to no other."""

    base_url: str | None = Field(
        None, description="Base URL, ending in /v1 (null = the model embedded in the server, `llm.provider: embedded`)."
    )
    api_key_env: str | None = Field(
        None, description="Environment variable that holds the key of this endpoint (null = it needs none)."
    )
    models: list[str] | None = Field(
        None, description="Models that clients may name (null = any; of `embedded`, the packaged one)."
    )
    prices: LLMPrices = Field(default_factory=LLMPrices, description="Prices for the cost ledger and the USD limit.")

    @model_validator(mode="after")
    def _keyless(self) -> ServedEndpoint:
        if self.base_url is None and self.api_key_env is not None:
            raise ValueError(
                "api_key_env without base_url: the embedded model takes no key; name the URL it belongs to"
            )
        return self


class ServingConfig(Section):
    """The limits of a server. Everything that it does not open to clients stays closed."""

    runs_dir: str = Field("runs", description="Folder that holds the session folders, named by their thread ids.")
    data_dir: str | None = Field(
        None, description="Folder whose files clients may read by their name in it (null = clients send rows only)."
    )
    endpoints: list[ServedEndpoint] = Field(
        default_factory=lambda: [ServedEndpoint()], description="Endpoints that clients may choose from."
    )
    session: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields of a session's configuration that hold for every client, e.g. {llm: {base_url: ...}}. A client may "
        "choose other values for the harmless ones; `limits` given here are the most that a client may ask for.",
    )
    max_rows: int = Field(20_000, ge=1, description="Most rows that one request may bring.")
    max_text_bytes: int = Field(20_000, ge=1, description="Longest value of a field in such a row, in bytes of UTF-8.")
    max_request_bytes: int = Field(8_000_000, ge=1, description="Most bytes of all rows of one request, as JSON.")
    max_file_bytes: int = Field(1_000_000_000, ge=1, description="Largest file of `data_dir` that is read.")
    max_samples: int = Field(100_000, ge=1, description="Most rows that a client may ask for.")
    max_reply_rows: int = Field(1_000, ge=1, description="Most rows in one reply; larger results have to be kept.")

    @classmethod
    def from_environment(cls) -> ServingConfig:
        """Read the file that `SYNALIGN_SERVING_CONFIG` names, if it does; folders come back as absolute paths.

        Raises:
            ConfigError: the file cannot be read, or a field is unknown or out of range; the message has no path in it.
        """
        raw: Any = {}
        folder = Path.cwd()
        if name := os.environ.get(CONFIG_VARIABLE):
            try:
                raw = yaml.safe_load(Path(name).read_text(encoding="utf-8")) or {}
            except (OSError, ValueError, RecursionError, yaml.YAMLError):
                raise ConfigError(f"{CONFIG_VARIABLE}: the file that it names cannot be read as YAML") from None
            folder = Path(name).resolve().parent
        try:
            config = cls.model_validate(raw)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, item["loc"])) or "(top level)" for item in error.errors())
            raise ConfigError(
                f"{CONFIG_VARIABLE}: the file has fields that are unknown or cannot be so: {fields}"
            ) from None
        runs_dir = os.environ.get(RUNS_DIR_VARIABLE)
        return config.model_copy(
            update={
                "runs_dir": str(Path(runs_dir).resolve() if runs_dir else (folder / config.runs_dir).resolve()),
                "data_dir": None if config.data_dir is None else str((folder / config.data_dir).resolve()),
            }
        )
