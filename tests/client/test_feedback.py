"""Feedback by both clients and by the command: given, listed page by page, exported and deleted."""

from __future__ import annotations

import json
from typing import assert_type

import httpx
import pytest

from qrag import Client, FeedbackOut, Judgement, NotFound
from qrag.cli.main import main
from qrag.wire import examples
from tests.client.clients import Connect
from tests.service.helpers import add
from tests.service.scripted import answer, drop, scripted

QUESTION = "Who signed the lease?"


@pytest.fixture
def judged(shared_client: httpx.Client, collection: str) -> list[Judgement]:
    text = "Ana signed the lease.\nBruno kept bees \u2028 in the Büro."
    id = add(shared_client, text, collection=collection, chunking={"mode": "lines"})["id"]
    return [Judgement(document_id=id, index=index, helpful=index == 0) for index in range(2)]


def test_feedback_is_given_listed_and_deleted(qrag: Client, collection: str, judged: list[Judgement]) -> None:
    record = qrag.give_feedback(QUESTION, judged, collection=collection, answer="Ana.")
    assert_type(record, FeedbackOut)
    assert (record.question, record.collection, record.answer, record.comment) == (QUESTION, collection, "Ana.", None)
    assert [(chunk.index, chunk.helpful) for chunk in record.chunks] == [(0, True), (1, False)]
    assert record.chunks[0].text == "Ana signed the lease."
    others = [qrag.give_feedback(f"{QUESTION} {n}", judged[:1], collection=collection, comment="!") for n in range(120)]
    assert list(qrag.feedback(collection=collection)) == [record, *others]
    assert record.id in {each.id for each in qrag.feedback()}
    qrag.delete_feedback(record.id)
    with pytest.raises(NotFound) as gone:
        qrag.delete_feedback(record.id)
    assert gone.value.code == "unknown_feedback"
    assert list(qrag.feedback(collection=collection)) == others
    qrag.delete_all_feedback(collection)
    assert list(qrag.feedback(collection=collection)) == []


def test_a_lost_request_is_repeated_and_says_only_what_was_said(connect: Connect) -> None:
    with scripted([drop, answer(201, examples.FEEDBACK)]) as server:
        record = connect(server.url, pauses=[]).give_feedback(
            QUESTION, [Judgement(document_id="franklin", index=44, helpful=True)]
        )
    assert record == FeedbackOut.model_validate(examples.FEEDBACK)
    assert [json.loads(request.body) for request in server.requests] == 2 * [
        {"question": QUESTION, "chunks": [{"document_id": "franklin", "index": 44, "helpful": True}]}
    ]


# --- The command ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("surroundings")
def test_the_command_exports_a_line_a_record_and_deletes(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, judged: list[Judgement]
) -> None:
    with Client(str(shared_client.base_url)) as qrag:
        records = [qrag.give_feedback(f"{QUESTION} {n}", judged, collection=collection) for n in range(3)]
    assert main(["feedback", "export", "--collection", collection]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [FeedbackOut.model_validate_json(line) for line in lines] == records
    exported = shared_client.get(
        "/feedback", params={"collection": collection}, headers={"Accept": "application/jsonl"}
    )
    assert [json.loads(line) for line in lines] == [json.loads(line) for line in exported.text.splitlines()]
    nothing = "fb-0123456789abcdef01234567"
    assert main(["feedback", "delete", nothing, records[1].id]) == 1
    shown = capsys.readouterr()
    assert nothing in shown.err
    assert shown.out == f"{records[1].id} is deleted\n"
    assert main(["feedback", "export"]) == 0
    assert records[0].id in capsys.readouterr().out
    assert main(["feedback", "delete", "--collection", collection]) == 0
    assert capsys.readouterr().out == f"the feedback of {collection} is deleted\n"
    assert main(["feedback", "export", "--collection", collection]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize(
    "arguments", [["delete"], ["delete", "fb-0", "--collection", "a"], ["export", "fb-0"], ["give"], []]
)
def test_wrong_usage_of_the_command_sends_nothing(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["feedback", *arguments])
    assert refused.value.code == 2
