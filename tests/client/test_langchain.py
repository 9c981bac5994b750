"""The retriever for LangChain, in LangChain, against running servers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumps, load
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from pydantic import ValidationError

from qrag import NotFound, RetrieveOptions, Stop, Unauthorized
from qrag.integrations.langchain import QRagRetriever
from qrag.wire import examples
from qrag.wire.filters import Condition
from tests.client.frameworks import (
    BODY,
    OF_ONE_CALL,
    OPTIONS,
    QUESTION,
    Expected,
    Letters,
    asked,
    import_alone,
    run_examples,
)
from tests.service.scripted import answer, refusal, scripted

LOADING_IS_BETA = pytest.mark.filterwarnings("ignore:The function `load` is in beta")


@pytest.fixture
def retriever(letters: Letters) -> QRagRetriever:
    """A retriever over a collection of two documents."""
    return QRagRetriever(base_url=letters.url, collection=letters.collection, max_steps=4)


def test_documents_are_the_evidence(retriever: QRagRetriever, letters: Letters) -> None:
    found = retriever.invoke(QUESTION)
    assert letters.expected == [
        Expected(str(each.id), each.page_content, each.metadata["q"], each.metadata) for each in found
    ]
    assert asyncio.run(retriever.ainvoke(QUESTION)) == found


def test_one_question_goes_on_from_another(retriever: QRagRetriever) -> None:
    begun = retriever.invoke(QUESTION)
    continuation = begun[0].metadata["continuation"]
    rest = retriever.invoke(QUESTION, continuation=continuation)
    assert asyncio.run(retriever.ainvoke(QUESTION, continuation=continuation)) == rest
    assert len({document.id for document in (*begun, *rest)}) == 6
    focused = retriever.invoke(QUESTION, continuation=continuation, focus="Who wrote?")
    assert {document.id for document in focused} == {document.id for document in rest}


def test_options_are_those_of_the_client_and_can_be_given_for_one_question() -> None:
    assert set(OPTIONS) == set(RetrieveOptions.__annotations__) - OF_ONE_CALL
    with scripted(5 * [answer(200, examples.RESULT)]) as server:
        retriever = QRagRetriever(base_url=server.url, api_key="qrag_key", **OPTIONS)
        retriever.invoke(QUESTION)
        asyncio.run(retriever.ainvoke(QUESTION))
        retriever.invoke(QUESTION, max_steps=1, filter=None)
        asyncio.run(retriever.ainvoke(QUESTION, max_steps=1, filter=None))
        QRagRetriever(base_url=server.url, api_key="qrag_key").bind(stop=Stop(rule="budget")).invoke(QUESTION)
    changed = {name: value for name, value in BODY.items() if name != "filter"} | {"max_steps": 1}
    last = {"question": QUESTION, "stop": {"rule": "budget"}}
    assert [asked(request) for request in server.requests] == [BODY, BODY, changed, changed, last]


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_step\n"):
        QRagRetriever(max_step=3)  # type: ignore[call-arg]


def test_errors_are_those_of_the_client(retriever: QRagRetriever) -> None:
    with pytest.raises(NotFound, match="collection"):
        retriever.invoke(QUESTION, collection="nobody-has-this")
    with scripted(2 * [refusal(401)]) as server:
        guarded = QRagRetriever(base_url=server.url)
        with pytest.raises(Unauthorized):
            guarded.invoke(QUESTION)
        with pytest.raises(Unauthorized):
            asyncio.run(guarded.ainvoke(QUESTION))
    assert "Authorization" not in server.requests[0].headers


def test_it_takes_part_in_a_chain(retriever: QRagRetriever) -> None:
    def joined(documents: list[Document]) -> str:
        return "\n".join(document.page_content for document in documents)

    prompts: list[Any] = []

    def noted(prompt: Any) -> Any:
        prompts.append(prompt.to_string())
        return prompt

    chain = (
        {"facts": retriever | joined, "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template("{facts}\n\n{question}")
        | noted
        | FakeListChatModel(responses=["Ana."])
        | StrOutputParser()
    )
    assert chain.invoke(QUESTION) == "Ana."
    assert asyncio.run(chain.ainvoke(QUESTION)) == "Ana."
    assert prompts == 2 * [f"Human: {joined(retriever.invoke(QUESTION))}\n\n{QUESTION}"]


@LOADING_IS_BETA
def test_it_is_saved_without_its_key_and_loaded_with_it() -> None:
    conditions = [OPTIONS["filter"], Condition.model_validate(OPTIONS["filter"])]
    retrievers = [
        QRagRetriever(base_url="http://127.0.0.1:1", api_key="qrag_key", timeout=7, **OPTIONS | {"filter": condition})
        for condition in conditions
    ]
    saved = [dumps(retriever) for retriever in retrievers]
    assert saved[0] == saved[1]
    assert "qrag_key" not in saved[0]
    assert "qrag_key" not in repr(retrievers[0])
    loaded = load(
        json.loads(saved[1]),
        allowed_objects=[QRagRetriever],
        valid_namespaces=["qrag"],
        secrets_map={"QRAG_API_KEY": "qrag_key"},
    )
    assert loaded == retrievers[0]
    plain = QRagRetriever()
    assert load(json.loads(dumps(plain)), allowed_objects=[QRagRetriever], valid_namespaces=["qrag"]) == plain


def test_it_needs_langchain_and_no_other_framework() -> None:
    assert "pip install './client[langchain]'" in import_alone("langchain")


@LOADING_IS_BETA
def test_the_examples_of_the_docs_run(shared_client: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    run_examples(shared_client, "langchain")
    replied, found, collection = capsys.readouterr().out.splitlines()
    assert (replied, collection) == ("Lisbon.", "office")
    assert found.split()[0] in ("Ana", "Orion")
