"""The MCP server as the official client sees it, in both of the protocol's eras."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import INVALID_PARAMS, CallToolResult, TextContent

from service.keys import add_key
from tests.servers import running_server
from tests.service.helpers import Json, add, ask, chunks_of, metric, problem, text_of

QUESTION = "Where did the office of the person who signed the lease move?"
LINES = "Ana signed the lease on Monday.\nBruno kept bees.\nAna's office moved to Lisbon in May.\nThe mill was sold."
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}

NOWHERE: Json = {"page": None, "label": None, "headings": [], "sheet": None, "row": None}
"""The location of what was never in a file that knows one."""

T = TypeVar("T")


@pytest.fixture(params=["2026-07-28", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    """Which of the protocol's eras: with or without a handshake."""
    mode: str = request.param
    return mode


@pytest.fixture(scope="module")
def library(shared_client: httpx.Client) -> str:
    fields: Json = {"chunking": {"mode": "lines"}, "collection": "mcp"}
    add(shared_client, LINES, id="mcp-lease", title="The lease", metadata={"year": 2024}, **fields)
    add(shared_client, "Clara counted boats.\n" * 6000, id="mcp-long", collection="mcp-long")
    return "mcp"


def talk(
    server: httpx.Client, what: Callable[[Client], Awaitable[T]], mode: str = "auto", query: str = "", key: str = ""
) -> T:
    """Do something with a connected client."""

    async def run() -> T:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            transport = streamable_http_client(f"{server.base_url}/mcp{query}", http_client=http)
            async with Client(transport, mode=mode) as client:
                return await what(client)

    return asyncio.run(run())


def call(server: httpx.Client, tool: str, arguments: Json, **how: str) -> Json:
    """What a tool returns, which its text says as well."""
    result = talk(server, lambda client: client.call_tool(tool, arguments), **how)
    assert not result.is_error, result.content
    (content,) = result.content
    assert isinstance(content, TextContent)
    structured: Json = result.structured_content
    assert json.loads(content.text) == structured
    return structured


def refused(server: httpx.Client, tool: str, arguments: Json, **how: str) -> str:
    """What a tool says is wrong."""
    result: CallToolResult = talk(server, lambda client: client.call_tool(tool, arguments), **how)
    assert result.is_error
    (content,) = result.content
    assert isinstance(content, TextContent)
    assert "Traceback" not in content.text
    return content.text


def protocol_error(server: httpx.Client, what: Callable[[Client], Awaitable[object]], **how: str) -> MCPError:
    """The error with which a call fails, taken inside the connection: outside it comes in groups."""

    async def failing(client: Client) -> MCPError:
        with pytest.raises(MCPError) as error:
            await what(client)
        return error.value

    return talk(server, failing, **how)


@pytest.mark.usefixtures("library")
def test_tools_are_described_with_schemas(shared_client: httpx.Client, mode: str) -> None:
    listed = talk(shared_client, lambda client: client.list_tools(), mode, query="?collection=mcp")
    tools = {tool.name: tool for tool in listed.tools}
    assert set(tools) == {"search", "fetch", "retrieve"}
    for tool in tools.values():
        assert tool.description
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema
        assert tool.annotations
        assert tool.annotations.read_only_hint
    assert tools["search"].input_schema["required"] == ["query"]
    assert tools["fetch"].input_schema["required"] == ["id"]
    assert tools["search"].input_schema["properties"]["collection"]["default"] == "mcp"


def test_search_finds_what_fetch_reads(shared_client: httpx.Client, library: str, mode: str) -> None:
    found = call(shared_client, "search", {"query": QUESTION, "collection": library}, mode=mode)
    chunks = ask(shared_client, QUESTION, collection=library, max_steps=10, order="selection")["chunks"]
    assert [each["text"] for each in found["results"]] == [chunk["text"] for chunk in chunks]
    for result, chunk in zip(found["results"], chunks, strict=True):
        assert result["id"] == f"mcp-lease#{chunk['start']}-{chunk['end']}"
        assert result["title"] == "The lease"
        assert shared_client.get(result["url"]).text == chunk["text"]
        fetched = call(shared_client, "fetch", {"id": result["id"]}, mode=mode)
        assert (fetched["id"], fetched["title"], fetched["text"]) == (result["id"], "The lease", LINES)
        assert shared_client.get(fetched["url"]).text == LINES
        assert fetched["metadata"] == {
            "document_id": "mcp-lease",
            "collection": "mcp",
            "start": 0,
            "end": len(LINES),
            "characters": len(LINES),
            "next": None,
            "location": NOWHERE,
            "fields": {"year": 2024},
        }


