"""Requests that are refused: each with a clear problem, and the service goes on as if nothing had been."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.service.helpers import JSON, MAX_DOCUMENTS, Json, ask, post, problem


@pytest.fixture
def client(unchanged_client: httpx.Client) -> httpx.Client:
    return unchanged_client


def retrieve(client: httpx.Client, body: str | bytes) -> httpx.Response:
    return client.post("/retrieve", content=body, headers=JSON)


# --- JSON that is none, or not what is asked for ---------------------------------------------------------

NOT_JSON = [
    b"",
    b"{",
    b"{'text': 1}",
    b'{"text": "a"} trailing',
    b'{"text": "\xff"}',
    b"\xff\xfe{\x00}\x00",
    b'{"text": "\\ud800"}',
    b'{"text": "a", "\\udfff": 1}',
    b'{"text": "a", "metadata": {"x": NaN}}',
    b'{"text": "a", "metadata": {"x": -Infinity}}',
    b'{"text": "a", "metadata": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    b'{"text": "a", "metadata": ' + b'{"x":' * 20_000 + b"1" + b"}" * 20_001,
]


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:40]))
def test_documents_that_are_no_json(client: httpx.Client, body: bytes) -> None:
    assert "JSON" in problem(post(client, body), 400, "invalid_json")["detail"]


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ("[]", ""),
        ("1", ""),
        ("null", ""),
        ("{}", "text"),
        ('{"text": null}', "text"),
        ('{"text": 5}', "text"),
        ('{"text": ["a"]}', "text"),
        ('{"text": "a", "colour": "red"}', "colour"),
        ('{"text": "a", "collection": null}', "collection"),
        ('{"text": "a", "collection": "../x"}', "collection"),
        ('{"text": "a", "metadata": [1]}', "metadata"),
        ('{"text": "a", "metadata": "{}"}', "metadata"),
        ('{"text": "a", "chunking": "lines"}', "chunking"),
        ('{"text": "a", "chunking": {"mode": "words"}}', "chunking.mode"),
        ('{"text": "a", "chunking": {"max_tokens": 7}}', "chunking.max_tokens"),
        ('{"text": "a", "chunking": {"max_tokens": "64"}}', "chunking.max_tokens"),
        ('{"text": "a", "chunking": {"max_tokens": true}}', "chunking.max_tokens"),
        ('{"text": "a", "chunking": {"overlap": 8}}', "chunking.overlap"),
        ('{"documents": []}', "documents"),
        ('{"documents": {}}', "documents"),
        ('{"documents": [{"text": "a"}, {"id": "x"}]}', "documents.1.text"),
        ('{"documents": [{"text": "a"}], "collection": "x"}', "collection"),
        (json.dumps({"text": "a", "title": "t" * 1001}), "title"),
        (json.dumps({"text": "a", "metadata": {"x": "y" * 16_377}}), "metadata"),
        ('{"text": "a", "metadata": ' + '{"x":' * 65 + "1" + "}" * 65 + "}", "metadata"),
    ],
)
def test_documents_of_the_wrong_shape(client: httpx.Client, body: str, at: str) -> None:
    refused = problem(post(client, body), 422, "validation_error")
    assert refused["errors"][0]["at"] == at
    assert refused["detail"].startswith(at)


@pytest.mark.parametrize("id", ["", "a b", "a/b", "ä", "-a", ".a", "a.", "a" * 201, "a\n", "%2e", "a\u0000"], ids=ascii)
def test_bad_ids(client: httpx.Client, id: str) -> None:
    for answer in (post(client, json.dumps({"text": "a", "id": id})), post(client, "a", "text/plain", id=id)):
        refused = problem(answer, 422, "validation_error")
        assert refused["errors"][0]["at"] in ("id", "query.id")
    answer = client.post("/retrieve", json={"question": "a", "document_ids": [id]})
    assert problem(answer, 422, "validation_error")["errors"][0]["at"] == "body.document_ids.0"


@pytest.mark.parametrize("path", ["/documents/a%20b", "/documents/%00", "/documents/a%0A", "/documents/%C3%A4/chunks"])
def test_bad_ids_in_paths(client: httpx.Client, path: str) -> None:
    assert problem(client.get(path), 422, "validation_error")["errors"][0]["at"] == "path.id"


def test_too_many_documents(client: httpx.Client) -> None:
    texts = [f"Number {number}." for number in range(MAX_DOCUMENTS + 1)]
    answer = post(client, json.dumps({"documents": [{"text": text} for text in texts]}))
    assert str(MAX_DOCUMENTS) in problem(answer, 400, "invalid_request")["detail"]
    files = [("file", (f"{text}.txt", text.encode())) for text in texts]
    assert str(MAX_DOCUMENTS) in problem(client.post("/documents", files=files), 400, "invalid_request")["detail"]


# --- Questions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "condition",
    [
        {"filter": {"field": "a", "equals": "\ud83d"}},
        {"filter": {"field": "a", "in": ["\ud83d"]}},
        {"filter": {"not": {"field": "a", "gt": "\ud83d"}}},
        {"location": {"headings": ["\ud83d"]}},
        {"location": {"headings": "\ud83d"}},
    ],
)
def test_half_a_character_is_refused(client: httpx.Client, condition: Json) -> None:
    """As JavaScript's slice leaves of an emoji."""
    answer = retrieve(client, json.dumps({"question": "a", **condition}))
    assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"question": "\xff"}', b"[" * 100_000, b'{"question": "a"} x'])
