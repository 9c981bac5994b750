"""What the tests of the three retrievers have in common."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from qrag import Stop
from tests.markdown import blocks
from tests.service.helpers import Json, add, ask
from tests.service.scripted import Request

ROOT = Path(__file__).parent.parent.parent
PACKAGES = {"langchain": "langchain_core", "llama_index": "llama_index", "haystack": "haystack"}
QUESTION = "Who signed the lease?"
OPTIONS: dict[str, Any] = {
    "collection": "letters",
    "document_ids": ["a", "b"],
    "filter": {"field": "year", "in": [1916]},
    "max_steps": 3,
    "stop": Stop(step_cost=0.1),
    "beam_width": 2,
    "location": {"page": 3},
    "rerank": 20,
    "max_context_tokens": 99,
    "order": "selection",
    "decompose": True,
}
"""Every option that changes what a retriever finds."""

OF_ONE_CALL = {"focus", "given", "exclude", "continuation", "max_total_chunks", "trace", "heatmap"}
"""Options that no retriever keeps."""

BODY = {"question": QUESTION, **OPTIONS, "stop": {"step_cost": 0.1}}
"""What they become on the way to the service."""


class Expected(NamedTuple):
    """What has to become of a chunk, whatever a framework calls it."""

    id: str
    text: str
    score: float
    metadata: Json


_FIELDS = ("document_id", "title", "index", "start", "end", "step", "q", "location", "parts")
"""What is told of a chunk beside its text."""


@dataclass(frozen=True)
class Letters:
    """A collection of two documents of three chunks each, and what :data:`QUESTION` finds in it in four steps."""

    url: str
    collection: str
    result: Json

    @property
    def expected(self) -> list[Expected]:
        """The same as a framework has to have it."""
        return [
            Expected(
                id=f"{chunk['document_id']}/{chunk['index']}",
                text=chunk["text"],
                score=chunk["q"],
                metadata={
                    **chunk["metadata"],
                    **{name: chunk[name] for name in _FIELDS},
                    **{name: self.result[name] for name in ("stopped_by", "sufficiency", "continuation")},
                },
            )
            for chunk in self.result["chunks"]
        ]


def write_letters(client: httpx.Client, collection: str) -> Letters:
    """One document has metadata, of which one name is ours as well; one has a title."""
    text = "Ana signed the lease.\nAna works for Orion.\nOrion moved to Lisbon.\n"
    metadata = {"year": 1916, "tags": ["a"], "title": "hidden"}
    add(client, text, id=f"{collection}:1", collection=collection, chunking={"mode": "lines"}, metadata=metadata)
    add(client, text[::-1], id=f"{collection}:2", title="Ä", collection=collection, chunking={"mode": "lines"})
    result = ask(client, QUESTION, collection=collection, max_steps=4)
    assert len(result["chunks"]) == 4
    assert result["sufficiency"]["complete"] > 0
    return Letters(str(client.base_url), collection, result)


def asked(request: Request) -> Json:
    """The body of a request that came with the key of the tests."""
    assert request.headers["Authorization"] == "Bearer qrag_key"
    body: Json = json.loads(request.body)
    return body


def import_alone(name: str) -> str:
    """Import a module of the integrations with its own framework alone; what it said before that was there."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({[*PACKAGES.values()]}))
try:
    import qrag.integrations.{name}
except ModuleNotFoundError as error:
    print(error)
del sys.modules["{PACKAGES[name]}"]
import qrag.integrations.{name}
"""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def run_examples(client: httpx.Client, name: str) -> None:
    """Run what the page about the integrations shows of a framework."""
    url = str(client.base_url).rstrip("/")
    examples = [
        block
        for block in blocks(ROOT / "docs" / "integrations.md", "python")
        if f"from qrag.integrations.{name} import" in block
    ]
    assert examples
    for example in examples:
        exec(example.replace("http://127.0.0.1:8000", url), {"__name__": "__main__"})
