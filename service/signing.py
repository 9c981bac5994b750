"""Texts that the service hands out and takes back: signed, so that nobody else can have written them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import ConfigurationError

KEY_FILE = "continuation.key"
"""Name of the file in the data directory with the key that was made at the first start."""

KEY_PROPERTY = "continuation_key"
"""Property of a storage of several processes: the key of all of them, made by the first."""

KEY_BYTES = 32

MAC_BYTES = 16
"""Bytes of the signature: HMAC-SHA256, cut to 128 bits."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs content, and knows its own signature again."""

    key: bytes = field(repr=False)

    def sealed(self, content: bytes) -> str:
        """Signature and content in base64url without padding."""
        return base64.urlsafe_b64encode(self._signature(content) + content).rstrip(b"=").decode()

    def opened(self, token: str) -> bytes | None:
        """The content of what :meth:`sealed` returned; none for any other text."""
        try:
            signed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            return None
        signature, content = signed[:MAC_BYTES], signed[MAC_BYTES:]
        if not hmac.compare_digest(signature, self._signature(content)):
            return None
        # Decoding ignores some bits and characters: only the text that was handed out is taken back.
        return content if self.sealed(content) == token else None

    def _signature(self, content: bytes) -> bytes:
        return hmac.digest(self.key, content, hashlib.sha256)[:MAC_BYTES]


def shared_signer(settle: Callable[[str, str], str]) -> Signer:
    """The signer with the key of all replicas.

    ``settle`` is given a property's name and a new key for it, and returns the one that all have agreed on.
    """
    return Signer(settle(KEY_PROPERTY, secrets.token_hex(KEY_BYTES)).encode())


def signer(given: str | None, directory: Path) -> Signer:
    """The signer with the ``given`` key, or with that of the directory, which is made once.

    Only one process has the directory open. Raises :class:`~service.errors.ConfigurationError` for a damaged file.
    """
    if given is not None:
        return Signer(given.encode())
    path = directory / KEY_FILE
    if not path.exists():
        new_path = path.with_suffix(".new")
        descriptor = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        new_path.replace(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"{path} is damaged. Remove it: a new key is made, and continuations end.")
    return Signer(key)
