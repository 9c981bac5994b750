"""A document on the page, opened at a passage, in a real Chromium."""

from __future__ import annotations

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.page.browser import Page, answer, needs_chromium, texts
from tests.service.helpers import Json, add, chunks_of, text_of
from tests.service.library import SENTENCES

pytestmark = needs_chromium

TEXT = "\n".join(SENTENCES)

LEDGER = f"# Mill\n\n👀 {'Nothing is baked. ' * 5}\n\n## Wheel\n\n" + "\n".join(
    f"Line {number} 👩\u200d👩\u200d👧 says little." for number in range(1500)
)


@pytest.fixture
def ledger(client: httpx.Client, collection: str) -> Json:
    """A long document with headings; the chunk in its middle."""
    query = {"wait": "true", "collection": collection, "chunking": "lines", "title": "The <b>ledger</b>"}
    answer = client.post("/documents", params=query, content=LEDGER, headers={"Content-Type": "text/markdown"})
    assert answer.status_code == 201
    chunks = chunks_of(client, answer.json()["id"])
    return {"document_id": answer.json()["id"], **chunks[len(chunks) // 2]}


MARKED_AND_VISIBLE = """const mark = document.querySelector("#reader mark");
if (!mark || !document.getElementById("reader").open || document.activeElement !== mark) return null;
const { top, bottom } = mark.getBoundingClientRect();
const around = document.getElementById("reader-scroll").getBoundingClientRect();
return top >= around.top && bottom <= around.bottom ? mark.textContent : null"""


def shown(page: Page) -> str:
    """The text of the document that is open, as far as it was read."""
    return texts(page, "#reader-text")[0]


def show_more(page: Page, button: str) -> None:
    length = len(shown(page))
    page.run("arguments[0].click()", page.id(button))
    page.until(lambda: len(shown(page)) > length)


@pytest.mark.usefixtures("ledger")
def test_a_passage_of_an_answer_is_opened_in_its_document(page: Page, client: httpx.Client) -> None:
    page.driver.refresh()
    page.until(lambda: page.ready())
    page.ask("Which line says little?")
    first = answer(page, client)["chunks"][0]
    item = page.all("#steps li")[first["step"]]
    assert f"chunk {first['index']} of The <b>ledger</b> · Mill › Wheel · Q" in item.text
    link = item.find_element(By.CLASS_NAME, "open")
    assert link.accessible_name == f"Open The <b>ledger</b> at chunk {first['index']}"
    link.click()
    page.until(lambda: page.run(MARKED_AND_VISIBLE) == first["text"])
    page.press(Keys.ESCAPE)
    assert not page.id("reader").is_displayed()
    assert page.run("return location.hash") == ""
    assert page.all("#steps li")  # the answer is still there
    page.driver.back()  # to where it was not open either
    assert not page.id("reader").is_displayed()


def test_the_address_of_a_passage_can_be_shared(page: Page, client: httpx.Client, ledger: Json) -> None:
    page.driver.get(f"{page.base}/page/icon.svg")
    page.driver.get(f"{page.base}/#document={ledger['document_id']}&chunk={ledger['index']}")
    for _ in range(2):
        page.until(lambda: page.run(MARKED_AND_VISIBLE) == ledger["text"])
        assert page.id("reader-title").text == "The <b>ledger</b>"
        assert page.id("reader-place").text == f"chunk {ledger['index']} Mill › Wheel"
        page.driver.refresh()
    page.until(lambda: page.run(MARKED_AND_VISIBLE) == ledger["text"])
    text = text_of(client, ledger["document_id"])
    assert shown(page) in text
    assert len(shown(page)) < len(text)
    for button in ("reader-before", "reader-after"):
        while page.id(button).is_displayed():
            show_more(page, button)
    assert shown(page) == text
    assert texts(page, "#reader mark") == [ledger["text"]]
    page.id("reader-close").click()
    assert page.run("return location.hash") == ""


def test_no_text_is_shown_twice_however_often_more_is_asked_for(page: Page, client: httpx.Client, ledger: Json) -> None:
    page.until(lambda: page.id("model").text)
    page.run("location.hash = arguments[0]", f"document={ledger['document_id']}&chunk={ledger['index']}")
    page.until(lambda: page.run(MARKED_AND_VISIBLE) == ledger["text"])
    buttons = [page.id(button) for button in ("reader-before", "reader-after")]
    length = 0

    def more_is_shown() -> bool:
        return len(shown(page)) > length

    while any(button.is_displayed() for button in buttons):
        length = len(shown(page))
        page.run("for (const button of [...arguments, ...arguments]) if (!button.hidden) button.click()", *buttons)
        page.until(more_is_shown)
    assert shown(page) == text_of(client, ledger["document_id"])


def test_a_byte_order_mark_is_a_character_of_the_text_like_others(
    page: Page, client: httpx.Client, collection: str
) -> None:
    text = "\ufeffAna signed the lease.\n\ufeffThe mill was sold."
    chunks = chunks_of(
        client, add(client, text, collection=collection, chunking={"mode": "lines"}, id=collection)["id"]
    )
    page.driver.refresh()
    page.until(lambda: page.ready())
    page.ask("Who signed the lease?")
    found = answer(page, client)["chunks"]
    marks = page.run("return [...document.querySelectorAll('#excerpts mark > bdi')].map(mark => mark.textContent)")
    assert marks == [chunk["text"] for chunk in sorted(found, key=lambda chunk: chunk["start"])]
    page.run("location.hash = arguments[0]", f"document={collection}&chunk=0")
    page.until(lambda: page.run(MARKED_AND_VISIBLE) == chunks[0]["text"])
    assert shown(page) == text


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("document=nothing&chunk=3", "There is no document 'nothing'"),
        ("document={}&chunk=99999", "There is no chunk 99999"),
        ("document={}&chunk=x", "cursor"),
    ],
)
def test_a_passage_that_is_not_there_is_told(page: Page, ledger: Json, address: str, words: str) -> None:
    page.expected = ["404", "422"]
    page.until(lambda: page.id("model").text)
    page.run("location.hash = arguments[0]", address.format(ledger["document_id"]))
    page.until(lambda: words in page.id("alert").text)
    assert not page.id("reader").is_displayed()
