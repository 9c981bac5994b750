"""The client as a package: light to import, typed, and the same blocking and awaiting."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qrag
from qrag import AsyncClient, ChunkReference, Client, RetrieveOptions, SelectedChunk, Stop
from qrag.wire import examples
from qrag.wire.retrieval import RetrieveIn
from tests.client.clients import Connect
from tests.service.scripted import answer, scripted

ROOT = Path(__file__).parent.parent.parent
TYPED = """
from qrag import AsyncClient, Client, DocumentIn, RetrieveOut, StepEvent, Stop

def right(qrag: Client) -> list[int | None]:
    document = qrag.index("Ana signed.", metadata={"year": 1916}, chunking="lines")
    answer: RetrieveOut = qrag.retrieve("Who?", stop=Stop(step_cost=0.1), filter={"field": "year", "gte": 1})
    steps: list[StepEvent] = [event for event in qrag.stream("Who?") if isinstance(event, StepEvent)]
    return [document.chunks, answer.steps[0].index, steps[0].step, qrag.index_many([DocumentIn(text="a")])[0].tokens]

async def also_right(qrag: AsyncClient) -> list[str]:
    return [document.id async for document in qrag.documents(collection="c")]

def wrong(qrag: Client) -> None:
    qrag.retrieve("Who?", max_step=3)
    qrag.index("Ana signed.", chunking="words")
"""
"""What somebody writes who has mypy's strict mode, and no plugin for pydantic."""
HEAVY = {
    *("torch", "transformers", "numba", "numpy", "fastapi", "starlette", "uvicorn"),
    *("index", "service", "trainer"),
}


def loaded_by(program: str) -> set[str]:
    """The modules that a program of its own has loaded in the end."""
    command = [sys.executable, "-c", f"{program}; import sys; print(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    ("program", "loaded"),
    [
        ("import qrag", "qrag"),
        ("from qrag import Client", "qrag.client.blocking"),
        ("import qrag.cli.main", "qrag.cli.main"),
    ],
)
def test_it_is_light_to_import(program: str, loaded: str) -> None:
    modules = loaded_by(program)
    assert loaded in modules
    assert not HEAVY & modules


def test_the_package_alone_imports_no_http_client() -> None:
    assert not {"httpx", "pydantic"} & loaded_by("import qrag")


def test_every_public_name_can_be_imported() -> None:
    for name in qrag.__all__:
        assert getattr(qrag, name).__name__ == name
    assert set(qrag.__all__) <= set(dir(qrag))
    with pytest.raises(AttributeError, match="has no attribute 'Cleint'"):
        _ = qrag.Cleint


def test_its_types_are_those_of_its_users(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    options = ["--strict", "--config-file=", "--explicit-package-bases", "--follow-imports=silent", "--no-pretty"]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir", str(tmp_path / "cache"), "typed.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT / "client")},
        capture_output=True,
        text=True,
    )
    lines = TYPED.splitlines()
    found = re.findall(r"typed\.py:(\d+): error: (.*)", checked.stdout)
    assert [lines[int(number) - 1].strip() for number, _ in found] == [line.strip() for line in lines[-2:]], checked
    for package in ("client/qrag", "index", "service"):
        assert (ROOT / package / "py.typed").exists()


def test_both_clients_are_used_alike() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        public = (name for name in vars(kind) if not name.startswith("_"))
        return {name: list(inspect.signature(getattr(kind, name)).parameters) for name in public}

    assert methods(Client) == methods(AsyncClient)
    assert list(inspect.signature(Client).parameters) == list(inspect.signature(AsyncClient).parameters)


def test_the_body_of_a_question_says_only_what_was_said(connect: Connect) -> None:
    with scripted([answer(200, examples.RESULT)]) as server:
        connect(server.url).retrieve("Who?", stop=Stop(step_cost=0.1), collection=None)
    assert json.loads(server.requests[0].body) == {"question": "Who?", "stop": {"step_cost": 0.1}}


def test_chunks_of_an_answer_can_be_held_and_left_out(connect: Connect) -> None:
    chunk = SelectedChunk.model_validate(examples.RESULT["chunks"][0])
    with scripted(2 * [answer(200, examples.RESULT)]) as server:
        connect(server.url).retrieve("Who?", given=[chunk], exclude=[ChunkReference(document_id="a", index=3)])
        connect(server.url).retrieve(continuation="AAAA", given=[])
    assert [json.loads(request.body) for request in server.requests] == [
        {
            "question": "Who?",
            "given": [{"document_id": "franklin", "index": 44}],
            "exclude": [{"document_id": "a", "index": 3}],
        },
        {"continuation": "AAAA", "given": []},
    ]


def test_a_question_can_say_all_that_the_service_understands() -> None:
    assert set(RetrieveOptions.__annotations__) == set(RetrieveIn.model_fields) - {"question"}
