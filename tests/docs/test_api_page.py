"""docs/api.md says what /openapi.json says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.problems import codes
from tests.docs.pages import ROOT
from tests.markdown import code_blocks
from tests.servers import running_server

API = ROOT / "docs" / "api.md"
PAGE = API.read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `(\w+ \S+)`\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S))

BY_THE_GATE = {"401", "403", "421"}
"""Said once for all calls."""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[httpx.Client]:
    with running_server(tmp_path_factory.mktemp("data"), tiny_checkpoint) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> Json:
    found: Json = client.get("/openapi.json").json()
    return found


@pytest.fixture(scope="module")
def operations(document: Json) -> dict[str, Json]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def quoted(text: str) -> set[str]:
    """The words that are set as code."""
    return set(re.findall(r"`([^`\n]+)`", text))


def fields_of(schema: Any, document: Json) -> set[str]:
    """The names of all fields of a schema, and of the schemas of the values of its fields."""
    found: set[str] = set()
    waiting, seen = [schema], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            found |= set(node.get("properties", {}))
            waiting += [value for name, value in node.items() if name not in ("examples", "example", "not")]
            name = node.get("$ref", "").removeprefix("#/components/schemas/")
            if name and name not in seen:
                seen.add(name)
                waiting.append(document["components"]["schemas"][name])
    return found


def test_every_operation_has_a_section(operations: dict[str, Json]) -> None:
    assert set(SECTIONS) == {*operations, "POST /mcp"}


def test_sections_name_parameters_fields_and_statuses(operations: dict[str, Json], document: Json) -> None:
    anywhere = quoted(PAGE)
    for name, operation in operations.items():
        words = quoted(SECTIONS[name])
        parameters = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
        assert parameters <= words, name
        bodies = operation.get("requestBody", {}).get("content", {})
        for media_type, body in bodies.items():
            schema = body.get("schema", {})
            own = set(schema.get("properties", {}))
            for named in re.findall(r"schemas/(\w+)", str(schema)):
                own |= set(document["components"]["schemas"][named]["properties"])
            assert own - {"documents"} <= words, name
            assert fields_of(schema, document) <= anywhere | {"and", "or", "not", "documents"}, name
            assert media_type == "application/json" or any(media_type in word for word in words), name
        statuses = set(re.findall(r"`([2-5]\d\d)`", SECTIONS[name]))
        assert statuses == set(operation["responses"]) - BY_THE_GATE, name


def test_every_field_of_every_answer_is_named(document: Json) -> None:
    names = {name for schema in document["components"]["schemas"].values() for name in schema.get("properties", {})}
    assert names - {"and", "or", "not"} <= quoted(PAGE)


def test_every_call_has_an_example() -> None:
    examples = "\n".join(block.code for block in code_blocks(API) if block.language == "sh")
    for name in SECTIONS:
        method, path = name.split(" ")
        if method == "DELETE":
            assert re.search(rf"curl -X DELETE '?http://127.0.0.1:8000{pattern(path)}(?:\?[^'\n]+')?\n", examples), name
        else:
            assert re.search(rf"curl .*http://127.0.0.1:8000{pattern(path)}[ ?'\n]", examples), name


def pattern(path: str) -> str:
    return re.sub(r"{\w+}", r"[\\w-]+", path)


def test_every_problem_stands_in_the_table_with_its_status(document: Json) -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (\d{3}) \|", PAGE.partition("## Problems")[2], re.M)
    told = {code: int(status) for names, status in rows for code in quoted(names)}
    assert told == codes()
    assert set(document["components"]["schemas"]["Problem"]["properties"]["code"]["examples"]) == set(told)