def test_questions_that_are_no_json(client: httpx.Client, body: bytes) -> None:
    assert "JSON" in problem(retrieve(client, body), 400, "invalid_json")["detail"]


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ("", "body"),
        ("[]", "body"),
        ("{}", "body"),
        ('{"question": ""}', "body.question"),
        ('{"question": " \\n\\t\\u00a0"}', "body.question"),
        ('{"question": null}', "body"),
        ('{"question": 7}', "body.question"),
        ('{"question": "\\ud83d"}', "body.question"),
        (json.dumps({"question": "a" * 100_001}), "body.question"),
        ('{"question": "a", "max_step": 3}', "body.max_step"),
        ('{"question": "a", "max_steps": 0}', "body.max_steps"),
        ('{"question": "a", "max_steps": 33}', "body.max_steps"),
        ('{"question": "a", "max_steps": "3"}', "body.max_steps"),
        ('{"question": "a", "max_steps": 2.5}', "body.max_steps"),
        ('{"question": "a", "max_steps": true}', "body.max_steps"),
        ('{"question": "a", "max_steps": 1e999}', "body.max_steps"),
        ('{"question": "a", "beam_width": 17}', "body.beam_width"),
        ('{"question": "a", "max_context_tokens": 0}', "body.max_context_tokens"),
        ('{"question": "a", "order": "random"}', "body.order"),
        ('{"question": "a", "trace": "yes"}', "body.trace"),
        ('{"question": "a", "document_ids": []}', "body.document_ids"),
        ('{"question": "a", "document_ids": "kept"}', "body.document_ids"),
        ('{"question": "a", "collection": ""}', "body.collection"),
        ('{"question": "a", "stop": "threshold"}', "body.stop"),
        ('{"question": "a", "stop": {"rule": "never"}}', "body.stop.rule"),
        ('{"question": "a", "stop": {"rule": "budget", "threshold": 1}}', "body.stop"),
        ('{"question": "a", "stop": {"rule": "budget", "step_cost": 0.1}}', "body.stop"),
        ('{"question": "a", "stop": {"step_cost": 0.1, "target_recall": 0.9}}', "body.stop"),
        ('{"question": "a", "stop": {"threshold": 0.5}}', "body.stop"),
        ('{"question": "a", "stop": {"step_cost": 1}}', "body.stop.step_cost"),
        ('{"question": "a", "stop": {"step_cost": -0.1}}', "body.stop.step_cost"),
        ('{"question": "a", "stop": {"target_recall": 0}}', "body.stop.target_recall"),
        ('{"question": "a", "stop": {"target_recall": 1.1}}', "body.stop.target_recall"),
        ('{"question": "a", "stop": {"rule": "threshold", "threshold": NaN}}', "body.stop.threshold"),
        ('{"question": "a", "stop": {"rule": "threshold", "threshold": "1"}}', "body.stop.threshold"),
        ('{"question": "a", "filter": []}', "body.filter.condition"),
        ('{"question": "a", "filter": {"field": "x"}}', "body.filter.condition"),
        ('{"question": "a", "filter": {"field": "x", "like": "y"}}', "body.filter.condition.like"),
        ('{"question": "a", "filter": {"field": "x", "gt": [1]}}', "body.filter.condition.gt"),
        ('{"question": "a", "filter": {"field": "x", "equals": Infinity}}', "body.filter.condition.equals"),
        ('{"question": "a", "filter": {"and": []}}', "body.filter.and.and"),
        ('{"question": "a", "filter": {"not": {"field": "x"}, "or": []}}', "body.filter"),
        ('{"question": "a", "filter": ' + '{"not":' * 64 + '{"field": "x", "equals": 1}' + "}" * 65, "body.filter"),
        (
            '{"question": "a", "filter": ' + '{"and":[' * 200 + '{"field": "x", "equals": 1}' + "]}" * 200 + "}",
            "body.filter",
        ),
    ],
)
def test_questions_of_the_wrong_shape(client: httpx.Client, body: str, at: str) -> None:
    refused = problem(retrieve(client, body), 422, "validation_error")
    assert refused["errors"][0]["at"].startswith(at)
    assert refused["detail"].startswith(at)


