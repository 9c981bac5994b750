"""The retriever for LlamaIndex, in LlamaIndex, against running servers."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, TextNode

from qrag import NotFound, Unauthorized
from qrag.integrations.llama_index import QRagRetriever
from qrag.wire import examples
from tests.client.frameworks import BODY, OPTIONS, QUESTION, Expected, Letters, asked, import_alone, run_examples
from tests.service.scripted import answer, refusal, scripted


@pytest.fixture
def retriever(letters: Letters) -> QRagRetriever:
    """A retriever over a collection of two documents."""
    return QRagRetriever(letters.url, collection=letters.collection, max_steps=4)


def test_nodes_are_the_evidence(retriever: QRagRetriever, letters: Letters) -> None:
    found = retriever.retrieve(QUESTION)
    assert letters.expected == [Expected(each.node_id, each.text, each.get_score(), each.metadata) for each in found]
    for each in found:
        node = each.node
        assert isinstance(node, TextNode)
        assert (node.ref_doc_id, node.start_char_idx, node.end_char_idx) == (
            node.metadata["document_id"],
            node.metadata["start"],
            node.metadata["end"],
        )
    assert asyncio.run(retriever.aretrieve(QUESTION)) == found


def test_a_language_model_reads_of_metadata_what_is_the_documents_own(
    retriever: QRagRetriever, letters: Letters
) -> None:
    found = {each.node.ref_doc_id: each.node for each in retriever.retrieve(QUESTION)}
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert found[f"{letters.collection}:1"].get_metadata_str(mode) == "tags: ['a']\nyear: 1916"
        assert found[f"{letters.collection}:2"].get_metadata_str(mode) == "title: Ä"


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
    assert "pip install './client[llama-index]'" in import_alone("llama_index")


def test_the_example_of_the_docs_runs(shared_client: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    run_examples(shared_client, "llama_index")
    shown = capsys.readouterr().out
    assert "title: Minutes" in shown
    for line, (start, end) in {"Ana signed the lease.": (0, 21), "Ana works for Orion.": (22, 42)}.items():
        assert f" {start} {end} {line}\n" in shown
