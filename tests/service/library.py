"""Three short documents, and what is asked about them."""

from __future__ import annotations

from typing import Any

import httpx

from tests.service.helpers import Json, add

QUESTION = "Where did the office of the person who signed the lease move?"
SENTENCES = [
    "Ana signed the lease on Monday.",
    "The weather was fine and the harvest good.",
    "Nobody read the minutes, 👀 as usual.",
    "Bruno kept bees behind the mill.",
    "Ana's office moved to Lisbon in May.",
    "The mill was sold for a song.",
    "A letter from Porto arrived late.",
    "Clara counted nine boats in the harbour.",
    "The bees swarmed in June.",
    "In Lisbon the trams are yellow.",
    "Somebody had painted the door green.",
    "The lease ran for seven years.",
]


def add_lines(client: httpx.Client, collection: str, lines: list[str], **fields: Any) -> Json:
    return add(client, "\n".join(lines), collection=collection, chunking={"mode": "lines"}, **fields)


def add_library(client: httpx.Client, collection: str) -> None:
    """Three documents of four chunks each."""
    for number in range(3):
        title = None if number == 1 else f"Part {number}"
        metadata = {"number": number, "gone": None}
        add_lines(client, collection, SENTENCES[4 * number : 4 * number + 4], title=title, metadata=metadata)
