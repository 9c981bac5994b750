"""Front matter: the fields in YAML or TOML before the text of a Markdown file."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping
from textwrap import shorten
from typing import Any, Final

from service.intake.parsing.cleaning import plain
from service.intake.parsing.reading import Reading, Value

_FRONT_MATTER: Final = re.compile(r"(---|\+\+\+)[ \t]*\r?\n(.*?)(?<=\n)(?:\1|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MOST_CHARACTERS: Final = 65_536
_MOST_FIELDS: Final = 50
_MOST_NESTED: Final = 20
_LARGEST_NUMBER: Final = 1 << 63
_LONGEST_NAMED: Final = 200


def without_front_matter(text: str, reading: Reading) -> str:
    """The text behind its front matter, whose fields are noted; all of it where there is none that can be read."""
    found = _FRONT_MATTER.match(text)
    if found is None or len(found[2]) > _MOST_CHARACTERS:
        return text
    fields = _fields(found[1], found[2])
    if fields is None:
        return text
    left_out: list[str] = []
    for number, (name, value) in enumerate(fields.items()):
        noted = _noted(value)
        if name == "title" and isinstance(noted, str):
            reading.name(noted)
        elif noted is not None and number < _MOST_FIELDS:
            reading.metadata.setdefault(name, noted)
        elif value:
            left_out.append(name)
    if left_out:
        named = shorten(", ".join(left_out), _LONGEST_NAMED, placeholder=" ...")
        reading.warn(
            f"Fields of the front matter were left out: {named}. "
            f"Metadata takes the first {_MOST_FIELDS}, where they are texts, numbers, dates or lists of these."
        )
    return text[found.end() :]


def _fields(fence: str, content: str) -> Mapping[str, Any] | None:
    if fence == "+++":
        try:
            return {plain(name): value for name, value in tomllib.loads(content).items()}
        except (ValueError, RecursionError):
            return None
    import yaml

    begins = (
        yaml.BlockMappingStartToken,
        yaml.BlockSequenceStartToken,
        yaml.FlowMappingStartToken,
        yaml.FlowSequenceStartToken,
    )
    ends = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
    depth = 0
    try:
        for token in yaml.scan(content):
            depth += isinstance(token, begins) - isinstance(token, ends)
            # A few lines of aliases could stand for gigabytes, and deep nesting takes minutes.
            if isinstance(token, yaml.AliasToken) or depth > _MOST_NESTED:
                return None
        loaded = yaml.safe_load(content)
        return {plain(str(name)): value for name, value in loaded.items()} if isinstance(loaded, dict) else None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError):
        return None  # besides its own errors PyYAML raises what its constructors stumble over


def _noted(value: Any) -> Value | None:
    """A value as metadata has it; none for what is nested or empty, and numbers beyond 64 bits."""
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, int | float):
        return value if abs(value) < _LARGEST_NUMBER else None
    if isinstance(value, list) and value:
        items = [None if isinstance(item, list) else _noted(item) for item in value]
        return None if None in items else [str(item) for item in items]
    return None
