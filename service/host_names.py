"""What addresses consist of: the host and port of a header, an origin or a setting, and the prefix of paths."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

_AUTHORITY = re.compile(
    r"(?P<name>\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])\.?(?::(?P<port>[0-9]{0,5}))?"
)


_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*")


class Authority(NamedTuple):
    """A host with or without a port, in a form that can be compared: lower case, no final dot, short addresses."""

    name: str
    """A name, an address without brackets, or in settings a pattern: ``*.example.org``, or ``*``."""
    port: int | None

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The host as an address, where it is one."""
        try:
            address = ip_address(self.name)
        except ValueError:
            return None
        return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address

    @property
    def is_loopback(self) -> bool:
        """Whether it stands for the machine itself."""
        address = self.address
        return self.name == "localhost" if address is None else address.is_loopback

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for many names."""
        return self.name.startswith("*")

    def covers(self, name: str) -> bool:
        """Whether a name is this one; ``*.example.org`` covers all names below ``example.org``, ``*`` all there are."""
        return name == self.name or (self.is_pattern and name.endswith(self.name[1:]))


def parse_authority(text: str) -> Authority | None:
    """The host and port that a text consists of; None where it is anything else, or has anything else in it."""
    parts = _AUTHORITY.fullmatch(text.lower())
    if parts is None:
        return None
    name = parts["name"]
    if name.startswith("["):
        try:
            name = str(IPv6Address(name[1:-1]))
        except ValueError:
            return None
    return Authority(name, int(parts["port"]) if parts["port"] else None)


def parse_prefix(text: str) -> str | None:
    """The path below which everything is served, without a slash at its end; None where the text is no such path."""
    prefix = text.strip().rstrip("/")
    return prefix if _PREFIX.fullmatch(prefix) else None


def listening_authority(host: str) -> Authority | None:
    """The address or name that a server listens on; None for the addresses that mean all of the machine's."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return parse_authority(host)
    return None if address.is_unspecified else Authority(str(address), None)
