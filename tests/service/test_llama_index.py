"""The retriever for LlamaIndex, in LlamaIndex, against running servers."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, TextNode

from service import examples
from service.client import NotFound, Unauthorized
from service.integrations.llama_index import QRagRetriever
from tests.service.frameworks import (
    BODY,
    OPTIONS,
    QUESTION,
    add_letters,
    asked,
    ids,
    import_alone,
    run_examples,
    told,
)
from tests.service.helpers import ask, text_of
from tests.service.scripted import answer, refusal, scripted


@pytest.fixture
def retriever(shared_client: httpx.Client, collection: str) -> QRagRetriever:
    """Of a collection of two documents."""
    add_letters(shared_client, collection)
    return QRagRetriever(str(shared_client.base_url), collection=collection, max_steps=4)


def test_nodes_are_the_evidence(shared_client: httpx.Client, retriever: QRagRetriever, collection: str) -> None:
    result = ask(shared_client, QUESTION, collection=collection, max_steps=4)
    assert len(result["chunks"]) == 4
    found = retriever.retrieve(QUESTION)
    assert [each.score for each in found] == [chunk["q"] for chunk in result["chunks"]]
    assert [each.metadata for each in found] == [told(chunk, result) for chunk in result["chunks"]]
    assert [each.node_id for each in found] == ids(result)
    for each in found:
        node = each.node
        assert isinstance(node, TextNode)
        assert node.ref_doc_id is not None
        assert node.start_char_idx is not None
        assert node.end_char_idx is not None
        text = text_of(shared_client, node.ref_doc_id, start=node.start_char_idx, end=node.end_char_idx)
        assert node.text == text
    assert asyncio.run(retriever.aretrieve(QUESTION)) == found


def test_a_language_model_reads_of_metadata_what_is_the_documents_own(
    retriever: QRagRetriever, collection: str
) -> None:
    found = {each.node.ref_doc_id: each.node for each in retriever.retrieve(QUESTION)}
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert found[f"{collection}:1"].get_metadata_str(mode) == "tags: ['a']\nyear: 1916"
        assert found[f"{collection}:2"].get_metadata_str(mode) == "title: Ä"


def test_options_are_those_of_the_client() -> None:
    with scripted(2 * [answer(200, examples.RESULT)]) as server:
        retriever = QRagRetriever(server.url, "qrag_key", **OPTIONS)
        retriever.retrieve(QUESTION)
        asyncio.run(retriever.aretrieve(QUESTION))
    assert [asked(request) for request in server.requests] == [BODY, BODY]


def test_errors_are_those_of_the_client(shared_client: httpx.Client) -> None:
    with pytest.raises(NotFound, match="collection"):
        QRagRetriever(str(shared_client.base_url), collection="nobody-has-this").retrieve(QUESTION)
    with scripted(2 * [refusal(401)]) as server:
        guarded = QRagRetriever(server.url)
        with pytest.raises(Unauthorized):
            guarded.retrieve(QUESTION)
        with pytest.raises(Unauthorized):
            asyncio.run(guarded.aretrieve(QUESTION))


def test_it_serves_a_query_engine(retriever: QRagRetriever) -> None:
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM())
    response = engine.query(QUESTION)
    found = retriever.retrieve(QUESTION)
    assert response.source_nodes == found
    for each in found:
        assert each.text in str(response)
    assert asyncio.run(engine.aquery(QUESTION)).source_nodes == found


def test_it_needs_llama_index_and_no_other_framework() -> None:
    assert "pip install 'qrag[llama-index]'" in import_alone("llama_index")


def test_the_example_of_the_docs_runs(shared_client: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    run_examples(shared_client, "llama_index")
    shown = capsys.readouterr().out
    assert "title: Minutes" in shown
    for line, (start, end) in {"Ana signed the lease.": (0, 21), "Ana works for Orion.": (22, 42)}.items():
        assert f" {start} {end} {line}\n" in shown
