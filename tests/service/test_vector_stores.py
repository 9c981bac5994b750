"""Vector store search as OpenAI's own client sends it: the episode's chunks come back, and nothing is ignored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import VectorStoreSearchResponse

from tests.service.helpers import Json, add, ask, problem

QUESTION = "Where did the office of the person who signed the lease move?"
LIBRARY: dict[str, Json] = {
    "a": {"year": 1923, "tags": ["sea", "letters"], "draft": False, "rate": 1.5},
    "b": {"year": 1950, "tags": ["sea"], "draft": True, "name": "Nansen", "more": {"pages": 3}},
    "c": {"year": "1950", "name": None},
    "d": {},
}


@pytest.fixture(scope="module")
def store(shared_client: httpx.Client) -> str:
    """A collection of four documents of three chunks each."""
    for name, metadata in LIBRARY.items():
        text = f"Ana signed the lease of {name}.\nHer office moved to {name}.\nThe trams of {name} are yellow."
        title = None if name == "a" else f"Part {name}"
        fields = {"title": title, "metadata": metadata, "chunking": {"mode": "lines"}}
        add(shared_client, text, id=f"store-{name}", collection="store", **fields)
    return "store"


@pytest.fixture(scope="module")
def client(shared_client: httpx.Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared_client.base_url}/v1", api_key="any", max_retries=0) as client:
        yield client


def found(results: list[VectorStoreSearchResponse]) -> dict[str, float]:
    return {result.content[0].text: result.score for result in results}


def best_first(chunks: list[Json]) -> dict[str, Any]:
    ordered = sorted(chunks, key=lambda chunk: -float(chunk["q"]))
    return {chunk["text"]: pytest.approx(min(max(chunk["q"], 0), 1), abs=0.005) for chunk in ordered}


def test_results_are_the_chunks_of_the_episode_best_first(
    client: openai.OpenAI, shared_client: httpx.Client, store: str
) -> None:
    page = client.vector_stores.search(store, query=QUESTION, max_num_results=5)
    assert page.object == "vector_store.search_results.page"
    assert page.model_dump()["search_query"] == [QUESTION]
    assert (page.model_dump()["has_more"], page.model_dump()["next_page"]) == (False, None)
    retrieved = ask(shared_client, QUESTION, collection=store, max_steps=5)["chunks"]
    assert len(retrieved) == 5
    assert found(page.data) == best_first(retrieved)
    titles = {result.file_id: result.filename for result in page.data}
    assert titles == {chunk["document_id"]: chunk["title"] or chunk["document_id"] for chunk in retrieved}
    assert [[part.type for part in result.content] for result in page.data] == [["text"]] * 5
    assert list(client.vector_stores.search(store, query=QUESTION, max_num_results=5)) == page.data  # there is one page


def test_attributes_are_the_metadata_that_the_schema_has_room_for(client: openai.OpenAI, store: str) -> None:
    page = client.vector_stores.search(store, query="?", max_num_results=50)
    attributes = {result.file_id: result.attributes or {} for result in page.data}
    assert attributes == {
        "store-a": {"year": 1923, "draft": False, "rate": 1.5},
        "store-b": {"year": 1950, "draft": True, "name": "Nansen"},
        "store-c": {"year": "1950"},
        "store-d": {},
    }
    assert attributes["store-b"]["draft"] is True


def test_a_list_of_queries_is_an_episode_each_and_every_chunk_comes_once(
    client: openai.OpenAI, shared_client: httpx.Client, store: str
) -> None:
    queries = [QUESTION, "Which trams are yellow?"]
    page = client.vector_stores.search(store, query=queries, max_num_results=4)
    assert page.model_dump()["search_query"] == queries
    chunks = [
        chunk for query in queries for chunk in ask(shared_client, query, collection=store, max_steps=4)["chunks"]
    ]
    best: dict[str, Json] = {}
    for chunk in sorted(chunks, key=lambda chunk: -float(chunk["q"])):
        best.setdefault(chunk["text"], chunk)
    assert found(page.data) == best_first(list(best.values())[:4])


def test_the_threshold_leaves_out_smaller_scores(client: openai.OpenAI, store: str) -> None:
    scores = sorted(found(client.vector_stores.search(store, query=QUESTION, max_num_results=8).data).values())
    middle = (scores[3] + scores[4]) / 2
    options: Any = {"score_threshold": middle, "ranker": "auto"}
    page = client.vector_stores.search(store, query=QUESTION, max_num_results=8, ranking_options=options)
    assert len(page.data) == 4
    assert all(result.score >= middle for result in page.data)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"type": "eq", "key": "year", "value": 1950}, "b"),
        ({"type": "eq", "key": "year", "value": "1950"}, "c"),
        ({"type": "eq", "key": "tags", "value": "sea"}, "ab"),
        ({"type": "eq", "key": "draft", "value": False}, "a"),
        ({"type": "ne", "key": "draft", "value": True}, "acd"),
        ({"type": "gt", "key": "year", "value": 1923}, "b"),
        ({"type": "gte", "key": "year", "value": 1923}, "ab"),
        ({"type": "lt", "key": "rate", "value": 2.5}, "a"),
        ({"type": "lte", "key": "year", "value": "1950"}, "c"),
        ({"type": "in", "key": "year", "value": [1923, "1950"]}, "ac"),
        ({"type": "nin", "key": "year", "value": [1923, "1950"]}, "bd"),
        (
            {
                "type": "and",
                "filters": [
                    {"type": "eq", "key": "tags", "value": "sea"},
                    {
                        "type": "or",
                        "filters": [
                            {"type": "lt", "key": "year", "value": 1930},
                            {"type": "eq", "key": "name", "value": "x"},
                        ],
                    },
                ],
            },
            "a",
        ),
    ],
)
def test_filters_mean_what_they_mean_there(client: openai.OpenAI, store: str, filters: Any, expected: str) -> None:
    page = client.vector_stores.search(store, query="Which?", filters=filters, max_num_results=50)
    assert {result.file_id for result in page.data} == {f"store-{name}" for name in expected}


def nested(levels: int) -> Json:
    inner: Json = {"type": "eq", "key": "year", "value": 1}
    for _ in range(levels):
        inner = {"type": "and", "filters": [inner]}
    return inner


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rewrite_query": True}, "not rewritten here"),
        ({"ranking_options": {"ranker": "cohere-3"}}, "no such ranker"),
        ({"ranking_options": {"hybrid_search": {"text_weight": 1}}}, "hybrid_search"),
        ({"ranking_options": {"score_threshold": 1.5}}, "score_threshold"),
        ({"max_num_results": 51}, "max_num_results"),
        ({"max_num_results": 0}, "max_num_results"),
        ({"query": []}, "query"),
        ({"query": " "}, "blank"),
        ({"query": ["Who?"] * 9}, "query"),
        ({"top_k": 3}, "top_k"),
        ({"filters": {"type": "like", "key": "name", "value": "N"}}, "filters"),
        ({"filters": {"type": "gt", "key": "draft", "value": True}}, "filters"),
        ({"filters": {"type": "in", "key": "year", "value": 1950}}, "filters"),
        ({"filters": {"type": "eq", "key": "year", "value": [1950]}}, "filters"),
        ({"filters": {"type": "and", "filters": []}}, "filters"),
        ({"filters": nested(40)}, "levels"),
        ({"filters": nested(400)}, "levels"),
    ],
)
def test_what_has_no_meaning_here_is_refused(shared_client: httpx.Client, store: str, fields: Json, words: str) -> None:
    path = f"/v1/vector_stores/{store}/search"
    assert (
        words in problem(shared_client.post(path, json={"query": "Who?", **fields}), 422, "validation_error")["detail"]
    )


def test_openai_client_raises_its_own_errors_with_our_code(client: openai.OpenAI, store: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.vector_stores.search("no-such-store", query="Who?")
    assert missing.value.code == "unknown_collection"
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.vector_stores.search(store, query="Who?", rewrite_query=True)
    assert isinstance(refused.value.body, dict)
    assert "not rewritten here" in refused.value.body["detail"]


def test_false_and_nothing_are_what_they_are_by_default(client: openai.OpenAI, store: str) -> None:
    page = client.vector_stores.search(store, query=QUESTION)
    assert len(page.data) == 10
    options: Any
    for options in (
        {"ranker": "none", "score_threshold": 0},
        {"ranker": "auto", "score_threshold": 0.0},
        {"ranker": "default-2024-11-15", "score_threshold": None},  # as the client's documentation shows
        {"ranker": None},
    ):
        same = client.vector_stores.search(store, query=QUESTION, rewrite_query=False, ranking_options=options)
        assert [result.file_id for result in same.data] == [result.file_id for result in page.data]


LEDGER = b"item,price\nbread,3\nmilk,4\n"


def test_attributes_say_where_a_chunk_stands_beside_the_metadata(
    client: openai.OpenAI, shared_client: httpx.Client, collection: str
) -> None:
    report = b"# Mill\n\nBread is baked.\n\n## Wheel\n\nMilk is sold.\n"
    for name, content, media_type, metadata in (
        ("ledger", LEDGER, "text/csv", '{"year": 2024}'),
        ("taken", LEDGER, "text/csv", '{"row": "mine"}'),
        ("full", LEDGER, "text/csv", json.dumps({f"key-{number}": number for number in range(16)})),
        ("report", report, "text/markdown", "{}"),
    ):
        query = {"wait": "true", "collection": collection, "id": name, "chunking": "lines", "metadata": metadata}
        answer = shared_client.post("/documents", params=query, content=content, headers={"Content-Type": media_type})
        assert answer.status_code == 201, answer.text
    found = client.vector_stores.search(collection, query="What is sold?", max_num_results=50).data
    milk = {result.file_id: result.attributes for result in found if "ilk" in result.content[0].text}
    assert milk == {
        "ledger": {"year": 2024, "row": 3},
        "taken": {"row": "mine"},
        "full": {f"key-{number}": number for number in range(16)},
        "report": {"headings": "Mill > Wheel"},
    }


def test_the_served_checkpoint_is_the_one_model(client: openai.OpenAI, shared_client: httpx.Client) -> None:
    (model,) = client.models.list().data
    assert model.id == shared_client.get("/model").json()["name"]
    assert (model.object, model.created, model.owned_by) == ("model", 0, "qrag")
    assert client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-4o")
    assert missing.value.code == "unknown_checkpoint"
