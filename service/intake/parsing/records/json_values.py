"""JSON and JSON Lines: a line for each value that has a name, a record for each object of a list."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.errors import UnreadableDocument
from service.intake.encodings import decoded
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.tables import record_lines
from service.intake.parsing.reading import Location, Passages, Reading


def read(source: Path, reading: Reading) -> Iterator[str]:
    """The values of a JSON file. Raises :class:`~service.errors.UnreadableDocument` where it is none."""
    text = decoded(source.read_bytes(), reading.charset)
    try:
        value = _parsed(text)
    except ValueError as error:
        raise UnreadableDocument(f"The file is not valid JSON: {error}. Mend it, or send it as text/plain.") from None
    yield from _separated(_lines(value, "", reading))


def read_lines(source: Path, reading: Reading) -> Passages:
    """The values of a file with a JSON value in each line; lines that are none are text."""
    gap = ""
    text = decoded(source.read_bytes(), reading.charset)
    # Not splitlines(): strings of JSON may hold the other characters that it takes for ends of lines.
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        line = line.rstrip("\n")
        if line.strip():
            try:
                value = _parsed(line)
            except ValueError:
                reading.warn("Lines that are not valid JSON were taken as text.")
                value = line
            yield gap
            yield Location(row=number)
            gap = "\n\n"
            yield gap.join(text for text, _ in _record(value, reading))


def _parsed(text: str) -> Any:
    """A JSON value whose numbers are as they are written, and in which no name hides another."""
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[Any]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: those if len(those) > 1 else those[0] for name, those in values.items()}


def _separated(lines: Iterator[tuple[str, bool]]) -> Iterator[str]:
    first = True
    for line, apart in lines:
        yield line if first else ("\n\n" if apart else "\n") + line
        first = False


def _lines(value: Any, path: str, reading: Reading) -> Iterator[tuple[str, bool]]:
    """Lines of a value, each with whether a blank line stands before it."""
    match value:
        case dict() if value:
            for name, inner in value.items():
                yield from _lines(inner, f"{path} {name}".strip(), reading)
        case list() if any(isinstance(inner, dict | list) for inner in value):
            for inner in value:
                for line, _ in _record(inner, reading):
                    yield (f"{path}: {line}" if path else line), True
        case list():
            text = ", ".join(map(_shown, value))
            yield (f"{path}: {text}" if path else text), False
        case _:
            yield (f"{path}: {_shown(value)}" if path else _shown(value)), False


def _record(value: Any, reading: Reading) -> Iterator[tuple[str, bool]]:
    """A value of a list: one line with its names where it fits, else several with its first value."""
    if isinstance(value, dict):
        fields = list(_flat(value, ""))
        lines = record_lines([name for name, _ in fields], [text for _, text in fields], reading.row_characters)
        yield from ((line, True) for line in lines)
    else:
        yield from _lines(value, "", reading)


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{path} {name}".strip())
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for number, inner in enumerate(value, start=1):
            yield from _flat(inner, f"{path} {number}".strip())
    elif isinstance(value, list):
        yield path, ", ".join(map(_shown, value))
    else:
        yield path, _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value.translate(CLEANED)
    return json.dumps(value, ensure_ascii=False)
