"""The auth example without a server: keys, and who counts as local."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.requests import Request

EXAMPLE = Path(__file__).resolve().parents[3] / "graphs" / "auth.py"
KEYS = "ada:0123456789abcdef, bob:fedcba9876543210"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    def load(keys: str) -> ModuleType:
        monkeypatch.setenv("SYNALIGN_SERVER_KEYS", keys)
        spec = importlib.util.spec_from_file_location("auth_example", EXAMPLE)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def request(client: str | None = "127.0.0.1", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "client": None if client is None else (client, 1)})


def identity(module: ModuleType, given: Request) -> str | int:
    try:
        return str(asyncio.run(module.authenticate(given))["identity"])
    except module.Auth.exceptions.HTTPException as error:
        return int(error.status_code)


def test_keys_have_names(load: Any) -> None:
    module = load(KEYS)
    assert identity(module, request(authorization="Bearer 0123456789abcdef")) == "ada"
    assert identity(module, request("10.1.2.3", authorization="bearer fedcba9876543210")) == "bob"
    for wrong in ("", "Bearer ", "Bearer 0123456789abcde", "Basic 0123456789abcdef", "0123456789abcdef", "Bearer é"):
        assert identity(module, request(authorization=wrong)) == 401
    assert identity(module, request()) == 401


def test_without_keys_only_this_machine_is_served(load: Any) -> None:
    module = load("")
    assert identity(module, request()) == identity(module, request("::1")) == "local"
    for other in (request("10.1.2.3"), request(None), request("testclient"), request(x_forwarded_for="10.1.2.3")):
        assert identity(module, other) == 401


def test_without_keys_a_web_page_whose_name_leads_here_is_refused(load: Any) -> None:
    module = load("")
    for own in ("localhost:2024", "127.0.0.1:2024", "[::1]:2024", "LOCALHOST"):
        assert identity(module, request(host=own)) == "local"
    for foreign in ("rebound.example:2024", "127.0.0.1.nip.io", "[::1", "0.0.0.0:2024"):
        assert identity(module, request(host=foreign)) == 401


@pytest.mark.parametrize("keys", ["ada", "ada:short", ":0123456789abcdef", f"{KEYS},ada:0123456789abcdef0"])
def test_bad_keys_stop_the_server(load: Any, keys: str) -> None:
    with pytest.raises(ValueError, match="SYNALIGN_SERVER_KEYS"):
        load(keys)
