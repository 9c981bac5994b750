"""Retrieval over HTTP: filters and ids decide where it looks."""

from __future__ import annotations

import httpx
import pytest

from tests.service.helpers import Json, add, ask, problem

LIBRARY = {
    "a": {"year": 1923, "tags": ["sea", "letters"], "draft": False, "rate": 1.5},
    "b": {"year": 1950, "tags": ["sea"], "draft": True, "name": "Nansen"},
    "c": {"year": "1950", "tags": [], "name": None},
    "d": {"name": "nansen", "years": [1900, 1990]},
    "e": {},
}


@pytest.fixture(scope="module")
def library(shared_client: httpx.Client) -> str:
    for name, metadata in LIBRARY.items():
        add(shared_client, f"Text {name}.", id=f"library-{name}", collection="library", metadata=metadata)
    return "library"


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({"field": "year", "equals": 1950}, "b"),
        ({"field": "year", "equals": 1950.0}, "b"),
        ({"field": "year", "equals": "1950"}, "c"),
        ({"field": "tags", "equals": "sea"}, "ab"),
        ({"field": "draft", "equals": False}, "a"),
        ({"field": "draft", "equals": 0}, ""),
        ({"field": "name", "equals": None}, "c"),
        ({"field": "name", "in": ["Nansen", None]}, "bc"),
        ({"field": "name", "in": ["Nansen", None], "equals": None}, "c"),
        ({"field": "tags", "in": []}, ""),
        ({"field": "tags", "in": ["letters", "x"]}, "a"),
        ({"field": "year", "gte": 1923, "lt": 1950}, "a"),
        ({"field": "year", "gt": 1923}, "b"),
        ({"field": "year", "lte": "1950"}, "c"),
        ({"field": "rate", "gt": 1, "lte": 1.5}, "a"),
        ({"field": "name", "gte": "a"}, "d"),
        ({"field": "draft", "gte": 0}, ""),
        ({"field": "years", "lt": 1950}, "d"),
        ({"field": "missing", "equals": None}, ""),
        ({"not": {"field": "tags", "equals": "sea"}}, "cde"),
        ({"and": [{"field": "tags", "equals": "sea"}, {"field": "year", "gt": 1930}]}, "b"),
        ({"or": [{"field": "rate", "gt": 0}, {"field": "name", "equals": "nansen"}]}, "ad"),
        ({"not": {"or": [{"field": "draft", "in": [True, False]}, {"not": {"field": "name", "gte": "A"}}]}}, "d"),
        (None, "abcde"),
    ],
)
@pytest.mark.parametrize("only", [None, "ade"])
def test_filter_decides_which_documents_are_searched(
    client: httpx.Client, library: str, filter_: Json | None, expected: str, only: str | None
) -> None:
    ids = None if only is None else [f"library-{name}" for name in only * 2]
    result = ask(client, "Which?", collection=library, filter=filter_, document_ids=ids, max_steps=10)
    wanted = {f"library-{name}" for name in expected if only is None or name in only}
    assert {chunk["document_id"] for chunk in result["chunks"]} == wanted
    assert result["usage"]["candidates"] == len(wanted)
    assert result["stopped_by"] == "exhausted"


def test_document_ids_must_be_of_the_collection(client: httpx.Client, library: str, collection: str) -> None:
    add(client, "Elsewhere.", collection=collection)
    for name, ids, unknown in (
        (library, ["library-a", "library-zz"], "library-zz"),
        (collection, ["library-a"], "library-a"),
    ):
        answer = client.post("/retrieve", json={"question": "?", "document_ids": ids, "collection": name})
        assert unknown in problem(answer, 404, "unknown_document")["detail"]
