"""The written report: what hostile texts become in it, and how it looks in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from qrag.cli.main import main
from qrag.evaluation.markdown import plain
from tests.markdown import links
from tests.page.browser import Page, chromium, needs_chromium
from tests.servers import running_server
from tests.service.chat import completion
from tests.service.helpers import add
from tests.service.scripted import scripted

pytestmark = pytest.mark.usefixtures("surroundings")

ATTACK = "</style></title><script>document.title = 'taken'</script><img src=http://127.0.0.1:1/x onerror=alert(1)>"
MARKDOWN_ATTACK = "a | b [link](http://127.0.0.1:1/) ![x](http://127.0.0.1:1/) `code` **bold**\n# heading\n"


@pytest.fixture(scope="module")
def hostile_client(tmp_path_factory: pytest.TempPathFactory, calibrated_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of a server whose language model writes attacks."""
    with scripted(otherwise=completion(f"{ATTACK} [1]. {MARKDOWN_ATTACK}")) as endpoint:
        model = {"llm_base_url": f"{endpoint.url}/v1", "llm_model": ATTACK}
        with running_server(tmp_path_factory.mktemp("hostile"), calibrated_checkpoint, **model) as client:
            yield client


@pytest.fixture
def report(hostile_client: httpx.Client, collection: str, tmp_path: Path) -> Path:
    """A folder with the report about hostile questions and documents, compared with itself."""
    text = "\n".join(f"Line {number}: {ATTACK}" for number in range(8))
    add(hostile_client, text, collection=collection, title=ATTACK, chunking={"mode": "lines"})
    questions = [
        {"id": ATTACK, "question": f"{ATTACK}?", "expected": [{"text": f"Line 1: {ATTACK}"}], "answers": [ATTACK] * 2},
        {"id": '"onmouseover="alert(1)', "question": MARKDOWN_ATTACK, "answers": [MARKDOWN_ATTACK, "W" * 400]},
        {"question": "W" * 400, "expected": [{"text": ATTACK * 2}, {"title": ATTACK, "page": ATTACK}]},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    url = ["--url", str(hostile_client.base_url)]
    arguments = [
        *url,
        "eval",
        str(tmp_path / "q.jsonl"),
        "--out",
        str(tmp_path),
        "--collection",
        collection,
        "--budget",
    ]
    assert main(arguments) == 0
    assert main([*arguments, "--compare", str(tmp_path / "report.json")]) == 0
    return tmp_path


def test_hostile_texts_stay_texts(report: Path) -> None:
    page = (report / "report.html").read_text()
    tags = set(re.findall(r"<\s*/?\s*([\w!]+)", page))
    assert not tags & {"script", "img", "iframe", "link", "object", "base", "form"}
    assert page.count("</style>") == 1
    assert "default-src 'none'" in page
    assert not re.search(r"<[^>]*\son\w+\s*=", page)
    text = (report / "report.md").read_text()
    assert "<" not in text
    assert not links(report / "report.md")
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# Evaluation"]


def test_a_cell_of_markdown_is_one_line() -> None:
    assert plain("a | b\n`c` <d> & e") == r"a \| b \`c\` &lt;d&gt; &amp; e"


@needs_chromium
def test_the_page_in_a_browser(report: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as driver:
        page = Page(driver, "file://")
        driver.get("about:blank")
        page.log("performance")
        backgrounds = set()
        for scheme in ("light", "dark"):
            for width in (1200, 375):
                page.look(width=width, scheme=scheme)
                driver.get(f"file://{report}/report.html")
                for details in page.all("details"):
                    details.find_element("tag name", "summary").click()
                assert driver.title == "Evaluation"
                assert page.wider_than_the_window() == 0
                backgrounds.add(page.run("return getComputedStyle(document.documentElement).backgroundColor"))
        assert len(backgrounds) == 2
        assert len(page.all("details[open]")) == 3
        quoted = [quotation.text for quotation in page.all("blockquote")]
        assert any(f"{ATTACK} [1]. a | b" in text for text in quoted)
        assert any("Line 1: " + ATTACK in text for text in quoted)
        assert len(page.all("svg[role=img]")) == 4
        assert page.run("return document.querySelectorAll('.line polyline').length") == 5 * 3
        page.assert_clean()
