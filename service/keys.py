"""API keys: who may do what, in which collections.

``keys.json`` in the data directory holds for each key its name, its rights and a hash, never the key itself. Keys are
random 256-bit numbers, so a plain SHA-256 is enough: there is nothing to guess, and nothing to slow down. A running
server notices a changed file with the next request, so keys are made, replaced and removed without a restart.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from qrag.wire.models import FrozenModel
from qrag.wire.names import CollectionName, KeyName
from service.errors import Forbidden, KeysError

log = logging.getLogger(__name__)

Right = Literal["read", "write", "admin"]
"""``read``: search and look at documents. ``write``: upload and delete them. ``admin``: change the checkpoint."""

PREFIX = "qrag_"
"""The beginning of every key made here, by which scanners for leaked secrets recognise one."""


class Key(FrozenModel):
    """One key, as it is kept."""

    name: KeyName
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rights: frozenset[Right] = Field(min_length=1)
    collections: frozenset[CollectionName] | None = Field(None, description="none: all of them")
    created_at: AwareDatetime


class _File(FrozenModel):
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """What a request may do."""

    name: str | None
    """The key's name; None where no key is needed."""
    rights: frozenset[Right]
    collections: frozenset[str] | None = None
    """The collections that the key is for; None: all of them."""

    def sees(self, collection: str) -> bool:
        """Whether the collection is among those of the key."""
        return self.collections is None or collection in self.collections

    def require_right(self, right: Right) -> None:
        """Raise :class:`~service.errors.Forbidden` for a right that the key does not have."""
        if right not in self.rights:
            raise Forbidden(f"This key may {' and '.join(sorted(self.rights))} only. Use one that may {right}.")

    def require(self, collection: str) -> None:
        """Raise :class:`~service.errors.Forbidden` for a collection that is not the key's."""
        if not self.sees(collection):
            names = ", ".join(sorted(self.collections or ()))
            raise Forbidden(f"This key is for other collections than {collection!r}: {names}. Name one of these.")


EVERYTHING = Access(None, frozenset({"read", "write", "admin"}))
"""What a request may do where no key is needed."""


class Keys:
    """The keys of a running server: those of the file, as it is now, and those given at the start.

    The given ones, from ``QRAG_API_KEYS``, may do everything. Raises :class:`~service.errors.KeysError` for a damaged
    file.
    """

    def __init__(self, path: Path, given: Iterable[str] = ()) -> None:
        self._path = path
        self._given = [(_digest(key), Access(f"given-{number}", EVERYTHING.rights)) for number, key in enumerate(given)]
        self._file_version: tuple[int, ...] | None = None
        self._known: list[tuple[bytes, Access]] = []
        self._required = False
        read_keys(path)  # raises at the start where the file is damaged

    @property
    def required(self) -> bool:
        """Whether requests need a key: there is one, or there is or was a file, even one without keys.

        A file that is removed while the service runs, to be made anew, does not let everybody in meanwhile.
        """
        self.refresh()
        return bool(self._given) or self._required

    def access(self, key: bytes) -> Access | None:
        """What a key may do; None for an unknown one.

        Every key is compared, in constant time: neither content nor number of keys can be timed.
        """
        self.refresh()
        digest = _digest(key)
        matching = None
        for known_digest, access in (*self._given, *self._known):
            if hmac.compare_digest(digest, known_digest):
                matching = access
        return matching

    def refresh(self) -> None:
        """Read the file where it has changed; what requests ask does so by itself."""
        try:
            status = self._path.stat()
            version: tuple[int, ...] = (status.st_mtime_ns, status.st_ino, status.st_size)
        except FileNotFoundError:
            version = ()
        if version == self._file_version:
            return
        self._file_version = version
        try:
            keys = read_keys(self._path)
        except KeysError as error:  # a damaged file admits nobody; the keys read before it stay valid
            log.error("the keys read before stay valid: %s", error)
            self._required = True
            return
        if self._required and not version:
            log.warning("the file of keys is gone: nobody may do anything until keys are added")
        self._required = self._required or bool(version)
        self._known = [(bytes.fromhex(key.sha256), Access(key.name, key.rights, key.collections)) for key in keys]
        log.info("keys=%d", len(keys))


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file; none where there is no file. Raises :class:`~service.errors.KeysError` for a damaged one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return _File.model_validate_json(content).keys
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"])) or "file"
        raise KeysError(
            f"{path} is damaged at {location}: {first['msg']}. Restore it, or remove it and add keys."
        ) from error


def add_key(path: Path, name: str, rights: Iterable[Right], collections: Sequence[str] | None) -> str:
    """Make a key; returns the secret, of which only a hash is stored.

    Raises :class:`~service.errors.KeysError` where there is one of this name, or for a bad name or collection.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    try:
        key = Key(
            name=name,
            sha256=_digest(secret).hex(),
            rights=frozenset(rights),
            collections=None if collections is None else frozenset(collections),
            created_at=datetime.now(UTC),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise KeysError(f"{first['loc'][0]}: {first['msg']}.") from error
    if "admin" in key.rights and key.collections is not None:
        raise KeysError("The right admin is about all collections. Make one key for it and another for these.")
    with _changing(path) as keys:
        if any(existing.name == name for existing in keys):
            raise KeysError(f"There is a key {name!r} already. Remove it first, or choose another name.")
        keys.append(key)
    return secret


def remove_key(path: Path, name: str) -> None:
    """Remove a key: the next request with it is refused.

    Raises :class:`~service.errors.KeysError` for an unknown one.
    """
    with _changing(path) as keys:
        remaining = [key for key in keys if key.name != name]
        if len(remaining) == len(keys):
            raise KeysError(f"There is no key {name!r}. `python -m service keys list` shows them.")
        keys[:] = remaining


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    """Read, change and write the file as one step, also beside another process that does the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = list(read_keys(path))
        yield keys
        new_path = path.with_suffix(".new")
        descriptor = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_File(keys=tuple(keys)).model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        new_path.replace(path)


def _digest(key: str | bytes) -> bytes:
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()
