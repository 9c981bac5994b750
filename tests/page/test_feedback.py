"""Judging the chunks of an answer on the page, in a real Chromium."""

from __future__ import annotations

from pathlib import Path

import httpx
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.page.browser import Page, answer, needs_chromium
from tests.servers import running_server
from tests.service.helpers import Json, add
from tests.service.library import SENTENCES

pytestmark = needs_chromium


def buttons(page: Page) -> list[WebElement]:
    """Those of the first step."""
    return page.all("#steps li")[0].find_elements(By.CSS_SELECTOR, ".judging button")


def said(client: httpx.Client, collection: str) -> list[Json]:
    records: list[Json] = client.get("/feedback", params={"collection": collection}).json()["feedback"]
    return records


def test_a_chunk_is_judged_by_mouse_and_keyboard_and_what_was_said_last_is_pressed(
    page: Page, client: httpx.Client, collection: str
) -> None:
    page.paste("\n".join(SENTENCES), title="The <b>ledger</b>")
    page.ask("Which line says little?")
    first = min(answer(page, client)["chunks"], key=lambda chunk: int(chunk["step"]))
    name = f"chunk {first['index']} of The <b>ledger</b>"
    helped, did_not = buttons(page)
    assert [button.accessible_name for button in (helped, did_not)] == [f"Helped: {name}", f"Did not help: {name}"]
    assert [button.get_attribute("aria-pressed") for button in (helped, did_not)] == ["false", "false"]
    helped.click()
    page.until(lambda: helped.get_attribute("aria-pressed") == "true")
    assert page.id("status").get_attribute("textContent") == f"Noted: {name} helped."
    page.press(Keys.TAB, Keys.ENTER)
    page.until(lambda: did_not.get_attribute("aria-pressed") == "true")
    assert helped.get_attribute("aria-pressed") == "false"
    records = said(client, collection)
    assert [record["question"] for record in records] == 2 * ["Which line says little?"]
    assert [[(each["index"], each["text"], each["helpful"]) for each in record["chunks"]] for record in records] == [
        [(first["index"], first["text"], helpful)] for helpful in (True, False)
    ]


def test_what_cannot_be_kept_is_told(page: Page, client: httpx.Client, collection: str) -> None:
    page.expected.append("404")
    page.paste("\n".join(SENTENCES))
    page.ask("Which line says little?")
    assert client.delete(f"/collections/{collection}").status_code == 204
    buttons(page)[0].click()
    page.until(lambda: "There is no document" in page.id("alert").text)
    assert buttons(page)[0].get_attribute("aria-pressed") == "false"


def test_a_service_that_collects_nothing_has_no_buttons(driver: Chrome, tmp_path: Path, tiny_checkpoint: Path) -> None:
    with running_server(tmp_path, tiny_checkpoint, feedback="false") as client:
        add(client, "\n".join(SENTENCES), chunking={"mode": "lines"})
        page = Page(driver, str(client.base_url).rstrip("/"))
        page.open("default")
        page.until(lambda: page.ready())
        page.ask("Which line says little?")
        assert page.all("#steps li")
        assert not page.all(".judging")
        page.assert_clean()
