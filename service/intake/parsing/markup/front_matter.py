"""Front matter: the fields in YAML or TOML before the text of a Markdown file."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from service.intake.parsing.reading import Reading, Value

_FRONT_MATTER: Final = re.compile(r"(---|\+\+\+)[ \t]*\r?\n(.*?)(?<=\n)(?:\1|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MOST_CHARACTERS: Final = 65_536
_MOST_FIELDS: Final = 50


def without_front_matter(text: str, reading: Reading) -> str:
    """The text behind its front matter, whose fields are noted; all of it where there is none that can be read."""
    found = _FRONT_MATTER.match(text)
    if found is None or len(found[2]) > _MOST_CHARACTERS:
        return text
    fields = _fields(found[1], found[2])
    if fields is None:
        return text
    for name, value in list(fields.items())[:_MOST_FIELDS]:
        noted = _noted(value)
        if name == "title" and isinstance(noted, str):
            reading.name(noted)
        elif noted is not None:
            reading.metadata.setdefault(name, noted)
    return text[found.end() :]


def _fields(fence: str, content: str) -> Mapping[str, Any] | None:
    if fence == "+++":
        try:
            return tomllib.loads(content)
        except tomllib.TOMLDecodeError:
            return None
    import yaml

    try:
        # No aliases: a few lines of them could stand for gigabytes.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(content)):
            return None
        loaded = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return {str(name): value for name, value in loaded.items()} if isinstance(loaded, dict) else None


def _noted(value: Any) -> Value | None:
    """A value as metadata has it; none for what is nested or empty."""
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str | int | float) for item in value):
        return [str(item) for item in value]
    return None
