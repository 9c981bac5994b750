"""Records in order of arrival: a page of them, or all at once as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from qrag.wire.feedback import MAX_RECORDS
from qrag.wire.media_types import MediaType
from service.errors import InvalidRequest
from service.http.dependencies import accepts

LINES = MediaType.JSON_LINES
"""The media type in which everything is given out, a record a line."""


class Record(Protocol):
    """What has a place in the order of arrival."""

    @property
    def number(self) -> int:
        """Greater than that of any record before."""


Stored = TypeVar("Stored", bound=Record)

Reader = Callable[[int, int], Sequence[Stored]]
"""A function from a number and a limit to the first records with greater numbers."""


def lines_described(example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The description of an answer as JSON Lines."""
    return {200: {"content": {LINES.value: {"schema": {"type": "string"}, "example": f"{json.dumps(example)}\n"}}}}


def wants_lines(request: Request, cursor: str | None, limit: int | None) -> bool:
    """Whether the client asks for JSON Lines; raises :class:`~service.errors.InvalidRequest` where it pages as well."""
    if not accepts(request, LINES):
        return False
    if cursor is not None or limit is not None:
        raise InvalidRequest("JSON Lines have everything at once. Leave out cursor and limit.")
    return True


def lines(read: Reader[Stored], shown: Callable[[Stored], BaseModel]) -> StreamingResponse:
    """Every record, a line each, read while it is sent."""

    def content() -> Iterator[str]:
        after = 0
        while found := read(after, MAX_RECORDS):
            yield "".join(f"{json.dumps(shown(record).model_dump(mode='json'))}\n" for record in found)
            after = found[-1].number

    return StreamingResponse(content(), media_type=LINES)


def page(read: Reader[Stored], cursor: str | None, limit: int | None) -> tuple[Sequence[Stored], str | None]:
    """The records after a cursor, and the cursor of the next page; none on the last."""
    limit = limit or MAX_RECORDS
    found = read(int(cursor or 0), limit + 1)
    return found[:limit], str(found[limit - 1].number) if len(found) > limit else None
