"""Questions by both clients and by the command: listed page by page, exported for `qrag eval`, and deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import assert_type

import httpx
import pytest

from qrag import Client, Judgement, NotFound, QuestionOut, Stop
from qrag.cli.main import main
from qrag.evaluation.questions import read_questions
from qrag.wire import examples
from tests.client.clients import Connect
from tests.service.helpers import add
from tests.service.scripted import answer, scripted

QUESTION = "Who signed the lease?"


@pytest.fixture
def document(shared_client: httpx.Client, collection: str) -> str:
    text = "Ana signed the lease.\nBruno kept bees \u2028 in the Büro."
    id: str = add(shared_client, text, collection=collection, chunking={"mode": "lines"})["id"]
    return id


@pytest.mark.usefixtures("document")
def test_questions_are_listed_and_deleted(qrag: Client, collection: str) -> None:
    for number in range(103):
        qrag.retrieve(f"{QUESTION} {number}", collection=collection, max_steps=1)
    records = list(qrag.questions(collection=collection))
    assert_type(records, list[QuestionOut])
    assert [record.question for record in records] == [f"{QUESTION} {number}" for number in range(103)]
    assert list(qrag.questions(collection=collection, since=records[100].asked_at)) == records[100:]
    assert list(qrag.questions(collection=collection, found_nothing=True)) == [
        record for record in records if record.found_nothing
    ]
    assert list(qrag.questions(collection=collection, with_feedback=True)) == []
    qrag.delete_question(records[0].id)
    with pytest.raises(NotFound) as gone:
        qrag.delete_question(records[0].id)
    assert gone.value.code == "unknown_question"
    qrag.delete_all_questions(collection)
    assert list(qrag.questions(collection=collection)) == []


def test_only_what_was_asked_for_is_sent(connect: Connect) -> None:
    page = {"questions": [examples.QUESTION], "next_cursor": None}
    with scripted([answer(200, page), answer(200, page), answer(204, b"")]) as server:
        qrag = connect(server.url, pauses=[])
        assert list(qrag.questions()) == [QuestionOut.model_validate(examples.QUESTION)]
        list(qrag.questions(since=datetime(2026, 3, 1, tzinfo=UTC), found_nothing=True, with_feedback=True))
        qrag.delete_all_questions(None)
    assert [request.path for request in server.requests] == [
        "/questions?limit=100",
        "/questions?since=2026-03-01T00%3A00%3A00%2B00%3A00&found_nothing=true&with_feedback=true&limit=100",
        "/questions",
    ]


# --- The command ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("surroundings")
def test_the_command_exports_what_eval_takes_and_deletes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shared_client: httpx.Client, collection: str, document: str
) -> None:
    with Client(str(shared_client.base_url)) as qrag:
        for question in (QUESTION, "Who left?", QUESTION):
            qrag.retrieve(question, collection=collection, max_steps=2, stop=Stop(rule="budget"))
        for helpful in ([False, True], [True, False]):
            judged = [Judgement(document_id=document, index=n, helpful=each) for n, each in enumerate(helpful)]
            qrag.give_feedback(QUESTION, judged, collection=collection)
        records = list(qrag.questions(collection=collection))
    assert [len(record.feedback) for record in records] == [2, 0, 2]
    assert main(["questions", "export", "--collection", collection]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [QuestionOut.model_validate_json(line) for line in lines] == records
    assert main(["questions", "export", "--collection", collection, "--with-feedback", "--since", "2025-01-01"]) == 0
    assert capsys.readouterr().out.splitlines() == [lines[0], lines[2]]
    assert main(["questions", "export", "--collection", collection, "--for-eval"]) == 0
    exported = tmp_path / "questions.jsonl"
    exported.write_text(capsys.readouterr().out)
    (line,) = read_questions(exported)
    assert (line.id, line.question, line.collection) == (records[0].id, QUESTION, collection)
    assert [[(one.document_id, one.text) for one in piece] for piece in line.expected or ()] == [
        [(document, "Ana signed the lease.")]
    ]
    assert main(["questions", "delete", records[1].id]) == 0
    assert capsys.readouterr().out == f"{records[1].id} is deleted\n"
    assert main(["questions", "delete", "--collection", collection]) == 0
    assert capsys.readouterr().out == f"the questions of {collection} are deleted\n"
    assert main(["questions", "export", "--collection", collection]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("surroundings")
def test_the_command_deletes_all_only_where_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted([answer(204, b"")]) as server:
        monkeypatch.setenv("QRAG_URL", server.url)
        assert main(["questions", "delete", "--all"]) == 0
    assert capsys.readouterr().out == "the questions are deleted\n"
    assert [(request.method, request.path) for request in server.requests] == [("DELETE", "/questions")]


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize(
    "arguments",
    [
        ["delete"],
        ["delete", "qu-0", "--collection", "a"],
        ["delete", "--all", "--collection", "a"],
        ["delete", "--all", "--found-nothing"],
        ["export", "qu-0"],
        ["export", "--all"],
        ["export", "--since", "yesterday"],
        [],
    ],
)
def test_wrong_usage_of_the_command_sends_nothing(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["questions", *arguments])
    assert refused.value.code == 2
