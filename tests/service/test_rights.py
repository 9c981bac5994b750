"""The right that each route and each MCP tool needs: nothing starts where one is missing, and each is asked for."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, cast

import anyio
import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, WebSocket
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import ConfigDict
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

import service
from index.storage.news import News
from qrag.wire.models import RequestModel, ResponseModel
from service.app import create_app
from service.errors import RightMissing
from service.http.dependencies import known_query, query_parameters
from service.http.rights import Rights, needs
from service.keys import Keys, Right, add_key
from service.mcp.tools import TOOLS, Caller, Tool
from service.routes import ROUTERS
from service.services import Services
from service.settings import Settings
from tests.service.helpers import Json, problem

ROUTES = {
    "POST /documents": "write",
    "GET /documents": "read",
    "GET /documents/{id}": "read",
    "PATCH /documents/{id}": "write",
    "DELETE /documents/{id}": "write",
    "GET /documents/{id}/chunks": "read",
    "GET /documents/{id}/text": "read",
    "POST /documents/{id}/retry": "write",
    "GET /collections": "read",
    "DELETE /collections/{name}": "write",
    "POST /retrieve": "read",
    "POST /retrieve/batch": "read",
    "POST /answer": "read",
    "POST /feedback": "read",
    "GET /feedback": "write",
    "DELETE /feedback": "write",
    "DELETE /feedback/{id}": "write",
    "GET /questions": "write",
    "DELETE /questions": "write",
    "DELETE /questions/{id}": "write",
    "POST /v1/vector_stores/{id}/search": "read",
    "GET /v1/models": "read",
    "GET /v1/models/{id}": "read",
    "POST /mcp": "read",
    "GET /healthz": "open",
    "GET /readyz": "open",
    "GET /metrics": "read",
    "GET /model": "read",
    "GET /admin/checkpoints": "admin",
    "POST /admin/checkpoints": "admin",
    "DELETE /admin/checkpoints/{checkpoint}": "admin",
    "GET /openapi.json": "open",
    "GET /docs": "open",
    "GET /docs/": "open",
    "GET /docs/{name}": "open",
    "GET /": "open",
}
READING_BESIDE = {"GET /feedback", "GET /questions"}
"""Routes that give out texts, and so ask for `read` as well."""

PAGE = {
    f"GET /page/{path.name}": "open"
    for path in (Path(service.__file__).parent / "page").iterdir()
    if path.name != "index.html"
}
RIGHTS: tuple[Right, ...] = ("read", "write", "admin")


class Application:
    """The application over nothing: what comes through the gate finds no store behind it."""

    def __init__(
        self, folder: Path, routers: Sequence[APIRouter] = ROUTERS, tools: Mapping[str, Tool] = TOOLS, keys: bool = True
    ) -> None:
        path = folder / "keys.json"
        self.secrets: dict[str, str] = {}
        if keys:
            self.secrets |= {right: add_key(path, right, [right], None) for right in RIGHTS}
            self.secrets["read and write"] = add_key(path, "both", ["read", "write"], None)
        nothing = SimpleNamespace(
            settings=Settings(_env_file=None, data_dir=folder),
            keys=Keys(path),
            language_model=None,
            questions=SimpleNamespace(catch_up=lambda: None),
            storage=SimpleNamespace(news=News()),
            start=lambda: None,
            close=lambda: None,
        )
        self.app: FastAPI = create_app(cast(Services, nothing), routers, tools)

    @asynccontextmanager
    async def client(self, secret: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            yield client

    def send(self, method: str, path: str, right: str | None = None, **body: Any) -> httpx.Response:
        """Send a request with the key that has one right, or without one."""

        async def run() -> httpx.Response:
            async with self.client(right and self.secrets[right]) as client:
                return await client.request(method, path, **body)

        return anyio.run(run)

    def mcp(self, method: str, rights: Sequence[str], **params: Any) -> dict[str, httpx.Response]:
        """Send a message to the MCP endpoint with each of the keys. Only once: the endpoint starts and ends with it."""
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"Accept": "application/json, text/event-stream"}

        async def run() -> dict[str, httpx.Response]:
            answers = {}
            async with self.app.router.lifespan_context(self.app):
                for right in rights:
                    async with self.client(self.secrets[right]) as client:
                        answers[right] = await client.post("/mcp", json=message, headers=headers)
            return answers

        return anyio.run(run)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    return Application(tmp_path_factory.mktemp("rights"))


def test_every_route_has_its_right(application: Application) -> None:
    found = {
        f"{method} {route.path}": route.right
        for route in Rights(application.app.routes).routes
        for method in (route.methods or {"ANY"}) - {"HEAD"}
    }
    assert found == ROUTES | PAGE


@pytest.mark.parametrize("route", ROUTES)
def test_the_gate_asks_for_the_right_of_the_route(application: Application, route: str) -> None:
    method, path = re.sub(r"{\w+}", "anything", route).split(" ")
    needed = ROUTES[route]
    anonymous = application.send(method, path)
    if needed == "open":
        assert anonymous.status_code not in (401, 403)
        return
    assert "Bearer KEY" in problem(anonymous, 401, "unauthorized")["detail"]
    for right in RIGHTS:
        answer = application.send(method, path, right)
        if right == needed and route in READING_BESIDE:
            assert "Use one that may read." in problem(answer, 403, "forbidden")["detail"]
            assert application.send(method, path, "read and write").status_code not in (401, 403)
        elif right == needed:
            assert answer.status_code not in (401, 403), answer.text
        else:
            said = f"This key may {right} only. Use one that may {needed}."
            assert problem(answer, 403, "forbidden")["detail"] == said


@pytest.mark.parametrize(
    ("request_", "needed"),
    [
        ("GET /nothing", "read"),
        ("POST /nothing", "write"),
        ("GET /admin/nothing", "admin"),
        ("GET /page/nothing.js", "read"),
        ("PUT /documents", "write"),
        ("POST /documents/anything/chunks", "write"),
        ("GET /retrieve", "read"),
        ("PUT /retrieve", "read"),
        ("PUT /admin/checkpoints", "admin"),
        ("GET /mcp", "read"),
    ],
)
def test_what_is_nowhere_is_hidden_from_those_who_may_not_ask_there(
    application: Application, request_: str, needed: Right
) -> None:
    method, path = request_.split(" ")
    problem(application.send(method, path), 401, "unauthorized")
    for right in RIGHTS:
        assert application.send(method, path, right).status_code in ((404, 405) if right == needed else (403,))


def test_wrong_methods_of_open_paths_are_told_to_everybody(application: Application) -> None:
    for path in ("/", "/healthz", "/docs", "/page/page.js"):
        problem(application.send("POST", path), 405, "method_not_allowed")


def test_openapi_says_which_operations_need_a_key(application: Application) -> None:
    paths = application.app.openapi()["paths"]
    said = {
        f"{m.upper()} {path}": "security" in operation for path, item in paths.items() for m, operation in item.items()
    }
    assert said == {route: right != "open" for route, right in ROUTES.items() if route in said}
    assert len(said) == 30
    for path, item in paths.items():
        for method, operation in item.items():
            assert {401, 403} & set(operation["responses"]) == ({401, 403} if "security" in operation else set()), path
            assert 421 not in operation["responses"], method


def test_openapi_says_what_is_refused_without_keys(tmp_path: Path) -> None:
    document = Application(tmp_path, keys=False).app.openapi()
    assert "securitySchemes" not in document["components"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert (421 in operation["responses"]) == (path not in ("/healthz", "/readyz"))
            assert (403 in operation["responses"]) == (method != "get")


def test_a_route_takes_the_query_parameters_that_openapi_says(application: Application) -> None:
    paths = application.app.openapi()["paths"]
    for route in iter_route_contexts(application.app.routes):
        if isinstance(route.original_route, APIRoute) and route.path in paths:
            method = "".join(route.original_route.methods or ())
            said = paths[route.path][method.lower()].get("parameters", [])
            names = {parameter["name"] for parameter in said if parameter["in"] == "query"}
            assert set(query_parameters(route.original_route.dependant)) == names, route.path


# --- Seams ------------------------------------------------------------------------------------------------


def test_a_route_is_added_with_its_right(tmp_path: Path) -> None:
    router = APIRouter()

    @router.post("/notes", summary="Note", tags=["notes"])
    @needs("write")
    async def note() -> dict[str, str]:
        return {"noted": "yes"}

    application = Application(tmp_path, [*ROUTERS, router])
    problem(application.send("POST", "/notes"), 401, "unauthorized")
    problem(application.send("POST", "/notes", "read"), 403, "forbidden")
    assert application.send("POST", "/notes", "write").json() == {"noted": "yes"}
    operation = application.app.openapi()["paths"]["/notes"]["post"]
    assert operation["security"] == [{"key": []}]


def most_words(words: Annotated[int, Query(alias="most_words")] = 5) -> int:
    return words


def twice(words: Annotated[int, Depends(most_words)]) -> int:
    return 2 * words


def test_a_route_takes_what_its_dependencies_ask_for(tmp_path: Path) -> None:
    router = APIRouter(dependencies=[Depends(known_query)])

    @router.get("/notes", summary="Notes", tags=["notes"])
    @needs("read")
    async def notes(words: Annotated[int, Depends(twice)]) -> dict[str, int]:
        return {"words": words}

    application = Application(tmp_path, [*ROUTERS, router])
    assert application.send("GET", "/notes?most_words=3", "read").json() == {"words": 6}
    refused = problem(application.send("GET", "/notes?words=3", "read"), 422, "validation_error")
    assert "Known here: most_words" in str(refused)


class Noted(ResponseModel):
    """What was noted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": None}]})

    text: str | None


