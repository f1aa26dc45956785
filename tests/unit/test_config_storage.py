"""Where a session may be kept, and that no password gets into a configuration or out of an error."""

from __future__ import annotations

import pytest

from synalign_agent.config import SessionConfig
from synalign_agent.errors import ConfigError

CANARY = "canary-7f3a"


def parse(**storage: object) -> SessionConfig:
    return SessionConfig.parse({"data": {"path": "rows.jsonl"}, "storage": storage})


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{CANARY}@host/db",
        f"postgresql://host/db?password={CANARY}",
        f"postgresql:///db?sslpassword={CANARY}",
        f"postgresql://host/db?passfile=/{CANARY}",
        f"mysql://ada@host/{CANARY}",
        f"postgresql://[{CANARY}",
    ],
)
def test_a_url_with_a_password_or_of_another_database_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(url=url)
    assert "storage.url" in str(caught.value) and CANARY not in str(caught.value)
    if "postgresql" in url and "[" not in url:
        assert "PGPASSWORD" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        parse().with_overrides({"storage.url": url})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["postgresql://ada@host:5432/db", "postgres:///db?service=synalign", "postgresql://%2Ftmp/db", None]
)
def test_a_url_without_a_password_is_kept(url: str | None) -> None:
    assert parse(url=url).storage.url == url


def test_where_a_session_is_kept_is_no_part_of_its_fingerprint() -> None:
    moved = parse(url="postgresql://host/db", checkpoints_kept=None, encryption_key_env="KEY")
    assert moved.fingerprint() == parse().fingerprint() and parse().changes(moved) == []


def test_a_key_in_place_of_the_name_of_a_variable_is_refused() -> None:
    key = "hI2+0cJ6bG0z4Sx1sP2m5tq8vB7nL9kD3fA1wE6yR0U="
    with pytest.raises(ConfigError, match=r"storage\.encryption_key_env") as caught:
        parse(encryption_key_env=key)
    assert key not in str(caught.value)
    with pytest.raises(ConfigError, match=r"storage\.checkpoints_kept"):
        parse(checkpoints_kept=0)