def test_a_deep_but_permitted_filter_is_answered(client: httpx.Client) -> None:
    filter_: Json = {"field": "year", "equals": 2024}
    for _ in range(30):
        filter_ = {"not": {"and": [filter_]}} if _ % 2 else {"not": filter_}
    assert len(ask(client, "Who?", collection="kept", filter=filter_, max_steps=1)["chunks"]) == 1


def test_a_question_longer_than_the_model_reads(client: httpx.Client) -> None:
    limit = client.get("/model").json()["max_question_tokens"]
    assert ask(client, "word " * limit, collection="kept")["usage"]["question_tokens"] == limit
    answer = client.post("/retrieve", json={"question": "word " * (limit + 1), "collection": "kept"})
    assert str(limit + 1) in problem(answer, 422, "question_too_long")["detail"]


@pytest.mark.parametrize(
    "stop",
    [
        {"rule": "threshold"},
        {"step_cost": 0.1},
        {"target_recall": 0.9},
        {"rule": "action", "threshold": 0.5},
        {"rule": "sufficiency", "threshold": 0.5},
    ],
)
def test_a_stop_rule_that_the_checkpoint_has_not_learned(client: httpx.Client, stop: dict[str, object]) -> None:
    body = {"question": "Who?", "collection": "kept", "stop": stop}
    problem(client.post("/retrieve", json=body), 422, "not_calibrated")


def test_without_calibration_the_budget_ends_an_episode(client: httpx.Client) -> None:
    answer = ask(client, "Who?", collection="kept", max_steps=1)
    assert (answer["stopped_by"], answer["sufficiency"]) == ("budget", None)
    threshold = {"rule": "threshold", "threshold": 9.0}
    assert ask(client, "Who?", collection="kept", stop=threshold)["stopped_by"] == "threshold"


def test_what_does_not_exist(client: httpx.Client) -> None:
    body: Json = {"question": "Who?", "collection": "nowhere"}
    assert "nowhere" in problem(client.post("/retrieve", json=body), 404, "unknown_collection")["detail"]
    body = {"question": "Who?", "collection": "kept", "document_ids": ["kept", "nobody"]}
    assert "nobody" in problem(client.post("/retrieve", json=body), 404, "unknown_document")["detail"]
    for method, path in [("GET", ""), ("GET", "/chunks"), ("GET", "/text"), ("POST", "/retry"), ("DELETE", "")]:
        answer = client.request(method, f"/documents/nobody{path}")
        assert "nobody" in problem(answer, 404, "unknown_document")["detail"]
    assert "nowhere" in problem(client.delete("/collections/nowhere"), 404, "unknown_collection")["detail"]


