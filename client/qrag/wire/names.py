"""The names that documents, passages, collections and keys may have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

_PATTERN = r"^[A-Za-z0-9](?:[A-Za-z0-9._:@-]{0,198}[A-Za-z0-9_:@-])?$"
"""Letters, digits and ``._:@-``, no dot at the end; safe in a path of a URL."""

DocumentId = Annotated[
    str,
    StringConstraints(pattern=_PATTERN),
    Field(description="1-200 letters, digits and `._:@-`; by default derived from the content", examples=["franklin"]),
]
"""The id of a document."""

PassageId = Annotated[
    str,
    StringConstraints(pattern=_PATTERN.removesuffix("$") + "(?:#[0-9]{1,15}-[0-9]{1,15})?$"),
    Field(
        description="of a document, or of the characters `start` to `end` of it: `ID#START-END`",
        examples=["franklin#11191-11498"],
    ),
]
"""The id of a document or of a passage in it."""

CollectionName = Annotated[
    str, StringConstraints(pattern=_PATTERN), Field(description="1-200 letters, digits and `._:@-`")
]
KeyName = Annotated[str, StringConstraints(pattern=_PATTERN), Field(description="for the log, and for removing it")]