def test_a_model_of_any_module_is_described_with_its_examples(tmp_path: Path) -> None:
    router = APIRouter()

    @router.get("/note")
    @needs("read")
    async def note() -> Noted:
        return Noted(text=None)

    schemas = Application(tmp_path, [*ROUTERS, router]).app.openapi()["components"]["schemas"]
    assert schemas["Noted"]["examples"] == [{"text": None}]


def without_a_right() -> APIRouter:
    router = APIRouter(prefix="/notes")

    @router.delete("/{id}")
    def forget(id: str) -> str:
        return id

    return router


def nonsensical() -> APIRouter:
    router = APIRouter()
    router.add_api_route("/notes/{id}", needs(cast(Right, "rite"))(lambda: "no"))
    return router


def nested() -> APIRouter:
    router = APIRouter()
    router.include_router(without_a_right())
    return router


def mounted() -> APIRouter:
    return APIRouter(routes=[Mount("/notes/{id}", PlainTextResponse("no"))])


def socket() -> APIRouter:
    router = APIRouter()

    @router.websocket("/notes/{id}")
    @needs("read")
    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()

    return router


@pytest.mark.parametrize("make", [without_a_right, nonsensical, nested, mounted, socket])
def test_a_route_without_a_right_does_not_start(tmp_path: Path, make: Any) -> None:
    with pytest.raises(RightMissing, match=r"The route /notes/{id} does not say which right it needs\. Put @needs"):
        Application(tmp_path, [*ROUTERS, make()])


