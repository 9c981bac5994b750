"""API keys: each does what it is for, in its collections, from the next request on, and is nowhere to be read."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from service.errors import KeysError
from service.keys import Access, Keys, Right, add_key, read_keys, remove_key
from tests.servers import Server, running_server
from tests.service.helpers import PLAIN, Json, add, ask, problem

EVERYTHING: tuple[Right, ...] = ("read", "write")


# --- The file -------------------------------------------------------------------------------------------


def test_a_key_is_kept_as_a_hash_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys.json"
    secret = add_key(path, "reader", ["read"], ["a", "b"])
    (key,) = read_keys(path)
    assert (key.name, sorted(key.rights), sorted(key.collections or ())) == ("reader", ["read"], ["a", "b"])
    for file in path.parent.iterdir():
        assert secret not in file.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(secret) > 40
    assert add_key(path, "other", EVERYTHING, None) != secret


def test_changes_are_seen_at_once_and_a_damaged_file_lets_nobody_in_or_out(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = Keys(path)
    assert not keys.required
    first = add_key(path, "first", EVERYTHING, None)
    assert keys.required
    second = add_key(path, "second", ["read"], None)
    remove_key(path, "first")
    assert keys.access(first.encode()) is None
    found = keys.access(second.encode())
    assert found is not None
    assert (found.name, found.rights) == ("second", {"read"})
    path.write_text(path.read_text()[:-20])
    assert keys.access(second.encode()) == found
    assert keys.access(first.encode()) is None
    with pytest.raises(KeysError, match=r"keys\.json is damaged"):
        Keys(path)
    path.write_text('{"keys": []}')
    assert keys.required  # the last one was removed: nobody may do anything
    assert keys.access(second.encode()) is None
    path.unlink()
    assert keys.required  # it is about to be made anew, and everybody is outside meanwhile
    third = add_key(path, "third", ["read"], None)
    assert keys.access(third.encode()) is not None


def test_a_file_that_is_gone_before_the_first_request_lets_nobody_in(tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "first", EVERYTHING, None)
    server = Server(tmp_path / "data", tiny_checkpoint, keys_file=str(path))
    try:
        address = server.wait_until_listening()
        path.unlink()
        assert httpx.get(f"{address}/documents").status_code == 401
    finally:
        server.stop()


@pytest.mark.parametrize("key", [b"", b"qrag_", b"given ", b"Given", "gïven".encode(), b"\xff\xfe"])
def test_unknown_keys_are_unknown(tmp_path: Path, key: bytes) -> None:
    keys = Keys(tmp_path / "keys.json", ["given"])
    assert keys.access(b"given") is not None
    assert keys.access(key) is None


@pytest.mark.parametrize(
    ("name", "collections", "message"),
    [
        ("", None, "name: "),
        ("two words", None, "name: "),
        ("x" * 201, None, "name: "),
        ("fine", ["a/b"], "collections: "),
        ("taken", None, "There is a key 'taken' already"),
    ],
)
def test_keys_that_cannot_be_are_refused(
    tmp_path: Path, name: str, collections: list[str] | None, message: str
) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "taken", EVERYTHING, None)
    with pytest.raises(KeysError, match=message):
        add_key(path, name, EVERYTHING, collections)
    with pytest.raises(KeysError, match="There is no key 'nobody'"):
        remove_key(path, "nobody")
    assert [key.name for key in read_keys(path)] == ["taken"]


def test_keys_that_are_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        secrets = list(pool.map(lambda number: add_key(path, f"key-{number}", EVERYTHING, None), range(24)))
    keys = Keys(path)
    names = [access.name for secret in secrets if (access := keys.access(secret.encode()))]
    assert names == [f"key-{number}" for number in range(24)]


# --- Over HTTP ------------------------------------------------------------------------------------------


class Served:
    """A server with keys, and clients that have them."""

    def __init__(self, data: Path, anonymous: httpx.Client) -> None:
        self.keys = data / "keys.json"
        self.anonymous = anonymous
        self.secrets: list[str] = []

    def client(self, name: str, *rights: Right, collections: list[str] | None = None) -> httpx.Client:
        secret = add_key(self.keys, name, rights or EVERYTHING, collections)
        self.secrets.append(secret)
        return httpx.Client(base_url=self.anonymous.base_url, timeout=60, headers={"Authorization": f"Bearer {secret}"})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("keys")
    with running_server(data, tiny_checkpoint, max_requests_per_key=4) as client:
        found = Served(data, client)
        with found.client("fixture") as owner:
            for name in ("a", "b", "c"):
                add(owner, f"Ana signed the lease of {name}.", id=f"in-{name}", collection=name)
        yield found


def test_a_server_asks_for_keys_from_the_moment_that_there_is_one(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with running_server(tmp_path, tiny_checkpoint) as client:
        assert client.get("/documents").status_code == 200
        served = Served(tmp_path, client)
        with served.client("first") as first:
            problem(client.get("/documents"), 401, "unauthorized")
            assert first.get("/documents").status_code == 200
            with served.client("second") as second:
                remove_key(served.keys, "first")
                problem(first.get("/documents"), 401, "unauthorized")
                assert second.get("/documents").status_code == 200


def test_rights(served: Served) -> None:
    with served.client("reader", "read") as reader, served.client("writer", "write") as writer:
        assert ask(reader, "Who signed?", collection="a")["chunks"]
        assert reader.get("/documents/in-a").status_code == 200
        assert reader.get("/metrics").status_code == 200
        for answer in (
            reader.post("/documents", content=b"No.", headers=PLAIN),
            reader.delete("/documents/in-a"),
            reader.post("/documents/in-a/retry"),
            reader.delete("/collections/a"),
        ):
            assert "may read only" in problem(answer, 403, "forbidden")["detail"]
        assert writer.post("/documents", json={"text": "Yes.", "collection": "w"}).status_code == 202
        problem(writer.get("/documents"), 403, "forbidden")
        problem(writer.post("/retrieve", json={"question": "Who?"}), 403, "forbidden")


SEARCHES: list[tuple[str, Json]] = [
    ("/retrieve", {"question": "Who signed?", "collection": "{}"}),
    ("/retrieve/batch", {"questions": ["Who signed?"], "collection": "{}"}),
    ("/answer", {"question": "Who signed?", "collection": "{}"}),
    ("/v1/vector_stores/{}/search", {"query": "Who signed?"}),
]


@pytest.mark.parametrize(("path", "body"), SEARCHES)
def test_searching_is_reading_and_keeps_to_the_collections_of_the_key(served: Served, path: str, body: Json) -> None:
    def search(client: httpx.Client, collection: str) -> httpx.Response:
        named = {name: value.format(collection) if isinstance(value, str) else value for name, value in body.items()}
        return client.post(path.format(collection), json=named)

    name = path.strip("/").replace("/", "-").replace("{}", "")
    with served.client(f"{name}-reader", "read", collections=["a"]) as reader:
        found = search(reader, "a")
        assert found.status_code == 200 or found.json()["code"] == "no_language_model"
        for elsewhere in ("c", "nowhere"):
            assert "other collections" in problem(search(reader, elsewhere), 403, "forbidden")["detail"]
    with served.client(f"{name}-writer", "write", collections=["a"]) as writer:
        assert "may write only" in problem(search(writer, "a"), 403, "forbidden")["detail"]
    problem(search(served.anonymous, "a"), 401, "unauthorized")


def test_keys_hold_for_openai_and_mcp_clients(served: Served) -> None:
    secret = add_key(served.keys, "mcp-reader", ["read"], ["a"])
    base_url = f"{served.anonymous.base_url}/v1"
    with openai.OpenAI(base_url=base_url, api_key=secret, max_retries=0) as client:
        assert [each.file_id for each in client.vector_stores.search("a", query="Who signed?")] == ["in-a"]
        with pytest.raises(openai.PermissionDeniedError):
            client.vector_stores.search("c", query="Who signed?")
    with (
        openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.vector_stores.search("a", query="Who signed?")

    def call(tool: str, **arguments: str) -> Json:
        result: Json = mcp_call(served.anonymous, tool, arguments, secret).json()["result"]
        return result

    found = call("search", query="Who signed?", collection="a")
    assert found["structuredContent"]["results"][0]["id"].startswith("in-a#")
    assert call("fetch", id="in-a")["structuredContent"]["text"] == "Ana signed the lease of a."
    hidden, missing = call("fetch", id="in-c"), call("fetch", id="nothing")
    assert hidden["isError"]
    assert hidden["content"][0]["text"].replace("in-c", "nothing") == missing["content"][0]["text"]
    for collection in ("c", "nowhere", "default"):
        for tool, question in (("search", "query"), ("retrieve", "question")):
            refused = call(tool, **{question: "Who signed?", "collection": collection})
            assert refused["isError"]
            assert refused["content"][0]["text"].startswith("forbidden: ")
    problem(mcp_call(served.anonymous, "search", {"query": "Who?"}, "wrong"), 401, "unauthorized")
    with served.client("mcp-only-writer", "write") as writer:
        problem(writer.post("/mcp", json={}), 403, "forbidden")


def mcp_call(client: httpx.Client, tool: str, arguments: Json, key: str) -> httpx.Response:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/json, text/event-stream"}
    return client.post("/mcp", json=body, headers=headers)


def test_a_key_for_some_collections_sees_and_changes_nothing_else(served: Served) -> None:
    with served.client("tenant", collections=["a", "b"]) as tenant:
        assert {document["id"] for document in tenant.get("/documents").json()["documents"]} == {"in-a", "in-b"}
        assert [each["name"] for each in tenant.get("/collections").json()["collections"]] == ["a", "b"]
        pages = tenant.get("/documents", params={"limit": 1}).json()
        (last,) = tenant.get("/documents", params={"cursor": pages["next_cursor"]}).json()["documents"]
        assert last["id"] == "in-b"
        assert ask(tenant, "Who signed?", collection="b")["chunks"]
        absent = problem(tenant.get("/documents/nothing"), 404, "unknown_document")["detail"]
        for path in ("", "/chunks", "/text"):
            found = problem(tenant.get(f"/documents/in-c{path}"), 404, "unknown_document")["detail"]
            assert found.replace("in-c", "nothing") == absent
        problem(tenant.delete("/documents/in-c"), 404, "unknown_document")
        problem(tenant.post("/documents/in-c/retry"), 404, "unknown_document")
        for answer in (
            tenant.get("/documents", params={"collection": "c"}),
            tenant.delete("/collections/c"),
            tenant.post("/retrieve", json={"question": "Who?", "collection": "c"}),
            tenant.post("/retrieve", json={"question": "Who?"}),
            tenant.post("/documents", json={"text": "No.", "collection": "c"}),
            tenant.post("/documents", json={"documents": [{"text": "No.", "collection": "a"}, {"text": "No."}]}),
            tenant.post("/documents", params={"collection": "c"}, content=b"No.", headers=PLAIN),
            tenant.post("/documents", data={"collection": "c"}, files={"file": ("a.txt", b"No.")}),
            tenant.get("/metrics"),
        ):
            problem(answer, 403, "forbidden")
        taken = tenant.post(
            "/documents", params={"replace": True}, json={"id": "in-c", "text": "Mine.", "collection": "a"}
        )
        assert "another collection" in problem(taken, 409, "document_conflict")["detail"]
        assert tenant.post("/documents", json={"text": "Mine.", "id": "mine", "collection": "a"}).status_code == 202
        assert tenant.delete("/documents/mine").status_code == 204
    with served.client("owner") as owner:
        assert ask(owner, "Who signed?", collection="c")["chunks"][0]["text"] == "Ana signed the lease of c."


def test_one_key_cannot_take_all_of_the_server(served: Served) -> None:
    with served.client("greedy") as greedy, served.client("modest") as modest:

        def waiting_upload() -> Iterator[bytes]:
            yield b"The rest of this comes "
            for _ in range(3):
                problem(greedy.get("/documents"), 429, "too_many_requests")
            yield b"later."

        def nested(depth: int) -> Iterator[bytes]:
            """An upload that goes on when those within it are through."""
            yield b"Slowly. "
            if depth == 0:
                yield from waiting_upload()
            else:
                assert greedy.post("/documents", content=nested(depth - 1), headers=PLAIN).status_code in (200, 202)
            assert modest.get("/documents").status_code == 200

        assert greedy.post("/documents", content=nested(3), headers=PLAIN).status_code in (200, 202)
        assert greedy.get("/documents").status_code == 200


def test_secrets_are_in_no_answer_and_no_log(tmp_path: Path, tiny_checkpoint: Path) -> None:
    server = Server(tmp_path, tiny_checkpoint, api_keys="given-key", log_level="debug")
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            secret = add_key(tmp_path / "keys.json", "one", EVERYTHING, None)
            for key in (secret, "given-key", "wrong-key"):
                answer = client.get("/documents", headers={"Authorization": f"Bearer {key}"})
                assert key not in answer.text
        server.process.send_signal(signal.SIGTERM)
        _, log = server.exit()
    finally:
        server.kill()
    for key in (secret, "given-key", "wrong-key"):
        assert key not in log


# --- Starting -------------------------------------------------------------------------------------------


def service(data: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {f"QRAG_{name.upper()}": value for name, value in settings.items()} | {"QRAG_DATA_DIR": str(data)}
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_keys_are_made_listed_and_removed_on_the_command_line(tmp_path: Path) -> None:
    made = service(tmp_path, "keys", "add", "web", "--right", "read", "--collection", "a", "--collection", "b")
    assert made.returncode == 0, made.stderr
    access = Keys(tmp_path / "keys.json").access(made.stdout.strip().encode())
    assert access is not None
    assert access == Access("web", frozenset({"read"}), frozenset({"a", "b"}))
    listed = service(tmp_path, "keys", "list").stdout
    assert listed.split("\t")[:3] == ["web", "read", "a, b"]
    assert service(tmp_path, "keys", "remove", "web").returncode == 0
    again = service(tmp_path, "keys", "remove", "web")
    assert (again.returncode, again.stderr) == (
        1,
        "qrag: There is no key 'web'. `python -m service keys list` shows them.\n",
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_strangers_are_let_in_only_by_a_clear_word(tmp_path: Path, host: str) -> None:
    refused = service(tmp_path, host=host)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"qrag: QRAG_HOST={host} opens the service to the network, and there are no keys.")
    assert not (tmp_path / "index.sqlite").exists()