def test_every_tool_says_where_in_its_file_a_passage_stands(shared_client: httpx.Client, collection: str) -> None:
    report = "# Mill\n\nAna bakes.\n\n## Wheel\n\nBruno turns it.\n"
    query = {"wait": "true", "collection": collection, "chunking": "lines"}
    headers = {"Content-Type": "text/markdown"}
    stored = shared_client.post("/documents", params=query, content=report, headers=headers)
    assert stored.status_code == 201
    expected = {chunk["text"]: chunk["location"] for chunk in chunks_of(shared_client, stored.json()["id"])}
    assert {**NOWHERE, "headings": ["Mill", "Wheel"]} in expected.values()
    found = call(shared_client, "search", {"query": "Who turns what?", "collection": collection})["results"]
    assert {passage["text"]: passage["location"] for passage in found} == expected
    for passage in found:
        metadata = call(shared_client, "fetch", {"id": passage["id"]})["metadata"]
        assert metadata["location"] == passage["location"]
    whole = call(shared_client, "fetch", {"id": stored.json()["id"]})["metadata"]
    assert whole["location"]["headings"] == ["Mill"]
    options: Json = {"question": "Who turns what?", "collection": collection, "stop": {"rule": "budget"}}
    citations = call(shared_client, "retrieve", options)["citations"]
    assert [citation["location"] for citation in citations] == list(expected.values())


@pytest.mark.usefixtures("library")
def test_a_long_document_is_read_in_stretches_without_a_gap(shared_client: httpx.Client) -> None:
    text, next_id = "", "mcp-long"
    while next_id:
        fetched = call(shared_client, "fetch", {"id": next_id})
        assert fetched["metadata"]["start"] == len(text)
        assert len(fetched["text"]) <= 50_000
        text += fetched["text"]
        next_id = fetched["metadata"]["next"]
    assert text == text_of(shared_client, "mcp-long")
    passage = call(shared_client, "fetch", {"id": "mcp-long#60000-60020"})["metadata"]
    assert passage["start"] <= 59_000
    assert passage["end"] >= 61_000


def test_retrieve_is_the_episode_with_its_options(shared_client: httpx.Client, library: str, mode: str) -> None:
    options: Json = {"collection": library, "max_steps": 2, "order": "selection", "beam_width": 2}
    options |= {"filter": {"field": "year", "gte": 2020}, "document_ids": ["mcp-lease"], "stop": {"rule": "budget"}}
    evidence = call(shared_client, "retrieve", {"question": QUESTION, **options}, mode=mode)
    expected = ask(shared_client, QUESTION, **options)
    assert evidence == {
        name: expected[name] for name in ("context", "citations", "stopped_by", "sufficiency", "continuation")
    }
    assert len(evidence["citations"]) == 2
    combined = {"and": [{"not": {"field": "year", "lte": 2024}}]}
    assert call(shared_client, "retrieve", {"question": "?", **options, "filter": combined})["citations"] == []
    nothing = call(shared_client, "retrieve", {"question": "?", **options, "filter": {"field": "year", "gt": 2024}})
    assert (nothing["context"], nothing["stopped_by"]) == ("", "exhausted")


def test_a_call_goes_on_from_another(shared_client: httpx.Client, library: str, mode: str) -> None:
    """Whatever collection the address names: a continuation has its own."""
    begun = call(shared_client, "retrieve", {"question": QUESTION, "collection": library, "max_steps": 2}, mode=mode)
    arguments: Json = {"continuation": begun["continuation"], "max_steps": "2"}
    rest = call(shared_client, "retrieve", arguments, query="?collection=mcp-long", mode=mode)
    places = [(citation["document_id"], citation["index"]) for citation in (*begun["citations"], *rest["citations"])]
    assert sorted(places) == [("mcp-lease", index) for index in range(4)]
    given = [{"document_id": id, "index": index} for id, index in places[:3]]
    last = call(shared_client, "retrieve", {"question": QUESTION, "collection": library, "given": given}, mode=mode)
    assert [(citation["document_id"], citation["index"]) for citation in last["citations"]] == places[3:]
    assert "invalid_continuation" in refused(shared_client, "retrieve", {"continuation": "AAAA"}, mode=mode)
    assert "question" in refused(shared_client, "retrieve", {"collection": library}, mode=mode)


