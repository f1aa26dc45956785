"""A client's configuration of a session: what it may set, and the endpoint that goes with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from synalign_agent.config import LLMConfig, SessionConfig
from synalign_agent.config.serving import ServedEndpoint, ServingConfig
from synalign_agent.config_file import example_config
from synalign_agent.errors import ConfigError
from synalign_agent.llm.providers import OPENAI_BASE_URL
from synalign_agent.serving.open_fields import OPEN, leaves
from synalign_agent.serving.sources import checked_file

_CEILINGS = ("max_rounds", "max_calls", "max_tokens", "max_usd")
_MAX_CONFIG_BYTES = 100_000
_ANY_DATA = {"path": "example:customer_messages"}


def session_config(
    given: Mapping[str, Any] | None, serving: ServingConfig, *, rows: str | None = None
) -> SessionConfig:
    """Return the configuration of a session: the operator's, with what the client may choose.

    Args:
        given: plain values of a `SessionConfig`, any part of them; None for the operator's, or for the example.
        serving: the limits, and the operator's own fields.
        rows: file with the rows that the client sent, in place of `data.path`.

    Raises:
        ConfigError: a field is unknown, out of range or not the client's to set.
        InputError: `data.path` is no file that clients may read.
    """
    _check_size(given)
    operator = _operator(serving)
    chosen = _chosen(given or {}, operator)
    raw = serving.session if given is not None or serving.session else example_config().model_dump()
    raw = _nested(raw, chosen)
    if rows is not None:
        raw = _nested(raw, {"data.path": rows, "data.format": "jsonl"})
    elif "data.path" in chosen:
        raw = _nested(raw, {"data.path": checked_file(str(chosen["data.path"]), "data.path", serving)})
    config = SessionConfig.parse(raw, source="context").model_copy(update={"runs_dir": serving.runs_dir})
    if chosen.get("data.format") == "huggingface":
        raise ConfigError("data.format: this server loads no data sets from elsewhere; give rows, or a file")
    _check_amounts(config, serving)
    config = config.model_copy(update={"llm": _with_endpoint(config.llm, operator, serving)})
    return _within_ceilings(config, operator, serving)


def continued_config(stored: SessionConfig, serving: ServingConfig) -> SessionConfig:
    """Return the configuration of a session that goes on as it was, with the key that its endpoint has now.

    Raises:
        ConfigError: the server does not offer its endpoint any more.
    """
    key = _with_endpoint(stored.llm, _operator(serving), serving).api_key_env
    return stored.model_copy(
        update={"runs_dir": serving.runs_dir, "llm": stored.llm.model_copy(update={"api_key_env": key})}
    )


def _operator(serving: ServingConfig) -> SessionConfig:
    data = {**_ANY_DATA, **(serving.session.get("data") or {})}
    return SessionConfig.parse({**serving.session, "data": data}, source="the operator's session fields")


def _chosen(given: Mapping[str, Any], operator: SessionConfig) -> dict[str, Any]:
    """Return what the client chose, by dotted name; closed fields may be repeated as the operator has them.

    Raises:
        ConfigError: a field is unknown, or not open to clients.
    """
    chosen = dict(leaves(given))
    effective = dict(leaves(operator.model_dump(mode="json")))
    unknown = sorted(chosen.keys() - effective.keys())
    if unknown:
        raise ConfigError(f"context: {', '.join(unknown[:10])}: unknown, or no object where there should be one")
    closed = sorted(name for name in chosen.keys() - OPEN if chosen[name] != effective[name])
    if closed:
        raise ConfigError(
            f"context: {', '.join(closed[:10])}: only the operator of this server sets these; leave them out"
        )
    return {name: value for name, value in chosen.items() if name in OPEN}


def _nested(base: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested values with those of the dotted names replaced."""
    merged = dict(base)
    for dotted, value in chosen.items():
        node = merged
        *sections, last = dotted.split(".")
        for section in sections:
            inner = node.get(section)
            node[section] = dict(inner) if isinstance(inner, Mapping) else {}
            node = node[section]
        node[last] = value
    return merged


def _with_endpoint(llm: LLMConfig, operator: SessionConfig, serving: ServingConfig) -> LLMConfig:
    """Return the settings with the key and the prices of their endpoint: a key goes nowhere else.

    The operator's own endpoint needs no entry in the list.

    Raises:
        ConfigError: the server does not offer the endpoint, or not this model of it.
    """
    if serving.session.get("llm") and _address(llm) == _address(operator.llm):
        return llm.model_copy(update={"api_key_env": operator.llm.api_key_env})
    url, _ = _address(llm)
    offered = [endpoint for endpoint in serving.endpoints if _url_of(endpoint) == url]
    if not offered:
        urls = ", ".join(_url_of(endpoint) or "provider `embedded`" for endpoint in serving.endpoints) or "none"
        raise ConfigError(f"llm.base_url: this server does not call {url or 'an embedded model'}; it offers {urls}")
    for endpoint in offered:
        if _has(endpoint, llm.model):
            return llm.model_copy(update={"api_key_env": endpoint.api_key_env or "", "prices": endpoint.prices})
    names = ", ".join(name for endpoint in offered for name in endpoint.models or []) or "the packaged one (null)"
    raise ConfigError(f"llm.model: this server does not offer {llm.model!r} there; it offers {names}")


def _address(llm: LLMConfig) -> tuple[str | None, str | None]:
    """Return the URL (None for the embedded model) and the model."""
    return None if llm.provider == "embedded" else _normalised(llm.base_url or OPENAI_BASE_URL), llm.model


def _has(endpoint: ServedEndpoint, model: str | None) -> bool:
    if endpoint.base_url is None:
        return model is None or model in (endpoint.models or [])  # any other name would be a path or a download
    return endpoint.models is None or model in endpoint.models


def _url_of(endpoint: ServedEndpoint) -> str | None:
    return None if endpoint.base_url is None else _normalised(endpoint.base_url)


def _normalised(url: str) -> str:
    return url.rstrip("/")


def _check_amounts(config: SessionConfig, serving: ServingConfig) -> None:
    """Refuse what would have the server plan more calls than it can hold; none of them need be answered for that."""
    amounts = {
        "n_samples": config.n_samples,
        "round_samples": config.texts_per_round,  # by align.oversampling, unless given
        "generate.calls_per_cluster": config.generate.calls_per_cluster or 1,
    }
    for name, amount in amounts.items():
        if amount > serving.max_samples:
            raise ConfigError(f"{name}: this server allows {serving.max_samples:,} at most, got {amount:,}")


def _within_ceilings(config: SessionConfig, operator: SessionConfig, serving: ServingConfig) -> SessionConfig:
    own = serving.session.get("limits") or {}
    limits = config.limits
    for name in _CEILINGS:
        most, wanted = getattr(operator.limits, name), getattr(limits, name)
        if name not in own or most is None:
            continue
        if wanted is not None and wanted > most:
            raise ConfigError(f"limits.{name}: this server allows {most:,} at most, got {wanted:,}")
        limits = limits.model_copy(update={name: most if wanted is None else wanted})
    return config.model_copy(update={"limits": limits})


def _check_size(given: Mapping[str, Any] | None) -> None:
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"context: config: expected an object with fields of the configuration, found {type(given).__name__}"
        )
    try:
        n_bytes = len(json.dumps(given))
    except (RecursionError, TypeError, ValueError):
        raise ConfigError("context: config: is no plain JSON of moderate depth") from None
    if n_bytes > _MAX_CONFIG_BYTES:
        raise ConfigError(f"context: config: {n_bytes:,} bytes, and a configuration has {_MAX_CONFIG_BYTES:,} at most")
