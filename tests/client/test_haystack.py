"""The component for Haystack, in Haystack, against running servers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from haystack import Pipeline
from haystack.components.builders import PromptBuilder
from haystack.core.errors import DeserializationError
from haystack.utils import Secret
from pydantic import ValidationError

from qrag import NotFound, RetrieveOptions, Stop, Unauthorized
from qrag.integrations.haystack import QRagRetriever
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

TRUSTED = ["qrag.integrations.haystack"]
PROMPT = "{% for document in documents %}{{ document.content }}\n{% endfor %}{{ question }}"


@pytest.fixture
def retriever(letters: Letters) -> QRagRetriever:
    """A retriever over a collection of two documents."""
    return QRagRetriever(letters.url, collection=letters.collection, max_steps=4)


def test_documents_are_the_evidence(retriever: QRagRetriever, letters: Letters) -> None:
    outputs = retriever.run(QUESTION)
    assert letters.expected == [Expected(each.id, each.content, each.score, each.meta) for each in outputs["documents"]]
    assert outputs["stopped_by"] == letters.result["stopped_by"]
    assert outputs["sufficiency"] == letters.result["sufficiency"]
    assert asyncio.run(retriever.run_async(QUESTION)) == outputs


def test_a_run_goes_on_from_another(retriever: QRagRetriever) -> None:
    begun = retriever.run(QUESTION)
    rest = retriever.run(QUESTION, continuation=begun["continuation"])
    assert asyncio.run(retriever.run_async(QUESTION, continuation=begun["continuation"])) == rest
    assert len({document.id for document in (*begun["documents"], *rest["documents"])}) == 6
    assert rest["stopped_by"] == "exhausted"
    focused = retriever.run(QUESTION, focus="Who wrote?")
    assert asyncio.run(retriever.run_async(QUESTION, focus="Who wrote?")) == focused
    assert [document.id for document in focused["documents"]] == [
        document.id for document in retriever.run("Who wrote?")["documents"]
    ]


def test_whether_the_evidence_is_complete_may_be_unknown() -> None:
    with scripted([answer(200, examples.RESULT | {"sufficiency": None})]) as server:
        assert QRagRetriever(server.url).run(QUESTION)["sufficiency"] is None


def test_options_are_those_of_the_client_and_where_to_look_can_be_given_for_one_run() -> None:
    assert set(OPTIONS) == set(RetrieveOptions.__annotations__) - OF_ONE_CALL
    where: dict[str, Any] = {"collection": "c", "document_ids": ["d"], "filter": {"field": "year", "lt": 0}}
    with scripted(4 * [answer(200, examples.RESULT)]) as server:
        retriever = QRagRetriever(server.url, Secret.from_token("qrag_key"), **OPTIONS)
        retriever.run(QUESTION)
        asyncio.run(retriever.run_async(QUESTION))
        retriever.run(QUESTION, **where)
        asyncio.run(retriever.run_async(QUESTION, **where))
    assert [asked(request) for request in server.requests] == [BODY, BODY, BODY | where, BODY | where]


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(3 * [answer(200, examples.RESULT)]) as server:
        retriever = QRagRetriever(server.url)
        monkeypatch.delenv("QRAG_API_KEY", raising=False)
        retriever.run(QUESTION)
        QRagRetriever(server.url, None).run(QUESTION)
        monkeypatch.setenv("QRAG_API_KEY", "qrag_key")
        retriever.run(QUESTION)
    assert ["Authorization" in request.headers for request in server.requests] == [False, False, True]
    assert asked(server.requests[-1]) == {"question": QUESTION}


def test_errors_are_those_of_the_client(retriever: QRagRetriever) -> None:
    with pytest.raises(NotFound, match="collection"):
        retriever.run(QUESTION, collection="nobody-has-this")
    with scripted(2 * [refusal(401)]) as server:
        guarded = QRagRetriever(server.url, None)
        with pytest.raises(Unauthorized):
            guarded.run(QUESTION)
        with pytest.raises(Unauthorized):
            asyncio.run(guarded.run_async(QUESTION))


def pipeline_of(retriever: QRagRetriever) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("retriever", retriever)
    pipeline.add_component("prompt", PromptBuilder(PROMPT, required_variables=["documents", "question"]))
    pipeline.connect("retriever.documents", "prompt.documents")
    return pipeline


def test_it_takes_part_in_a_pipeline(retriever: QRagRetriever) -> None:
    facts = "".join(f"{document.content}\n" for document in retriever.run(QUESTION)["documents"])
    pipeline = pipeline_of(retriever)
    data = {"retriever": {"query": QUESTION}, "prompt": {"question": QUESTION}}
    assert pipeline.run(data)["prompt"]["prompt"] == facts + QUESTION
    assert asyncio.run(pipeline.run_async(data))["prompt"]["prompt"] == facts + QUESTION
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=TRUSTED)
    assert again.run(data)["prompt"]["prompt"] == facts + QUESTION


def test_a_pipeline_is_saved_and_loaded_with_all_options() -> None:
    as_model = OPTIONS | {"filter": Condition.model_validate(OPTIONS["filter"])}
    saved = [
        pipeline_of(QRagRetriever("http://127.0.0.1:1", timeout=7, **options)).dumps()
        for options in (OPTIONS, as_model)
    ]
    assert saved[0] == saved[1]
    assert "QRAG_API_KEY" in saved[0]
    loaded = Pipeline.loads(saved[0], allowed_modules=TRUSTED)
    retriever = loaded.get_component("retriever")
    assert isinstance(retriever, QRagRetriever)
    assert retriever.options == OPTIONS
    assert (retriever.base_url, retriever.timeout) == ("http://127.0.0.1:1", 7)
    assert loaded.dumps() == saved[0]
    plain = QRagRetriever()
    assert QRagRetriever.from_dict(plain.to_dict()).to_dict() == plain.to_dict()


def test_what_cannot_be_saved_or_loaded() -> None:
    with pytest.raises(ValueError, match="token"):
        QRagRetriever(api_key=Secret.from_token("qrag_key")).to_dict()
    saved = pipeline_of(QRagRetriever(stop=Stop(step_cost=0.1))).dumps()
    with pytest.raises(DeserializationError, match=r"qrag\.integrations\.haystack"):
        Pipeline.loads(saved)
    with pytest.raises((DeserializationError, ValidationError), match="step_costs"):
        Pipeline.loads(saved.replace("step_cost", "step_costs"), allowed_modules=TRUSTED)


def test_it_needs_haystack_and_no_other_framework() -> None:
    assert "pip install './client[haystack]'" in import_alone("haystack")


def test_the_example_of_the_docs_runs(shared_client: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    run_examples(shared_client, "haystack")
    shown = capsys.readouterr().out
    assert "Ana signed the lease.\nAna works for Orion.\nOrion moved to Lisbon in May.\n" in shown
    assert "\nbudget {'complete': " in shown