def test_an_agent_asks_sub_questions_one_by_one(shared_client: httpx.Client, collection: str) -> None:
    """No call of the chain repeats a passage, and the question can be gone on with; a deleted document ends it."""
    for number, line in enumerate(LINES.split("\n") * 2):
        add(shared_client, f"{line} ({number})", id=f"{collection}-{number}", collection=collection)
    steps: list[Json] = [
        {"question": QUESTION, "collection": collection, "focus": "Who signed the lease?"},
        {"focus": "Where did the office of Ana move?"},
        {"focus": "Who kept bees?"},
        {},
    ]
    found: list[str] = []
    token: Json = {}
    for arguments in steps:
        result = call(shared_client, "retrieve", {**arguments, **token, "max_steps": 2, "stop": {"rule": "budget"}})
        found += [citation["document_id"] for citation in result["citations"]]
        token = {"continuation": result["continuation"]}
    assert sorted(found) == [f"{collection}-{number}" for number in range(8)]
    assert "focus" in refused(shared_client, "retrieve", {**token, "focus": " "})
    begun = call(shared_client, "retrieve", {**steps[0], "max_steps": 1})
    shared_client.delete(f"/documents/{begun['citations'][0]['document_id']}").raise_for_status()
    for arguments in ({}, steps[1]):
        refusal = refused(shared_client, "retrieve", {"continuation": begun["continuation"], **arguments})
        assert "continuation_outdated" in refusal
        assert "Ask again" in refusal


@pytest.mark.usefixtures("library")
def test_the_address_says_where_to_look(shared_client: httpx.Client, mode: str) -> None:
    for tool, arguments in (("search", {"query": QUESTION}), ("retrieve", {"question": QUESTION})):
        there = call(shared_client, tool, arguments, query="?collection=mcp", mode=mode)
        assert there == call(shared_client, tool, {**arguments, "collection": "mcp"}, mode=mode)
    assert "unknown_collection" in refused(shared_client, "search", {"query": "?"}, query="?collection=nowhere")
    assert "Known here: collection" in refused(shared_client, "search", {"query": "?"}, query="?colection=mcp")
    error = protocol_error(shared_client, lambda client: client.list_tools(), query="?colection=mcp", mode=mode)
    assert (error.code, "Known here: collection" in error.message) == (INVALID_PARAMS, True)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("search", {}, "query"),
        ("search", {"query": " "}, "blank"),
        ("search", {"query": 3}, "query"),
        ("search", {"query": "?", "limit": 3}, "limit"),
        ("search", {"query": "x " * 40_000, "collection": "mcp"}, "question_too_long"),
        ("search", {"query": "?", "collection": "../etc"}, "collection"),
        ("search", {"query": "?", "collection": "nowhere"}, "unknown_collection"),
        ("fetch", {"id": "nothing"}, "unknown_document"),
        ("fetch", {"id": "../../etc/passwd"}, "id"),
        ("fetch", {"id": "mcp-lease#5"}, "id"),
        ("fetch", {"id": "mcp-lease#9-5"}, "0 to"),
        ("fetch", {"id": "mcp-lease#0-999999999999999"}, "0 to"),
        ("retrieve", {"question": "?", "max_steps": 33}, "max_steps"),
        ("retrieve", {"question": "?", "trace": True}, "trace"),
        ("retrieve", {"question": "?", "stop": {"rule": "budget", "step_cost": 0.1}}, "budget"),
        ("retrieve", {"question": "?", "document_ids": ["nothing"], "collection": "mcp"}, "unknown_document"),
        ("retrieve", {"question": "?", "filter": {"field": "year"}}, "filter"),
    ],
)
def test_wrong_arguments_are_explained_to_the_model(
    shared_client: httpx.Client, tool: str, arguments: Json, words: str
) -> None:
    assert words in refused(shared_client, tool, arguments)


