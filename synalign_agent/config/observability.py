"""Where a run is shown: traces, experiment tracking, callbacks."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from synalign_agent.config.section import OPERATIONAL, SECRET_ERROR, Section, check_variable

_IMPORT_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"


class OTLPConfig(Section):
    """Traces over OTLP/HTTP, for Phoenix, MLflow, Langfuse, W&B Weave and whatever else speaks it (extra `otel`)."""

    endpoint: str | None = Field(
        None,
        description="URL that takes traces; `/v1/traces` is added where it is missing, e.g. http://localhost:6006 (null = no "
        "traces).",
        json_schema_extra=OPERATIONAL,
    )
    headers_env: str = Field(
        "OTEL_EXPORTER_OTLP_HEADERS",
        description="Environment variable that holds the request headers as `name=value,name=value`, keys included.",
        json_schema_extra=OPERATIONAL,
    )
    project: str = Field(
        "synalign", min_length=1, description="Project that the traces belong to.", json_schema_extra=OPERATIONAL
    )
    capture_content: bool = Field(
        False,
        description="Send prompts, replies and errors in full; otherwise spans hold names, ids and numbers only.",
        json_schema_extra=OPERATIONAL,
    )

    @field_validator("headers_env")
    @classmethod
    def _named(cls, name: str) -> str:
        check_variable(name, "the headers belong")
        return name

    @field_validator("endpoint")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        return _checked_url(url, f"put the credentials in the environment variable that {'`headers_env`'} names")


class MLflowConfig(Section):
    """A run per session in MLflow (extra `mlflow`)."""

    tracking_uri: str | None = Field(
        None,
        description="Tracking server, e.g. http://localhost:5000 (null = none).",
        json_schema_extra=OPERATIONAL,
    )
    experiment: str = Field(
        "synalign", min_length=1, description="Experiment that holds the runs.", json_schema_extra=OPERATIONAL
    )
    artifacts: bool = Field(
        True,
        description="Also send the report and the dataset card; the report shows real and synthetic texts.",
        json_schema_extra=OPERATIONAL,
    )

    @field_validator("tracking_uri")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        return _checked_url(url, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD", schemes=None)


class ObservabilityConfig(Section):
    """Where the run is shown while it goes on. None of it changes what is generated, and none of it can stop a run."""

    otlp: OTLPConfig = Field(default_factory=OTLPConfig, description="Traces.")
    mlflow: MLflowConfig = Field(default_factory=MLflowConfig, description="Experiment tracking.")
    callbacks: list[str] = Field(
        default_factory=list,
        description="Observers of your own, as `package.module:name` (see synalign_agent/observe/events.py).",
        json_schema_extra=OPERATIONAL,
    )

    @field_validator("callbacks")
    @classmethod
    def _import_paths(cls, paths: list[str]) -> list[str]:
        for path in paths:
            if not re.match(_IMPORT_PATH, path):
                raise ValueError(f"{path!r} should read package.module:name")
        return paths


def _checked_url(url: str | None, instead: str, schemes: tuple[str, ...] | None = ("http", "https")) -> str | None:
    """Return the URL unless it holds a password or, where `schemes` are given, has another scheme."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        secret = parts.password is not None
    except ValueError:
        raise PydanticCustomError(SECRET_ERROR, "is not a URL like http://localhost:6006") from None
    if secret:
        raise PydanticCustomError(
            SECRET_ERROR, f"holds a password, which does not belong in a configuration file: leave it out and {instead}"
        )
    if schemes is not None and (parts.scheme not in schemes or not parts.netloc):
        raise PydanticCustomError(SECRET_ERROR, "must be a URL that begins with http:// or https://")
    return url
