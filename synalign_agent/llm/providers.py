"""Where the model is: an OpenAI-compatible server anywhere, or llama.cpp inside this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from synalign_agent.config import LLMConfig
from synalign_agent.errors import ConfigError

OPENAI_BASE_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint that answers now."""

    base_url: str
    model: str
    """Name sent in requests."""
    identity: str
    """Name kept in keys and lineage: without paths, so that a session can move to another machine."""
    api_key: str

    @property
    def hosted_by_openai(self) -> bool:
        """Tell whether this is api.openai.com itself."""
        return self.base_url == OPENAI_BASE_URL


def model_name(config: LLMConfig) -> str:
    """Return the name by which a model's profile is found, without starting anything.

    Raises:
        ConfigError: provider `openai` without a model.
    """
    if config.provider == "embedded":
        return config.model or "SmolLM2-135M-Instruct.gguf"
    if not config.model:
        raise ConfigError("llm.model: name the model that the endpoint serves (or use llm.provider: embedded)")
    return config.model


def check_setup(config: LLMConfig) -> None:
    """Refuse a model whose key or file is missing, without starting, asking or fetching anything.

    Raises:
        ConfigError: the key's variable is not set, or there is no such GGUF file.
        MissingExtraError: the packaged model is not installed.
    """
    if config.provider != "embedded":
        _api_key(config)
    elif not (config.model or "").startswith("hf:"):
        from synalign_agent.llm.embedded import resolve_gguf

        resolve_gguf(config.model)


@contextmanager
def open_endpoint(config: LLMConfig) -> Iterator[Endpoint]:
    """Make the endpoint ready and end what was started for it, whatever happens in between."""
    if config.provider == "embedded":
        from synalign_agent.llm.embedded import embedded_server, resolve_gguf

        path = resolve_gguf(config.model)
        with embedded_server(path, n_slots=config.concurrency or 1, n_threads=config.threads) as (base_url, api_key):
            yield Endpoint(base_url, path.name, path.name, api_key)
        return
    model = model_name(config)
    yield Endpoint(_base_url(config), model, model, _api_key(config) or "none")


def _base_url(config: LLMConfig) -> str:
    return (config.base_url or OPENAI_BASE_URL).rstrip("/")


def _api_key(config: LLMConfig) -> str:
    key = os.environ.get(config.api_key_env, "")
    if not key and _base_url(config) == OPENAI_BASE_URL:
        raise ConfigError(f"llm.api_key_env: the environment variable {config.api_key_env} is not set")
    return key