def test_an_unknown_tool_is_an_error_of_the_protocol(shared_client: httpx.Client, mode: str) -> None:
    error = protocol_error(shared_client, lambda client: client.call_tool("rm -rf", {}), mode=mode)
    assert (error.code, "search, fetch, retrieve" in error.message) == (INVALID_PARAMS, True)


def message(method: str, **params: Any) -> Json:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b"[]", 400),
        (b"[" * 100_000, 400),
        (json.dumps({"jsonrpc": "1.0", "id": 1, "method": "ping"}).encode(), 400),
        (json.dumps(message("tools/call", name="search", arguments="all of them")).encode(), 200),
        (json.dumps(message("tools/call", name=["search"])).encode(), 200),
        (json.dumps(message("no/such/method")).encode(), 200),
        (b" " * (1 << 21), 413),
    ],
)
def test_hostile_messages_get_errors(shared_client: httpx.Client, content: bytes, status: int) -> None:
    answer = shared_client.post("/mcp", content=content, headers=HEADERS)
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text
    assert "site-packages" not in answer.text
    if status == 200:
        assert answer.json()["error"]["code"] in (-32602, -32601, -32600)
    assert shared_client.get("/readyz").status_code == 200


VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


@pytest.mark.parametrize("asked", [*VERSIONS, "1999-01-01"])
def test_every_version_of_the_protocol_is_spoken(shared_client: httpx.Client, asked: str) -> None:
    client = {"name": "test", "version": "1"}
    hello = message("initialize", protocolVersion=asked, capabilities={}, clientInfo=client)
    result = shared_client.post("/mcp", json=hello, headers=HEADERS).json()["result"]
    spoken = result["protocolVersion"]
    assert spoken == asked if asked in VERSIONS else spoken in VERSIONS
    # What follows names the version, and some clients send a session that was never begun.
    headers = {**HEADERS, "MCP-Protocol-Version": spoken, "Mcp-Session-Id": "none-of-ours"}
    for listing in (message("tools/list"), {**message("tools/list"), "params": None}):
        listed = shared_client.post("/mcp", json=listing, headers=headers)
        assert {tool["name"] for tool in listed.json()["result"]["tools"]} == {"search", "fetch", "retrieve"}


def test_calls_are_counted_under_their_path(shared_client: httpx.Client) -> None:
    name = 'qrag_request_seconds_count{method="POST",route="/mcp",status="200"}'
    before = metric(shared_client, name)
    shared_client.post("/mcp", json=message("ping"), headers=HEADERS)
    assert metric(shared_client, name) == before + 1


def test_only_messages_are_taken(shared_client: httpx.Client) -> None:
    for method in ("GET", "DELETE", "PUT"):
        answer = shared_client.request(method, "/mcp", headers=HEADERS)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    plain = {**HEADERS, "Content-Type": "text/plain"}
    assert shared_client.post("/mcp", content=b"{}", headers=plain).status_code == 400
    assert shared_client.post("/mcp", json=message("ping"), headers={"Accept": "text/html"}).status_code == 406


def ping(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post("/mcp", json=message("ping"), headers={**HEADERS, **headers})


def test_web_pages_of_others_are_refused_and_told_why(shared_client: httpx.Client) -> None:
    assert ping(shared_client).status_code == 200
    problem(ping(shared_client, Origin="https://evil.example"), 403, "cross_site_request")
    for host in ("qrag.example.org", "qrag.example.org:8000", "10.0.0.7:8000", "host.docker.internal:8000"):
        detail = problem(ping(shared_client, Host=host), 421, "misdirected_request")["detail"]
        assert repr(host) in detail
        assert "QRAG_ALLOWED_HOSTS" in detail


def test_names_that_the_service_was_given_reach_the_tools(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with running_server(tmp_path, tiny_checkpoint, allowed_hosts="qrag.example.org") as client:
        assert ping(client, Host="qrag.example.org").status_code == 200
        problem(ping(client, Host="other.example.org"), 421, "misdirected_request")
        key = add_key(tmp_path / "keys.json", "reader", ["read"], None)
        answer = ping(client, Host="other.example.org", Authorization=f"Bearer {key}")
        assert answer.status_code == 200  # with keys every name will do
