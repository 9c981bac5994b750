"""What the tests of the three retrievers have in common."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from service.client import Stop
from tests.markdown import blocks
from tests.service.helpers import Json, add
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
    "max_context_tokens": 99,
    "order": "selection",
}
"""Every option that changes what a retriever finds."""

BODY = {"question": QUESTION, **OPTIONS, "stop": {"step_cost": 0.1}}
"""What they become on the way to the service."""


def add_letters(client: httpx.Client, collection: str) -> None:
    """Two documents of three chunks each: one with metadata, of which a field is called like one of ours; one with a title."""
    text = "Ana signed the lease.\nAna works for Orion.\nOrion moved to Lisbon.\n"
    metadata = {"year": 1916, "tags": ["a"], "title": "hidden"}
    add(client, text, id=f"{collection}:1", collection=collection, chunking={"mode": "lines"}, metadata=metadata)
    add(client, text[::-1], id=f"{collection}:2", title="Ä", collection=collection, chunking={"mode": "lines"})


def told(chunk: Json, result: Json) -> Json:
    """What the document of a framework has to say about a chunk of an answer."""
    of_chunk = {name: chunk[name] for name in ("document_id", "title", "index", "start", "end", "step", "q")}
    return chunk["metadata"] | of_chunk | {name: result[name] for name in ("stopped_by", "sufficiency")}


def ids(result: Json) -> list[str]:
    """Of the documents that an answer's chunks have to become."""
    return [f"{chunk['document_id']}/{chunk['index']}" for chunk in result["chunks"]]


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
    import service.integrations.{name}
except ModuleNotFoundError as error:
    print(error)
del sys.modules["{PACKAGES[name]}"]
import service.integrations.{name}
"""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def run_examples(client: httpx.Client, name: str) -> None:
    """Run what the page about the integrations shows of a framework."""
    url = str(client.base_url).rstrip("/")
    examples = [
        block
        for block in blocks(ROOT / "docs" / "integrations.md", "python")
        if f"from service.integrations.{name} import" in block
    ]
    assert examples
    for example in examples:
        exec(example.replace("http://127.0.0.1:8000", url), {"__name__": "__main__"})
