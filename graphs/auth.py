"""Who may use the server: an example to copy or replace. Each key has a name, and sees the threads of that name alone.

    SYNALIGN_SERVER_KEYS='ada:<long random key>,grace:<another one>'     # e.g. from `openssl rand -base64 32`
    curl --header 'Authorization: Bearer <long random key>' ...

Without keys, only clients on the server's own machine are let in, under the name `local`: that is `langgraph dev` on a laptop.
"""

import hashlib
import hmac
import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

from langgraph_sdk import Auth
from starlette.requests import Request

KEYS_VARIABLE = "SYNALIGN_SERVER_KEYS"
_ADDRESS = {"localhost": "127.0.0.1"}
auth = Auth()


def named_keys(text: str) -> dict[str, bytes]:
    """Return the SHA-256 of each key by its name: digests are of one length, so that comparing takes the same time for all."""
    keys: dict[str, bytes] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, key = entry.partition(":")
        if not name or len(key) < 16 or name in keys:
            raise ValueError(f"{KEYS_VARIABLE}: give name:key, keys of 16 characters or more, each name once")
        keys[name] = hashlib.sha256(key.encode()).digest()
    return keys


_KEYS = named_keys(os.environ.get(KEYS_VARIABLE, ""))


@auth.authenticate
async def authenticate(request: Request) -> Auth.types.MinimalUserDict:
    """Return the name that goes with the key of a request.

    Raises:
        HTTPException: 401, there is no key or it is wrong.
    """
    if not _KEYS:
        if is_local(request):
            return {"identity": "local"}
        raise Auth.exceptions.HTTPException(401, f"set {KEYS_VARIABLE}: without it, only this machine is served")
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    given = hashlib.sha256(key.strip().encode()).digest()
    # All are compared, so that the time says nothing of which one is near.
    found = [name for name, digest in _KEYS.items() if hmac.compare_digest(given, digest)]
    if scheme.lower() != "bearer" or not found:
        raise Auth.exceptions.HTTPException(401, "give a key of this server: Authorization: Bearer <key>")
    return {"identity": found[0]}


def is_local(request: Request) -> bool:
    """Tell whether a request comes from this machine itself and asks for it by a name of its own.

    Not through a proxy on it; nor from a page of the web whose host name was made to lead here (DNS rebinding).
    """
    if request.client is None or any(name in request.headers for name in ("forwarded", "x-forwarded-for")):
        return False
    try:
        asked = urlsplit(f"//{request.headers.get('host', 'localhost')}").hostname or ""
        return all(ipaddress.ip_address(host).is_loopback for host in (request.client.host, _ADDRESS.get(asked, asked)))
    except ValueError:
        return False


@auth.on
async def own(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> Auth.types.FilterType:
    """Mark what is made with its owner, and show each owner only what is theirs."""
    mine = {"owner": ctx.user.identity}
    if ctx.action in ("create", "create_run", "update"):
        # In place: the server keeps this very object, not what the key holds afterwards.
        if value.get("metadata") is None:
            value["metadata"] = {}
        value["metadata"].update(mine)
    return mine


@auth.on.assistants.read
@auth.on.assistants.search
async def own_or_built_in(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> Auth.types.FilterType:
    """Show the graphs' own assistants, which the server made, to everybody."""
    return {"$or": [{"owner": ctx.user.identity}, {"created_by": "system"}]}  # type: ignore[dict-item]


@auth.on.store
async def own_namespace(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> None:
    """Keep everybody in a namespace of their own."""
    namespace = tuple(value.get("namespace") or ())
    if namespace[:1] != (ctx.user.identity,):
        value["namespace"] = (ctx.user.identity, *namespace)