class NoteArguments(RequestModel):
    """What to note."""

    text: str


async def take_note(arguments: NoteArguments, _caller: Caller) -> Noted:
    return Noted(text=arguments.text)


NOTE = Tool("write", "Note", "Note something down.", NoteArguments, Noted, take_note)


def result(answer: httpx.Response) -> Json:
    assert answer.status_code == 200, answer.text
    content: Json = answer.json()["result"]
    return content


def test_a_tool_that_writes_is_announced_as_such(tmp_path: Path) -> None:
    application = Application(tmp_path, tools={**TOOLS, "note": NOTE})
    listed = result(application.mcp("tools/list", ["read"])["read"])["tools"]
    hints = {tool["name"]: tool["annotations"]["readOnlyHint"] for tool in listed}
    assert hints == {"search": True, "fetch": True, "retrieve": True, "note": False}


def test_a_tool_that_writes_is_refused_to_keys_that_may_only_read(tmp_path: Path) -> None:
    application = Application(tmp_path, tools={**TOOLS, "note": NOTE})
    answers = application.mcp("tools/call", [*application.secrets], name="note", arguments={"text": "a"})
    refused, taken = result(answers["read"]), result(answers["read and write"])
    assert refused["isError"]
    assert refused["content"][0]["text"] == "forbidden: This key may read only. Use one that may write."
    assert taken["structuredContent"] == {"text": "a"}
    for right in ("write", "admin"):  # the endpoint itself takes keys that may read
        problem(answers[right], 403, "forbidden")


@pytest.mark.parametrize("right", [None, "open", "rite"])
def test_a_tool_without_a_right_does_not_start(tmp_path: Path, right: Any) -> None:
    with pytest.raises(RightMissing, match="The MCP tool note does not say which right it needs"):
        Application(tmp_path, tools={**TOOLS, "note": replace(NOTE, right=right)})