# --- Queries, methods and paths ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "at"),
    [
        ("GET", "/documents?colection=kept", "query.colection"),
        ("GET", "/documents?limit=0", "query.limit"),
        ("GET", "/documents?limit=1001", "query.limit"),
        ("GET", "/documents?limit=ten", "query.limit"),
        ("GET", "/documents?cursor=-1", "query.cursor"),
        ("GET", "/documents?cursor=x", "query.cursor"),
        ("GET", "/documents?collection=a/b", "query.collection"),
        ("GET", "/documents/kept?full=1", "query.full"),
        ("GET", "/documents/kept/chunks?start=1", "query.start"),
        ("GET", "/documents/kept/chunks?cursor=1e3", "query.cursor"),
        ("GET", "/documents/kept/text?start=-1", "query.start"),
        ("GET", "/documents/kept/text?end=1.5", "query.end"),
        ("GET", "/documents/kept/text?end=99999999999999999999", "query.end"),
        ("GET", "/collections?limit=5", "query.limit"),
        ("DELETE", "/documents/kept?force=true", "query.force"),
        ("DELETE", "/collections/kept?force=true", "query.force"),
        ("POST", "/retrieve?max_steps=3", "query.max_steps"),
        ("POST", "/documents?wait=perhaps", "query.wait"),
        ("POST", "/documents?titel=x", "query.titel"),
    ],
)
def test_queries_that_mean_nothing(client: httpx.Client, method: str, path: str, at: str) -> None:
    content = json.dumps({"question": "Who?", "collection": "kept"} if "retrieve" in path else {"text": "a"})
    answer = client.request(method, path, content=content, headers=JSON)
    assert problem(answer, 422, "validation_error")["errors"][0]["at"] == at


def test_fields_of_a_json_document_in_the_query(client: httpx.Client) -> None:
    answer = post(client, '{"text": "a"}', collection="kept")
    assert "collection" in problem(answer, 400, "invalid_request")["detail"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"metadata": "{"}, 400, "invalid_request"),
        ({"metadata": '{"a": NaN}'}, 400, "invalid_request"),
        ({"metadata": '{"a": "\\ud800"}'}, 400, "invalid_request"),
        ({"metadata": "[" * 5000 + "]" * 5000}, 400, "invalid_request"),
        ({"metadata": "[]"}, 422, "validation_error"),
        ({"chunking": "words"}, 422, "validation_error"),
        ({"chunking": '{"max_tokens": 7}'}, 422, "validation_error"),
        ({"chunking": "{lines}"}, 400, "invalid_request"),
    ],
)
def test_descriptions_of_raw_bodies(client: httpx.Client, query: dict[str, str], status: int, code: str) -> None:
    assert next(iter(query)) in problem(post(client, "a", "text/plain", **query), status, code)["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/documents", "GET, HEAD, POST"),
        ("DELETE", "/documents", "GET, HEAD, POST"),
        ("OPTIONS", "/documents", "GET, HEAD, POST"),
        ("POST", "/documents/kept", "DELETE, GET, HEAD, PATCH"),
        ("PUT", "/documents/kept", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/retrieve", "POST"),
        ("OPTIONS", "/retrieve", "POST"),
        ("GET", "/collections/kept", "DELETE"),
        ("POST", "/metrics", "GET, HEAD"),
    ],
)
def test_wrong_methods_name_the_right_ones(client: httpx.Client, method: str, path: str, allow: str) -> None:
    answer = client.request(method, path)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == allow


@pytest.mark.parametrize("path", ["/documents", "/documents/kept", "/documents/kept/text", "/healthz", "/model"])
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    volatile = {"date", "transfer-encoding", "server-timing", "x-request-id"}
    assert {**head.headers, **dict.fromkeys(volatile)} == {**get.headers, **dict.fromkeys(volatile)}


def test_head_of_what_is_not_there(client: httpx.Client) -> None:
    assert client.head("/documents/nobody").status_code == 404
    answer = client.head("/retrieve")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/nothing", "/documents/a/b/c", "/documents/..%2f", "/documents//", "/page/"])
def test_unknown_paths(client: httpx.Client, path: str) -> None:
    problem(client.get(path), 404, "not_found")
