"""The page through a reader's eyes and hands, in a real Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from service.keys import add_key
from tests.page.browser import Page, answer, asked, needs_chromium, texts
from tests.servers import running_server
from tests.service.helpers import add, ids_in, lines_of_text
from tests.service.library import QUESTION, SENTENCES

pytestmark = needs_chromium

TEXT = "\n".join(SENTENCES)


# --- One visit ----------------------------------------------------------------------------------------------


def test_paste_index_ask_and_see(page: Page, client: httpx.Client, collection: str) -> None:
    page.paste(TEXT, title="Minutes")
    (entry,) = page.ready()
    assert "Minutes" in entry.text
    assert "Ready · 12 chunks" in entry.text
    page.ask(QUESTION)
    expected = answer(page, client)
    assert (asked(page)["collection"], asked(page)["question"]) == (collection, QUESTION)
    by_step = sorted(expected["chunks"], key=lambda chunk: int(chunk["step"]))
    assert len(by_step) == 6
    assert texts(page, "#steps blockquote") == [chunk["text"] for chunk in by_step]
    for number, (item, chunk) in enumerate(zip(page.all("#steps li"), by_step, strict=True)):
        assert f"chunk {chunk['index']} of Minutes" in item.text
        states = [*(step["sufficiency"] for step in expected["steps"][1:]), expected["sufficiency"]]
        for name in ("complete", "hopeless"):
            assert re.search(rf"{name}\s+{100 * states[number][name]:.0f}%", item.text), item.text
    assert texts(page, "#excerpts mark bdi") == [chunk["text"] for chunk in expected["chunks"]]
    assert texts(page, "#excerpts mark .badge") == [f"step {chunk['step'] + 1}" for chunk in expected["chunks"]]
    shown = page.run(
        """const all = document.querySelector(".excerpt").cloneNode(true);
        for (const badge of all.querySelectorAll(".badge")) badge.remove();
        return all.textContent"""
    )
    assert shown == TEXT
    assert page.id("context").text == expected["context"]
    assert page.id("outcome").text == "6 chunks. As many chunks as were allowed are selected."
    assert re.search(r"In all\s+\d+\.\d ms", page.id("timings").text)
    assert page.id("status").get_attribute("textContent") == f"Done. {page.id('outcome').text}"


def test_heat_map_shows_the_values_the_intervals_and_the_selected(page: Page, client: httpx.Client) -> None:
    page.paste(TEXT)
    page.ask(QUESTION)
    steps = answer(page, client)["steps"]
    tracks = page.all("#maps .track")
    assert len(tracks) == len(steps) == 6
    for track, step in zip(tracks, steps, strict=True):
        (heat,) = step["heatmap"]
        assert heat["chunks"] == 12
        assert lefts(page, track, ".border") == pytest.approx([border / 12 for border in heat["borders"]], abs=1e-4)
        assert lefts(page, track, ".selected") == pytest.approx([(step["index"] + 0.5) / 12], abs=1e-4)
    badges = {badge.text: badge.get_attribute("aria-label") for badge in page.all("#maps .badges .badge")}
    assert badges == {
        f"{step['step'] + 1}": f"Step {step['step'] + 1}: chunk {step['index']}, in the text" for step in steps
    }
    page.all(".strip summary")[0].click()
    page.until(lambda: page.all(".strip tbody tr"))  # a browser says by an event, a moment later, that it is open
    rows = [row.split("\t") for row in page.run(TABLE_ROWS)]
    assert [row[0] for row in rows] == [f"{chunk}" for chunk in range(12)]
    for step in steps:
        for chunk, q in enumerate(step["heatmap"][0]["q"]):
            shown, _, note = rows[chunk][step["step"] + 1].partition(" ")
            assert (shown == "–") == (q is None)
            assert q is None or float(shown) == pytest.approx(q, abs=0.006)
            assert note == (f"(selected: {chunk})" if chunk == step["index"] else "")


TABLE_ROWS = """return [...document.querySelectorAll(".strip tbody tr")].map(
    row => [...row.children].map(cell => cell.textContent).join("\\t"))"""


def lefts(page: Page, track: object, selector: str) -> list[float]:
    """Where marks are, as shares of their track."""
    places: list[str] = page.run(
        "return [...arguments[0].querySelectorAll(arguments[1])].map(mark => mark.style.left)", track, selector
    )
    return [float(place.removesuffix("%")) / 100 for place in places]


def test_any_place_can_be_looked_at(page: Page) -> None:
    page.paste(TEXT)
    page.ask(QUESTION)
    place = page.all(".strip input[type=range]")[0]
    place.send_keys(Keys.END)
    said = place.get_attribute("aria-valuetext")
    assert said is not None
    assert said.startswith("Chunk 11. Q at step 1: ")
    place.send_keys(Keys.ARROW_LEFT)
    assert page.all(".strip output")[0].text.startswith("Chunk 10. Q at step 1: ")
    page.all(".readout button")[0].click()
    page.until(lambda: page.all(".passage p"))
    assert page.all(".passage p")[0].text == f"10 {SENTENCES[10]}"


def test_steps_are_shown_as_they_come(page: Page) -> None:
    page.paste(TEXT)
    page.run(
        """window.said = [];
        new MutationObserver(records => {
            for (const { addedNodes } of records) for (const node of addedNodes) said.push(node.data);
        }).observe(document.getElementById("outcome"), { childList: true })"""
    )
    page.ask(QUESTION)
    counts = ["1 chunk", *(f"{number} chunks" for number in range(2, 7))]
    assert page.run("return said") == [
        "Searching…",
        *(f"Searching… {count} so far." for count in counts),
        page.id("outcome").text,
    ]


def test_comments_in_the_stream_are_passed_over(page: Page) -> None:
    page.paste(TEXT)
    page.run(
        """const send = fetch;
        window.fetch = async (path, options) => {
            const answer = await send(path, options);
            if (path !== "retrieve") return answer;
            const events = (await answer.text()).split("\\n\\n");
            return new Response(`: working\\n\\n${events.join("\\n\\n: working\\n\\n")}`, answer);
        }"""
    )
    page.ask(QUESTION)
    assert len(page.all("#steps li")) == 6


def test_options_are_what_is_asked_for(page: Page) -> None:
    page.paste(TEXT)
    page.fill("max-steps", "3")
    page.fill("beam-width", "2")
    for choice, stop in (
        ("", {}),
        ("step_cost", {"step_cost": 0.01}),
        ("target_recall", {"target_recall": 0.95}),
        ("budget", {"rule": "budget"}),
    ):
        page.choose("stop", choice)
        assert page.id("step-cost").is_displayed() == (choice == "step_cost")
        assert page.id("target-recall").is_displayed() == (choice == "target_recall")
        if choice == "step_cost":
            page.fill("step-cost", "0.01")
        page.ask(QUESTION)
        request = asked(page)
        assert (request["stop"], request["max_steps"], request["beam_width"]) == (stop, 3, 2)
    assert len(page.all("#steps li")) == 3


def one_step(page: Page, client: httpx.Client) -> list[str]:
    """What one step would have found, as much as an episode may select."""
    return [SENTENCES[each["index"]] for each in answer(page, client)["one_step"][: asked(page)["max_steps"]]]


def test_one_step_search_is_shown_beside_it(page: Page, client: httpx.Client) -> None:
    page.paste(TEXT)
    page.ask(QUESTION)
    page.id("one-step-details").find_element(By.TAG_NAME, "summary").click()
    page.until(lambda: page.all("#one-step li"))
    assert texts(page, "#one-step blockquote") == one_step(page, client)


def test_what_one_step_had_found_for_the_question_before_is_not_shown_for_the_next(
    page: Page, client: httpx.Client
) -> None:
    page.paste(TEXT)
    page.ask(QUESTION)
    page.driver.execute_cdp_cmd("Fetch.enable", {"patterns": [{"urlPattern": "*/chunks?*"}]})  # nobody lets it go on
    page.id("one-step-details").find_element(By.TAG_NAME, "summary").click()
    page.fill("max-steps", "2")
    page.ask(QUESTION)
    page.driver.execute_cdp_cmd("Fetch.disable", {})
    loaded = "return performance.getEntriesByType('resource').filter(({ name }) => name.includes('/chunks?')).length"
    page.until(lambda: page.run(loaded) == 6)
    page.id("one-step-details").find_element(By.TAG_NAME, "summary").click()
    page.until(lambda: page.all("#one-step li"))
    assert texts(page, "#one-step blockquote") == one_step(page, client)


def test_the_context_can_be_copied(page: Page, client: httpx.Client) -> None:
    for permission in ("clipboard-read", "clipboard-write"):
        page.driver.execute_cdp_cmd(
            "Browser.setPermission", {"permission": {"name": permission}, "setting": "granted", "origin": page.base}
        )
    page.paste(TEXT)
    page.ask(QUESTION)
    page.id("copy").click()
    page.until(lambda: page.id("copied").text == "Copied.")
    copied = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == answer(page, client)["context"]


def test_a_question_can_be_cancelled(page: Page) -> None:
    page.paste(TEXT)
    page.driver.execute_cdp_cmd("Fetch.enable", {"patterns": [{"urlPattern": "*/retrieve"}]})  # nobody lets it go on
    page.id("question").send_keys("Who?", Keys.ENTER)
    page.until(lambda: page.id("cancel").is_displayed())
    page.id("cancel").click()
    page.until(lambda: page.id("outcome").text == "Broken off.")
    page.driver.execute_cdp_cmd("Fetch.disable", {})
    page.until(lambda: not page.id("cancel").is_displayed())
    page.ask(QUESTION)
    assert not page.id("alert").is_displayed()


# --- Documents ----------------------------------------------------------------------------------------------


def test_progress_is_shown_while_a_document_is_indexed(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text(lines_of_text(20_000))
    page.until(lambda: page.id("model").text)
    page.run(
        """window.seen = [];
        new MutationObserver(() => {
            const bar = document.querySelector("#documents progress:not([hidden])");
            if (bar) seen.push([bar.value, document.getElementById("status").textContent]);
        }).observe(document.body, { subtree: true, childList: true, attributes: true })"""
    )
    page.choose("chunking", "lines")
    page.id("files").send_keys(str(path))
    page.until(lambda: page.ready())
    assert "Ready · 20,000 chunks" in page.ready()[0].text
    assert not page.all("#documents progress")[0].is_displayed()
    seen = page.run("return seen")
    values = [value for value, _ in seen]
    assert values == sorted(values)
    assert any(0 < value < 1 for value in values)
    assert any(re.fullmatch(r"long\.txt: Indexing, \d+%", said) for _, said in seen)
    assert page.id("status").get_attribute("textContent") == "long.txt: Ready"


def test_a_document_whose_content_is_replaced_says_so_until_the_new_one_is_searched(
    page: Page, client: httpx.Client, collection: str
) -> None:
    id = f"{collection}-r"
    page.until(lambda: page.id("model").text)
    add(client, "Ana signed.", id=id, title="Lease", collection=collection)
    new = {"id": id, "title": "Lease", "collection": collection, "text": lines_of_text(4_000)}
    answer = client.post("/documents", params={"replace": True}, json={**new, "chunking": {"mode": "lines"}})
    assert answer.status_code == 202
    page.driver.refresh()
    page.until(lambda: "The former text is still searched" in page.id("documents").text)
    page.until(lambda: "Ready · 4,000 chunks" in page.id("documents").text)
    assert "former" not in page.id("documents").text


def test_files_are_taken_one_by_one_and_a_bad_one_is_named(
    page: Page, client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    page.expected = ["422"]
    page.until(lambda: page.id("model").text)
    paths = []
    for name, content in (("one.txt", "Ana signed."), ("broken.pdf", "no PDF"), ("two.md", "# Bruno\n\nBees.")):
        path = tmp_path / name
        path.write_text(content)
        paths.append(str(path))
    page.id("files").send_keys("\n".join(paths))
    page.until(lambda: len(page.ready()) == 2)
    assert [entry.find_element(By.CLASS_NAME, "title").text for entry in page.ready()] == ["two.md", "one.txt"]
    assert page.id("alert").text.startswith("broken.pdf: ")
    page.id("alert-close").click()
    assert not page.id("alert").is_displayed()
    assert len(ids_in(client, collection)) == 2


def test_files_can_be_dropped(page: Page) -> None:
    page.until(lambda: page.id("model").text)
    page.run(
        """const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["Ana signed the lease."], "dropped.txt", { type: "text/plain" }));
        for (const name of ["dragover", "drop"])
            document.querySelector("main").dispatchEvent(
                new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true }));"""
    )
    page.until(lambda: page.ready())
    assert "dropped.txt" in page.ready()[0].text


def test_a_document_is_deleted_only_when_the_reader_is_sure(page: Page, client: httpx.Client, collection: str) -> None:
    page.paste(TEXT, title="Minutes")
    delete = page.ready()[0].find_elements(By.TAG_NAME, "button")[-1]
    assert delete.accessible_name == "Delete Minutes"
    delete.click()
    assert "Delete Minutes?" in page.id("confirm").text
    page.press(Keys.ESCAPE)
    assert not page.id("confirm").is_displayed()
    delete.click()
    page.id("confirm").find_element(By.CSS_SELECTOR, "[value=no]").click()
    assert len(ids_in(client, collection)) == 1
    delete.click()
    page.id("confirm").find_element(By.CSS_SELECTOR, "[value=yes]").click()
    page.until(lambda: not page.ready())
    assert ids_in(client, collection) == []
    assert page.id("no-documents").is_displayed()


def test_collections_are_chosen_and_made(page: Page, client: httpx.Client, collection: str) -> None:
    other = f"{collection}-other"
    add(client, "Elsewhere.", title="Other", collection=other)
    page.paste("Here.", title="This")
    page.driver.refresh()
    page.until(lambda: page.ready())
    assert not page.id("adding").get_attribute("open")
    page.choose("collection", other)
    page.until(lambda: [entry.text.splitlines()[0] for entry in page.ready()] == ["Other"])
    page.driver.refresh()  # the address says which
    page.until(lambda: [entry.text.splitlines()[0] for entry in page.ready()] == ["Other"])
    page.id("collection-name").send_keys(f"{collection}-new", Keys.ENTER)
    page.until(lambda: page.id("no-documents").is_displayed())
    page.paste("New.", title="First")
    assert len(ids_in(client, f"{collection}-new")) == 1


def test_long_lists_are_shown_page_by_page(page: Page, client: httpx.Client, collection: str) -> None:
    documents = [{"text": f"Number {number}.", "collection": collection} for number in range(15)]
    for number in range(7):
        batch = [{**each, "text": f"{number} {each['text']}"} for each in documents]
        assert client.post("/documents?wait=true", json={"documents": batch}).status_code == 201
    page.driver.refresh()
    page.until(lambda: len(page.ready()) == 100)
    page.id("more-documents").click()
    page.until(lambda: len(page.ready()) == 105)
    assert not page.id("more-documents").is_displayed()


def test_errors_are_told_in_the_words_of_the_service(page: Page) -> None:
    page.expected = ["404"]
    page.until(lambda: page.id("model").text)
    page.id("question").send_keys("Who?", Keys.ENTER)
    page.until(lambda: page.id("alert").is_displayed())
    assert "There is no collection" in page.id("alert").text
    assert page.id("outcome").text == "Broken off."


# --- Keys ---------------------------------------------------------------------------------------------------


def asking_for_a_key(driver: Chrome, client: httpx.Client, collection: str, *expected: str) -> Page:
    """The page of a service with keys, once it asks for one; ``expected`` are the statuses that may be logged."""
    page = Page(driver, str(client.base_url).rstrip("/"))
    page.expected = [*expected]
    page.open(collection)
    page.until(lambda: page.id("key-dialog").is_displayed())
    return page


def test_a_key_is_asked_for_used_and_kept_in_the_tab_alone(
    driver: Chrome, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    with running_server(tmp_path, tiny_checkpoint, api_keys="the-key") as client:
        page = asking_for_a_key(driver, client, "default", "401")
        page.press("wrong-key", Keys.ENTER)  # the field has the focus
        page.until(lambda: page.id("key-wrong").text == "The service does not know this key.")
        page.press("the-key", Keys.ENTER)
        page.paste(TEXT)
        page.ask(QUESTION)
        assert len(page.all("#steps li")) == 6
        assert page.run("return Object.values(sessionStorage)") == ["the-key"]
        assert page.run("return [localStorage.length, document.cookie]") == [0, ""]
        driver.refresh()
        page.until(lambda: page.ready())
        assert not page.id("key-dialog").is_displayed()
        page.id("forget-key").click()
        page.until(lambda: page.id("key-dialog").is_displayed())
        assert page.run("return sessionStorage.length") == 0
        page.press(Keys.ESCAPE)
        page.until(lambda: page.id("alert").is_displayed())
        assert "Send a valid key" in page.id("alert").text
        page.assert_clean()


def test_a_key_that_may_not_read_can_be_forgotten(driver: Chrome, tmp_path: Path, tiny_checkpoint: Path) -> None:
    key = add_key(tmp_path / "keys.json", "writer", ["write"], None)
    with running_server(tmp_path, tiny_checkpoint) as client:
        page = asking_for_a_key(driver, client, "default", "401", "403")
        page.press(key, Keys.ENTER)
        page.until(lambda: "Use one that may read" in page.id("alert").text)
        page.id("forget-key").click()
        page.until(lambda: page.id("key-dialog").is_displayed())
        page.assert_clean()


def test_a_collection_that_the_key_is_not_for_does_not_end_the_page(
    driver: Chrome, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    key = add_key(tmp_path / "keys.json", "reader", ["read", "write"], ["mine"])
    with running_server(tmp_path, tiny_checkpoint) as client:
        page = asking_for_a_key(driver, client, "theirs", "401", "403")
        page.press(key, Keys.ENTER)
        page.until(lambda: "mine" in page.id("alert").text)
        page.id("collection-name").send_keys("mine", Keys.ENTER)
        page.paste(TEXT)
        page.ask(QUESTION)
        page.assert_clean()
