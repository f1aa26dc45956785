"""Where a session's rows, calls and checkpoints are kept."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from synalign_agent.config.section import OPERATIONAL, SECRET_ERROR, Section, check_variable

_SECRET_PARAMETERS = ("password", "passfile", "sslpassword")


class StorageConfig(Section):
    """Where the session lives. None of it changes what is generated."""

    url: str | None = Field(
        None,
        description="`postgresql://user@host/database`, which many machines can share; the password comes from PGPASSWORD, "
        "~/.pgpass or a service file (null = SQLite files in the session folder).",
        json_schema_extra=OPERATIONAL,
    )
    checkpoints_kept: int | None = Field(
        10,
        ge=1,
        description="Newest checkpoints to keep, besides the one at the end of each round (null = all).",
        json_schema_extra=OPERATIONAL,
    )
    encryption_key_env: str | None = Field(
        None,
        description="Environment variable that holds 32 random bytes in base64 (`openssl rand -base64 32`): checkpoints and the "
        "model's replies in the journal are then encrypted. What the session makes of replies (attributes, samples, rejected "
        "texts, the export) is not, nor are the real rows (null = no encryption).",
        json_schema_extra=OPERATIONAL,
    )

    @field_validator("encryption_key_env")
    @classmethod
    def _named(cls, name: str | None) -> str | None:
        if name is not None:
            check_variable(name, "the key itself belongs")
        return name

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            secret = parts.password is not None or any(name in parse_qs(parts.query) for name in _SECRET_PARAMETERS)
        except ValueError:
            raise PydanticCustomError(SECRET_ERROR, "is not a URL like postgresql://user@host:5432/database") from None
        if secret:
            raise PydanticCustomError(
                SECRET_ERROR,
                "holds a password, which does not belong in a configuration file: leave it out and set PGPASSWORD, or name it "
                "in ~/.pgpass or a PostgreSQL service file (?service=name)",
            )
        if parts.scheme not in ("postgresql", "postgres"):
            raise PydanticCustomError(
                SECRET_ERROR,
                "must begin with postgresql:// (null keeps the session in SQLite files, which need no URL)",
            )
        return url
