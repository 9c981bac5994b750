"""Several questions at once: each is answered as by itself, from one read, and fails by itself."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx
import pytest

from qrag.wire.asking.batches import MAX_BATCH
from tests.service.helpers import Json, add, ask, metric, problem
from tests.service.library import QUESTION, SENTENCES, add_library, add_lines


def batch(client: httpx.Client, questions: list[Any], **fields: Any) -> list[Json]:
    """The items of a batch."""
    answer = client.post("/retrieve/batch", json={"questions": questions, **fields})
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    assert len(items) == len(questions)
    return items


def alike(one: object, other: object) -> bool:
    """Whether two answers are the same, but for times, tokens and the rounding of what is embedded in other company."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = (set(one) | set(other)) - {"timings", "continuation"}
        return all(alike(one.get(name), other.get(name)) for name in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=1e-4)
    return one == other


def test_each_question_is_answered_as_by_itself(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    shared: Json = {"collection": collection, "max_steps": 3, "order": "selection"}
    (first,) = ask(client, QUESTION, **{**shared, "max_steps": 1})["chunks"]
    held = [{"document_id": first["document_id"], "index": first["index"]}]
    own: list[Json] = [
        {"question": QUESTION},
        {"question": SENTENCES[0], "max_steps": 5, "stop": {"rule": "budget"}},
        {"question": QUESTION, "given": held},
        {"question": QUESTION, "exclude": held, "max_steps": 2},
        {"question": "Who kept bees?", "max_steps": None, "stop": {"step_cost": 0.9}},
    ]
    items = batch(client, [QUESTION, *own], **shared)
    for item, fields in zip(items, [{"question": QUESTION}, *own], strict=True):
        given = {name: value for name, value in fields.items() if value is not None}
        assert item["problem"] is None
        assert alike(item["result"], ask(client, **{**shared, **given}))
    assert [len(item["result"]["chunks"]) for item in items[:5]] == [3, 3, 5, 3, 2]


def test_place_and_limits_are_those_of_all_questions(client: httpx.Client, collection: str) -> None:
    for year in (2023, 2024):
        lines = "\n".join(SENTENCES)
        document = {"id": f"{collection}:{year}", "metadata": {"year": year}, "chunking": {"mode": "lines"}}
        add(client, f"{lines}\nIn {year}.", collection=collection, **document)
    filter = {"and": [{"field": "year", "gte": 2024}, {"not": {"or": [{"field": "year", "lt": 2024}]}}]}
    place = {"collection": collection, "filter": filter}
    limits = {"max_total_chunks": 2, "rerank": 3, "max_context_tokens": 1000}
    for item in batch(client, [QUESTION, SENTENCES[1]], **place, **limits):
        result = item["result"]
        assert [chunk["document_id"] for chunk in result["chunks"]] == [f"{collection}:2024"] * 2
        assert all(step["rerank_score"] is not None for step in result["steps"])


def test_states_of_all_questions_share_the_forward_passes(client: httpx.Client, collection: str) -> None:
    add_lines(client, collection, SENTENCES)
    fields = {"collection": collection, "max_steps": 4, "stop": {"rule": "budget"}}

    def passes() -> float:
        return metric(client, "qrag_batch_states_count")

    before = passes()
    ask(client, "Who is it of 20?", **fields)
    alone = passes() - before
    episodes = metric(client, 'qrag_episodes_total{stopped_by="budget"}')
    batch(client, [f"Who is number {number}?" for number in range(20)], **fields)
    assert passes() - before == 2 * alone
    assert metric(client, 'qrag_episodes_total{stopped_by="budget"}') == episodes + 20


def test_a_question_that_fails_does_not_spoil_the_others(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    fields = {"collection": collection, "max_steps": 2}
    nowhere = [{"document_id": "nowhere", "index": 3}]
    failing: list[Json] = [{"question": "long " * 2000}, {"question": QUESTION, "given": nowhere}]
    items = batch(client, [QUESTION, failing[0], SENTENCES[0], failing[1], QUESTION], **fields)
    told = [client.post("/retrieve", json={**fields, **body}).json() for body in failing]
    assert [item["problem"] and item["problem"]["code"] for item in items] == [
        *(None, "question_too_long", None),
        *("chunk_out_of_scope", None),
    ]
    assert [{**items[number]["problem"]} for number in (1, 3)] == [{**each, "errors": None} for each in told]
    assert [items[number]["result"] for number in (1, 3)] == [None, None]
    for item in (items[0], items[4]):
        assert alike(item["result"], ask(client, QUESTION, **fields))


def test_what_concerns_all_questions_is_a_problem_of_the_batch(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)

    def told(**body: Any) -> httpx.Response:
        return client.post("/retrieve/batch", json=body)

    problem(told(questions=["Who?"], collection="nowhere"), 404, "unknown_collection")
    problem(told(questions=["Who?"], collection=collection, document_ids=["nowhere"]), 404, "unknown_document")
    for body, where in (
        ({"questions": []}, "questions"),
        ({"questions": ["Who?"] * (MAX_BATCH + 1)}, "questions"),
        ({"questions": ["Who?", " "]}, "questions.1"),
        ({"questions": ["Who?", {"question": "Who?", "max_steps": 0}]}, "questions.1.fields.max_steps"),
        ({"questions": [{"question": "Who?", "collection": "other"}]}, "questions.0.fields.collection"),
        ({"questions": ["Who?"], "continuation": "a"}, "continuation"),
        ({"questions": ["Who?"], "max_steps": 33}, "max_steps"),
    ):
        assert where in problem(told(**body), 422, "validation_error")["errors"][0]["at"]


def test_batches_and_questions_beside_each_other(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    fields: Json = {"collection": collection, "max_steps": 3}
    expected = ask(client, QUESTION, **fields)

    async def together() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60) as other:
            many = [other.post("/retrieve/batch", json={"questions": [QUESTION] * 8, **fields}) for _ in range(4)]
            single = [other.post("/retrieve", json={"question": QUESTION, **fields}) for _ in range(4)]
            return await asyncio.gather(*many, *single)

    answers = [answer.json() for answer in asyncio.run(together())]
    results = [item["result"] for answer in answers[:4] for item in answer["items"]] + answers[4:]
    assert len(results) == 36
    for result in results:
        assert [chunk["text"] for chunk in result["chunks"]] == [chunk["text"] for chunk in expected["chunks"]]


@pytest.mark.parametrize("count", [1, MAX_BATCH])
def test_the_smallest_and_the_largest_batch(client: httpx.Client, collection: str, count: int) -> None:
    add_library(client, collection)
    items = batch(client, [f"Who is number {number}?" for number in range(count)], collection=collection, max_steps=1)
    assert all(len(item["result"]["chunks"]) == 1 for item in items)
