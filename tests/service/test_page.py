"""The page's files: what is served, how, and that nothing else is. What they do is in tests/page."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

import service
from tests.servers import running_server
from tests.service.helpers import problem

FOLDER = Path(service.__file__).parent / "page"
FILES = sorted(path.name for path in FOLDER.iterdir())
PATHS = ["/", *(f"/page/{name}" for name in FILES if name != "index.html")]
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def source(path: str) -> Path:
    return FOLDER / (path.removeprefix("/page/").removeprefix("/") or "index.html")


@pytest.mark.parametrize("path", PATHS)
def test_every_file_is_served_with_its_type_and_a_strict_policy(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.content == source(path).read_bytes()
    assert answer.headers["Content-Type"].split(";")[0] == TYPES[source(path).suffix[1:]]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(directive.split(" ", 1) for directive in answer.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }


@pytest.mark.parametrize("path", ["/", "/page/page.js"])
def test_browsers_keep_files_and_ask_whether_they_are_still_right(client: httpx.Client, path: str) -> None:
    first = client.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    tag = first.headers["ETag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}'):
        again = client.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content
    tags = {client.get(path).headers["ETag"] for path in PATHS}
    assert len(tags) == len(PATHS)


@pytest.mark.parametrize("path", ["/", "/page/page.css"])
def test_head_tells_what_get_would(client: httpx.Client, path: str) -> None:
    got, told = client.get(path), client.head(path)
    assert (told.status_code, told.content) == (200, b"")
    for name in ("Content-Type", "Content-Length", "ETag", "Content-Security-Policy", "Cache-Control"):
        assert told.headers[name] == got.headers[name]


def raw_get(client: httpx.Client, path: str) -> tuple[int, bytes]:
    """The path as it stands: clients of a higher level tidy it up."""
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=60)
    try:
        connection.putrequest("GET", path)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        *("/page", "/page/", "/page/.", "/page/..", "/page/index.html", "/page/nothing.js", "/page/page.js/"),
        *("/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page/..%5capp.py", "/page/....//app.py"),
        *("/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/page.js%00", "/page/__pycache__", "/page/PAGE.js"),
        *("//page/page.js", "/page/./page.js", "/%70age/../page.js"),
    ],
)
def test_nothing_else_can_be_reached(client: httpx.Client, path: str) -> None:
    status, body = raw_get(client, path)
    assert status == 404
    assert b'"code":"not_found"' in body


def test_the_page_needs_no_key_and_opens_nothing_that_does(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with running_server(tmp_path, tiny_checkpoint, api_keys="secret") as client:
        for path in PATHS:
            assert client.get(path).status_code == 200
        problem(client.get("/documents"), 401, "unauthorized")
        for path in ("/page/../documents", "/page/nothing.js", "/page/%2e%2e/documents", "//documents"):
            assert raw_get(client, path)[0] == 401


def test_it_can_only_be_read(client: httpx.Client) -> None:
    for path in ("/", "/page/page.js"):
        for method in ("POST", "PUT", "DELETE"):
            problem(client.request(method, path), 405, "method_not_allowed")


class Tags(HTMLParser):
    """The tags of a page, and what their attributes say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def all(self, name: str) -> Iterator[str]:
        return (value for _, attributes in self.found if (value := attributes.get(name)) is not None)


@pytest.fixture(scope="module")
def tags() -> Tags:
    return Tags((FOLDER / "index.html").read_text())


def test_the_page_loads_its_own_files_and_has_nothing_inline(tags: Tags) -> None:
    for tag, attributes in tags.found:
        assert tag != "style"
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "script":
            assert attributes["src"]
    loaded = {*tags.all("src"), *tags.all("href")}
    assert {f"/{each}" for each in loaded if each.startswith("page/")} <= set(PATHS)
    assert {each for each in loaded if not each.startswith(("page/", "#"))} == {"docs"}


def test_every_control_has_a_label_and_every_reference_leads_somewhere(tags: Tags) -> None:
    ids = list(tags.all("id"))
    assert len(ids) == len(set(ids))
    labels = set(tags.all("for"))
    assert labels | set(tags.all("aria-labelledby")) <= set(ids)
    controls = [
        attributes["id"]
        for tag, attributes in tags.found
        if tag in ("input", "select", "textarea") and attributes["id"]
    ]
    assert len(controls) > 8
    assert set(controls) <= labels


def test_an_installed_service_has_all_files(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", "import setuptools; setuptools.setup()", "--quiet"]
    command += ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "built")]
    subprocess.run(command, cwd=FOLDER.parent.parent, check=True)
    built = tmp_path / "built" / "service" / "page"
    assert sorted(path.name for path in built.iterdir()) == FILES
