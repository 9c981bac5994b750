"""The programs in ``examples/clients``, each as its first lines say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from qrag.wire import examples
from tests.client.command import ROOT
from tests.service.helpers import add
from tests.service.scripted import event, scripted, stream

pytestmark = pytest.mark.usefixtures("surroundings")

STEP = {**examples.RESULT["steps"][0], "chunk": examples.RESULT["chunks"][0]}


@pytest.fixture(scope="module")
def _indexed(shared_client: httpx.Client) -> Iterator[None]:
    """A document where the programs search: in the collection ``default``."""
    id = add(shared_client, "The lantern was in the attic before the garden.")["id"]
    yield
    shared_client.delete(f"/documents/{id}")


def program(name: str, question: str) -> subprocess.CompletedProcess[str]:
    path = ROOT / "examples" / "clients" / f"{name}.py"
    return subprocess.run([sys.executable, path, question], capture_output=True, text=True, timeout=60)


@pytest.mark.usefixtures("_indexed")
@pytest.mark.parametrize("name", ["mcp_tools", "vector_store"])
def test_it_prints_what_is_found(name: str) -> None:
    ended = program(name, "Where was the lantern before the garden?")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "The lantern was in the attic before the garden." in ended.stdout


def test_an_answer_is_shown_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        ("step", STEP),
        ("token", {"text": "In the "}),
        ("token", {"text": "attic."}),
        ("result", examples.ANSWER),
    ]
    with scripted([stream(b": working\n\n", *(event(name, data) for name, data in events))]) as server:
        monkeypatch.setenv("QRAG_URL", server.url)
        ended = program("answer", "Where was the lantern?")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"step {STEP['step']}: {STEP['chunk']['text']}\nIn the attic.\n")
    assert examples.ANSWER["citations"][0]["text"] in ended.stdout


@pytest.mark.parametrize("name", ["answer", "mcp_tools"])
def test_it_says_what_the_service_refuses(name: str) -> None:
    ended = program(name, "")
    assert ended.returncode == 1
    assert "String should have at least 1 character" in ended.stderr
    assert "Traceback" not in ended.stderr
