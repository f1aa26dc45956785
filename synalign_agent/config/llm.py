"""The endpoint that writes, how it is called and what it charges."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, field_validator

from synalign_agent.config.section import OPERATIONAL, Section, Share, added


class LLMPrices(Section):
    """What the endpoint charges. There is no built-in table: without prices no cost is known; an endpoint may be free (0)."""

    prompt_usd_per_million_tokens: float | None = Field(
        None, ge=0.0, description="USD per million prompt tokens (null = not known).", json_schema_extra=OPERATIONAL
    )
    completion_usd_per_million_tokens: float | None = Field(
        None, ge=0.0, description="USD per million completion tokens (null = not known).", json_schema_extra=OPERATIONAL
    )

    @property
    def known(self) -> bool:
        """Whether any price is set, so that costs mean something."""
        return self.prompt_usd_per_million_tokens is not None or self.completion_usd_per_million_tokens is not None


class LLMConfig(Section):
    """The model that writes. Fields left at null come from the model's profile (see `synalign config check`)."""

    provider: Literal["openai", "embedded"] = Field(
        "openai",
        description="`openai`: any OpenAI-compatible server. `embedded`: llama.cpp inside this process, no key, no network.",
    )
    base_url: str | None = Field(
        None, description="Base URL of the endpoint, ending in /v1 (provider `openai`; null = api.openai.com)."
    )
    model: str | None = Field(
        None,
        description="Model name, or for `embedded` a GGUF path or `hf:<repo>:<file>` (null = the packaged SmolLM2-135M).",
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="Environment variable that holds the API key; local servers need none.",
        json_schema_extra=OPERATIONAL,
    )
    temperature: float | None = Field(None, ge=0.0, le=2.0, description="Sampling temperature (null = profile).")
    reading_temperature: float | None = Field(
        None,
        ge=0.0,
        le=2.0,
        description="Temperature where texts are described or judged, not written (null = profile, or else `temperature`).",
        json_schema_extra=added(None),
    )
    max_tokens: int | None = Field(
        None, ge=16, description="Most completion tokens a call may use (null = derived from the text length limit)."
    )
    extra_body: dict[str, JsonValue] | None = Field(
        None, description="More request fields, sent as they are, e.g. {min_p: 0.05} (null = profile)."
    )
    schema_limits: bool | None = Field(
        None,
        description="Put text length limits into the JSON schema; some hosted APIs refuse them (null = profile).",
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        description="Most calls in flight; fewer while the endpoint is overloaded (null = profile).",
        json_schema_extra=OPERATIONAL,
    )
    requests_per_minute: float | None = Field(
        None,
        gt=0,
        description="Most requests per minute to this model, by all sessions of the process (null = as many as it takes).",
        json_schema_extra=OPERATIONAL,
    )
    tokens_per_minute: float | None = Field(
        None,
        gt=0,
        description="Most tokens per minute, prompt and completion together (null = as many as it takes).",
        json_schema_extra=OPERATIONAL,
    )
    structured_output: Literal["auto", "json_schema", "json_object", "text"] = Field(
        "auto",
        description="How JSON is asked for. `auto`: by schema, and if the endpoint refuses that, by JSON mode, then by words.",
        json_schema_extra=added("auto"),
    )
    response_cache: str | None = Field(
        None,
        description="SQLite file in which sessions share replies, so that an equal call is paid for once (null = none).",
        json_schema_extra=OPERATIONAL,
    )
    timeout_seconds: float | None = Field(
        None, gt=0, description="Time limit of one request, in seconds (null = profile).", json_schema_extra=OPERATIONAL
    )
    max_attempts: int = Field(
        5, ge=1, description="Most attempts per call when the error is worth a retry.", json_schema_extra=OPERATIONAL
    )
    max_failed_share: Share = Field(
        0.5,
        description="The run stops, resumable, when more than this share of the last 20 calls failed.",
        json_schema_extra=OPERATIONAL,
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of the embedded model (null = all cores).", json_schema_extra=OPERATIONAL
    )
    prices: LLMPrices = Field(default_factory=LLMPrices, description="Prices for the cost ledger and the USD limit.")

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url
