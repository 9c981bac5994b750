"""A scripted agent that asks a real service over MCP, and a frozen reader that answers from what it found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from pydantic import BaseModel

from benchmarks.serving import ROOT, Service, running_service
from trainer.datasets.files import entries
from trainer.readers.matching import f1
from trainer.readers.protocol import Prompt, Reader, generated

BOOK = ROOT / "examples" / "franklin-autobiography.txt"

PASSAGES = 2
"""Passages of a call."""

CALLS = 3
"""Most calls for a question."""

LIKELY = 0.5
"""The agent asks no more where the evidence is complete with this probability."""

ANSWER_TOKENS = 32
"""Most tokens of an answer."""


class _Asked(BaseModel):
    id: str
    book: str
    question: str
    answer: str
    kind: str
    facts: list[list[tuple[int, int]]]


class Found(BaseModel):
    """What an agent has after its last call."""

    contexts: list[str]
    passages: list[tuple[int, int, int]]
    """Number, first and last character of each, in the order in which they came."""
    complete: float | None


async def answer_over_mcp(data: Path, reader: Reader, count: int) -> dict[str, Any]:
    """The first ``count`` two-fact questions on Franklin's book, answered end to end."""
    asked = [entry.parse(_Asked) for entry in entries(data / "reader" / "reader_dev.jsonl")]
    asked = [each for each in asked if each.kind == "two" and each.book == BOOK.name][:count]
    with running_service() as service:
        checkpoint = _index(service)
        async with httpx2.AsyncClient(timeout=600) as http:
            transport = streamable_http_client(f"{service.address}/mcp", http_client=http)
            async with Client(transport) as client:
                found = [await ask(client, each.question) for each in asked]
    prompts = [Prompt(each.question, tuple(some.contexts)) for each, some in zip(asked, found, strict=True)]
    written = [each.text.strip() for each in generated(reader, prompts, ANSWER_TOKENS)]
    rows = [_row(*each) for each in zip(asked, found, written, strict=True)]
    return {
        "checkpoint": checkpoint,
        "reader": reader.identity.partition(" ")[0],
        "questions": len(rows),
        "both_facts": sum(row["facts_found"] == row["facts"] for row in rows),
        "share_of_facts": round(float(np.mean([row["facts_found"] / row["facts"] for row in rows])), 4),
        "f1": round(float(np.mean([row["f1"] for row in rows])), 4),
        "repeated_passages": sum(row["repeated"] for row in rows),
        "answers": rows,
    }


def _index(service: Service) -> str:
    """Index the book; returns the name of the checkpoint."""
    with BOOK.open(encoding="utf-8", newline="") as file:
        body = {"text": file.read(), "title": "Autobiography of Benjamin Franklin"}
    service.client.post("/documents", params={"wait": True}, json=body).raise_for_status()
    name: str = service.client.get("/model").json()["name"]
    return name


async def ask(client: Client, question: str) -> Found:
    """Call `retrieve`, and go on until the evidence is likely complete, nothing is left, or the calls are used up."""
    found = Found(contexts=[], passages=[], complete=None)
    arguments: dict[str, Any] = {"question": question}
    for _ in range(CALLS):
        result = await client.call_tool(
            "retrieve", {**arguments, "max_steps": PASSAGES, "stop": {"rule": "budget"}, "order": "selection"}
        )
        evidence: dict[str, Any] = result.structured_content or {}
        if result.is_error or not evidence["citations"]:
            break
        found.contexts.append(evidence["context"])
        found.passages += [(each["index"], each["start"], each["end"]) for each in evidence["citations"]]
        found.complete = None if evidence["sufficiency"] is None else evidence["sufficiency"]["complete"]
        if evidence["continuation"] is None or (found.complete or 0) >= LIKELY:
            break
        arguments = {"continuation": evidence["continuation"]}
    return found


def _row(asked: _Asked, found: Found, written: str) -> dict[str, Any]:
    spans = [(start, end) for _, start, end in found.passages]
    return {
        "id": asked.id,
        "calls": len(found.contexts),
        "passages": len(found.passages),
        "repeated": len(found.passages) - len({number for number, _, _ in found.passages}),
        "facts": len(asked.facts),
        "facts_found": sum(_holds(spans, fact) for fact in asked.facts),
        "complete": None if found.complete is None else round(found.complete, 3),
        "gold": asked.answer,
        "answer": written,
        "f1": round(f1(written, [asked.answer]), 3),
    }


def _holds(spans: Sequence[tuple[int, int]], fact: Sequence[tuple[int, int]]) -> bool:
    """Whether a passage overlaps one of the spans that hold a fact."""
    return any(first < end and start < last for first, last in spans for start, end in fact)
