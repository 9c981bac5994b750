"""The OpenAPI document: valid, complete, and true of the running service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis

from tests.service.helpers import Json, add, ask, problem, stream

METHODS = {"get", "post", "patch", "delete"}


@pytest.fixture(scope="module")
def document(shared_client: httpx.Client) -> Json:
    answer = shared_client.get("/openapi.json")
    assert answer.status_code == 200
    content: Json = answer.json()
    return content


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, item in document["paths"].items():
        assert set(item) <= METHODS
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def validator(document: Json, schema: Json) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})


def test_document_is_valid_openapi(document: Json) -> None:
    assert document["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document).validate()


def test_validation_would_notice_an_invalid_document(document: Json) -> None:
    with pytest.raises(Exception, match="info"):
        schemathesis.openapi.from_dict({**document, "info": {}}).validate()


def test_every_route_of_the_contract_is_described(document: Json) -> None:
    assert {name for name, _ in operations(document)} == {
        "POST /documents",
        "GET /documents",
        "GET /documents/{id}",
        "PATCH /documents/{id}",
        "DELETE /documents/{id}",
        "GET /documents/{id}/chunks",
        "GET /documents/{id}/text",
        "POST /documents/{id}/retry",
        "GET /collections",
        "DELETE /collections/{name}",
        "POST /retrieve",
        "POST /retrieve/batch",
        "POST /answer",
        "POST /feedback",
        "GET /feedback",
        "DELETE /feedback",
        "DELETE /feedback/{id}",
        "GET /questions",
        "DELETE /questions",
        "DELETE /questions/{id}",
        "POST /v1/vector_stores/{id}/search",
        "GET /v1/models",
        "GET /v1/models/{id}",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /model",
        "GET /admin/checkpoints",
        "POST /admin/checkpoints",
        "DELETE /admin/checkpoints/{checkpoint}",
    }


def test_every_schema_is_closed_in_itself(document: Json) -> None:
    schemas = document["components"]["schemas"]
    used = set(re.findall(r'#/components/schemas/(\w+)"', jsonable(document)))
    assert used <= set(schemas)
    for schema in schemas.values():
        validator(document, schema)  # raises if it is no JSON Schema, or refers to nowhere
    closed = ("DocumentIn", "DocumentsIn", "RetrieveIn", "BatchIn", "AnswerIn", "FeedbackIn", "SearchIn")
    for name in (*closed, "BatchQuestion", "Condition", "Chunking", "Stop"):
        assert schemas[name]["additionalProperties"] is False


def jsonable(document: Json) -> str:
    return httpx.Request("POST", "http://x", json=document).content.decode()


def test_every_operation_has_words_for_people(document: Json) -> None:
    identifiers = []
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        identifiers.append(operation["operationId"])
    assert len(identifiers) == len(set(identifiers)) == 30


def test_every_request_body_has_examples_and_they_are_accepted(document: Json, client: httpx.Client) -> None:
    bodies = {name: operation["requestBody"] for name, operation in operations(document) if "requestBody" in operation}
    assert set(bodies) == {
        "POST /documents",
        "POST /retrieve",
        "POST /retrieve/batch",
        "POST /answer",
        "POST /feedback",
        "POST /v1/vector_stores/{id}/search",
        "PATCH /documents/{id}",
        "POST /admin/checkpoints",
    }
    del bodies["PATCH /documents/{id}"]  # changes what is there: see test_replacing
    del bodies["POST /feedback"]  # judges what is there: see test_feedback
    del bodies["POST /admin/checkpoints"]  # accepts what is there: see test_checkpoint_change
    for name, body in bodies.items():
        for media_type, content in body["content"].items():
            schema = validator(document, content.get("schema", {}))
            examples = [each["value"] for each in content.get("examples", {}).values()]
            examples += [content["example"]] if "example" in content else []
            if media_type == "application/json":
                referred = re.findall(r"schemas/(\w+)", jsonable(content["schema"]))
                examples += [
                    e for each in referred for e in document["components"]["schemas"][each].get("examples", [])
                ]
                assert len(examples) >= 2
            for example in examples:
                schema.validate(example)
                path = name.removeprefix("POST ").replace("{id}", "default")
                if media_type == "application/json":
                    answer = client.post(path, json=example, params={"replace": True} if path == "/documents" else {})
                elif media_type == "multipart/form-data":
                    files = [("file", ("minutes.txt", each)) for each in example.pop("file")]
                    answer = client.post(path, data=example, files=files)
                else:
                    answer = client.post(path, content=example, headers={"Content-Type": media_type})
                assert answer.status_code in (200, 202), answer.text


def test_every_answer_has_an_example_of_its_schema(document: Json) -> None:
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                if status < "300" and media_type == "application/json":
                    referred = re.findall(r"schemas/(\w+)", jsonable(content["schema"]))
                    models = [document["components"]["schemas"][each] for each in referred]
                    assert all(model["examples"] for model in models), name
                    for model in models:
                        for example in model["examples"]:
                            validator(document, model).validate(example)


def test_every_error_is_a_documented_problem_with_an_example(document: Json) -> None:
    schema = validator(document, {"$ref": "#/components/schemas/Problem"})
    for name, operation in operations(document):
        errors = {int(status): each for status, each in operation["responses"].items() if int(status) >= 400}
        if operation["tags"] != ["operations"]:
            assert 422 in errors, name
        if "{" in name:
            assert 404 in errors, name
        if "requestBody" in operation:
            assert {400, 413, 415} <= set(errors), name
        for status, response in errors.items():
            assert set(response["content"]) == {"application/problem+json"}, name
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            schema.validate(content["example"])
            assert content["example"]["status"] == status
            assert response["description"]


def test_answers_have_the_described_shape_and_nothing_else(
    document: Json, client: httpx.Client, collection: str
) -> None:
    def check(model: str, value: Any) -> None:
        validator(document, {"$ref": f"#/components/schemas/{model}"}).validate(value)
        assert set(value) == set(document["components"]["schemas"][model]["properties"]), model

    added = add(client, "Ana signed the lease. 🎉", collection=collection, metadata={"a": [None, {"b": 1}]})
    check("DocumentOut", added)
    check("DocumentPage", client.get("/documents").json())
    check("ChunkPage", client.get(f"/documents/{added['id']}/chunks").json())
    check("CollectionsOut", client.get("/collections").json())
    check("ModelOut", client.get("/model").json())
    check("CheckpointsOut", client.get("/admin/checkpoints").json())
    check("RetrieveOut", ask(client, "Who?", collection=collection, trace=True))
    batch = {"questions": ["Who?", "long " * 2000], "collection": collection}
    answered = client.post("/retrieve/batch", json=batch).json()
    check("BatchOut", answered)
    for item in answered["items"]:
        check("BatchItem", item)
    for name, event in stream(client, "Who?", collection=collection):
        check({"step": "StepEvent", "result": "RetrieveOut"}[name], event)
    check("AnswerOut", client.post("/answer", json={"question": "Who?", "collection": collection}).json())
    judged = [{"document_id": added["id"], "index": 0, "helpful": True}]
    given = client.post("/feedback", json={"question": "Who?", "collection": collection, "chunks": judged}).json()
    check("FeedbackOut", given)
    check("JudgedChunkOut", given["chunks"][0])
    check("FeedbackPage", client.get("/feedback").json())
    page = client.get("/questions", params={"collection": collection, "with_feedback": True}).json()
    check("QuestionPage", page)
    check("QuestionOut", page["questions"][0])
    check("ReturnedChunk", page["questions"][0]["chunks"][0])
    found = client.post(f"/v1/vector_stores/{collection}/search", json={"query": "Who?"}).json()
    check("SearchPage", found)
    check("SearchResult", found["data"][0])
    check("Problem", problem(client.get("/documents?limit=0"), 422, "validation_error"))


def test_examples_of_other_types_of_body_are_there(document: Json) -> None:
    content = document["paths"]["/documents"]["post"]["requestBody"]["content"]
    for media_type in ("text/plain", "text/markdown", "text/html"):
        assert content[media_type]["example"]
    assert content["multipart/form-data"]["schema"]["required"] == ["file"]


def test_there_is_a_page_for_people(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert "openapi.json" in answer.text
    for name, media_type in (("swagger-ui-bundle.js", "text/javascript"), ("swagger-ui.css", "text/css")):
        assert f'"docs/{name}"' in answer.text
        file = client.get(f"/docs/{name}")
        assert (file.status_code, file.headers["Content-Type"].partition(";")[0]) == (200, media_type)
    # Nothing is loaded from elsewhere.
    assert "//" not in answer.text.replace("<!DOCTYPE html>", "").replace("http://www.w3.org", "")
    assert client.get("/docs/other.js").status_code == 404
