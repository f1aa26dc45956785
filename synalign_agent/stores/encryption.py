"""Encryption at rest: AES-256-GCM for the journal's replies and for checkpoints, with one key from the environment."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

from synalign_agent.errors import ConfigError, MissingExtraError, SessionError

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import SerializerProtocol

_KEY_BYTES = 32
_NONCE_BYTES = 12
_NAME = "aes256gcm"
_CHECK = "synalign session"


class Cipher:
    """AES-256-GCM with a fresh random nonce for everything that is encrypted.

    Random nonces of 96 bits are safe for 2^32 messages under one key (NIST SP 800-38D, 8.3).
    """

    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingExtraError(
                "storage.encryption_key_env needs a part that is not installed: pip install 'synalign-agent[encryption]'"
            ) from None
        self._aes = AESGCM(key)

    @classmethod
    def from_environment(cls, variable: str) -> Cipher:
        """Read the key from an environment variable.

        Raises:
            ConfigError: the variable is not set or does not hold 32 bytes in base64.
        """
        text = os.environ.get(variable)
        how = f"set it to 32 random bytes in base64, e.g. export {variable}=$(openssl rand -base64 32), and keep a copy"
        if not text:
            raise ConfigError(f"storage.encryption_key_env: the environment variable {variable} is not set; {how}")
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise ConfigError(f"storage.encryption_key_env: {variable} holds no key of 32 bytes in base64; {how}")
        return cls(key)

    def encrypt(self, text: str, context: str) -> str:
        """Return the text as base64; only the same context decrypts it."""
        return base64.b64encode(self._seal(text.encode(), context.encode())).decode()

    def decrypt(self, text: str, context: str) -> str:
        """Return what was encrypted.

        Raises:
            SessionError: another key encrypted it, or it was changed or moved.
        """
        try:
            return self._unseal(base64.b64decode(text, validate=True), context.encode()).decode()
        except ValueError:
            raise SessionError(_UNREADABLE) from None

    def check(self) -> str:
        """Return a text by which `matches` recognises the key."""
        return self.encrypt(_CHECK, _CHECK)

    def matches(self, check: str) -> bool:
        """Tell whether this key made `check`."""
        try:
            return self.decrypt(check, _CHECK) == _CHECK
        except SessionError:
            return False

    def serializer(self) -> SerializerProtocol:
        """Return LangGraph's checkpoint serializer over this cipher."""
        from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

        return EncryptedSerializer(_CheckpointCipher(self))

    def _seal(self, data: bytes, context: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aes.encrypt(nonce, data, context)

    def _unseal(self, data: bytes, context: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._aes.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError):
            raise SessionError(_UNREADABLE) from None


class _CheckpointCipher:
    """What LangGraph's `EncryptedSerializer` asks for."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return _NAME, self._cipher._seal(plaintext, b"checkpoint")

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        if ciphername != _NAME:
            raise SessionError(f"a checkpoint was encrypted with {ciphername}, which this version does not know")
        return self._cipher._unseal(ciphertext, b"checkpoint")


_UNREADABLE = (
    "what is stored encrypted cannot be read with this key; it was written with another one, or it was damaged"
)


def session_cipher(store: Any, variable: str | None, place: str) -> Cipher | None:
    """Return the cipher of a session and pin it there, if the session is new.

    Args:
        store: the session's store, whose `meta` holds by which key it was made.
        variable: `storage.encryption_key_env`.
        place: the session, for messages.

    Raises:
        ConfigError: the key is missing or none.
        SessionError: the session was made with another key, or with one and now none is named, or the other way round.
    """
    made_with = store.meta("encryption")
    if variable is None:
        if made_with:
            raise SessionError(
                f"{place}: this session is encrypted; name the environment variable with its key in storage.encryption_key_env"
            )
        return None
    cipher = Cipher.from_environment(variable)
    if made_with is None:
        if store.meta("config") is not None:
            raise SessionError(
                f"{place}: this session was made without encryption, which cannot change; set storage.encryption_key_env to "
                "null, or begin another session"
            )
        store.set_meta("encryption", cipher.check())
    elif not cipher.matches(made_with):
        raise SessionError(f"{place}: this session was encrypted with another key than the one in {variable}")
    return cipher
